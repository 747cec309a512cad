"""Events about containers that are not being started now."""

from __future__ import annotations

from collections.abc import Mapping

from k8slite.api.meta import Obj
from k8slite.kubelet.context import Context
from k8slite.kubelet.plan import Waiting
from k8slite.kubelet.pods import find_container, full_name

__all__ = ["tell_waiting"]


def tell_waiting(
    context: Context, pod: Obj, before: Mapping[str, Waiting], now: Mapping[str, Waiting]
) -> None:
    """Of each container that began to wait since; both by its name."""
    for name, why in now.items():
        if before.get(name) == why:
            continue
        if why.reason == "CrashLoopBackOff":
            text = f"Back-off restarting failed container {name} in pod {full_name(pod)}"
            context.event(pod, "Warning", "BackOff", text, name)
        elif why.reason == "ImagePullBackOff":
            container = find_container(pod, name)
            image = container["image"] if container else ""
            context.event(pod, "Normal", "BackOff", f'Back-off pulling image "{image}"', name)
            context.event(pod, "Warning", "Failed", "Error: ImagePullBackOff", name)
