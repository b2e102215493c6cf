"""The optional API key, the same for both doors."""

import hmac

from protos.errors import Reason, ServiceError

AUTHORIZATION = "authorization"


def check_key(expected: str | None, authorization: str | None) -> None:
    """Compares a request's `Authorization: Bearer KEY` with the configured key.

    The comparison takes the same time for every wrong key.

    Raises:
        ServiceError: INVALID_API_KEY, the key is missing or wrong.
    """
    if expected is None:
        return
    scheme, _, key = (authorization or "").partition(" ")
    right = hmac.compare_digest(key.strip().encode(), expected.encode())
    if scheme.lower() != "bearer" or not right:
        raise ServiceError(
            "the API key is missing or wrong; send it as Authorization: Bearer KEY",
            reason=Reason.INVALID_API_KEY,
        )
