"""One direction between two hosts: how long a segment takes, and what is wrong with the wire.

Pure: time and randomness are handed in. Owns the link's faults, each a counted or listed rule that
its context manager takes back.

Streams never lose bytes: a lost segment costs its retransmission time. A blocked link delivers
nothing; what to do about it (retry, give up) is the stream's business.
"""

from __future__ import annotations

import math
import random
from typing import NamedTuple

__all__ = ["Link", "LinkSettings", "RETRANSMIT_MIN"]

RETRANSMIT_MIN = 0.2
"""Seconds before the first retransmission, as Linux's minimum; doubled each time."""
_LOSSES_MAX = 8


class LinkSettings(NamedTuple):
    """What a wire is like. Times in seconds, bandwidth in bytes a second, backlog in bytes."""

    latency: float = 0.0005
    jitter: float = 0.0005
    loss: float = 0.0
    bandwidth: float = math.inf
    backlog: float = math.inf


class Link:
    """The wire from `source` to `target`; the way back is another Link."""

    __slots__ = (
        "_bandwidth",
        "_busy_until",
        "_caps",
        "_delays",
        "_jitter",
        "_latency",
        "_loss",
        "_losses",
        "blocks",
        "rng",
        "settings",
        "source",
        "target",
    )

    def __init__(
        self, source: str, target: str, settings: LinkSettings, rng: random.Random
    ) -> None:
        self.source = source
        self.target = target
        self.settings = settings
        self.rng = rng
        self.blocks = 0
        self._delays: list[tuple[float, float]] = []
        self._losses: list[float] = []
        self._caps: list[float] = []
        self._busy_until = 0.0
        self._recompute()

    @property
    def blocked(self) -> bool:
        return self.blocks > 0

    def add_delay(self, seconds: float, jitter: float) -> None:
        self._delays.append((seconds, jitter))
        self._recompute()

    def remove_delay(self, seconds: float, jitter: float) -> None:
        self._delays.remove((seconds, jitter))
        self._recompute()

    def add_loss(self, probability: float) -> None:
        self._losses.append(probability)
        self._recompute()

    def remove_loss(self, probability: float) -> None:
        self._losses.remove(probability)
        self._recompute()

    def add_cap(self, bandwidth: float) -> None:
        """No more than `bandwidth` bytes a second."""
        self._caps.append(bandwidth)
        self._recompute()

    def remove_cap(self, bandwidth: float) -> None:
        self._caps.remove(bandwidth)
        self._recompute()

    def change(self, settings: LinkSettings) -> None:
        self.settings = settings
        self._recompute()

    def _recompute(self) -> None:
        self._latency = self.settings.latency + sum(delay for delay, _ in self._delays)
        self._jitter = self.settings.jitter + sum(jitter for _, jitter in self._delays)
        survival = 1.0 - self.settings.loss
        for probability in self._losses:
            survival *= 1.0 - probability
        self._loss = 1.0 - survival
        self._bandwidth = min(self.settings.bandwidth, *self._caps, math.inf)

    def transit(self, now: float, size: int) -> float:
        """Seconds until `size` bytes sent at `now` are there, retransmissions included."""
        seconds = self._latency
        rng = self.rng
        if self._jitter:
            seconds += self._jitter * rng.random()
        if self._bandwidth != math.inf:
            seconds += self._queue(now, size, self._bandwidth)
        if self._loss:
            again = RETRANSMIT_MIN
            for _ in range(_LOSSES_MAX):
                if rng.random() >= self._loss:
                    break
                seconds += again
                again *= 2
        return seconds

    def _queue(self, now: float, size: int, bandwidth: float) -> float:
        """Waiting for the wire; a full queue drops the segment, which costs a retransmission."""
        wait = max(0.0, self._busy_until - now)
        if wait * bandwidth > self.settings.backlog:
            return wait + RETRANSMIT_MIN
        self._busy_until = now + wait + size / bandwidth
        return wait + size / bandwidth
