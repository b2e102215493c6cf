"""The Open Inference Protocol beside our own: the same features, and errors that name a field."""

from collections.abc import AsyncIterator
from typing import Any

import grpc
import numpy as np
import pytest

from protos.process.server import GrpcServer
from protos.tandem.v1 import open_inference_pb2, open_inference_pb2_grpc
from protos.wire.channels import LARGE_MESSAGE_BYTES, channel_options
from protos.wire.errors import Overloaded, Reason, ServiceError, from_rpc_error
from tests.unit.vision_service.fakes import FakeEncoders, FakePdfs, FakeVideos
from tests.unit.vision_service.test_servicer import BUNDLE, WIDTH
from vision_service.jobs import EncodedImage, Patches
from vision_service.open_inference import OpenInferenceServicer
from vision_service.servicer import VisionServicer

Request = open_inference_pb2.ModelInferRequest
Parameter = open_inference_pb2.InferParameter
PIXELS = np.arange(24 * WIDTH, dtype=np.float32).reshape(24, WIDTH)
GRID = np.array([[1, 4, 6]], dtype=np.int64)


class Running:
    """A served servicer, its fake encoders and a stub."""

    def __init__(self, servicer: VisionServicer, encoders: FakeEncoders, stub: Any) -> None:
        self.servicer = servicer
        self.encoders = encoders
        self.stub = stub

    async def refusal(self, request: Request) -> ServiceError:
        with pytest.raises(grpc.RpcError) as caught:
            await self.stub.ModelInfer(request)
        return from_rpc_error(caught.value)


@pytest.fixture
async def running() -> AsyncIterator[Running]:
    servicer = VisionServicer(
        BUNDLE,
        FakeVideos(),
        FakePdfs(),
        max_patches=1000,
        max_bytes=9999,
        max_pixels=80_000,
        max_video_bytes=99_999,
        max_video_seconds=60.0,
        max_pdf_bytes=88_888,
        encode_timeout_s=10.0,
        form="int8",  # of our own protocol; this one has but float32
    )
    encoders = servicer.encoders = FakeEncoders(levels=1 + BUNDLE.manifest.deepstack_level_count)
    server = GrpcServer(
        host="127.0.0.1", port=0, max_receive_bytes=LARGE_MESSAGE_BYTES, drain_timeout_s=0
    )
    open_inference_pb2_grpc.add_GRPCInferenceServiceServicer_to_server(
        OpenInferenceServicer(BUNDLE, servicer), server.server
    )
    async with server:
        target, options = f"127.0.0.1:{server.port}", channel_options(LARGE_MESSAGE_BYTES)
        async with grpc.aio.insecure_channel(target, options=options) as channel:
            stub = open_inference_pb2_grpc.GRPCInferenceServiceStub(channel)
            yield Running(servicer, encoders, stub)


def given(name: str, datatype: str, shape: Any, **contents: Any) -> Any:
    tensor = Request.InferInputTensor(name=name, datatype=datatype, shape=shape)
    if contents:
        tensor.contents.CopyFrom(open_inference_pb2.InferTensorContents(**contents))
    return tensor


def infer(inputs: list[Any], raw: list[bytes] | None = None, **changes: Any) -> Request:
    fields: dict[str, Any] = {"model_name": "tiny", "id": "one", "inputs": inputs}
    return Request(**{**fields, "raw_input_contents": raw or [], **changes})


def of_image(data: bytes = b"a file", **changes: Any) -> Request:
    raw = len(data).to_bytes(4, "little") + data
    return infer([given("image", "BYTES", [1])], [raw], **changes)


def of_patches(*, is_raw: bool = True) -> Request:
    if is_raw:
        tensors = [
            given("grid_thw", "INT64", GRID.shape),
            given("pixel_values", "FP32", PIXELS.shape),
        ]
        return infer(tensors, [GRID.tobytes(), PIXELS.tobytes()])
    return infer(
        [
            given("pixel_values", "FP32", PIXELS.shape, fp32_contents=PIXELS.ravel()),
            given("grid_thw", "INT64", [3], int64_contents=GRID.ravel()),
        ]
    )


def outputs(answer: open_inference_pb2.ModelInferResponse) -> dict[str, Any]:
    dtypes = {"FP32": "<f4", "INT64": "<i8"}
    return {
        output.name: np.frombuffer(data, dtypes[output.datatype]).reshape(output.shape)
        for output, data in zip(answer.outputs, answer.raw_output_contents, strict=True)
    }


async def test_an_image_becomes_every_level(running: Running) -> None:
    answer = await running.stub.ModelInfer(of_image())
    (job,) = running.encoders.jobs
    assert job.source == EncodedImage(data=b"a file")
    assert (answer.id, answer.model_name, answer.model_version) == ("one", "tiny", "1")
    assert answer.parameters["encode_ms"].double_param == 3.0
    found = outputs(answer)
    levels = BUNDLE.manifest.deepstack_level_count
    assert set(found) == {"embeddings", "grid_thw", *(f"deepstack_{at}" for at in range(levels))}
    np.testing.assert_array_equal(found["grid_thw"], GRID)
    rows = np.broadcast_to(np.arange(6, dtype=np.float32)[:, None], (6, 8))
    np.testing.assert_array_equal(found["embeddings"], rows)
    np.testing.assert_array_equal(found["deepstack_0"], rows + np.float32(1e6))


