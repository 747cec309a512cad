"""Latencies, small enough to pass between processes: how often each duration occurred.

Pure. A histogram maps whole microseconds, rounded to three digits, to counts; those of several
load processes add up, and its percentiles are at most half a percent off.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterable, Mapping, Sequence

__all__ = ["histogram", "merged", "percentile", "quantiles_ms"]

SHARES = {"p50_ms": 0.50, "p90_ms": 0.90, "p99_ms": 0.99}


def percentile(ordered: Sequence[float], share: float) -> float:
    """The smallest value that `share` of the sorted values do not exceed; 0 without values."""
    if not ordered:
        return 0.0
    return ordered[min(len(ordered) - 1, int(share * len(ordered)))]


def histogram(seconds: Iterable[float]) -> dict[int, int]:
    return dict(Counter(_rounded(round(each * 1e6)) for each in seconds))


def _rounded(microseconds: int) -> int:
    step = int(10 ** max(len(str(microseconds)) - 3, 0))
    return (microseconds + step // 2) // step * step


def merged(histograms: Iterable[Mapping[int, int]]) -> dict[int, int]:
    together: Counter[int] = Counter()
    for each in histograms:
        together.update(each)
    return dict(together)


def quantiles_ms(counts: Mapping[int, int]) -> dict[str, float]:
    """`p50_ms`, `p90_ms` and `p99_ms`; zeros without values."""
    total = sum(counts.values())
    return {name: _at(counts, min(int(share * total), total - 1)) for name, share in SHARES.items()}


def _at(counts: Mapping[int, int], rank: int) -> float:
    for value, count in sorted(counts.items()):
        rank -= count
        if rank < 0:
            return value / 1000
    return 0.0
