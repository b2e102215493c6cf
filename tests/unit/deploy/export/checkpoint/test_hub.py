"""A hub's checkpoint is refused before its weights are fetched; the fake hub counts the bytes."""

import json
import shutil
from collections.abc import Callable, Iterator, Mapping
from pathlib import Path
from typing import Any

import pytest
import torch
from huggingface_hub import constants
from safetensors.torch import load_file, save_file

from deploy.export.checkpoint import hub
from deploy.export.checkpoint.checkpoint import Checkpoint
from deploy.export.errors import ExportError
from tests.support.bundles import checkpoint
from tests.support.fake_hub import FakeHub

NAME = "owner/Qwen3-VL-4B-Instruct-changed"
Change = Callable[[dict[str, Any]], object]
Served = Callable[[Path], FakeHub]


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    """A copy of a tiny checkpoint in one file, to change before it is served."""
    return Path(shutil.copytree(checkpoint("odd"), tmp_path / "checkpoint"))


@pytest.fixture
def served(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[Served]:
    """Serves a folder as the hub that huggingface_hub asks, with an empty cache."""
    running: list[FakeHub] = []

    def serve(folder: Path) -> FakeHub:
        fake = FakeHub(NAME, folder, {"pytorch_model.bin": b"\x80\x04"})
        monkeypatch.setattr(constants, "ENDPOINT", fake.url)
        template = fake.url + "/{repo_id}/resolve/{revision}/{filename}"
        monkeypatch.setattr(constants, "HUGGINGFACE_CO_URL_TEMPLATE", template)
        monkeypatch.setattr(constants, "HF_HUB_CACHE", str(tmp_path / "cache"))
        monkeypatch.setattr(constants, "HF_HUB_DISABLE_XET", True)
        running.append(fake)
        return fake.__enter__()

    yield serve
    for fake in running:
        fake.__exit__(None, None, None)


def edit(file: Path, change: Change) -> None:
    value = json.loads(file.read_text())
    change(value)
    file.write_text(json.dumps(value))


def fetched(fake: FakeHub) -> set[str]:
    return set(fake.sent)


def test_a_checkpoint_that_can_be_served_is_fetched_whole(folder: Path, served: Served) -> None:
    fake = served(folder)
    located = hub.locate(NAME)
    assert (located.model_id, located.revision) == (NAME, fake.commit)
    assert Checkpoint.open(located.path).text == Checkpoint.open(folder).text
    assert "pytorch_model.bin" not in fake.sent


def test_a_checkpoint_saved_by_transformers_5_is_fetched_whole(
    folder: Path, served: Served
) -> None:
    both = {}
    for kind, name in (("image", "preprocessor"), ("video", "video_preprocessor")):
        both[f"{kind}_processor"] = json.loads((folder / f"{name}_config.json").read_text())
        (folder / f"{name}_config.json").unlink()
    (folder / "processor_config.json").write_text(json.dumps(both))
    fake = served(folder)
    opened = Checkpoint.open(hub.locate(NAME).path)
    assert json.loads(opened.processor_files["preprocessor_config.json"]) == both["image_processor"]
    assert "processor_config.json" in fake.sent


CONFIGS: dict[str, tuple[dict[str, Any], str]] = {
    "quantized": ({"quantization_config": {"quant_method": "fp8"}}, "Qwen/Qwen3-VL-4B-Instruct$"),
    "compressed": ({"compression_config": {}}, "Qwen/Qwen3-VL-4B-Instruct$"),
    "experts": ({"model_type": "qwen3_vl_moe"}, "take Qwen/Qwen3-VL-4B-Instruct$"),
    "foreign": ({"model_type": "gemma3"}, "take Qwen/Qwen3-VL-4B-Instruct$"),
    "another head": ({"architectures": ["Qwen3VLModel"]}, "take Qwen/Qwen3-VL-4B-Instruct$"),
    "no image token": ({"text_config": {}}, "text_config lacks"),
}


@pytest.mark.parametrize("case", CONFIGS)
def test_config_json_alone_is_enough_to_refuse(folder: Path, served: Served, case: str) -> None:
    values, match = CONFIGS[case]
    edit(folder / "config.json", lambda raw: raw.update(values))
    fake = served(folder)
    with pytest.raises(ExportError, match=match):
        hub.locate(NAME)
    assert fetched(fake) == {"config.json"}


def test_a_repository_without_a_config_is_refused(folder: Path, served: Served) -> None:
    (folder / "config.json").unlink()
    fake = served(folder)
    with pytest.raises(ExportError, match=r"lacks config\.json"):
        hub.locate(NAME)
    assert fetched(fake) == set()


def template_list(raw: dict[str, Any]) -> None:
    raw["chat_template"] = [{"name": name, "template": ""} for name in ("default", "tool_use")]


SETTINGS: Mapping[str, tuple[str, Change, str]] = {
    "resampling": ("preprocessor_config.json", lambda raw: raw.update(resample=2), "resample"),
    "a step off": ("preprocessor_config.json", lambda raw: raw.update(do_resize=False), "do_res"),
    "no size": ("preprocessor_config.json", lambda raw: raw.pop("size"), "lacks size"),
    "text": ("generation_config.json", lambda raw: raw.update(temperature="0.7"), "temperature"),
    "range": ("generation_config.json", lambda raw: raw.update(top_k=-1), "top_k"),
    "templates": ("tokenizer_config.json", template_list, "list of the templates"),
    "code": ("tokenizer_config.json", lambda raw: raw.update(auto_map={}), "auto_map"),
}


@pytest.mark.parametrize("case", SETTINGS)
def test_settings_are_refused_before_the_weights(folder: Path, served: Served, case: str) -> None:
    name, change, match = SETTINGS[case]
    if case == "templates":
        (folder / "chat_template.jinja").unlink()
    edit(folder / name, change)
    fake = served(folder)
    with pytest.raises(ExportError, match=match):
        hub.locate(NAME)
    assert name in fetched(fake)
    assert not [file for file in fetched(fake) if file.endswith(".safetensors")]


def test_a_byte_order_mark_is_refused_before_the_weights(folder: Path, served: Served) -> None:
    file = folder / "generation_config.json"
    file.write_text("\ufeff" + file.read_text())
    fake = served(folder)
    with pytest.raises(ExportError, match="byte order mark"):
        hub.locate(NAME)
    assert not [file for file in fetched(fake) if file.endswith(".safetensors")]


def with_tensor(folder: Path, name: str, value: torch.Tensor) -> int:
    """Stores one tensor more; returns the size of the weights' file in bytes."""
    file = folder / "model.safetensors"
    save_file({**load_file(file), "padding": torch.zeros(2_000_000), name: value}, file)
    return file.stat().st_size


def test_weights_of_integers_cost_a_header(folder: Path, served: Served) -> None:
    name = "model.language_model.layers.0.mlp.up_proj.weight"
    size = with_tensor(folder, name, torch.ones(131, 75, dtype=torch.int8))
    fake = served(folder)
    with pytest.raises(ExportError, match=f"{name} is stored as I8"):
        hub.locate(NAME)
    assert 0 < fake.sent["model.safetensors"] < 250_000 < size


def test_a_buffer_of_integers_is_no_reason_to_refuse(folder: Path, served: Served) -> None:
    size = with_tensor(folder, "model.visual.position_ids", torch.arange(4))
    fake = served(folder)
    Checkpoint.open(hub.locate(NAME).path)
    assert fake.sent["model.safetensors"] > size


def test_what_the_cache_holds_is_not_fetched_again(folder: Path, served: Served) -> None:
    fake = served(folder)
    first = hub.locate(NAME)
    fake.sent.clear()
    assert hub.locate(NAME) == first
    assert fetched(fake) == set()
