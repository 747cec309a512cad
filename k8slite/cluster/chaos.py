"""Targets such as `raft-leader`, `apiserver-2` or `node-1`, and what is done to them."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any, Final

import trio

from k8slite.cluster.kept import Kept
from k8slite.cluster.supervisor import Supervisor

__all__ = ["ACTIONS", "LEADERS", "NoTarget", "Target", "apply", "find"]

ACTIONS: Final = ("kill", "pause", "resume")

LEADERS: Final = {
    "raft-leader": "raftkv",
    "scheduler-leader": "scheduler",
    "controller-manager-leader": "controller-manager",
}
LOOK_AGAIN_SECONDS: Final = 0.2
LEADER_SECONDS: Final = 5.0


class NoTarget(Exception):
    """There is nothing of that name; the message is for the user."""


class Target:
    """One or more components; `node` is set for a whole node."""

    def __init__(self, kept: list[Kept], node: str = "") -> None:
        self.kept = kept
        self.node = node


async def find(supervisor: Supervisor, action: str, name: str) -> Target:
    """Raises NoTarget, with all names there are."""
    kept = supervisor.kept.get(name)
    if kept is not None:
        return Target([kept])
    if name in LEADERS and action == "resume":
        return Target(_former_leaders(supervisor, name))
    if name in LEADERS:
        return Target([await _leader(supervisor, name)])
    of_node = [k for k in supervisor.kept.values() if name and k.component.node == name]
    if of_node:
        return Target(of_node, name)
    nodes = sorted({k.component.node for k in supervisor.kept.values()} - {""})
    raise NoTarget(
        f"there is no target {name!r}; there are {', '.join([*LEADERS, *supervisor.kept, *nodes])}"
    )


def _former_leaders(supervisor: Supervisor, name: str) -> list[Kept]:
    """Those of its kind that chaos keeps from working: who led then, leads no more."""
    role = LEADERS[name]
    held = [k for k in supervisor.kept.values() if k.component.role == role]
    held = [k for k in held if k.state in ("paused", "killed")]
    if not held:
        raise NoTarget(f"nothing is to be resumed: no {role} is paused or killed")
    return held


async def _leader(supervisor: Supervisor, name: str) -> Kept:
    """Who leads, as far as the components themselves know."""
    role = LEADERS[name]
    candidates = [k for k in supervisor.kept.values() if k.component.role == role]
    with trio.move_on_after(LEADER_SECONDS):
        while True:
            leading = []
            for kept in candidates:
                status = await kept.status()
                if status.get("leading") or status.get("role") == "leader":
                    leading.append((status.get("term") or status.get("transitions") or 0, kept))
            if leading:
                return max(leading, key=lambda pair: pair[0])[1]
            await trio.sleep(LOOK_AGAIN_SECONDS)
    if not candidates:
        raise NoTarget(f"there is no {name}: this cluster has no {role}")
    raise NoTarget(f"there is no {name} now: none of the {role}s that run leads")


async def apply(
    supervisor: Supervisor, action: str, target: Target, seconds: float
) -> list[dict[str, Any]]:
    """Kill, pause or resume; what was done to whom."""
    act: Callable[[Kept], int] = {
        "kill": lambda kept: supervisor.kill(kept, seconds),
        "pause": supervisor.pause,
        "resume": supervisor.resume,
    }[action]
    done = [{"component": kept.name, "pid": act(kept)} for kept in target.kept]
    if target.node:
        arguments = {"root": str(supervisor.layout.root), "node": target.node, "action": action}
        await supervisor.job("node-pods", arguments)
    return done
