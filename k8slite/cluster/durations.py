"""Times as people write them. Pure."""

from __future__ import annotations

import re
from typing import Final

__all__ = ["parse_seconds"]

UNITS: Final = {"": 1.0, "ms": 0.001, "s": 1.0, "m": 60.0, "h": 3600.0}
FORM: Final = re.compile(r"(\d+(?:\.\d+)?)(ms|s|m|h|)")


def parse_seconds(text: str) -> float:
    """`20`, `20s`, `1.5m`, `inf`. Raises ValueError, with a message for the user."""
    if text == "inf":
        return float("inf")
    match = FORM.fullmatch(text)
    if match is None:
        raise ValueError(f"{text!r} is no time: 20s, 2m, or inf")
    return float(match[1]) * UNITS[match[2]]
