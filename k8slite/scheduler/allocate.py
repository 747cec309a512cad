"""Which devices a node could give to claims (pure): a search with backtracking.

Each request wants a number of devices, or all that match; of alternatives (`firstAvailable`) the
first that works is taken. Constraints bind devices of several requests together.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from typing import Any

from attrs import define, field, frozen

from k8slite.api import quantity
from k8slite.api.meta import Obj, key
from k8slite.api.taints import tolerates
from k8slite.scheduler.devices import SHUT, Device, DeviceId, Devices, suits_node

__all__ = ["STEPS_MAX", "Unallocatable", "allocate", "missing_class"]

STEPS_MAX = 20_000
"""A search that has tried so many devices gives up on the node."""
RESULTS_MAX = 32
"""Devices of one claim."""


class Unallocatable(Exception):
    """The search was given up; the text says why."""


@frozen(eq=False)
class Wish:
    """One request, or one of its alternatives: `name` is as results have it ("gpu", "gpu/big")."""

    name: str
    body: Obj

    @property
    def requests(self) -> tuple[str, ...]:
        """The names by which constraints and configurations may mean it."""
        parent = self.name.partition("/")[0]
        return (self.name,) if parent == self.name else (self.name, parent)


@define(eq=False)
class Search:
    """`taken` changes as the search goes forward and back."""

    devices: Devices
    candidates: Sequence[Device]
    taken: set[DeviceId]
    used: dict[tuple[str, str, str, str], int] = field(factory=dict)
    """Of shared counters: (driver, pool, set, counter), in thousandths."""
    steps: int = 0


def missing_class(claim: Obj, devices: Devices) -> str:
    """Why no node could ever do: a request names a class that is not there; "" if none does."""
    for request in claim["spec"].get("devices", {}).get("requests") or ():
        for wish in alternatives(request):
            own = wish.body.get("deviceClassName")
            if own not in devices.classes:
                return f"request {wish.name}: device class {own} does not exist"
    return ""


def alternatives(request: Obj) -> list[Wish]:
    if request.get("exactly"):
        return [Wish(request["name"], request["exactly"])]
    return [
        Wish(f"{request['name']}/{each['name']}", each)
        for each in request.get("firstAvailable") or ()
    ]


def allocate(
    claims: Sequence[Obj], devices: Devices, node: str, labels: Mapping[str, str]
) -> dict[str, Obj] | None:
    """An allocation for each claim's key, or None. Raises Unallocatable."""
    candidates = [device for device in devices.all() if device.on(node, labels)]
    search = Search(devices, candidates, devices.taken())
    for device in devices.all():
        if device.id in search.taken:
            _consume(search, device, 1)
    found: dict[str, list[Obj]] = {}
    if not _all_claims(search, claims, 0, found):
        return None
    return {
        key(claim): allocation_of(claim, found[key(claim)], devices, node, labels)
        for claim in claims
    }


def _all_claims(
    search: Search, claims: Sequence[Obj], index: int, found: dict[str, list[Obj]]
) -> bool:
    if index == len(claims):
        return True
    claim = claims[index]
    spec = claim["spec"].get("devices") or {}
    for results in _requests(search, spec, spec.get("requests") or (), 0, []):
        found[key(claim)] = results
        if _all_claims(search, claims, index + 1, found):
            return True
    return False


Chosen = list[tuple[Wish, Device]]


def _requests(
    search: Search, spec: Obj, requests: Sequence[Obj], index: int, chosen: Chosen
) -> Iterator[list[Obj]]:
    """Every way to fulfil the requests from `index` on, given what was chosen before."""
    if index == len(requests):
        yield [result_of(wish, device) for wish, device in chosen]
        return
    for wish in alternatives(requests[index]):
        for more in _devices(search, spec, wish, chosen):
            yield from _requests(search, spec, requests, index + 1, [*chosen, *more])


def _devices(search: Search, spec: Obj, wish: Wish, chosen: Chosen) -> Iterator[Chosen]:
    """Every choice of devices for one wish; they are taken while the caller holds it."""
    suiting = [d for d in search.candidates if _suits(search.devices, wish, d)]
    if wish.body.get("allocationMode") == "All":
        if suiting:
            yield from _pick(search, spec, wish, chosen, suiting, len(suiting), 0)
        return
    yield from _pick(search, spec, wish, chosen, suiting, wish.body.get("count") or 1, 0)


def _pick(
    search: Search,
    spec: Obj,
    wish: Wish,
    chosen: Chosen,
    suiting: Sequence[Device],
    count: int,
    start: int,
) -> Iterator[Chosen]:
    if not count:
        yield []
        return
    if len(chosen) + count > RESULTS_MAX:
        return
    shared = bool(wish.body.get("adminAccess"))
    for i in range(start, len(suiting) - count + 1):
        device = suiting[i]
        search.steps += 1
        if search.steps > STEPS_MAX:
            raise Unallocatable("too many combinations of devices")
        if not shared and (device.id in search.taken or not _has_counters(search, device)):
            continue
        if any(device is other for _, other in chosen):
            continue
        with_it = [*chosen, (wish, device)]
        if not _constraints_hold(spec, with_it):
            continue
        if not shared:
            search.taken.add(device.id)
            _consume(search, device, 1)
        for more in _pick(search, spec, wish, with_it, suiting, count - 1, i + 1):
            yield [(wish, device), *more]
        if not shared:
            search.taken.discard(device.id)
            _consume(search, device, -1)


