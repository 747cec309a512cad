"""Latencies keep their percentiles when they are squeezed into counts."""

from __future__ import annotations

from hypothesis import given
from hypothesis import strategies as st

from bench.latency import histogram, merged, percentile, quantiles_ms


def test_percentiles() -> None:
    assert percentile([], 0.5) == 0.0
    assert percentile([1.0, 2.0, 3.0, 4.0], 0.5) == 3.0
    assert percentile([1.0], 0.99) == 1.0
    assert quantiles_ms({}) == {"p50_ms": 0, "p90_ms": 0, "p99_ms": 0}


@given(st.lists(st.floats(1e-6, 100.0), min_size=1), st.lists(st.floats(1e-6, 100.0)))
def test_histograms_add_up_and_stay_within_half_a_percent(
    some: list[float], others: list[float]
) -> None:
    ordered = sorted([*some, *others])
    found = quantiles_ms(merged([histogram(some), histogram(others)]))
    for name, share in (("p50_ms", 0.5), ("p90_ms", 0.9), ("p99_ms", 0.99)):
        exact = percentile(ordered, share) * 1000
        assert abs(found[name] - exact) <= 0.0055 * exact + 0.001
