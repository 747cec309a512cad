"""The part of JSONPath that printer columns use: fields, indices, wildcards, one comparison
filter.
"""

from __future__ import annotations

import re
from functools import lru_cache
from typing import Any

_STEP = re.compile(
    r"""\.?(?:
        \[\?\(@\.([\w.\-/]+)\s*==\s*(?:"([^"]*)"|'([^']*)'|(\w+))\)\]   # [?(@.type=="Ready")]
        | \[(\*|-?\d+)\]                                               # [0] [*]
        | \['([^']*)'\]                                                # ['a.b/c']
        | ((?:[^.\[\]\\]|\\.)+)                                        # field, dots escaped
    )""",
    re.VERBOSE,
)


@lru_cache(maxsize=1024)
def _steps(path: str) -> tuple[tuple[Any, ...], ...]:
    steps: list[tuple[Any, ...]] = []
    text = path.strip().removeprefix("{").removesuffix("}").removeprefix("$")
    at = 0
    while at < len(text):
        match = _STEP.match(text, at)
        if match is None or match.end() == at:
            return ()
        if match[1] is not None:
            wanted = next(g for g in (match[2], match[3], match[4]) if g is not None)
            steps.append(("filter", match[1].split("."), wanted))
        elif match[5] is not None:
            steps.append(("all",) if match[5] == "*" else ("index", int(match[5])))
        else:
            name = match[6] if match[6] is not None else match[7]
            steps.append(("field", re.sub(r"\\(.)", r"\1", name)))
        at = match.end()
    return tuple(steps)


def find(value: Any, path: str) -> list[Any]:
    """The values at a path; an empty list where there are none, or where the path is beyond us."""
    found = [value]
    steps = _steps(path)
    if not steps:
        return []
    for step in steps:
        found = [v for item in found for v in _take(item, step)]
    return found


def _take(item: Any, step: tuple[Any, ...]) -> list[Any]:
    if step[0] == "field":
        return [item[step[1]]] if isinstance(item, dict) and step[1] in item else []
    if not isinstance(item, list):
        return list(item.values()) if step[0] == "all" and isinstance(item, dict) else []
    if step[0] == "all":
        return item
    if step[0] == "index":
        return [item[step[1]]] if -len(item) <= step[1] < len(item) else []
    return [element for element in item if _matches(element, step[1], step[2])]


def _matches(element: Any, fields: list[str], wanted: str) -> bool:
    for field in fields:
        element = element.get(field) if isinstance(element, dict) else None
    text = {True: "true", False: "false"}.get(element) if isinstance(element, bool) else element
    return text is not None and str(text) == wanted
