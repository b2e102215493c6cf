"""A node that is told to leave: which, until when, and what is said where it cannot."""

import time
from types import SimpleNamespace
from typing import Any

import pytest
import ray
from ray.core.generated import gcs_pb2

from vision_service.cluster.drain import NotDrained, drain, wait_until_gone

NODE, HEAD = ray.NodeID.from_random(), ray.NodeID.from_random()
ALIVE, DEAD = gcs_pb2.GcsNodeInfo.ALIVE, gcs_pb2.GcsNodeInfo.DEAD


class Cluster:
    """What a head answers: a worker node and itself; after some looks the worker has left."""

    def __init__(self, *, looks: int = 1_000_000, refusal: str = "") -> None:
        self.drained: list[tuple[str, str, int]] = []
        self._looks, self._refusal = looks, refusal

    def get_all_node_info(self) -> dict[Any, Any]:
        self._looks -= 1
        state = ALIVE if self._looks >= 0 else DEAD
        return {
            NODE: SimpleNamespace(
                state=state, node_manager_address="192.0.2.2", is_head_node=False
            ),
            HEAD: SimpleNamespace(state=ALIVE, node_manager_address="192.0.2.1", is_head_node=True),
        }

    def drain_node(self, node_id: str, _: int, message: str, until_ms: int) -> tuple[bool, str]:
        self.drained.append((node_id, message, until_ms))
        return not self._refusal, self._refusal


def test_the_node_of_an_address_is_drained_and_its_replicas_get_time_to_be_replaced() -> None:
    cluster = Cluster()
    before_s = time.time()
    assert drain(cluster, "192.0.2.2", wait_s=60, encode_timeout_s=300) == NODE.hex()
    [(node_id, message, until_ms)] = cluster.drained
    # Serve ends replicas `encode_timeout_s` before the deadline: that is `wait_s` from now.
    assert (node_id, message) == (NODE.hex(), "tandem vision-drain")
    assert before_s + 360 <= until_ms / 1e3 + 1e-3 <= time.time() + 361


@pytest.mark.parametrize(
    ("address", "refusal", "said"),
    [
        ("192.0.2.3", "", "0 Ray nodes have the address 192.0.2.3, expected one"),
        ("192.0.2.1", "", "is the cluster's head"),
        ("192.0.2.2", "it is busy", "it is busy"),
    ],
)
def test_what_cannot_be_drained_is_said_in_one_line(address: str, refusal: str, said: str) -> None:
    with pytest.raises(NotDrained, match=said):
        drain(Cluster(refusal=refusal), address, wait_s=1, encode_timeout_s=1)


def test_a_node_is_waited_for_until_it_has_left_but_not_for_ever() -> None:
    paused: list[float] = []
    wait_until_gone(Cluster(looks=3), NODE.hex(), limit_s=10, pause=paused.append)
    assert len(paused) == 3
    moments = iter(range(0, 100, 4))
    with pytest.raises(NotDrained, match="after 10 s"):
        wait_until_gone(
            Cluster(), NODE.hex(), limit_s=10, clock=lambda: next(moments), pause=paused.append
        )
