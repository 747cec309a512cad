"""Looks every few seconds what each container uses, and keeps the last two looks.

Owns: the samples. A rate of processor time needs two; a container that is younger has none yet. The
node's own sample is that of all its containers and of its kubelet.
"""

from __future__ import annotations

import logging
from collections.abc import Mapping

import attrs
import trio

from k8slite.kubelet.runtime.interface import NOTHING, Runtime, Usage
from k8slite.kubelet.runtime.usage import of_process
from k8slite.kubelet.stats.sample import Sample
from raftkv.host import Host

__all__ = ["Sampler"]

log = logging.getLogger(__name__)


@attrs.define
class Sampler:
    host: Host
    runtime: Runtime
    period_seconds: float
    containers: Mapping[str, Sample] = attrs.field(factory=dict)
    """By container id; those that run."""
    node: Sample | None = None
    _spent_ns: int = 0
    _own_ns: int = 0

    async def run(self) -> None:
        """Until cancelled."""
        while True:
            await self.sample()
            await trio.sleep(self.period_seconds)

    async def sample(self) -> None:
        """One look."""
        found = await self.runtime.usage()
        own = of_process() if self.runtime.features.real_processes else None
        at = self.host.now()
        before = self.containers
        self.containers = {
            each: before[each].next(usage, at) if each in before else Sample(at, usage)
            for each, usage in found.items()
        }
        self._note_node(before, own or NOTHING, at)

    def _note_node(self, before: Mapping[str, Sample], own: Usage, at: float) -> None:
        """Its processor time never falls, though containers go with what they had spent."""
        for each, sample in self.containers.items():
            last = before[each].usage.cpu_ns if each in before else 0
            self._spent_ns += max(0, sample.usage.cpu_ns - last)
        self._spent_ns += max(0, own.cpu_ns - self._own_ns)
        self._own_ns = own.cpu_ns
        total = sum((sample.usage for sample in self.containers.values()), own)
        total = attrs.evolve(total, cpu_ns=self._spent_ns)
        self.node = Sample(at, total) if self.node is None else self.node.next(total, at)
