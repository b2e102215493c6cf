"""Strings of the document's formats: images, videos as frames, files of text, schemas."""

import base64
import json

from hypothesis import strategies as st

from tests.support.prompts import png

_SIZES = ((64, 64), (96, 64), (32, 128))


def _base64(data: bytes) -> str:
    return base64.b64encode(data).decode()


_IMAGES = [_base64(png(*size)) for size in _SIZES]
_SCHEMAS = ({"type": "object"}, {"type": "object", "properties": {"a": {"type": "integer"}}})

_TEXT_FILES = st.text(max_size=20).map(
    lambda text: f"data:text/plain;base64,{_base64(text.encode())}"
)

FORMATS = {
    "image-base64": st.sampled_from(_IMAGES),
    "image-url": st.sampled_from([f"data:image/png;base64,{image}" for image in _IMAGES]),
    # Frames, because a file of a video would have to be looked into by a vision tier.
    "video-url": st.just(f"data:video/jpeg;base64,{_IMAGES[0]},{_IMAGES[0]}"),
    # Texts, because a PDF would have to be looked into by a vision tier.
    "file": _TEXT_FILES,
    "file-url": _TEXT_FILES,
    "json-schema-text": st.sampled_from([json.dumps(schema) for schema in _SCHEMAS]),
    "lark": st.just('start: "a"'),
}
