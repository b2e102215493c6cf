"""One lesson: a loop of training steps that shows progress, saves itself and resumes."""

import json
import os
from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass
from pathlib import Path
from time import perf_counter
from typing import Any

import torch
from torch import Tensor, nn
from torch.utils.data import DataLoader, Dataset
from tqdm import tqdm  # type: ignore[import-untyped]

from tests.demo_model.optimizer import Optimizers, rate_share
from tests.demo_model.team import Member

SAVE_EVERY = 100
LOG_EVERY = 25
MEMORY = 0.96  # of the running averages that are shown and logged

Metrics = dict[str, float]


class Batches(Dataset[Any]):
    """Batches by number, so that a resumed run sees exactly what it would have seen."""

    def __init__(self, make: Callable[[int], Any], steps: int) -> None:
        self.make = make
        self.steps = steps

    def __len__(self) -> int:
        return self.steps

    def __getitem__(self, index: int) -> Any:
        torch.set_num_threads(1)  # this runs in the drawing process
        return self.make(index)


@dataclass(kw_only=True)
class Lesson:
    """What is trained, on what, for how long, and where it is kept."""

    name: str
    folder: Path
    steps: int
    decay_steps: int  # at the end, over which the learning rate falls to zero
    make_batch: Callable[[int], Any]
    measure: Callable[[int, Any], tuple[Tensor, Metrics]]
    modules: Mapping[str, nn.Module]
    optimizers: Optimizers
    member: Member

    def run(self) -> None:
        """Trains to the last step, starting from the last save if there is one."""
        step, averages, spent, random = self.load()
        begun = perf_counter() - spent
        hidden = not self.member.leads
        progress = tqdm(
            total=self.steps, initial=step, desc=self.name, mininterval=5, disable=hidden
        )
        batches = self.batches(step)
        if random is not None:
            torch.set_rng_state(random)  # not before: the iterator draws a number for itself
        for batch in batches:
            loss, metrics = self.measure(step, batch)
            loss.backward()  # type: ignore[no-untyped-call]
            self.member.average_gradients(self.parameters)
            self.optimizers.step(rate_share(step, self.steps, self.decay_steps))
            step += 1
            for key, value in (metrics | {"loss": loss.item()}).items():
                if value == value:  # not a number: nothing of the kind was in the batch
                    averages[key] = MEMORY * averages.get(key, value) + (1 - MEMORY) * value
            progress.update()
            if self.member.leads:
                self.keep(step, averages, perf_counter() - begun)
                progress.set_postfix_str(f"loss {averages['loss']:.3f}", refresh=False)
        progress.close()
        self.member.wait()

    @property
    def parameters(self) -> list[nn.Parameter]:
        """Everything that is trained."""
        return [
            p for module in self.modules.values() for p in module.parameters() if p.requires_grad
        ]

    def keep(self, step: int, averages: Metrics, seconds: float) -> None:
        """Logs and saves when it is time to."""
        if step % LOG_EVERY == 0 or step == self.steps:
            self.log(step, seconds, averages)
        if step % SAVE_EVERY == 0 or step == self.steps:
            self.save(step, averages, seconds)

    def batches(self, start: int) -> Iterator[Any]:
        """Batches from a step on, drawn in another process."""
        loader = DataLoader(
            Batches(self.make_batch, self.steps),
            batch_size=None,
            sampler=range(start, self.steps),
            num_workers=1 if start < self.steps else 0,
            prefetch_factor=6 if start < self.steps else None,
        )
        return iter(loader)

    def load(self) -> tuple[int, Metrics, float, Tensor | None]:
        """Steps done, averages, seconds spent so far, and the state of torch's random numbers."""
        if not self.path.exists():
            return 0, {}, 0.0, None
        state = torch.load(self.path, weights_only=True)
        for name, module in self.modules.items():
            module.load_state_dict(state["modules"][name])
        self.optimizers.load_state_dict(state["optimizers"])
        return state["step"], state["averages"], state["seconds"], state["random"]

    def save(self, step: int, averages: Metrics, seconds: float) -> None:
        """Keeps everything a resumed run needs, whole or not at all."""
        state = {
            "step": step,
            "averages": averages,
            "seconds": seconds,
            "modules": {name: module.state_dict() for name, module in self.modules.items()},
            "optimizers": self.optimizers.state_dict(),
            "random": torch.get_rng_state(),
        }
        draft = self.path.with_suffix(".draft")
        torch.save(state, draft)
        os.replace(draft, self.path)

    def log(self, step: int, seconds: float, averages: Metrics) -> None:
        """Adds one JSON line to the lesson's log."""
        row = {"step": step, "seconds": round(seconds, 1)}
        row |= {key: round(value, 4) for key, value in averages.items()}
        with (self.folder / f"{self.name}.jsonl").open("a") as log:
            log.write(json.dumps(row) + "\n")

    @property
    def path(self) -> Path:
        """Where the lesson is saved."""
        return self.folder / f"{self.name}.pt"
