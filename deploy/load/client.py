"""Streams chat answers from an endpoint, and notes when each piece came."""

import json
import ssl
import time
from collections.abc import AsyncIterator, Callable
from dataclasses import dataclass
from types import TracebackType
from typing import Any, Self

import aiohttp

from deploy.load.records import Answer
from deploy.terminal.screen import CommandError

LONGEST_LINE = 4 * 1024**2  # bytes of one event; the last may carry log probabilities
TEXTS = ("content", "reasoning_content", "reasoning", "tool_calls")


@dataclass(slots=True)
class _Stream:
    """What has come of one answer."""

    moments: list[float]
    finished: bool = False
    error: str | None = None
    prompt_tokens: int | None = None
    completion_tokens: int | None = None


class LoadClient:
    """Connections to one endpoint, as many as there are requests at once.

    Args:
        base: Its URL, such as `http://127.0.0.1:8000/v1`.
        api_key: Sent as a bearer token.
        tls: None: certificates that this system trusts.
        timeout_s: Longest that one answer may take.
        clock: Seconds.
    """

    def __init__(
        self,
        base: str,
        *,
        api_key: str | None = None,
        tls: ssl.SSLContext | None = None,
        timeout_s: float = 600.0,
        clock: Callable[[], float] = time.perf_counter,
    ) -> None:
        self._base = base
        self._headers = {"authorization": f"Bearer {api_key}"} if api_key else {}
        self._tls: ssl.SSLContext | bool = tls or True
        self._timeout_s = timeout_s
        self._clock = clock

    async def __aenter__(self) -> Self:
        self._session = aiohttp.ClientSession(
            headers=self._headers,
            connector=aiohttp.TCPConnector(limit=0, ssl=self._tls),
            timeout=aiohttp.ClientTimeout(total=self._timeout_s),
            read_bufsize=LONGEST_LINE,
        )
        return self

    async def __aexit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        traceback: TracebackType | None,
    ) -> None:
        await self._session.close()

    async def first_model(self) -> str:
        """The first name in `/models`.

        Raises:
            CommandError: nothing answers there, or not with a list of models.
        """
        url = f"{self._base}/models"
        try:
            async with self._session.get(url) as response:
                if response.status != 200:
                    raise CommandError(f"{url} answers HTTP {response.status}")
                return str((await response.json(content_type=None))["data"][0]["id"])
        except (aiohttp.ClientError, TimeoutError) as error:
            raise CommandError(f"nothing answers at {url}: {_kind(error)}") from error
        except (ValueError, LookupError, TypeError) as error:
            raise CommandError(f"{url} lists no model; name one with --model") from error

    async def ask(self, body: bytes) -> Answer:
        """Sends one body and reads its stream to the end."""
        stream = _Stream(moments=[])
        try:
            await self._read(body, stream)
        except (aiohttp.ClientError, TimeoutError, OSError) as error:
            stream.error = _kind(error)
        except (ValueError, AttributeError, TypeError, LookupError):  # no JSON, or another's
            stream.error = "bad stream"
        if stream.error is None and not stream.finished:
            stream.error = "cut off"
        return Answer(
            moments=tuple(stream.moments),
            ended_s=self._clock(),
            prompt_tokens=stream.prompt_tokens,
            completion_tokens=stream.completion_tokens,
            error=stream.error,
        )

    async def _read(self, body: bytes, stream: _Stream) -> None:
        headers = {"content-type": "application/json"}
        url = f"{self._base}/chat/completions"
        async with self._session.post(url, data=body, headers=headers) as response:
            if response.status != 200:
                stream.error = f"HTTP {response.status}"
                return
            async for event in _events(response):
                self._take(event, stream)

    def _take(self, event: Any, stream: _Stream) -> None:
        if event.get("error"):
            stream.error = "error in stream"
            return
        choice = (event.get("choices") or [{}])[0]
        delta = choice.get("delta") or {}
        if any(delta.get(name) for name in TEXTS):
            stream.moments.append(self._clock())
        stream.finished = stream.finished or choice.get("finish_reason") is not None
        if usage := event.get("usage"):
            stream.prompt_tokens = usage.get("prompt_tokens")
            stream.completion_tokens = usage.get("completion_tokens")


async def _events(response: aiohttp.ClientResponse) -> AsyncIterator[Any]:
    """The JSON of each `data:` line until `[DONE]`."""
    async for line in response.content:
        if line.startswith(b"data:"):
            data = line.removeprefix(b"data:").strip()
            if data == b"[DONE]":
                return
            yield json.loads(data)


def _kind(error: BaseException) -> str:
    """A few words that many failures share."""
    if isinstance(error, TimeoutError):
        return "timeout"
    if isinstance(error, aiohttp.ClientConnectorCertificateError | aiohttp.ClientSSLError):
        return "TLS failed"
    if isinstance(error, aiohttp.ClientConnectorError):
        return "not reachable"
    return "connection lost"
