"""Logging of every service: plain lines, or one JSON object per line."""

import json
import logging
import sys
from typing import Any

REQUEST = "request"  # the name under which a record holds what it tells of a request

_ENCODER = json.JSONEncoder(ensure_ascii=False)


class JsonFormatter(logging.Formatter):
    """One JSON object per record; what a record has of a request is an object of its own."""

    def format(self, record: logging.LogRecord) -> str:
        entry: dict[str, Any] = {
            "time": self.formatTime(record, "%Y-%m-%dT%H:%M:%S%z"),
            "level": record.levelname,
            "logger": record.name,
            "message": record.getMessage(),
        }
        request = getattr(record, REQUEST, None)
        if isinstance(request, dict):  # not what a library may call so
            entry[REQUEST] = request
        if record.exc_info:
            entry["traceback"] = self.formatException(record.exc_info)
        return _ENCODER.encode(entry)


def configure(level: str = "INFO", form: str = "auto") -> None:
    """Sends all logging to stderr; called once, by a process's main.

    Args:
        level: Name of the least level that is written.
        form: One of `LOG_FORMATS` in `protos.process.settings`; "auto" is "text" on a terminal and
            "json" elsewhere.
    """
    handler = logging.StreamHandler(sys.stderr)
    if form == "text" or (form == "auto" and sys.stderr.isatty()):
        handler.setFormatter(logging.Formatter("%(asctime)s %(levelname)s %(name)s: %(message)s"))
    else:
        handler.setFormatter(JsonFormatter())
    logging.basicConfig(level=level, handlers=[handler], force=True)
