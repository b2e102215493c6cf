"""Whatever a parser does, the replica lives, and other files are parsed."""

import asyncio
import gc
import os
import time
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

from protos.machine.processes import start_time
from protos.wire.errors import InternalError, InvalidRequest, Reason, ServiceError
from tests.support.waiting import wait_until
from tests.unit.vision_service.box import tasks
from vision_service.box import box as box_module
from vision_service.box.box import Job, ParserBox, Result
from vision_service.box.memory import SharedFile
from vision_service.box.process import BoxProcess
from vision_service.media import boxed

MIB = 1024**2

pytestmark = pytest.mark.asyncio(loop_scope="module")  # one box for all, and its queue one loop


@pytest.fixture(scope="module")
def box() -> Iterator[ParserBox]:
    with pytest.MonkeyPatch.context() as patch:
        patch.setenv("RAY_AUTH_TOKEN", "secret")
        made = ParserBox(workers=1, memory_bytes=64 * MIB, modules=[tasks.__name__, boxed.__name__])
    yield made
    made.close()


async def run(box: ParserBox, task: str, data: bytes = b"abc", **arguments: Any) -> Result:
    with SharedFile(data) as file:
        return await box.run(job(task, file, **arguments))


def job(task: str, file: SharedFile, **arguments: Any) -> Job:
    limit_s = arguments.pop("limit_s", 5.0)
    return Job(
        task=f"{tasks.__name__}:{task}",
        file=file,
        arguments=arguments,
        limit_s=limit_s,
        field="messages[0]",
    )


async def refusal(box: ParserBox, task: str, data: bytes = b"abc", **arguments: Any) -> Any:
    with pytest.raises(ServiceError) as caught:
        await run(box, task, data, **arguments)
    return caught.value


async def works(box: ParserBox) -> bool:
    result = await run(box, "doubled", b"fine")
    return result.arrays[0].tobytes() == bytes(2 * value % 256 for value in b"fine")


async def test_a_task_gets_the_file_and_returns_values_and_arrays(box: ParserBox) -> None:
    result = await run(box, "doubled", bytes([1, 2, 3]), question="why")
    assert result.arrays[0].tolist() == [2, 4, 6]
    assert result.values["said"] == {"question": "why"}
    assert result.values["pid"] != os.getpid()
    assert not result.arrays[0].flags.writeable


async def test_a_task_may_seek_in_its_file(box: ParserBox) -> None:
    assert (await run(box, "read_by_pieces", b"xyz")).values["last"] == ord("z")


async def test_what_refers_to_itself_is_freed_before_the_next_file(box: ParserBox) -> None:
    for _ in range(4):
        await run(box, "leave_cycle", bytes=30 * MIB)  # of 64


async def test_a_workers_files_and_memory_are_given_back(box: ParserBox) -> None:
    await run(box, "doubled")
    pid = (await run(box, "doubled")).values["pid"]
    gc.collect()
    before = [len(os.listdir(f"/proc/{one}/fd")) for one in (pid, "self")]
    for _ in range(20):
        await run(box, "doubled")
        await refusal(box, "refuse")
    gc.collect()
    after = [len(os.listdir(f"/proc/{one}/fd")) for one in (pid, "self")]
    assert all(now <= then for now, then in zip(after, before, strict=True))


async def test_a_tasks_own_refusal_arrives_as_it_is(box: ParserBox) -> None:
    error = await refusal(box, "refuse")
    assert (error.reason, error.param) == (Reason.IMAGE_TOO_LARGE, "image")


async def test_an_array_that_its_task_keeps_is_not_handed_over(box: ParserBox) -> None:
    assert isinstance(await refusal(box, "keep"), InternalError)


async def test_a_task_that_fails_is_ours_and_says_nothing_to_the_client(
    box: ParserBox, caplog: pytest.LogCaptureFixture
) -> None:
    error = await refusal(box, "fail")
    assert isinstance(error, InternalError)
    assert "secret" not in error.message
    assert "secret words" in caplog.text


