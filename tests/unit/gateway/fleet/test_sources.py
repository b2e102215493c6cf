"""What the settings of the tiers may name."""

from pathlib import Path

import pytest

from gateway.fleet.sources import (
    MAX_FILE_BYTES,
    Listed,
    Named,
    Service,
    Source,
    Watched,
    read_file,
    source_of,
)


@pytest.mark.parametrize(
    ("entry", "source"),
    [
        ("10.0.0.1:50052", Listed("10.0.0.1:50052")),
        ("[::1]:50052", Listed("[::1]:50052")),
        ("decoder.example:50052", Listed("decoder.example:50052")),
        ("dns:decoders.example:50052", Named("decoders.example", 50052)),
        ("srv:_grpc._tcp.decoders.example", Service("_grpc._tcp.decoders.example")),
        ("file:/etc/tandem/decoders", Watched("/etc/tandem/decoders")),
    ],
)
def test_an_entry_names_an_address_a_name_a_service_or_a_file(entry: str, source: Source) -> None:
    assert source_of(entry) == source


@pytest.mark.parametrize(
    "entry",
    ["decoder", "dns:decoders", "dns::50052", "srv:", "srv:name:50052", "file:", "10.0.0.1:0"],
)
def test_other_entries_are_refused(entry: str) -> None:
    with pytest.raises(ValueError):
        source_of(entry)


def test_a_file_lists_an_address_a_line(tmp_path: Path) -> None:
    path = tmp_path / "decoders"
    path.write_text("# two\n\n10.0.0.1:50052\n  10.0.0.2:50052  # the new one\n")
    assert read_file(str(path)) == ["10.0.0.1:50052", "10.0.0.2:50052"]


@pytest.mark.parametrize("data", [b"10.0.0.1\n", b"\xff\n", b"#" * (MAX_FILE_BYTES + 1)])
def test_a_file_of_something_else_is_refused_whole(tmp_path: Path, data: bytes) -> None:
    path = tmp_path / "decoders"
    path.write_bytes(b"10.0.0.2:50052\n" + data)
    with pytest.raises(ValueError):
        read_file(str(path))


def test_a_file_that_is_not_there_is_refused(tmp_path: Path) -> None:
    with pytest.raises(ValueError, match="cannot be read"):
        read_file(str(tmp_path / "nothing"))
