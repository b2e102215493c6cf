"""Replicas that stop and die, in the real vision process with real Ray."""

import io
import os
import signal
import time
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import numpy as np
import pytest
from PIL import Image

from protos.tandem.v1 import vision_pb2
from protos.wire.errors import Reason, ServiceError
from tests.e2e.vision_process import VisionProcess
from tests.support import bundles
from tests.support.waiting import wait_until

FLAGS = ("--replicas=2", "--threads=1", "--tower=exact")


def image() -> bytes:
    pixels = np.random.default_rng(0).integers(0, 256, (120, 120, 3), dtype=np.uint8)
    buffer = io.BytesIO()
    Image.fromarray(pixels).save(buffer, "PNG")
    return buffer.getvalue()


@pytest.mark.timeout(180)
def test_a_stopped_replica_costs_no_answer_and_dead_ones_an_error_until_they_are_back(
    tmp_path: Path,
) -> None:
    data = image()
    with VisionProcess(bundles.bundle("tied"), tmp_path / "stderr.log", *FLAGS) as service:
        wait_until(lambda: len(service.replicas()) == 2, what="both replicas", timeout_s=60)
        first = service.replicas()
        features = service.image(data).features
        os.kill(first[0], signal.SIGSTOP)
        with ThreadPoolExecutor(6) as clients:
            for answer in clients.map(service.image, [data] * 6):
                assert np.array_equal(answer.features, features)
        for pid in first:
            os.kill(pid, signal.SIGKILL)
        started_s = time.monotonic()
        refusal = service.refusal(vision_pb2.EncodeRequest(image=data))
        waited_s = time.monotonic() - started_s
        assert refusal.reason is Reason.VISION_UNAVAILABLE
        assert refusal.retry_after_s is not None and refusal.retry_after_s >= 1
        assert waited_s < 5  # one on a quiet machine; a call's own limit is sixty
        wait_until(
            lambda: len(set(service.replicas()) - set(first)) == 2,
            what="new replicas",
            timeout_s=60,
        )
        wait_until(lambda: _answers(service, data), what="an answer", timeout_s=60)


def _answers(service: VisionProcess, data: bytes) -> bool:
    try:
        service.image(data)
    except ServiceError:
        return False
    return True
