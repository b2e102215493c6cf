"""Two processes of one thread each train together and average their gradients.

On two shared cores this is about twice as fast as one process of two threads, which would wait
for the slower thread in every operation instead of once per step.
"""

import multiprocessing
import os
import threading
from collections.abc import Callable, Iterable
from dataclasses import dataclass
from datetime import timedelta
from pathlib import Path

import torch
import torch.distributed as dist
from torch import nn
from torch.multiprocessing.spawn import spawn

PATIENCE = timedelta(hours=3)


@dataclass(frozen=True, slots=True)
class Member:
    """One process of the team."""

    rank: int
    size: int

    @property
    def leads(self) -> bool:
        """Whether this one shows progress, logs and saves."""
        return self.rank == 0

    def average_gradients(self, parameters: Iterable[nn.Parameter]) -> None:
        """Replaces every gradient by its mean over the team; none counts as zero."""
        if self.size == 1:
            return
        gradients = []
        for parameter in parameters:
            if parameter.grad is None:
                parameter.grad = torch.zeros_like(parameter)
            gradients.append(parameter.grad)
        flat = torch.cat([gradient.flatten() for gradient in gradients])
        dist.all_reduce(flat)
        flat /= self.size
        means = torch.split(flat, [gradient.numel() for gradient in gradients])
        for gradient, mean in zip(gradients, means, strict=True):
            gradient.copy_(mean.view_as(gradient))

    def wait(self) -> None:
        """Returns when all have come this far."""
        if self.size > 1:
            dist.barrier()


ALONE = Member(rank=0, size=1)


def run_team(size: int, meeting_point: Path, work: Callable[[Member], None]) -> None:
    """Runs the work in some processes that know each other, and returns when all are done."""
    meeting_point.unlink(missing_ok=True)
    spawn(_join, (size, meeting_point, work), nprocs=size)  # type: ignore[no-untyped-call]
    meeting_point.unlink(missing_ok=True)


def _join(rank: int, size: int, meeting_point: Path, work: Callable[[Member], None]) -> None:
    os.setsid()  # Linux shares a busy machine out by session: one member, one share
    threading.Thread(target=_end_with_parent, daemon=True).start()
    torch.set_num_threads(1)
    dist.init_process_group(
        "gloo",
        init_method=f"file://{meeting_point.resolve()}",
        rank=rank,
        world_size=size,
        timeout=PATIENCE,
    )
    work(Member(rank, size))
    dist.destroy_process_group()


def _end_with_parent() -> None:
    """Ends this process when the one that started it is gone, whatever ended that.

    torch sends SIGINT then, which whoever runs in the background ignores; left alone, two teams
    would write to one folder once the run is taken up again.
    """
    parent = multiprocessing.parent_process()
    if parent is not None:
        parent.join()
        os._exit(1)
