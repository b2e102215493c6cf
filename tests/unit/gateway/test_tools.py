"""Tools at both doors: prompts, the form that calls are held to, calls whole and streamed."""

import json
from typing import Any

import pytest

from protos.tandem.v1 import decoder_pb2, gateway_pb2
from tests.unit.gateway.stage import Stage, image_part, user

pytestmark = pytest.mark.asyncio(loop_scope="module")

WEATHER: Any = {
    "type": "function",
    "function": {
        "name": "get_weather",
        "parameters": {"type": "object", "properties": {"city": {"type": "string"}}},
    },
}
TIME = {"type": "function", "function": {"name": "get_time"}}
TOOLS: list[Any] = [WEATHER, TIME]
ARGUMENTS = '{"city": "Zürich {\\"a\\"}"}'
CALL = f'<tool_call>\n{{"name": "get_weather", "arguments": {ARGUMENTS}}}\n</tool_call>'
SECOND = '<tool_call>\n{"name": "get_time", "arguments": {}}\n</tool_call>'


def says(stage: Stage, said: str) -> None:
    stage.decoder.reset()
    stage.decoder.tokens = stage.tokenizer.encode_prompt(said, "\ufdd0").ids


def id_of(stage: Stage, name: str) -> int:
    return next(token.token_id for token in stage.tokenizer.added if token.content == name)


async def test_a_call_comes_whole_with_what_was_said_before(stage: Stage) -> None:
    says(stage, f"I look.\n{CALL}")
    completion = await stage.openai.chat.completions.create(
        model="test",
        messages=user(),
        tools=TOOLS,
    )
    choice = completion.choices[0]
    assert choice.finish_reason == "tool_calls"
    assert choice.message.content == "I look."
    calls = choice.message.tool_calls
    assert calls is not None and len(calls) == 1
    call = calls[0]
    assert call.type == "function"
    assert (call.function.name, call.function.arguments) == ("get_weather", ARGUMENTS)
    assert call.id.startswith("call_")


async def test_several_calls_have_ids_of_their_own_and_no_content(stage: Stage) -> None:
    says(stage, f"{CALL}\n{SECOND}")
    message = (await stage.post(messages=user(), tools=TOOLS)).json()["choices"][0]["message"]
    assert message["content"] is None
    assert [call["function"] for call in message["tool_calls"]] == [
        {"name": "get_weather", "arguments": ARGUMENTS},
        {"name": "get_time", "arguments": "{}"},
    ]
    assert len({call["id"] for call in message["tool_calls"]}) == 2


async def test_a_stream_names_a_call_first_and_adds_its_arguments(stage: Stage) -> None:
    says(stage, f"I look.\n{CALL}\n{SECOND}")
    stream = await stage.openai.chat.completions.create(
        model="test",
        messages=user(),
        tools=TOOLS,
        stream=True,
    )
    chunks = [chunk.choices[0] async for chunk in stream if chunk.choices]
    assert "".join(chunk.delta.content or "" for chunk in chunks) == "I look."
    deltas = [call for chunk in chunks for call in chunk.delta.tool_calls or ()]
    firsts = [delta for delta in deltas if delta.id]
    assert [one.function and one.function.name for one in firsts] == ["get_weather", "get_time"]
    assert all(one.type == "function" for one in firsts)
    assert all(one.function and one.function.arguments == "" for one in firsts)
    texts = {0: "", 1: ""}
    for delta in deltas:
        assert delta.function is not None
        texts[delta.index] += delta.function.arguments or ""
    assert texts == {0: ARGUMENTS, 1: "{}"}
    assert sum(1 for delta in deltas if delta.index == 0) > 3
    assert [chunk.finish_reason for chunk in chunks if chunk.finish_reason] == ["tool_calls"]


async def test_the_clients_stream_helper_puts_calls_together(stage: Stage) -> None:
    says(stage, CALL)
    tool = json.loads(json.dumps(WEATHER))
    tool["function"]["strict"] = True
    async with stage.openai.chat.completions.stream(
        model="test", messages=user(), tools=[tool]
    ) as stream:
        completion = await stream.get_final_completion()
    calls = completion.choices[0].message.tool_calls
    assert calls is not None and len(calls) == 1
    call = calls[0]
    assert call.function.arguments == ARGUMENTS
    assert call.function.parsed_arguments == json.loads(ARGUMENTS)


