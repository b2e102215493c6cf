"""The gateway's own bounded queue."""

import pytest

from gateway.access.admission import Admission
from protos.wire.errors import Overloaded, Reason, Unavailable


def test_one_tenant_cannot_take_every_place() -> None:
    admission = Admission(max_requests=4, max_bytes=100, max_of_tenant=2)
    with admission.slot(1, tenant=b"a"), admission.slot(1, tenant=b"a"):
        with pytest.raises(Overloaded, match="this key"):
            admission.slot(1, tenant=b"a").__enter__()
        with admission.slot(1, tenant=b"b"):
            assert admission.in_flight == 3
    with admission.slot(1, tenant=b"a"):
        assert admission.in_flight == 1


def test_admission_counts_requests_and_bytes() -> None:
    admission = Admission(max_requests=2, max_bytes=100)
    with admission.slot(60):
        with pytest.raises(Overloaded):
            admission.slot(41).__enter__()
        with admission.slot(40):
            with pytest.raises(Overloaded):
                admission.slot(0).__enter__()
    assert admission.in_flight == 0
    with admission.slot(60), admission.room(30):
        with pytest.raises(Overloaded):
            admission.room(11).__enter__()
        assert admission.in_flight == 1
    with admission.room(100):
        pass
    admission.draining = True
    with pytest.raises(Unavailable) as caught:
        admission.slot(0).__enter__()
    assert caught.value.reason is Reason.DRAINING
