"""A configuration laid over an object by nobody in particular: a policy's. No owners, no conflicts.

The rules are those of kube-apiserver's MutatingAdmissionPolicy: what is not merged field by field
may not be said at all, because saying half of it would remove the other half.
"""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any

from k8slite.api.apply.ownership import merge
from k8slite.api.apply.shapes import GRANULAR, LEAF, Shape, shape_of
from k8slite.api.kinds import Kind
from k8slite.api.meta import Obj


def merge_configuration(
    kind: Kind, live: Obj, configuration: Obj, schema: Obj | None = None
) -> tuple[Obj, list[str]]:
    """The object after it, and the paths (`.spec.x`) of what cannot be merged."""
    shape = shape_of(kind, schema)
    merged: Obj = merge(shape, live, configuration)
    return merged, list(_atomic(shape, configuration, ""))


def _atomic(shape: Shape, value: Any, path: str) -> Iterator[str]:
    if not isinstance(value, (dict, list)):
        return
    if shape.kind == LEAF or (shape.kind == GRANULAR and isinstance(value, list)):
        yield path
    elif isinstance(value, dict):
        for name, item in value.items():
            if shape.declares(name):
                yield from _atomic(shape.child(name), item, f"{path}.{name}")
    else:
        for i, item in enumerate(value):
            yield from _atomic(shape.item(), item, f"{path}[{i}]")
