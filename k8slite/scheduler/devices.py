"""Claims for devices, their classes, and the devices that drivers publish (pure).

Dynamic resource allocation, resource.k8s.io/v1. Owns: which devices are taken, by claims that are
allocated or by claims of pods that are being bound (`promised`).
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from typing import Any

from attrs import define, field, frozen

from k8slite.api import quantity
from k8slite.api.cel import CompileError, EvaluationError, compile_expression
from k8slite.api.meta import Obj, deleting, is_controlled_by, make_key, name, namespace
from k8slite.api.node_affinity import matches_term

__all__ = ["Device", "DeviceId", "Devices", "NotReady", "claims_of", "suits_node"]

DeviceId = tuple[str, str, str]
"""(driver, pool, device)"""
SHUT = ("NoSchedule", "NoExecute")


class NotReady(Exception):
    """A claim of the pod is not there, or cannot be used; the text says why."""


@frozen(eq=False)
class Device:
    """One device that a driver offers, and what of its slice decides where it can be used."""

    id: DeviceId
    body: Obj
    slice_spec: Obj
    view: Mapping[str, Any]
    """What an expression sees as `device`."""

    def on(self, node: str, labels: Mapping[str, str]) -> bool:
        where = self.body if self.slice_spec.get("perDeviceNodeSelection") else self.slice_spec
        return suits_node(where, node, labels)

    def attribute(self, attribute: str) -> Any:
        """The value of an attribute by its qualified name; None if it has none."""
        domain, slash, own = attribute.rpartition("/")
        found = self.body.get("attributes") or {}
        value = found.get(attribute)
        if value is None and slash and domain == self.id[0]:
            value = found.get(own)
        return None if value is None else next(iter(value.values()), None)

    def taints(self) -> Sequence[Obj]:
        return self.body.get("taints") or ()


def suits_node(where: Obj, node: str, labels: Mapping[str, str]) -> bool:
    """Of a slice, or of a device with its own selection: can it be reached from the node?"""
    if where.get("allNodes"):
        return True
    if where.get("nodeName"):
        return bool(where["nodeName"] == node)
    selector = where.get("nodeSelector")
    terms = (selector or {}).get("nodeSelectorTerms") or ()
    return any(matches_term(term, labels, node) for term in terms)


@define(eq=False)
class Devices:
    """Objects by key; `promised`: claims that are being allocated, with their allocation."""

    claims: dict[str, Obj] = field(factory=dict)
    classes: dict[str, Obj] = field(factory=dict)
    slices: dict[str, Obj] = field(factory=dict)
    promised: dict[str, Obj] = field(factory=dict)
    _pools: list[Device] | None = None
    _matches: dict[tuple[DeviceId, str], bool] = field(factory=dict)

    def slices_changed(self) -> None:
        self._pools = None
        self._matches.clear()

    def all(self) -> Sequence[Device]:
        """Devices of all complete pools, of their newest generation only."""
        if self._pools is None:
            self._pools = [*self._read()]
        return self._pools

    def _read(self) -> Iterator[Device]:
        pools: dict[tuple[str, str], list[Obj]] = {}
        for each in self.slices.values():
            spec = each["spec"]
            pools.setdefault((spec["driver"], spec["pool"]["name"]), []).append(spec)
        for (driver, pool), specs in sorted(pools.items()):
            newest = max(spec["pool"].get("generation", 0) for spec in specs)
            current = [s for s in specs if s["pool"].get("generation", 0) == newest]
            if len(current) != current[0]["pool"]["resourceSliceCount"]:
                continue
            for spec in current:
                for body in spec.get("devices") or ():
                    yield Device((driver, pool, body["name"]), body, spec, _view(driver, body))

    def counter_sets(self, driver: str, pool: str) -> dict[str, dict[str, int]]:
        """What the devices of a pool share: counter sets, by name their counters."""
        return {
            each["name"]: {c: quantity.milli_value(v["value"]) for c, v in each["counters"].items()}
            for spec in (s["spec"] for s in self.slices.values())
            if (spec["driver"], spec["pool"]["name"]) == (driver, pool)
            for each in spec.get("sharedCounters") or ()
        }

    def taken(self) -> set[DeviceId]:
        """Devices of allocated and promised claims; administrators' access takes none."""
        found = set()
        for key, claim in self.claims.items():
            allocation = self.promised.get(key) or (claim.get("status") or {}).get("allocation")
            for result in ((allocation or {}).get("devices") or {}).get("results") or ():
                if not result.get("adminAccess"):
                    found.add((result["driver"], result["pool"], result["device"]))
        return found

    def allocation(self, claim_key: str) -> Obj | None:
        found: Obj | None = self.promised.get(claim_key)
        if found is None:
            claim = self.claims.get(claim_key)
            found = ((claim or {}).get("status") or {}).get("allocation")
        return found

    def matches(self, device: Device, selectors: Sequence[Obj]) -> bool:
        """All selectors choose the device; one that cannot be evaluated chooses nothing."""
        return all(self._chooses(s["cel"]["expression"], device) for s in selectors if "cel" in s)

    def _chooses(self, expression: str, device: Device) -> bool:
        key = (device.id, expression)
        found = self._matches.get(key)
        if found is None:
            try:
                program = compile_expression(expression, ("device",), "bool")
                found = program.evaluate({"device": device.view}) is True
            except (CompileError, EvaluationError):
                found = False
            self._matches[key] = found
        return found


def _view(driver: str, body: Obj) -> Mapping[str, Any]:
    attributes: dict[str, dict[str, Any]] = {driver: {}}
    for attribute, value in (body.get("attributes") or {}).items():
        domain, slash, own = attribute.rpartition("/")
        attributes.setdefault(domain if slash else driver, {})[own] = _value(value)
    capacity: dict[str, dict[str, Any]] = {driver: {}}
    for attribute, value in (body.get("capacity") or {}).items():
        domain, slash, own = attribute.rpartition("/")
        capacity.setdefault(domain if slash else driver, {})[own] = _quantity(value["value"])
    return {
        "driver": driver,
        "attributes": attributes,
        "capacity": capacity,
        "allowMultipleAllocations": bool(body.get("allowMultipleAllocations")),
    }


def _value(value: Obj) -> Any:
    if "version" in value:
        from k8slite.api.cel.library import message

        return message("V", value["version"])
    return next(iter(value.values()), None)


def _quantity(text: str) -> Any:
    from k8slite.api.cel.library import message

    return message("Q", f"{quantity.parse(text).normalize():f}")


def claims_of(pod: Obj, devices: Devices) -> list[Obj]:
    """The ResourceClaims of a pod. Raises NotReady."""
    statuses = {
        each["name"]: each.get("resourceClaimName")
        for each in (pod.get("status") or {}).get("resourceClaimStatuses") or ()
    }
    found = []
    for wanted in pod["spec"].get("resourceClaims") or ():
        own = wanted.get("resourceClaimName")
        made = own is None
        if made:
            if wanted["name"] not in statuses:
                raise NotReady(f'pod "{name(pod)}": ResourceClaim not created yet')
            own = statuses[wanted["name"]]
            if own is None:
                continue  # none is needed
        claim = devices.claims.get(make_key(namespace(pod), own))
        if claim is None:
            raise NotReady(f'resourceclaim.resource.k8s.io "{own}" not found')
        if made and not is_controlled_by(claim, pod):
            raise NotReady(f'ResourceClaim "{own}" was not created for pod "{name(pod)}"')
        if deleting(claim):
            raise NotReady(f'resourceclaim "{own}" is being deleted')
        found.append(claim)
    return found
