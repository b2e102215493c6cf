"""How tokens are chosen: the checkpoint's presets, the client's numbers, one seed per choice."""

from gateway.request.sampling import for_choice, presets, with_presets
from protos.tandem.v1.decoder_pb2 import SamplingParams


def test_generation_config_fills_only_what_is_unset() -> None:
    preset = presets({"temperature": 0.7, "top_k": 20, "max_new_tokens": 5, "eos_token_id": [1]})
    filled = with_presets(SamplingParams(temperature=0.0, top_p=0.5), preset)
    assert filled == SamplingParams(temperature=0.0, top_p=0.5, top_k=20)


def test_a_checkpoint_that_does_not_sample_is_greedy() -> None:
    preset = presets({"do_sample": False, "temperature": 0.7})
    assert with_presets(SamplingParams(), preset) == SamplingParams(temperature=0.0)
    assert with_presets(SamplingParams(temperature=1.0), preset).temperature == 1.0


def test_each_choice_gets_a_seed_of_its_own_within_int64() -> None:
    seeds = [for_choice(SamplingParams(seed=2**63 - 1), index).seed for index in range(3)]
    assert seeds == [2**63 - 1, -(2**63), -(2**63) + 1]
    assert not for_choice(SamplingParams(), 2).HasField("seed")
