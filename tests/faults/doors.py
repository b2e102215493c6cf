"""Where a stack can be reached, and plain questions to it."""

import time
from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Any

import httpx

from tests.soak.apis import Body, data_url

CHAT = "/v1/chat/completions"
PATIENCE_S = 300.0
TOKENS = 48
LEAKS = ("Traceback", 'File "', "/tmp/", "/home/", "site-packages", "0x", "BytesIO", "127.0.0.1")


@dataclass(frozen=True, slots=True, kw_only=True)
class Doors:
    """What a row is tried at.

    Attributes:
        url: Of the HTTP door, without a path.
        grpc: `HOST:PORT` of each gRPC server, by tier.
        metrics: Port of each tier's metrics.
        key: Shown by what is tried.
        image: A PNG that is asked about.
    """

    url: str
    grpc: Mapping[str, str]
    metrics: Mapping[str, int]
    key: str
    image: bytes

    def client(self, key: str | None = None) -> httpx.AsyncClient:
        """A client of the HTTP door with as many connections as it needs."""
        return httpx.AsyncClient(
            base_url=self.url,
            headers={"Authorization": f"Bearer {key or self.key}"},
            timeout=PATIENCE_S,
            verify=False,  # plain HTTP; reading the machine's authorities takes longer than asking
            # The server closes connections that were idle for 5 s.
            limits=httpx.Limits(
                max_connections=None, max_keepalive_connections=64, keepalive_expiry=3.0
            ),
        )

    @property
    def port(self) -> int:
        """Of the HTTP door."""
        return int(self.url.rpartition(":")[2])

    def question(self, text: str, *, image: bool = False, **more: Any) -> Body:
        """A greedy question, about the image where that is wanted."""
        parts: list[Body] = [{"type": "text", "text": text}]
        if image:
            parts.insert(0, {"type": "image_url", "image_url": {"url": data_url(self.image)}})
        messages = [{"role": "user", "content": parts}]
        return {"messages": messages, "temperature": 0, "max_tokens": TOKENS, **more}


@dataclass(slots=True, kw_only=True)
class Found:
    """What came of a row.

    Attributes:
        figures: By name, for the table and for programs.
        faults: What was not as it must be.
    """

    figures: dict[str, float] = field(default_factory=dict)
    faults: list[str] = field(default_factory=list)

    def expect(self, condition: bool, otherwise: str) -> None:
        """Notes a fault unless the condition holds."""
        if not condition:
            self.faults.append(otherwise)


@dataclass(frozen=True, slots=True, kw_only=True)
class Timed:
    """An answer, or the name of the error that came instead, and the seconds it took.

    Those count from before the connection was opened.
    """

    answer: httpx.Response | str
    seconds: float

    @property
    def status(self) -> int | str:
        """Of the answer, or the error."""
        return self.answer if isinstance(self.answer, str) else self.answer.status_code

    @property
    def text(self) -> str:
        """The answer's body, or the error."""
        return self.answer if isinstance(self.answer, str) else self.answer.text

    @property
    def is_refusal(self) -> bool:
        """Whether the server says that it has too much to do, as it must: with a time to wait."""
        answer = self.answer
        return self.status in (429, 503) and (
            not isinstance(answer, str) and "retry-after" in answer.headers
        )


async def timed(client: httpx.AsyncClient, body: Body) -> Timed:
    """Asks a chat question."""
    began = time.perf_counter()
    try:
        answer: httpx.Response | str = await client.post(CHAT, json=body)
    except httpx.HTTPError as error:
        answer = type(error).__name__
    return Timed(answer=answer, seconds=time.perf_counter() - began)


def error_fault(timing: Timed) -> str | None:
    """What is wrong with an error's form; None where nothing is."""
    answer = timing.answer
    if isinstance(answer, str):
        return f"no answer: {answer}"
    try:
        message = str(answer.json()["error"]["message"])
    except (ValueError, LookupError, TypeError):
        return f"{answer.status_code} without an error of OpenAI's form: {answer.text[:200]}"
    told = [leak for leak in LEAKS if leak in message]
    if told or not answer.headers.get("x-request-id"):
        return f"{answer.status_code} tells {told or 'no request id'}: {message[:200]}"
    return None
