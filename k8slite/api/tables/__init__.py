"""The server's side of `kubectl get`: objects as rows of a Table.

One function of cells per kind, in `core`, `workloads` and `others`; the columns are those of
`kinds.Kind.columns`. Kinds without a function show their name and age, custom resources what their
definition's printer columns say.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Sequence
from typing import Any

from k8slite.api import resource_metrics
from k8slite.api.kinds import Column, Kind
from k8slite.api.meta import Obj
from k8slite.api.tables import core, others, workloads
from k8slite.api.tables.durations import age
from k8slite.api.tables.json_path import find

Cells = Callable[[Obj, float], list[Any]]
CELLS: dict[str, Cells] = {
    **core.CELLS,
    **workloads.CELLS,
    **others.CELLS,
    **{kind.resource: resource_metrics.cells for kind in resource_metrics.RESOURCE_METRICS},
}

_NAME = Column("Name", "string", "name", 0)
_AGE = Column("Age", "string", "", 0)


def columns_of(kind: Kind, printer_columns: Sequence[Obj] | None = None) -> list[Obj]:
    """The Table's columnDefinitions. `printer_columns`: additionalPrinterColumns of a
    definition.
    """
    if printer_columns:
        rows: list[Column] = [_NAME]
        for c in printer_columns:
            type_, format_ = c.get("type", "string"), c.get("format", "")
            rows.append(Column(c["name"], type_, format_, c.get("priority", 0)))
    else:
        rows = list(kind.columns) or [_NAME, _AGE]
    return [
        {
            "name": c.name,
            "type": c.type,
            "format": c.format,
            "description": "",
            "priority": c.priority,
        }
        for c in rows
    ]


def cells_of(
    kind: Kind, o: Obj, now: float, printer_columns: Sequence[Obj] | None = None
) -> list[Any]:
    if printer_columns:
        return [o["metadata"]["name"], *(_custom_cell(c, o, now) for c in printer_columns)]
    make = CELLS.get(f"{kind.plural}.{kind.version}.{kind.group}") or CELLS.get(kind.resource)
    if make is not None:
        return make(o, now)
    name, created = o["metadata"]["name"], o["metadata"].get("creationTimestamp")
    if [c.type for c in kind.columns] == ["string", "date"]:
        return [name, created]
    return [name, age(created, now)]


def _custom_cell(column: Obj, o: Obj, now: float) -> Any:
    values = find(o, column.get("jsonPath", ""))
    if not values or values[0] is None:
        return None
    value = values[0] if len(values) == 1 else ",".join(str(v) for v in values)
    match column.get("type"):
        case "date":
            return age(value, now) if isinstance(value, str) else None
        case "integer":
            return int(value) if isinstance(value, (int, float)) else None
        case "number":
            return value if isinstance(value, (int, float)) else None
        case "boolean":
            return value if isinstance(value, bool) else None
    if isinstance(value, bool):
        return "true" if value else "false"
    return value if isinstance(value, str) else _text(value)


def _text(value: Any) -> str:
    import orjson

    return orjson.dumps(value).decode() if isinstance(value, (dict, list)) else str(value)


def partial_metadata(o: Obj) -> Obj:
    """The object's metadata alone."""
    return {
        "kind": "PartialObjectMetadata",
        "apiVersion": "meta.k8s.io/v1",
        "metadata": o["metadata"],
    }


def to_table(
    kind: Kind,
    objects: Iterable[Obj],
    now: float,
    list_meta: Obj | None = None,
    include_object: str = "Metadata",
    *,
    columns: bool = True,
    printer_columns: Sequence[Obj] | None = None,
) -> Obj:
    """A meta.k8s.io/v1 Table. `now` in seconds since 1970; `include_object` Metadata, Object or
    None.

    `columns=False` leaves the definitions out, as every watch event but the first does.
    """
    rows: list[Obj] = []
    for o in objects:
        row: Obj = {"cells": cells_of(kind, o, now, printer_columns)}
        done = _finished(kind, o)
        if done is not None:
            row["conditions"] = [done]
        if include_object == "Object":
            row["object"] = {"kind": kind.kind, "apiVersion": kind.api_version, **o}
        elif include_object != "None":
            row["object"] = partial_metadata(o)
        rows.append(row)
    return {
        "kind": "Table",
        "apiVersion": "meta.k8s.io/v1",
        "metadata": list_meta or {},
        "columnDefinitions": columns_of(kind, printer_columns) if columns else None,
        "rows": rows,
    }


def _finished(kind: Kind, o: Obj) -> Obj | None:
    """Pods that ended are marked, so that kubectl can tell them apart."""
    if kind.resource != "pods":
        return None
    match (o.get("status") or {}).get("phase"):
        case "Succeeded":
            message = "The pod has completed successfully."
        case "Failed":
            message = "The pod failed."
        case _:
            return None
    phase = o["status"]["phase"]
    return {"type": "Completed", "status": "True", "reason": phase, "message": message}
