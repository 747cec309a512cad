"""Who owns whom, over all kinds (pure): the graph that the garbage collector walks.

Owns the nodes (objects seen) and the edges (owner references by uid). An owner that is referred
to but was never seen has dependents and no node. The decisions are in `decide`.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from enum import Enum
from typing import NamedTuple

from attrs import frozen

from k8slite.api.meta import Obj, deleting, name, namespace, owner_references, uid

__all__ = [
    "FOREGROUND",
    "ORPHAN",
    "Decision",
    "Identity",
    "Node",
    "OwnerState",
    "OwnershipGraph",
    "decide",
]

FOREGROUND = "foregroundDeletion"
ORPHAN = "orphan"


class Identity(NamedTuple):
    """What it takes to find an object again; namespace is "" for those of the cluster."""

    api_version: str
    kind: str
    namespace: str
    name: str
    uid: str


@frozen
class Node:
    """What the collector knows of one object."""

    identity: Identity
    owners: tuple[Obj, ...]
    deleting: bool
    finalizers: tuple[str, ...]
    resource_version: str

    @property
    def waits_for_dependents(self) -> bool:
        """It is being deleted in the foreground: its dependents go first."""
        return self.deleting and FOREGROUND in self.finalizers

    @property
    def orphans_dependents(self) -> bool:
        return self.deleting and ORPHAN in self.finalizers


def node_of(obj: Obj) -> Node:
    metadata = obj["metadata"]
    return Node(
        Identity(obj["apiVersion"], obj["kind"], namespace(obj), name(obj), uid(obj)),
        tuple(owner_references(obj)),
        deleting(obj),
        tuple(metadata.get("finalizers") or ()),
        metadata.get("resourceVersion", ""),
    )


class OwnershipGraph:
    """Nodes by uid, dependents by the owner's uid, both in order of arrival."""

    def __init__(self) -> None:
        self._nodes: dict[str, Node] = {}
        self._dependents: dict[str, dict[str, None]] = {}

    def __len__(self) -> int:
        return len(self._nodes)

    def get(self, object_uid: str) -> Node | None:
        return self._nodes.get(object_uid)

    def dependents(self, object_uid: str) -> list[Node]:
        return [self._nodes[u] for u in self._dependents.get(object_uid, ())]

    def put(self, obj: Obj) -> list[str]:
        """Note an object; the uids that must be looked at because of it."""
        node = node_of(obj)
        own = node.identity.uid
        before = self._nodes.get(own)
        if before is not None:
            self._unlink(before)
        self._nodes[own] = node
        for reference in node.owners:
            self._dependents.setdefault(reference["uid"], {})[own] = None
        look: dict[str, None] = {}
        if node.owners and (before is None or before.owners != node.owners):
            for reference in node.owners:
                owner = self._nodes.get(reference["uid"])
                if owner is None or owner.waits_for_dependents:
                    look[own] = None
        if node.waits_for_dependents or node.orphans_dependents:
            look[own] = None
        for reference in before.owners if before else ():
            owner = self._nodes.get(reference["uid"])
            if owner is not None and owner.waits_for_dependents:
                look[reference["uid"]] = None  # it may have stopped being blocked by us
        return [*look]

    def remove(self, object_uid: str) -> list[str]:
        """Forget an object; its dependents, and owners that waited for it, must be looked at."""
        node = self._nodes.pop(object_uid, None)
        if node is None:
            return []
        self._unlink(node)
        look = dict.fromkeys(self._dependents.get(object_uid, ()))
        for reference in node.owners:
            owner = self._nodes.get(reference["uid"])
            if owner is not None and owner.waits_for_dependents:
                look[reference["uid"]] = None
        return [*look]

    def _unlink(self, node: Node) -> None:
        for reference in node.owners:
            dependents = self._dependents.get(reference["uid"])
            if dependents is not None:
                dependents.pop(node.identity.uid, None)
                if not dependents:
                    del self._dependents[reference["uid"]]


class OwnerState(Enum):
    """What an owner reference points at."""

    SOLID = "it exists"
    WAITING = "it exists, is being deleted in the foreground and waits for its dependents"
    ABSENT = "no object with that uid exists"


class Decision(NamedTuple):
    """What to do with one object: exactly one field is set, or none.

    `delete`: the propagation policy to delete it with. `keep_owners`: replace its owner
    references by these. `drop_finalizer`: remove this finalizer. `look`: look at these dependents
    first. `orphan`: take our reference off these dependents, then the finalizer `orphan`.
    """

    delete: str = ""
    keep_owners: Sequence[Obj] | None = None
    drop_finalizer: str = ""
    look: Sequence[str] = ()
    orphan: Sequence[Node] = ()


NOTHING = Decision()


def decide(
    node: Node, dependents: Sequence[Node], state_of: Callable[[Obj], OwnerState]
) -> Decision:
    """What becomes of an object, given its dependents and the state of each of its owners."""
    if node.waits_for_dependents:
        return _decide_foreground(node, dependents)
    if node.orphans_dependents:
        if dependents:
            return Decision(orphan=dependents)
        return Decision(drop_finalizer=ORPHAN)
    if node.deleting or not node.owners:
        return NOTHING
    states = [(reference, state_of(reference)) for reference in node.owners]
    solid = [r for r, state in states if state is OwnerState.SOLID]
    if solid:
        return Decision(keep_owners=solid) if len(solid) < len(states) else NOTHING
    if any(state is OwnerState.WAITING for _, state in states) and dependents:
        # Its own dependents are part of what the owner waits for.
        return Decision(delete="Foreground")
    if ORPHAN in node.finalizers:
        return Decision(delete="Orphan")
    return Decision(delete="Foreground" if FOREGROUND in node.finalizers else "Background")


def _decide_foreground(node: Node, dependents: Sequence[Node]) -> Decision:
    own = node.identity.uid
    blocking = [
        d
        for d in dependents
        if any(r["uid"] == own and r.get("blockOwnerDeletion") for r in d.owners)
    ]
    if not blocking:
        return Decision(drop_finalizer=FOREGROUND)
    return Decision(look=[d.identity.uid for d in blocking if not d.deleting])
