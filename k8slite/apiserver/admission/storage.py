"""Volumes: the default class."""

from __future__ import annotations

from k8slite.api.kinds import STORAGE_CLASSES
from k8slite.api.meta import Obj
from k8slite.apiserver.call import Call

__all__ = ["default_storage_class"]

_DEFAULT = "storageclass.kubernetes.io/is-default-class"


async def default_storage_class(call: Call, new: Obj, old: Obj | None) -> None:
    """A claim that names no class gets the newest default one."""
    spec = new.setdefault("spec", {})
    if old is not None or spec.get("storageClassName") is not None:
        return
    if "volume.beta.kubernetes.io/storage-class" in (new["metadata"].get("annotations") or {}):
        return
    found: list[tuple[str, str]] = []
    for entry in call.core.mirror.cache(STORAGE_CLASSES).entries.values():
        metadata = entry.parsed()["metadata"]
        if (metadata.get("annotations") or {}).get(_DEFAULT) == "true":
            found.append((metadata.get("creationTimestamp", ""), entry.name))
    if found:
        newest = max(created for created, _ in found)
        spec["storageClassName"] = min(name for created, name in found if created == newest)
