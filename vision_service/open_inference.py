"""The Open Inference Protocol at the vision port: one image in, all its features in one answer.

A thin form of `VisionServicer`, which checks and encodes; see open_inference.proto.
"""

from collections.abc import Iterator, Mapping, Sequence
from importlib import metadata
from typing import Any

import grpc
import numpy as np

from protos.bundle.manifest import Bundle
from protos.tandem.v1 import open_inference_pb2, open_inference_pb2_grpc, tensor_pb2, vision_pb2
from protos.wire.channels import LARGE_MESSAGE_BYTES, MIB
from protos.wire.errors import InvalidRequest, ModelNotFound, Reason, reporting_errors
from vision_service.jobs import Encoded
from vision_service.servicer import VisionServicer

SERVICE = open_inference_pb2.DESCRIPTOR.services_by_name["GRPCInferenceService"].full_name

VERSION = "1"
_PACKAGE = "tandem-vlm"
_IMAGE, _PIXELS, _GRID, _EMBEDDINGS = "image", "pixel_values", "grid_thw", "embeddings"
_DATATYPES = {_IMAGE: "BYTES", _PIXELS: "FP32", _GRID: "INT64"}
_LENGTH_BYTES = 4  # before each element of BYTES
_LARGEST_ANSWER = LARGE_MESSAGE_BYTES - MIB  # what is beside the features takes less

Context = grpc.aio.ServicerContext[Any, Any]
_Request = open_inference_pb2.ModelInferRequest
_Input = open_inference_pb2.ModelInferRequest.InferInputTensor


class OpenInferenceServicer(open_inference_pb2_grpc.GRPCInferenceServiceServicer):
    """GRPCInferenceService for the bundle's tower.

    Args:
        bundle: What this tier serves.
        vision: Encodes.
    """

    def __init__(self, bundle: Bundle, vision: VisionServicer) -> None:
        self._bundle = bundle
        self._vision = vision

    async def ServerLive(
        self, request: open_inference_pb2.ServerLiveRequest, context: Context
    ) -> open_inference_pb2.ServerLiveResponse:
        """See open_inference.proto."""
        return open_inference_pb2.ServerLiveResponse(live=True)

    async def ServerReady(
        self, request: open_inference_pb2.ServerReadyRequest, context: Context
    ) -> open_inference_pb2.ServerReadyResponse:
        """See open_inference.proto."""
        return open_inference_pb2.ServerReadyResponse(ready=self._is_ready)

    async def ModelReady(
        self, request: open_inference_pb2.ModelReadyRequest, context: Context
    ) -> open_inference_pb2.ModelReadyResponse:
        """See open_inference.proto."""
        async with reporting_errors(context):
            self._check_model(request.name, request.version, "name")
            return open_inference_pb2.ModelReadyResponse(ready=self._is_ready)

    async def ServerMetadata(
        self, request: open_inference_pb2.ServerMetadataRequest, context: Context
    ) -> open_inference_pb2.ServerMetadataResponse:
        """See open_inference.proto."""
        version = metadata.version(_PACKAGE)
        return open_inference_pb2.ServerMetadataResponse(name="tandem", version=version)

    async def ModelMetadata(
        self, request: open_inference_pb2.ModelMetadataRequest, context: Context
    ) -> open_inference_pb2.ModelMetadataResponse:
        """See open_inference.proto."""
        async with reporting_errors(context):
            self._check_model(request.name, request.version, "name")
            return self._model_metadata()

    async def ModelInfer(
        self, request: open_inference_pb2.ModelInferRequest, context: Context
    ) -> open_inference_pb2.ModelInferResponse:
        """See open_inference.proto."""
        async with reporting_errors(context):
            self._check_model(request.model_name, request.model_version, "model_name")
            wanted = self._wanted(request)
            async with self._vision.encoding(encode_request(request), context) as encoded:
                return _response(request, encoded, wanted, name=self._name)

    @property
    def _name(self) -> str:
        return self._bundle.manifest.model_id

    @property
    def _is_ready(self) -> bool:
        return self._vision.encoders is not None

    @property
    def _outputs(self) -> tuple[str, ...]:
        levels = self._bundle.manifest.deepstack_level_count
        return (_EMBEDDINGS, *(f"deepstack_{level}" for level in range(levels)), _GRID)

    def _check_model(self, name: str, version: str, field: str) -> None:
        if name != self._name:
            raise ModelNotFound(f"{field} is none served here, expected {self._name}", param=field)
        if version not in ("", VERSION):
            raise ModelNotFound(f"the model's version is {VERSION}", param=field)

    def _wanted(self, request: _Request) -> tuple[str, ...]:
        """Names of outputs to answer with.

        Raises:
            InvalidRequest: one is unknown, or named twice.
        """
        names = tuple(output.name for output in request.outputs) or self._outputs
        if len(set(names)) < len(names) or not set(names).issubset(self._outputs):
            raise InvalidRequest(
                f"outputs are not among {', '.join(self._outputs)}, each at most once",
                param="outputs",
            )
        return names

    def _model_metadata(self) -> open_inference_pb2.ModelMetadataResponse:
        manifest = self._bundle.manifest
        vision = manifest.vision
        width = vision.in_channels * vision.temporal_patch_size * vision.patch_size**2
        rows = dict.fromkeys(self._outputs, (-1, manifest.text.hidden_size))
        tensor = open_inference_pb2.ModelMetadataResponse.TensorMetadata
        inputs = {_IMAGE: (1,), _PIXELS: (-1, width), _GRID: (1, 3)}
        outputs = rows | {_GRID: (1, 3)}
        return open_inference_pb2.ModelMetadataResponse(
            name=self._name,
            versions=[VERSION],
            platform="tandem_vision",
            inputs=[
                tensor(name=name, datatype=_DATATYPES[name], shape=shape)
                for name, shape in inputs.items()
            ],
            outputs=[
                tensor(name=name, datatype=_DATATYPES.get(name, "FP32"), shape=shape)
                for name, shape in outputs.items()
            ],
            properties={"bundle_digest": self._bundle.digest, "family": manifest.family},
        )


