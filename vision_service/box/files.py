"""Files of one kind, parsed in a box that is there once the first of them comes."""

import asyncio
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

from protos.wire.errors import InvalidRequest, Reason
from vision_service.box.box import Job, ParserBox, Result
from vision_service.box.memory import SharedFile


@dataclass(frozen=True, slots=True, kw_only=True)
class FileKind:
    """What parsing a kind of file takes.

    Attributes:
        field: The file's name in errors.
        reason: Of the error when a file ends its workers.
        max_bytes: Largest file.
        too_large: The error of a larger one; from its bytes.
        workers: Files parsed at once.
        memory_bytes: What each worker may reserve beyond its libraries.
        modules: What each imports before it takes jobs.
        limit_s: Processor seconds that one job may take.
    """

    field: str
    reason: Reason
    max_bytes: int
    too_large: Callable[[int], InvalidRequest]
    workers: int
    memory_bytes: int
    modules: Sequence[str]
    limit_s: float


class BoxedFiles:
    """Parses files of a kind, which subclasses say; `close` it at the end.

    Most tiers never see a video or a PDF.
    """

    def __init__(self, kind: FileKind) -> None:
        self._kind = kind
        self._box: ParserBox | None = None

    def close(self) -> None:
        """Ends the workers; jobs that they are at fail."""
        if self._box is not None:
            self._box.close()

    async def run(self, task: str, data: bytes, arguments: Mapping[str, Any]) -> Result:
        """Does a task with a file; see `ParserBox.run`.

        Args:
            task: "module:function".
            data: The file.
            arguments: For the task; JSON.

        Raises:
            InvalidRequest: the file is larger than it may be, or ends its workers.
            ServiceError: the task's own.
        """
        kind = self._kind
        if len(data) > kind.max_bytes:
            raise kind.too_large(len(data))
        if self._box is None:
            self._box = ParserBox(
                workers=kind.workers, memory_bytes=kind.memory_bytes, modules=kind.modules
            )
        with await asyncio.to_thread(SharedFile, data) as file:
            job = Job(
                task=task,
                file=file,
                arguments=arguments,
                limit_s=kind.limit_s,
                field=kind.field,
                reason=kind.reason,
            )
            return await self._box.run(job)