async def test_text_is_free_until_a_call_begins(stage: Stage) -> None:
    says(stage, "No need.")
    body = (await stage.post(messages=user(), tools=TOOLS)).json()
    assert body["choices"][0]["message"]["content"] == "No need."
    assert "tool_calls" not in body["choices"][0]["message"]
    assert body["choices"][0]["finish_reason"] == "stop"
    (start,) = stage.decoder.starts
    begin, end = id_of(stage, "<tool_call>"), id_of(stage, "</tool_call>")
    assert list(start.constraint.token_ids) == [begin, end]
    assert start.constraint_from_token == begin
    assert not start.HasField("constraint_after_token")


async def test_an_answer_without_an_end_is_held_to_nothing(stage: Stage) -> None:
    says(stage, f"Sunny. {CALL}")
    body = (await stage.post(messages=user(), tools=TOOLS, ignore_eos=True)).json()
    assert body["choices"][0]["finish_reason"] == "stop"
    assert "tool_calls" not in body["choices"][0]["message"]
    (start,) = stage.decoder.starts
    assert not start.HasField("constraint") and not start.HasField("constraint_from_token")


@pytest.mark.parametrize(
    ("choice", "names"),
    [
        ("required", ["get_weather", "get_time"]),
        ({"type": "function", "function": {"name": "get_time"}}, ["get_time"]),
        (
            {
                "type": "allowed_tools",
                "allowed_tools": {"mode": "required", "tools": [WEATHER]},
            },
            ["get_weather"],
        ),
    ],
    ids=["required", "named", "allowed"],
)
async def test_a_required_call_is_held_from_the_first_token(
    stage: Stage, choice: Any, names: list[str]
) -> None:
    says(stage, SECOND)
    response = await stage.post(messages=user(), tools=TOOLS, tool_choice=choice)
    assert response.json()["choices"][0]["finish_reason"] == "tool_calls"
    (start,) = stage.decoder.starts
    assert not start.HasField("constraint_from_token")
    assert [name for name in ("get_weather", "get_time") if name in start.constraint.lark] == names


async def test_one_call_alone_where_several_are_not_wanted(stage: Stage) -> None:
    for parallel in (True, False):
        await stage.post(messages=user(), tools=TOOLS, parallel_tool_calls=parallel)
    several, one = (start.constraint.lark for start in stage.decoder.starts)
    assert 'calls: call ("\\n" call)*\n' in several
    assert "calls: call\n" in one


async def test_an_answer_in_a_form_may_be_a_call_instead(stage: Stage) -> None:
    says(stage, CALL)
    form = {"type": "json_schema", "json_schema": {"name": "x", "schema": {"type": "array"}}}
    response = await stage.post(messages=user(), tools=TOOLS, response_format=form)
    assert response.json()["choices"][0]["finish_reason"] == "tool_calls"
    (start,) = stage.decoder.starts
    assert not start.HasField("constraint_from_token")
    assert 'answer: %json {"type": "array"' in start.constraint.lark
    refused = await stage.post(messages=user(), tools=TOOLS, structured_outputs={"regex": "a"})
    assert refused.json()["error"]["param"] == "structured_outputs.regex"


async def test_an_answer_cut_within_a_call_says_so(stage: Stage) -> None:
    says(stage, CALL[:-20])
    stage.decoder.finish_reason = decoder_pb2.FINISH_REASON_LENGTH
    choice = (await stage.post(messages=user(), tools=TOOLS)).json()["choices"][0]
    assert choice["finish_reason"] == "length"
    assert (
        choice["message"]["tool_calls"][0]["function"]["arguments"]
        == ARGUMENTS[: ARGUMENTS.index("a\\")]
    )


async def test_what_reads_like_a_call_is_text(stage: Stage) -> None:
    stage.will_say(CALL)  # spelled with ordinary tokens
    choice = (await stage.post(messages=user(), tools=TOOLS)).json()["choices"][0]
    assert choice["message"]["content"] == CALL
    assert choice["finish_reason"] == "stop"