def encode_request(request: _Request) -> vision_pb2.EncodeRequest:
    """The same request in our own protocol; what its values mean is checked there.

    Raises:
        InvalidRequest: inputs of other names, types, shapes or sizes than stated.
    """
    given = {tensor.name: (tensor, data) for tensor, data in _inputs(request)}
    if set(given) not in ({_IMAGE}, {_PIXELS, _GRID}) or len(given) < len(request.inputs):
        raise InvalidRequest(
            "inputs must be image, or pixel_values and grid_thw, each once", param="inputs"
        )
    if _IMAGE in given:
        return _of_image(request, *given[_IMAGE])
    _check_shape(given[_GRID][0], [[1, 3], [3]])
    pixels, data = given[_PIXELS]
    t, h, w = (int(extent) for extent in np.frombuffer(given[_GRID][1], "<i8"))
    if max(t, h, w) >= 2**31 or min(t, h, w) < 0:
        raise InvalidRequest("grid_thw is out of range", param=_GRID)
    values = tensor_pb2.Tensor(dtype=tensor_pb2.DTYPE_FLOAT32, shape=pixels.shape, data=data)
    grid = tensor_pb2.GridTHW(t=t, h=h, w=w)
    patches = vision_pb2.Patches(pixel_values=values, grid_thw=grid)
    return vision_pb2.EncodeRequest(request_id=request.id, patches=patches)


def _of_image(request: _Request, image: _Input, data: bytes) -> vision_pb2.EncodeRequest:
    _check_shape(image, [[1], [1, 1]])
    areas: dict[str, Any] = {
        name: value.int64_param
        for name, value in request.parameters.items()
        if name in ("min_pixels", "max_pixels")
    }
    return vision_pb2.EncodeRequest(request_id=request.id, image=data, **areas)


