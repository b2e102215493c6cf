"""API keys."""

import pytest

from gateway.access.auth import check_key
from protos.wire.errors import Reason, ServiceError


def test_only_a_right_key_passes() -> None:
    assert check_key((), None) is None
    assert check_key(("k", "l"), "Bearer k") == "k"
    assert check_key(("k", "l"), "bearer l") == "l"
    for wrong in (None, "", "k", "Basic k", "Bearer kk", "Bearer é", "Bearer k,l"):
        with pytest.raises(ServiceError) as caught:
            check_key(("k", "l"), wrong)
        assert caught.value.reason is Reason.INVALID_API_KEY
