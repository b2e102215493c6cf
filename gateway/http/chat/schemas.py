"""The body of POST /v1/chat/completions, as OpenAI's clients send it, and what others share of it.

Types only: ranges are checked by `Question.check`, for both doors. Fields that would change an
answer in a way this server does not do are refused, never ignored.
"""

from collections.abc import Mapping
from functools import cache
from typing import Annotated, Any, Literal

from pydantic import (
    BaseModel,
    ConfigDict,
    Field,
    WithJsonSchema,
    model_validator,
)

from gateway.http.chat.shapes import (
    FORMATS,
    OPTIONS,
    STRUCTURED,
    ToolChoice,
    Tools,
    by_role,
    instead,
)
from gateway.http.door.shapes import (
    LogitBias,
    Priority,
    Stop,
    StopTokens,
    TopLogprobs,
    told,
    turns,
    within,
)
from gateway.request.conversation import Effort
from gateway.request.job import MAX_CACHE_SALT_CHARS, MAX_CHOICES
from protos.wire.sampling import MAX_TOKENS


@cache
def _known(model: type[BaseModel]) -> frozenset[str]:
    """Names of a model's fields as clients write them."""
    return frozenset(field.alias or name for name, field in model.model_fields.items())


class Schema(BaseModel):
    """Strict types, no unknown fields, no NaN.

    An unknown field that is null asks for nothing, and clients send every field they know.
    """

    model_config = ConfigDict(strict=True, extra="forbid", allow_inf_nan=False)

    @model_validator(mode="before")
    @classmethod
    def _without_unknown_nulls(cls, given: Any) -> Any:
        if not isinstance(given, dict):
            return given
        known = _known(cls)
        return {key: value for key, value in given.items() if value is not None or key in known}


class Open(Schema):
    """What clients echo of earlier answers, with fields of other servers that say nothing here.

    Not for what is asked of the answer to come: a field that would change it is held or refused.
    """

    model_config = ConfigDict(strict=True, extra="ignore", allow_inf_nan=False)


TokenLimit = Annotated[int, Field(ge=1, le=MAX_TOKENS)]
TemplateOptions = Annotated[
    dict[str, str | int | float | bool | None] | None, WithJsonSchema(OPTIONS)
]
CacheSalt = Annotated[str, Field(min_length=1, max_length=MAX_CACHE_SALT_CHARS)]


class FunctionCall(Open):
    """What an assistant called earlier; clients echo a call without arguments as an empty text."""

    name: str
    arguments: str = ""


class ToolCall(Open):
    """A call of an earlier assistant turn."""

    id: str | None = None
    type: Literal["function"] = "function"
    function: FunctionCall


class ChatMessage(Schema):
    """One turn."""

    model_config = ConfigDict(json_schema_extra=by_role)

    role: Literal["system", "developer", "user", "assistant", "tool"]
    content: Any = None  # see `by_role`
    name: str | None = None
    tool_calls: list[ToolCall] | None = None
    tool_call_id: str | None = None
    # The thought of an earlier answer, by both names that clients know.
    reasoning: str | None = None
    reasoning_content: str | None = None
    # What clients echo of our own answers.
    refusal: str | None = None
    annotations: list[Any] | None = None
    audio: None = None
    function_call: None = None


_MOST_TURNS = turns({})["maxItems"]
Turns = Annotated[
    list[ChatMessage], Field(json_schema_extra={"minItems": 1, "maxItems": _MOST_TURNS})
]


class StreamOptions(Schema):
    """Options of a streamed answer."""

    include_usage: bool | None = None
    # Padding against eavesdroppers, and vLLM's counts in each chunk: neither is sent, and the
    # answer is the same.
    include_obfuscation: bool | None = None
    continuous_usage_stats: bool | None = None


class JsonSchema(Schema):
    """A schema of the answer with what OpenAI tells of it."""

    name: str | None = None
    description: str | None = None
    # Underscored, because pydantic's models have methods of such names. Any: `from_response_format`
    # says what is wrong with it.
    schema_: Annotated[Any, Field(alias="schema")] = None
    strict: bool | None = None


class ResponseFormat(Schema):
    """Form of the answer, as OpenAI names it; `schema` is llama.cpp's, for "json_object"."""

    model_config = ConfigDict(json_schema_extra=instead(FORMATS))

    type: Literal["text", "json_object", "json_schema"]
    json_schema: JsonSchema | None = None
    schema_: Annotated[dict[str, Any] | None, Field(alias="schema")] = None


class StructuredOutputs(Schema):
    """Form of the answer, as vLLM names it; exactly one field of the first five.

    With the others alone, they concern `response_format`. `disable_any_whitespace: false` leaves
    the white space as it is without.
    """

    model_config = ConfigDict(json_schema_extra=instead(STRUCTURED))

    json_: Annotated[dict[str, Any] | str | None, Field(alias="json")] = None
    regex: str | None = None
    choice: list[str] | None = None
    grammar: str | None = None
    json_object: bool | None = None
    whitespace_pattern: str | None = None
    disable_any_whitespace: bool | None = None