@pytest.mark.parametrize("is_raw", [True, False], ids=["raw", "contents"])
async def test_patches_arrive_as_they_were_sent(running: Running, is_raw: bool) -> None:
    await running.stub.ModelInfer(of_patches(is_raw=is_raw))
    (job,) = running.encoders.jobs
    assert isinstance(job.source, Patches)
    np.testing.assert_array_equal(job.source.pixel_values, PIXELS)
    assert list(job.source.grid) == [1, 4, 6]


async def test_areas_are_parameters_and_outputs_are_chosen(running: Running) -> None:
    areas = {"min_pixels": Parameter(int64_param=64), "max_pixels": Parameter(int64_param=4096)}
    wanted = [
        Request.InferRequestedOutputTensor(name="grid_thw"),
        Request.InferRequestedOutputTensor(name="embeddings"),
    ]
    answer = await running.stub.ModelInfer(of_image(parameters=areas, outputs=wanted))
    assert [output.name for output in answer.outputs] == ["grid_thw", "embeddings"]
    (job,) = running.encoders.jobs
    assert isinstance(job.source, EncodedImage)
    assert job.source.areas == (64, 4096)


BAD = {
    "no inputs": infer([]),
    "an unknown input": infer([given("pixels", "FP32", [1])], [b"1234"]),
    "another type": infer([given("image", "UINT8", [1])], [b"1"]),
    "both kinds": infer(
        [*of_patches().inputs, given("image", "BYTES", [1])],
        [*of_patches().raw_input_contents, b"\1\0\0\0a"],
    ),
    "an input twice": infer([given("image", "BYTES", [1])] * 2, [b"\1\0\0\0a"] * 2),
    "fewer values than inputs": infer(list(of_patches().inputs), [GRID.tobytes()]),
    "a length that lies": infer([given("image", "BYTES", [1])], [b"\xff\0\0\0a"]),
    "no bytes at all": infer([given("image", "BYTES", [1])], [b""]),
    "two images": infer([given("image", "BYTES", [2], bytes_contents=[b"a", b"b"])]),
    "a shape beyond its values": infer(
        [given("grid_thw", "INT64", [1, 3]), given("pixel_values", "FP32", [25, WIDTH])],
        [GRID.tobytes(), PIXELS.tobytes()],
    ),
    "a grid of other rank": infer(
        [given("grid_thw", "INT64", [3, 1]), given("pixel_values", "FP32", PIXELS.shape)],
        [GRID.tobytes(), PIXELS.tobytes()],
    ),
    "a grid beyond its type": infer(
        [given("grid_thw", "INT64", [1, 3]), given("pixel_values", "FP32", PIXELS.shape)],
        [np.array([[1, 4, 2**40]]).tobytes(), PIXELS.tobytes()],
    ),
    "a negative shape": infer(
        [given("grid_thw", "INT64", [1, 3]), given("pixel_values", "FP32", [-1, -1])],
        [GRID.tobytes(), PIXELS.tobytes()],
    ),
    "an unknown output": of_image(outputs=[Request.InferRequestedOutputTensor(name="logits")]),
    "half of the areas": of_image(parameters={"min_pixels": Parameter(int64_param=1)}),
}


@pytest.mark.parametrize("fault", BAD)
async def test_a_bad_request_is_refused_by_name(running: Running, fault: str) -> None:
    error = await running.refusal(BAD[fault])
    assert error.reason in (Reason.INVALID_PARAMETER, Reason.SHAPE_MISMATCH), error
    assert error.param
    assert not running.encoders.jobs


async def test_another_model_is_not_found(running: Running) -> None:
    for wrong in (of_image(model_name="other"), of_image(model_version="7")):
        assert (await running.refusal(wrong)).reason is Reason.MODEL_NOT_FOUND


async def test_an_answer_beyond_one_message_says_what_to_do(running: Running) -> None:
    running.encoders.features = np.zeros((3, 1400, 4096), np.float32)
    error = await running.refusal(of_image())
    assert error.reason is Reason.IMAGE_TOO_LARGE
    assert "max_pixels" in error.message


async def test_errors_of_the_encoders_are_the_services(running: Running) -> None:
    running.encoders.error = Overloaded("9 requests already wait", retry_after_s=1.0)
    assert (await running.refusal(of_image())).reason is Reason.QUEUE_FULL


async def test_readiness_follows_the_encoders(running: Running) -> None:
    ready = open_inference_pb2.ModelReadyRequest(name="tiny")
    live = open_inference_pb2.ServerLiveRequest()
    assert (await running.stub.ModelReady(ready)).ready
    running.servicer.encoders = None
    assert not (await running.stub.ModelReady(ready)).ready
    assert not (await running.stub.ServerReady(open_inference_pb2.ServerReadyRequest())).ready
    assert (await running.stub.ServerLive(live)).live


async def test_metadata_tell_what_goes_in_and_out(running: Running) -> None:
    about = open_inference_pb2.ModelMetadataRequest(name="tiny", version="1")
    found = await running.stub.ModelMetadata(about)
    shapes = {tensor.name: list(tensor.shape) for tensor in (*found.inputs, *found.outputs)}
    assert shapes["pixel_values"] == [-1, WIDTH]
    assert shapes["embeddings"] == shapes["deepstack_0"] == [-1, 8]
    assert found.properties["bundle_digest"] == BUNDLE.digest
    server = await running.stub.ServerMetadata(open_inference_pb2.ServerMetadataRequest())
    assert (server.name, bool(server.version)) == ("tandem", True)
