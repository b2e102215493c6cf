"""What waits for a cluster tells how it ends, and holds nobody."""

import asyncio
import subprocess
import sys
import threading

import pytest

from protos.machine.threads import apart

HELD = """
import asyncio, threading
from protos.machine.threads import apart

async def main():
    try:
        await asyncio.wait_for(apart(threading.Event().wait), 0.05)
    except TimeoutError:
        print("went on")

asyncio.run(main())
"""


async def test_the_result_and_the_error_come_back() -> None:
    assert await apart(lambda: 5) == 5
    with pytest.raises(ValueError, match="five"):
        await apart(lambda: int("five"))


async def test_whoever_waits_may_go_away() -> None:
    let = threading.Event()
    waiting = asyncio.create_task(apart(let.wait))
    await asyncio.sleep(0)
    waiting.cancel()
    await asyncio.wait({waiting})
    let.set()
    assert await apart(lambda: 5) == 5


def test_a_process_ends_though_its_cluster_never_answers() -> None:
    done = subprocess.run(
        [sys.executable, "-c", HELD], capture_output=True, text=True, timeout=60, check=True
    )
    assert done.stdout == "went on\n"
