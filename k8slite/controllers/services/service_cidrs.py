"""ServiceCIDRs: ready when they are there, kept while Services have addresses out of them alone.

`plan` is pure.
"""

from __future__ import annotations

import ipaddress
from collections.abc import Iterable

from k8slite.api.kinds import KIND
from k8slite.api.meta import Obj, copy, deleting, format_time, key, name, set_condition
from k8slite.client.workqueue import WorkQueue
from k8slite.controllers.actions import Action, Update, patch_metadata
from k8slite.controllers.context import Context
from k8slite.controllers.execute import carry_out

__all__ = ["plan", "run_service_cidr_controller"]

SERVICE_CIDRS = KIND["servicecidrs.networking.k8s.io"]
ADDRESSES = KIND["ipaddresses.networking.k8s.io"]
FINALIZER = "networking.k8s.io/service-cidr-finalizer"
READY: Obj = {
    "type": "Ready",
    "status": "True",
    "reason": "",
    "message": "Kubernetes Service CIDR is ready",
}
TERMINATING: Obj = {
    "type": "Ready",
    "status": "False",
    "reason": "Terminating",
    "message": "There are still IPAddresses referencing the ServiceCIDR, please remove them or "
    "create a new ServiceCIDR",
}


def networks(cidr: Obj) -> list[ipaddress.IPv4Network | ipaddress.IPv6Network]:
    return [ipaddress.ip_network(text) for text in cidr["spec"].get("cidrs") or ()]


def is_needed(cidr: Obj, others: Iterable[Obj], addresses: Iterable[Obj]) -> bool:
    """Is there an address in it that no other range holds?"""
    own = networks(cidr)
    rest = [net for other in others if not deleting(other) for net in networks(other)]
    for each in addresses:
        address = ipaddress.ip_address(name(each))
        if any(address in net for net in own) and not any(address in net for net in rest):
            return True
    return False


def plan(cidr: Obj, others: Iterable[Obj], addresses: Iterable[Obj], now: str) -> list[Action]:
    """`others`: all ranges but this one."""
    held = cidr["metadata"].get("finalizers") or []
    if not deleting(cidr):
        if FINALIZER not in held:
            return [patch_metadata(SERVICE_CIDRS, cidr, {"finalizers": [*held, FINALIZER]})]
        return _told(cidr, READY, now)
    if FINALIZER not in held:
        return []
    if is_needed(cidr, others, addresses):
        return _told(cidr, TERMINATING, now)
    rest = [each for each in held if each != FINALIZER]
    return [patch_metadata(SERVICE_CIDRS, cidr, {"finalizers": rest})]


def _told(cidr: Obj, condition: Obj, now: str) -> list[Action]:
    status = copy(cidr.get("status") or {})
    if not set_condition(status, condition, now):
        return []
    return [Update(SERVICE_CIDRS, {**cidr, "status": status}, "status")]


async def run_service_cidr_controller(context: Context) -> None:
    """Run until cancelled."""
    queue: WorkQueue[str] = WorkQueue(spacing_seconds=context.timings.coalesce)
    recorder = context.recorder("service-cidr-controller")
    cidrs, addresses = context.informer(SERVICE_CIDRS), context.informer(ADDRESSES)

    def on_cidr(old: Obj | None, new: Obj | None) -> None:
        """A range that comes may set another one free."""
        for each in cidrs.list():
            queue.add(key(each))

    def on_address(old: Obj | None, new: Obj | None) -> None:
        if new is None:
            for each in cidrs.list():
                if deleting(each):
                    queue.add(key(each))

    async def reconcile(where: str) -> None:
        cidr = cidrs.get(where)
        if cidr is None:
            return
        others = [other for other in cidrs.list() if name(other) != name(cidr)]
        now = format_time(context.host.now())
        await carry_out(context.api, recorder, plan(cidr, others, addresses.list(), now))

    cidrs.add_handler(on_cidr)
    addresses.add_handler(on_address)
    await cidrs.wait_synced()
    await addresses.wait_synced()
    await context.run_workers("servicecidrs", queue, reconcile)
