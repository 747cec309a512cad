"""Stop containers the polite way: `preStop`, stop signal, grace, kill; sidecars last. And what goes
afterwards.
"""

from __future__ import annotations

import logging
import shutil
from collections.abc import Sequence

import trio

from k8slite.api.meta import Obj
from k8slite.kubelet.containers.hooks import run_hook
from k8slite.kubelet.context import Context
from k8slite.kubelet.pods import find_container, init_containers, is_sidecar
from k8slite.kubelet.runtime.interface import ContainerStatus, RuntimeFailure
from k8slite.kubelet.volumes.volume_files import remove_pod_directory

log = logging.getLogger(__name__)

AFTER_HOOK_SECONDS = 2.0  # what a container always gets after its hook


async def stop_containers(
    context: Context,
    pod: Obj,
    running: Sequence[ContainerStatus],
    grace: float,
    *,
    tell: bool = False,
) -> None:
    """Return when all have been stopped as far as can be. `tell`: an event for each."""
    ends_at = trio.current_time() + grace
    order = [c["name"] for c in init_containers(pod) if is_sidecar(c)]
    sidecars = sorted(
        (s for s in running if s.name in order), key=lambda s: order.index(s.name), reverse=True
    )
    async with trio.open_nursery() as nursery:
        for status in running:
            if status.name not in order:
                nursery.start_soon(_stop, context, pod, status, ends_at, grace, tell)
    for status in sidecars:
        await _stop(context, pod, status, ends_at, grace, tell)


async def _stop(
    context: Context, pod: Obj, status: ContainerStatus, ends_at: float, grace: float, tell: bool
) -> None:
    if tell:
        context.event(pod, "Normal", "Killing", f"Stopping container {status.name}", status.name)
    container = find_container(pod, status.name) or {}
    hook = (container.get("lifecycle") or {}).get("preStop")
    if hook and grace > 0:
        await _pre_stop(context, pod, container, status, hook, ends_at)
    left = max(0.0, ends_at - trio.current_time())
    if hook and grace > 0:
        left = max(left, AFTER_HOOK_SECONDS)
    try:
        await context.runtime.stop_container(status.id, left)
    except RuntimeFailure as failure:  # who looks again will find it running and try again
        log.warning("stop failed container=%s pod=%s: %s", status.name, status.pod_uid, failure)


async def _pre_stop(
    context: Context,
    pod: Obj,
    container: Obj,
    status: ContainerStatus,
    hook: Obj,
    ends_at: float,
) -> None:
    sandboxes = await context.runtime.list_pod_sandbox(status.pod_uid)
    ip = (sandboxes[0].ip if sandboxes else "") or context.config.node_ip
    problem = "it took longer than the grace period"
    with trio.move_on_at(ends_at):
        problem = await run_hook(context.host, context.runtime, container, status.id, hook, ip)
    if problem:
        context.event(pod, "Warning", "FailedPreStopHook", "PreStopHook failed", status.name)


async def remove_pod(context: Context, pod: Obj) -> None:
    """All that is kept of a pod that has ended and is no longer in the API."""
    meta = pod["metadata"]
    uid = meta["uid"]
    for sandbox in await context.runtime.list_pod_sandbox(uid):
        await context.runtime.remove_pod_sandbox(sandbox.id)
    await context.network.detach(uid, None)
    if context.on_disk:
        logs = context.paths.pod_logs(meta["namespace"], meta["name"], uid)
        await trio.to_thread.run_sync(remove_pod_directory, context.paths.pod(uid))
        await trio.to_thread.run_sync(lambda: shutil.rmtree(logs, ignore_errors=True))
