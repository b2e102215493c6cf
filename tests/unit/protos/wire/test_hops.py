"""A call between two services: who is let in, and that new files count without a restart."""

import asyncio
import ssl
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from dataclasses import replace
from pathlib import Path
from typing import Any

import grpc
import pytest
from cryptography import x509

from protos.process.server import GrpcServer
from protos.tandem.v1 import decoder_pb2, decoder_pb2_grpc
from protos.wire.addresses import split
from protos.wire.channels import is_serving, open_channel
from protos.wire.credentials import CredentialFiles, Credentials, Secrets
from protos.wire.errors import Reason, from_rpc_error
from protos.wire.refusals import why_refused
from tests.support.certificates import HOST, made

ROUNDS = 20


class Decoder(decoder_pb2_grpc.DecoderServiceServicer):
    """Echoes each step of a stream, and says what it was told."""

    def __init__(self) -> None:
        self.told: list[str] = []

    async def GetLoad(self, request: Any, context: Any) -> Any:
        metadata = dict(context.invocation_metadata())
        self.told.append(metadata.get("authorization", ""))
        return decoder_pb2.DecoderLoad(running_count=7)

    async def Generate(self, requests: Any, context: Any) -> AsyncIterator[Any]:
        async for _ in requests:
            yield decoder_pb2.GenerateResponse(tokens=decoder_pb2.TokenChunk(token_ids=[1]))


@asynccontextmanager
async def served(credentials: Credentials | None) -> AsyncIterator[tuple[str, Decoder]]:
    server = GrpcServer(host=HOST, port=0, drain_timeout_s=0, credentials=credentials)
    decoder = Decoder()
    decoder_pb2_grpc.add_DecoderServiceServicer_to_server(decoder, server.server)
    async with server:
        await server.set_serving(True)
        yield f"{HOST}:{server.port}", decoder


@asynccontextmanager
async def channel_to(address: str, credentials: Credentials) -> AsyncIterator[grpc.aio.Channel]:
    channel = open_channel(address, CredentialFiles(credentials))
    try:
        yield channel
    finally:
        await channel.close()


async def load(channel: grpc.aio.Channel) -> int:
    stub = decoder_pb2_grpc.DecoderServiceStub(channel)
    answer = await stub.GetLoad(decoder_pb2.GetLoadRequest(), timeout=20)
    return int(answer.running_count)


def code(error: grpc.RpcError) -> grpc.StatusCode:
    assert isinstance(error, grpc.aio.AioRpcError)
    return error.code()


async def test_both_ends_know_each_other(tmp_path: Path) -> None:
    credentials = made(tmp_path)
    async with served(credentials) as (address, decoder), channel_to(address, credentials) as way:
        assert await load(way) == 7
        assert await is_serving(way)
        stub = decoder_pb2_grpc.DecoderServiceStub(way)
        call = stub.Generate(iter([decoder_pb2.GenerateRequest()] * 3), timeout=20)
        assert [len(answer.tokens.token_ids) async for answer in call] == [1, 1, 1]
    token = (read(credentials.token_file) or b"").decode().strip()
    assert decoder.told == [f"Bearer {token}"]


async def test_one_address_of_several_is_known_by_the_name_they_share(tmp_path: Path) -> None:
    credentials = made(tmp_path, "decoders.example")
    async with served(credentials) as (address, _):
        async with channel_to(address, replace(credentials, server_name="decoders.example")) as way:
            assert await load(way) == 7
        others = replace(credentials, server_name="others.example")
        async with channel_to(address, others) as way:
            with pytest.raises(grpc.RpcError) as refused:
                await load(way)
        assert code(refused.value) is grpc.StatusCode.UNAVAILABLE
        why = await why_refused(address, CredentialFiles(others), refused.value)
    assert why is not None and "Hostname mismatch" in why


STRANGERS = {
    "without TLS": "expects TLS: tls_certificate, tls_key and tls_authority are not set",
    "no certificate": "refuses this service's certificate (tls_certificate)",
    "its certificate of another authority": "refuses this service's certificate (tls_certificate)",
    "another authority": "shows a certificate that tls_authority does not vouch for",
    "its certificate expired": "refuses this service's certificate (tls_certificate)",
}


class Unchecked(CredentialFiles):
    """Files as they are, though nobody would let them in."""

    def __init__(self, credentials: Credentials) -> None:
        self.credentials = credentials
        self._held = Secrets(
            certificate=read(credentials.certificate),
            key=read(credentials.key),
            authority=read(credentials.authority),
        )

    def current(self) -> Secrets:
        return self._held


def read(path: str | None) -> bytes | None:
    return None if path is None else Path(path).read_bytes()


def write(path: str | None, data: bytes | None) -> None:
    assert path is not None and data is not None
    Path(path).write_bytes(data)


def stranger(kind: str, folder: Path, own: Credentials) -> Credentials:
    if kind == "without TLS":
        return Credentials()
    if kind == "no certificate":
        return replace(own, certificate=None, key=None)
    if kind == "its certificate expired":
        return made(folder / "own", "gone", days=1, ago=2)
    other = made(folder / "other")
    return replace(other, authority=own.authority) if "its" in kind else other


