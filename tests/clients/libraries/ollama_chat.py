"""Ollama's client: https://github.com/ollama/ollama-python."""

from typing import Any

import ollama

from tests.clients import checks
from tests.clients.checks import IMAGE, KEY, MODEL, ORIGIN, refused, same

client = ollama.Client(host=ORIGIN, headers={"Authorization": f"Bearer {KEY}"})
OPTIONS = {"temperature": 0, "num_predict": 48}


def asked(question: str, **fields: Any) -> dict[str, Any]:
    """A question, as the client takes it."""
    messages = [{"role": "user", "content": question, **fields}]
    return {"model": MODEL, "messages": messages, "options": OPTIONS}


def said(answer: Any) -> str:
    """What was said."""
    return str(answer.message.content)


def stream() -> str:
    """Pieces of an answer; the last one tells what it cost."""
    pieces = list(client.chat(**asked(checks.COLOR, images=[str(IMAGE)]), stream=True))
    assert pieces[-1].done and pieces[-1].eval_count
    return same("".join(said(piece) for piece in pieces), checks.COLOR_ANSWER)


def schema() -> str:
    """An answer held to a schema."""
    answer = client.chat(
        **asked(checks.NAMING, images=[str(IMAGE)]), format=checks.SCHEMA, stream=False
    )
    return same(said(answer), f'{{"label": "{checks.NAME}"}}')


def generated() -> str:
    """A prompt of one text, with an image."""
    answer = client.generate(
        model=MODEL, prompt=checks.COLOR, images=[IMAGE.read_bytes()], options=OPTIONS
    )
    return same(answer.response, checks.COLOR_ANSWER)


def other_model() -> str:
    """A name that is not served."""
    with refused(ollama.ResponseError) as told:
        client.show("other")
    error: Any = told.error
    return same(error.status_code, 404)


def wrong_key() -> str:
    """A wrong key."""
    wrong = ollama.Client(host=ORIGIN, headers={"Authorization": "Bearer wrong"})
    with refused(ollama.ResponseError) as told:
        wrong.chat(**asked(checks.SUM))
    error: Any = told.error
    return same(error.status_code, 401)


check = checks.Checks()
check("models", lambda: same([model.model for model in client.list().models], [MODEL]))
check("capabilities", lambda: same("vision" in (client.show(MODEL).capabilities or ()), True))
check("text", lambda: same(said(client.chat(**asked(checks.SUM))), checks.SUM_ANSWER))
check(
    "image",
    lambda: same(
        said(client.chat(**asked(checks.COLOR, images=[str(IMAGE)]))), checks.COLOR_ANSWER
    ),
)
check("stream", stream)
check("schema", schema)
check("generate", generated)
check("other model", other_model)
check("wrong key", wrong_key)
check.end()
