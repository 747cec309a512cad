"""The metrics of work queues, by the names that they have in every Kubernetes component."""

from __future__ import annotations

from typing import Any

from k8slite.client.metrics import Counter, Histogram, Metrics
from k8slite.client.workqueue import WorkQueue

__all__ = ["watch_queue"]

SECONDS = (1e-8, 1e-7, 1e-6, 1e-5, 1e-4, 1e-3, 1e-2, 0.1, 1.0, 10.0)


class _Observed:
    """One queue's."""

    def __init__(
        self, name: str, adds: Counter, retries: Counter, waits: Histogram, works: Histogram
    ) -> None:
        self._name = name
        self._adds = adds
        self._retries = retries
        self._waits = waits
        self._works = works

    def added(self) -> None:
        self._adds.add(self._name)

    def taken(self, waited: float) -> None:
        self._waits.observe(waited, self._name)

    def done(self, worked: float) -> None:
        self._works.observe(worked, self._name)

    def retried(self) -> None:
        self._retries.add(self._name)


def watch_queue(
    metrics: Metrics, queues: dict[str, WorkQueue[Any]], name: str, queue: WorkQueue[Any]
) -> None:
    """Show a queue under its name; `queues` are all that the process shows."""
    queues[name] = queue
    label = ("name",)
    observed = _Observed(
        name,
        metrics.counter("workqueue_adds_total", label),
        metrics.counter("workqueue_retries_total", label),
        metrics.histogram("workqueue_queue_duration_seconds", label, SECONDS),
        metrics.histogram("workqueue_work_duration_seconds", label, SECONDS),
    )
    queue.observe(observed)
    metrics.gauge(
        "workqueue_depth", label, lambda: {(n,): float(len(q)) for n, q in queues.items()}
    )
    metrics.gauge(
        "workqueue_unfinished_work_seconds",
        label,
        lambda: {(n,): q.longest_in_hand()[0] for n, q in queues.items()},
    )
    metrics.gauge(
        "workqueue_longest_running_processor_seconds",
        label,
        lambda: {(n,): q.longest_in_hand()[1] for n, q in queues.items()},
    )
