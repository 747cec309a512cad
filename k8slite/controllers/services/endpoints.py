"""Endpoints: the older list of the addresses behind each Service, one object a Service."""

from __future__ import annotations

from collections.abc import Iterable

from k8slite.api import meta
from k8slite.api.kinds import ENDPOINTS
from k8slite.api.meta import Obj, deleting, format_time, name, namespace
from k8slite.controllers.actions import Action, Create, Update, delete
from k8slite.controllers.context import Context
from k8slite.controllers.execute import carry_out
from k8slite.controllers.services.service_loop import ServiceLoop
from k8slite.controllers.services.service_pods import (
    Port,
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

__all__ = ["plan", "run_endpoints_controller", "subsets_of"]

ADDRESSES_MAX = 1000
CHANGED = "endpoints.kubernetes.io/last-change-trigger-time"
OVER_CAPACITY = "endpoints.kubernetes.io/over-capacity"
HEADLESS = "service.kubernetes.io/headless"
MANAGED_BY = "endpoints.kubernetes.io/managed-by"


def subsets_of(service: Obj, pods: Iterable[Obj]) -> tuple[list[Obj], bool]:
    """The subsets (pure): addresses with the same ports together, sorted; and whether some were
    left out because there are too many."""
    groups: dict[tuple[Port, ...], tuple[list[Obj], list[Obj]]] = {}
    published = publishes_not_ready(service)
    count = 0
    truncated = False
    for pod in pods_of(service, pods):
        if deleting(pod) and not published:
            continue
        ports = ports_of(service, pod)
        if not ports and not is_headless(service):
            continue
        count += 1
        if count > ADDRESSES_MAX:
            truncated = True
            break
        ready, not_ready = groups.setdefault(ports, ([], []))
        (ready if published or is_ready(pod) else not_ready).append(_address(service, pod))
    subsets = []
    for ports, (ready, not_ready) in sorted(groups.items()):
        subset: Obj = {}
        if ready:
            subset["addresses"] = sorted(ready, key=lambda a: str(a["ip"]))
        if not_ready:
            subset["notReadyAddresses"] = sorted(not_ready, key=lambda a: str(a["ip"]))
        if ports:
            subset["ports"] = [_port(port) for port in sorted(ports)]
        subsets.append(subset)
    return subsets, truncated


def plan(service: Obj, pods: Iterable[Obj], current: Obj | None, now: float) -> list[Action]:
    """Make the Endpoints object right (pure)."""
    if not has_selector(service) or deleting(service):
        return []
    subsets, truncated = subsets_of(service, pods)
    labels = {**meta.labels(service), MANAGED_BY: "endpoint-controller"}
    labels.pop(HEADLESS, None)
    if is_headless(service):
        labels[HEADLESS] = ""
    annotations = dict(meta.annotations(current)) if current else {}
    annotations.pop(OVER_CAPACITY, None)
    if truncated:
        annotations[OVER_CAPACITY] = "truncated"
    if current is not None:
        same = (
            (current.get("subsets") or []) == subsets
            and meta.labels(current) == labels
            and annotations == meta.annotations(current)
        )
        if same:
            return []
    annotations[CHANGED] = format_time(now)
    metadata = {"name": name(service), "namespace": namespace(service)}
    metadata = {**(current["metadata"] if current else metadata)}
    new = {
        "apiVersion": "v1",
        "kind": "Endpoints",
        "metadata": {**metadata, "labels": labels, "annotations": annotations},
        "subsets": subsets,
    }
    return [Update(ENDPOINTS, new) if current else Create(ENDPOINTS, new)]


async def run_endpoints_controller(context: Context) -> None:
    """Run until cancelled."""
    loop = ServiceLoop(context, ENDPOINTS)
    recorder = context.recorder("endpoint-controller")

    async def reconcile(key: str) -> None:
        service = loop.services.get(key)
        current = loop.results.get(key)
        if service is not None:
            actions = plan(service, loop.pods_near(service), current, context.host.now())
        elif current is not None and meta.labels(current).get(MANAGED_BY):
            actions = [delete(ENDPOINTS, current)]
        else:
            actions = []
        await carry_out(context.api, recorder, actions)

    await loop.wait_synced()
    await context.run_workers("endpoints", loop.queue, reconcile)


def _address(service: Obj, pod: Obj) -> Obj:
    address: Obj = {"ip": pod_address(pod), "targetRef": target_reference(pod)}
    hostname = hostname_of(service, pod)
    if hostname:
        address["hostname"] = hostname
    if pod["spec"].get("nodeName"):
        address["nodeName"] = pod["spec"]["nodeName"]
    return address


def _port(port: Port) -> Obj:
    port_name, number, protocol, application = port
    result: Obj = {"port": number, "protocol": protocol}
    if port_name:
        result["name"] = port_name
    if application:
        result["appProtocol"] = application
    return result
