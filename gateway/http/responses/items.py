"""The input's items as messages: what belongs to one turn of the assistant comes in several."""

from collections.abc import Callable, Mapping, Sequence
from typing import Any

from gateway.http.door.places import Place
from gateway.http.door.typed import Field
from gateway.http.responses.parts import content, part_paths
from gateway.request.conversation import Message, Role, ToolCall
from protos.wire.errors import InvalidRequest, Reason

_ROLES = {
    "user": Role.USER,
    "system": Role.SYSTEM,
    "developer": Role.SYSTEM,
    "assistant": Role.ASSISTANT,
}
_EXPECTED = "message, reasoning, function_call, function_call_output or item_reference"
# What clients echo of items they got.
_IDLE = frozenset(("type", "id", "status", "phase", "created_by"))

FindItem = Callable[[str], Mapping[str, Any] | None]


class ItemReader:
    """Makes messages of items; a thought, a text and calls next to each other are one turn."""

    def __init__(self, find: FindItem) -> None:
        """Args: find: An item of an earlier answer by its id; None where it is not kept."""
        self._find = find
        self.messages: list[Message] = []
        self.places: list[Place] = []
        self._turn: dict[str, Any] = {}  # of the assistant, whose items still come
        self._turn_path = ""

    def read(self, given: Field) -> None:
        """Reads a whole input; null says nothing.

        Raises:
            InvalidRequest: an item at fault, named by its path.
            Unsupported: an item or part that is not served.
        """
        if isinstance(given.value, str):
            self.add(Message(role=Role.USER, content=given.value), Place(given.path))
        elif given.value is not None:
            for item in given.entries():
                self._item(item)
            self._close_turn()

    def add(self, message: Message, place: Place) -> None:
        """Adds a message that is whole."""
        self._close_turn()
        self.messages.append(message)
        self.places.append(place)

    def _item(self, item: Field) -> None:
        kind = item.kind(default=_untyped(item.value))
        if kind == "item_reference":
            item = self._referenced(item)
            kind = item.kind()
        if kind == "message":
            self._message(item)
        elif kind == "reasoning":
            self._reasoning(item)
        elif kind == "function_call":
            self._call(item)
        elif kind == "function_call_output":
            self._output(item)
        else:
            raise item.wrong_type(_EXPECTED, reason=Reason.NOT_SUPPORTED)

    def _referenced(self, item: Field) -> Field:
        found = self._find(item.text("id"))
        if found is None:
            raise InvalidRequest(
                f"{item.path}.id names no item that is kept here; send the item itself",
                param=f"{item.path}.id",
            )
        return Field(found, item.path, item.unknown)

    def _message(self, item: Field) -> None:
        item.only({"role", "content"} | _IDLE)
        role = _ROLES.get(str(item.at("role").value))
        if role is None:
            raise InvalidRequest(
                f"{item.path}.role must be user, assistant, system or developer",
                param=f"{item.path}.role",
            )
        given = item.at("content")
        said = content(given, role)
        if role is Role.ASSISTANT:
            self._extend(item, closes_behind=("content", "tool_calls"), content=said)
        else:
            self.add(Message(role=role, content=said), Place(item.path, part_paths(given)))

    def _reasoning(self, item: Field) -> None:
        item.only({"summary", "content", "encrypted_content"} | _IDLE)
        # Encrypted thoughts are another server's; what can be read of them is their summary.
        parts = item.at("content")
        if not parts.value:
            parts = item.at("summary")
        thought = "".join(part.text("text") for part in (parts.entries() if parts.value else ()))
        if thought:
            behind = ("reasoning", "content", "tool_calls")
            self._extend(item, closes_behind=behind, reasoning=thought)

    def _call(self, item: Field) -> None:
        item.only({"call_id", "name", "arguments", "namespace"} | _IDLE)
        call = ToolCall(
            name=item.text("name"), arguments=item.text("arguments"), call_id=item.text("call_id")
        )
        self._extend(item, tool_calls=(*self._turn.get("tool_calls", ()), call))

    def _output(self, item: Field) -> None:
        item.only({"call_id", "output"} | _IDLE)
        given = item.at("output")
        said = content(given, Role.TOOL)
        message = Message(role=Role.TOOL, content=said, tool_call_id=item.text("call_id"))
        self.add(message, Place(item.path, part_paths(given)))

    def _extend(self, item: Field, *, closes_behind: Sequence[str] = (), **fields: Any) -> None:
        """Adds to the assistant's turn; what cannot follow what it has begins another."""
        if any(name in self._turn for name in closes_behind):
            self._close_turn()
        if not self._turn:
            self._turn_path = item.path
        self._turn.update(fields)

    def _close_turn(self) -> None:
        if self._turn:
            fields = {"content": None, **self._turn}
            self._turn = {}
            self.messages.append(Message(role=Role.ASSISTANT, **fields))
            self.places.append(Place(self._turn_path))


def _untyped(raw: object) -> str | None:
    """Messages may leave their type out."""
    return "message" if isinstance(raw, Mapping) and "role" in raw else None
