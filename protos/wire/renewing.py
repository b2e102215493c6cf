"""A channel that shows the newest certificate and tells the newest token."""

import asyncio
from collections.abc import Callable, Sequence
from typing import Any

import grpc

from protos.wire.credentials import CredentialFiles, Secrets

AUTHORIZATION_KEY = "authorization"
RETIREMENT_S = 86_400.0  # longer than any call

Metadata = Sequence[tuple[str, str | bytes]]


class RenewingChannel(grpc.aio.Channel):
    """Makes each call over a channel of the secrets as they are then.

    When they change, new calls go over a new connection; calls that run go on over the old one,
    which is closed when the last of them has ended.

    Args:
        files: The secrets.
        connect: Makes a channel of some secrets; called again when they have changed.
    """

    def __init__(
        self, files: CredentialFiles, connect: Callable[[Secrets], grpc.aio.Channel]
    ) -> None:
        self._files = files
        self._connect = connect
        self._secrets = files.current()
        self._newest = connect(self._secrets)
        self._retiring = dict[asyncio.Task[None], grpc.aio.Channel]()

    def _now(self) -> grpc.aio.Channel:
        secrets = self._files.current()
        if secrets is not self._secrets:
            closing = asyncio.get_running_loop().create_task(self._newest.close(RETIREMENT_S))
            self._retiring[closing] = self._newest
            closing.add_done_callback(lambda task: self._retiring.pop(task, None))
            self._secrets, self._newest = secrets, self._connect(secrets)
        return self._newest

    def _calling(self, kind: str, method: str, arguments: Any, named: Any) -> Any:
        """What a stub calls; it takes the channel and the token of the moment of each call."""

        def call(*given: Any, metadata: Metadata | None = None, **further: Any) -> Any:
            make = getattr(self._now(), kind)(method, *arguments, **named)
            return make(*given, metadata=self._with_token(metadata), **further)

        return call

    def _with_token(self, metadata: Metadata | None) -> Metadata | None:
        if not self._secrets.tokens:
            return metadata
        return (*(metadata or ()), (AUTHORIZATION_KEY, f"Bearer {self._secrets.tokens[0]}"))

    def unary_unary(self, method: str, *arguments: Any, **named: Any) -> Any:
        """One message to one message, as `grpc.aio.Channel` has it."""
        return self._calling("unary_unary", method, arguments, named)

    def unary_stream(self, method: str, *arguments: Any, **named: Any) -> Any:
        """One message to several, as `grpc.aio.Channel` has it."""
        return self._calling("unary_stream", method, arguments, named)

    def stream_unary(self, method: str, *arguments: Any, **named: Any) -> Any:
        """Several messages to one, as `grpc.aio.Channel` has it."""
        return self._calling("stream_unary", method, arguments, named)

    def stream_stream(self, method: str, *arguments: Any, **named: Any) -> Any:
        """Several messages to several, as `grpc.aio.Channel` has it."""
        return self._calling("stream_stream", method, arguments, named)

    async def close(self, grace: float | None = None) -> None:
        """Closes the newest connection and those whose calls still run."""
        await asyncio.gather(
            *(channel.close(grace) for channel in (self._newest, *self._retiring.values()))
        )

    def get_state(self, try_to_connect: bool = False) -> grpc.ChannelConnectivity:
        """How the newest connection is."""
        return self._now().get_state(try_to_connect)

    async def wait_for_state_change(self, last_observed_state: grpc.ChannelConnectivity) -> None:
        """Returns when the newest connection is no longer as it was."""
        await self._newest.wait_for_state_change(last_observed_state)

    async def channel_ready(self) -> None:
        """Returns when the newest connection is there."""
        await self._now().channel_ready()

    async def __aenter__(self) -> "RenewingChannel":
        return self

    async def __aexit__(self, *_: object) -> None:
        await self.close()
