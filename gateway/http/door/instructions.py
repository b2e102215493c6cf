"""Instructions that a client sends in several places, as the one message that templates write."""

from collections.abc import Sequence

from gateway.http.door.places import Place
from gateway.request.conversation import Message, Role, TextPart

BETWEEN = "\n\n"


def text_of(message: Message) -> str:
    """The text of a message, its parts apart by an empty line."""
    if message.content is None or isinstance(message.content, str):
        return message.content or ""
    return BETWEEN.join(part.text for part in message.content if isinstance(part, TextPart))


def with_joined_instructions(
    messages: Sequence[Message], places: Sequence[Place]
) -> tuple[tuple[Message, ...], tuple[Place, ...]]:
    """The same conversation with its leading system messages as one, in their order.

    APIs that have a field for instructions allow system messages behind it; templates write one.
    A system message further on, or one that holds more than text, stays where it is, and is refused
    where the template drops it.
    """
    count = 0
    while count < len(messages) and _instructs(messages[count]):
        count += 1
    if count < 2:
        return tuple(messages), tuple(places)
    joined = Message(role=Role.SYSTEM, content=BETWEEN.join(map(text_of, messages[:count])))
    return (joined, *messages[count:]), (places[0], *places[count:])


def _instructs(message: Message) -> bool:
    """Whether it is a system message of text: joining would drop images and files."""
    content = message.content if isinstance(message.content, tuple) else ()
    return message.role is Role.SYSTEM and all(isinstance(part, TextPart) for part in content)
