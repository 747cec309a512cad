"""How large what a schema describes can be: by its limits, or else by the largest request. Pure."""

from __future__ import annotations

from k8slite.api.meta import Obj

__all__ = ["MOST", "RULE_COST_MAX", "SCHEMA_COST_MAX", "cardinality", "max_elements"]

MOST = 2**64 - 1
"""Stands for what has no limit."""
RULE_COST_MAX = 10_000_000
SCHEMA_COST_MAX = 100_000_000
REQUEST_BYTES_MAX = 3 * 1024 * 1024
_STRINGS = {"date": 12, "date-time": 32, "duration": 32}
"""Bytes in JSON."""
_LEAST_BYTES = {"string": 2, "boolean": 4, "integer": 1, "number": 1, "array": 2, "object": 2}


def max_elements(schema: Obj) -> int:
    """The most bytes of a string, items of a list or entries of a map; 0 for all else."""
    match schema.get("type"):
        case "string":
            if schema.get("maxLength") is not None:
                return max(int(schema["maxLength"]), 0) * 4
            if schema.get("enum"):
                return max(len(str(value).encode()) for value in schema["enum"])
            return _STRINGS.get(schema.get("format", ""), REQUEST_BYTES_MAX - 2)
        case "array":
            if schema.get("maxItems") is not None:
                return max(int(schema["maxItems"]), 0)
            return (REQUEST_BYTES_MAX - 2) // (_least_bytes(schema.get("items") or {}) + 1)
        case "object" if isinstance(schema.get("additionalProperties"), dict):
            if schema.get("maxProperties") is not None:
                return max(int(schema["maxProperties"]), 0)
            return (REQUEST_BYTES_MAX - 2) // (_least_bytes(schema["additionalProperties"]) + 6)
    return 0


def _least_bytes(schema: Obj) -> int:
    """Of the shortest JSON that it allows."""
    least = _LEAST_BYTES.get(schema.get("type", ""), 1)
    properties = schema.get("properties") or {}
    for name in schema.get("required") or ():
        inner = properties.get(name)
        if isinstance(inner, dict) and "default" not in inner:
            least += len(name) + _least_bytes(inner) + 4
    return least


def cardinality(schema: Obj, around: int | None) -> int:
    """How often a rule may run for one object; `around` None: as often as a request may hold it."""
    return REQUEST_BYTES_MAX // (_least_bytes(schema) + 1) if around is None else around
