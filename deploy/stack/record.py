"""What a stack that runs on this machine leaves for other commands: where its doors are.

Clients know a server by its HTTP URL, the commands here talk gRPC; nothing on the wire leads from
one port to the other.
"""

import json
import os
from collections.abc import Iterator, Mapping
from contextlib import contextmanager, suppress
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Self

from deploy.stack.paths import state_dir


@dataclass(frozen=True, slots=True, kw_only=True)
class Record:
    """One running stack.

    Attributes:
        pid: The launcher's process.
        http_port: Port of the OpenAI door.
        addresses: `host:port` of each gRPC server, by tier.
    """

    pid: int
    http_port: int
    addresses: Mapping[str, str]

    @classmethod
    def read(cls, path: Path) -> Self | None:
        """A record; None when it cannot be read or its launcher has ended."""
        try:
            record = cls(**json.loads(path.read_text(encoding="utf-8")))
            os.kill(record.pid, 0)
        except (OSError, ValueError, TypeError):
            return None
        return record


@contextmanager
def recorded(
    environ: Mapping[str, str], *, http_port: int, addresses: Mapping[str, str]
) -> Iterator[None]:
    """Keeps a record of a stack of this process while the block runs."""
    record = Record(pid=os.getpid(), http_port=http_port, addresses=dict(addresses))
    path = _folder(environ) / f"{http_port}.json"
    with suppress(OSError):  # a disk that cannot be written must not keep the model from serving
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_text(json.dumps(asdict(record)), encoding="utf-8")
    try:
        yield
    finally:
        with suppress(OSError):
            path.unlink()


def records(environ: Mapping[str, str]) -> list[Record]:
    """The stacks that run on this machine for this user."""
    found = (Record.read(path) for path in sorted(_folder(environ).glob("*.json")))
    return [record for record in found if record is not None]


def _folder(environ: Mapping[str, str]) -> Path:
    return state_dir(environ) / "stacks"
