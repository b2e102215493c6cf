"""Bodies of chat requests with images and videos that no cache has seen."""

import base64
import io
import json
from collections.abc import Iterator
from typing import Any

import numpy as np
from PIL import Image

from deploy.load.plan import LoadPlan, WeightedSize, drawn_sizes

QUESTION = "Describe what you see in detail."
FRAME = WeightedSize(width=448, height=336)  # of videos where no size of images is given


def bodies(plan: LoadPlan, model: str) -> Iterator[bytes]:
    """JSON bodies, as many as the plan's warm-ups and requests, in the order they are sent.

    They are made before any is sent: making one takes the client's time, and would delay others.
    """
    count = plan.warm_ups + plan.requests
    images = plan.images if plan.sizes else 0
    sizes = drawn_sizes(plan.sizes, count * images, plan.seed) if images else []
    # Other runs of the same seed have other images, or the server's caches would know them.
    noise = np.random.default_rng()
    for index in range(count):
        mine = sizes[index * images : (index + 1) * images]
        parts = [_image_part(_data_url(noise, size)) for size in mine]
        if plan.video_frames:
            parts.append(_video_part(noise, plan.video_frames, mine[0] if mine else FRAME))
        parts.append({"type": "text", "text": QUESTION})
        yield json.dumps(_body(plan, model, parts)).encode()


def _body(plan: LoadPlan, model: str, parts: list[dict[str, Any]]) -> dict[str, Any]:
    return {
        "model": model,
        "messages": [{"role": "user", "content": parts}],
        "max_tokens": plan.tokens,
        "temperature": 0,
        "stream": True,
        "stream_options": {"include_usage": True},
        **({"ignore_eos": True} if plan.ignore_eos else {}),
    }


def _image_part(url: str) -> dict[str, Any]:
    return {"type": "image_url", "image_url": {"url": url}}


def _video_part(noise: np.random.Generator, frames: int, size: WeightedSize) -> dict[str, Any]:
    """Frames joined by commas, the form that Tandem and vLLM share and that needs no codec."""
    joined = ",".join(_encoded(noise, size) for _ in range(frames))
    return {"type": "video_url", "video_url": {"url": f"data:video/jpeg;base64,{joined}"}}


def _data_url(noise: np.random.Generator, size: WeightedSize) -> str:
    return f"data:image/jpeg;base64,{_encoded(noise, size)}"


def _encoded(noise: np.random.Generator, size: WeightedSize) -> str:
    """A JPEG of smooth colours, different every time, in base64."""
    colours = Image.fromarray(noise.integers(0, 256, (6, 8, 3), dtype=np.uint8))
    stream = io.BytesIO()
    colours.resize((size.width, size.height), Image.Resampling.BICUBIC).save(stream, "JPEG")
    return base64.b64encode(stream.getvalue()).decode()