@pytest.mark.parametrize("kind", STRANGERS)
async def test_a_stranger_is_not_let_in_and_told_why_in_its_log(kind: str, tmp_path: Path) -> None:
    own = made(tmp_path / "own")
    files = Unchecked(stranger(kind, tmp_path, own))
    async with served(own) as (address, decoder):
        channel = open_channel(address, files)
        with pytest.raises(grpc.RpcError) as refused:
            await load(channel)
        await channel.close()
        assert code(refused.value) is grpc.StatusCode.UNAVAILABLE
        why = await why_refused(address, files, refused.value)
    assert why is not None and STRANGERS[kind] in why
    assert decoder.told == []


async def test_a_service_without_tls_is_not_spoken_to(tmp_path: Path) -> None:
    files = CredentialFiles(made(tmp_path))
    async with served(None) as (address, decoder):
        channel = open_channel(address, files)
        with pytest.raises(grpc.RpcError) as refused:
            await load(channel)
        await channel.close()
        why = await why_refused(address, files, refused.value)
    assert why == "does not speak TLS: its tls_certificate is not set"
    assert decoder.told == []


@pytest.mark.parametrize("token", [None, "another-token-of-32-characters-xx"])
async def test_a_wrong_token_is_refused_in_our_words(token: str | None, tmp_path: Path) -> None:
    own = made(tmp_path)
    shown = replace(own, token_file=None, token=token)
    async with served(own) as (address, decoder), channel_to(address, shown) as way:
        with pytest.raises(grpc.RpcError) as refused:
            await load(way)
        stream = decoder_pb2_grpc.DecoderServiceStub(way).Generate(
            iter([decoder_pb2.GenerateRequest()]), timeout=20
        )
        with pytest.raises(grpc.RpcError) as ended:
            await anext(aiter(stream))
        assert await is_serving(way)  # what probes has no token
        why = await why_refused(address, CredentialFiles(shown), refused.value)
    assert decoder.told == []
    for error in (refused.value, ended.value):
        assert code(error) is grpc.StatusCode.UNAUTHENTICATED
        assert from_rpc_error(error).reason is Reason.INVALID_TOKEN
        # Whom a gateway serves is not asked for what the gateway lacks.
        told = from_rpc_error(error, unavailable=Reason.DECODER_UNAVAILABLE)
        assert told.reason is Reason.DECODER_UNAVAILABLE
    assert why == "refuses this service's token (token, token_file)"


async def test_a_token_is_changed_without_a_refused_call(tmp_path: Path) -> None:
    served_by, called_by = tmp_path / "served", tmp_path / "called"
    for path in (served_by, called_by):
        path.write_text("the-first-token-of-both")
    files = CredentialFiles(Credentials(token_file=str(called_by)))
    async with served(Credentials(token_file=str(served_by))) as (address, decoder):
        channel = open_channel(address, files)
        for path, text in (
            (served_by, "the-first-token-of-both\nthe-second-token-of-both\n"),
            (called_by, "the-second-token-of-both\n"),
            (served_by, "the-second-token-of-both\n"),
        ):
            path.write_text(text)
            assert await load(channel) == 7
        await channel.close()
    assert [token.rpartition("-token")[0] for token in decoder.told] == [
        "Bearer the-first",
        "Bearer the-second",
        "Bearer the-second",
    ]


async def test_certificates_are_renewed_under_load(tmp_path: Path) -> None:
    """Calls never fail, the stream that ran goes on, and new connections show the new file."""
    own = made(tmp_path)
    async with served(own) as (address, _), channel_to(address, own) as way:
        stub = decoder_pb2_grpc.DecoderServiceStub(way)
        running = stub.Generate(timeout=60)
        await running.write(decoder_pb2.GenerateRequest())
        assert (await running.read()).tokens.token_ids == [1]
        before = await serial(address, own)
        for round_number in range(ROUNDS):
            if round_number % 5 == 4:
                made(tmp_path)
            assert await asyncio.gather(*(load(way) for _ in range(4))) == [7] * 4
        after = await serial(address, own)
        await running.write(decoder_pb2.GenerateRequest())
        assert (await running.read()).tokens.token_ids == [1]
        await running.done_writing()
        assert await running.read() is grpc.aio.EOF
    assert (
        before
        != after
        == x509.load_pem_x509_certificate(read(own.certificate) or b"").serial_number
    )


async def serial(address: str, credentials: Credentials) -> int:
    """The number of the certificate that a new connection is shown."""
    context = ssl.create_default_context(cafile=credentials.authority)
    context.load_cert_chain(credentials.certificate or "", credentials.key)
    context.set_alpn_protocols(["h2"])
    host, port = split(address)
    _, writer = await asyncio.open_connection(host, port, ssl=context)
    shown = writer.get_extra_info("ssl_object").getpeercert(binary_form=True)
    writer.transport.abort()
    return x509.load_der_x509_certificate(shown).serial_number


async def test_an_authority_is_replaced_step_by_step(tmp_path: Path) -> None:
    """Both ends trust the old and the new one, then show the new, and then forget the old."""
    own, new = made(tmp_path / "old"), made(tmp_path / "new")
    old_authority, new_authority = read(own.authority) or b"", read(new.authority) or b""
    steps = (
        (own.authority, old_authority + new_authority),
        (own.key, read(new.key)),  # no longer the certificate's: what was there goes on
        (own.certificate, read(new.certificate)),
        (own.authority, new_authority),
    )
    async with served(own) as (address, _), channel_to(address, own) as way:
        for path, data in steps:
            write(path, data)
            assert await load(way) == 7