def _suits(devices: Devices, wish: Wish, device: Device) -> bool:
    tolerations = wish.body.get("tolerations") or ()
    for taint in device.taints():
        if taint["effect"] in SHUT and not any(tolerates(t, taint) for t in tolerations):
            return False
    of_class = devices.classes.get(wish.body.get("deviceClassName", ""))
    if of_class is None:
        return False
    selectors = (of_class.get("spec") or {}).get("selectors") or ()
    if not devices.matches(device, selectors):
        return False
    if not devices.matches(device, wish.body.get("selectors") or ()):
        return False
    wanted = (wish.body.get("capacity") or {}).get("requests") or {}
    offered = device.body.get("capacity") or {}
    return all(
        capacity in offered and quantity.parse(offered[capacity]["value"]) >= quantity.parse(amount)
        for capacity, amount in wanted.items()
    )


def _counters(device: Device) -> Iterator[tuple[tuple[str, str, str, str], int]]:
    driver, pool, _ = device.id
    for consumed in device.body.get("consumesCounters") or ():
        for counter, amount in consumed["counters"].items():
            number = quantity.milli_value(amount["value"])
            yield (driver, pool, consumed["counterSet"], counter), number


def _consume(search: Search, device: Device, sign: int) -> None:
    for counter, amount in _counters(device):
        search.used[counter] = search.used.get(counter, 0) + sign * amount


def _has_counters(search: Search, device: Device) -> bool:
    """Of what partitions of one piece of hardware share, there is enough left."""
    if not device.body.get("consumesCounters"):
        return True
    sets = search.devices.counter_sets(device.id[0], device.id[1])
    return all(
        search.used.get(counter, 0) + amount <= sets.get(counter[2], {}).get(counter[3], 0)
        for counter, amount in _counters(device)
    )


def _constraints_hold(spec: Obj, chosen: Chosen) -> bool:
    for constraint in spec.get("constraints") or ():
        about = constraint.get("requests") or ()
        values = []
        same = constraint.get("matchAttribute")
        attribute = same or constraint.get("distinctAttribute")
        for wish, device in chosen:
            if attribute and (not about or any(request in about for request in wish.requests)):
                value = device.attribute(attribute)
                if value is None:
                    return False
                values.append(value)
        distinct = len({repr(value) for value in values})
        if values and distinct != (1 if same else len(values)):
            return False
    return True


def result_of(wish: Wish, device: Device) -> Obj:
    driver, pool, own = device.id
    result: Obj = {"request": wish.name, "driver": driver, "pool": pool, "device": own}
    if wish.body.get("adminAccess"):
        result["adminAccess"] = True
    if wish.body.get("tolerations"):
        result["tolerations"] = wish.body["tolerations"]
    return result


def allocation_of(
    claim: Obj, results: Sequence[Obj], devices: Devices, node: str, labels: Mapping[str, str]
) -> Obj:
    """status.allocation: the results, what configures them, and where they can be used."""
    spec = claim["spec"].get("devices") or {}
    config: list[Obj] = []
    for request in spec.get("requests") or ():
        for wish in alternatives(request):
            if any(result["request"] == wish.name for result in results):
                of_class = devices.classes[wish.body["deviceClassName"]]
                for each in (of_class.get("spec") or {}).get("config") or ():
                    config.append({"source": "FromClass", "requests": [wish.name], **each})
    config += [{"source": "FromClaim", **each} for each in spec.get("config") or ()]
    body: dict[str, Any] = {"results": [*results]}
    if config:
        body["config"] = config
    allocation: Obj = {"devices": body}
    selector = node_selector(results, devices, node, labels)
    if selector is not None:
        allocation["nodeSelector"] = selector
    return allocation


def node_selector(
    results: Sequence[Obj], devices: Devices, node: str, labels: Mapping[str, str]
) -> Obj | None:
    """The nodes from which all of it can be reached; None: from all."""
    requirements: list[Obj] = []
    by_id = {device.id: device for device in devices.all()}
    for result in results:
        device = by_id[result["driver"], result["pool"], result["device"]]
        own = device.body if device.slice_spec.get("perDeviceNodeSelection") else device.slice_spec
        if own.get("allNodes"):
            continue
        if own.get("nodeName"):
            here = {"key": "metadata.name", "operator": "In", "values": [node]}
            return {"nodeSelectorTerms": [{"matchFields": [here]}]}
        for term in own["nodeSelector"]["nodeSelectorTerms"]:
            if suits_node({"nodeSelector": {"nodeSelectorTerms": [term]}}, node, labels):
                requirements += [
                    e for e in term.get("matchExpressions") or () if e not in requirements
                ]
                break
    return {"nodeSelectorTerms": [{"matchExpressions": requirements}]} if requirements else None
