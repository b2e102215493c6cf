"""Settings of a decoder that make no sense are refused by name."""

import pytest

from decoder_service.config import DecoderConfig
from protos.process.settings import SettingError


@pytest.mark.parametrize(
    ("name", "value"),
    [
        ("kernels", "onnx"),
        ("kv_dtype", "int4"),
        ("speculation", "on"),
        ("log_level", "info"),
        ("port", 65536),
        ("max_context", 1),
    ],
)
def test_a_value_out_of_range_is_refused_by_the_settings_name(name: str, value: object) -> None:
    with pytest.raises(SettingError, match=f"{name} is '?{value}'?, expected"):
        DecoderConfig(**{"bundle": "b", name: value})  # type: ignore[arg-type]


def test_the_defaults_are_fine() -> None:
    config = DecoderConfig(bundle="b")
    assert (config.kernels, config.kv_dtype) == ("auto", "auto")
    assert config.thread_count >= 1
