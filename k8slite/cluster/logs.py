"""Each process's own log: lines of JSON in one file, begun anew when it is large."""

from __future__ import annotations

import json
import logging
import logging.handlers
import time
from pathlib import Path
from typing import Any, Final

__all__ = ["JsonLines", "last_error", "open_log"]

LOG_BYTES: Final = 16 * 1024 * 1024
TAIL_BYTES: Final = 64 * 1024


class JsonLines(logging.Formatter):
    """One line of JSON a record: time, level, component, logger, message, perhaps error."""

    def __init__(self, component: str) -> None:
        super().__init__()
        self._component = component

    def format(self, record: logging.LogRecord) -> str:
        stamp = time.strftime("%Y-%m-%dT%H:%M:%S", time.gmtime(record.created))
        line: dict[str, Any] = {
            "time": f"{stamp}.{int(record.msecs):03d}Z",
            "level": record.levelname.lower(),
            "component": self._component,
            "logger": record.name,
            "message": record.getMessage(),
        }
        if record.exc_info:
            line["error"] = self.formatException(record.exc_info)
        return json.dumps(line, ensure_ascii=False)


def open_log(component: str, path: Path) -> None:
    """Everything this process logs goes to the file. Raises OSError."""
    handler = logging.handlers.RotatingFileHandler(path, maxBytes=LOG_BYTES, backupCount=1)
    handler.setFormatter(JsonLines(component))
    root = logging.getLogger()
    root.handlers[:] = [handler]
    root.setLevel(logging.INFO)


def last_error(path: Path) -> str:
    """The last thing that a component's log calls an error."""
    try:
        with open(path, "rb") as file:
            file.seek(max(0, file.seek(0, 2) - TAIL_BYTES))
            lines = file.read().splitlines()
    except OSError:
        return "it left no log"
    for line in reversed(lines):
        try:
            record = json.loads(line)
        except ValueError:
            continue
        if record.get("level") in ("error", "critical"):
            text = str(record.get("message", ""))
            if record.get("error"):
                text += f": {record['error'].splitlines()[-1]}"
            return text
    return "its log names no error"
