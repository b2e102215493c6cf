"""What the span of a request tells of its question: names of OpenTelemetry's GenAI conventions."""

from gateway.request.job import ChatJob
from protos.process.tracing import Span, Value

PROVIDER = "tandem"

# Sampling parameters by the names that the conventions have for them.
_SAMPLING = {
    "temperature": "gen_ai.request.temperature",
    "top_p": "gen_ai.request.top_p",
    "top_k": "gen_ai.request.top_k",
    "frequency_penalty": "gen_ai.request.frequency_penalty",
    "presence_penalty": "gen_ai.request.presence_penalty",
    "seed": "gen_ai.request.seed",
}


def describe(span: Span, job: ChatJob, model: str) -> None:
    """Names a request's span and tells what is asked for, never its words.

    Args:
        span: Of the request.
        job: What is asked, checked.
        model: The name that is served.
    """
    if not span.is_traced:
        return
    question = job.question
    operation = "chat" if question.plain is None else "text_completion"
    told: dict[str, Value] = {
        "gen_ai.operation.name": operation,
        "gen_ai.provider.name": PROVIDER,
        "gen_ai.request.model": model,
        "gen_ai.response.model": model,
        "gen_ai.request.stream": question.stream,
    }
    if question.choice_count > 1:
        told["gen_ai.request.choice.count"] = question.choice_count
    if question.stopping.max_tokens is not None:
        told["gen_ai.request.max_tokens"] = question.stopping.max_tokens
    for field, name in _SAMPLING.items():
        if job.sampling.HasField(field):
            told[name] = getattr(job.sampling, field)
    span.name = f"{operation} {model}"
    span.note(told)
