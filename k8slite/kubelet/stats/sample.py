"""What something uses, and how fast. Pure."""

from __future__ import annotations

import attrs

from k8slite.kubelet.runtime.interface import Usage

__all__ = ["NANO", "Sample"]

NANO = 1_000_000_000


@attrs.frozen
class Sample:
    """`at`: wall-clock seconds. `nano_cores` and `window_seconds` None: there was one look only."""

    at: float
    usage: Usage
    nano_cores: int | None = None
    window_seconds: float | None = None

    def next(self, usage: Usage, at: float) -> Sample:
        """The sample after this one; counters that began anew make a first one."""
        window, spent = at - self.at, usage.cpu_ns - self.usage.cpu_ns
        if window <= 0 or spent < 0:
            return Sample(at, usage)
        return Sample(at, usage, int(spent / window), window)
