"""The real vision process, with real Ray, over gRPC."""

import io
import os
import re
import signal
import zlib
from collections.abc import Iterable, Iterator
from concurrent.futures import ThreadPoolExecutor
from typing import Any

import grpc
import numpy as np
import numpy.typing as npt
import psutil
import pytest
from PIL import Image

from protos.machine import processes
from protos.tandem.v1 import tensor_pb2, vision_pb2
from protos.wire import tensors
from protos.wire.errors import Reason
from tests.e2e.vision_process import VisionProcess, wait_for_end, wait_until_busy
from tests.support import bundles
from tests.support.oracle import oracle
from tests.support.waiting import wait_until

TOLERANCE = 1e-5  # of the largest value of a level


@pytest.fixture(scope="module")
def service(tmp_path_factory: pytest.TempPathFactory) -> Iterator[VisionProcess]:
    log = tmp_path_factory.mktemp("vision") / "stderr.log"
    flags = ("--replicas=2", "--threads=1", "--drain-timeout-s=20", "--tower=exact")
    with VisionProcess(bundles.bundle("tied"), log, *flags) as running:
        yield running


def drawn(height: int = 60, width: int = 90, seed: int = 0) -> Image.Image:
    pixels = np.random.default_rng(seed).integers(0, 256, (height, width, 3), dtype=np.uint8)
    return Image.fromarray(pixels)


def encoded(image: Image.Image, name: str, **options: Any) -> bytes:
    buffer = io.BytesIO()
    image.save(buffer, name, **options)
    return buffer.getvalue()


def expected(data: bytes) -> npt.NDArray[np.float32]:
    """What transformers makes of the same file."""
    reference = oracle(bundles.checkpoint("tied"))
    image = Image.open(io.BytesIO(data))
    inputs = reference.processor.image_processor(images=[image], return_tensors="np")
    features = reference.features(
        np.asarray(inputs["pixel_values"]), np.asarray(inputs["image_grid_thw"])
    )
    return np.stack([features.embeddings, *features.deepstack])


def assert_close(ours: npt.NDArray[np.float32], theirs: npt.NDArray[np.float32]) -> None:
    assert ours.shape == theirs.shape
    for mine, wanted in zip(ours, theirs, strict=True):
        assert np.abs(mine - wanted).max() <= TOLERANCE * np.abs(wanted).max()


TRANSPARENT = Image.fromarray(
    np.random.default_rng(5).integers(0, 256, (60, 90, 4), dtype=np.uint8)
)


@pytest.mark.parametrize(
    "data",
    [
        encoded(drawn(), "PNG"),
        encoded(drawn(), "JPEG", quality=85),
        encoded(drawn(), "WEBP"),
        encoded(drawn(), "GIF"),
        encoded(drawn(), "BMP"),
        encoded(TRANSPARENT, "PNG"),
        encoded(drawn(1, 200), "PNG"),
    ],
    ids=["png", "jpeg", "webp", "gif", "bmp", "alpha", "extreme"],
)
def test_a_image_gets_the_features_transformers_gives_it(
    service: VisionProcess, data: bytes
) -> None:
    answer = service.image(data)
    assert_close(answer.features, expected(data))
    assert answer.summary.preprocess_ms > 0
    assert answer.summary.encode_ms > 0
    assert answer.summary.queue_ms >= 0


LOOPBACK = ("127.0.0.1", "::ffff:127.0.0.1")


def listening(pids: Iterable[int]) -> list[tuple[str, int]]:
    """Addresses and ports that processes listen on."""
    return [
        (connection.laddr.ip, connection.laddr.port)
        for pid in pids
        for connection in psutil.Process(pid).net_connections(kind="inet")
        if connection.status == psutil.CONN_LISTEN
    ]


def test_no_port_but_the_replicas_is_open_beyond_this_machine(service: VisionProcess) -> None:
    wait_until(lambda: len(service.replicas()) == 2, what="both replicas", timeout_s=60)
    family = {service.process.pid, *processes.descendants(service.process.pid)}
    addresses = {ip for ip, _ in listening(family - set(service.replicas()))}
    assert addresses and addresses <= set(LOOPBACK)


