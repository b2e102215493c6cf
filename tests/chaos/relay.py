"""A bad cable: `python -m tests.chaos.relay ONE OTHER DELAY_S LOSS SEED`.

Carries the frames that arrive at one network device to the other, later, and loses some. It does
what `tc qdisc add netem delay loss` does, which not every kernel has. Frames cross as the kernel
hands them over, unsegmented and with unfinished checksums, with the header that says so.

Prints `ready`; ends with its standard input.
"""

import heapq
import random
import selectors
import socket
import sys
import time

_ALL_PROTOCOLS = 3  # ETH_P_ALL
_SOL_PACKET, _PACKET_VNET_HDR = 263, 15  # linux/socket.h, linux/if_packet.h
_LARGEST = 1 << 17  # an unsegmented frame has at most 64 KiB, and headers
_BUFFER = 1 << 24


def opened(device: str) -> socket.socket:
    """A socket that sees every frame of a device and sends as if from the wire."""
    end = socket.socket(socket.AF_PACKET, socket.SOCK_RAW, socket.htons(_ALL_PROTOCOLS))
    end.setsockopt(_SOL_PACKET, _PACKET_VNET_HDR, 1)
    end.setsockopt(socket.SOL_SOCKET, socket.SO_RCVBUF, _BUFFER)
    end.bind((device, 0))
    end.setblocking(False)
    return end


class Relay:
    """Both directions of the cable.

    Args:
        one: An end.
        other: The other end.
        delay_s: What every frame waits, seconds.
        loss: Share of the frames that are lost.
        seed: Which ones.
    """

    def __init__(
        self, one: socket.socket, other: socket.socket, *, delay_s: float, loss: float, seed: int
    ) -> None:
        self._across = {one: other, other: one}
        self._delay_s, self._loss = delay_s, loss
        self._chance = random.Random(seed)
        self._waiting: list[tuple[float, int, socket.socket, bytes]] = []
        self._count = 0

    def run(self) -> None:
        """Relays until standard input ends."""
        with selectors.DefaultSelector() as selector:
            for end in self._across:
                selector.register(end, selectors.EVENT_READ)
            selector.register(sys.stdin, selectors.EVENT_READ)
            while True:
                for key, _ in selector.select(self._next_s()):
                    if not isinstance(key.fileobj, socket.socket):
                        return
                    self._take(key.fileobj)
                self._send_due()

    def _next_s(self) -> float | None:
        return max(0.0, self._waiting[0][0] - time.monotonic()) if self._waiting else None

    def _take(self, end: socket.socket) -> None:
        while True:
            try:
                frame, origin = end.recvfrom(_LARGEST)
            except BlockingIOError:
                return
            if origin[2] != socket.PACKET_OUTGOING and self._chance.random() >= self._loss:
                self._count += 1  # keeps the order of frames of one moment
                due = time.monotonic() + self._delay_s
                heapq.heappush(self._waiting, (due, self._count, self._across[end], frame))

    def _send_due(self) -> None:
        while self._waiting and self._waiting[0][0] <= time.monotonic():
            _, _, end, frame = heapq.heappop(self._waiting)
            try:
                end.send(frame)
            except OSError:  # no room, or the device is down: lost, as on any cable
                continue


def main() -> None:
    """Relays until standard input ends."""
    one, other, delay_s, loss, seed = sys.argv[1:]
    relay = Relay(
        opened(one), opened(other), delay_s=float(delay_s), loss=float(loss), seed=int(seed)
    )
    sys.stdout.write("ready\n")
    sys.stdout.flush()
    relay.run()


if __name__ == "__main__":
    main()
