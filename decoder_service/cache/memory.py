"""The memory plan: how many sequences of which length fit, from settings and the machine."""

from dataclasses import dataclass

from decoder_service.cache.slots import SLOTS_PER_SEQUENCE
from protos.bundle.manifest import TextDims
from protos.process.settings import SettingError

MIB = 1024 * 1024

DEFAULT_SEQUENCES = 16
DEFAULT_CONTEXT = 32_768
# With little memory, fewer sequences of at least this length rather than many short ones: a
# large image alone takes a thousand tokens.
LEAST_AUTO_CONTEXT = 4096
# Fewer tokens of the budget than this for each sequence, and most could not run at once anyway.
LEAST_SEQUENCE = 64
# Of what is free once the weights are loaded; the rest is left to activations, features on
# their way, and the other services of the machine.
AUTO_SHARE = 0.5


@dataclass(frozen=True, slots=True, kw_only=True)
class MemoryPlan:
    """What the KV cache may hold.

    Attributes:
        max_sequences: Sequences that run at once.
        max_context: Most tokens of one.
        kv_tokens: Tokens that may take memory, of running and of ended sequences together.
        token_bytes: Bytes of one.
        budget_bytes: What they may take.
    """

    max_sequences: int
    max_context: int
    kv_tokens: int
    token_bytes: int
    budget_bytes: int

    @property
    def slot_count(self) -> int:
        """Rows of the buffers; they take address space, and memory only once written."""
        return SLOTS_PER_SEQUENCE * self.max_sequences

    def describe(self) -> str:
        """One line for the log."""
        return (
            f"memory plan: {self.max_sequences} sequences of up to {self.max_context} tokens,"
            f" KV of {self.kv_tokens} tokens in total, {self.token_bytes} bytes per token,"
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
    """Fits sequences into the budget; settings that are given are kept or refused.

    Sequences share the budget as they grow, so it need not hold all of them at their longest;
    but any one of them.

    Raises:
        SettingError: the settings do not fit into the budget or the model.
    """
    if max_context is not None and max_context > model_context:
        raise SettingError(f"max_context is {max_context}, the model ends at {model_context}")
    kv_tokens = budget_bytes // token_bytes
    context = max_context
    if context is None:
        # Half: the rest lets images in the cache be promised to sequences that wait.
        context = min(model_context, DEFAULT_CONTEXT, max(2, kv_tokens // 2))
    sequences = max_sequences
    if sequences is None:
        least = min(LEAST_AUTO_CONTEXT, max_context or model_context)
        sequences = max(1, min(DEFAULT_SEQUENCES, kv_tokens // least))
    if sequences * LEAST_SEQUENCE > kv_tokens and sequences > 1:
        raise SettingError(
            f"max_sequences is {sequences}, the KV cache holds {kv_tokens} tokens in total;"
            " lower it or raise kv_memory_mib"
        )
    if context > kv_tokens:
        raise SettingError(
            f"kv_memory_mib: a sequence of {context} tokens needs"
            f" {context * token_bytes / MIB:.0f} MiB of KV, {budget_bytes / MIB:.0f} MiB are"
            " there; lower max_context or raise kv_memory_mib"
        )
    return MemoryPlan(
        max_sequences=sequences,
        max_context=context,
        kv_tokens=kv_tokens,
        token_bytes=token_bytes,
        budget_bytes=budget_bytes,
    )