def test_a_replica_reads_nothing_from_callers_without_rays_token(service: VisionProcess) -> None:
    # What comes in here is unpickled, so the token must be asked for before anything is read.
    open_ports = [port for ip, port in listening(service.replicas()) if ip not in LOOPBACK]
    for port in open_ports:
        with grpc.insecure_channel(f"127.0.0.1:{port}") as channel:
            call: Any = channel.unary_unary("/ray.serve.ASGIService/HandleRequest")
            with pytest.raises(grpc.RpcError) as caught:
                call(b"", timeout=10)
            assert caught.value.code() is grpc.StatusCode.UNAUTHENTICATED


def test_ray_starts_only_the_processes_the_replicas_need(service: VisionProcess) -> None:
    below = processes.descendants(service.process.pid)
    commands = [" ".join(psutil.Process(pid).cmdline()) for pid in below]
    # Watchers of the cluster and of log files, and the agents that report to them.
    needless = ("dashboard.py", "monitor.py", "Agent", "agent/main.py", "agent.py")
    assert not [command for command in commands for name in needless if name in command]


def test_many_images_at_once_each_get_their_own_features(service: VisionProcess) -> None:
    files = [encoded(drawn(40 + 30 * n, 200 - 20 * n, seed=n), "PNG") for n in range(8)]
    with ThreadPoolExecutor(16) as clients:
        answers = list(clients.map(service.image, files * 2))
    for data, first, second in zip(files, answers[:8], answers[8:], strict=True):
        wanted = expected(data)
        assert_close(first.features, wanted)
        assert_close(second.features, wanted)


def test_patches_give_the_features_of_their_image(service: VisionProcess) -> None:
    data = encoded(drawn(), "PNG")
    processor = oracle(bundles.checkpoint("tied")).processor.image_processor
    inputs = processor(images=[drawn()], return_tensors="np")
    t, h, w = (int(extent) for extent in inputs["image_grid_thw"][0])
    grid = tensor_pb2.GridTHW(t=t, h=h, w=w)
    pixels = tensors.to_proto(np.asarray(inputs["pixel_values"]))
    patches = vision_pb2.Patches(pixel_values=pixels, grid_thw=grid)
    answer = service.encode(vision_pb2.EncodeRequest(patches=patches, expected_grid_thw=grid))
    assert answer.grid == (t, h, w)
    assert_close(answer.features, expected(data))


def patches_of(t: int, h: int, w: int, pixels: npt.NDArray[Any]) -> vision_pb2.EncodeRequest:
    message = vision_pb2.Patches(
        pixel_values=tensors.to_proto(pixels), grid_thw=tensor_pb2.GridTHW(t=t, h=h, w=w)
    )
    return vision_pb2.EncodeRequest(patches=message)


def image_of(data: bytes, **fields: Any) -> vision_pb2.EncodeRequest:
    return vision_pb2.EncodeRequest(image=data, **fields)


def bomb() -> bytes:
    data = bytearray(encoded(drawn(), "PNG"))
    data[16:24] = (50_000).to_bytes(4, "big") * 2
    data[29:33] = zlib.crc32(bytes(data[12:29])).to_bytes(4, "big")
    return bytes(data)


ONES = np.ones((16, 1536), dtype=np.float32)
GOOD = encoded(drawn(), "PNG")
OTHER_GRID = tensor_pb2.GridTHW(t=1, h=14, w=22)

