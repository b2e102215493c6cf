"""Tasks as parsers in the worst case are: they crash, hang, hoard and lie."""

import ctypes
import json
import os
import signal
import socket
import sys
import time
from typing import Any

import numpy as np

from protos.wire.errors import InvalidRequest, Reason
from vision_service.box.memory import ArrayMemory
from vision_service.box.task import Given

kept: list[Any] = []


def doubled(given: Given) -> dict[str, Any]:
    """The file's bytes times two, as an array."""
    data = np.frombuffer(given.data(), np.uint8)
    given.new_array(data.shape, "uint8")[:] = data * 2
    return {"pid": os.getpid(), "size": len(data), "said": given.arguments}


def read_by_pieces(given: Given) -> dict[str, Any]:
    """The file's last byte, found by seeking."""
    with given.open() as file:
        file.seek(-1, os.SEEK_END)
        return {"last": file.read()[0]}


def refuse(given: Given) -> dict[str, Any]:
    """What a task does with a bad file."""
    raise InvalidRequest("image is blue", reason=Reason.IMAGE_TOO_LARGE, param="image")


def fail(given: Given) -> dict[str, Any]:
    """What a task of ours does when it is wrong."""
    raise ValueError("secret words")


def segfault(given: Given) -> dict[str, Any]:
    """What a parser in C may do."""
    ctypes.string_at(0)
    return {}


def be_killed(given: Given) -> dict[str, Any]:
    """What the kernel does when memory is out."""
    os.kill(os.getpid(), signal.SIGKILL)
    return {}


def be_killed_once(given: Given) -> dict[str, Any]:
    """Killed where the file named in the arguments is not there yet."""
    marker = given.arguments["marker"]
    if not os.path.exists(marker):
        open(marker, "w").close()
        os.kill(os.getpid(), signal.SIGKILL)
    return {"pid": os.getpid()}


def hang(given: Given) -> dict[str, Any]:
    """Computes for ever."""
    while True:
        pass


def wait(given: Given) -> dict[str, Any]:
    """Sleeps."""
    time.sleep(given.arguments["seconds"])
    return {"pid": os.getpid()}


def hoard(given: Given) -> dict[str, Any]:
    """Takes more memory than it may."""
    np.ones(given.arguments["bytes"], np.uint8)
    return {}


def leave_cycle(given: Given) -> dict[str, Any]:
    """Leaves memory that nothing but the garbage collector frees."""
    cycle: dict[str, Any] = {"pixels": np.ones(given.arguments["bytes"], np.uint8)}
    cycle["self"] = cycle
    return {"pid": os.getpid()}


def hoard_shared(given: Given) -> dict[str, Any]:
    """Takes more memory than it may, in a file."""
    os.ftruncate(os.memfd_create("much"), given.arguments["bytes"])
    return {}


def keep(given: Given) -> dict[str, Any]:
    """Keeps an array, which could be changed behind the replica's back."""
    kept.append(given.new_array((2,), "int64"))
    return {}


def say(given: Given) -> dict[str, Any]:
    """Answers what no worker of ours would, with memory that could still be changed."""
    links = {
        name: os.readlink(f"/proc/self/fd/{name}") for name in os.listdir("/proc/self/fd")[:-1]
    }
    (own,) = (name for name, target in links.items() if target.startswith("socket:"))
    connection = socket.socket(fileno=int(own))
    memory = ArrayMemory((2,), "float32")
    answer = given.arguments["answer"]
    data = answer.encode() if isinstance(answer, str) else json.dumps(answer).encode()
    socket.send_fds(connection, [data], [memory.descriptor] * given.arguments["arrays"])
    time.sleep(60)
    return {}


def environment(given: Given) -> dict[str, Any]:
    """What the worker knows."""
    return {"names": list(os.environ), "torch": "torch" in sys.modules, "ray": "ray" in sys.modules}
