"""The client: sends requests, reads answers whole or streamed, and keeps what came of them."""

import json
import random
from collections import Counter
from dataclasses import dataclass, field
from typing import Any

import httpx

from tests.soak.apis import Api, Asked, Body
from tests.soak.site import KEYS

PATIENCE_S = 300.0
MOST_NOTES = 30


class Wrong(Exception):
    """An answer that is not what it must be; the text says how."""


@dataclass(slots=True, kw_only=True)
class Ledger:
    """What came of all requests.

    Attributes:
        answered: Requests by kind that were answered as they must be.
        cut: Streams by kind that were cancelled before their end.
        late: Streams by kind that had ended before they could be.
        wrong: Requests by kind that were not.
        notes: What was wrong with the first of them.
        said: The greedy answer to each question, as it was first given.
        right: Greedy answers that are the known ones, and all of those.
    """

    answered: Counter[str] = field(default_factory=Counter)
    cut: Counter[str] = field(default_factory=Counter)
    late: Counter[str] = field(default_factory=Counter)
    wrong: Counter[str] = field(default_factory=Counter)
    notes: list[str] = field(default_factory=list)
    said: dict[str, str] = field(default_factory=dict)
    right: list[int] = field(default_factory=lambda: [0, 0])

    def told(self) -> dict[str, Any]:
        """All but the answers, for programs."""
        counts = {name: dict(getattr(self, name)) for name in ("answered", "cut", "late", "wrong")}
        return {**counts, "notes": self.notes, "right": self.right, "known": len(self.said)}

    def note(self, kind: str, text: str) -> None:
        """One request went wrong."""
        self.wrong[kind] += 1
        if len(self.notes) < MOST_NOTES:
            self.notes.append(f"{kind}: {text[:400]}")

    def check(self, name: str, said: str, expected: str | None) -> None:
        """A greedy answer came.

        Raises:
            Wrong: it is another one than last time.
        """
        if expected is not None:
            self.right[0] += said.strip() == expected
            self.right[1] += 1
        first = self.said.setdefault(name, said)
        if said != first:
            raise Wrong(f"{name}: {said!r}, and before {first!r}")


class Client:
    """Asks a server; use as a context manager.

    Args:
        url: Of its door, without a path.
        ledger: Takes what comes of it.
        rng: Decides what is left to chance.
    """

    def __init__(self, url: str, ledger: Ledger, rng: random.Random) -> None:
        self.url, self.ledger, self.rng = url, ledger, rng
        limits = httpx.Limits(max_connections=None, max_keepalive_connections=8)
        self._http = httpx.AsyncClient(base_url=url, timeout=PATIENCE_S, limits=limits)

    async def __aenter__(self) -> "Client":
        await self._http.__aenter__()
        return self

    async def __aexit__(self, *_: object) -> None:
        await self._http.__aexit__()

    def headers(self, key: str | None = None) -> dict[str, str]:
        """With one of the keys, or that one, as one of the APIs tells it."""
        key = key or self.rng.choice(KEYS)
        return self.rng.choice(({"Authorization": f"Bearer {key}"}, {"x-api-key": key}))

    async def get(self, path: str) -> httpx.Response:
        """A page."""
        return await self._http.get(path, headers=self.headers())

    async def post(self, path: str, body: Any, **options: Any) -> httpx.Response:
        """Sends JSON, or bytes as they are."""
        content = body if isinstance(body, bytes) else json.dumps(body).encode()
        headers = {**options.pop("headers", self.headers()), "Content-Type": "application/json"}
        return await self._http.post(path, content=content, headers=headers, **options)

    async def whole(self, path: str, body: Body, key: str | None = None) -> Any:
        """The answer to what is well asked, with a key.

        Raises:
            Wrong: it was refused.
        """
        answer = await self.post(path, body, headers=self.headers(key))
        if answer.status_code != 200:
            raise Wrong(f"{answer.status_code} {answer.text}")
        return answer.json()

    async def refusal(self, path: str, body: Any, **options: Any) -> tuple[int, Any]:
        """Status and error code of what is badly asked.

        Raises:
            Wrong: it has no error of the API's form.
        """
        answer = await self.post(path, body, **options)
        error = answer.json().get("error")
        if not isinstance(error, dict) or not error.get("message"):
            raise Wrong(f"{answer.status_code} {answer.text}")
        return answer.status_code, error.get("code")

    async def streamed(self, api: Api, body: Body) -> str:
        """The text of a streamed answer.

        Raises:
            Wrong: it was refused, or did not end as a stream of the API ends.
        """
        pieces, ended = [], False
        async with self.stream(api, body) as answer:
            if answer.status_code != 200:
                raise Wrong(f"{answer.status_code} {(await answer.aread()).decode()}")
            async for line in answer.aiter_lines():
                pieces.append(api.piece(line))
                ended = ended or api.done in line.replace(": true", ":true")
        if not ended:
            raise Wrong("the stream ended without its last event")
        return "".join(pieces)

    def stream(self, api: Api, body: Body) -> Any:
        """A streamed answer, as httpx opens it."""
        headers = self.headers()
        return self._http.stream("POST", api.path, json={**body, "stream": True}, headers=headers)

    async def ask(self, api: Api, asked: Asked, *, streamed: bool, **more: Any) -> str:
        """The checked greedy answer to a question.

        Raises:
            Wrong: as above, or it is another one than last time.
        """
        body = {**api.body(asked), **more}
        if streamed:
            said = await self.streamed(api, body)
        else:
            said = api.text(await self.whole(api.path, {**body, "stream": False}))
        self.ledger.check(asked.name, said, asked.expected)
        return said


def pretty(value: Any) -> str:
    """JSON in one line, for notes."""
    return json.dumps(value)[:300]
