"""Names are looked up with name servers."""

import pytest

from gateway.fleet import names as module
from gateway.fleet.names import LookupFailed
from tests.unit.gateway.fleet.name_server import name_server

NAME = "decoders.example"


async def test_every_a_and_aaaa_record_is_an_address() -> None:
    async with name_server() as server:
        server.records[NAME, "A"] = ["10.0.0.2", "10.0.0.1"]
        server.records[NAME, "AAAA"] = ["fd00::1"]
        found = await server.names().addresses(NAME, 50052)
    assert found == ["10.0.0.1:50052", "10.0.0.2:50052", "[fd00::1]:50052"]


async def test_one_family_is_enough() -> None:
    async with name_server() as server:
        server.records[NAME, "A"] = ["10.0.0.2"]
        assert await server.names().addresses(NAME, 1) == ["10.0.0.2:1"]


async def test_services_tell_hosts_and_ports_of_the_lowest_priority() -> None:
    async with name_server() as server:
        service = f"_grpc._tcp.{NAME}"
        server.records[service, "SRV"] = [
            "10 5 50052 a.example.",
            "10 1 50060 b.example.",
            "20 1 50052 spare.example.",
        ]
        for host, address in {"a": "10.0.0.1", "b": "10.0.0.2", "spare": "10.0.0.3"}.items():
            server.records[f"{host}.example", "A"] = [address]
        assert await server.names().services(service) == ["10.0.0.1:50052", "10.0.0.2:50060"]


async def test_what_gives_no_address_has_failed(monkeypatch: pytest.MonkeyPatch) -> None:
    async with name_server() as server:
        server.records[NAME, "TXT"] = ["nothing"]
        server.records["_s.example", "SRV"] = ["0 0 0 ."]
        asking = server.names()
        for look_up in (
            asking.addresses("none.example", 1),
            asking.addresses(NAME, 1),
            asking.services("_s.example"),
        ):
            with pytest.raises(LookupFailed):
                await look_up
        monkeypatch.setattr(module, "LOOKUP_S", 0.1)
        server.is_silent = True
        with pytest.raises(LookupFailed, match="no name server"):
            await asking.addresses(NAME, 1)


async def test_half_an_answer_is_none(monkeypatch: pytest.MonkeyPatch) -> None:
    """Else the addresses of one family would leave whenever a packet is lost."""
    monkeypatch.setattr(module, "LOOKUP_S", 0.2)
    async with name_server() as server:
        server.records[NAME, "A"] = ["10.0.0.1"]
        server.records[NAME, "AAAA"] = ["fd00::1"]
        answering = server.datagram_received

        def only_a(data: bytes, peer: tuple[str, int]) -> None:
            if b"\x00\x1c\x00\x01" not in data:  # AAAA, IN
                answering(data, peer)

        monkeypatch.setattr(server, "datagram_received", only_a)
        with pytest.raises(LookupFailed):
            await server.names().addresses(NAME, 1)
