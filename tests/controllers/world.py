"""A little cluster around the controllers: the fake apiserver, and a scheduler and a kubelet that
do as little as they can."""

from __future__ import annotations

from collections.abc import AsyncIterator
from contextlib import asynccontextmanager

import trio

from k8slite.api.kinds import PODS
from k8slite.api.meta import Obj, deleting, key
from k8slite.client.client import ClientConfig
from k8slite.client.informer import open_informer
from k8slite.client.workqueue import WorkQueue
from k8slite.controllers.context import ControllerTimings, enqueue_to
from k8slite.controllers.manager import ControllerManagerConfig, run_controllers
from k8slite.controllers.workloads.daemonset import node_of
from raftkv.host import Address
from tests.client.fake_api import FakeApi
from tests.client.world import MemoryHost


class Cluster:
    """Pods become ready after `start_seconds`, unless their image is "broken", "succeeds" or
    "fails"; terminating ones go after `stop_seconds`."""

    def __init__(self, seed: int = 0) -> None:
        self.api = FakeApi()
        self.host = MemoryHost(seed)
        self.start_seconds = 1.0
        self.stop_seconds = 1.0
        self.dead_nodes: list[str] = []
        self._ips = 0

    async def run_pods(self) -> None:
        queue: WorkQueue[str] = WorkQueue()
        began: dict[str, float] = {}
        async with open_informer(self.api, PODS, self.host) as pods:
            pods.add_handler(enqueue_to(queue))
            while True:
                where = await queue.get()
                current = pods.get(where)
                if current is not None and where in self.api.objects[PODS]:
                    again = self._advance(current, began)
                    if again is not None:
                        queue.add_after(where, again)
                queue.done(where)

    def _advance(self, pod: Obj, began: dict[str, float]) -> float | None:
        uid = pod["metadata"]["uid"]
        where = key(pod)
        if self.api.read(PODS, where)["metadata"]["uid"] != uid:
            return None
        now = trio.current_time()
        if not pod["spec"].get("nodeName"):
            node = node_of(pod) or "node-1"
            self.api.change(PODS, where, lambda o: o["spec"].update(nodeName=node))
            return None
        if pod["spec"]["nodeName"] in self.dead_nodes:
            return 1.0
        stage = f"{uid}/{deleting(pod)}"
        since = began.setdefault(stage, now)
        if deleting(pod):
            if now - since < self.stop_seconds:
                return self.stop_seconds - (now - since)
            if pod["metadata"].get("finalizers"):
                if pod.get("status", {}).get("phase") not in ("Succeeded", "Failed"):
                    self.api.set_status(PODS, where, phase="Failed")
            else:
                self.api.remove(PODS, where)
            return None
        if pod.get("status", {}).get("phase") in ("Running", "Succeeded", "Failed"):
            return None
        image = pod["spec"]["containers"][0]["image"]
        if image == "broken":
            return None
        if now - since < self.start_seconds:
            return self.start_seconds - (now - since)
        if image in ("succeeds", "fails"):
            phase = "Succeeded" if image == "succeeds" else "Failed"
            self.api.set_status(PODS, where, phase=phase)
            return None
        self._ips += 1
        ready = {"type": "Ready", "status": "True", "lastTransitionTime": self.api.now()}
        address = f"10.244.0.{self._ips}"
        self.api.set_status(PODS, where, phase="Running", podIP=address, conditions=[ready])
        return None

    def pods(self) -> list[Obj]:
        return [p for p in self.api.all(PODS) if not deleting(p)]


@asynccontextmanager
async def open_cluster(
    *controllers: str, seed: int = 0, pods: bool = True, **timings: float
) -> AsyncIterator[Cluster]:
    """A cluster with these controllers (all, if none is named)."""
    cluster = Cluster(seed)
    config = ControllerManagerConfig(
        client=ClientConfig(endpoints=(Address("unused", 1),)),
        identity="test",
        root_ca="PEM",
        timings=ControllerTimings(**timings),  # type: ignore[arg-type]  # all are numbers
        controllers=controllers,
    )
    async with trio.open_nursery() as nursery:
        if pods:
            nursery.start_soon(cluster.run_pods)
        nursery.start_soon(run_controllers, cluster.api, config, cluster.host)
        yield cluster
        nursery.cancel_scope.cancel()
