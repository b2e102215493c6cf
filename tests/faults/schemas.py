"""F28: thousands of requests, each with a schema that nobody had before."""

import asyncio
import json
from collections import Counter
from typing import Any

from tests.faults.doors import Doors, Found, timed

AT_ONCE = 8
LIMIT = 5_000
TOKENS = 12


async def try_schemas(doors: Doors, count: int = LIMIT) -> Found:
    """All are answered, whole and as the schema has it."""
    found, numbers, statuses = Found(), iter(range(count)), Counter[int | str]()
    wrong: list[str] = []

    async def ask() -> None:
        for number in numbers:
            timing = await timed(client, doors.question("How many?", **_form(number)))
            statuses[timing.status] += 1
            if timing.status != 200:
                wrong.append(timing.text[:200])
            elif not _begins(json.loads(timing.text), number):
                wrong.append(f"{number}: {timing.text[:200]}")

    async with doors.client() as client:
        await asyncio.gather(*(ask() for _ in range(AT_ONCE)))
    found.figures = {"asked": count, "answered": statuses[200]}
    found.expect(not wrong, f"{len(wrong)} of {count} were not answered: {wrong[:3]}")
    return found


def _form(number: int) -> dict[str, Any]:
    name = f"field_{number}"
    schema = {
        "type": "object",
        "properties": {name: {"type": "integer"}},
        "required": [name],
        "additionalProperties": False,
    }
    form = {"type": "json_schema", "json_schema": {"name": "form", "schema": schema}}
    return {"response_format": form, "max_tokens": TOKENS}


def _begins(answer: dict[str, Any], number: int) -> bool:
    """Whether as much of the answer as there was room for is held to its own schema."""
    said = "".join(answer["choices"][0]["message"]["content"].split())
    wanted = f'{{"field_{number}":'
    return said.startswith(wanted) or wanted.startswith(said)
