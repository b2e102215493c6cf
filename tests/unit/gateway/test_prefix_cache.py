"""The gateway's side of the prefix cache: what is not encoded, and who shares what."""

from pathlib import Path
from typing import Any

import grpc
import pytest

from gateway.access.tenants import Tenants
from gateway.config import GatewayConfig
from gateway.request.conversation import Conversation, ImagePart, Message, Role, TextPart
from gateway.tiers.affinity import affinity
from protos.bundle.manifest import Bundle
from protos.process.settings import SettingError
from protos.tandem.v1 import gateway_pb2
from protos.wire.errors import InvalidRequest
from tests.support.prompts import png
from tests.unit.gateway.stage import Stage, about_images, image_part, staged, user

pytestmark = pytest.mark.asyncio(loop_scope="module")

SECRET = "a secret of enough characters"


def follow_up() -> list[Any]:
    return [
        *about_images((64, 64)),
        {"role": "assistant", "content": "An image."},
        {"role": "user", "content": "Of what?"},
    ]


async def test_a_follow_up_about_a_cached_image_costs_no_vision_call(stage: Stage) -> None:
    stage.will_say("Red.")
    stage.decoder.cached_spans = frozenset({0})
    stage.decoder.cached_tokens = 77
    answer = await stage.openai.chat.completions.create(model="test", messages=follow_up())
    assert stage.vision.requests == []
    assert stage.decoder.features == []
    assert answer.usage is not None and answer.usage.prompt_tokens_details is not None
    assert answer.usage.prompt_tokens_details.cached_tokens == 77


async def test_cached_tokens_show_in_a_streams_usage(stage: Stage) -> None:
    stage.will_say("Red.")
    stage.decoder.cached_tokens = 7
    stream = await stage.openai.chat.completions.create(
        model="test", messages=user(), stream=True, stream_options={"include_usage": True}
    )
    usage = [chunk.usage async for chunk in stream if chunk.usage is not None][-1]
    assert usage.prompt_tokens_details is not None
    assert usage.prompt_tokens_details.cached_tokens == 7


async def test_a_cached_image_is_talked_about_while_the_vision_tier_is_dead(
    bundle: Bundle,
) -> None:
    async with staged(bundle) as stage:
        stage.will_say("Red.")
        await stage.vision.die()
        refused = await stage.post(messages=about_images((64, 64)))
        assert refused.status_code == 503
        assert refused.json()["error"]["code"] == "vision_unavailable"
        stage.decoder.cached_spans = frozenset({0})
        answered = await stage.post(messages=follow_up())
        assert answered.status_code == 200, answered.text


async def spans(stage: Stage, *messages: Any) -> list[bytes]:
    stage.decoder.starts.clear()
    assert (await stage.post(messages=[*messages])).status_code == 200
    return [span.digest for span in stage.decoder.starts[0].visual_spans]


async def test_equal_images_have_equal_digests_and_others_have_not(stage: Stage) -> None:
    (first,) = await spans(stage, *about_images((64, 64)))
    again = await spans(stage, *about_images((64, 64), (96, 64)))
    assert again[0] == first
    assert again[1] != first
    assert len(first) == 32


async def test_gateways_with_one_secret_name_images_alike(bundle: Bundle) -> None:
    async with (
        staged(bundle, digest_key=SECRET) as one,
        staged(bundle, digest_key=SECRET) as other,
        staged(bundle) as stranger,
    ):
        digests = [
            (await spans(stage, *about_images((64, 64))))[0] for stage in (one, other, stranger)
        ]
        assert digests[0] == digests[1] != digests[2]


async def salts(stage: Stage, key: str, **body: Any) -> bytes:
    stage.decoder.starts.clear()
    headers = {"authorization": f"Bearer {key}"}
    response = await stage.http.post(
        "/v1/chat/completions", json={"messages": user(), **body}, headers=headers
    )
    assert response.status_code == 200, response.text
    return stage.decoder.starts[0].cache_salt


async def test_two_api_keys_share_nothing(bundle: Bundle) -> None:
    async with staged(bundle, api_key="one, two") as stage:
        first, second = await salts(stage, "one"), await salts(stage, "two")
        assert first == await salts(stage, "one")
        assert len({first, second, await salts(stage, "one", cache_salt="x")}) == 3
        assert b"one" not in first
        message = gateway_pb2.ChatMessage(
            role=gateway_pb2.ROLE_USER, content=[gateway_pb2.ContentPart(text="Hello?")]
        )
        stage.decoder.starts.clear()
        metadata = (("authorization", "Bearer two"),)
        call = stage.grpc.Complete(gateway_pb2.ChatRequest(messages=[message]), metadata=metadata)
        assert [chunk async for chunk in call]
        assert stage.decoder.starts[0].cache_salt == second


async def test_without_keys_only_the_clients_salt_parts_requests(stage: Stage) -> None:
    assert await salts(stage, "any") == b""
    salted = await salts(stage, "any", cache_salt="x")
    assert len(salted) == 32
    assert salted == await salts(stage, "other", cache_salt="x")


