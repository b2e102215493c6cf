"""The bodies of Ollama's API.

Types only; ranges are checked by `Question.check`. Options that would change an answer in a way
this server does not do are refused, never ignored.
"""

from typing import Annotated, Any, Literal

from pydantic import ConfigDict, Field, WithJsonSchema

from gateway.http.chat.schemas import Open, Schema
from gateway.http.chat.shapes import Tools
from gateway.http.door.shapes import (
    IMAGE_DATA,
    Stop,
    TopLogprobs,
    exactly,
    maybe,
    some,
    told,
)
from protos.wire.sampling import MAX_TOKENS

Off = Annotated[float, Field(ge=1, le=1)]  # where 1 takes nothing away
No = Annotated[Literal[False] | None, exactly(False)]
Images = Annotated[list[str] | None, WithJsonSchema(maybe(some(IMAGE_DATA)))]
Form = Annotated[
    dict[str, Any] | Literal["", "json"] | None,
    WithJsonSchema(
        {"anyOf": [{"type": "object", "format": "json-schema"}, {"enum": ["", "json", None]}]}
    ),
]
# Negative: as long as it gets.
Length = Annotated[
    int | None, Field(json_schema_extra={"not": {"const": 0}, "maximum": MAX_TOKENS})
]


class Options(Schema):
    """How to sample; after it how to run a model, which is the server's own business here."""

    num_predict: Length = None
    temperature: Annotated[float | None, told("temperature")] = None
    top_k: Annotated[int | None, told("top_k")] = None
    top_p: Annotated[float | None, told("top_p")] = None
    min_p: Annotated[float | None, told("min_p")] = None
    seed: Annotated[int | None, told("seed")] = None
    stop: Stop = None
    repeat_penalty: Annotated[float | None, told("repetition_penalty")] = None
    presence_penalty: Annotated[float | None, told("presence_penalty")] = None
    frequency_penalty: Annotated[float | None, told("frequency_penalty")] = None
    # Held where they change something, see `gateway.http.ollama.options`.
    repeat_last_n: int | None = None
    mirostat: Annotated[Literal[0] | None, exactly(0)] = None
    typical_p: Off | None = None
    tfs_z: Off | None = None
    # Of mirostat, which is off; of a line break, which is penalized as every token is.
    mirostat_tau: float | None = None
    mirostat_eta: float | None = None
    penalize_newline: Annotated[Literal[True] | None, exactly(True)] = None
    num_ctx: int | None = None
    num_keep: int | None = None
    num_batch: int | None = None
    num_gpu: int | None = None
    main_gpu: int | None = None
    num_thread: int | None = None
    numa: bool | None = None
    low_vram: bool | None = None
    f16_kv: bool | None = None
    logits_all: bool | None = None
    vocab_only: No = None
    use_mmap: bool | None = None
    use_mlock: bool | None = None
    embedding_only: No = None


class Asking(Schema):
    """What both routes that answer take."""

    model: str | None = None
    stream: bool | None = None
    options: Options | None = None
    format: Form = None
    think: bool | Literal["low", "medium", "high"] | None = None
    logprobs: bool | None = None
    top_logprobs: TopLogprobs = None
    keep_alive: float | str | None = None  # the model is always there
    # Whether a conversation that is too long may lose its beginning: here it is refused.
    truncate: bool | None = None
    shift: bool | None = None


class Call(Open):
    """A call of an earlier answer."""

    class Function(Open):
        """Its name and arguments."""

        name: str
        arguments: dict[str, Any] | None = None

    id: str | None = None
    function: Function


def _images_by_role(schema: dict[str, Any]) -> None:
    """Tells who may show images."""
    who: dict[str, Any] = {"properties": {"role": {"enum": ["user", "tool"]}}}
    schema["anyOf"] = [who, {"properties": {"images": {"maxItems": 0}}}]


class Turn(Schema):
    """One turn."""

    model_config = ConfigDict(json_schema_extra=_images_by_role)

    role: Literal["system", "user", "assistant", "tool"]
    content: str | None = None
    images: Images = None
    thinking: str | None = None
    tool_calls: list[Call] | None = None
    tool_name: str | None = None
    tool_call_id: str | None = None


class ChatBody(Asking):
    """The body of POST /api/chat."""

    messages: list[Turn] | None = None
    tools: Tools = None


class GenerateBody(Asking):
    """The body of POST /api/generate."""

    prompt: str | None = None
    system: str | None = None
    images: Images = None
    # The checkpoint's own template is used, and nothing is filled in between.
    raw: No = None
    template: Literal[""] | None = None
    suffix: Literal[""] | None = None
    context: Annotated[list[int] | None, Field(json_schema_extra={"maxItems": 0})] = None


class ShowBody(Schema):
    """The body of POST /api/show; `name` is the older word."""

    model: str | None = None
    name: str | None = None
    verbose: bool | None = None
    system: Any = None
    template: Any = None
    options: Any = None
