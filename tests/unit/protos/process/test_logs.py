"""Lines of a service's log: plain, or objects with the same facts."""

import io
import json
import logging
import sys
from collections.abc import Callable

import pytest

from decoder_service.config import DecoderConfig
from gateway.config import GatewayConfig
from protos.process import logs
from protos.process.request_log import recording
from protos.process.settings import SettingError
from vision_service.config import VisionConfig

logger = logging.getLogger("tests.logs")


class Terminal(io.StringIO):
    """A stream that says it is a terminal."""

    def isatty(self) -> bool:
        return True


def written(
    monkeypatch: pytest.MonkeyPatch, form: str, write: Callable[[], None], stream: io.StringIO
) -> str:
    """What logging in a form leaves on a stream."""
    monkeypatch.setattr(sys, "stderr", stream)
    root = logging.getLogger()
    kept, level = list(root.handlers), root.level
    root.handlers.clear()  # pytest's own would be closed
    try:
        logs.configure("INFO", form)
        write()
    finally:
        root.handlers[:] = kept
        root.setLevel(level)
    return stream.getvalue()


@pytest.mark.parametrize(
    ("form", "stream", "is_json"),
    [
        ("json", Terminal, True),
        ("text", io.StringIO, False),
        ("auto", Terminal, False),
        ("auto", io.StringIO, True),
    ],
)
def test_the_form_is_the_settings_or_the_streams(
    monkeypatch: pytest.MonkeyPatch, form: str, stream: type[io.StringIO], is_json: bool
) -> None:
    text = written(monkeypatch, form, lambda: logger.info("a %s", "word"), stream())
    assert text.startswith("{") is is_json
    if is_json:
        assert json.loads(text)["message"] == "a word"
    else:
        assert text.endswith("INFO tests.logs: a word\n")


def test_an_object_has_the_figures_of_a_request_by_name(monkeypatch: pytest.MonkeyPatch) -> None:
    def request() -> None:
        with recording("gateway", 'id" \n{}', door="http") as record:
            record.note(prompt_tokens=7, queue_ms=1.26)
            record.ended("stop")

    (line,) = written(monkeypatch, "json", request, io.StringIO()).splitlines()
    told = json.loads(line)["request"]
    assert told.pop("total_ms") >= 0
    assert told == {
        "id": 'id" \n{}',
        "tier": "gateway",
        "outcome": "stop",
        "door": "http",
        "prompt_tokens": 7,
        "queue_ms": 1.3,
    }


@pytest.mark.parametrize("config", [VisionConfig, DecoderConfig, GatewayConfig])
def test_every_service_has_the_setting(config: type[GatewayConfig]) -> None:
    assert config(bundle="b").log_format == "auto"
    with pytest.raises(SettingError, match="log_format is 'xml', expected auto, text or json"):
        config(bundle="b", log_format="xml")
