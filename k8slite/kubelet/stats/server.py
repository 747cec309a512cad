"""What the kubelet's server tells of usage: `/stats/summary`, `/metrics/resource`,
`/metrics/cadvisor`.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence

import attrs
import orjson
import trio

from k8slite.api.meta import Obj
from k8slite.kubelet.config import KubeletConfig
from k8slite.kubelet.runtime.interface import Runtime
from k8slite.kubelet.serving.http_server import Answer, Request
from k8slite.kubelet.stats.exposition import CONTENT_TYPE, cadvisor_text, resource_text
from k8slite.kubelet.stats.machine import read_machine_state
from k8slite.kubelet.stats.sampler import Sampler
from k8slite.kubelet.stats.summary import (
    MachineState,
    PodContainers,
    make_summary,
    running_containers,
)
from raftkv.host import Host

__all__ = ["Stats"]


@attrs.frozen
class Stats:
    config: KubeletConfig
    host: Host
    runtime: Runtime
    pods: Callable[[], Sequence[Obj]]
    sampler: Sampler
    started_at: float = attrs.field(init=False)

    @started_at.default
    def _now(self) -> float:
        return self.host.now()

    async def answer(self, request: Request) -> Answer | None:
        """None for other paths."""
        sampler = self.sampler
        match request.path.rstrip("/"):
            case "/stats/summary":
                summary = make_summary(
                    self.config.node_name,
                    await self._machine(),
                    sampler.node,
                    await self._running(),
                    sampler.containers,
                    only_cpu_and_memory=request.query.get("only_cpu_and_memory") == "true",
                )
                return Answer(body=orjson.dumps(summary), content_type="application/json")
            case "/metrics/resource":
                text = resource_text(sampler.node, await self._running(), sampler.containers)
            case "/metrics/cadvisor":
                text = cadvisor_text(await self._running(), sampler.containers)
            case _:
                return None
        return Answer(body=text.encode(), content_type=CONTENT_TYPE)

    async def _running(self) -> list[PodContainers]:
        return running_containers(self.pods(), await self.runtime.list_containers())

    async def _machine(self) -> MachineState:
        if not self.runtime.features.real_processes:
            return MachineState(started_at=self.started_at)
        return await trio.to_thread.run_sync(
            read_machine_state, self.config.root_dir, self.started_at
        )