@pytest.mark.parametrize("task", ["segfault", "be_killed"])
async def test_a_file_that_ends_two_workers_is_refused_without_a_third(
    box: ParserBox, task: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    died = []
    replace = ParserBox._replace

    def count(self: ParserBox, worker: BoxProcess) -> None:
        died.append(worker)
        replace(self, worker)

    monkeypatch.setattr(ParserBox, "_replace", count)
    data = task.encode()
    for _ in range(3):
        error = await refusal(box, task, data)
        assert isinstance(error, InvalidRequest)
        assert (error.reason, error.param) == (Reason.INVALID_IMAGE, "messages[0]")
    assert len(died) == 2
    assert await works(box)


async def test_a_worker_that_dies_once_costs_a_retry(box: ParserBox, tmp_path: Path) -> None:
    for number in range(2):
        marker = str(tmp_path / str(number))
        assert (await run(box, "be_killed_once", b"innocent", marker=marker)).values["pid"]


async def test_refused_digests_are_a_bounded_number(
    box: ParserBox, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(box_module, "_MAX_REFUSED", 2)
    for number in range(4):
        with SharedFile(bytes([number])) as file:
            box._refuse(job("doubled", file), "cannot be decoded")
    assert (await run(box, "doubled", bytes([0]))).arrays[0].tolist() == [0]
    assert isinstance(await refusal(box, "doubled", bytes([3])), InvalidRequest)
    assert len(box._refused) == 2
    box._refused.clear()


async def test_computing_without_end_is_ended_and_refused(box: ParserBox) -> None:
    error = await refusal(box, "hang", b"bomb", limit_s=0.05)
    assert isinstance(error, InvalidRequest)
    assert "too long" in error.message
    assert await works(box)


async def test_waiting_without_end_is_ended_and_refused(
    box: ParserBox, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(box_module, "_WALL_FACTOR", 1.0)
    error = await refusal(box, "wait", b"sleeper", seconds=60, limit_s=0.1)
    assert isinstance(error, InvalidRequest)
    assert await works(box)


@pytest.mark.parametrize("task", ["hoard", "hoard_shared"])
async def test_a_job_beyond_the_memory_fails_alone(box: ParserBox, task: str) -> None:
    pid = (await run(box, "doubled")).values["pid"]
    assert isinstance(await refusal(box, task, bytes=65 * MIB), ServiceError)
    assert (await run(box, "doubled")).values["pid"] == pid


async def test_what_a_job_may_take_it_gets(box: ParserBox) -> None:
    await run(box, "hoard", bytes=60 * MIB)


@pytest.mark.parametrize(
    ("answer", "arrays"),
    [
        ("no JSON", 0),
        ([1, 2], 0),
        ({"values": {}, "arrays": [{"shape": [2], "dtype": "float32"}]}, 0),
        ({"values": {}, "arrays": [{"shape": [2], "dtype": "float32"}]}, 1),  # not sealed
        ({"values": {}, "arrays": [{"shape": [2], "dtype": "object"}]}, 1),
        ({"values": {}, "arrays": [{"shape": [-2], "dtype": "float32"}]}, 1),
        ({"values": {}, "arrays": 7}, 1),
    ],
)
async def test_a_worker_that_was_taken_over_cannot_lie_its_way_out(
    box: ParserBox, answer: Any, arrays: int
) -> None:
    error = await refusal(box, "say", b"hijack", answer=answer, arrays=arrays)
    assert isinstance(error, InvalidRequest)
    box._refused.clear()


@pytest.mark.parametrize("error", [{}, {"reason": "NO_SUCH", "message": 1}, "text"])
async def test_an_error_of_no_known_reason_is_internal(box: ParserBox, error: Any) -> None:
    answer = {"error": error, "arrays": []}
    assert isinstance(await refusal(box, "say", answer=answer, arrays=0), InternalError)
    box._replace(await box._take())  # that one still sleeps


async def test_a_worker_holds_neither_secrets_nor_big_libraries(box: ParserBox) -> None:
    known = (await run(box, "environment")).values
    assert "RAY_AUTH_TOKEN" not in known["names"]
    assert not known["torch"]
    assert not known["ray"]


async def test_everything_ends_when_the_replica_is_gone() -> None:
    lost = ParserBox(workers=1, memory_bytes=64 * MIB, modules=[tasks.__name__])
    pid = (await run(lost, "doubled")).values["pid"]
    nursery = lost._nursery._process
    lost._nursery._socket.close()
    for worker in lost._workers:
        worker._socket.close()
    assert nursery.wait(10) == 0
    await asyncio.to_thread(wait_until, lambda: start_time(pid) is None, what="its end")
    lost.close()


async def test_a_nursery_that_was_killed_is_started_again(box: ParserBox) -> None:
    box._nursery._process.kill()
    box._nursery._process.wait()
    assert await works(box)  # by the worker that is there
    box._replace(await box._take())
    assert await works(box)


async def test_the_nursery_forks_from_one_thread(box: ParserBox) -> None:
    assert len(os.listdir(f"/proc/{box._nursery._process.pid}/task")) == 1


async def test_a_box_whose_workers_cannot_start_says_that_it_is_our_fault() -> None:
    broken = ParserBox(workers=1, memory_bytes=64 * MIB, modules=["no.such.module"])
    try:
        assert isinstance(await refusal(broken, "doubled"), InternalError)
    finally:
        broken.close()


async def test_a_job_nobody_waits_for_is_ended_after_its_grace(
    box: ParserBox, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(box_module, "_GRACE_S", 0.05)
    pid = (await run(box, "doubled")).values["pid"]
    abandoned = asyncio.create_task(run(box, "wait", seconds=60))
    await asyncio.sleep(0.05)
    abandoned.cancel()
    began = time.monotonic()
    assert (await run(box, "doubled")).values["pid"] != pid
    assert time.monotonic() - began < 20


async def test_a_short_job_nobody_waits_for_keeps_its_worker(box: ParserBox) -> None:
    pid = (await run(box, "doubled")).values["pid"]
    abandoned = asyncio.create_task(run(box, "wait", seconds=0.1))
    await asyncio.sleep(0.02)
    abandoned.cancel()
    assert (await run(box, "doubled")).values["pid"] == pid


async def test_two_workers_parse_at_once() -> None:
    box = ParserBox(workers=2, memory_bytes=64 * MIB, modules=[tasks.__name__])
    try:
        pids = await asyncio.gather(*(run(box, "wait", seconds=0.3) for _ in range(2)))
    finally:
        box.close()
    assert len({result.values["pid"] for result in pids}) == 2


async def test_the_shared_file_names_its_bytes() -> None:
    with SharedFile(b"a") as one, SharedFile(b"a") as same, SharedFile(b"b") as other:
        assert one.digest == same.digest != other.digest
        with pytest.raises(PermissionError):
            os.pwrite(one.descriptor, b"x", 0)
        with pytest.raises(PermissionError):
            os.ftruncate(one.descriptor, 0)
