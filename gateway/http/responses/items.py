"""The input's items as messages: what belongs to one turn of the assistant comes in several."""

from collections.abc import Callable, Mapping, Sequence
from typing import Any

from gateway.http.door.fields import check_known, entries, text_in, typed, wrong_type
from gateway.http.door.places import Place
from gateway.http.responses.parts import content, part_paths
from gateway.request.conversation import Message, Role, ToolCall
from protos.wire.errors import InvalidRequest

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

    def read(self, given: str | Sequence[Any] | None) -> None:
        """Reads a whole input.

        Raises:
            InvalidRequest: an item at fault, named by its path.
            Unsupported: an item or part that is not served.
        """
        if isinstance(given, str):
            self.add(Message(role=Role.USER, content=given), Place("input"))
            return
        for index, raw in enumerate(given or ()):
            self._item(raw, f"input[{index}]")
        self._close_turn()

    def add(self, message: Message, place: Place) -> None:
        """Adds a message that is whole."""
        self._close_turn()
        self.messages.append(message)
        self.places.append(place)

    def _item(self, raw: object, path: str) -> None:
        item, kind = typed(raw, path, default=_untyped(raw))
        if kind == "item_reference":
            item, kind = self._referenced(item, path)
        if kind == "message":
            self._message(item, path)
        elif kind == "reasoning":
            self._reasoning(item, path)
        elif kind == "function_call":
            self._call(item, path)
        elif kind == "function_call_output":
            self._output(item, path)
        else:
            raise wrong_type(kind, path, _EXPECTED)

    def _referenced(self, item: Mapping[str, Any], path: str) -> tuple[Mapping[str, Any], str]:
        found = self._find(text_in(item, "id", path))
        if found is None:
            raise InvalidRequest(
                f"{path}.id names no item that is kept here; send the item itself",
                param=f"{path}.id",
            )
        return found, str(found["type"])

    def _message(self, item: Mapping[str, Any], path: str) -> None:
        check_known(item, path, {"role", "content"} | _IDLE)
        role = _ROLES.get(str(item.get("role")))
        if role is None:
            raise InvalidRequest(
                f"{path}.role must be user, assistant, system or developer", param=f"{path}.role"
            )
        said = content(item.get("content"), f"{path}.content", role)
        if role is Role.ASSISTANT:
            self._extend(path, closes_behind=("content", "tool_calls"), content=said)
            return
        paths = part_paths(item.get("content"), f"{path}.content")
        self.add(Message(role=role, content=said), Place(path, paths))

    def _reasoning(self, item: Mapping[str, Any], path: str) -> None:
        check_known(item, path, {"summary", "content", "encrypted_content"} | _IDLE)
        # Encrypted thoughts are another server's; what can be read of them is their summary.
        parts = item.get("content") or item.get("summary") or []
        thought = "".join(
            text_in(typed(part, f"{path}.content[{index}]")[0], "text", f"{path}.content[{index}]")
            for index, part in enumerate(entries(parts, f"{path}.content"))
        )
        if thought:
            self._extend(
                path, closes_behind=("reasoning", "content", "tool_calls"), reasoning=thought
            )

    def _call(self, item: Mapping[str, Any], path: str) -> None:
        check_known(item, path, {"call_id", "name", "arguments", "namespace"} | _IDLE)
        call = ToolCall(
            name=text_in(item, "name", path),
            arguments=text_in(item, "arguments", path),
            call_id=text_in(item, "call_id", path),
        )
        self._extend(path, tool_calls=(*self._turn.get("tool_calls", ()), call))

    def _output(self, item: Mapping[str, Any], path: str) -> None:
        check_known(item, path, {"call_id", "output"} | _IDLE)
        said = content(item.get("output"), f"{path}.output", Role.TOOL)
        message = Message(role=Role.TOOL, content=said, tool_call_id=text_in(item, "call_id", path))
        self.add(message, Place(path, part_paths(item.get("output"), f"{path}.output")))

    def _extend(self, path: str, *, closes_behind: Sequence[str] = (), **fields: Any) -> None:
        """Adds to the assistant's turn; what cannot follow what it has begins another."""
        if any(name in self._turn for name in closes_behind):
            self._close_turn()
        if not self._turn:
            self._turn_path = path
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
