"""Rules between fields, which a JSON schema cannot say or tells nobody: made to hold in a body."""

from collections.abc import Iterator
from typing import Any

MAX_TOKENS = 8  # an answer as long as a schema allows would take hours
VOCABULARY = 256  # ids of bytes, which every tokenizer of ours has

_LIMITS = ("max_tokens", "max_completion_tokens", "max_output_tokens")


def settled(path: str, given: Any) -> Any:
    """A copy of a body that breaks no rule between its fields."""
    if not isinstance(given, dict):
        return given
    body = _whole(given)
    _lengths(path, body)
    _reports(path, body)
    _ids(path, body)
    _tools(path, body)
    _forms(path, body)
    _turns(path, body)
    for part in _objects(body):
        _areas(part)
        _schemas(part)
    if path.startswith("/api/") and isinstance(body.get("format"), dict):
        body["format"] = dict(_SCHEMA)
    return body


def _whole(value: Any) -> Any:
    """A copy in which whole numbers are written as such: to JSON schemas, 2.0 is an integer."""
    if isinstance(value, float) and value.is_integer():
        return int(value)
    if isinstance(value, dict):
        return {key: _whole(inner) for key, inner in value.items()}
    return [_whole(inner) for inner in value] if isinstance(value, list) else value


def _lengths(path: str, body: dict[str, Any]) -> None:
    """Prompt and answer fit one window, and the least is not above the most."""
    options = body.get("options") if path.startswith("/api/") else None
    if isinstance(options, dict) and options.get("num_predict") is not None:
        options["num_predict"] = min(options["num_predict"], MAX_TOKENS)
    for name in _LIMITS:
        if body.get(name) is not None:
            body[name] = min(body[name], MAX_TOKENS)
    if body.get("min_tokens"):
        body["min_tokens"] = 1
    if body.get("best_of") is not None:
        body["best_of"] = body.get("n") or 1


def _reports(path: str, body: dict[str, Any]) -> None:
    """Options of a stream need one, and the likeliest tokens those that were taken."""
    if body.get("stream_options") is not None:
        body["stream"] = True
    if body.get("top_logprobs") and not path.startswith("/v1/responses"):
        body["logprobs"] = True


def _ids(path: str, body: dict[str, Any]) -> None:
    """Ids of tokens are of the checkpoint's vocabulary."""
    for name in ("tokens", "stop_token_ids"):
        if isinstance(body.get(name), list):
            body[name] = [token % VOCABULARY for token in body[name]]
    if path == "/v1/completions" and isinstance(body.get("prompt"), list):
        body["prompt"] = [_small(one) for one in body["prompt"]]
    if body.get("logit_bias"):
        body["logit_bias"] = {
            str(int(key) % VOCABULARY): bias for key, bias in body["logit_bias"].items()
        }


def _small(ids: Any) -> Any:
    if isinstance(ids, list):
        return [_small(one) for one in ids]
    return ids % VOCABULARY if isinstance(ids, int) else ids


def _tools(path: str, body: dict[str, Any]) -> None:
    """A call is required only of tools that are there."""
    choice = body.get("tool_choice")
    if choice in (None, "auto", "none"):
        return
    is_messages = path.startswith("/v1/messages")
    if is_messages and choice.get("type") in ("auto", "none"):
        return
    names = [_name(tool) for tool in body.get("tools") or ()]
    if not names:
        del body["tool_choice"]
    elif is_messages:
        body["tool_choice"] = {"type": "tool", "name": names[0]}
    else:
        named = {"name": names[0]}
        function = named if path.startswith("/v1/responses") else {"function": named}
        body["tool_choice"] = {"type": "function", **function}


def _name(tool: dict[str, Any]) -> str:
    return str(tool.get("function", tool)["name"])


def _forms(path: str, body: dict[str, Any]) -> None:
    """An answer has one form, which ends; a form beside tools is JSON."""
    if body.get("structured_outputs") is not None:
        body["structured_outputs"].pop("disable_any_whitespace", None)
        body["response_format"] = None
        if body.get("tools") or not any(_given(body["structured_outputs"])):
            body["structured_outputs"] = None
    body.pop("ignore_eos", None)
    options = body.get("options")
    if path.startswith("/api/") and isinstance(options, dict):
        options.pop("repeat_last_n", None)


def _given(form: dict[str, Any]) -> Iterator[str]:
    blanks = ("whitespace_pattern", "disable_any_whitespace")
    yield from (name for name, value in form.items() if value is not None and name not in blanks)


def _turns(path: str, body: dict[str, Any]) -> None:
    """Instructions come first, the last turn is the user's and says something."""
    if path.startswith("/v1/responses"):
        body.pop("previous_response_id", None)  # of an answer that is kept
        if isinstance(body.get("input"), list):
            kept = [item for item in body["input"] if item.get("type") != "item_reference"]
            body["input"] = [*_without_late_instructions(kept), _SPOKEN]
        elif not (body.get("input") or "").strip():
            body["input"] = "Hello?"
    elif isinstance(body.get("messages"), list) and body["messages"]:
        body["messages"] = [*_without_late_instructions(body["messages"]), _SPOKEN]
    for turn in body.get("messages") or ():
        if turn.get("reasoning") is not None:
            turn.pop("reasoning_content", None)


_SPOKEN = {"role": "user", "content": "Hello?"}


def _without_late_instructions(turns: list[dict[str, Any]]) -> list[dict[str, Any]]:
    return [
        turn
        for at, turn in enumerate(turns)
        if at == 0 or turn.get("role") not in ("system", "developer")
    ]


def _objects(value: Any) -> Iterator[dict[str, Any]]:
    if isinstance(value, dict):
        yield value
        value = list(value.values())
    if isinstance(value, list):
        for inner in value:
            yield from _objects(inner)


_SCHEMA = {"type": "object"}


def _schemas(part: dict[str, Any]) -> None:
    """Which schemas and patterns can be held is the decoder's; that these can, is known."""
    for name in ("schema", "json", "parameters", "input_schema"):
        if isinstance(part.get(name), dict):
            part[name] = dict(_SCHEMA)
    for name in ("regex", "whitespace_pattern"):
        if part.get(name) is not None:
            part[name] = " ?"


def _areas(part: dict[str, Any]) -> None:
    """The least of a part's numbers is not above the most, and no number has two values."""
    if part.get("type") not in ("image_url", "video_url", "video"):
        return
    names = ("min_pixels", "min_frames", "sample_fps", "fps", "nframes", "num_frames", "timestamps")
    for name in names:
        part.pop(name, None)
    for inner in part.values():
        if isinstance(inner, dict):
            for name in (*names, "max_pixels", "max_frames", "total_pixels"):
                inner.pop(name, None)
