"""What a request may set of a chat template besides the conversation."""

from collections.abc import Mapping, Set
from typing import Any

from gateway.prompt.provenance import Marks
from gateway.request.conversation import Conversation, Effort
from protos.wire.errors import InvalidRequest, Unsupported

# What every rendering sees, or what has a field of its own in a request.
_OWN = frozenset(("messages", "tools", "documents", "add_generation_prompt"))
# What templates call the switch of thinking, and how much of it.
SWITCH, DEGREE = "enable_thinking", "reasoning_effort"

FIELD = "chat_template_kwargs"


def check_options(conversation: Conversation, reads: Set[str], named: Set[str]) -> None:
    """Checks that the template reads what the request sets.

    Args:
        conversation: With its options and effort.
        reads: Variables of the template.
        named: Those of them that are the tokenizer's.

    Raises:
        InvalidRequest: an option that the template does not read, or that is not the client's.
    """
    for name in conversation.template_options:
        if name in _OWN or name in named:
            raise InvalidRequest(
                f"{FIELD}.{name[:64]} is not allowed: the server sets it itself", param=FIELD
            )
        if name not in reads:
            known = ", ".join(sorted(reads - _OWN - named)) or "none"
            raise InvalidRequest(
                f"{FIELD}.{name[:64]} is not allowed: the model's chat template reads"
                f" {known[:200]}",
                param=FIELD,
            )


def template_options(conversation: Conversation, reads: Set[str], marks: Marks) -> dict[str, Any]:
    """Variables for the template: the request's own, and what its effort means to this one."""
    options: dict[str, Any] = {}
    if conversation.add_vision_id:
        options["add_vision_id"] = True
    effort = conversation.reasoning_effort
    if effort is not None and SWITCH in reads:
        options[SWITCH] = effort not in (Effort.NONE, Effort.MINIMAL)
    if effort is not None and DEGREE in reads:
        options[DEGREE] = effort.value
    for name, value in conversation.template_options.items():
        options[name] = marks.text(value) if isinstance(value, str) else value
    return options


def check_effort(effort: Effort | None, reads: Set[str], *, opens_thought: bool) -> None:
    """Checks that a request for an answer without a thought is heard.

    More or less of a thought is a wish, and a model that knows no degrees has granted it as far
    as it can.

    Args:
        effort: The request's.
        reads: Variables of the template.
        opens_thought: Whether the rendered prompt ends within a thought.

    Raises:
        Unsupported: the model is to answer at once, and its template lets it think.
    """
    if effort in (Effort.NONE, Effort.MINIMAL) and opens_thought and DEGREE not in reads:
        raise Unsupported(
            f"{DEGREE} {effort} is not supported: the model's chat template begins every answer"
            " with a thought",
            param=DEGREE,
        )


def texts_of(options: Mapping[str, Any]) -> list[str]:
    """The client's strings among the options."""
    return [text for pair in options.items() for text in pair if isinstance(text, str)]
