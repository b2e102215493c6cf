"""Errors in the client's own words."""

import pytest

from gateway.http.door.places import Names, Place, naming, renamed
from protos.wire.errors import InvalidRequest, Overloaded, PromptTooLong, Reason, ServiceError

PLACES = (Place("instructions"), Place("input[0]", ("input[0].output[0]", "input[0].output[1]")))
NAMES = Names(
    places=PLACES,
    words=(
        ("tools[].function.parameters", "tools[].input_schema"),
        ("tools[].function", "tools[]"),
        ("messages", "input"),
    ),
)


@pytest.mark.parametrize(
    ("ours", "theirs"),
    [
        ("messages[0]", "instructions"),
        ("messages[1]", "input[0]"),
        ("messages[1].content[1]", "input[0].output[1]"),
        ("messages[0].content[0]", "instructions"),
        ("messages[1].tool_calls[0]", "input[0].tool_calls[0]"),
        ("messages[9]", "messages[9]"),
        ("messages", "input"),
        ("tools[1]", "tools[1]"),
        ("tools[12].function.name", "tools[12].name"),
        ("tools[12].function.parameters.type", "tools[12].input_schema.type"),
        ("temperature", "temperature"),
        (None, None),
    ],
)
def test_numbers_of_messages_become_the_clients_paths(ours: str | None, theirs: str | None) -> None:
    error = InvalidRequest(f"{ours} is odd", reason=Reason.INVALID_IMAGE, param=ours)
    found = renamed(error, NAMES)
    assert (found.param, found.message) == (theirs, f"{theirs} is odd")
    assert (found.reason, type(found)) == (Reason.INVALID_IMAGE, InvalidRequest)


def test_what_else_an_error_says_stays() -> None:
    error = Overloaded("full", retry_after_s=3)
    assert renamed(error, NAMES) is error
    with pytest.raises(PromptTooLong) as caught, naming(NAMES):
        raise PromptTooLong("messages[0] is long", param="messages[0]", retry_after_s=2)
    assert (caught.value.param, caught.value.retry_after_s) == ("instructions", 2)
    with pytest.raises(ServiceError, match="plain"), naming(NAMES):
        raise ServiceError("plain")
