"""Who owns what (pure): claiming objects by selector and controller reference."""

from __future__ import annotations

from collections.abc import Iterable
from typing import NamedTuple

from k8slite.api.kinds import Kind
from k8slite.api.meta import (
    Obj,
    controller_of,
    deleting,
    labels,
    make_key,
    namespace,
    owner_reference,
    owner_references,
    uid,
)
from k8slite.api.selectors import LabelSelector
from k8slite.controllers.actions import Patch, patch_metadata

__all__ = ["Claims", "adoption", "claim", "controller_key", "controller_uid_index", "release"]


class Claims(NamedTuple):
    """Of the objects seen: ours, those to adopt (orphans that match), those to let go."""

    owned: list[Obj]
    adopt: list[Obj]
    release: list[Obj]


def claim(owner: Obj, selector: LabelSelector, objects: Iterable[Obj]) -> Claims:
    """Sort the objects of the owner's namespace.

    An object with another controller is not touched. An orphan is adopted if it matches; a
    terminating owner or a terminating orphan adopts and is adopted no more.
    """
    claims = Claims([], [], [])
    for obj in objects:
        reference = controller_of(obj)
        matches = selector.matches(labels(obj))
        if reference is not None:
            if reference["uid"] == uid(owner):
                if matches or deleting(owner):
                    claims.owned.append(obj)
                else:
                    claims.release.append(obj)
        elif matches and not deleting(owner) and not deleting(obj):
            claims.adopt.append(obj)
    return claims


def adoption(kind: Kind, owner_kind: Kind, owner: Obj, obj: Obj) -> Patch:
    """Make the owner the object's controller."""
    reference = owner_reference(owner_kind, owner)
    return patch_metadata(kind, obj, {"ownerReferences": [*owner_references(obj), reference]})


def release(kind: Kind, owner: Obj, obj: Obj) -> Patch:
    """Take the owner's reference off the object."""
    rest = [r for r in owner_references(obj) if r["uid"] != uid(owner)]
    return patch_metadata(kind, obj, {"ownerReferences": rest or None})


def controller_key(obj: Obj, kind: Kind) -> str | None:
    """The key of the object's controller, if that is of this kind."""
    reference = controller_of(obj)
    if reference is None or reference["kind"] != kind.kind:
        return None
    if reference["apiVersion"].rpartition("/")[0] != kind.group:
        return None
    return make_key(namespace(obj), reference["name"])


def controller_uid_index(obj: Obj) -> list[str]:
    """Index: objects by their controller's uid; orphans by their namespace, as "orphan/NS"."""
    reference = controller_of(obj)
    return [reference["uid"]] if reference else [f"orphan/{namespace(obj)}"]
