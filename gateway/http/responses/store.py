"""Answers that later requests go on from, in this process's memory, bounded, apart by tenant."""

import sys
import threading
from collections import OrderedDict
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

from gateway.request.conversation import FilePart, ImagePart, Message, Part, TextPart

# Of Python's objects around a message's texts and images, generously.
MESSAGE_BYTES = 1024


@dataclass(frozen=True, slots=True, kw_only=True)
class Kept:
    """One answer: its body, and the conversation up to it and with it, instructions apart."""

    body: Mapping[str, Any]
    messages: tuple[Message, ...]
    size_bytes: int


class ResponseStore:
    """The newest answers, by tenant and id. Safe for use from several threads.

    When there are too many, or too many bytes, the oldest of the tenant that has most of them
    goes; asking for an answer makes it new. Images that several answers of a conversation share
    are counted for each of them, so memory stays below the bound.

    Args:
        max_count: Most answers; 0 keeps none.
        max_bytes: Most bytes of them.
    """

    def __init__(self, *, max_count: int, max_bytes: int) -> None:
        self._max_count = max_count
        self._max_bytes = max_bytes
        self._tenants: dict[bytes, _Shelf] = {}
        self._lock = threading.Lock()

    @property
    def keeps(self) -> bool:
        """Whether anything is kept at all."""
        return self._max_count > 0 and self._max_bytes > 0

    def put(self, tenant: bytes, body: Mapping[str, Any], messages: tuple[Message, ...]) -> None:
        """Keeps an answer as long as there is room for it."""
        kept = Kept(body=body, messages=messages, size_bytes=_size(body, messages))
        if not self.keeps or kept.size_bytes > self._max_bytes:
            return
        with self._lock:
            self._tenants.setdefault(tenant, _Shelf()).put(kept)
            while sum(len(shelf.answers) for shelf in self._tenants.values()) > self._max_count:
                self._drop_oldest(max(self._tenants, key=self._count))
            while sum(shelf.size_bytes for shelf in self._tenants.values()) > self._max_bytes:
                self._drop_oldest(max(self._tenants, key=self._size))

    def get(self, tenant: bytes, name: str) -> Kept | None:
        """A tenant's answer by its id; None where it is not kept, or is another's."""
        with self._lock:
            shelf = self._tenants.get(tenant)
            return None if shelf is None else shelf.get(name)

    def item(self, tenant: bytes, name: str) -> Mapping[str, Any] | None:
        """An item of a tenant's answers by its id; None where it is not kept."""
        with self._lock:
            shelf = self._tenants.get(tenant)
            return None if shelf is None else shelf.items.get(name)

    def delete(self, tenant: bytes, name: str) -> bool:
        """Drops a tenant's answer; whether there was one. Those that go on from it stay."""
        with self._lock:
            shelf = self._tenants.get(tenant)
            if shelf is None or name not in shelf.answers:
                return False
            self._drop(tenant, name)
            return True

    def _count(self, tenant: bytes) -> int:
        return len(self._tenants[tenant].answers)

    def _size(self, tenant: bytes) -> int:
        return self._tenants[tenant].size_bytes

    def _drop_oldest(self, tenant: bytes) -> None:
        self._drop(tenant, next(iter(self._tenants[tenant].answers)))

    def _drop(self, tenant: bytes, name: str) -> None:
        self._tenants[tenant].drop(name)
        if not self._tenants[tenant].answers:
            del self._tenants[tenant]


class _Shelf:
    """One tenant's answers, oldest first, and their items by id."""

    def __init__(self) -> None:
        self.answers: OrderedDict[str, Kept] = OrderedDict()
        self.items: dict[str, Mapping[str, Any]] = {}
        self.size_bytes = 0

    def put(self, kept: Kept) -> None:
        self.answers[str(kept.body["id"])] = kept
        self.items.update((item["id"], item) for item in kept.body["output"])
        self.size_bytes += kept.size_bytes

    def get(self, name: str) -> Kept | None:
        if name in self.answers:
            self.answers.move_to_end(name)
        return self.answers.get(name)

    def drop(self, name: str) -> None:
        kept = self.answers.pop(name)
        self.size_bytes -= kept.size_bytes
        for item in kept.body["output"]:
            del self.items[item["id"]]


def _size(body: Mapping[str, Any], messages: tuple[Message, ...]) -> int:
    return _value_size(body) + sum(map(_message_size, messages))


def _message_size(message: Message) -> int:
    parts = () if message.content is None or isinstance(message.content, str) else message.content
    size = MESSAGE_BYTES * (1 + len(parts) + len(message.tool_calls))
    size += sys.getsizeof(message.content) + sys.getsizeof(message.reasoning)
    for part in parts:
        size += _part_size(part)
    return size + sum(_value_size(call.arguments) for call in message.tool_calls)


def _part_size(part: Part) -> int:
    if isinstance(part, TextPart):
        return sys.getsizeof(part.text)
    if isinstance(part, ImagePart | FilePart):
        return sys.getsizeof(part.data) + sys.getsizeof(part.url)
    return sys.getsizeof(part.file) + sum(map(sys.getsizeof, part.frames))


def _value_size(value: Any) -> int:
    """Bytes of a JSON value's objects; those that are shared count each time."""
    size = sys.getsizeof(value)
    if isinstance(value, Mapping):
        size += sum(_value_size(key) + _value_size(inner) for key, inner in value.items())
    elif isinstance(value, list | tuple):
        size += sum(map(_value_size, value))
    return size