def _settled(schema: dict[str, Any]) -> None:
    """Tells of fields that may have one value which, and why."""
    for name, (value, reason) in SETTLED.items():
        if name in schema["properties"]:
            schema["properties"][name] = {"enum": [value, None], "description": reason}


class AnswerRequest(Schema):
    """What chat and plain completions have in common, and common extensions of open servers."""

    model_config = ConfigDict(json_schema_extra=_settled)

    model: str | None = None
    stream: bool | None = None
    stream_options: StreamOptions | None = None
    temperature: Annotated[float | None, told("temperature")] = None
    top_p: Annotated[float | None, told("top_p")] = None
    seed: Annotated[int | None, told("seed")] = None
    presence_penalty: Annotated[float | None, told("presence_penalty")] = None
    frequency_penalty: Annotated[float | None, told("frequency_penalty")] = None
    logit_bias: LogitBias = None
    max_tokens: TokenLimit | None = None
    stop: Stop = None
    n: Annotated[int | None, within(1, MAX_CHOICES)] = None
    response_format: ResponseFormat | None = None
    user: str | None = None  # noted by OpenAI, without effect on the answer
    # Extensions, named as in other open servers.
    top_k: Annotated[int | None, told("top_k")] = None
    min_p: Annotated[float | None, told("min_p")] = None
    repetition_penalty: Annotated[float | None, told("repetition_penalty")] = None
    stop_token_ids: StopTokens = None
    min_tokens: Annotated[int | None, within(0, MAX_TOKENS)] = None
    ignore_eos: bool | None = None
    structured_outputs: StructuredOutputs | None = None
    cache_salt: CacheSalt | None = None
    priority: Priority = None
    # What clients of OpenAI's and other servers send as it is here anyway; see `SETTLED`.
    skip_special_tokens: bool | None = None
    spaces_between_special_tokens: bool | None = None
    include_stop_str_in_output: bool | None = None
    use_beam_search: bool | None = None
    length_penalty: float | None = None
    early_stopping: bool | None = None
    echo: bool | None = None
    add_special_tokens: bool | None = None
    return_token_ids: bool | None = None
    return_tokens_as_token_ids: bool | None = None


class ChatCompletionRequest(AnswerRequest):
    """The body of POST /v1/chat/completions."""

    messages: Turns
    logprobs: bool | None = None
    top_logprobs: TopLogprobs = None
    max_completion_tokens: TokenLimit | None = None
    tools: Tools = None
    tool_choice: ToolChoice = None
    parallel_tool_calls: bool | None = None
    modalities: Annotated[list[str] | None, WithJsonSchema({"enum": [["text"], None]})] = None
    reasoning_effort: Annotated[Effort | None, Field(strict=False)] = None
    # Noted by OpenAI, or of effect on time and cost alone; the answer is the same.
    store: bool | None = None
    metadata: dict[str, str] | None = None
    service_tier: str | None = None
    safety_identifier: str | None = None
    prompt_cache_key: str | None = None
    prompt_cache_options: dict[str, Any] | None = None
    prompt_cache_retention: str | None = None
    prediction: dict[str, Any] | None = None
    # Extensions, named as in other open servers.
    add_vision_id: bool | None = None
    chat_template_kwargs: TemplateOptions = None
    enable_thinking: bool | None = None
    # See `SETTLED`.
    verbosity: str | None = None
    add_generation_prompt: bool | None = None
    continue_final_message: bool | None = None
    include_reasoning: bool | None = None
    separate_reasoning: bool | None = None


# The one value of a field, and why another would be a wrong answer.
SETTLED: Mapping[str, tuple[Any, str]] = {
    "verbosity": ("medium", "the model knows no other"),
    "skip_special_tokens": (True, "special tokens are never part of an answer's text"),
    "spaces_between_special_tokens": (True, "special tokens are never part of an answer's text"),
    "include_stop_str_in_output": (False, "an answer ends before its stop string"),
    "use_beam_search": (False, "answers are sampled"),
    "length_penalty": (1.0, "answers are sampled"),
    "early_stopping": (False, "answers are sampled"),
    "echo": (False, "the prompt is not part of the answer"),
    "add_generation_prompt": (True, "every answer is a new turn"),
    "continue_final_message": (False, "every answer is a new turn"),
    "add_special_tokens": (False, "the chat template writes them"),
    "include_reasoning": (True, "a thought is always sent"),
    "separate_reasoning": (True, "a thought is always apart from its answer"),
    "return_token_ids": (False, "the gRPC door tells token ids"),
    "return_tokens_as_token_ids": (False, "the gRPC door tells token ids"),
}
