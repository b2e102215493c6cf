"""Anthropic's turns as messages: results of calls are messages of their own, before the rest."""

from gateway.http.door.instructions import BETWEEN, with_joined_instructions
from gateway.http.door.places import Place
from gateway.http.door.typed import Field
from gateway.http.messages import blocks
from gateway.http.messages.blocks import Placed
from gateway.request.conversation import Message, Role
from protos.wire.errors import InvalidRequest, Unsupported

# Its command-line client puts a line of its own version and a changing checksum before the
# instructions. Left there, it would keep every prompt from going on as the last one was cached.
_BILLING = "x-anthropic-billing-header:"

Turns = tuple[tuple[Message, ...], tuple[Place, ...]]


def to_messages(system: Field, turns: Field) -> Turns:
    """All messages of a body, and where each stands in it.

    Raises:
        InvalidRequest: a block at fault, named by its path.
        Unsupported: a block that is not served, or an answer that is to be continued.
    """
    found: list[tuple[Message, Place]] = []
    instructions = _instructions(system)
    if instructions:
        found.append((Message(role=Role.SYSTEM, content=instructions), Place(system.path)))
    for turn in turns.entries():
        found.extend(_turn(turn))
    if found and found[-1][0].role is Role.ASSISTANT:
        raise Unsupported(
            f"{found[-1][1].name} is the assistant's and the last one; an answer cannot be begun"
            " by the client, expected a turn of the user",
            param=found[-1][1].name,
        )
    return with_joined_instructions([message for message, _ in found], [at for _, at in found])


def _instructions(system: Field) -> str:
    if system.value is None or isinstance(system.value, str):
        return system.value or ""
    texts = map(blocks.instruction, system.entries())
    return BETWEEN.join(text for text in texts if not text.startswith(_BILLING))


def _turn(turn: Field) -> list[tuple[Message, Place]]:
    content, role = turn.at("content"), turn.at("role").value
    if role not in ("user", "assistant", "system"):
        field = f"{turn.path}.role"
        raise InvalidRequest(f"{field} must be user, assistant or system", param=field)
    turn.only({"role", "content"})
    if isinstance(content.value, str):
        return [(Message(role=Role(role), content=content.value), Place(turn.path))]
    if role == "assistant":
        return [(_answer(content), Place(turn.path))]
    return _asked(Role(role), content, turn.path)


def _asked(role: Role, content: Field, path: str) -> list[tuple[Message, Place]]:
    found: list[tuple[Message, Place]] = []
    said: list[Placed] = []
    for block in content.entries():
        if block.kind() == "tool_result" and role is Role.USER:
            name, told = blocks.result(block)
            found.append(_message(Role.TOOL, told, block.path, call_id=name))
        else:
            said.extend(blocks.block_parts(block))
    if said or not found:
        found.append(_message(role, said, path))
    return found


def _message(
    role: Role, said: list[Placed] | str, path: str, *, call_id: str | None = None
) -> tuple[Message, Place]:
    if isinstance(said, str):
        return Message(role=role, content=said, tool_call_id=call_id), Place(path)
    content = tuple(part for part, _ in said)
    message = Message(role=role, content=content, tool_call_id=call_id)
    return message, Place(path, tuple(at for _, at in said))


def _answer(content: Field) -> Message:
    """A turn of the assistant: its thought, its text as it was generated, its calls."""
    thoughts, texts, calls = [], [], []
    for block in content.entries():
        kind = block.kind()
        if kind == "thinking":
            thoughts.append(blocks.thought(block))
        elif kind == "text":
            texts.append(block.text("text"))
        elif kind == "tool_use":
            calls.append(blocks.call(block))
        elif kind != "redacted_thinking":  # another server's, which nobody here can read
            raise block.wrong_type("text, thinking or tool_use")
    return Message(
        role=Role.ASSISTANT,
        content="".join(texts) if texts else None,
        reasoning="".join(thoughts) or None,
        tool_calls=tuple(calls),
    )
