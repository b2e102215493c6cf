"""Which messages stay where a conversation is too long."""

import pytest

from gateway.http.door.fitting import without_first_turns
from gateway.request.conversation import Conversation, Message, Role

ROLES = {"s": Role.SYSTEM, "u": Role.USER, "a": Role.ASSISTANT, "t": Role.TOOL}


@pytest.mark.parametrize(
    ("roles", "kept"),
    [
        ("suauau", [0, 3, 4, 5]),
        ("suau", [0, 3]),
        ("uatatau", [6]),  # results go with their calls
        ("ua", [0, 1]),
        ("su", [0, 1]),
        ("auau", [1, 2, 3]),
        ("ss", [0, 1]),
        ("", []),
        ("u" * 17, list(range(3, 17))),
    ],
)
def test_first_turns_go_whole_and_instructions_and_the_last_turn_stay(
    roles: str, kept: list[int]
) -> None:
    messages = tuple(Message(role=ROLES[role], content="x") for role in roles)
    assert without_first_turns(Conversation(messages=messages)) == kept
