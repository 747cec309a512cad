"""The loop that Endpoints and EndpointSlices share: services and pods in, keys of services out."""

from __future__ import annotations

from k8slite.api.kinds import PODS, SERVICES, Kind
from k8slite.api.meta import Obj, key, labels, make_key, namespace
from k8slite.client.informer import Informer
from k8slite.client.workqueue import WorkQueue
from k8slite.controllers.context import Context, enqueue_to
from k8slite.controllers.services.service_pods import namespace_index, relevant, services_of

__all__ = ["ServiceLoop"]


class ServiceLoop:
    """Informers and handlers; a pod enqueues the services that (de)select it."""

    def __init__(self, context: Context, written: Kind, service_label: str = "") -> None:
        """`written` is the kind of the results; a change of one enqueues its service, which is
        named by `service_label`, or has the same name."""
        self.queue: WorkQueue[str] = WorkQueue(spacing_seconds=context.timings.coalesce)
        self.services: Informer = context.informer(SERVICES, namespace=namespace_index)
        self.pods: Informer = context.informer(PODS, namespace=namespace_index)
        self.results: Informer = context.informer(written, namespace=namespace_index)
        self._label = service_label
        self.services.add_handler(enqueue_to(self.queue))
        self.pods.add_handler(self._on_pod)
        self.results.add_handler(self._on_result)

    async def wait_synced(self) -> None:
        for informer in (self.services, self.pods, self.results):
            await informer.wait_synced()

    def pods_near(self, service: Obj) -> list[Obj]:
        return [*self.pods.by_index("namespace", namespace(service))]

    def _on_pod(self, old: Obj | None, new: Obj | None) -> None:
        if old is not None and new is not None and relevant(old) == relevant(new):
            return
        for pod in (old, new):
            if pod is not None:
                for service in services_of(self.services, pod):
                    self.queue.add(service)

    def _on_result(self, old: Obj | None, new: Obj | None) -> None:
        result = new or old
        assert result is not None
        if not self._label:
            self.queue.add(key(result))
        elif self._label in labels(result):
            self.queue.add(make_key(namespace(result), labels(result)[self._label]))
