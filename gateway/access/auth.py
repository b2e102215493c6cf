"""The optional API keys, the same for both doors."""

import hmac
from collections.abc import Mapping, Sequence

from protos.wire.errors import InvalidRequest, Reason, ServiceError

AUTHORIZATION = "authorization"
API_KEY = "x-api-key"


def bearer(headers: Mapping[str, str]) -> str | None:
    """The `Authorization` header of an HTTP request; Anthropic's clients send `x-api-key`.

    Where both are there, `Authorization` counts.
    """
    given, key = headers.get(AUTHORIZATION), headers.get(API_KEY)
    return f"Bearer {key}" if given is None and key is not None else given


def one_value(values: Sequence[str], name: str = AUTHORIZATION) -> str | None:
    """The value of a request's headers of one name, or metadata; None without one.

    Raises:
        InvalidRequest: there are several, of which a proxy may have checked another one.
    """
    if len(values) > 1:
        raise InvalidRequest(f"the request has {len(values)} {name.title()} headers, expected one")
    return values[0] if values else None


def given_key(authorization: str | None) -> str:
    """The key in a request's `Authorization: Bearer KEY`.

    Raises:
        ServiceError: INVALID_API_KEY, there is none.
    """
    scheme, _, key = (authorization or "").partition(" ")
    if scheme.lower() != "bearer" or not key.strip():
        raise wrong_key()
    return key.strip()


def check_key(expected: Sequence[str], authorization: str | None) -> str | None:
    """Compares a request's `Authorization: Bearer KEY` with the configured keys.

    The comparison takes the same time for every wrong key.

    Returns:
        The key; None where none are configured.

    Raises:
        ServiceError: INVALID_API_KEY, the key is missing or wrong.
    """
    if not expected:
        return None
    key = given_key(authorization).encode()
    # All of them, so that the time does not tell which one was close.
    matching = [one for one in expected if hmac.compare_digest(key, one.encode())]
    if not matching:
        raise wrong_key()
    return matching[0]


def wrong_key() -> ServiceError:
    """The one error of a missing and of a wrong key."""
    return ServiceError(
        "the API key is missing or wrong; send it as Authorization: Bearer KEY",
        reason=Reason.INVALID_API_KEY,
    )
