"""From a Responses body to a question, and what of the answer's body follows from the request."""

from collections.abc import Mapping
from typing import Any

from gateway.http.door.instructions import with_joined_instructions
from gateway.http.door.places import Names, Place
from gateway.http.door.typed import Field
from gateway.http.responses.items import FindItem, ItemReader
from gateway.http.responses.schemas import (
    IDLE_INCLUDES,
    LOGPROBS,
    CreateResponse,
    InputBody,
    TextFormat,
)
from gateway.http.responses.tools import function_tools, tool_choice, tools_told
from gateway.request.constraint import ConstraintKind, ConstraintSpec, from_schema, invalid
from gateway.request.conversation import Conversation, Message, Role
from gateway.request.job import Question, Reporting, Stopping
from gateway.request.sampling import sampling_params
from protos.tandem.v1 import decoder_pb2
from protos.wire.errors import InvalidRequest, Unsupported
from protos.wire.sampling import PARAMETERS

# What chat completions call differently.
_WORDS = (
    ("tools[].function", "tools[]"),
    ("reasoning_effort", "reasoning.effort"),
    ("messages", "input"),
)


def to_conversation(
    body: InputBody, given: Field, earlier: tuple[Message, ...], find: FindItem
) -> tuple[Conversation, Names, tuple[Message, ...]]:
    """What a body's input says.

    Args:
        body: What shapes the prompt.
        given: Its input.
        earlier: The conversation that `previous_response_id` names.
        find: An item of an earlier answer by its id.

    Returns:
        The conversation; the client's words; and the conversation's messages without
        instructions, which hold for one answer only.

    Raises:
        InvalidRequest: an item at fault, named by its path.
        Unsupported: an item, part or tool that is not served.
    """
    reader = ItemReader(find)
    if body.instructions:
        reader.add(Message(role=Role.SYSTEM, content=body.instructions), Place("instructions"))
    for message in earlier:
        reader.add(message, Place("previous_response_id"))
    reader.read(given)
    if not reader.messages:
        raise InvalidRequest("input is missing", param="input")
    lasting = tuple(reader.messages[1:] if body.instructions else reader.messages)
    messages, places = with_joined_instructions(reader.messages, reader.places)
    conversation = Conversation(
        messages=messages,
        tools=function_tools(body),
        reasoning_effort=None if body.reasoning is None else body.reasoning.effort,
    )
    return conversation, Names(places=places, words=_WORDS), lasting


def to_question(body: CreateResponse, conversation: Conversation) -> Question:
    """What a client asks of a conversation.

    Raises:
        InvalidRequest: a field at fault, or options that contradict each other.
        Unsupported: an option that is not served.
    """
    _check_supported(body)
    return Question(
        model=body.model,
        conversation=conversation,
        sampling=sampling_params({name: getattr(body, name) for name in PARAMETERS}, {}),
        stopping=Stopping(
            max_tokens=body.max_output_tokens,
            max_tokens_field="max_output_tokens",
            stop_strings=tuple(body.stop or ()),
            ignore_eos=bool(body.ignore_eos),
        ),
        reporting=Reporting(
            logprobs=wants_logprobs(body), top_logprob_count=body.top_logprobs or 0
        ),
        constraint=_constraint(body),
        tool_choice=tool_choice(body),
        priority=body.priority,
        cache_salt=body.cache_salt or "",
        stream=bool(body.stream),
    )


def wants_logprobs(body: CreateResponse) -> bool:
    """Whether the answer has log-probabilities beside its text."""
    return LOGPROBS in (body.include or ()) or bool(body.top_logprobs)


def about(
    body: CreateResponse, sampling: decoder_pb2.SamplingParams, *, model: str, stored: bool
) -> dict[str, Any]:
    """What of the answer's body follows from the request.

    Args:
        body: The request.
        sampling: What holds, with the checkpoint's presets.
        model: The served model's name.
        stored: Whether the answer is kept.
    """
    numbers = {
        # Rounded, because the wire's numbers are float32.
        name: round(getattr(sampling, name), 6)
        if sampling.HasField(name)
        else PARAMETERS[name].default
        for name in ("temperature", "top_p", "presence_penalty", "frequency_penalty")
    }
    echoed = ("previous_response_id", "instructions", "max_output_tokens", "max_tool_calls")
    reasoning = body.reasoning
    return {
        "model": model,
        **{name: getattr(body, name) for name in echoed},
        "tools": tools_told(body),
        "tool_choice": body.tool_choice or "auto",
        "parallel_tool_calls": body.parallel_tool_calls is not False,
        "truncation": body.truncation or "disabled",
        "text": {"format": _format_told(body), "verbosity": "medium"},
        **numbers,
        "top_logprobs": body.top_logprobs or 0,
        "reasoning": {
            "effort": reasoning and reasoning.effort,
            "summary": reasoning and reasoning.summary,
        },
        "store": stored,
        "background": False,
        "service_tier": "default",
        "metadata": body.metadata or {},
        "user": body.user,
        "safety_identifier": body.safety_identifier,
        "prompt_cache_key": body.prompt_cache_key,
    }


def _format_told(body: CreateResponse) -> dict[str, Any]:
    wanted = None if body.text is None else body.text.format
    if wanted is None or wanted.type != "json_schema":
        return {"type": "text" if wanted is None else wanted.type}
    return {
        "type": "json_schema",
        "name": wanted.name,
        "description": wanted.description,
        "schema": wanted.schema_,
        "strict": True,  # a schema always holds, exactly
    }


def _constraint(body: CreateResponse) -> ConstraintSpec | None:
    wanted = None if body.text is None else body.text.format
    if wanted is None or wanted.type == "text":
        return None
    if wanted.type == "json_object":
        return ConstraintSpec(kind=ConstraintKind.JSON_OBJECT, field="text.format")
    return from_schema(_schema(wanted), field="text.format.schema")


def _schema(wanted: TextFormat) -> Mapping[str, Any]:
    if not isinstance(wanted.schema_, Mapping):
        raise invalid("text.format.schema", "must be a JSON object")
    return wanted.schema_


def _check_supported(body: CreateResponse) -> None:
    if body.stream_options is not None and not body.stream:
        raise InvalidRequest("stream_options needs stream to be true", param="stream_options")
    for name in body.include or ():
        if name != LOGPROBS and name not in IDLE_INCLUDES:
            raise Unsupported(f"include holds {name[:64]!r}, which is not known", param="include")
