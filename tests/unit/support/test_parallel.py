"""Which tests of a parallel run share a process."""

from tests.support.parallel import scope_of


def test_the_tests_of_the_real_services_share_a_process_and_others_their_files() -> None:
    served = ["tests/e2e/test_a.py::test_one[x::y]", "tests/parity/test_services.py::test_two"]
    assert len({scope_of(nodeid) for nodeid in served}) == 1
    alone = ["tests/parity/test_mrope.py::test[a]", "tests/parity/test_pixels.py::test[a]"]
    assert len({scope_of(nodeid) for nodeid in [*served, *alone]}) == 3
    assert scope_of("tests/unit/test_a.py::A::test[b]") == scope_of("tests/unit/test_a.py::test_c")
