"""Fetches the media that clients name by URL, within its time and few at once.

Redirects are followed here, each checked like the first URL.
"""

import asyncio
import os
import stat
from collections.abc import Awaitable
from contextlib import AsyncExitStack
from pathlib import Path
from typing import TYPE_CHECKING

from gateway.media.sources import (
    MAX_URL_CHARS,
    ByteLimit,
    FetchLimits,
    MediaPolicy,
    MediaUrl,
    fetch_failed,
    file_path,
    not_allowed,
)
from protos.wire.errors import DeadlineExceeded, Reason

if TYPE_CHECKING:
    from gateway.media.http_files import HttpFiles


class Fetcher:
    """Fetches files by URL; one object per process. Use as an async context manager."""

    def __init__(self, policy: MediaPolicy, limits: FetchLimits | None = None) -> None:
        self._policy = policy
        self._limits = limits or FetchLimits()
        self._places = asyncio.Semaphore(self._limits.parallel)
        self._stack = AsyncExitStack()
        self._http: HttpFiles | None = None

    async def __aenter__(self) -> "Fetcher":
        policy = self._policy
        if policy.hosts or policy.any_public:
            # Imported here because most gateways fetch nothing, and it takes its time.
            from gateway.media.http_files import HttpFiles

            self._http = await self._stack.enter_async_context(HttpFiles(policy, self._limits))
        return self

    async def __aexit__(self, *_: object) -> None:
        await self._stack.aclose()

    async def fetch(self, url: str, *, field: str, limit: ByteLimit) -> bytes:
        """The file behind an http, https or file URL.

        Args:
            url: As the client sent it.
            field: Its place in the request, for errors.
            limit: How large the file may be.

        Raises:
            InvalidRequest: URL_NOT_ALLOWED, whatever the reason; the error of `limit`;
                MEDIA_FETCH_FAILED, its server did not give the whole file.
            DeadlineExceeded: MEDIA_FETCH_TIMEOUT.
        """
        if len(url) > MAX_URL_CHARS or any(sign <= " " for sign in url):
            raise not_allowed(field)
        if url[:5].lower() == "file:":
            path = file_path(url, field=field)
            reading = asyncio.to_thread(self._read, path, field, limit)
            return await self._within_time(reading, field)
        first = MediaUrl.parse(url, field=field)
        async with self._places:
            return await self._within_time(self._follow(first, field, limit), field)

    async def _within_time(self, work: Awaitable[bytes], field: str) -> bytes:
        try:
            async with asyncio.timeout(self._limits.total_s):
                return await work
        except TimeoutError as error:
            raise DeadlineExceeded(
                f"{field} could not be fetched within {self._limits.total_s:g} s, or its server not"
                f" be reached within {self._limits.connect_s:g} s",
                reason=Reason.MEDIA_FETCH_TIMEOUT,
                param=field,
            ) from error

    async def _follow(self, url: MediaUrl, field: str, limit: ByteLimit) -> bytes:
        if self._http is None:
            raise not_allowed(field)
        for _ in range(self._limits.redirects + 1):
            answer = await self._http.ask(url, field, limit)
            if isinstance(answer, bytes):
                return answer
            url = answer
        raise fetch_failed(field, f"was redirected more than {self._limits.redirects} times")

    def _read(self, path: str, field: str, limit: ByteLimit) -> bytes:
        """A file below the folder; links are followed first, so that none leads out of it."""
        if self._policy.folder is None:
            raise not_allowed(field)
        folder = os.path.realpath(self._policy.folder)
        target = Path(os.path.realpath(path))
        if not target.is_relative_to(folder):
            raise not_allowed(field)
        try:
            with open(target, "rb", opener=_open) as file:
                limit.check(os.fstat(file.fileno()).st_size, field=field)
                return file.read(limit.most)
        except OSError as error:
            raise not_allowed(field) from error


def _open(path: str, flags: int) -> int:
    """Opens a regular file only, and without waiting: a pipe without a writer never opens.

    Raises:
        OSError: it is none, or cannot be read.
    """
    descriptor = os.open(path, flags | os.O_NOFOLLOW | os.O_NONBLOCK)
    if not stat.S_ISREG(os.fstat(descriptor).st_mode):
        os.close(descriptor)
        raise OSError("no regular file")
    return descriptor
