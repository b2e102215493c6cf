"""Where the addresses of a tier come from, and what stays when nothing comes."""

import logging
from pathlib import Path

import pytest

from gateway.fleet import names as module
from gateway.fleet.discovery import MAX_ADDRESSES, Discovery
from gateway.fleet.sources import source_of
from tests.unit.gateway.fleet.name_server import name_server


async def test_sources_are_joined_and_each_address_is_named_once(tmp_path: Path) -> None:
    path = tmp_path / "decoders"
    path.write_text("b:2\na:1\n")
    found = Discovery("decoder", [source_of("a:1"), source_of(f"file:{path}")])
    assert not found.is_static
    assert await found.look() == ("a:1", "b:2")
    path.write_text("c:3\n")
    assert await found.look() == ("a:1", "c:3")


async def test_a_list_never_changes() -> None:
    found = Discovery("decoder", [source_of("b:2"), source_of("a:1")])
    assert found.is_static
    assert await found.look() == ("b:2", "a:1")


async def test_a_bad_file_keeps_the_last_list_and_says_so_once(
    tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    path = tmp_path / "decoders"
    path.write_text("a:1\n")
    found = Discovery("decoder", [source_of(f"file:{path}")])
    await found.look()
    caplog.set_level(logging.INFO, logger="gateway.fleet.discovery")
    for damage in ("# nobody\n", "a:1\nb\n"):
        path.write_text(damage)
        for _ in range(3):
            assert await found.look() == ("a:1",)
    path.unlink()
    assert await found.look() == ("a:1",)
    assert len(caplog.records) == 3
    path.write_text("b:2\n")
    assert await found.look() == ("b:2",)
    assert "read again" in caplog.records[-1].message


async def test_a_name_that_vanishes_keeps_its_addresses(monkeypatch: pytest.MonkeyPatch) -> None:
    async with name_server() as server:
        server.records["d.example", "A"] = ["10.0.0.1"]
        found = Discovery("decoder", [source_of("dns:d.example:7")], names=server.names())
        assert await found.look() == ("10.0.0.1:7",)
        server.records.clear()
        assert await found.look() == ("10.0.0.1:7",)
        with monkeypatch.context() as patched:
            patched.setattr(module, "LOOKUP_S", 0.1)
            server.is_silent = True
            assert await found.look() == ("10.0.0.1:7",)
        server.is_silent = False
        server.records["d.example", "A"] = ["10.0.0.2", "10.0.0.1"]
        assert await found.look() == ("10.0.0.1:7", "10.0.0.2:7")


async def test_of_too_many_addresses_every_gateway_uses_the_same(tmp_path: Path) -> None:
    listed = [f"10.0.{at // 256}.{at % 256}:1" for at in range(MAX_ADDRESSES + 9)]
    found = []
    for order in (listed, listed[::-1]):
        path = tmp_path / "decoders"
        path.write_text("\n".join(order))
        found.append(await Discovery("decoder", [source_of(f"file:{path}")]).look())
    assert found[0] == found[1]
    assert len(found[0]) == MAX_ADDRESSES