async def test_a_call_in_no_form_is_shown_as_it_was_said(stage: Stage) -> None:
    says(stage, "a <tool_call>b</tool_call>")
    choice = (await stage.post(messages=user(), tools=TOOLS)).json()["choices"][0]
    assert choice["message"]["content"] == "a <tool_call>b</tool_call>"
    assert choice["finish_reason"] == "stop"


async def test_stop_strings_look_at_text_alone(stage: Stage) -> None:
    says(stage, f"Well.\n{CALL}")
    response = await stage.post(messages=user(), tools=TOOLS, stop=["city", "Zürich"])
    (call,) = response.json()["choices"][0]["message"]["tool_calls"]
    assert call["function"]["arguments"] == ARGUMENTS


async def test_calls_and_results_with_images_go_into_the_prompt(stage: Stage) -> None:
    says(stage, "Blue.")
    said = {
        "role": "assistant",
        "content": None,
        "tool_calls": [
            {"id": "a", "type": "function", "function": {"name": "get_time", "arguments": ""}}
        ],
    }
    result = {"role": "tool", "tool_call_id": "a", "content": [image_part(96, 64)]}
    response = await stage.post(messages=[*user(), said, result], tools=TOOLS)
    assert response.status_code == 200, response.text
    (start,) = stage.decoder.starts
    assert len(start.visual_spans) == 1
    text = "".join(stage.tokenizer.token_of(one) or "" for one in start.input_ids)
    assert '"arguments":Ġ{}}' in text


async def test_the_grpc_door_tells_calls_too(stage: Stage) -> None:
    says(stage, f"I look.\n{CALL}")
    turn = gateway_pb2.ChatMessage(
        role=gateway_pb2.ROLE_USER, content=[gateway_pb2.ContentPart(text="Hello?")]
    )
    asked = gateway_pb2.ChatRequest(
        messages=[turn],
        tools_json=[json.dumps(tool) for tool in TOOLS],
        tool_choice=gateway_pb2.ToolChoice(single_call=True),
    )
    chunks = [chunk async for chunk in stage.grpc.Complete(asked)]
    assert "".join(chunk.text for chunk in chunks) == "I look."
    pieces = [piece for chunk in chunks for piece in chunk.tool_calls]
    assert [piece.name for piece in pieces if piece.name] == ["get_weather"]
    assert "".join(piece.arguments for piece in pieces) == ARGUMENTS
    assert [one for chunk in chunks for one in chunk.token_ids] == stage.decoder.tokens
    completion = chunks[-1].completion
    assert completion.finish_reason == decoder_pb2.FINISH_REASON_TOOL_CALLS
    assert "calls: call\n" in stage.decoder.starts[0].constraint.lark


@pytest.mark.parametrize(
    ("body", "param"),
    [
        ({"tools": [{"type": "custom", "custom": {"name": "x"}}]}, "tools[0]"),
        (
            {"tools": [{"type": "function", "function": {"name": "x", "parameters": []}}]},
            "tools[0].function.parameters",
        ),
        (
            {
                "tools": [
                    WEATHER,
                    {
                        "type": "function",
                        "function": {"name": "x", "parameters": {"type": "array"}},
                    },
                ]
            },
            "tools[1].function.parameters",
        ),
        (
            {"tools": [{"type": "function", "function": {"name": "x", "strict": "yes"}}]},
            "tools[0].function.strict",
        ),
        (
            {"tools": TOOLS, "tool_choice": {"type": "function", "function": {"name": "other"}}},
            "tool_choice",
        ),
        ({"tools": TOOLS, "tool_choice": {"type": "function"}}, "tool_choice"),
        ({"tools": TOOLS, "tool_choice": {"type": "allowed_tools"}}, "tool_choice"),
        ({"tools": TOOLS, "tool_choice": "required", "ignore_eos": True}, "ignore_eos"),
    ],
    ids=lambda value: value if isinstance(value, str) else "",
)
async def test_what_cannot_be_called_is_refused_by_name(
    stage: Stage, body: dict[str, Any], param: str
) -> None:
    response = await stage.post(messages=user(), **body)
    assert response.status_code == 400, response.text
    assert response.json()["error"]["param"] == param
    assert stage.decoder.starts == []
