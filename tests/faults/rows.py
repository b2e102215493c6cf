"""The rows, by name: what is tried of each, and how its outcome is shown."""

from collections.abc import Awaitable, Callable, Mapping
from dataclasses import dataclass
from typing import Any

from rich.console import Console
from rich.table import Table

from tests.faults import connections, deadlines, messages, overload, schemas, scrapes
from tests.faults.doors import CHAT, Doors, Found


@dataclass(frozen=True, slots=True, kw_only=True)
class Row:
    """One of the listed faults.

    Attributes:
        title: Its number and what it is.
        attempt: Tries a share of its limit.
        bounded: Whether memory must not rise by it either.
    """

    title: str
    attempt: Callable[[Doors, float], Awaitable[Found]]
    bounded: bool = False


def _counted(attempt: Callable[[Doors, int], Awaitable[Found]], limit: int) -> Any:
    return lambda doors, share: attempt(doors, max(1, round(limit * share)))


ROWS: Mapping[str, Row] = {
    "schemas": Row(
        title="F28 unique schemas",
        attempt=_counted(schemas.try_schemas, schemas.LIMIT),
        bounded=True,
    ),
    "messages": Row(
        title="F66 random messages",
        attempt=_counted(messages.try_messages, messages.LIMIT),
        bounded=True,
    ),
    "connections": Row(
        title="F68 metadata, connections, pings",
        attempt=_counted(connections.try_connections, connections.LIMIT),
    ),
    "deadlines": Row(
        title="F84 deadlines", attempt=_counted(deadlines.try_deadlines, deadlines.LIMIT)
    ),
    "overload": Row(
        title="F89 far more than fits",
        attempt=lambda doors, share: overload.try_overload(
            doors, max(1, round(overload.LIMIT * share)), max(3.0, overload.SECONDS * share)
        ),
    ),
    "scrapes": Row(
        title="F97 scrapes and odd names",
        attempt=_counted(scrapes.try_scrapes, scrapes.LIMIT),
        bounded=True,
    ),
}


async def good_question(doors: Doors, text: str, found: Found) -> None:
    """A good question about an image, which must be answered."""
    async with doors.client() as client:
        answer = await client.post(CHAT, json=doors.question(text, image=True))
    found.expect(answer.status_code == 200, f"a good question: {answer.status_code}")


def show(told: Mapping[str, Mapping[str, Any]]) -> None:
    """A table of what rows found."""
    table = Table(title="faults at their limits", title_justify="left")
    for column in ("row", "seconds", "figures", "not as it must be"):
        table.add_column(column, overflow="fold")
    for name, found in told.items():
        figures = "\n".join(f"{key}: {value:g}" for key, value in found["figures"].items())
        faults = "\n".join(found["faults"]) or "-"
        table.add_row(ROWS[name].title, str(found["seconds"]), figures, faults)
        table.add_section()
    Console(width=110).print(table, markup=False)