MALFORMED = {
    "nothing": (vision_pb2.EncodeRequest(), Reason.INVALID_PARAMETER, "source"),
    "empty": (image_of(b""), Reason.INVALID_IMAGE, "image"),
    "text": (image_of(b"hello"), Reason.UNSUPPORTED_MEDIA, "image"),
    "tiff": (image_of(encoded(drawn(), "TIFF")), Reason.UNSUPPORTED_MEDIA, "image"),
    "truncated": (image_of(GOOD[: len(GOOD) // 2]), Reason.INVALID_IMAGE, "image"),
    "bomb": (image_of(bomb()), Reason.IMAGE_TOO_LARGE, "image"),
    "too many bytes": (image_of(bytes(11 << 20)), Reason.IMAGE_TOO_LARGE, "image"),
    "thin": (image_of(encoded(drawn(1, 201), "PNG")), Reason.INVALID_IMAGE, "image"),
    "other grid": (
        image_of(GOOD, expected_grid_thw=OTHER_GRID),
        Reason.SHAPE_MISMATCH,
        "expected_grid_thw",
    ),
    "other bundle": (
        image_of(GOOD, bundle_digest="0" * 64),
        Reason.MODEL_MISMATCH,
        "bundle_digest",
    ),
    "rows": (patches_of(1, 4, 6, ONES), Reason.SHAPE_MISMATCH, "patches.pixel_values"),
    "width": (patches_of(1, 4, 4, ONES[:, :9]), Reason.SHAPE_MISMATCH, "patches.pixel_values"),
    "zero": (patches_of(1, 0, 4, ONES), Reason.SHAPE_MISMATCH, "patches.grid_thw.h"),
    "negative": (patches_of(1, 4, -4, ONES), Reason.SHAPE_MISMATCH, "patches.grid_thw.w"),
    "odd": (patches_of(1, 4, 5, ONES), Reason.SHAPE_MISMATCH, "patches.grid_thw.w"),
    "huge": (
        patches_of(1, 2**31 - 2, 2**31 - 2, ONES),
        Reason.IMAGE_TOO_LARGE,
        "patches.grid_thw",
    ),
    "video": (patches_of(2, 4, 4, ONES), Reason.SHAPE_MISMATCH, "patches.pixel_values"),
    "nan": (patches_of(1, 4, 4, ONES * np.nan), Reason.NON_FINITE, "patches.pixel_values"),
    "integers": (
        patches_of(1, 4, 4, ONES.astype(np.int32)),
        Reason.UNSUPPORTED_DTYPE,
        "patches.pixel_values",
    ),
}


@pytest.mark.parametrize("case", MALFORMED)
def test_a_malformed_request_is_refused_by_field_and_the_service_stays_up(
    service: VisionProcess, case: str
) -> None:
    request, reason, param = MALFORMED[case]
    replicas = sorted(service.replicas())
    error = service.refusal(request)
    assert (error.reason, error.param) == (reason, param)
    assert not re.search(r"0x|/|Traceback|BytesIO|127\.0", error.message)
    assert sorted(service.replicas()) == replicas
    assert service.image(GOOD).features.shape[0] == 4


def test_cancelled_calls_free_the_replicas_before_they_are_done(service: VisionProcess) -> None:
    large = image_of(encoded(Image.new("RGB", (1200, 1200), "teal"), "PNG"))
    before_s = service.computed_s()
    service.encode(large)
    alone_s = service.computed_s() - before_s
    calls = [service.stub.Encode(large) for _ in range(8)]  # four for each replica
    wait_until_busy(service.replicas(), what="a replica to encode")
    for call in calls:
        call.cancel()
    before_s = service.computed_s()
    service.image(GOOD)
    # Of both replicas together, whatever else the machine does meanwhile.
    assert service.computed_s() - before_s < 2 * alone_s


def test_a_replica_killed_while_it_encodes_costs_no_answer(service: VisionProcess) -> None:
    wait_until(lambda: len(service.replicas()) == 2, what="both replicas", timeout_s=60)
    data = encoded(drawn(900, 900), "BMP")
    alone = service.image(data).features
    with ThreadPoolExecutor(4) as clients:
        calls = [clients.submit(service.image, data) for _ in range(4)]
        victim = wait_until_busy(service.replicas(), what="a replica to encode")
        os.kill(victim, signal.SIGKILL)
        for call in calls:
            assert_close(call.result().features, alone)
    wait_until(
        lambda: len(set(service.replicas()) - {victim}) == 2, what="a new replica", timeout_s=60
    )
    assert_close(service.image(data).features, alone)


def test_sigterm_lets_running_calls_finish_and_leaves_no_process(service: VisionProcess) -> None:
    data = encoded(drawn(900, 900), "BMP")
    with ThreadPoolExecutor(1) as client:
        call = client.submit(service.image, data)
        wait_until_busy(service.replicas(), what="a replica to encode")
        service.signal(signal.SIGTERM)
        assert call.result().features.shape[0] == 4
    assert wait_for_end(service) == 0
    log = service.log.read_text()
    assert "Traceback" not in log
