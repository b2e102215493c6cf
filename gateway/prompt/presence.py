"""Whether a chat template writes what it was given: an instruction must never vanish.

Templates write the roles and places their makers thought of. Qwen3-VL's writes a system message
only where it is the first one, and drops a later one without a word.
"""

from collections.abc import Callable
from dataclasses import replace

from gateway.request.conversation import Conversation, Message, Role, TextPart, shown
from protos.wire.errors import InvalidRequest

# Of former answers templates cut the thoughts out, on purpose.
_MUST_BE_WRITTEN = (Role.SYSTEM, Role.USER, Role.TOOL)
DIGIT_COUNT = 3


def check_presence(
    conversation: Conversation,
    rendered: str,
    render: Callable[[Conversation], str],
    digits: tuple[str, ...],
) -> None:
    """Checks that every text of a message that is not an answer is in the prompt.

    The conversation is rendered once more, each such text between tags that name its message.
    Where tags change the prompt, because the template looks into texts, the texts themselves are
    looked for.

    Args:
        conversation: What was rendered.
        rendered: The prompt it became.
        render: Renders a conversation.
        digits: `DIGIT_COUNT` characters that are nowhere in the conversation or the template.

    Raises:
        InvalidRequest: param `messages[i]`; the template leaves out a text of message i.
    """
    tags = {
        place: _tag(place, digits)
        for place, message in enumerate(conversation.messages)
        if message.role in _MUST_BE_WRITTEN
    }
    messages = [
        _tagged(message, tags[place]) if place in tags else message
        for place, message in enumerate(conversation.messages)
    ]
    tagged = render(replace(conversation, messages=tuple(messages)))
    faithful = _without(tagged, digits) == rendered
    for place, tag in tags.items():
        message = conversation.messages[place]
        texts = [text.strip() for text in _texts(message) if text.strip()]
        if faithful:
            written = tagged.count(tag) >= 2 * len(texts)
        else:
            written = all(text in rendered for text in texts)
        if not written:
            raise _left_out(place, message)


def _tag(place: int, digits: tuple[str, ...]) -> str:
    """A number in binary digits between two ends, so that none is read in a longer one."""
    end, zero, one = digits
    return end + format(place, "b").replace("0", zero).replace("1", one) + end


def _without(text: str, characters: tuple[str, ...]) -> str:
    for character in characters:  # many times as fast as `str.translate`
        text = text.replace(character, "")
    return text


def _texts(message: Message) -> list[str]:
    if message.content is None or isinstance(message.content, str):
        return [message.content or ""]
    return [part.text for part in shown(message.content) if isinstance(part, TextPart)]


def _tagged(message: Message, tag: str) -> Message:
    if message.content is None:
        return message
    if isinstance(message.content, str):
        return replace(message, content=_between(message.content, tag))
    parts = (
        TextPart(text=_between(part.text, tag)) if isinstance(part, TextPart) else part
        for part in shown(message.content)
    )
    return replace(message, content=tuple(parts))


def _between(text: str, tag: str) -> str:
    """A text with a tag at both ends; white space stays outside, because templates trim it."""
    core = text.strip()
    return text.replace(core, tag + core + tag, 1) if core else text


def _left_out(place: int, message: Message) -> InvalidRequest:
    what, advice = f"has role {message.role.value}", ""
    if message.role is Role.SYSTEM:
        what = "is a system or developer message"
        advice = "; put all instructions into one system message, the first message"
    return InvalidRequest(
        f"messages[{place}] {what} at a place where the model's chat template leaves its text out"
        f"{advice}",
        param=f"messages[{place}]",
    )
