"""A gateway among tiers that want certificates and a token, and its doors with TLS."""

import asyncio
import ssl
from pathlib import Path
from typing import Any

import httpx
import pytest

from deploy.client import ChatClient
from deploy.commands.server import ClientFiles
from protos.bundle.manifest import Bundle
from protos.wire.credentials import Credentials
from tests.support.certificates import made
from tests.unit.gateway.rpc.test_servicer import request
from tests.unit.gateway.stage import Stage, about_images, staged, user


def hop(credentials: Credentials, **changed: Any) -> dict[str, Any]:
    """Settings of a gateway that names these files."""
    return {
        "tls_certificate": credentials.certificate,
        "tls_key": credentials.key,
        "tls_authority": credentials.authority,
        "token_file": credentials.token_file,
        **changed,
    }


def doors(credentials: Credentials) -> dict[str, Any]:
    return {"door_certificate": credentials.certificate, "door_key": credentials.key}


async def test_a_gateway_answers_from_tiers_that_know_it(bundle: Bundle, tmp_path: Path) -> None:
    own = made(tmp_path)
    async with staged(bundle, tiers=own, **hop(own)) as stage:
        stage.will_say("Hi there")
        response = await stage.post(messages=about_images((64, 64)))
        assert response.json()["choices"][0]["message"]["content"] == "Hi there"
        made(tmp_path)  # renewed
        assert (await stage.post(messages=about_images((64, 96)))).status_code == 200
        assert len(stage.vision.requests) == 2


async def test_what_a_tier_refuses_is_in_the_log_and_not_in_answers(
    bundle: Bundle, tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    own = made(tmp_path)
    wrong = hop(own, token_file=None, token="another-token-of-a-gateway")
    async with staged(bundle, tiers=own, **wrong) as stage:
        response = await stage.post(messages=user())
        assert response.status_code == 503
        assert response.json()["error"]["code"] == "decoder_unavailable"
        tiers = stage.gateway.health()["tiers"]
        assert tiers == {"decoder": "unreachable", "vision": "unreachable"}
        assert "127.0.0.1" not in response.text and "token" not in response.text
        addresses = (stage.vision.address, stage.decoder.address)
    for address in addresses:
        line = f"{address} refuses this service's token (token, token_file)"
        assert caplog.text.count(line) == 1


async def asked(stage: Stage, context: ssl.SSLContext) -> int:
    base = f"https://127.0.0.1:{stage.gateway.http_port}"
    async with httpx.AsyncClient(base_url=base, verify=context, timeout=20) as client:
        answer = await client.post("/v1/chat/completions", json={"messages": user()})
        return answer.status_code


def said(address: str, files: ClientFiles) -> bool:
    """Whether a command's client gets an answer."""
    credentials = files.credentials(address)
    with ChatClient(address, credentials=credentials) as client:
        if not client.wait_until_serving():
            return False
        return bool(list(client.complete(request("hi"))))


async def test_both_doors_speak_tls_ask_for_certificates_and_follow_their_files(
    bundle: Bundle, tmp_path: Path
) -> None:
    own, other = made(tmp_path / "own"), made(tmp_path / "other")
    client = made(tmp_path / "client", "someone")
    async with staged(bundle, **doors(own), door_authority=client.authority) as stage:
        stage.will_say("Hi")
        address = f"127.0.0.1:{stage.gateway.grpc_port}"
        known, stranger = client_files(own, client), client_files(own, None)
        assert await asyncio.to_thread(said, address, known)
        assert not await asyncio.to_thread(said, address, stranger)
        assert await asked(stage, context_of(own, client)) == 200
        with pytest.raises((httpx.TransportError, ssl.SSLError)):
            await asked(stage, context_of(own, None))
        with pytest.raises(httpx.TransportError):
            await stage.http.get("/health")  # without TLS
        replace_pair(own, other)
        assert await asked(stage, context_of(other, client)) == 200
        with pytest.raises(httpx.ConnectError):
            await asked(stage, context_of(own, client))
        assert not await asyncio.to_thread(said, address, known)


def client_files(server: Credentials, shown: Credentials | None) -> ClientFiles:
    authority = Path(server.authority or "")
    if shown is None:
        return ClientFiles(authority=authority)
    certificate, key = Path(shown.certificate or ""), Path(shown.key or "")
    return ClientFiles(authority=authority, certificate=certificate, key=key)


def context_of(server: Credentials, shown: Credentials | None) -> ssl.SSLContext:
    context = ssl.create_default_context(cafile=server.authority)
    if shown is not None:
        context.load_cert_chain(shown.certificate or "", shown.key)
    return context


def replace_pair(old: Credentials, new: Credentials) -> None:
    for one, another in ((old.key, new.key), (old.certificate, new.certificate)):
        Path(one or "").write_bytes(Path(another or "").read_bytes())
