"""Kinds served in more than one version: how the stored shape becomes another and back.

Owns: the table of kinds whose versions differ in more than their name. All others are stored
and served in the same shape, whatever the version in the path. Pure.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

from k8slite.api.kinds import Kind
from k8slite.api.meta import Obj

__all__ = ["from_stored", "is_stored_version", "to_stored"]

_Convert = Callable[[Obj], Obj]


def is_stored_version(kind: Kind) -> bool:
    """Are stored bytes of this kind its JSON in this version?"""
    return not kind.stored_as and (kind.resource, kind.version) not in _CONVERSIONS


def from_stored(kind: Kind, obj: Obj) -> Obj:
    """A stored object in the version of `kind`; may change and return its argument."""
    found = _CONVERSIONS.get((kind.resource, kind.version))
    if found is not None:
        obj = found[0](obj)
    obj["apiVersion"] = kind.api_version
    obj["kind"] = kind.kind
    return obj


def to_stored(kind: Kind, obj: Obj) -> Obj:
    """An object in the version of `kind` in the stored shape; may change and return it."""
    found = _CONVERSIONS.get((kind.resource, kind.version))
    return obj if found is None else found[1](obj)


def _rename(obj: Obj, names: dict[str, str]) -> Obj:
    return {names.get(key, key): value for key, value in obj.items()}


_EVENT_FIELDS = {
    "involvedObject": "regarding",
    "message": "note",
    "source": "deprecatedSource",
    "firstTimestamp": "deprecatedFirstTimestamp",
    "lastTimestamp": "deprecatedLastTimestamp",
    "count": "deprecatedCount",
    "reportingComponent": "reportingController",
}
_EVENT_FIELDS_BACK = {new: old for old, new in _EVENT_FIELDS.items()}


def _event_from_stored(obj: Obj) -> Obj:
    return _rename(obj, _EVENT_FIELDS)


def _event_to_stored(obj: Obj) -> Obj:
    stored = _rename(obj, _EVENT_FIELDS_BACK)
    stored.setdefault("source", {})
    stored.setdefault("firstTimestamp", None)
    stored.setdefault("lastTimestamp", None)
    return stored


def _scaler_from_stored(obj: Obj) -> Obj:
    """autoscaling/v2 to v1: the CPU utilisation metric becomes a field."""
    spec: dict[str, Any] = dict(obj.get("spec") or {})
    metrics = spec.pop("metrics", None) or []
    spec.pop("behavior", None)
    for metric in metrics:
        target = (metric.get("resource") or {}).get("target") or {}
        if (metric.get("resource") or {}).get("name") == "cpu" and "averageUtilization" in target:
            spec["targetCPUUtilizationPercentage"] = target["averageUtilization"]
    status: dict[str, Any] = {"currentReplicas": 0, "desiredReplicas": 0}
    given = obj.get("status") or {}
    for key in ("observedGeneration", "lastScaleTime", "currentReplicas", "desiredReplicas"):
        if given.get(key) is not None:
            status[key] = given[key]
    return {**obj, "spec": spec, "status": status}


def _scaler_to_stored(obj: Obj) -> Obj:
    spec: dict[str, Any] = dict(obj.get("spec") or {})
    percentage = spec.pop("targetCPUUtilizationPercentage", None)
    if percentage is not None:
        spec["metrics"] = [
            {
                "type": "Resource",
                "resource": {
                    "name": "cpu",
                    "target": {"type": "Utilization", "averageUtilization": percentage},
                },
            }
        ]
    return {**obj, "spec": spec}


_CONVERSIONS: dict[tuple[str, str], tuple[_Convert, _Convert]] = {
    ("events.events.k8s.io", "v1"): (_event_from_stored, _event_to_stored),
    ("horizontalpodautoscalers.autoscaling", "v1"): (_scaler_from_stored, _scaler_to_stored),
}
