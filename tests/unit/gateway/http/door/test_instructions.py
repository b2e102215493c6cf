"""Instructions from several places."""

from gateway.http.door.instructions import with_joined_instructions
from gateway.http.door.places import Place
from gateway.request.conversation import Message, Role, TextPart


def system(*texts: str) -> Message:
    return Message(role=Role.SYSTEM, content=tuple(TextPart(text=text) for text in texts))


ASKED = Message(role=Role.USER, content="Hello?")
PLACES = [Place(name) for name in "abcd"]


def test_leading_system_messages_become_one() -> None:
    one = Message(role=Role.SYSTEM, content="Be brief.")
    messages, places = with_joined_instructions([one, system("Be", "kind."), ASKED], PLACES[:3])
    assert messages == (Message(role=Role.SYSTEM, content="Be brief.\n\nBe\n\nkind."), ASKED)
    assert places == (PLACES[0], PLACES[2])


def test_one_alone_and_those_further_on_stay_as_they_are() -> None:
    given = [system("Be", "kind."), ASKED, system("Stop."), system("Now.")]
    assert with_joined_instructions(given, PLACES) == (tuple(given), tuple(PLACES))
