"""OpenAI's headers of rate limits, of what a key may use by the minute."""

import math

from gateway.access.accounts import Account, Rated

_TOLD = {
    "limit": ("Most {} in a minute, and at once.", "integer"),
    "remaining": ("How many {} are left now.", "integer"),
    "reset": ("Time until all {} are there again, as in 120ms or 1m0s.", "string"),
}

# Name of each header: its meaning, and its type in JSON schemas. A key has those of its limits.
DESCRIBED = {
    f"x-ratelimit-{what}-{rated}": (text.format(rated.replace("-", " ")), kind)
    for what, (text, kind) in _TOLD.items()
    for rated in Rated
}


def rate_headers(account: Account) -> dict[str, str]:
    """The limit, what is left and the time until all is there again, of each limit of a key."""
    headers = {}
    for rated, bucket in account.buckets.items():
        headers[f"x-ratelimit-limit-{rated}"] = str(bucket.per_minute)
        headers[f"x-ratelimit-remaining-{rated}"] = str(bucket.remaining())
        headers[f"x-ratelimit-reset-{rated}"] = duration(bucket.full_in_s())
    return headers


def duration(seconds: float) -> str:
    """A time as OpenAI writes it, rounded up: 120ms, 6s, 1m0s."""
    if seconds < 1:
        return f"{math.ceil(seconds * 1000)}ms"
    minutes, rest = divmod(math.ceil(seconds), 60)
    return f"{minutes}m{rest}s" if minutes else f"{rest}s"