def _inputs(request: _Request) -> Iterator[tuple[_Input, bytes]]:
    """Each input and its values' bytes; of BYTES the only element.

    Raises:
        InvalidRequest: an unknown name or type, or not as many bytes as its shape says.
    """
    raw: Sequence[bytes | None] = request.raw_input_contents or [None] * len(request.inputs)
    if len(raw) != len(request.inputs):
        raise InvalidRequest(
            f"raw_input_contents has {len(raw)} entries, expected one for each of the"
            f" {len(request.inputs)} inputs, or none",
            param="raw_input_contents",
        )
    for tensor, data in zip(request.inputs, raw, strict=True):
        if _DATATYPES.get(tensor.name) != tensor.datatype:
            known = ", ".join(f"{name} of {kind}" for name, kind in _DATATYPES.items())
            raise InvalidRequest(f"inputs hold an unknown one, expected {known}", param="inputs")
        yield tensor, _of_contents(tensor) if data is None else _of_raw(tensor, data)


def _of_contents(tensor: _Input) -> bytes:
    contents = tensor.contents
    if tensor.datatype == "BYTES":
        if len(contents.bytes_contents) != 1:
            raise _wrong_size(tensor)
        return contents.bytes_contents[0]
    values = (
        np.array(contents.fp32_contents, "<f4")
        if tensor.datatype == "FP32"
        else np.array(contents.int64_contents, "<i8")
    )
    return _sized(tensor, values.tobytes())


def _of_raw(tensor: _Input, data: bytes) -> bytes:
    if tensor.datatype != "BYTES":
        return _sized(tensor, data)
    length = int.from_bytes(data[:_LENGTH_BYTES], "little")
    if len(data) != _LENGTH_BYTES + length:
        raise _wrong_size(tensor)
    return data[_LENGTH_BYTES:]


def _sized(tensor: _Input, data: bytes) -> bytes:
    count = 1
    for extent in tensor.shape:
        count *= max(0, extent)
    if len(data) != count * (4 if tensor.datatype == "FP32" else 8):
        raise _wrong_size(tensor)
    return data


def _wrong_size(tensor: _Input) -> InvalidRequest:
    return InvalidRequest(
        f"{tensor.name} has not as many values as its shape says",
        reason=Reason.SHAPE_MISMATCH,
        param=tensor.name,
    )


def _check_shape(tensor: _Input, expected: Sequence[Sequence[int]]) -> None:
    shape = list(tensor.shape)
    if shape not in [list(one) for one in expected]:
        raise InvalidRequest(
            f"{tensor.name} has shape {shape}, expected {list(expected[0])}",
            reason=Reason.SHAPE_MISMATCH,
            param=tensor.name,
        )


def _response(
    request: _Request, encoded: Encoded, wanted: Sequence[str], *, name: str
) -> open_inference_pb2.ModelInferResponse:
    values: Mapping[str, np.ndarray[Any, Any]] = {
        _EMBEDDINGS: encoded.features[0],
        **{f"deepstack_{at}": level for at, level in enumerate(encoded.features[1:])},
        _GRID: np.array([encoded.grid], "<i8"),
    }
    size = sum(values[output].nbytes for output in wanted)
    if size > _LARGEST_ANSWER:
        raise InvalidRequest(
            f"the outputs have {size} bytes, expected at most {_LARGEST_ANSWER} in one answer;"
            " ask for fewer of them, or for max_pixels",
            reason=Reason.IMAGE_TOO_LARGE,
            param="outputs",
        )
    output = open_inference_pb2.ModelInferResponse.InferOutputTensor
    times = {field.name: value for field, value in encoded.summary.ListFields()}
    return open_inference_pb2.ModelInferResponse(
        model_name=name,
        model_version=VERSION,
        id=request.id,
        parameters={
            field: open_inference_pb2.InferParameter(double_param=value)
            for field, value in times.items()
        },
        outputs=[
            output(name=one, datatype=_DATATYPES.get(one, "FP32"), shape=values[one].shape)
            for one in wanted
        ],
        raw_output_contents=[np.ascontiguousarray(values[one]).tobytes() for one in wanted],
    )
