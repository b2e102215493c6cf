"""/api through Ollama's own client, over fake tiers."""

from collections.abc import AsyncIterator
from typing import Any

import ollama
import pytest
import pytest_asyncio

from protos.tandem.v1 import decoder_pb2
from protos.wire.errors import Overloaded
from tests.support.prompts import png
from tests.unit.gateway.stage import GENERATION, Stage

pytestmark = pytest.mark.asyncio(loop_scope="module")

HELLO: list[Any] = [{"role": "user", "content": "Hello?"}]


@pytest_asyncio.fixture(loop_scope="module", scope="module")
async def client(module_stage: Stage) -> AsyncIterator[ollama.AsyncClient]:
    async with ollama.AsyncClient(host=str(module_stage.http.base_url)) as opened:
        yield opened


async def test_a_question_is_answered_whole(stage: Stage, client: ollama.AsyncClient) -> None:
    answer = await client.chat(model="test:latest", messages=HELLO, stream=False)
    assert (answer.message.role, answer.message.content) == ("assistant", "Hi there")
    assert (answer.model, answer.done, answer.done_reason) == ("test:latest", True, "stop")
    assert answer.prompt_eval_count == len(stage.decoder.starts[0].input_ids)
    assert answer.eval_count == len(stage.decoder.tokens) + 1
    assert (answer.prompt_eval_duration, answer.eval_duration) == (5_000_000, 7_000_000)
    assert answer.total_duration is not None
    assert answer.total_duration > 0


async def test_answers_are_streamed_unless_the_client_says_otherwise(
    stage: Stage, client: ollama.AsyncClient
) -> None:
    lines = [line async for line in await client.chat(model="test", messages=HELLO, stream=True)]
    assert "".join(line.message.content or "" for line in lines) == "Hi there"
    assert [line.done for line in lines] == [False] * len(stage.decoder.tokens) + [True]
    answer = await stage.http.post("/api/chat", json={"model": "test", "messages": HELLO})
    assert answer.headers["content-type"] == "application/x-ndjson"
    assert len(answer.text.splitlines()) == len(lines)


async def test_a_prompt_is_answered_as_the_same_question(
    stage: Stage, client: ollama.AsyncClient
) -> None:
    said = await client.generate(model="test", prompt="Hello?", system="Be brief.", stream=False)
    assert (said.response, said.done) == ("Hi there", True)
    pieces = [
        piece async for piece in await client.generate(model="test", prompt="Hello?", stream=True)
    ]
    assert "".join(piece.response or "" for piece in pieces) == "Hi there"
    system = [{"role": "system", "content": "Be brief."}, *HELLO]
    await client.chat(model="test", messages=system, stream=False)
    first, _, last = (list(start.input_ids) for start in stage.decoder.starts)
    assert first == last


async def test_images_are_seen_and_a_broken_one_is_named(
    stage: Stage, client: ollama.AsyncClient
) -> None:
    question = {"role": "user", "content": "What?", "images": [png(64, 64), png(32, 64)]}
    await client.chat(model="test", messages=[question], stream=False)
    await client.generate(model="test", prompt="What?", images=[png(64, 64)], stream=False)
    assert len(stage.vision.requests) == 3
    for path, asked, named in (
        ("chat", {"messages": [*HELLO, {"role": "user", "images": ["AAAA"]}]}, "messages[1]."),
        ("generate", {"prompt": "What?", "images": ["AAAA"]}, ""),
    ):
        answer = await stage.http.post(f"/api/{path}", json=asked)
        assert answer.status_code == 400
        assert f"{named}images[0]" in answer.json()["error"]


async def test_options_are_mapped(stage: Stage, client: ollama.AsyncClient) -> None:
    options = {
        "num_predict": 12,
        "temperature": 0.5,
        "top_k": 3,
        "top_p": 0.25,
        "min_p": 0.125,
        "seed": 7,
        "stop": ["###"],
        "repeat_penalty": 1.5,
        "repeat_last_n": -1,
        "presence_penalty": 0.5,
        "frequency_penalty": 0.75,
        "num_ctx": 8192,
        "num_gpu": 1,
        "mirostat": 0,
    }
    await client.chat(model="test", messages=HELLO, options=options, keep_alive="5m", stream=False)
    start = stage.decoder.starts[0]
    params = start.sampling_params
    assert start.stop_conditions.max_tokens == 12
    assert (params.temperature, params.top_k, params.top_p) == (0.5, 3, 0.25)
    assert (params.min_p, params.seed, params.repetition_penalty) == (0.125, 7, 1.5)
    assert (params.presence_penalty, params.frequency_penalty) == (0.5, 0.75)
    await client.chat(model="test", messages=HELLO, options={"num_predict": -1}, stream=False)
    last = stage.decoder.starts[-1]
    assert not last.stop_conditions.HasField("max_tokens")
    assert last.sampling_params.top_k == GENERATION["top_k"]


