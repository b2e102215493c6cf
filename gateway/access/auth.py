"""The optional API keys, the same for both doors."""

import hmac
from collections.abc import Sequence

from protos.wire.errors import InvalidRequest, Reason, ServiceError

AUTHORIZATION = "authorization"


def one_authorization(values: Sequence[str]) -> str | None:
    """The value of a request's `Authorization` headers, or metadata; None without one.

    Raises:
        InvalidRequest: there are several, of which a proxy may have checked another one.
    """
    if len(values) > 1:
        raise InvalidRequest(f"the request has {len(values)} Authorization headers, expected one")
    return values[0] if values else None


def check_key(expected: Sequence[str], authorization: str | None) -> str | None:
    """Compares a request's `Authorization: Bearer KEY` with the configured keys.

    The comparison takes the same time for every wrong key.

    Returns:
        The key, which stands for a tenant; None where none are configured.

    Raises:
        ServiceError: INVALID_API_KEY, the key is missing or wrong.
    """
    if not expected:
        return None
    scheme, _, key = (authorization or "").partition(" ")
    # All of them, so that the time does not tell which one was close.
    matching = [one for one in expected if hmac.compare_digest(key.strip().encode(), one.encode())]
    if scheme.lower() != "bearer" or not matching:
        raise ServiceError(
            "the API key is missing or wrong; send it as Authorization: Bearer KEY",
            reason=Reason.INVALID_API_KEY,
        )
    return matching[0]
