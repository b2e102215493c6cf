"""How a Generate call is opened."""

import pytest

from gateway.tiers.calls.generate import GenerateCall
from protos.tandem.v1 import decoder_pb2
from tests.unit.gateway.stage import Stage, about_images, user

pytestmark = pytest.mark.asyncio(loop_scope="module")


@pytest.fixture
def writes(monkeypatch: pytest.MonkeyPatch) -> list[decoder_pb2.GenerateRequest]:
    """What is written into open calls."""
    written: list[decoder_pb2.GenerateRequest] = []
    send = GenerateCall.send

    async def noted(call: GenerateCall, message: decoder_pb2.GenerateRequest) -> None:
        written.append(message)
        await send(call, message)

    monkeypatch.setattr(GenerateCall, "send", noted)
    return written


async def test_a_prompt_without_images_goes_out_in_one_step(
    stage: Stage, writes: list[decoder_pb2.GenerateRequest]
) -> None:
    stage.will_say("Hi")
    answer = (await stage.post(messages=user())).json()
    assert answer["choices"][0]["message"]["content"] == "Hi"
    assert writes == []
    assert len(stage.decoder.starts) == 1


async def test_features_follow_a_prompt_with_images(
    stage: Stage, writes: list[decoder_pb2.GenerateRequest]
) -> None:
    stage.will_say("Hi")
    assert (await stage.post(messages=about_images((64, 64)))).status_code == 200
    kinds = [message.WhichOneof("payload") for message in writes]
    assert kinds[0] == "start"
    assert set(kinds[1:]) == {"features"}
