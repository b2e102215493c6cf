"""Requests of every kind that are answered, and how each answer is checked."""

import json
import re
from collections.abc import Awaitable, Callable, Mapping
from typing import Any, NamedTuple

from tests.soak.apis import APIS, TOKENS, chat_content, data_url
from tests.soak.bank import SMALL_PNG, Bank
from tests.soak.client import Client, Wrong, pretty
from tests.soak.site import KEYS

CHAT = APIS["chat"]
TOOL = {
    "type": "function",
    "function": {
        "name": "paint",
        "parameters": {
            "type": "object",
            "properties": {"color": {"enum": ["red", "blue"]}, "coats": {"enum": [1, 2, 3]}},
            "required": ["color", "coats"],
            "additionalProperties": False,
        },
        "strict": True,
    },
}
SCHEMA = TOOL["function"]["parameters"]  # type: ignore[index]

Asking = Callable[[Client, Bank], Awaitable[None]]


class Kind(NamedTuple):
    """How a kind of request is made and checked, and how often beside the others."""

    ask: Asking
    weight: float


def must(condition: bool, answer: Any) -> None:
    """Raises:
    Wrong: the condition is false.
    """
    if not condition:
        raise Wrong(pretty(answer))


async def text(client: Client, bank: Bank) -> None:
    """A known answer without an image, by any API."""
    api = APIS[client.rng.choice(list(APIS))]
    await client.ask(api, client.rng.choice(bank.texts), streamed=client.rng.random() < 0.5)


async def known_image(client: Client, bank: Bank) -> None:
    """About an image whose features are kept, by any API."""
    api = APIS[client.rng.choice(list(APIS))]
    await client.ask(api, client.rng.choice(bank.images), streamed=client.rng.random() < 0.5)


async def new_image(client: Client, bank: Bank) -> None:
    """About an image that must be encoded: features are kept for each salt."""
    api = APIS[client.rng.choice(("chat", "responses"))]
    asked, streamed = client.rng.choice(bank.images), client.rng.random() < 0.5
    await client.ask(api, asked, streamed=streamed, cache_salt=f"{client.rng.random()}")


async def video(client: Client, bank: Bank) -> None:
    """Frames with their times, a third of them new."""
    more = {"cache_salt": f"{client.rng.random()}"} if client.rng.random() < 0.3 else {}
    asked = client.rng.choice(bank.videos)
    await client.ask(CHAT, asked, streamed=client.rng.random() < 0.5, **more)


async def video_file(client: Client, bank: Bank) -> None:
    """A file, which is opened in a boxed worker."""
    content = [bank.file, {"type": "text", "text": "What moves?"}]
    body = {"messages": [{"role": "user", "content": content}], "max_tokens": 8}
    body["cache_salt"] = f"{client.rng.random()}"
    answer = await client.whole(CHAT.path, body)
    must(answer["usage"]["prompt_tokens_details"]["video_tokens"] > 0, answer)


async def turns(client: Client, bank: Bank) -> None:
    """A question about an image and one about the answer."""
    asked = client.rng.choice(bank.follow_ups)
    first = await client.ask(CHAT, asked, streamed=True)
    messages = [
        {"role": "user", "content": chat_content(asked)},
        {"role": "assistant", "content": first},
        {"role": "user", "content": asked.follow_up},
    ]
    body = {"messages": messages, "temperature": 0, "max_tokens": TOKENS}
    said = CHAT.text(await client.whole(CHAT.path, body))
    client.ledger.check(f"{asked.name}, again", said, None)


async def kept_turns(client: Client, bank: Bank) -> None:
    """The same with the first answer kept by the server."""
    asked = client.rng.choice(bank.follow_ups)
    api = APIS["responses"]
    key = client.rng.choice(KEYS)  # what one has asked is not there for the other
    first = await client.whole(api.path, api.body(asked), key)
    client.ledger.check(asked.name, api.text(first), None)
    body = {"input": asked.follow_up, "temperature": 0, "max_output_tokens": TOKENS}
    second = await client.whole(api.path, {**body, "previous_response_id": first["id"]}, key)
    client.ledger.check(f"{asked.name}, again", api.text(second), None)


async def tools(client: Client, bank: Bank) -> None:
    """A call that its schema holds, whole or streamed."""
    body = {
        "messages": [{"role": "user", "content": client.rng.choice(bank.texts).text}],
        "tools": [TOOL],
        "tool_choice": "required",
        "parallel_tool_calls": False,
        "temperature": 1.0,
        "max_tokens": 200,
    }
    answer = await client.whole(CHAT.path, body)
    (call,) = answer["choices"][0]["message"]["tool_calls"]
    arguments = json.loads(call["function"]["arguments"])
    must(arguments["color"] in ("red", "blue") and arguments["coats"] in (1, 2, 3), answer)


