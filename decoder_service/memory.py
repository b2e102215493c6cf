"""The memory plan: how many slots of which length fit, from settings and the machine."""

import os
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path

from protos.bundle import TextDims
from protos.settings import SettingError

MIB = 1024 * 1024

DEFAULT_SEQUENCES = 16
DEFAULT_CONTEXT = 32_768
# With little memory, fewer sequences of at least this length rather than many short ones: a
# large picture alone takes a thousand tokens.
LEAST_AUTO_CONTEXT = 4096
# Of what is free once the weights are loaded; the rest is left to activations, features on
# their way, and the other services of the machine.
AUTO_SHARE = 0.5


@dataclass(frozen=True, slots=True, kw_only=True)
class MemoryPlan:
    """Slots of the KV cache and what they take."""

    slot_count: int
    max_context: int
    token_bytes: int
    budget_bytes: int

    @property
    def kv_bytes(self) -> int:
        """Bytes of all slots when full."""
        return self.slot_count * self.max_context * self.token_bytes

    def describe(self) -> str:
        """One line for the log."""
        return (
            f"memory plan: {self.slot_count} slots of {self.max_context} tokens,"
            f" {self.token_bytes} bytes per token, {self.kv_bytes / MIB:.0f} MiB of KV when full,"
            f" budget {self.budget_bytes / MIB:.0f} MiB"
        )


def kv_token_bytes(text: TextDims, element_bytes: int) -> int:
    """Bytes of one token's keys and values in all layers."""
    return 2 * text.num_hidden_layers * text.num_key_value_heads * text.head_dim * element_bytes


def kv_budget_bytes(*, available_bytes: int, weight_bytes: int, kv_memory_mib: int | None) -> int:
    """What the KV cache may take: the setting, or a share of what the weights leave."""
    if kv_memory_mib is not None:
        return kv_memory_mib * MIB
    return int(max(0, available_bytes - weight_bytes) * AUTO_SHARE)


def plan_memory(
    *,
    model_context: int,
    token_bytes: int,
    budget_bytes: int,
    max_sequences: int | None,
    max_context: int | None,
) -> MemoryPlan:
    """Fits slots into the budget; settings that are given are kept or refused.

    Raises:
        SettingError: the settings do not fit into the budget or the model.
    """
    if max_context is not None and max_context > model_context:
        raise SettingError(f"max_context is {max_context}, the model ends at {model_context}")
    capacity = budget_bytes // token_bytes
    slots, context = max_sequences, max_context
    if slots is None and context is None:
        least = min(LEAST_AUTO_CONTEXT, model_context)
        slots = max(1, min(DEFAULT_SEQUENCES, capacity // least))
    if slots is None and context is not None:
        slots = max(1, min(DEFAULT_SEQUENCES, capacity // context))
    assert slots is not None, "one of the two branches above set it"
    if context is None:
        context = min(model_context, DEFAULT_CONTEXT, capacity // slots)
    if context < 2 or slots * context > capacity:
        needed = slots * max(2, context) * token_bytes
        raise SettingError(
            f"kv_memory_mib: {slots} sequences of {max(2, context)} tokens need"
            f" {needed / MIB:.0f} MiB of KV, {budget_bytes / MIB:.0f} MiB are there;"
            " lower max_sequences or max_context, or raise kv_memory_mib"
        )
    return MemoryPlan(
        slot_count=slots, max_context=context, token_bytes=token_bytes, budget_bytes=budget_bytes
    )


def available_bytes(root: Path = Path("/")) -> int:
    """Memory this process may still take: the machine's, or its control group's if less."""
    available = _machine_available(root)
    limit = _number(root / "sys/fs/cgroup/memory.max")
    used = _number(root / "sys/fs/cgroup/memory.current")
    if limit is not None and used is not None:
        available = min(available, max(0, limit - used))
    return available


def _machine_available(root: Path) -> int:
    try:
        lines = (root / "proc/meminfo").read_text().splitlines()
    except OSError:
        return os.sysconf("SC_PAGE_SIZE") * os.sysconf("SC_AVPHYS_PAGES")
    fields: Mapping[str, str] = dict(line.split(":", 1) for line in lines if ":" in line)
    return int(fields["MemAvailable"].split()[0]) * 1024


def _number(file: Path) -> int | None:
    try:
        text = file.read_text().strip()
    except OSError:
        return None
    return int(text) if text.isdigit() else None