async def test_the_grpc_doors_salt_is_bounded(stage: Stage) -> None:
    message = gateway_pb2.ChatMessage(
        role=gateway_pb2.ROLE_USER, content=[gateway_pb2.ContentPart(text="Hello?")]
    )
    asked = gateway_pb2.ChatRequest(messages=[message], cache_salt="x" * 257)
    with pytest.raises(grpc.aio.AioRpcError) as caught:
        _ = [chunk async for chunk in stage.grpc.Complete(asked)]
    assert caught.value.code() is grpc.StatusCode.INVALID_ARGUMENT


async def test_the_decoder_is_told_whose_a_sequence_is(bundle: Bundle) -> None:
    asked = [{"role": "user", "content": "Hello"}]
    async with staged(bundle, api_key="first,second") as stage:
        stage.will_say("Hi")
        for key, salt in (("first", {}), ("first", {"cache_salt": "mine"}), ("second", {})):
            stage.http.headers["authorization"] = f"Bearer {key}"
            response = await stage.post(messages=asked, **salt)
            assert response.status_code == 200, response.text
        first, same, second = (start.tenant for start in stage.decoder.starts)
    # A client cannot be several tenants by salts of its own.
    assert first == same != second
    assert len(first) == 16 and b"first" not in first
    assert Tenants(b"secret", bundle_digest="b").name(None) == b""


async def test_a_salt_cannot_be_made_to_look_like_another_tenants() -> None:
    tenants = Tenants(b"secret", bundle_digest="b")
    made = {tenants.salt(*pair) for pair in (("ab", "c"), ("a", "bc"), (None, "abc"), ("abc", ""))}
    assert len(made) == 4
    assert Tenants(b"secret", bundle_digest="c").salt("ab", "c") not in made
    assert Tenants(b"secret", bundle_digest="c").image_key != tenants.image_key
    with pytest.raises(InvalidRequest):
        tenants.salt(None, "x" * 257)


async def test_the_secret_comes_from_a_file_too(tmp_path: Path) -> None:
    file = tmp_path / "key"
    file.write_text(f"{SECRET}\n")
    assert GatewayConfig(bundle="b", digest_key_file=str(file)).secret() == SECRET.encode()
    assert GatewayConfig(bundle="b", digest_key=SECRET).secret() == SECRET.encode()
    assert GatewayConfig(bundle="b").secret() != GatewayConfig(bundle="b").secret()
    file.write_text("short")
    for wrong in (str(file), str(tmp_path / "missing")):
        with pytest.raises(SettingError):
            GatewayConfig(bundle="b", digest_key_file=wrong).secret()


@pytest.mark.parametrize(
    "settings",
    [
        {"digest_key": "short"},
        {"digest_key": SECRET, "digest_key_file": "x"},
        {"api_key": " , "},
    ],
    ids=str,
)
async def test_secrets_that_make_no_sense_prevent_a_start(settings: dict[str, str]) -> None:
    with pytest.raises(SettingError):
        GatewayConfig(bundle="b", **settings)  # type: ignore[arg-type]


def talk(*turns: tuple[Role, str | tuple[TextPart | ImagePart, ...]]) -> Conversation:
    return Conversation(messages=tuple(Message(role=role, content=said) for role, said in turns))


async def test_conversations_that_begin_alike_have_one_affinity() -> None:
    system = (Role.SYSTEM, "Be brief.")
    image, other = ImagePart(data=png(8, 8)), ImagePart(data=png(8, 9))

    def about(shown: ImagePart, question: str) -> tuple[Role, tuple[TextPart | ImagePart, ...]]:
        return Role.USER, (shown, TextPart(text=question))

    begun = affinity(talk(system, about(image, "What?")), b"")
    same = [
        talk(system, about(image, "Which colour?")),
        talk(system, about(image, "What?"), (Role.ASSISTANT, "Red."), (Role.USER, "Sure?")),
    ]
    different = [
        talk(system, about(other, "What?")),
        talk(about(image, "What?")),
        talk(system, (Role.USER, "What?")),
    ]
    assert {affinity(one, b"") for one in same} == {begun}
    assert begun not in {affinity(one, b"") for one in different}
    assert affinity(same[0], b"salt") != begun
    hello = talk((Role.USER, "Hello"))
    longer = talk((Role.USER, "Hello"), (Role.ASSISTANT, "Hi"), (Role.USER, "Bye"))
    assert affinity(hello, b"") == affinity(longer, b"")


async def test_features_of_cached_spans_are_not_sent(stage: Stage) -> None:
    stage.decoder.cached_spans = frozenset({0, 2})
    parts = [image_part(64, 64), image_part(96, 64), image_part(64, 96)]
    assert (await stage.post(messages=[{"role": "user", "content": parts}])).status_code == 200
    assert len(stage.vision.requests) == 1
    assert {message.span_index for _, message in stage.decoder.features} == {1}
