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


class Tagged:
    """A conversation with tags around the texts that must be in its prompt, by message.

    Args:
        conversation: As the client sent it.
        digits: `DIGIT_COUNT` characters that are nowhere in the conversation or the template.
    """

    def __init__(self, conversation: Conversation, digits: tuple[str, ...]) -> None:
        self._source = conversation
        self._digits = digits
        self._tags = {
            place: _tag(place, digits)
            for place, message in enumerate(conversation.messages)
            if message.role in _MUST_BE_WRITTEN
        }
        messages = [
            _tagged(message, self._tags[place]) if place in self._tags else message
            for place, message in enumerate(conversation.messages)
        ]
        self.conversation = replace(conversation, messages=tuple(messages))

    def untagged(self, text: str) -> str:
        """A prompt without the tags."""
        for character in self._digits:  # many times as fast as `str.translate`
            text = text.replace(character, "")
        return text

    def check(self, tagged: str) -> None:
        """Checks that a prompt has the tags of every text.

        Args:
            tagged: What the template made of the tagged conversation; without its tags it is what
                it makes of the conversation itself.

        Raises:
            InvalidRequest: param `messages[i]`; the template leaves out a text of message i.
        """
        for place, tag in self._tags.items():
            message = self._source.messages[place]
            if tagged.count(tag) < 2 * len(_texts(message)):
                raise _left_out(place, message)

    def check_texts(self, rendered: str) -> None:
        """Checks that a prompt has every text itself, where tags would change it.

        Raises:
            InvalidRequest: as `check`.
        """
        for place in self._tags:
            message = self._source.messages[place]
            if not all(text in rendered for text in _texts(message)):
                raise _left_out(place, message)


def check_presence(tagged: Tagged, rendered: str, render: Callable[[Conversation], str]) -> None:
    """Checks that every text of a message that is not an answer is in the prompt.

    The conversation is rendered once more, each such text between tags that name its message.
    Where tags change the prompt, because the template looks into texts, the texts themselves are
    looked for.

    Args:
        tagged: What was rendered, with tags.
        rendered: The prompt it became without.
        render: Renders a conversation.

    Raises:
        InvalidRequest: param `messages[i]`; the template leaves out a text of message i.
    """
    prompt = render(tagged.conversation)
    if tagged.untagged(prompt) == rendered:
        tagged.check(prompt)
    else:
        tagged.check_texts(rendered)


def _tag(place: int, digits: tuple[str, ...]) -> str:
    """A number in binary digits between two ends, so that none is read in a longer one."""
    end, zero, one = digits
    return end + format(place, "b").replace("0", zero).replace("1", one) + end


def _texts(message: Message) -> list[str]:
    """Its texts, without those that are nothing but white space."""
    content = message.content
    if content is None or isinstance(content, str):
        parts = [content or ""]
    else:
        parts = [part.text for part in shown(content) if isinstance(part, TextPart)]
    return [core for text in parts if (core := text.strip())]


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
