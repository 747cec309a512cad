"""What the supervisor answers on the control socket: status, stop, and chaos."""

from __future__ import annotations

import logging
import math
import os
from typing import Any

import attrs
import trio

from k8slite.cluster import chaos, control
from k8slite.cluster.kept import Kept, how_ended
from k8slite.cluster.memory import pss_bytes
from k8slite.cluster.supervisor import StartFailed, Supervisor

__all__ = ["Operations"]

log = logging.getLogger(__name__)


@attrs.frozen
class Operations:
    """`handle` is for `control.serve`."""

    supervisor: Supervisor
    stop: trio.Event

    async def handle(self, request: dict[str, Any]) -> dict[str, Any]:
        """Raises control.Refused."""
        operation = request.get("op")
        if operation == "status":
            return await self._status()
        if operation == "stop":
            self.stop.set()
            return {"stopping": True}
        if operation in chaos.ACTIONS:
            return await self._chaos(operation, request)
        raise control.Refused(f"unknown request {operation!r}: is k8slite older here than there?")

    async def _chaos(self, operation: str, request: dict[str, Any]) -> dict[str, Any]:
        """`seconds` is None for ever, as JSON has no infinity."""
        seconds = self.supervisor.timings.chaos_dead
        if "seconds" in request:
            given = request["seconds"]
            if given is not None and not isinstance(given, (int, float)):
                raise control.Refused(f"seconds {given!r} is no number")
            seconds = math.inf if given is None else float(given)
        try:
            target = await chaos.find(self.supervisor, operation, str(request.get("target", "")))
            done = await chaos.apply(self.supervisor, operation, target, seconds)
        except (chaos.NoTarget, StartFailed) as error:
            raise control.Refused(str(error)) from error
        log.warning("chaos %s target=%s done=%s", operation, request.get("target"), done)
        return {"done": done, "seconds": _finite(seconds)}

    async def _status(self) -> dict[str, Any]:
        supervisor = self.supervisor
        rows: dict[str, dict[str, Any]] = {name: {} for name in supervisor.kept}

        async def add(kept: Kept) -> None:
            rows[kept.name] = await _row(kept)

        async with trio.open_nursery() as nursery:
            for kept in supervisor.kept.values():
                nursery.start_soon(add, kept)
        own = {"supervisor": os.getpid(), "zygote": supervisor.zygote_pid}
        return {
            "name": supervisor.spec.name,
            "dir": str(supervisor.layout.root),
            "spec": supervisor.spec.to_json(),
            "place": supervisor.place.to_json(),
            "ready_seconds": supervisor.ready_seconds,
            "started_at": supervisor.started_at,
            "components": rows,
            "own": {name: {"pid": pid, "memory": await _memory(pid)} for name, pid in own.items()},
        }


async def _row(kept: Kept) -> dict[str, Any]:
    status = await kept.status()
    now = trio.current_time()
    pid = kept.process.pid if kept.process is not None else 0
    starts_in = kept.starts_in(now)
    return {
        "role": kept.component.role,
        "node": kept.component.node,
        "state": kept.state,
        "pid": pid,
        "restarts": kept.restarts,
        "last_code": kept.last_code,
        "last_exit": "" if kept.last_code is None else how_ended(kept.last_code),
        "last_words": kept.last_words,
        "seconds": now - kept.started_at if pid else 0.0,
        "starts_in_seconds": None if starts_in is None else _finite(starts_in),
        "status": status,
        "memory": await _memory(pid),
    }


async def _memory(pid: int) -> int:
    """The kernel walks all its pages: that takes a moment."""
    return await trio.to_thread.run_sync(pss_bytes, pid) if pid else 0


def _finite(seconds: float) -> float | None:
    return seconds if math.isfinite(seconds) else None
