"""What a key may use."""

import pytest

from gateway.access.accounts import Account, KeyLimits, Rated
from protos.wire.errors import RateLimited, Reason
from tests.unit.gateway.access.test_rates import Clock


def account(priority: int | None = None, **rates: int) -> tuple[Account, Clock]:
    clock = Clock()
    per_minute = {Rated[name.upper()]: rate for name, rate in rates.items()}
    limits = KeyLimits(per_minute=per_minute, priority=priority)
    return Account("web", limits, clock=clock), clock


def test_requests_are_counted_and_refused_above_their_rate() -> None:
    web, clock = account(requests=2)
    with web.request(), web.request():
        assert web.usage.in_flight == 2
        with pytest.raises(RateLimited) as caught:
            web.request().__enter__()
    assert caught.value.reason is Reason.RATE_LIMIT_EXCEEDED
    assert caught.value.retry_after_s == 30.0
    assert (web.usage.requests, web.usage.refused, web.usage.in_flight) == (2, 1, 0)
    clock.now_s = 30.0
    with web.request():
        assert web.usage.requests == 3


def test_a_prompt_that_is_refused_takes_nothing() -> None:
    web, clock = account(prompt_tokens=100, image_tokens=60)
    web.take_prompt(tokens=60, image_tokens=50)
    with pytest.raises(RateLimited) as caught:
        web.take_prompt(tokens=40, image_tokens=30)
    assert caught.value.retry_after_s == 20.0  # 20 more tokens of images
    web.take_prompt(tokens=40, image_tokens=0)
    assert (web.usage.prompt_tokens, web.usage.image_tokens, web.usage.refused) == (100, 50, 1)
    clock.now_s = 60.0
    web.take_prompt(tokens=40, image_tokens=30)


def test_the_time_to_wait_is_that_of_all_limits() -> None:
    web, clock = account(requests=1, prompt_tokens=60)
    with web.request():
        web.take_prompt(tokens=60, image_tokens=0)
    clock.now_s = 60.0
    with web.request():
        web.take_prompt(tokens=60, image_tokens=0)
        with pytest.raises(RateLimited) as caught:
            web.take_prompt(tokens=10, image_tokens=0)
    # Ten tokens come in 10 s, but the next request only after a minute.
    assert caught.value.retry_after_s == 60.0


def test_other_limits_leave_what_was_used() -> None:
    web, _ = account(requests=2)
    with web.request():
        web.limit(KeyLimits(per_minute={Rated.REQUESTS: 4, Rated.PROMPT_TOKENS: 5}))
    assert web.buckets[Rated.REQUESTS].remaining() == 2
    assert web.buckets[Rated.PROMPT_TOKENS].remaining() == 5
    web.limit(KeyLimits(per_minute={}))
    assert not web.buckets
    assert web.usage.requests == 1


@pytest.mark.parametrize(
    ("own", "asked", "got"),
    [(None, None, 0), (None, -7, -7), (10, None, 10), (10, 0, 10), (10, 20, 20), (-5, 0, 0)],
)
def test_a_key_has_a_default_and_a_most_urgent_priority(
    own: int | None, asked: int | None, got: int
) -> None:
    assert account(priority=own)[0].priority(asked) == got
