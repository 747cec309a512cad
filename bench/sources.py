"""What one connection of a load asks for, request by request. Pure."""

from __future__ import annotations

import random
from collections.abc import Sequence

from bench.dialects import Request

__all__ = ["KEY_BYTES", "VALUES", "CheckedSource", "Source", "count_of", "key_of", "values"]

VALUES = 64
"""So many different values, over and over: random bytes for each put would cost too much."""
COUNT_BYTES = 12
STRIDE = 7919


KEY_BYTES = 14


def key_of(number: int, size: int = KEY_BYTES) -> bytes:
    return (b"bench/%08d" % number).ljust(size, b"k")


def values(size: int, seed: int) -> list[bytes]:
    rng = random.Random(seed)
    return [rng.randbytes(size) for _ in range(VALUES)]


class Source:
    """Puts or gets of a share of the keys, one after the other."""

    def __init__(
        self,
        op: str,
        keys: range,
        values: Sequence[bytes],
        number: int,
        key_bytes: int = KEY_BYTES,
    ) -> None:
        """`number`: the connection's; they don't walk through their keys side by side."""
        self._op = op
        self._keys = keys
        self._values = values
        self._next = number * STRIDE
        self._key_bytes = key_bytes

    def ask(self, clients: Sequence[int]) -> list[tuple[int, Request]]:
        return [(client, self._request()) for client in clients]

    def _request(self) -> Request:
        self._next += 1
        key = self._keys[self._next % len(self._keys)]
        return self._op, key_of(key, self._key_bytes), self._values[self._next % len(self._values)]

    def answered(self, clients: Sequence[int], moment: float) -> None:
        """Nothing to remember."""


class CheckedSource(Source):
    """Puts whose values count up, and a note of each that was acknowledged.

    Of the puts of one key, a later one is sent after the earlier one was answered or its connection
    was lost, so the key's value must never count less than the last acknowledged one.
    """

    def __init__(
        self, keys: range, value_bytes: int, acknowledged: dict[bytes, int], moments: list[float]
    ) -> None:
        super().__init__("put", keys, (), 0)
        self._filler = b"x" * max(value_bytes - COUNT_BYTES, 0)
        self._acknowledged = acknowledged
        self._moments = moments
        self._in_flight: dict[int, tuple[bytes, int]] = {}

    def ask(self, clients: Sequence[int]) -> list[tuple[int, Request]]:
        asked: list[tuple[int, Request]] = []
        for client in clients:
            self._next += 1
            key = key_of(self._keys[self._next % len(self._keys)])
            self._in_flight[client] = key, self._next
            asked.append((client, ("put", key, b"%012d" % self._next + self._filler)))
        return asked

    def answered(self, clients: Sequence[int], moment: float) -> None:
        if clients:
            self._moments.append(moment)
        for client in clients:
            key, count = self._in_flight[client]
            self._acknowledged[key] = count


def count_of(value: bytes) -> int:
    """What `CheckedSource` counted when it put this value."""
    return int(value[:COUNT_BYTES])
