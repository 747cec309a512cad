"""raftkv's figures over those of the other store, cell by cell. Pure."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

__all__ = ["add_ratios"]


def add_ratios(results: Sequence[dict[str, Any]]) -> None:
    """`ratio` (of requests per second) in each of raftkv's results that has a counterpart."""
    others = {_place(each): each for each in results if each["store"] != "raftkv"}
    for each in results:
        other = others.get(_place(each))
        if each["store"] == "raftkv" and other is not None and other["per_second"]:
            each["ratio"] = round(each["per_second"] / other["per_second"], 2)


def _place(result: dict[str, Any]) -> tuple[Any, ...]:
    return result["op"], result["members"], result["clients"]
