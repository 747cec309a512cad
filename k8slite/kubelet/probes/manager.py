"""The probes of one pod: a task for each probe of each running container, and what they found.

Owns the verdicts. `sync` tells it which containers run; `changed` is called when a verdict has.
"""

from __future__ import annotations

import logging
from collections.abc import Callable

import attrs
import trio

from k8slite.api.meta import Obj
from k8slite.kubelet.plan import Health
from k8slite.kubelet.pods import find_container
from k8slite.kubelet.probes.machine import ProbeKind, ProbeSpec, ProbeState, is_over, observe
from k8slite.kubelet.probes.prober import Outcome, probe
from k8slite.kubelet.runtime.interface import ContainerStatus, Runtime, RuntimeFailure
from raftkv.host import Host

log = logging.getLogger(__name__)

Report = Callable[[Obj, ProbeKind, str], None]


@attrs.define
class _Watched:
    """The probes of one run of a container."""

    container: Obj
    status: ContainerStatus
    states: dict[ProbeKind, ProbeState]
    scopes: list[trio.CancelScope] = attrs.field(factory=list)


class ProbeManager:
    """See the module. `report` is told of each failed probe, for an event."""

    def __init__(
        self,
        host: Host,
        runtime: Runtime,
        nursery: trio.Nursery,
        *,
        changed: Callable[[], None],
        report: Report,
    ) -> None:
        self._host = host
        self._runtime = runtime
        self._nursery = nursery
        self._changed = changed
        self._report = report
        self._watched: dict[str, _Watched] = {}
        self._stopped: tuple[ProbeKind, ...] = ()

    def sync(self, pod: Obj, running: list[ContainerStatus], pod_ip: str) -> None:
        """Probe exactly these containers."""
        ids = [status.id for status in running]
        for gone in [key for key in self._watched if key not in ids]:
            for scope in self._watched.pop(gone).scopes:
                scope.cancel()
        for status in running:
            container = find_container(pod, status.name)
            if container is None or status.id in self._watched:
                continue
            specs = [
                ProbeSpec.of(kind, container[kind.field])
                for kind in ProbeKind
                if container.get(kind.field)
            ]
            states = {spec.kind: ProbeState.initial(spec.kind) for spec in specs}
            watched = self._watched[status.id] = _Watched(container, status, states)
            for spec in specs:
                scope = trio.CancelScope()
                watched.scopes.append(scope)
                self._nursery.start_soon(self._run, watched, spec, pod_ip, scope)

    def stop(self, *kinds: ProbeKind) -> None:
        """Probe no more of these kinds: the pod is ending. Verdicts stay."""
        self._stopped = kinds

    def health(self) -> Health:
        def failed(kind: ProbeKind) -> frozenset[str]:
            return frozenset(
                key
                for key, watched in self._watched.items()
                if kind in watched.states and watched.states[kind].verdict is False
            )

        return Health(
            failed_liveness=failed(ProbeKind.LIVENESS),
            failed_startup=failed(ProbeKind.STARTUP),
            started=frozenset(key for key, w in self._watched.items() if _started(w)),
        )

    def ready(self) -> frozenset[str]:
        """Ids of the containers that are ready: started, and not refused by a readiness probe."""
        return frozenset(
            key
            for key, watched in self._watched.items()
            if _started(watched)
            and (
                ProbeKind.READINESS not in watched.states
                or watched.states[ProbeKind.READINESS].verdict is True
            )
        )

    def grace_of(self, container_id: str) -> int | None:
        """The grace period of the failed probe itself, if it has one."""
        watched = self._watched.get(container_id)
        if watched is None:
            return None
        for kind in (ProbeKind.LIVENESS, ProbeKind.STARTUP):
            if kind in watched.states and watched.states[kind].verdict is False:
                found: int | None = watched.container[kind.field].get(
                    "terminationGracePeriodSeconds"
                )
                return found
        return None

    async def _run(
        self, watched: _Watched, spec: ProbeSpec, pod_ip: str, scope: trio.CancelScope
    ) -> None:
        with scope:
            age = self._host.now() - watched.status.started_at
            if age > spec.period:  # adopted: not all probes of a node at once
                await trio.sleep(spec.period * self._host.rng.random())
            await trio.sleep(max(0.0, spec.initial_delay - age))
            while spec.kind not in self._stopped:
                if spec.kind is ProbeKind.STARTUP or _started(watched):
                    await self._once(watched, spec, pod_ip)
                    if is_over(spec, watched.states[spec.kind]):
                        return
                await trio.sleep(spec.period)

    async def _once(self, watched: _Watched, spec: ProbeSpec, pod_ip: str) -> None:
        outcome = await self._ask(watched, spec, pod_ip)
        before = watched.states[spec.kind]
        if spec.kind in self._stopped:
            return
        if not outcome.success:
            text = f"{spec.kind.value.capitalize()} probe failed: {outcome.text}"
            self._report(watched.container, spec.kind, text)
        after = observe(spec, before, outcome.success)
        watched.states[spec.kind] = after
        if after.verdict is not before.verdict:
            log.info(
                "probe verdict container=%s kind=%s ok=%s",
                watched.status.name,
                spec.kind.value,
                after.verdict,
            )
            self._changed()

    async def _ask(self, watched: _Watched, spec: ProbeSpec, pod_ip: str) -> Outcome:
        try:
            played = await self._runtime.probe(watched.status.id, spec.kind.value)
        except RuntimeFailure as failure:
            return Outcome(False, str(failure))
        if played is not None:
            return Outcome(played, "" if played else "the container is not ready yet")
        return await probe(
            self._host,
            self._runtime,
            watched.container,
            watched.status.id,
            spec.handler,
            pod_ip=pod_ip,
            timeout=spec.timeout,
        )


def _started(watched: _Watched) -> bool:
    state = watched.states.get(ProbeKind.STARTUP)
    return state is None or state.verdict is True
