"""Volumes of CSI drivers, attached to the nodes whose pods use them (VolumeAttachments).

`plan_node` is pure. The driver's own attacher does the work and says so in the status; here the
wish is written and taken back, and nodes tell what they have (`volumesAttached`). A volume is
detached when no pod on the node uses it and its kubelet does not either (`volumesInUse`), or when
the node has been unreachable for six minutes or is marked out of service.
"""

from __future__ import annotations

import hashlib
from collections.abc import Callable, Iterable, Sequence

from k8slite.api.kinds import (
    KIND,
    NODES,
    PERSISTENT_VOLUME_CLAIMS,
    PERSISTENT_VOLUMES,
    PODS,
)
from k8slite.api.meta import (
    Obj,
    condition_is,
    deleting,
    get_condition,
    make_key,
    name,
    namespace,
    parse_time,
)
from k8slite.client.workqueue import WorkQueue
from k8slite.controllers.actions import Action, Create, Patch, delete
from k8slite.controllers.context import Context, enqueue_to
from k8slite.controllers.execute import carry_out
from k8slite.controllers.storage.volume_protection import claims_of
from k8slite.controllers.workloads.pods import is_terminal, node_index

__all__ = ["attachment_name", "plan_node", "run_attach_detach_controller"]

ATTACHMENTS = KIND["volumeattachments.storage.k8s.io"]
DRIVERS = KIND["csidrivers.storage.k8s.io"]
OUT_OF_SERVICE = "node.kubernetes.io/out-of-service"
FORCE_SECONDS = 360.0
Lookup = Callable[[str], Obj | None]


def attachment_name(volume: Obj, node: str) -> str:
    """As every attacher expects it: a hash of handle, driver and node."""
    csi = volume["spec"]["csi"]
    text = f"{csi['volumeHandle']}{csi['driver']}{node}"
    return f"csi-{hashlib.sha256(text.encode()).hexdigest()}"


def unique_name(volume: Obj) -> str:
    """As node statuses name it."""
    csi = volume["spec"]["csi"]
    return f"kubernetes.io/csi/{csi['driver']}^{csi['volumeHandle']}"


def wanted_volumes(pods: Iterable[Obj], claim: Lookup, volume: Lookup) -> list[Obj]:
    """CSI volumes that these pods use, each once."""
    found: dict[str, Obj] = {}
    for pod in pods:
        if is_terminal(pod):
            continue
        for own in claims_of(pod):
            bound = (claim(make_key(namespace(pod), own)) or {"spec": {}})["spec"]
            there = volume(bound["volumeName"]) if bound.get("volumeName") else None
            if there is not None and there["spec"].get("csi"):
                found[name(there)] = there
    return [*found.values()]


def plan_node(
    node: Obj | None,
    node_name: str,
    wanted: Sequence[Obj],
    attachments: Sequence[Obj],
    volume: Lookup,
    attachable: Callable[[str], bool],
    now: float,
) -> tuple[list[Action], float | None]:
    """What to attach to and detach from one node, and when to look again. `attachments` are those
    of the node; `attachable` says of a driver whether it attaches at all."""
    actions: list[Action] = []
    have = {attachment["spec"]["source"].get("persistentVolumeName") for attachment in attachments}
    for each in wanted if node is not None else ():
        if name(each) not in have and attachable(each["spec"]["csi"]["driver"]):
            actions.append(Create(ATTACHMENTS, new_attachment(each, node_name)))
    needed = {name(each) for each in wanted} if node is not None else set()
    in_use = ((node or {}).get("status") or {}).get("volumesInUse") or ()
    lost_in = 0.0 if node is None else seconds_until_lost(node, now)
    again: float | None = None
    attached = []
    for attachment in attachments:
        own = attachment["spec"]["source"].get("persistentVolumeName") or ""
        there = volume(own)
        done = bool((attachment.get("status") or {}).get("attached"))
        if done and there is not None and own in needed:
            attached.append({"name": unique_name(there), "devicePath": ""})
        if own in needed or deleting(attachment) or not own:
            continue
        mounted = there is not None and unique_name(there) in in_use
        if mounted and lost_in > 0:
            again = None if lost_in == float("inf") else lost_in
            if there is not None and done:
                attached.append({"name": unique_name(there), "devicePath": ""})
            continue
        actions.append(delete(ATTACHMENTS, attachment))
    if node is not None:
        attached.sort(key=lambda each: each["name"])
        said = (node.get("status") or {}).get("volumesAttached") or []
        if sorted(said, key=lambda each: str(each["name"])) != attached:
            patch = {"status": {"volumesAttached": attached or None}}
            actions.insert(0, Patch(NODES, "", node_name, patch, "status"))
    return actions, again


