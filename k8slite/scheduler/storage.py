"""Claims, volumes and classes as the scheduler sees them, and what it has promised (pure).

Owns: which free volumes are kept for which claims of pods that are being bound.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from decimal import Decimal

from attrs import define, field, frozen

from k8slite.api import meta, quantity
from k8slite.api.meta import Obj, deleting, is_controlled_by, make_key, name, namespace
from k8slite.api.node_affinity import matches_term
from k8slite.api.selectors import from_object
from k8slite.api.volume_match import best_volume, class_of, requested

__all__ = ["COMPLETED", "SELECTED_NODE", "Needs", "Storage", "Unusable", "allowed_by", "reaches"]

COMPLETED = "pv.kubernetes.io/bind-completed"
SELECTED_NODE = "volume.kubernetes.io/selected-node"
NO_PROVISIONER = "kubernetes.io/no-provisioner"


class Unusable(Exception):
    """The pod cannot go anywhere as its claims are; the text says why."""


@frozen
class Needs:
    """What the pod's claims demand of a node: volumes that are there, claims still to be bound."""

    volumes: tuple[Obj, ...] = ()
    unbound: tuple[Obj, ...] = ()


@define(eq=False)
class Storage:
    """Objects by key. `kept`: by name of a free volume, the key of the claim it is kept for."""

    claims: dict[str, Obj] = field(factory=dict)
    volumes: dict[str, Obj] = field(factory=dict)
    classes: dict[str, Obj] = field(factory=dict)
    kept: dict[str, str] = field(factory=dict)
    csi_nodes: dict[str, Obj] = field(factory=dict)
    csi_drivers: dict[str, Obj] = field(factory=dict)
    capacities: dict[str, Obj] = field(factory=dict)
    attachments: dict[str, Obj] = field(factory=dict)

    def volume_of(self, claim_key: str) -> Obj | None:
        """The volume that the claim is bound to."""
        claim = self.claims.get(claim_key)
        own = "" if claim is None else claim["spec"].get("volumeName")
        return self.volumes.get(own) if own else None

    def attached(self, node: str) -> set[tuple[str, str]]:
        """(driver, volume handle) of what is attached to the node, or about to be."""
        found: set[tuple[str, str]] = set()
        for attachment in self.attachments.values():
            spec = attachment["spec"]
            volume = self.volumes.get((spec.get("source") or {}).get("persistentVolumeName") or "")
            if spec.get("nodeName") == node and volume is not None:
                handle = (volume["spec"].get("csi") or {}).get("volumeHandle")
                if handle:
                    found.add((spec["attacher"], handle))
        return found

    def has_capacity(self, claims: Sequence[Obj], labels: Mapping[str, str]) -> bool:
        """Could these be provisioned here, as far as their drivers publish what they have left?"""
        for claim in claims:
            chosen = self.classes.get(class_of(claim)) or {}
            driver = self.csi_drivers.get(chosen.get("provisioner") or "")
            if driver is None or not driver["spec"].get("storageCapacity"):
                continue
            wanted = quantity.parse(requested(claim))
            if not any(
                capacity.get("storageClassName") == name(chosen)
                and _has_room(capacity, wanted)
                and from_object(capacity.get("nodeTopology")).matches(labels)
                for capacity in self.capacities.values()
            ):
                return False
        return True

    def needs(self, pod: Obj) -> Needs | None:
        """None for a pod without claims. Raises Unusable."""
        volumes: list[Obj] = []
        unbound: list[Obj] = []
        found = False
        for volume in pod["spec"].get("volumes") or ():
            own = _claim_name(pod, volume)
            if not own:
                continue
            found = True
            claim = self._claim(pod, volume, own)
            bound = claim["spec"].get("volumeName")
            if bound and meta.annotations(claim).get(COMPLETED):
                there = self.volumes.get(bound)
                if there is None:
                    raise Unusable(f'persistentvolume "{bound}" not found')
                volumes.append(there)
            elif bound or not self._waits(claim):
                raise Unusable("pod has unbound immediate PersistentVolumeClaims")
            else:
                unbound.append(claim)
        return Needs(tuple(volumes), tuple(unbound)) if found else None

    def _claim(self, pod: Obj, volume: Obj, own: str) -> Obj:
        claim = self.claims.get(make_key(namespace(pod), own))
        ephemeral = "ephemeral" in volume
        if claim is None and ephemeral:
            raise Unusable(
                "waiting for ephemeral volume controller to create the "
                f'persistentvolumeclaim "{own}"'
            )
        if claim is None:
            raise Unusable(f'persistentvolumeclaim "{own}" not found')
        if (claim.get("status") or {}).get("phase") == "Lost":
            raise Unusable(f'persistentvolumeclaim "{own}" bound to non-existent persistentvolume')
        if deleting(claim):
            raise Unusable(f'persistentvolumeclaim "{own}" is being deleted')
        if ephemeral and not is_controlled_by(claim, pod):
            raise Unusable(f'PVC "{own}" was not created for the pod "{name(pod)}"')
        return claim

    def _waits(self, claim: Obj) -> bool:
        chosen = self.classes.get(class_of(claim)) or {}
        return bool(chosen.get("volumeBindingMode") == "WaitForFirstConsumer")

    def choose(
        self, claims: tuple[Obj, ...], labels: Mapping[str, str], node: str
    ) -> dict[str, str] | None:
        """For claims still to be bound, on one node: the volume for each claim's key, or "" for
        one to be provisioned; None if some claim finds nothing there."""
        chosen: dict[str, str] = {}
        for claim in claims:
            wanted = meta.annotations(claim).get(SELECTED_NODE)
            if wanted and wanted != node:
                return None
            key = meta.key(claim)
            if wanted:
                chosen[key] = ""
                continue
            free = [
                volume
                for own, volume in self.volumes.items()
                if self.kept.get(own, key) == key
                and own not in chosen.values()
                and reaches(volume, labels, node)
            ]
            volume = best_volume(claim, free)
            if volume is not None:
                chosen[key] = name(volume)
            elif self._provisions(claim, labels, node):
                chosen[key] = ""
            else:
                return None
        return chosen

    def _provisions(self, claim: Obj, labels: Mapping[str, str], node: str) -> bool:
        chosen = self.classes.get(class_of(claim)) or {}
        if chosen.get("provisioner") in (None, NO_PROVISIONER):
            return False
        topologies = chosen.get("allowedTopologies") or ()
        return not topologies or any(_allows(term, labels) for term in topologies)


def _claim_name(pod: Obj, volume: Obj) -> str:
    if volume.get("persistentVolumeClaim"):
        own: str = volume["persistentVolumeClaim"]["claimName"]
        return own
    return f"{name(pod)}-{volume['name']}" if "ephemeral" in volume else ""


def _has_room(capacity: Obj, wanted: Decimal) -> bool:
    largest = capacity.get("maximumVolumeSize") or capacity.get("capacity")
    return largest is not None and quantity.parse(largest) >= wanted


def _allows(term: Obj, labels: Mapping[str, str]) -> bool:
    expressions = term.get("matchLabelExpressions") or ()
    return all(labels.get(e["key"]) in e["values"] for e in expressions)


def reaches(volume: Obj, labels: Mapping[str, str], node: str) -> bool:
    """Can the node use the volume?"""
    return allowed_by((volume["spec"].get("nodeAffinity") or {}).get("required"), labels, node)


def allowed_by(selector: Obj | None, labels: Mapping[str, str], node: str) -> bool:
    """Does a NodeSelector choose the node? None chooses all."""
    if selector is None:
        return True
    return any(matches_term(t, labels, node) for t in selector.get("nodeSelectorTerms") or ())