async def test_a_format_holds_the_answer(stage: Stage, client: ollama.AsyncClient) -> None:
    schema = {"type": "object", "properties": {"legs": {"type": "integer"}}}
    await client.chat(model="test", messages=HELLO, format=schema, stream=False)
    assert '"legs"' in stage.decoder.starts[-1].constraint.json_schema
    await client.chat(model="test", messages=HELLO, format="json", stream=False)
    assert stage.decoder.starts[-1].constraint.WhichOneof("kind") == "json_object"


async def test_logprobs_come_with_the_text(stage: Stage, client: ollama.AsyncClient) -> None:
    asked: dict[str, Any] = {"model": "test", "messages": HELLO, "logprobs": True}
    whole = await client.chat(**asked, top_logprobs=2, stream=False)
    assert whole.logprobs is not None
    assert len(whole.logprobs) == len(stage.decoder.tokens)
    assert len(whole.logprobs[0].top_logprobs or ()) == 2


async def test_an_answer_that_is_cut_says_so(stage: Stage, client: ollama.AsyncClient) -> None:
    stage.decoder.finish_reason = decoder_pb2.FINISH_REASON_LENGTH
    answer = await client.chat(model="test", messages=HELLO, stream=False)
    assert answer.done_reason == "length"


async def test_no_question_says_that_the_model_is_loaded(
    stage: Stage, client: ollama.AsyncClient
) -> None:
    for answer in (await client.chat(model="test"), await client.generate(model="test")):
        assert (answer.done, answer.done_reason) == (True, "load")
    assert stage.decoder.starts == []
    with pytest.raises(ollama.ResponseError) as caught:
        await client.generate(model="llama3")
    assert caught.value.status_code == 404


async def test_the_model_is_listed_and_shown(stage: Stage, client: ollama.AsyncClient) -> None:
    (model,) = (await client.list()).models
    assert model.model == "test"
    assert model.details is not None
    assert model.details.format == "onnx"
    shown = await client.show("test")
    assert {"completion", "vision"} <= set(shown.capabilities or ())
    assert shown.parameters is not None
    assert "top_k 20" in shown.parameters
    assert shown.modelinfo is not None
    family = shown.modelinfo["general.architecture"]
    assert shown.modelinfo[f"{family}.context_length"] == 4096
    version = (await stage.http.get("/api/version")).json()["version"]
    assert [part.isdecimal() for part in version.split(".")] == [True] * 3


async def test_a_failure_midway_is_the_last_line(stage: Stage, client: ollama.AsyncClient) -> None:
    stage.decoder.failure_after = (1, Overloaded("the pool is full"))
    with pytest.raises(ollama.ResponseError, match="the pool is full"):
        async for _ in await client.chat(model="test", messages=HELLO, stream=True):
            pass


async def test_leaving_a_stream_ends_the_work(stage: Stage) -> None:
    stage.decoder.stall_after = 1
    async with stage.http.stream("POST", "/api/chat", json={"messages": HELLO}) as answer:
        await anext(answer.aiter_lines())
    await stage.decoder.cancelled.wait()


@pytest.mark.parametrize(
    ("path", "named", "change"),
    [
        ("chat", "options.mirostat", {"options": {"mirostat": 2}}),
        ("chat", "options.typical_p", {"options": {"typical_p": 0.5}}),
        (
            "chat",
            "options.repeat_last_n",
            {"options": {"repeat_last_n": 64, "repeat_penalty": 1.1}},
        ),
        ("chat", "options.temperature", {"options": {"temperature": 9}}),
        ("chat", "options.repeat_penalty", {"options": {"repeat_penalty": 9}}),
        ("chat", "options.num_predict", {"options": {"num_predict": 0}}),
        ("chat", "options.oddity", {"options": {"oddity": 1}}),
        ("generate", "raw", {"prompt": "x", "raw": True}),
        ("generate", "suffix", {"prompt": "x", "suffix": "y"}),
        ("generate", "template", {"prompt": "x", "template": "{{ .Prompt }}"}),
        ("generate", "context", {"prompt": "x", "context": [1, 2]}),
    ],
)
async def test_what_is_not_done_is_refused_by_name(
    stage: Stage, path: str, named: str, change: dict[str, Any]
) -> None:
    asked = {"messages": HELLO, **change} if path == "chat" else change
    answer = await stage.http.post(f"/api/{path}", json=asked)
    assert answer.status_code == 400, answer.text
    assert named in answer.json()["error"]
    assert stage.decoder.starts == []
