"""Hosts on one machine: namespaces whose networks hang on one bridge, and the cables between.

with Network(folder) as network:
    decoder = network.host("decoder-1")
    decoder.space.popen(["ip", "address"], log=None)
    with decoder.cable.cut():
        ...
"""

import ipaddress
import sys
from collections.abc import Iterator
from contextlib import ExitStack, contextmanager, suppress
from pathlib import Path
from typing import Self

from tests.chaos.spaces import NoSpaces, Space

SUBNET = ipaddress.ip_network("10.77.0.0/24")
BRIDGE = "bridge0"
FIRST_HOST = 11
MOST_NAME_CHARS = 13  # a device's name has at most 15, and a bad cable has two letters more
SEED = 7


class Cable:
    """What connects a host with the bridge.

    Args:
        middle: The space the bridge is in.
        device: The bridge's end.
    """

    def __init__(self, middle: Space, device: str) -> None:
        self._middle, self._device = middle, device

    @contextmanager
    def cut(self) -> Iterator[None]:
        """No frame gets through while it is entered."""
        self._set("down")
        try:
            yield
        finally:
            self._set("up")

    @contextmanager
    def bad(self, *, delay_s: float = 0.0, loss: float = 0.0) -> Iterator[None]:
        """Every frame is late, or some are lost, in both directions, while it is entered.

        Args:
            delay_s: What each waits, seconds.
            loss: Share that is lost.
        """
        near, far = f"{self._device}-n", f"{self._device}-f"
        run = self._middle.run
        run("ip", "link", "add", near, "type", "veth", "peer", "name", far)
        for device in (near, far):
            run("ip", "link", "set", device, "up")
        relay = self._middle.popen(
            _relay(self._device, near, delay_s, loss), None, network_only=True
        )
        try:
            assert relay.stdout is not None
            relay.stdout.readline()
            self._set("nomaster")
            run("ip", "link", "set", far, "master", BRIDGE)
            yield
        finally:
            relay.communicate()
            run("ip", "link", "delete", near)
            with suppress(NoSpaces):  # its host may have died meanwhile
                self._set("master", BRIDGE)

    def _set(self, *what: str) -> None:
        self._middle.run("ip", "link", "set", self._device, *what)


def _relay(one: str, other: str, delay_s: float, loss: float) -> list[str]:
    program = [sys.executable, "-m", "tests.chaos.relay"]
    return [*program, one, other, str(delay_s), str(loss), str(SEED)]


class Host:
    """A machine with one address.

    Args:
        name: At most 13 characters.
        address: IPv4.
        folder: Takes what it writes.
        middle: The space the bridge is in.

    Attributes:
        cable: To the bridge.
        space: What runs in it; another one after a crash.
    """

    def __init__(self, name: str, address: str, folder: Path, middle: Space) -> None:
        if len(name) > MOST_NAME_CHARS:
            raise ValueError(f"the name {name} is longer than {MOST_NAME_CHARS} characters")
        self.name, self.address, self.folder = name, address, folder
        self.cable = Cable(middle, name)
        self._middle = middle
        self.space = self._boot()

    def crash(self) -> None:
        """Kills every process at once and takes the host off the network."""
        self.space.kill()
        with suppress(NoSpaces):  # usually gone already, but not always at once
            self._middle.run("ip", "link", "delete", self.name)

    def boot(self) -> None:
        """Comes back after a crash, empty."""
        self.space = self._boot()

    def _boot(self) -> Space:
        space = Space(self.name, self.folder, around=self._middle)
        add = ["ip", "link", "add", self.name, "type", "veth", "peer", "eth0"]
        self._middle.run(*add, "netns", str(space.first))
        self._middle.run("ip", "link", "set", self.name, "master", BRIDGE, "up")
        last = int(self.address.rpartition(".")[2])
        # The same after a crash, or the others would look for it in vain until they ask again.
        space.run("ip", "link", "set", "eth0", "address", f"02:00:00:00:00:{last:02x}")
        space.run("ip", "address", "add", f"{self.address}/{SUBNET.prefixlen}", "dev", "eth0")
        space.run("ip", "link", "set", "eth0", "up")
        # Nobody is there, but programs look which address of theirs leads out.
        space.run("ip", "route", "add", "default", "via", str(SUBNET[1]))
        return space


class Network:
    """A bridge and its hosts; use as a context manager.

    Args:
        folder: Takes what the hosts write.

    Raises:
        NoSpaces: this machine does not allow it.
    """

    def __init__(self, folder: Path) -> None:
        self._folder = folder
        self._hosts: list[Host] = []
        self._ending = ExitStack()

    def __enter__(self) -> Self:
        self._middle = Space("middle", self._made("middle"))
        self._ending.callback(self._middle.close)
        self._middle.run("ip", "link", "add", BRIDGE, "type", "bridge")
        self._middle.run("ip", "link", "set", BRIDGE, "up")
        return self

    def __exit__(self, *_: object) -> None:
        self._ending.close()

    def host(self, name: str) -> Host:
        """A new host on the bridge."""
        address = str(SUBNET[FIRST_HOST + len(self._hosts)])
        host = Host(name, address, self._made(name), self._middle)
        self._hosts.append(host)
        self._ending.callback(lambda: host.space.close())
        return host

    def _made(self, name: str) -> Path:
        folder = self._folder / name
        folder.mkdir()
        return folder
