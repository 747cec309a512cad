"""EndpointSlices: the addresses behind each Service, at most 100 a slice.

`plan` is pure: it keeps endpoints in the slices where they are, fills slices that change anyway,
and makes new ones only for what does not fit, so that a change of one pod writes one slice.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Sequence

from k8slite.api import meta
from k8slite.api.kinds import ENDPOINT_SLICES, NODES, SERVICES
from k8slite.api.meta import Obj, deleting, format_time, key, name, namespace, owner_reference
from k8slite.controllers.actions import Action, Create, Delete, Update, delete
from k8slite.controllers.context import Context
from k8slite.controllers.execute import carry_out
from k8slite.controllers.expectations import Expectations
from k8slite.controllers.services.service_loop import ServiceLoop
from k8slite.controllers.services.service_pods import (
    Port,
    address_of,
    family_of,
    has_selector,
    hostname_of,
    is_headless,
    pod_address,
    pods_of,
    ports_of,
    publishes_not_ready,
    target_reference,
)
from k8slite.controllers.workloads.pods import is_ready

__all__ = ["ENDPOINTS_PER_SLICE_MAX", "endpoint_of", "plan", "run_endpointslice_controller"]

ENDPOINTS_PER_SLICE_MAX = 100
SERVICE_NAME = "kubernetes.io/service-name"
MANAGED_BY = "endpointslice.kubernetes.io/managed-by"
CONTROLLER = "endpointslice-controller.k8s.io"
HEADLESS = "service.kubernetes.io/headless"
ZONE = "topology.kubernetes.io/zone"
SAME_NODE = "PreferSameNode"
CHANGED = "endpoints.kubernetes.io/last-change-trigger-time"


def endpoint_of(service: Obj, pod: Obj, family: str = "IPv4", zone: str = "") -> Obj:
    """One pod as an endpoint; `ready` says no for a terminating pod, `serving` does not care."""
    terminating = deleting(pod)
    serving = is_ready(pod)
    ready = publishes_not_ready(service) or (serving and not terminating)
    endpoint: Obj = {
        "addresses": [address_of(pod, family)],
        "conditions": {"ready": ready, "serving": serving, "terminating": terminating},
        "targetRef": target_reference(pod),
    }
    if pod["spec"].get("nodeName"):
        endpoint["nodeName"] = pod["spec"]["nodeName"]
    if zone:
        endpoint["zone"] = zone
    hostname = hostname_of(service, pod)
    if hostname:
        endpoint["hostname"] = hostname
    hints = hints_of(service, endpoint)
    if hints:
        endpoint["hints"] = hints
    return endpoint


def hints_of(service: Obj, endpoint: Obj) -> Obj:
    """For whom the endpoint is: with `trafficDistribution`, for clients that are near."""
    wish = service["spec"].get("trafficDistribution")
    if not wish or not endpoint["conditions"]["ready"]:
        return {}
    hints: Obj = {}
    if endpoint.get("zone"):
        hints["forZones"] = [{"name": endpoint["zone"]}]
    if wish == SAME_NODE and endpoint.get("nodeName"):
        hints["forNodes"] = [{"name": endpoint["nodeName"]}]
    return hints


def families_of(service: Obj, pods: Sequence[Obj]) -> list[str]:
    """A Service says its families; one that does not (headless, without a selector once) has those
    of its pods."""
    said = service["spec"].get("ipFamilies")
    if said:
        return [*said]
    found = dict.fromkeys(family_of(pod_address(pod)) for pod in pods)
    return [*found] or ["IPv4"]


def plan(
    service: Obj,
    pods: Iterable[Obj],
    slices: Sequence[Obj],
    now: float,
    zone_of: Callable[[str], str] = lambda node: "",
) -> list[Action]:
    """Make the service's slices right; `slices` are those we manage, `zone_of` knows nodes' zones.
    Each family of addresses has slices of its own."""
    chosen = pods_of(service, pods)
    families = families_of(service, chosen)
    actions: list[Action] = [
        delete(ENDPOINT_SLICES, one) for one in slices if one["addressType"] not in families
    ]
    for family in families:
        endpoints: dict[tuple[Port, ...], dict[str, Obj]] = {}
        for pod in chosen:
            if address_of(pod, family):
                zone = zone_of(pod["spec"].get("nodeName") or "")
                of_ports = endpoints.setdefault(ports_of(service, pod), {})
                of_ports[meta.uid(pod)] = endpoint_of(service, pod, family, zone)
        own = [one for one in slices if one["addressType"] == family]
        actions += _plan_family(service, family, endpoints, own, now)
    return actions


def _plan_family(
    service: Obj,
    family: str,
    desired: dict[tuple[Port, ...], dict[str, Obj]],
    slices: Sequence[Obj],
    now: float,
) -> list[Action]:
    by_ports: dict[tuple[Port, ...], list[Obj]] = {}
    actions: list[Action] = []
    for one in slices:
        ports = _ports_in(one)
        if ports in desired:
            by_ports.setdefault(ports, []).append(one)
        elif desired or one is not slices[0]:
            actions.append(delete(ENDPOINT_SLICES, one))
        else:  # no endpoint at all: one slice stays, empty, to say just that
            by_ports.setdefault((), []).append(one)
    if not desired:
        desired[()] = {}
    for ports in sorted(desired):
        existing = by_ports.get(ports, [])
        actions += _plan_ports(service, family, ports, desired[ports], existing, now)
    return actions


def _plan_ports(
    service: Obj,
    family: str,
    ports: tuple[Port, ...],
    desired: dict[str, Obj],
    slices: list[Obj],
    now: float,
) -> list[Action]:
    """Endpoints with the same ports: which slice holds which."""
    rest = dict(desired)
    contents: list[list[Obj]] = []
    for one in slices:
        kept = []
        for endpoint in one.get("endpoints") or ():
            wanted = rest.pop((endpoint.get("targetRef") or {}).get("uid", ""), None)
            if wanted is not None:
                kept.append(wanted)
        contents.append(kept)
    waiting = [rest[uid] for uid in rest]
    # Slices that must be written anyway take new endpoints first, then those with room.
    order = sorted(range(len(slices)), key=lambda i: _same(slices[i], contents[i]))
    for i in order:
        room = ENDPOINTS_PER_SLICE_MAX - len(contents[i])
        contents[i] += waiting[:room]
        waiting = waiting[room:]
    actions: list[Action] = []
    for i, one in enumerate(slices):
        if not contents[i] and (desired or i > 0):
            actions.append(delete(ENDPOINT_SLICES, one))
            continue
        new = _slice(service, family, ports, contents[i], now)
        if not _same(one, contents[i]) or not _same_frame(one, new):
            metadata = {**one["metadata"], **_frame(new)}
            actions.append(Update(ENDPOINT_SLICES, {**new, "metadata": metadata}))
    for start in range(0, len(waiting), ENDPOINTS_PER_SLICE_MAX):
        chunk = waiting[start : start + ENDPOINTS_PER_SLICE_MAX]
        actions.append(Create(ENDPOINT_SLICES, _slice(service, family, ports, chunk, now)))
    if not slices and not desired:
        actions.append(Create(ENDPOINT_SLICES, _slice(service, family, (), [], now)))
    return actions


def _slice(
    service: Obj, family: str, ports: tuple[Port, ...], endpoints: list[Obj], now: float
) -> Obj:
    labels = {**meta.labels(service), SERVICE_NAME: name(service), MANAGED_BY: CONTROLLER}
    labels.pop(HEADLESS, None)
    if is_headless(service):
        labels[HEADLESS] = ""
    return {
        "apiVersion": "discovery.k8s.io/v1",
        "kind": "EndpointSlice",
        "metadata": {
            "generateName": f"{name(service)}-",
            "namespace": namespace(service),
            "labels": labels,
            "annotations": {CHANGED: format_time(now)},
            "ownerReferences": [owner_reference(SERVICES, service)],
        },
        "addressType": family,
        "endpoints": endpoints,
        "ports": [_port(port) for port in ports],
    }


def _frame(one: Obj) -> Obj:
    return {k: one["metadata"][k] for k in ("labels", "annotations", "ownerReferences")}


def _same(one: Obj, endpoints: list[Obj]) -> bool:
    return (one.get("endpoints") or []) == endpoints


def _same_frame(old: Obj, new: Obj) -> bool:
    ports = _ports_in(old) == _ports_in(new)
    return ports and meta.labels(old) == meta.labels(new)


def _port(port: Port) -> Obj:
    port_name, number, protocol, application = port
    result: Obj = {"name": port_name, "port": number, "protocol": protocol}
    if application:
        result["appProtocol"] = application
    return result


def _ports_in(one: Obj) -> tuple[Port, ...]:
    return tuple(
        (p.get("name", ""), p["port"], p.get("protocol", "TCP"), p.get("appProtocol", ""))
        for p in one.get("ports") or ()
    )


async def run_endpointslice_controller(context: Context) -> None:
    """Run until cancelled."""
    loop = ServiceLoop(context, ENDPOINT_SLICES, SERVICE_NAME)
    recorder = context.recorder("endpoint-slice-controller")
    expectations = Expectations()
    nodes = context.informer(NODES)

    def zone_of(own: str) -> str:
        node = nodes.get(own)
        return "" if node is None else meta.labels(node).get(ZONE, "")

    def on_node(old: Obj | None, new: Obj | None) -> None:
        """A node that says another zone than before moves its endpoints."""
        zones = [meta.labels(node).get(ZONE, "") for node in (old, new) if node is not None]
        if new is not None and any(zones) and (old is None or zones[0] != zones[1]):
            for service in loop.services.list():
                loop.queue.add(key(service))

    def ours(service: Obj, where: str) -> list[Obj]:
        near = loop.results.by_index("namespace", namespace(service))
        wanted = {SERVICE_NAME: name(service), MANAGED_BY: CONTROLLER}.items()
        shown = [o for o in near if wanted <= meta.labels(o).items()]
        kept = expectations.overlay(where, shown, loop.results.seen)
        return [o for o in kept if not deleting(o)]

    async def reconcile(where: str) -> None:
        def done(action: Action, answer: Obj | None) -> None:
            if isinstance(action, Create) and answer is not None:
                expectations.created(where, answer)
            elif isinstance(action, Delete):
                expectations.deleted(where, action.uid)

        service = loop.services.get(where)
        if service is None:
            expectations.forget(where)  # the garbage collector takes the slices
            return
        if deleting(service) or not has_selector(service):
            return
        slices = sorted(ours(service, where), key=key)
        now = context.host.now()
        actions = plan(service, loop.pods_near(service), slices, now, zone_of)
        await carry_out(context.api, recorder, actions, done)

    nodes.add_handler(on_node)
    await nodes.wait_synced()
    await loop.wait_synced()
    await context.run_workers("endpointslice", loop.queue, reconcile)
