"""The rows of a pass in PyTorch: those of images that left are taken out between two blocks."""

from collections.abc import Sequence
from typing import Any

import torch

from protos.media.images import Grid
from vision_service.towers.members import Abandoned, Members


class PassRows:
    """Hidden states of one pass, of which fewer and fewer are computed.

    Args:
        grids: Of the images.
        members: The same images.
        merged_patches: Patches of one token.
    """

    def __init__(self, grids: Sequence[Grid], members: Members, *, merged_patches: int) -> None:
        self._grids = grids
        self._members = members
        self._merged_patches = merged_patches
        self._present = list(range(len(grids)))

    def before_block(
        self, hidden: torch.Tensor, arguments: dict[str, Any]
    ) -> tuple[torch.Tensor, dict[str, Any]]:
        """What a block computes in place of what it was given.

        Args:
            hidden: [rows, hidden], of the images that the block before it computed.
            arguments: The others: `cu_seqlens` [S + 1] and `position_embeddings` [P, head_dim] x 2,
                of all images, among them.

        Raises:
            Abandoned: nobody remains.
        """
        remaining = self._members.remaining
        if not remaining:
            raise Abandoned
        counts = [grid.patches for grid in self._grids]
        if remaining != self._present:
            parts = torch.split(hidden, [counts[image] for image in self._present])
            kept = dict(zip(self._present, parts, strict=True))
            # Who left while this ran stays for one block more.
            self._present = [image for image in self._present if image in remaining]
            hidden = torch.cat([kept[image] for image in self._present])
        self._members.rows_computed[self._present] += [counts[image] for image in self._present]
        if len(self._present) == len(counts):
            return hidden, arguments
        positions = tuple(
            self._rows_of(table, counts) for table in arguments["position_embeddings"]
        )
        bounds = self._bounds(arguments["cu_seqlens"])
        return hidden, {**arguments, "cu_seqlens": bounds, "position_embeddings": positions}

    def after_merger(self, merged: torch.Tensor) -> torch.Tensor:
        """A level [N, H] of all images, zeros for those that left."""
        counts = [grid.patches // self._merged_patches for grid in self._grids]
        if len(self._present) == len(counts):
            return merged
        level = merged.new_zeros((sum(counts), merged.shape[1]))
        places = torch.split(level, counts)
        parts = torch.split(merged, [counts[image] for image in self._present])
        for image, part in zip(self._present, parts, strict=True):
            places[image].copy_(part)
        return level

    def _rows_of(self, table: torch.Tensor, counts: list[int]) -> torch.Tensor:
        parts = torch.split(table, counts)
        return torch.cat([parts[image] for image in self._present])

    def _bounds(self, like: torch.Tensor) -> torch.Tensor:
        """A frame attends to itself alone, so each image has as many segments as frames."""
        grids = [self._grids[image] for image in self._present]
        lengths = [0, *(grid.h * grid.w for grid in grids for _ in range(grid.t))]
        return torch.tensor(lengths, device=like.device).cumsum(0).to(like.dtype)
