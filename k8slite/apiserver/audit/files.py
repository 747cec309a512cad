"""A log file that is put aside when it is large; few of the old ones are kept.

Old files are named after the time when they were put aside, as kube-apiserver's are:
`audit-2026-11-24T03-30-00.000.log` beside `audit.log`.
"""

from __future__ import annotations

import datetime
import logging
import re
import sys
from pathlib import Path
from typing import BinaryIO

from attrs import frozen

__all__ = ["NO_LIMITS", "LogFile", "Rotation", "old_name", "too_many"]

log = logging.getLogger(__name__)

DAY_SECONDS = 86_400.0
MEGABYTE = 1024 * 1024
_STAMP = "%Y-%m-%dT%H-%M-%S"


@frozen
class Rotation:
    """0: no limit, except for the size, which is then 100 MB."""

    age_days: int = 0
    backups: int = 0
    size_megabytes: int = 0

    @property
    def bytes_max(self) -> int:
        return (self.size_megabytes or 100) * MEGABYTE


NO_LIMITS = Rotation()


def old_name(path: Path, now: float) -> str:
    """What a file that is put aside now is called."""
    when = datetime.datetime.fromtimestamp(now, datetime.UTC)
    return f"{path.stem}-{when.strftime(_STAMP)}.{when.microsecond // 1000:03}{path.suffix}"


def too_many(path: Path, names: list[str], rotation: Rotation, now: float) -> list[str]:
    """Which of the files beside it are to go."""
    pattern = re.compile(
        re.escape(path.stem) + r"-(\d{4}-\d\d-\d\dT\d\d-\d\d-\d\d\.\d{3})" + re.escape(path.suffix)
    )
    old = sorted(
        ((match[1], name) for name in names if (match := pattern.fullmatch(name))), reverse=True
    )
    gone = [name for _, name in old[rotation.backups :]] if rotation.backups else []
    if rotation.age_days:
        oldest = now - rotation.age_days * DAY_SECONDS
        gone += [name for stamp, name in old if name not in gone and _seconds(stamp) < oldest]
    return gone


def _seconds(stamp: str) -> float:
    when = datetime.datetime.strptime(stamp, f"{_STAMP}.%f")
    return when.replace(tzinfo=datetime.UTC).timestamp()


class LogFile:
    """Open until closed; "-" is the standard output. Raises OSError where it can't be opened."""

    def __init__(self, path: str, rotation: Rotation) -> None:
        self._path = None if path == "-" else Path(path)
        self._rotation = rotation
        self._file: BinaryIO = sys.stdout.buffer
        self._size = 0
        if self._path is not None:
            self._path.parent.mkdir(parents=True, exist_ok=True)
            self._open(self._path)

    def _open(self, path: Path) -> None:
        self._file = path.open("ab", buffering=0)
        self._size = self._file.tell()

    def write(self, line: bytes, now: float) -> None:
        """A disk that fails loses the line, and says so in our own log; requests go on."""
        try:
            if self._path is not None and self._size + len(line) > self._rotation.bytes_max:
                self._put_aside(self._path, now)
            self._file.write(line)
            if self._path is None:
                self._file.flush()
            self._size += len(line)
        except (OSError, ValueError) as error:
            log.error("an audit event is lost: %s", error)

    def _put_aside(self, path: Path, now: float) -> None:
        if self._size:
            self._file.close()
            path.rename(path.with_name(old_name(path, now)))
            self._open(path)
        names = [each.name for each in path.parent.iterdir()]
        for name in too_many(path, names, self._rotation, now):
            path.with_name(name).unlink(missing_ok=True)

    def close(self) -> None:
        if self._path is not None:
            self._file.close()
