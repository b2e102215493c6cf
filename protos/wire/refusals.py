"""Why a service that is there refuses this one: gRPC itself says "unavailable" and no more."""

import asyncio
import logging
import ssl
import time

import grpc

from protos.wire.addresses import split
from protos.wire.credentials import CredentialFiles

logger = logging.getLogger(__name__)

PROBE_S = 3.0
REPEAT_S = 60.0  # between two lines on one address

REFUSED = "refuses this service's certificate (tls_certificate)"


class Refusals:
    """Tells the log, beside the calls, which setting keeps peers from answering.

    Args:
        files: The secrets of this service.
    """

    def __init__(self, files: CredentialFiles) -> None:
        self._files = files
        self._told_s: dict[str, float] = {}  # by address
        self._asking: dict[str, asyncio.Task[None]] = {}

    def noticed(self, peer: str, address: str, error: grpc.RpcError) -> None:
        """A call failed.

        Args:
            peer: What the log calls the other end.
            address: Its `host:port`.
            error: What the call raised.
        """
        lately = time.monotonic() - self._told_s.get(address, -REPEAT_S) < REPEAT_S
        if not lately and address not in self._asking:
            task = asyncio.get_running_loop().create_task(self._tell(peer, address, error))
            self._asking[address] = task
            task.add_done_callback(lambda _: self._asking.pop(address, None))

    async def _tell(self, peer: str, address: str, error: grpc.RpcError) -> None:
        why = await why_refused(address, self._files, error)
        if why is not None:
            self._told_s[address] = time.monotonic()
            logger.error("%s at %s %s", peer, address, why)

    async def close(self) -> None:
        """Ends what still asks."""
        tasks = list(self._asking.values())
        for task in tasks:
            task.cancel()
        await asyncio.gather(*tasks, return_exceptions=True)


async def why_refused(address: str, files: CredentialFiles, error: grpc.RpcError) -> str | None:
    """What the other end has against this one, as the end of a sentence.

    Args:
        address: `host:port`, which is connected to once more where the call was not answered.
        files: The secrets of this service.
        error: What a call raised.

    Returns:
        None where nothing is wrong with certificates or token: it is not there, or busy.
    """
    code = error.code() if isinstance(error, grpc.Call | grpc.aio.AioRpcError) else None
    if code is grpc.StatusCode.UNAUTHENTICATED:
        return "refuses this service's token (token, token_file)"
    if code is not grpc.StatusCode.UNAVAILABLE:
        return None
    try:
        async with asyncio.timeout(PROBE_S):
            return await (_shake_hands if files.credentials.tls else _try_tls)(address, files)
    except (OSError, TimeoutError):  # it is not there
        return None


async def _shake_hands(address: str, files: CredentialFiles) -> str | None:
    secrets, credentials = files.current(), files.credentials
    context = ssl.create_default_context(cadata=(secrets.authority or b"").decode())
    if credentials.certificate is not None:
        context.load_cert_chain(credentials.certificate, credentials.key)
    try:
        return await _refusal_of(address, context, credentials.server_name)
    except ssl.SSLCertVerificationError as error:
        return f"shows a certificate that tls_authority does not vouch for: {error.verify_message}"
    except ssl.SSLError as error:
        if error.reason == "WRONG_VERSION_NUMBER":
            return "does not speak TLS: its tls_certificate is not set"
        return REFUSED


async def _try_tls(address: str, files: CredentialFiles) -> str | None:
    """A plain call got no answer: the other end may expect TLS."""
    del files  # there are none
    context = ssl.create_default_context()
    context.check_hostname = False
    context.verify_mode = ssl.CERT_NONE
    expected = "expects TLS: tls_certificate, tls_key and tls_authority are not set"
    try:
        await _refusal_of(address, context)
    except ssl.SSLError as error:
        return None if error.reason == "WRONG_VERSION_NUMBER" else expected
    return expected


async def _refusal_of(
    address: str, context: ssl.SSLContext, server_name: str | None = None
) -> str | None:
    """Shakes hands, and reads what the server says after: with TLS 1.3 it refuses then, and
    gRPC's servers do so without a word.

    Raises:
        ssl.SSLError: one end refused the other.
        OSError: nothing is there.
    """
    context.set_alpn_protocols(["h2"])  # gRPC answers nothing else
    host, port = split(address)
    reader, writer = await asyncio.open_connection(
        host, port, ssl=context, server_hostname=server_name or host
    )
    try:
        if await reader.read(1):
            return None
    except ConnectionResetError:
        pass
    finally:
        writer.transport.abort()
    return REFUSED
