"""An answer with everything in it, as Ollama tells it."""

from ollama import ChatResponse

from gateway.answer.events import FinishReason
from gateway.http.ollama.telling import OllamaTelling
from tests.unit.gateway.http.door.answers import call, end, everything, text, thought, told


def telling(*, chats: bool = True) -> OllamaTelling:
    return OllamaTelling(model="test", chats=chats, token_bytes=None)


def test_the_whole_has_thought_text_and_calls() -> None:
    answer = telling()
    told(answer, everything())
    body = answer.whole()
    parsed = ChatResponse.model_validate(body)
    assert (parsed.message.thinking, parsed.message.content) == ("Where?", "I look.")
    calls = [one.function for one in parsed.message.tool_calls or ()]
    assert [(one.name, one.arguments) for one in calls] == [
        ("get_weather", {"city": "Zürich"}),
        ("get_time", {}),
    ]
    assert (parsed.done, parsed.done_reason) == (True, "stop")
    assert (parsed.prompt_eval_count, parsed.eval_count) == (30, 12)


def test_a_call_is_one_line_of_a_stream() -> None:
    lines = told(telling(), everything())
    calls = [line["message"]["tool_calls"] for line in lines if "tool_calls" in line["message"]]
    assert [[one["function"]["index"] for one in line] for line in calls] == [[0], [1]]
    assert [line["done"] for line in lines] == [False] * (len(lines) - 1) + [True]


def test_a_prompts_answer_has_its_thought_beside_it() -> None:
    answer = telling(chats=False)
    lines = told(answer, [thought("Hm."), text("Yes."), end(FinishReason.LENGTH)])
    assert [(line["response"], line.get("thinking")) for line in lines] == [
        ("", "Hm."),
        ("Yes.", None),
        ("", None),
    ]
    body = answer.whole()
    assert (body["response"], body["thinking"], body["done_reason"]) == ("Yes.", "Hm.", "length")


def test_a_call_that_is_cut_is_told_as_far_as_it_came() -> None:
    answer = telling()
    told(answer, [*call(0, "f", '{"a": 1, "b'), end(FinishReason.LENGTH)])
    assert answer.whole()["message"]["tool_calls"][0]["function"]["arguments"] == {"a": 1}
