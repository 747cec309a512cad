"""The quorum benchmark's results as a picture: what a further member costs, and what it buys. Pure.

Left, writes per second; right, the latency of one write. Below each size stand its majority and how
many members it can lose: the reason to pay.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

from bench.plot import Panel, Series, render

__all__ = ["conditions", "draw"]

TITLE = "What a larger quorum costs"


def draw(results: dict[str, Any]) -> str:
    """An SVG file of what `bench.quorum.measure` gives."""
    rows: list[dict[str, Any]] = results["results"]
    sizes = sorted({row["members"] for row in rows})
    stores = list(dict.fromkeys(row["store"] for row in rows))
    categories = {
        "members": [str(size) for size in sizes],
        "majority": [str(size // 2 + 1) for size in sizes],
        "may fail": [str((size - 1) // 2) for size in sizes],
    }
    panels = [
        Panel("writes per second, more is better", _series(rows, sizes, stores, "per_second")),
        Panel(
            "median latency in ms, less is better",
            _series(rows, sizes, stores, "p50_ms"),
        ),
    ]
    legend = [(store, store != stores[0]) for store in stores]
    return render(TITLE, conditions(results), categories, panels, legend)


def conditions(results: dict[str, Any]) -> str:
    """Without what a figure says nothing: values, durability, distance, machine."""
    rows = results["results"]
    parts = [
        f"{rows[0]['value_bytes']}-byte values",
        "every write synced by a majority" if results["fsync"] else "WITHOUT fsync",
    ]
    if results["latency_ms"] or results["jitter_ms"]:
        latest = results["latency_ms"] + results["jitter_ms"]
        parts.append(f"{results['latency_ms']:g} to {latest:g} ms one way between members")
    parts.append("all members and the load on one machine")
    return ", ".join(parts)


def _series(
    rows: Sequence[dict[str, Any]], sizes: Sequence[int], stores: Sequence[str], field: str
) -> list[Series]:
    clients = sorted({row["clients"] for row in rows})
    found = {(row["store"], row["clients"], row["members"]): row[field] for row in rows}
    return [
        Series(
            f"{store}, {_clients(count)}",
            [found.get((store, count, size)) for size in sizes],
            colour=number,
            label=_clients(count) if store == stores[0] else "",
            second=store != stores[0],
        )
        for store in stores
        for number, count in enumerate(clients)
    ]


def _clients(count: int) -> str:
    return "1 client" if count == 1 else f"{count} clients"
