"""How long to wait before a thing that failed is tried again. Pure.

One table of delays by key, as client-go's flowcontrol.Backoff: the first failure costs nothing, the
second 10 s, then twice as much each time up to 5 min; who ran well for twice the longest delay
starts anew. Times are wall-clock seconds, given by the caller.
"""

from __future__ import annotations

import attrs

INITIAL_SECONDS = 10.0
MAX_SECONDS = 300.0


@attrs.define
class _Entry:
    delay: float
    updated_at: float


class Backoff:
    """Delays by key. The caller forgets keys that are gone."""

    def __init__(
        self, initial_seconds: float = INITIAL_SECONDS, max_seconds: float = MAX_SECONDS
    ) -> None:
        assert 0 < initial_seconds <= max_seconds, "a delay grows from its first to its longest"
        self._initial = initial_seconds
        self._max = max_seconds
        self._entries: dict[str, _Entry] = {}

    def _expired(self, entry: _Entry, at: float) -> bool:
        return at - entry.updated_at > 2 * self._max

    def wait_until(self, key: str, failed_at: float) -> float:
        """When the thing that failed at that time may be tried again."""
        entry = self._entries.get(key)
        if entry is None or self._expired(entry, failed_at):
            return failed_at
        return failed_at + entry.delay

    def delay(self, key: str) -> float:
        """The delay now in force, in seconds."""
        entry = self._entries.get(key)
        return 0.0 if entry is None else entry.delay

    def tried(self, key: str, failed_at: float, now: float) -> None:
        """It is being tried again: the next failure waits longer."""
        entry = self._entries.get(key)
        if entry is None or self._expired(entry, failed_at):
            self._entries[key] = _Entry(self._initial, now)
            return
        entry.delay = min(entry.delay * 2, self._max)
        entry.updated_at = now

    def forget(self, key: str) -> None:
        self._entries.pop(key, None)
