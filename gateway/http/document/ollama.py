"""What /api answers, as the OpenAPI document tells it."""

from typing import Any, Literal

from pydantic import RootModel

from gateway.http.document.answers import Answer, TokenLogprob


class OllamaError(Answer):
    """The body of every failure, and the last line of a stream that failed."""

    error: str


class OllamaFunction(Answer):
    """A tool's name and the arguments of its call."""

    index: int
    name: str
    arguments: dict[str, Any]


class OllamaCall(Answer):
    """A call of a tool."""

    id: str
    function: OllamaFunction


class OllamaMessage(Answer):
    """What the model thought, said and called, or some of it."""

    role: Literal["assistant"]
    content: str
    thinking: str | None = None
    tool_calls: list[OllamaCall] | None = None


class Line(Answer):
    """What a whole answer has, and a line of a streamed one; figures are in the last."""

    model: str
    created_at: str
    done: bool
    done_reason: Literal["stop", "length", "load"] | None = None
    logprobs: list[TokenLogprob] | None = None
    total_duration: int | None = None
    load_duration: int | None = None
    prompt_eval_count: int | None = None
    prompt_eval_duration: int | None = None
    eval_count: int | None = None
    eval_duration: int | None = None


class ChatAnswer(Line):
    """A whole answer in a conversation."""

    message: OllamaMessage


class GenerateAnswer(Line):
    """A whole answer to a prompt."""

    response: str
    thinking: str | None = None


class ChatLine(RootModel[ChatAnswer | OllamaError]):
    """A line of a streamed answer."""


class GenerateLine(RootModel[GenerateAnswer | OllamaError]):
    """A line of a streamed answer."""


class ModelDetails(Answer):
    """What kind of a model it is."""

    parent_model: str
    format: str
    family: str
    families: list[str]
    parameter_size: str
    quantization_level: str


class TaggedModel(Answer):
    """A model."""

    name: str
    model: str
    modified_at: str
    size: int
    digest: str
    details: ModelDetails


class Tags(Answer):
    """The one model."""

    models: list[TaggedModel]


class Shown(Answer):
    """The model, and what it takes."""

    license: str
    modelfile: str
    template: str
    parameters: str
    details: ModelDetails
    model_info: dict[str, Any]
    capabilities: list[str]
    modified_at: str


class ApiVersion(Answer):
    """The version of Ollama's API that these routes follow."""

    version: str