async def structured(client: Client, bank: Bank) -> None:
    """A JSON schema, a regular expression and a choice; every third pattern is a new one."""
    content = chat_content(client.rng.choice(bank.images))
    body: dict[str, Any] = {"messages": [{"role": "user", "content": content}], "max_tokens": 200}
    form = client.rng.choice(("schema", "regex", "choice"))
    if form == "schema":
        schema = {"name": "paint", "strict": True, "schema": SCHEMA}
        body["response_format"] = {"type": "json_schema", "json_schema": schema}
    else:
        word = f"v{client.rng.randrange(10**9)}"
        pattern: Any = f"{word}[0-9]{{3}}" if form == "regex" else [word, "other"]
        body["structured_outputs"] = {form: pattern}
    said = CHAT.text(await client.whole(CHAT.path, body))
    if form == "schema":
        must(json.loads(said)["color"] in ("red", "blue"), said)
    elif form == "regex":
        must(re.fullmatch(pattern, said) is not None, said)
    else:
        must(said in pattern, said)


async def sampled(client: Client, bank: Bank) -> None:
    """Several choices with log probabilities, drawn with a seed."""
    asked, number = client.rng.choice(bank.texts), client.rng.randrange(20)
    body = {"messages": [{"role": "user", "content": asked.text}], "max_tokens": 12, "n": 3}
    more = {"seed": number, "temperature": 1.0, "logprobs": True, "top_logprobs": 2}
    answer = await client.whole(CHAT.path, {**body, **more})
    must(len(answer["choices"]) == 3, answer)
    said = json.dumps([choice["message"]["content"] for choice in answer["choices"]])
    client.ledger.check(f"{asked.name} drawn {number}", said, None)


async def completion(client: Client, bank: Bank) -> None:
    """A text goes on, without a template."""
    body = {"prompt": client.rng.choice(bank.texts).text, "max_tokens": 16, "temperature": 0}
    answer = await client.whole("/v1/completions", body)
    client.ledger.check(f"after {body['prompt']}", answer["choices"][0]["text"], None)


async def counts(client: Client, bank: Bank) -> None:
    """Tokens are counted, and come back as the text they were."""
    asked = client.rng.choice(bank.images)
    body = APIS["messages"].body(asked)
    answer = await client.whole("/v1/messages/count_tokens", {"messages": body["messages"]})
    must(answer["input_tokens"] > 0, answer)
    tokens = (await client.whole("/tokenize", {"prompt": asked.text}))["tokens"]
    back = await client.whole("/detokenize", {"tokens": tokens})
    must(back["prompt"] == asked.text, back)


async def pages(client: Client, _: Bank) -> None:
    """What is asked by browsers, balancers and monitors."""
    for path in ("/", "/health/ready", "/v1/models", "/metrics", "/version"):
        answer = await client.get(path)
        must(answer.status_code == 200, f"{path} {answer.status_code}")


async def bad_image(client: Client, _: Bank) -> None:
    """No image, half of one, and one whose data lie."""
    data = client.rng.choice((b"hello", SMALL_PNG[:60], SMALL_PNG[:50] + bytes(40)))
    content = [{"type": "image_url", "image_url": {"url": data_url(data)}}]
    status, _code = await client.refusal(
        CHAT.path, {"messages": [{"role": "user", "content": content}], "max_tokens": 4}
    )
    must(status == 400, status)


async def bad_video(client: Client, _: Bank) -> None:
    """No video."""
    content = [{"type": "video_url", "video_url": {"url": "data:video/mp4;base64,aGVsbG8="}}]
    status, _code = await client.refusal(
        CHAT.path, {"messages": [{"role": "user", "content": content}], "max_tokens": 4}
    )
    must(status == 400, status)


async def too_long(client: Client, _: Bank) -> None:
    """A prompt that no context holds."""
    messages = [{"role": "user", "content": "one two three " * client.rng.randrange(4000, 9000)}]
    found = await client.refusal(CHAT.path, {"messages": messages})
    must(found == (400, "context_length_exceeded"), found)


async def bad_request(client: Client, bank: Bank) -> None:
    """A wrong key, model, path, field or form."""
    good = CHAT.body(bank.texts[0])
    bad: list[tuple[str, Any, int]] = [
        (CHAT.path, {**good, "model": "another"}, 404),
        (CHAT.path, {**good, "temperature": 9}, 400),
        (CHAT.path, {**good, "never_heard_of": 1}, 400),
        (CHAT.path, {"messages": []}, 400),
        (CHAT.path, b'{"messages": [', 400),
        ("/v1/nowhere", good, 404),
    ]
    path, body, expected = client.rng.choice(bad)
    found = await client.refusal(path, body)
    must(found[0] == expected, found)
    status, _code = await client.refusal(CHAT.path, good, headers={"x-api-key": "unknown"})
    must(status == 401, status)


KINDS: Mapping[str, Kind] = {
    "text": Kind(text, 18),
    "image, cached": Kind(known_image, 18),
    "image, new": Kind(new_image, 14),
    "video": Kind(video, 3),
    "video file": Kind(video_file, 2),
    "turns": Kind(turns, 5),
    "turns, kept": Kind(kept_turns, 4),
    "tools": Kind(tools, 5),
    "structured": Kind(structured, 6),
    "sampled": Kind(sampled, 5),
    "completion": Kind(completion, 4),
    "counts": Kind(counts, 4),
    "pages": Kind(pages, 2),
    "bad image": Kind(bad_image, 4),
    "bad video": Kind(bad_video, 1),
    "too long": Kind(too_long, 2),
    "bad request": Kind(bad_request, 4),
}
