"""Endpoints that people write themselves, mirrored as EndpointSlices.

For a Service without a selector: nobody else makes slices for it. `plan` is pure.
"""

from __future__ import annotations

import ipaddress
from collections.abc import Sequence

from k8slite.api import meta
from k8slite.api.kinds import ENDPOINT_SLICES, ENDPOINTS, SERVICES
from k8slite.api.meta import (
    Obj,
    deleting,
    key,
    labels,
    make_key,
    name,
    namespace,
    owner_reference,
)
from k8slite.client.workqueue import WorkQueue
from k8slite.controllers.actions import Action, Create, Delete, Update, delete
from k8slite.controllers.context import Context, enqueue_to
from k8slite.controllers.execute import carry_out
from k8slite.controllers.expectations import Expectations
from k8slite.controllers.services.endpointslice import MANAGED_BY, SERVICE_NAME
from k8slite.controllers.services.service_pods import has_selector, namespace_index

__all__ = ["plan", "run_endpointslice_mirroring_controller"]

CONTROLLER = "endpointslicemirroring-controller.k8s.io"
SKIP = "endpointslice.kubernetes.io/skip-mirror"
LEADER = "control-plane.alpha.kubernetes.io/leader"
LAST_APPLIED = "kubectl.kubernetes.io/last-applied-configuration"
LAST_CHANGE = "endpoints.kubernetes.io/last-change-trigger-time"


def is_mirrored(endpoints: Obj | None, service: Obj | None) -> bool:
    """Should there be slices for them? (pure)"""
    if endpoints is None or service is None or deleting(endpoints) or has_selector(service):
        return False
    return labels(endpoints).get(SKIP) != "true" and LEADER not in meta.annotations(endpoints)


def plan(
    endpoints: Obj | None, service: Obj | None, slices: Sequence[Obj], addresses_max: int
) -> list[Action]:
    """Make the mirrored slices right: one for each subset and address family."""
    if endpoints is None or not is_mirrored(endpoints, service):
        return [delete(ENDPOINT_SLICES, one) for one in slices]
    wanted: list[Obj] = []
    for subset in endpoints.get("subsets") or ():
        for family in ("IPv4", "IPv6"):
            found = _endpoints(subset, family)[:addresses_max]
            if found:
                wanted.append(_slice(endpoints, family, found, subset.get("ports") or []))
    actions: list[Action] = []
    free = [*slices]
    missing: list[Obj] = []
    for new in wanted:  # those that are right stay; others are changed or made
        same = next((one for one in free if _content(one) == _content(new)), None)
        if same is not None:
            free.remove(same)
        else:
            missing.append(new)
    for new in missing:
        old = next((one for one in free if one["addressType"] == new["addressType"]), None)
        if old is None:
            actions.append(Create(ENDPOINT_SLICES, new))
        else:
            free.remove(old)
            shown = {k: new["metadata"][k] for k in ("labels", "annotations", "ownerReferences")}
            actions.append(
                Update(ENDPOINT_SLICES, {**new, "metadata": {**old["metadata"], **shown}})
            )
    return [*actions, *(delete(ENDPOINT_SLICES, one) for one in free)]


def _content(one: Obj) -> object:
    return (
        one["addressType"],
        one.get("endpoints") or [],
        one.get("ports") or [],
        labels(one),
        meta.annotations(one),
    )


def _endpoints(subset: Obj, family: str) -> list[Obj]:
    found = []
    for field, ready in (("addresses", True), ("notReadyAddresses", False)):
        for address in subset.get(field) or ():
            if (ipaddress.ip_address(address["ip"]).version == 4) != (family == "IPv4"):
                continue
            endpoint: Obj = {"addresses": [address["ip"]], "conditions": {"ready": ready}}
            for own in ("hostname", "nodeName", "targetRef"):
                if address.get(own):
                    endpoint[own] = address[own]
            found.append(endpoint)
    return found


def _slice(endpoints: Obj, family: str, found: list[Obj], ports: list[Obj]) -> Obj:
    notes = meta.annotations(endpoints)
    metadata = {
        "generateName": f"{name(endpoints)}-",
        "namespace": namespace(endpoints),
        "labels": {
            **labels(endpoints),
            SERVICE_NAME: name(endpoints),
            MANAGED_BY: CONTROLLER,
        },
        "annotations": {k: v for k, v in notes.items() if k not in (LAST_APPLIED, LAST_CHANGE)},
        "ownerReferences": [owner_reference(ENDPOINTS, endpoints)],
    }
    shown = [{"name": "", "protocol": "TCP", **port} for port in ports]
    return {
        "apiVersion": "discovery.k8s.io/v1",
        "kind": "EndpointSlice",
        "metadata": metadata,
        "addressType": family,
        "endpoints": found,
        "ports": shown,
    }


async def run_endpointslice_mirroring_controller(context: Context) -> None:
    """Run until cancelled."""
    queue: WorkQueue[str] = WorkQueue(spacing_seconds=context.timings.coalesce)
    recorder = context.recorder("endpointslice-mirroring-controller")
    endpoints = context.informer(ENDPOINTS)
    services = context.informer(SERVICES)
    slices = context.informer(ENDPOINT_SLICES, namespace=namespace_index)
    expectations = Expectations()

    def on_slice(old: Obj | None, new: Obj | None) -> None:
        one = new or old
        if one is not None and labels(one).get(MANAGED_BY) == CONTROLLER:
            queue.add(make_key(namespace(one), labels(one).get(SERVICE_NAME, "")))

    async def reconcile(where: str) -> None:
        def done(action: Action, answer: Obj | None) -> None:
            if isinstance(action, Create) and answer is not None:
                expectations.created(where, answer)
            elif isinstance(action, Delete):
                expectations.deleted(where, action.uid)

        space, _, own = where.rpartition("/")
        wanted = {SERVICE_NAME: own, MANAGED_BY: CONTROLLER}.items()
        near = slices.by_index("namespace", space)
        shown = [one for one in near if wanted <= labels(one).items()]
        mine = expectations.overlay(where, shown, slices.seen)
        mine = sorted((one for one in mine if not deleting(one)), key=key)
        most = context.timings.endpoints_mirror_max
        actions = plan(endpoints.get(where), services.get(where), mine, most)
        await carry_out(context.api, recorder, actions, done)

    endpoints.add_handler(enqueue_to(queue))
    services.add_handler(enqueue_to(queue))
    slices.add_handler(on_slice)
    for informer in (endpoints, services, slices):
        await informer.wait_synced()
    await context.run_workers("endpointslice-mirroring", queue, reconcile)