def new_attachment(volume: Obj, node: str) -> Obj:
    return {
        "apiVersion": ATTACHMENTS.api_version,
        "kind": ATTACHMENTS.kind,
        "metadata": {"name": attachment_name(volume, node)},
        "spec": {
            "attacher": volume["spec"]["csi"]["driver"],
            "nodeName": node,
            "source": {"persistentVolumeName": name(volume)},
        },
    }


def seconds_until_lost(node: Obj, now: float) -> float:
    """Until nobody need wait for the node's kubelet any more; infinity while it is well."""
    taints = (node.get("spec") or {}).get("taints") or ()
    if any(taint["key"] == OUT_OF_SERVICE for taint in taints):
        return 0.0
    if condition_is(node, "Ready"):
        return float("inf")
    changed = (get_condition(node, "Ready") or {}).get("lastTransitionTime")
    return max(0.0, parse_time(changed) + FORCE_SECONDS - now) if changed else FORCE_SECONDS


async def run_attach_detach_controller(context: Context) -> None:
    """Run until cancelled."""
    queue: WorkQueue[str] = WorkQueue(spacing_seconds=context.timings.coalesce)
    recorder = context.recorder("attachdetach-controller")
    nodes, pods = context.informer(NODES), context.informer(PODS, node=node_index)
    claims = context.informer(PERSISTENT_VOLUME_CLAIMS)
    volumes = context.informer(PERSISTENT_VOLUMES)
    drivers = context.informer(DRIVERS)
    attachments = context.informer(ATTACHMENTS, attached_to=_node_of_attachment)

    def on_pod(old: Obj | None, new: Obj | None) -> None:
        for pod in (old, new):
            if pod is not None and pod["spec"].get("nodeName") and claims_of(pod):
                queue.add(pod["spec"]["nodeName"])

    def on_attachment(old: Obj | None, new: Obj | None) -> None:
        changed = new or old
        assert changed is not None
        queue.add(changed["spec"]["nodeName"])

    def on_claim(old: Obj | None, new: Obj | None) -> None:
        """It was bound after its pod."""
        if new is None or not new["spec"].get("volumeName"):
            return
        for pod in pods.list():
            if namespace(pod) == namespace(new) and name(new) in claims_of(pod):
                on_pod(None, pod)

    def attachable(driver: str) -> bool:
        known = drivers.get(driver)
        return known is None or known["spec"].get("attachRequired") is not False

    async def reconcile(own: str) -> float | None:
        wanted = wanted_volumes(pods.by_index("node", own), claims.get, volumes.get)
        here = attachments.by_index("attached_to", own)
        actions, again = plan_node(
            nodes.get(own), own, wanted, here, volumes.get, attachable, context.host.now()
        )
        await carry_out(context.api, recorder, actions)
        return again

    nodes.add_handler(enqueue_to(queue))
    pods.add_handler(on_pod)
    claims.add_handler(on_claim)
    attachments.add_handler(on_attachment)
    for informer in (nodes, pods, claims, volumes, drivers, attachments):
        await informer.wait_synced()
    await context.run_workers("attachdetach", queue, reconcile)


def _node_of_attachment(attachment: Obj) -> list[str]:
    return [attachment["spec"]["nodeName"]]
