"""What a plan may ask for (pure values); `execute` carries it out.

A plan is a list of actions in the order in which they must happen. Actions say on which version
of an object they were planned (resourceVersion or uid), so that a plan made from an old view
fails with a conflict instead of doing harm, and is made again.
"""

from __future__ import annotations

from typing import Any

from attrs import frozen

from k8slite.api.kinds import Kind
from k8slite.api.meta import Obj, name, namespace, resource_version, uid

__all__ = [
    "Action",
    "Create",
    "Delete",
    "Note",
    "Patch",
    "Update",
    "delete",
    "patch_metadata",
]


@frozen
class Create:
    kind: Kind
    obj: Obj


@frozen
class Update:
    """PUT of an object or one of its subresources, at the resourceVersion it carries."""

    kind: Kind
    obj: Obj
    subresource: str = ""


@frozen
class Patch:
    """A merge patch."""

    kind: Kind
    namespace: str
    name: str
    patch: Any
    subresource: str = ""


@frozen
class Delete:
    """Deletion of the object with this uid; that it is gone already is success."""

    kind: Kind
    namespace: str
    name: str
    uid: str
    grace_period_seconds: int | None = None
    propagation: str | None = None


@frozen
class Note:
    """An event for people."""

    obj: Obj
    type: str
    reason: str
    message: str


Action = Create | Update | Patch | Delete | Note


def delete(kind: Kind, obj: Obj, **options: Any) -> Delete:
    """The deletion of just this object (not of a later one of its name)."""
    return Delete(kind, namespace(obj), name(obj), uid(obj), **options)


def patch_metadata(kind: Kind, obj: Obj, metadata: Obj) -> Patch:
    """A change of metadata, on condition that the object is as the planner saw it."""
    held = {"uid": uid(obj), "resourceVersion": resource_version(obj)}
    return Patch(kind, namespace(obj), name(obj), {"metadata": {**held, **metadata}})
