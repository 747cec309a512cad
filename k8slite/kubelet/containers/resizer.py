"""Carries out changes of a running pod's resources. See `resize` for what is decided.

Owns: what the pod was granted, and the conditions that tell of changes that wait or fail.
"""

from __future__ import annotations

import attrs

from k8slite.api.meta import Obj
from k8slite.kubelet.containers.resize import (
    IN_PROGRESS,
    PENDING,
    differs,
    first_allocated,
    plan_resize,
    with_allocated,
)
from k8slite.kubelet.containers.resources import memory_of, resources_of
from k8slite.kubelet.context import Context
from k8slite.kubelet.node.node import allocatable
from k8slite.kubelet.plan import KillContainer
from k8slite.kubelet.pods import TERMINAL, Observed, find_container, phase
from k8slite.kubelet.runtime.interface import RuntimeFailure

__all__ = ["Resizer"]

RETRY_SECONDS = 10.0


@attrs.define
class Resizer:
    context: Context
    conditions: dict[str, tuple[str, str]] = attrs.field(factory=dict)
    """Type to reason and message."""
    _allocated: dict[str, Obj] | None = None

    def granted(self, pod: Obj) -> Obj:
        """The pod as it was granted."""
        if self._allocated is None:
            self._allocated = first_allocated(pod)
        return with_allocated(pod, self._allocated)

    async def sync(self, pod: Obj, observed: Observed) -> tuple[list[KillContainer], float | None]:
        """Change what can be changed: what must be restarted for it, and when to look again."""
        if self._allocated is None:
            self._allocated = first_allocated(pod)
        if not differs(pod, self._allocated):
            self.conditions.clear()
            return [], None
        uid = pod["metadata"]["uid"]
        others = [
            other
            for other in self.context.pods()
            if other["metadata"]["uid"] != uid and phase(other) not in TERMINAL
        ]
        room = allocatable(self.context.config, self.context.machine)
        plan = plan_resize(pod, self._allocated, others, room)
        if plan.refused is not None:
            self._refuse(pod, *plan.refused)
            return [], self.context.host.now() + RETRY_SECONDS
        self.conditions.pop(PENDING, None)
        kills = []
        for name, restarts in plan.changed.items():
            kill = await self._change(pod, name, restarts, observed)
            if kill is not None:
                kills.append(kill)
        if IN_PROGRESS in self.conditions:
            return kills, self.context.host.now() + RETRY_SECONDS
        return kills, None

    def _refuse(self, pod: Obj, reason: str, message: str) -> None:
        if self.conditions.get(PENDING) != (reason, message):
            self.conditions[PENDING] = reason, message
            self.context.event(pod, "Warning", f"Resize{reason}", message)

    async def _change(
        self, pod: Obj, name: str, restarts: bool, observed: Observed
    ) -> KillContainer | None:
        assert self._allocated is not None, "sync has made it"
        container = find_container(pod, name)
        assert container is not None, "planned from the specification"
        running = next((s for s in observed.running() if s.name == name), None)
        if running is not None and not restarts:
            wanted = resources_of(
                pod,
                container,
                pids_max=self.context.config.pod_pids_max,
                memory_total=memory_of(self.context.machine.capacity),
            )
            try:
                await self.context.runtime.update_container(running.id, wanted)
            except (RuntimeFailure, OSError) as error:
                self.conditions[IN_PROGRESS] = "Error", f"Container {name}: {error}"
                self.context.event(pod, "Warning", "ResizeError", str(error), name)
                return None
        given = container.get("resources") or {}
        self._allocated[name] = {
            part: dict(given[part]) for part in ("requests", "limits") if given.get(part)
        }
        self.conditions.pop(IN_PROGRESS, None)
        self.context.event(pod, "Normal", "ResizeCompleted", "Pod resize completed", name)
        if running is None or not restarts:
            return None
        return KillContainer(running.id, name, f"Container {name} resize requires restart")
