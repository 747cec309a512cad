"""What every controller of the manager is given, and the shape all their loops have."""

from __future__ import annotations

from collections.abc import Awaitable, Callable
from typing import Any

import trio
from attrs import field, frozen

from k8slite.api.kinds import Kind
from k8slite.api.meta import Obj, key
from k8slite.client.api import Api
from k8slite.client.cache import Index
from k8slite.client.controller import run_workers
from k8slite.client.events import EventRecorder
from k8slite.client.informer import Informer, SharedInformers
from k8slite.client.metrics import Metrics
from k8slite.client.queue_metrics import watch_queue
from k8slite.client.workqueue import K, WorkQueue
from raftkv.host import Host

__all__ = ["Context", "Controller", "ControllerTimings", "Signing", "enqueue_to"]


@frozen(kw_only=True)
class ControllerTimings:
    """Kubernetes' own times, in seconds; `k8slite up --fast` and tests shorten them."""

    node_monitor_period: float = 5.0
    node_monitor_grace: float = 40.0
    node_startup_grace: float = 60.0
    node_eviction_rate: float = 0.1
    """Nodes tainted NoExecute a second in one zone; the first one at once."""
    node_eviction_rate_secondary: float = 0.01
    """The same in a large zone of which a good part is silent; in a small one then none are."""
    unhealthy_zone_share: float = 0.55
    large_zone: int = 50
    """Nodes; more make a zone a large one."""
    pod_gc_period: float = 20.0
    pod_gc_quarantine: float = 40.0
    """How long a node must be gone before its pods are."""
    terminated_pods_max: int = 12_500
    namespace_retry: float = 1.0
    job_backoff: float = 10.0
    """How long a Job waits after its first failed pod; doubled with each one."""
    quota_resync: float = 300.0
    """How often usage is counted again although nothing seems to have changed."""
    autoscaler_period: float = 15.0
    autoscaler_downscale_window: float = 300.0
    """For how long the highest recommendation counts before pods are taken away."""
    endpoints_mirror_max: int = 1000
    legacy_token_period: float = 365 * 24 * 3600.0
    """Without use for so long a Secret with a token is marked; after as long again it goes."""
    legacy_token_sync: float = 24 * 3600.0
    coalesce: float = 0.05
    """Events about one ReplicaSet or service within this time cost one pass."""


@frozen
class Signing:
    """An authority's certificate and private key (PEM)."""

    certificate: bytes
    key: bytes


@frozen
class Context:
    """The way to the apiserver, the shared informers, and the nursery of the leader's term."""

    api: Api
    host: Host
    informers: SharedInformers
    nursery: trio.Nursery
    timings: ControllerTimings = field(factory=ControllerTimings)
    root_ca: str = ""
    """PEM of the cluster's authority, published to every namespace."""
    workers: int = 5
    signing: Signing | None = None
    local_volumes: str = ""
    metrics: Metrics = field(factory=Metrics)
    queues: dict[str, WorkQueue[Any]] = field(factory=dict)
    """All work queues of the term, by name, for their metrics."""

    async def run_workers(
        self, name: str, queue: WorkQueue[K], reconcile: Callable[[K], Awaitable[float | None]]
    ) -> None:
        """Handle keys with this controller's workers until cancelled; see `client.controller`."""
        watch_queue(self.metrics, self.queues, name, queue)
        await run_workers(name, queue, reconcile, self.workers)

    def informer(self, kind: Kind, **indexes: Index) -> Informer:
        return self.informers.of(kind, indexes)

    def recorder(self, component: str) -> EventRecorder:
        """A recorder whose events come from this component, as "deployment-controller"."""
        recorder = EventRecorder(self.api, self.host, component)
        self.nursery.start_soon(recorder.run, name=f"events {component}")
        return recorder


Controller = Callable[[Context], Awaitable[None]]
"""Runs until cancelled."""


def enqueue_to(queue: WorkQueue[str]) -> Callable[[Obj | None, Obj | None], None]:
    """A handler that puts the changed object's own key into the queue."""

    def handler(old: Obj | None, new: Obj | None) -> None:
        obj = new or old
        assert obj is not None
        queue.add(key(obj))

    return handler
