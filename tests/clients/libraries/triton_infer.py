"""Triton's client against the vision tier: https://github.com/triton-inference-server/client."""

from typing import Any

import numpy as np
import tritonclient.grpc as triton

from tests.clients import checks
from tests.clients.checks import IMAGE, MODEL, VISION, refused, same

client = triton.InferenceServerClient(VISION)


def image_input(data: bytes) -> Any:
    """An image's file as the client sends it."""
    given = triton.InferInput("image", [1], "BYTES")
    given.set_data_from_numpy(np.array([data], dtype=object))
    return given


def metadata() -> str:
    """What goes in and out, under the model's name."""
    found = client.get_model_metadata(MODEL)
    assert {tensor.name for tensor in found.inputs} == {"image", "pixel_values", "grid_thw"}
    return same(found.outputs[0].name, "embeddings")


def image() -> str:
    """An image's features: a row of every level for each token of its grid."""
    answer = client.infer(MODEL, [image_input(IMAGE.read_bytes())])
    t, h, w = answer.as_numpy("grid_thw")[0]
    rows = answer.as_numpy("embeddings")
    assert len(rows) == t * h * w // 4, (rows.shape, (t, h, w))
    assert answer.as_numpy("deepstack_0").shape == rows.shape
    assert np.isfinite(rows).all() and rows.std() > 0
    return f"{rows.shape} of {rows.dtype}"


def patches() -> str:
    """Patches of the client's own, two of whose outputs are asked for."""
    (found,) = (one for one in client.get_model_metadata(MODEL).inputs if one.name[0] == "p")
    pixels = np.random.default_rng(0).normal(size=(16, found.shape[1])).astype(np.float32)
    given = [
        triton.InferInput("pixel_values", pixels.shape, "FP32"),
        triton.InferInput("grid_thw", [1, 3], "INT64"),
    ]
    given[0].set_data_from_numpy(pixels)
    given[1].set_data_from_numpy(np.array([[1, 4, 4]], dtype=np.int64))
    wanted = [triton.InferRequestedOutput(name) for name in ("deepstack_0", "embeddings")]
    answer = client.infer(MODEL, given, outputs=wanted, request_id="one")
    assert answer.as_numpy("grid_thw") is None
    return same(len(answer.as_numpy("embeddings")), 4)


def bad_image() -> str:
    """A file that is no image."""
    with refused(triton.InferenceServerException) as told:
        client.infer(MODEL, [image_input(b"no image")])
    error: Any = told.error
    assert "INVALID_ARGUMENT" in error.status(), error
    return str(error)


def other_model() -> str:
    """A name that is not served."""
    with refused(triton.InferenceServerException) as told:
        client.infer("other", [image_input(b"")])
    error: Any = told.error
    return same(error.status(), "StatusCode.NOT_FOUND")


check = checks.Checks()
check("live", lambda: same(client.is_server_live(), True))
check("ready", lambda: same(client.is_model_ready(MODEL), True))
check("metadata", metadata)
check("image", image)
check("patches", patches)
check("bad image", bad_image)
check("other model", other_model)
check.end()
