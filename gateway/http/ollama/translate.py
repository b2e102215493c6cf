"""From Ollama's bodies to questions."""

from collections.abc import Mapping, Sequence

from gateway.http.door.places import Place
from gateway.http.ollama.schemas import Asking, ChatBody, ChatMessage, GenerateBody, Options
from gateway.media.images import image_bytes
from gateway.request.constraint import ConstraintKind, ConstraintSpec, from_schema
from gateway.request.conversation import (
    Conversation,
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
from protos.wire.errors import InvalidRequest, Unsupported

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


def model_name(wanted: str | None) -> str:
    """The name without the tag that stands for none."""
    return (wanted or "").removesuffix(LATEST)


def chat_conversation(body: ChatBody) -> tuple[Conversation, tuple[Place, ...]]:
    """The conversation of /api/chat, and where each message stands in the body.

    Raises:
        InvalidRequest: an image at fault.
    """
    found = [
        _message(message, f"messages[{index}]") for index, message in enumerate(body.messages or ())
    ]
    conversation = Conversation(
        messages=tuple(message for message, _ in found), tools=tuple(body.tools or ())
    )
    return conversation, tuple(place for _, place in found)


def generate_conversation(body: GenerateBody) -> tuple[Conversation, tuple[Place, ...]]:
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
    messages = tuple(message for message, _ in found)
    return Conversation(messages=messages), tuple(place for _, place in found)


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
            stop_strings=tuple(options.stop or ()),
        ),
        reporting=Reporting(logprobs=bool(body.logprobs), top_logprob_count=body.top_logprobs or 0),
        constraint=_constraint(body),
        stream=body.stream is not False,
    )


def _message(message: ChatMessage, path: str) -> tuple[Message, Place]:
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
    try:
        return sampling_params({**values, "repetition_penalty": penalty}, {})
    except InvalidRequest as error:
        raise _renamed(error) from error


def _renamed(error: InvalidRequest) -> InvalidRequest:
    theirs = {ours: name for name, ours in _SAMPLING.items()}.get(error.param or "")
    if theirs is None:
        return error
    param = f"options.{theirs}"
    return InvalidRequest(error.message.replace(str(error.param), param, 1), param=param)


def _constraint(body: Asking) -> ConstraintSpec | None:
    if not body.format:
        return None
    if isinstance(body.format, Mapping):
        return from_schema(body.format, field="format")
    return ConstraintSpec(kind=ConstraintKind.JSON_OBJECT, field="format")
