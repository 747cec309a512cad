"""The diary of a run, and its hash.

Pure. Two runs of one seed must write the same lines: packets delivered, syncs, crashes, faults, and
whatever a scenario adds. The hash covers all lines, the last ones are kept for people to read.
"""

from __future__ import annotations

import collections
import hashlib

__all__ = ["Trace"]

TAIL_LINES_MAX = 400
_BATCH = 512


class Trace:
    """Lines in, one hash out. With `keep`, every line stays readable in `lines`."""

    def __init__(self, *, keep: bool = False) -> None:
        self._hasher = hashlib.blake2b(digest_size=16)
        self._batch: list[str] = []
        self._tail: collections.deque[str] = collections.deque(
            maxlen=None if keep else TAIL_LINES_MAX
        )
        self._count = 0

    def add(self, time: float, line: str) -> None:
        self._batch.append(f"{time!r} {line}")
        if len(self._batch) >= _BATCH:
            self._flush()

    def _flush(self) -> None:
        batch = self._batch
        if batch:
            self._hasher.update("\n".join(batch).encode())
            self._hasher.update(b"\n")
            self._tail.extend(batch)
            self._count += len(batch)
            batch.clear()

    @property
    def count(self) -> int:
        """How many lines were written."""
        return self._count + len(self._batch)

    @property
    def lines(self) -> list[str]:
        """The last lines (all of them with `keep`), oldest first."""
        self._flush()
        return list(self._tail)

    def hash(self) -> str:
        self._flush()
        return self._hasher.copy().hexdigest()
