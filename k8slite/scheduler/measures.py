"""The scheduler's counters, by kube-scheduler's names."""

from __future__ import annotations

from collections.abc import Callable, Mapping

from k8slite.client.metrics import Metrics

__all__ = ["Measures"]

SECONDS = (0.001, 0.002, 0.004, 0.008, 0.016, 0.032, 0.064, 0.128, 0.256, 0.512, 1.024, 2.048)
LONG_SECONDS = (0.01, 0.02, 0.04, 0.08, 0.16, 0.32, 0.64, 1.28, 2.56, 5.12, 10.24, 60.0, 600.0)
COUNTS = (1.0, 2.0, 4.0, 8.0, 16.0)


class Measures:
    def __init__(self, metrics: Metrics) -> None:
        self._metrics = metrics
        labels = ("profile", "result")
        self.attempts = metrics.counter("scheduler_schedule_attempts_total", labels)
        self.attempt_seconds = metrics.histogram(
            "scheduler_scheduling_attempt_duration_seconds", labels, SECONDS
        )
        self.pod_seconds = metrics.histogram(
            "scheduler_pod_scheduling_sli_duration_seconds", ("attempts",), LONG_SECONDS
        )
        self.pod_attempts = metrics.histogram("scheduler_pod_scheduling_attempts", (), COUNTS)
        self.preemptions = metrics.counter("scheduler_preemption_attempts_total")
        self.unschedulable = metrics.counter(
            "scheduler_plugin_unschedulable_total", ("plugin", "profile")
        )
        self.incoming = metrics.counter("scheduler_queue_incoming_pods_total", ("event", "queue"))

    def watch_queue(self, count: Callable[[str], int], places: Mapping[str, str]) -> None:
        """Show how many pods are in each place (by the name that kube-scheduler has for it)."""
        self._metrics.gauge(
            "scheduler_pending_pods",
            ("queue",),
            lambda: {(shown,): float(count(place)) for place, shown in places.items()},
        )
