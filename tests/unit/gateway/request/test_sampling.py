"""How tokens are chosen: the checkpoint's presets, the client's numbers, one seed per choice."""

import pytest

from gateway.request.sampling import for_choice, presets, sampling_params, with_presets
from protos.bundle.manifest import BundleError
from protos.tandem.v1.decoder_pb2 import LogitBias, SamplingParams
from protos.wire.errors import InvalidRequest


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


def test_a_seed_is_never_the_checkpoints() -> None:
    assert presets({"seed": 5, "temperature": None}) == SamplingParams()


@pytest.mark.parametrize(
    "generation", [{"top_k": -1}, {"top_p": -0.1}, {"temperature": "hot"}, {"top_k": 2.5}], ids=str
)
def test_presets_that_cannot_be_served_are_the_bundles_fault(generation: dict[str, object]) -> None:
    (name,) = generation
    with pytest.raises(BundleError, match=name):
        presets(generation)


def test_what_a_client_left_out_stays_unset() -> None:
    params = sampling_params({"temperature": 0.0, "top_p": None}, {7: -1.5})
    bias = LogitBias(token_id=7, bias=-1.5)
    assert params == SamplingParams(temperature=0.0, logit_bias=[bias])


@pytest.mark.parametrize(
    ("values", "logit_bias", "named"),
    [
        ({"top_k": 2**31}, {}, "top_k"),
        ({"seed": -(2**63) - 1}, {}, "seed"),
        ({"temperature": 1e300}, {}, "temperature"),
        ({}, {2**31: 1.0}, "logit_bias"),
        ({}, {1: 1e300}, "logit_bias"),
    ],
)
def test_numbers_the_message_cannot_hold_are_refused_by_name(
    values: dict[str, float], logit_bias: dict[int, float], named: str
) -> None:
    with pytest.raises(InvalidRequest) as caught:
        sampling_params(values, logit_bias)
    assert caught.value.param == named
