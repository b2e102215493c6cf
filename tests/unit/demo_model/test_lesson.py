"""A lesson goes on after a kill as if nothing had happened, and logs every step once."""

import json
from pathlib import Path

import pytest
import torch
from torch import Tensor, nn

from tests.demo_model import lesson as lessons
from tests.demo_model.curve import read_log
from tests.demo_model.lesson import Lesson, Metrics
from tests.demo_model.optimizer import Optimizers, rate_share
from tests.demo_model.team import ALONE

STEPS = 12


class Killed(Exception):
    """Stands for a kill: nothing after it runs."""


def make_batch(index: int) -> Tensor:
    return torch.randn(4, 8, generator=torch.Generator().manual_seed(index))


def new_model() -> nn.ModuleDict:
    torch.manual_seed(0)
    return nn.ModuleDict({"layers": nn.Linear(8, 8)})


def new_lesson(folder: Path, killed_at: int | None = None) -> Lesson:
    model = new_model()

    def measure(step: int, batch: Tensor) -> tuple[Tensor, Metrics]:
        if step == killed_at:
            raise Killed
        noisy = batch + 0.1 * torch.randn_like(batch)
        error = (model["layers"](noisy) - batch.flip(1)).square().mean()
        return error, {"error": error.item()}

    return Lesson(
        name="copying",
        folder=folder,
        steps=STEPS,
        decay_steps=4,
        make_batch=make_batch,
        measure=measure,
        modules={"model": model},
        optimizers=Optimizers({"model": model}, 1e-2),
        member=ALONE,
    )


def trained(lesson: Lesson) -> dict[str, Tensor]:
    lesson.run()
    return dict(lesson.modules["model"].state_dict())


@pytest.fixture(autouse=True)
def often(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(lessons, "SAVE_EVERY", 4)
    monkeypatch.setattr(lessons, "LOG_EVERY", 2)


@pytest.mark.parametrize("killed_at", [1, 4, 7, 11])
def test_a_killed_lesson_ends_as_one_that_was_not(tmp_path: Path, killed_at: int) -> None:
    (tmp_path / "whole").mkdir()
    (tmp_path / "killed").mkdir()
    expected = trained(new_lesson(tmp_path / "whole"))
    with pytest.raises(Killed):
        new_lesson(tmp_path / "killed", killed_at).run()

    found = trained(new_lesson(tmp_path / "killed"))

    assert all(torch.equal(found[name], value) for name, value in expected.items())
    logs = [read_log(tmp_path / name / "copying.jsonl") for name in ("whole", "killed")]
    for rows in logs:
        assert [row["step"] for row in rows] == list(range(2, STEPS + 1, 2))
    assert [row["error"] for row in logs[0]] == [row["error"] for row in logs[1]]


def test_a_save_is_whole_or_not_there(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    new_lesson(tmp_path).save(4, {}, 1.0)

    def save_half(_: object, file: Path) -> None:
        file.write_bytes(b"half")
        raise Killed

    monkeypatch.setattr(torch, "save", save_half)
    with pytest.raises(Killed):
        new_lesson(tmp_path).save(8, {}, 2.0)

    assert new_lesson(tmp_path).load()[:3] == (4, {}, 1.0)


def test_a_finished_lesson_is_not_run_again(tmp_path: Path) -> None:
    expected = trained(new_lesson(tmp_path))
    log = (tmp_path / "copying.jsonl").read_text()

    found = trained(new_lesson(tmp_path, killed_at=0))

    assert all(torch.equal(found[name], value) for name, value in expected.items())
    assert (tmp_path / "copying.jsonl").read_text() == log
    assert json.loads(log.splitlines()[-1])["step"] == STEPS


def test_the_learning_rate_rises_stays_and_falls() -> None:
    shares = [rate_share(step, steps=1000, decay_steps=100) for step in range(1000)]

    assert shares[0] < shares[30] < 1
    assert set(shares[60:900]) == {1.0}
    assert 0 < shares[999] < shares[950] < 1
