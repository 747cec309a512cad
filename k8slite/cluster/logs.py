"""Each process's own log: lines of JSON in one file, begun anew when it is large."""

from __future__ import annotations

import json
import logging
import logging.handlers
import time
from pathlib import Path
from typing import Any, Final

__all__ = ["JsonLines", "end_of", "last_error", "open_log"]

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


def end_of(path: Path) -> int:
    """How long a log is now; 0 for one that is not there."""
    try:
        return path.stat().st_size
    except OSError:
        return 0


def last_error(path: Path, since: int = 0) -> str:
    """The last thing that a component's log calls an error after so many bytes; empty if none."""
    try:
        with open(path, "rb") as file:
            size = file.seek(0, 2)
            start = since if since <= size else 0  # it was begun anew meanwhile
            file.seek(max(start, size - TAIL_BYTES))
            lines = file.read().splitlines()
    except OSError:
        return ""
    for line in reversed(lines):
        try:
            record = json.loads(line)
            if record["level"] in ("error", "critical"):
                text = str(record["message"])
                if record.get("error"):
                    text += f": {record['error'].splitlines()[-1]}"
                return text
        except (ValueError, LookupError, TypeError):
            continue  # an interpreter's last words, or the rest of a line
    return ""
