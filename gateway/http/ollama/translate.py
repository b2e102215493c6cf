"""From Ollama's bodies to questions."""

from collections.abc import Mapping, Sequence
from typing import Any

from gateway.http.door.places import Names, Place, naming
from gateway.http.ollama.schemas import Asking, ChatBody, GenerateBody, Options, Turn
from gateway.media.images import image_bytes
from gateway.request.constraint import ConstraintKind, ConstraintSpec, from_schema
from gateway.request.conversation import (
    Conversation,
    Effort,
    ImagePart,
    Message,
    Part,
    Role,
    TextPart,
    ToolCall,
)
from gateway.request.job import Question, Reporting, Stopping
from gateway.request.sampling import sampling_params
from protos.tandem.v1 import decoder_pb2
from protos.wire.errors import Unsupported

LATEST = ":latest"  # what its clients put behind a name without a tag

_SAMPLING = {
    "temperature": "temperature",
    "top_k": "top_k",
    "top_p": "top_p",
    "min_p": "min_p",
    "seed": "seed",
    "repeat_penalty": "repetition_penalty",
    "presence_penalty": "presence_penalty",
    "frequency_penalty": "frequency_penalty",
}


# What chat completions call differently.
_WORDS = (
    *((ours, f"options.{theirs}") for theirs, ours in _SAMPLING.items()),
    ("reasoning_effort", "think"),
    ("stop", "options.stop"),
)


def model_name(wanted: str | None) -> str:
    """The name without the tag that stands for none."""
    return (wanted or "").removesuffix(LATEST)


def chat_conversation(body: ChatBody) -> tuple[Conversation, Names]:
    """The conversation of /api/chat, and the client's words for it.

    Raises:
        InvalidRequest: an image at fault.
    """
    found = [
        _message(message, f"messages[{index}]") for index, message in enumerate(body.messages or ())
    ]
    return _conversation(body, found, tools=tuple(body.tools or ()))


def generate_conversation(body: GenerateBody) -> tuple[Conversation, Names]:
    """The conversation of /api/generate: instructions, if any, and one question.

    Raises:
        InvalidRequest: an image at fault.
        Unsupported: the tokens of an earlier answer are to be gone on from.
    """
    if body.context:
        raise Unsupported("context is not supported; /api/chat takes turns", param="context")
    content, paths = _content(body.prompt or "", body.images or (), "images")
    found = [(Message(role=Role.USER, content=content), Place("prompt", paths))]
    if body.system:
        found.insert(0, (Message(role=Role.SYSTEM, content=body.system), Place("system")))
    return _conversation(body, found)


def to_question(body: Asking, conversation: Conversation) -> Question:
    """What a client asks of a conversation; answers are streamed unless it says otherwise.

    Raises:
        InvalidRequest: a field at fault, or options that contradict each other.
        Unsupported: an option that is not served.
    """
    options = body.options or Options()
    # Negative: as long as it gets, which is what no limit means.
    wanted = options.num_predict
    return Question(
        model=model_name(body.model),
        conversation=conversation,
        sampling=_sampling(options),
        stopping=Stopping(
            max_tokens=None if wanted is None or wanted < 0 else wanted,
            max_tokens_field="options.num_predict",
            may_be_cut=True,
            stop_strings=tuple(options.stop or ()),
        ),
        reporting=Reporting(logprobs=bool(body.logprobs), top_logprob_count=body.top_logprobs or 0),
        constraint=_constraint(body),
        stream=body.stream is not False,
    )


def _conversation(
    body: Asking, found: Sequence[tuple[Message, Place]], tools: tuple[Mapping[str, Any], ...] = ()
) -> tuple[Conversation, Names]:
    conversation = Conversation(
        messages=tuple(message for message, _ in found), tools=tools, reasoning_effort=_effort(body)
    )
    return conversation, Names(places=tuple(place for _, place in found), words=_WORDS)


def _effort(body: Asking) -> Effort | None:
    if isinstance(body.think, str):
        return Effort(body.think)
    return {True: Effort.MEDIUM, False: Effort.NONE, None: None}[body.think]


def _message(message: Turn, path: str) -> tuple[Message, Place]:
    content, paths = _content(message.content or "", message.images or (), f"{path}.images")
    calls = tuple(
        ToolCall(name=call.function.name, arguments=call.function.arguments or {}, call_id=call.id)
        for call in message.tool_calls or ()
    )
    turn = Message(
        role=Role(message.role),
        content=None if calls and not content else content,
        tool_calls=calls,
        reasoning=message.thinking or None,
        name=message.tool_name,
        tool_call_id=message.tool_call_id,
    )
    return turn, Place(path, paths)


def _content(
    text: str, images: Sequence[str], path: str
) -> tuple[str | tuple[Part, ...], tuple[str, ...]]:
    """Images before their text, as Ollama places them; the paths of the parts."""
    if not images:
        return text, ()
    paths = [f"{path}[{index}]" for index in range(len(images))]
    parts: list[Part] = [
        ImagePart(data=_image(image, at)) for image, at in zip(images, paths, strict=True)
    ]
    if text:
        parts.append(TextPart(text=text))
        paths.append(path)
    return tuple(parts), tuple(paths)


def _image(image: str, path: str) -> bytes:
    url = image if image[:5].lower() == "data:" else "data:;base64," + image
    return image_bytes(url, field=path)


def _sampling(options: Options) -> decoder_pb2.SamplingParams:
    penalty = options.repeat_penalty
    if options.repeat_last_n == 0:
        penalty = None  # of none of the tokens
    elif options.repeat_last_n not in (None, -1) and penalty not in (None, 1.0):
        raise Unsupported(
            "options.repeat_last_n must be -1 or 0: repetition is penalized over all of the"
            " conversation, or not at all",
            param="options.repeat_last_n",
        )
    values: dict[str, float | None] = {
        ours: getattr(options, theirs) for theirs, ours in _SAMPLING.items()
    }
    with naming(Names(words=_WORDS)):
        return sampling_params({**values, "repetition_penalty": penalty}, {})


def _constraint(body: Asking) -> ConstraintSpec | None:
    if not body.format:
        return None
    if isinstance(body.format, Mapping):
        return from_schema(body.format, field="format")
    return ConstraintSpec(kind=ConstraintKind.JSON_OBJECT, field="format")
