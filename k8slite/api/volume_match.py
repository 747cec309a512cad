"""Which volume suits a claim (pure): class, size, modes, labels; prebound ones first."""

from __future__ import annotations

from collections.abc import Iterable

from k8slite.api import meta, quantity
from k8slite.api.kinds import PERSISTENT_VOLUME_CLAIMS
from k8slite.api.meta import Obj, deleting, labels, name, namespace, uid
from k8slite.api.selectors import from_object

__all__ = ["best_volume", "class_of", "claim_reference", "is_for", "requested", "why_not"]

OLD_CLASS = "volume.beta.kubernetes.io/storage-class"


def class_of(obj: Obj) -> str:
    """The class a claim asks for or a volume has; "" for none."""
    old: str | None = meta.annotations(obj).get(OLD_CLASS)
    found: str = old if old is not None else obj["spec"].get("storageClassName") or ""
    return found


def requested(claim: Obj) -> str:
    amount: str = ((claim["spec"].get("resources") or {}).get("requests") or {}).get("storage", "0")
    return amount


def capacity(volume: Obj) -> str:
    amount: str = (volume["spec"].get("capacity") or {}).get("storage", "0")
    return amount


def claim_reference(claim: Obj) -> Obj:
    return {
        "kind": PERSISTENT_VOLUME_CLAIMS.kind,
        "apiVersion": "v1",
        "namespace": namespace(claim),
        "name": name(claim),
        "uid": uid(claim),
        "resourceVersion": meta.resource_version(claim),
    }


def is_for(volume: Obj, claim: Obj) -> bool:
    """Is the volume bound to just this claim, or kept for one of its name?"""
    reference = volume["spec"].get("claimRef") or {}
    same = (reference.get("namespace"), reference.get("name")) == (namespace(claim), name(claim))
    return same and reference.get("uid") in (None, "", uid(claim))


def why_not(volume: Obj, claim: Obj) -> str:
    """Why the claim could not use the volume, whoever has it; "" if it could."""
    spec, asked = volume["spec"], claim["spec"]
    if quantity.parse(capacity(volume)) < quantity.parse(requested(claim)):
        return "requested PV is too small"
    if class_of(volume) != class_of(claim):
        return "storageClassName does not match"
    if spec.get("volumeMode", "Filesystem") != asked.get("volumeMode", "Filesystem"):
        return "incompatible volumeMode"
    if not set(asked.get("accessModes") or ()) <= set(spec.get("accessModes") or ()):
        return "incompatible accessMode"
    return ""


def best_volume(claim: Obj, volumes: Iterable[Obj], *, prebound_only: bool = False) -> Obj | None:
    """The volume kept for the claim, or else the smallest free one that suits it."""
    wanted = claim["spec"].get("selector")
    selector = from_object(wanted) if wanted else None
    found: Obj | None = None
    for volume in volumes:
        if volume["spec"].get("claimRef"):
            if is_for(volume, claim) and (
                volume["spec"]["claimRef"].get("uid") or not why_not(volume, claim)
            ):
                return volume
            continue
        phase = (volume.get("status") or {}).get("phase")
        if prebound_only or deleting(volume) or phase not in (None, "Pending", "Available"):
            continue
        if why_not(volume, claim):
            continue
        if selector is not None and not selector.matches(labels(volume)):
            continue
        if found is None or _rank(volume) < _rank(found):
            found = volume
    return found


def _rank(volume: Obj) -> tuple[object, ...]:
    return quantity.parse(capacity(volume)), name(volume)
