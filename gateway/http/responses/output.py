"""The items of an answer as they grow: a thought, a text, calls; each with its events."""

from collections.abc import Iterator, Sequence
from typing import Any

Json = dict[str, Any]


class OutputItem:
    """One item; its events name it by id and place.

    Args:
        name: Its id.
        index: Its place among the answer's items.
    """

    def __init__(self, name: str, index: int) -> None:
        self.name = name
        self.place: Json = {"item_id": name, "output_index": index}

    def item(self, status: str) -> Json:
        """The item as it is now."""
        raise NotImplementedError

    def opened(self) -> Iterator[Json]:
        """The events of its beginning."""
        yield self._bounds("added", "in_progress")

    def closed(self, status: str) -> Iterator[Json]:
        """The events of its end; `status` is completed or incomplete."""
        yield self._bounds("done", status)

    def _bounds(self, what: str, status: str) -> Json:
        return {
            "type": f"response.output_item.{what}",
            "output_index": self.place["output_index"],
            "item": self.item(status),
        }


class TextItem(OutputItem):
    """An item of one part that is text."""

    part_type = ""
    event_type = ""

    def __init__(self, name: str, index: int) -> None:
        super().__init__(name, index)
        self.place["content_index"] = 0
        self._texts: list[str] = []

    @property
    def text(self) -> str:
        """All of its text so far."""
        return "".join(self._texts)

    def part(self) -> Json:
        """Its part as it is now."""
        return {"type": self.part_type, "text": self.text}

    def grown(self, text: str, **more: Any) -> Json:
        """The event of more text; `more` goes beside it."""
        self._texts.append(text)
        return {"type": f"{self.event_type}.delta", **self.place, "delta": text, **more}

    def finished(self) -> Json:
        """The event of its whole text."""
        return {"type": f"{self.event_type}.done", **self.place, "text": self.text}

    def opened(self) -> Iterator[Json]:
        """The item without a part, then its empty part."""
        yield {**self._bounds("added", "in_progress"), "item": self._without_part()}
        yield {"type": "response.content_part.added", **self.place, "part": self.part()}

    def closed(self, status: str) -> Iterator[Json]:
        """The whole text, the whole part, the whole item."""
        yield self.finished()
        yield {"type": "response.content_part.done", **self.place, "part": self.part()}
        yield from super().closed(status)

    def _without_part(self) -> Json:
        return {**self.item("in_progress"), "content": []}


class ThoughtItem(TextItem):
    """What the model thought, all of it."""

    part_type = "reasoning_text"
    event_type = "response.reasoning_text"

    def item(self, status: str) -> Json:
        """The item as it is now."""
        content = [self.part()]
        return {
            "id": self.name,
            "type": "reasoning",
            "status": status,
            "summary": [],
            "content": content,
        }


class MessageItem(TextItem):
    """What the model said."""

    part_type = "output_text"
    event_type = "response.output_text"

    def __init__(self, name: str, index: int) -> None:
        super().__init__(name, index)
        self._logprobs: list[Json] = []

    def said(self, text: str, logprobs: Sequence[Json]) -> Json:
        """The event of more text with the log-probabilities of its tokens, if they are wanted."""
        self._logprobs.extend(logprobs)
        return self.grown(text, logprobs=list(logprobs))

    def part(self) -> Json:
        """Its part as it is now."""
        return {**super().part(), "annotations": [], "logprobs": list(self._logprobs)}

    def finished(self) -> Json:
        """The event of its whole text."""
        return {**super().finished(), "logprobs": list(self._logprobs)}

    def item(self, status: str) -> Json:
        """The item as it is now."""
        return {
            "id": self.name,
            "type": "message",
            "status": status,
            "role": "assistant",
            "content": [self.part()],
        }


class CallItem(OutputItem):
    """A call of a tool.

    Args:
        name: The item's id.
        index: Its place among the answer's items.
        call_id: By which its output comes back.
        function: The tool's name.
    """

    def __init__(self, name: str, index: int, *, call_id: str, function: str) -> None:
        super().__init__(name, index)
        self.call_id = call_id
        self.function = function
        self._arguments: list[str] = []

    @property
    def arguments(self) -> str:
        """All of its arguments' JSON text so far."""
        return "".join(self._arguments)

    def grown(self, arguments: str) -> Json:
        """The event of more arguments."""
        self._arguments.append(arguments)
        return {
            "type": "response.function_call_arguments.delta",
            **self.place,
            "delta": arguments,
        }

    def closed(self, status: str) -> Iterator[Json]:
        """The whole arguments, the whole item."""
        yield {
            "type": "response.function_call_arguments.done",
            **self.place,
            "name": self.function,
            "arguments": self.arguments,
        }
        yield from super().closed(status)

    def item(self, status: str) -> Json:
        """The item as it is now."""
        return {
            "id": self.name,
            "type": "function_call",
            "status": status,
            "call_id": self.call_id,
            "name": self.function,
            "arguments": self.arguments,
        }
