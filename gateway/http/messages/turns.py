"""Anthropic's turns as messages: results of calls are messages of their own, before the rest."""

from collections.abc import Mapping
from typing import Any

from gateway.http.door.fields import entries, text_in, typed, wrong_type
from gateway.http.door.instructions import BETWEEN, with_joined_instructions
from gateway.http.door.places import Place
from gateway.http.messages import blocks
from gateway.request.conversation import Message, Part, Role, TextPart
from protos.wire.errors import InvalidRequest, Unsupported

# Its command-line client puts a line of its own version and a changing checksum before the
# instructions. Left there, it would keep every prompt from going on as the last one was cached.
_BILLING = "x-anthropic-billing-header:"

Turns = tuple[tuple[Message, ...], tuple[Place, ...]]


def to_messages(system: object, turns: list[Any]) -> Turns:
    """All messages of a body, and where each stands in it.

    Raises:
        InvalidRequest: a block at fault, named by its path.
        Unsupported: a block that is not served, or an answer that is to be continued.
    """
    found: list[tuple[Message, Place]] = []
    instructions = _instructions(system)
    if instructions:
        found.append((Message(role=Role.SYSTEM, content=instructions), Place("system")))
    for index, turn in enumerate(turns):
        found.extend(_turn(turn, f"messages[{index}]"))
    if found and found[-1][0].role is Role.ASSISTANT:
        raise Unsupported(
            f"{found[-1][1].name} is the assistant's and the last one; an answer cannot be begun"
            " by the client, expected a turn of the user",
            param=found[-1][1].name,
        )
    return with_joined_instructions([message for message, _ in found], [at for _, at in found])


def _instructions(system: object) -> str:
    if system is None or isinstance(system, str):
        return system or ""
    texts = (part.text for part, _ in blocks.parts(system, "system") if isinstance(part, TextPart))
    return BETWEEN.join(text for text in texts if not text.startswith(_BILLING))


def _turn(raw: object, path: str) -> list[tuple[Message, Place]]:
    if not isinstance(raw, Mapping):
        raise InvalidRequest(f"{path} must be an object", param=path)
    content, field = raw.get("content"), f"{path}.content"
    role = raw.get("role")
    if role not in ("user", "assistant", "system"):
        raise InvalidRequest(f"{path}.role must be user, assistant or system", param=f"{path}.role")
    if isinstance(content, str):
        return [(Message(role=Role(role), content=content), Place(path))]
    if role == "assistant":
        return [(_answer(entries(content, field), field), Place(path))]
    return _asked(Role(role), entries(content, field), path)


def _asked(role: Role, content: Any, path: str) -> list[tuple[Message, Place]]:
    found: list[tuple[Message, Place]] = []
    said: list[tuple[Part, str]] = []
    for index, raw in enumerate(content):
        at = f"{path}.content[{index}]"
        block, kind = typed(raw, at)
        if kind == "tool_result" and role is Role.USER:
            name, told = blocks.result(block, at)
            found.append(_message(Role.TOOL, told, at, tool_call_id=name))
        else:
            said.extend(blocks.block_parts(block, at))
    if said or not found:
        found.append(_message(role, said, path))
    return found


def _message(
    role: Role, said: list[tuple[Part, str]] | str, path: str, **fields: Any
) -> tuple[Message, Place]:
    if isinstance(said, str):
        return Message(role=role, content=said, **fields), Place(path)
    content = tuple(part for part, _ in said)
    return Message(role=role, content=content, **fields), Place(path, tuple(at for _, at in said))


def _answer(content: Any, path: str) -> Message:
    """A turn of the assistant: its thought, its text as it was generated, its calls."""
    thoughts, texts, calls = [], [], []
    for index, raw in enumerate(content):
        at = f"{path}[{index}]"
        block, kind = typed(raw, at)
        if kind == "thinking":
            thoughts.append(blocks.thought(block, at))
        elif kind == "text":
            texts.append(text_in(block, "text", at))
        elif kind == "tool_use":
            calls.append(blocks.call(block, at))
        elif kind != "redacted_thinking":  # another server's, which nobody here can read
            raise wrong_type(kind, at, "text, thinking or tool_use")
    return Message(
        role=Role.ASSISTANT,
        content="".join(texts) if texts else None,
        reasoning="".join(thoughts) or None,
        tool_calls=tuple(calls),
    )
