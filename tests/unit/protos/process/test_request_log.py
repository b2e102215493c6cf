"""One line at a request's end, whatever ended it."""

import asyncio
import logging

import pytest

from protos.process.request_log import recording
from protos.wire.errors import InternalError, InvalidRequest


def line(caplog: pytest.LogCaptureFixture) -> logging.LogRecord:
    (record,) = [entry for entry in caplog.records if entry.name == "protos.process.request_log"]
    return record


@pytest.fixture(autouse=True)
def info(caplog: pytest.LogCaptureFixture) -> None:
    caplog.set_level(logging.INFO)


def test_an_answered_request_says_its_outcome_and_figures(caplog: pytest.LogCaptureFixture) -> None:
    with recording("gateway", "abc", door="http") as record:
        record.first_token()
        record.note(prompt_tokens=7, queue_ms=1.26)
        record.ended("stop")
    text = line(caplog).getMessage()
    assert text.startswith("request id=abc tier=gateway outcome=stop total_ms=")
    assert "door=http first_token_ms=0.0 prompt_tokens=7 queue_ms=1.3" in text


@pytest.mark.parametrize(
    ("error", "outcome", "level"),
    [
        (InvalidRequest("no", param="top_p"), "INVALID_PARAMETER", logging.INFO),
        (InternalError("no"), "INTERNAL", logging.WARNING),
        (asyncio.CancelledError(), "CANCELLED", logging.INFO),
        (GeneratorExit(), "CANCELLED", logging.INFO),
        (KeyError("a bug"), "INTERNAL", logging.WARNING),
    ],
)
def test_what_leaves_the_block_is_the_outcome(
    caplog: pytest.LogCaptureFixture, error: BaseException, outcome: str, level: int
) -> None:
    with pytest.raises(type(error)), recording("vision", "abc"):
        raise error
    assert f" outcome={outcome} " in line(caplog).getMessage()
    assert line(caplog).levelno == level


def test_an_id_from_outside_adds_no_words_and_no_lines(caplog: pytest.LogCaptureFixture) -> None:
    with recording("decoder", "a outcome=stop\nrequest id=b" + "x" * 100) as record:
        record.ended("length")
    text = line(caplog).getMessage()
    assert "\n" not in text
    assert text.startswith("request id='a outcome=stop\\nrequest id=b")
    assert "x" * 50 not in text


def test_a_request_that_nobody_ended_says_so(caplog: pytest.LogCaptureFixture) -> None:
    with recording("decoder"):
        pass
    assert "request id=- tier=decoder outcome=unfinished" in line(caplog).getMessage()
