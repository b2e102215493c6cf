"""From a Messages body to a question."""

from collections.abc import Mapping
from typing import Any

from gateway.http.door.fields import check_known, text_in, wrong_type
from gateway.http.door.places import Place
from gateway.http.messages.schemas import CreateMessage, PromptBody
from gateway.http.messages.turns import to_messages
from gateway.request.constraint import ConstraintSpec, from_schema, invalid
from gateway.request.conversation import Conversation
from gateway.request.job import Question, Stopping
from gateway.request.sampling import sampling_params
from protos.wire.errors import InvalidRequest, Unsupported
from protos.wire.sampling import PARAMETERS

# Of a tool: how its calls are sent, cached or found, which is all the same here.
_IDLE_OF_TOOL = frozenset(
    (
        "type",
        "cache_control",
        "strict",
        "defer_loading",
        "eager_input_streaming",
        "allowed_callers",
        "input_examples",
    )
)


def to_conversation(body: PromptBody) -> tuple[Conversation, tuple[Place, ...]]:
    """What a body's prompt says, and where each message stands in the body.

    Raises:
        InvalidRequest: a block or tool at fault, named by its path.
        Unsupported: a block or tool that is not served.
    """
    messages, places = to_messages(body.system, body.messages)
    choice = None if body.tool_choice is None else body.tool_choice.type
    tools = () if choice == "none" else _tools(body)
    return Conversation(messages=messages, tools=tools), places


def to_question(body: CreateMessage, conversation: Conversation) -> Question:
    """What a client asks of a conversation.

    Raises:
        InvalidRequest: a field at fault, or options that contradict each other.
        Unsupported: an option that is not served.
    """
    if body.tool_choice is not None and body.tool_choice.type in ("any", "tool"):
        raise Unsupported(
            "tool_choice must be none or auto; forcing a call is not supported yet",
            param="tool_choice",
        )
    values = {name: getattr(body, name) for name in PARAMETERS}
    return Question(
        model=body.model,
        conversation=conversation,
        sampling=sampling_params(values, {}),
        stopping=Stopping(
            max_tokens=body.max_tokens, stop_strings=tuple(body.stop_sequences or ())
        ),
        constraint=_constraint(body),
        priority=body.priority or 0,
        stream=bool(body.stream),
    )


def _tools(body: PromptBody) -> tuple[Mapping[str, Any], ...]:
    """The tools in the form that templates know, which is that of chat completions."""
    tools = []
    for index, tool in enumerate(body.tools or ()):
        path = f"tools[{index}]"
        if tool.get("type") not in (None, "custom"):
            raise wrong_type(str(tool["type"]), path, "custom")
        check_known(tool, path, {"name", "description", "input_schema"} | _IDLE_OF_TOOL)
        function: dict[str, Any] = {"name": text_in(tool, "name", path)}
        if tool.get("description") is not None:
            function["description"] = text_in(tool, "description", path)
        schema = tool.get("input_schema")
        if not isinstance(schema, Mapping):
            raise InvalidRequest(
                f"{path}.input_schema must be an object", param=f"{path}.input_schema"
            )
        tools.append({"type": "function", "function": {**function, "parameters": schema}})
    return tuple(tools)


def _constraint(body: PromptBody) -> ConstraintSpec | None:
    field, wanted = "output_format", body.output_format
    if body.output_config is not None and body.output_config.format is not None:
        field, wanted = "output_config.format", body.output_config.format
    if wanted is None:
        return None
    check_known(wanted, field, {"type", "schema"})
    if wanted.get("type") != "json_schema" or not isinstance(wanted.get("schema"), Mapping):
        raise invalid(field, 'must be {"type": "json_schema", "schema": {...}}')
    return from_schema(wanted["schema"], field=f"{field}.schema")
