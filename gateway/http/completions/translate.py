"""From a request of plain completions to questions: one for each prompt."""

from gateway.http.chat.options import (
    check_supported,
    constraint_of,
    sampling_of,
    stopping_of,
)
from gateway.http.completions.schemas import CompletionRequest
from gateway.request.conversation import PlainPrompt
from gateway.request.job import Question, Reporting
from protos.wire.errors import Unsupported
from protos.wire.sampling import MAX_TOP_LOGPROBS, check_range

DEFAULT_MAX_TOKENS = 16  # OpenAI's, of this route alone


def to_questions(request: CompletionRequest) -> list[Question]:
    """What a client asks, a question for each prompt.

    Raises:
        InvalidRequest: a field at fault, named by its path.
        Unsupported: a field that is not served.
    """
    check_supported(request)
    count = 1 if request.n is None else request.n
    if request.suffix:
        raise Unsupported("suffix is not supported: texts are continued", param="suffix")
    if request.best_of not in (None, count):
        raise Unsupported("best_of must be n: every answer is sent", param="best_of")
    check_range("logprobs", request.logprobs or 0, 0, MAX_TOP_LOGPROBS)
    max_tokens = DEFAULT_MAX_TOKENS if request.max_tokens is None else request.max_tokens
    return [
        Question(
            model=request.model,
            plain=_plain(prompt),
            first_choice=index * count,
            sampling=sampling_of(request),
            stopping=stopping_of(request, max_tokens),
            reporting=Reporting(
                logprobs=request.logprobs is not None, top_logprob_count=request.logprobs or 0
            ),
            constraint=constraint_of(request),
            priority=request.priority,
            cache_salt=request.cache_salt or "",
            choice_count=count,
            stream=bool(request.stream),
        )
        for index, prompt in enumerate(request.prompt)
    ]


def _plain(prompt: str | list[int]) -> PlainPrompt:
    return PlainPrompt(text=prompt) if isinstance(prompt, str) else PlainPrompt(ids=tuple(prompt))
