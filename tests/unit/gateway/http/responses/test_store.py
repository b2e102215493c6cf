"""What is kept of answers, and what goes when there is too much."""

import sys
from typing import Any

from gateway.http.responses.store import ResponseStore
from gateway.request.conversation import ImagePart, Message, Role

ME, YOU = b"me", b"you"


def body(name: str) -> dict[str, Any]:
    return {"id": name, "output": [{"id": f"msg_{name}", "type": "message"}]}


def image(size: int) -> tuple[Message, ...]:
    return (Message(role=Role.USER, content=(ImagePart(data=bytes(size)),)),)


def store(max_count: int = 100, max_bytes: int = 1 << 30) -> ResponseStore:
    return ResponseStore(max_count=max_count, max_bytes=max_bytes)


def test_an_answer_is_found_by_its_tenant_alone() -> None:
    kept = store()
    kept.put(ME, body("a"), image(5))
    found = kept.get(ME, "a")
    assert found is not None
    assert (found.body, found.messages) == (body("a"), image(5))
    assert kept.item(ME, "msg_a") == {"id": "msg_a", "type": "message"}
    assert (kept.get(YOU, "a"), kept.item(YOU, "msg_a")) == (None, None)
    assert not kept.delete(YOU, "a")
    assert kept.delete(ME, "a")
    assert not kept.delete(ME, "a")
    assert (kept.get(ME, "a"), kept.item(ME, "msg_a")) == (None, None)


def test_the_oldest_goes_and_asking_makes_new() -> None:
    kept = store(max_count=2)
    kept.put(ME, body("a"), ())
    kept.put(ME, body("b"), ())
    assert kept.get(ME, "a") is not None
    kept.put(ME, body("c"), ())
    assert [name for name in "abc" if kept.get(ME, name)] == ["a", "c"]
    assert kept.item(ME, "msg_b") is None


def test_who_has_most_loses_first() -> None:
    kept = store(max_count=3)
    kept.put(YOU, body("y"), ())
    for name in "abcde":
        kept.put(ME, body(name), ())
    assert kept.get(YOU, "y") is not None
    assert [name for name in "abcde" if kept.get(ME, name)] == ["d", "e"]


def test_bytes_are_bounded_with_images_and_what_never_fits_is_not_kept() -> None:
    kept = store(max_bytes=1_000_000)
    kept.put(YOU, body("y"), image(100_000))
    for name in "abcd":
        kept.put(ME, body(name), image(300_000))
    assert [name for name in "abcd" if kept.get(ME, name)] == ["c", "d"]
    assert kept.get(YOU, "y") is not None
    kept.put(ME, body("e"), image(1_000_000))
    assert kept.get(ME, "e") is None
    assert kept.get(ME, "d") is not None


def test_the_size_is_at_least_that_of_everything_in_it() -> None:
    kept = store()
    text, reasoning = "ä" * 5000, "漢" * 3000
    message = Message(role=Role.ASSISTANT, content=text, reasoning=reasoning)
    kept.put(ME, {**body("a"), "instructions": text}, (message,))
    found = kept.get(ME, "a")
    assert found is not None
    assert found.size_bytes > 2 * sys.getsizeof(text) + sys.getsizeof(reasoning)


def test_nothing_is_kept_where_nothing_may_be() -> None:
    for kept in (store(max_count=0), store(max_bytes=0)):
        kept.put(ME, body("a"), ())
        assert not kept.keeps
        assert kept.get(ME, "a") is None
