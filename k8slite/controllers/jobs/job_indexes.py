"""Indexes of an Indexed Job (pure): which are done, as the text "1,3-5" of its status."""

from __future__ import annotations

from collections.abc import Iterable

from k8slite.api import meta
from k8slite.api.meta import Obj

__all__ = ["INDEX", "format_indexes", "index_of", "parse_indexes"]

INDEX = "batch.kubernetes.io/job-completion-index"


def index_of(pod: Obj) -> int | None:
    text = meta.annotations(pod).get(INDEX, "")
    return int(text) if text.isdigit() else None


def parse_indexes(text: str) -> list[int]:
    """Sorted; the text is our own."""
    indexes: list[int] = []
    for part in filter(None, text.split(",")):
        first, _, last = part.partition("-")
        indexes += range(int(first), int(last or first) + 1)
    return indexes


def format_indexes(indexes: Iterable[int]) -> str:
    parts: list[str] = []
    ordered = sorted(dict.fromkeys(indexes))
    start = 0
    for i, index in enumerate(ordered):
        if i + 1 < len(ordered) and ordered[i + 1] == index + 1:
            continue
        first = ordered[start]
        separator = "-" if index > first + 1 else ","
        parts.append(str(first) if first == index else f"{first}{separator}{index}")
        start = i + 1
    return ",".join(parts)
