"""From a Messages body to a question."""

from collections.abc import Mapping
from typing import Any

from gateway.http.door.places import Names
from gateway.http.door.typed import Field, Given
from gateway.http.messages.schemas import CreateMessage, PromptBody
from gateway.http.messages.turns import to_messages
from gateway.request.constraint import ConstraintSpec, from_schema, invalid
from gateway.request.conversation import Conversation, Effort
from gateway.request.job import Question, Stopping
from gateway.request.sampling import sampling_params
from gateway.request.tools import ToolChoice, ToolMode
from protos.wire.errors import InvalidRequest, Reason
from protos.wire.sampling import PARAMETERS

# What chat completions call differently.
_WORDS = (
    ("tools[].function.parameters", "tools[].input_schema"),
    ("tools[].function", "tools[]"),
    ("reasoning_effort", "thinking"),
    ("stop", "stop_sequences"),
)

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


def to_conversation(body: PromptBody, given: Given) -> tuple[Conversation, Names]:
    """What a body's prompt says, and the client's words for it.

    Raises:
        InvalidRequest: a block or tool at fault, named by its path.
        Unsupported: a block or tool that is not served.
    """
    messages, places = to_messages(given.at("system"), given.at("messages"))
    choice = None if body.tool_choice is None else body.tool_choice.type
    tools = () if choice == "none" else _tools(given.at("tools"))
    conversation = Conversation(messages=messages, tools=tools, reasoning_effort=_effort(body))
    return conversation, Names(places=places, words=_WORDS)


def to_question(body: CreateMessage, conversation: Conversation) -> Question:
    """What a client asks of a conversation.

    Raises:
        InvalidRequest: a field at fault, or options that contradict each other.
        Unsupported: an option that is not served.
    """
    values = {name: getattr(body, name) for name in PARAMETERS}
    return Question(
        model=body.model,
        conversation=conversation,
        sampling=sampling_params(values, {}),
        stopping=Stopping(
            max_tokens=body.max_tokens,
            # Its clients ask for as much as its models ever write.
            may_be_cut=True,
            stop_strings=tuple(body.stop_sequences or ()),
        ),
        constraint=_constraint(body),
        tool_choice=_tool_choice(body),
        priority=body.priority,
        stream=bool(body.stream),
    )


def _effort(body: PromptBody) -> Effort | None:
    """How much to think; a budget in tokens is no more than a wish to think."""
    wanted = None if body.thinking is None else body.thinking.type
    if wanted == "disabled":
        return Effort.NONE
    if body.output_config is not None and body.output_config.effort is not None:
        return body.output_config.effort
    return Effort.MEDIUM if wanted == "enabled" else None


def _tool_choice(body: PromptBody) -> ToolChoice:
    choice = body.tool_choice
    if choice is None:
        return ToolChoice()
    parallel = not choice.disable_parallel_tool_use
    if choice.type == "tool" and choice.name is None:
        raise InvalidRequest("tool_choice.name is missing", param="tool_choice.name")
    if choice.type not in ("any", "tool"):
        return ToolChoice(parallel=parallel)
    names = () if choice.name is None else (choice.name,)
    return ToolChoice(mode=ToolMode.REQUIRED, names=names, parallel=parallel)


def _tools(given: Field) -> tuple[Mapping[str, Any], ...]:
    """The tools in the form that templates know, which is that of chat completions."""
    return () if given.value is None else tuple(_tool(tool) for tool in given.entries())


def _tool(tool: Field) -> Mapping[str, Any]:
    if tool.kind(default="custom") != "custom":
        raise tool.wrong_type("custom", reason=Reason.NOT_SUPPORTED)
    tool.only({"name", "description", "input_schema"} | _IDLE_OF_TOOL)
    function: dict[str, Any] = {"name": tool.text("name")}
    if tool.at("description").value is not None:
        function["description"] = tool.text("description")
    function["parameters"] = tool.at("input_schema").object
    if tool.at("strict").value:
        function["strict"] = tool.at("strict").value
    return {"type": "function", "function": function}


def _constraint(body: PromptBody) -> ConstraintSpec | None:
    field, wanted = "output_format", body.output_format
    if body.output_config is not None and body.output_config.format is not None:
        field, wanted = "output_config.format", body.output_config.format
    if wanted is None:
        return None
    if wanted.get("type") != "json_schema" or not isinstance(wanted.get("schema"), Mapping):
        raise invalid(field, 'must be {"type": "json_schema", "schema": {...}}')
    return from_schema(wanted["schema"], field=f"{field}.schema")
