"""LiteLLM as a library: https://github.com/BerriAI/litellm."""

import os
from functools import partial
from typing import Any

os.environ["LITELLM_LOCAL_MODEL_COST_MAP"] = "True"  # else it asks the network for prices

import litellm

from tests.clients import checks
from tests.clients.checks import KEY, MODEL, URL, about_image, refused, same

litellm.suppress_debug_info = True
PROVIDERS = ("openai", "hosted_vllm")  # both are how people reach servers of OpenAI's kind


def ask(content: Any, *, provider: str = "openai", key: str = KEY, **options: Any) -> Any:
    """One answer."""
    return litellm.completion(
        model=f"{provider}/{MODEL}",
        api_base=URL,
        api_key=key,
        messages=[{"role": "user", "content": content}],
        temperature=0,
        max_tokens=48,
        **options,
    )


def text_of(answer: Any) -> str:
    """What was said."""
    return str(answer.choices[0].message.content)


def text(provider: str) -> str:
    """One answer."""
    return same(text_of(ask(checks.SUM, provider=provider)), checks.SUM_ANSWER)


def stream() -> str:
    """Pieces of an answer, and the whole that LiteLLM builds of them."""
    pieces = list(ask(about_image(checks.COLOR), stream=True))
    return same(text_of(litellm.stream_chunk_builder(pieces)), checks.COLOR_ANSWER)


def schema() -> str:
    """OpenAI's response_format passes through."""
    held = {"type": "json_schema", "json_schema": {"name": "form", "schema": checks.SCHEMA}}
    answer = ask(about_image(checks.NAMING), response_format=held)
    return same(text_of(answer), f'{{"label": "{checks.NAME}"}}')


def overflow(provider: str) -> str:
    """The error by which LiteLLM turns to a model of a larger window."""
    with refused(litellm.ContextWindowExceededError):
        ask(checks.LONG, provider=provider)
    return "ContextWindowExceededError"


def fallback() -> str:
    """A router that is told to go elsewhere when a prompt is too long does."""
    here = {"api_base": URL, "api_key": KEY}
    router = litellm.Router(
        model_list=[
            {"model_name": "small", "litellm_params": {"model": f"openai/{MODEL}", **here}},
            {
                "model_name": "large",
                "litellm_params": {"model": f"openai/{MODEL}", "mock_response": "large", **here},
            },
        ],
        context_window_fallbacks=[{"small": ["large"]}],
    )
    messages: Any = [{"role": "user", "content": checks.LONG}]
    return same(text_of(router.completion("small", messages)), "large")


def wrong_key() -> str:
    """A wrong key."""
    with refused(litellm.AuthenticationError):
        ask(checks.SUM, key="wrong")
    return "AuthenticationError"


check = checks.Checks()
for one in PROVIDERS:
    check(f"text, {one}", partial(text, one))
check("image", lambda: same(text_of(ask(about_image(checks.COLOR))), checks.COLOR_ANSWER))
check("stream", stream)
check("schema", schema)
for one in PROVIDERS:
    check(f"context overflow, {one}", partial(overflow, one))
check("fallback to a larger window", fallback)
check("wrong key", wrong_key)
check.end()
