"""The memory plan."""

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from decoder_service.cache.memory import (
    MIB,
    MemoryPlan,
    kv_budget_bytes,
    plan_memory,
)
from protos.process.settings import SettingError


def plan(
    budget_mib: int,
    *,
    sequences: int | None = None,
    context: int | None = None,
    model_context: int = 262_144,
    token_bytes: int = 229_376,  # the 2B shape in float32
) -> MemoryPlan:
    return plan_memory(
        model_context=model_context,
        token_bytes=token_bytes,
        budget_bytes=budget_mib * MIB,
        max_sequences=sequences,
        max_context=context,
    )


def test_much_memory_gives_the_defaults() -> None:
    chosen = plan(200_000)
    assert (chosen.max_sequences, chosen.max_context) == (16, 32_768)


def test_little_memory_gives_fewer_sequences_of_useful_length() -> None:
    chosen = plan(8_000)
    assert chosen.max_sequences == 8
    assert 4096 <= chosen.max_context <= chosen.kv_tokens // 2


def test_very_little_memory_still_gives_one_sequence() -> None:
    assert plan(100).max_sequences == 1


def test_a_small_model_bounds_the_context() -> None:
    assert plan(8_000, model_context=4096, token_bytes=1024).max_context == 4096


def test_sequences_share_what_one_of_them_may_take_alone() -> None:
    chosen = plan(8_000, sequences=16, context=32_768)
    assert chosen.kv_tokens == 8_000 * MIB // 229_376
    assert chosen.slot_count > 16


def test_settings_are_kept() -> None:
    assert plan(8_000, sequences=3).max_sequences == 3
    assert plan(8_000, context=1000).max_context == 1000
    both = plan(8_000, sequences=3, context=1000)
    assert (both.max_sequences, both.max_context) == (3, 1000)


@pytest.mark.parametrize(("sequences", "context"), [(None, 200_000), (100_000, None), (1, 262_145)])
def test_settings_that_do_not_fit_are_refused(sequences: int | None, context: int | None) -> None:
    with pytest.raises(SettingError):
        plan(8_000, sequences=sequences, context=context)


def test_no_memory_at_all_is_refused() -> None:
    with pytest.raises(SettingError):
        plan(0)


@settings(deadline=None)
@given(
    budget=st.integers(1, 100_000),
    sequences=st.none() | st.integers(1, 64),
    context=st.none() | st.integers(2, 100_000),
)
def test_no_plan_passes_its_budget(budget: int, sequences: int | None, context: int | None) -> None:
    try:
        chosen = plan(budget, sequences=sequences, context=context)
    except SettingError:
        return
    assert chosen.max_context <= chosen.kv_tokens
    assert chosen.kv_tokens * chosen.token_bytes <= chosen.budget_bytes
    assert chosen.max_sequences >= 1 and 2 <= chosen.max_context <= 262_144


def test_the_budget_is_the_setting_or_half_of_what_the_weights_leave() -> None:
    assert kv_budget_bytes(available_bytes=10, weight_bytes=4, kv_memory_mib=3) == 3 * MIB
    assert kv_budget_bytes(available_bytes=10, weight_bytes=4, kv_memory_mib=None) == 3
    assert kv_budget_bytes(available_bytes=4, weight_bytes=10, kv_memory_mib=None) == 0
