"""`/metrics/resource` and `/metrics/cadvisor`: the samples in Prometheus' text format. Pure."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Mapping
from typing import NamedTuple

from k8slite.kubelet.runtime.interface import NOTHING, ContainerStatus, Usage
from k8slite.kubelet.stats.sample import NANO, Sample
from k8slite.kubelet.stats.summary import PodContainers

__all__ = ["CONTENT_TYPE", "cadvisor_text", "resource_text"]

CONTENT_TYPE = "text/plain; version=0.0.4; charset=utf-8"
_ESCAPES = str.maketrans({"\\": "\\\\", '"': '\\"', "\n": "\\n"})


class _Family(NamedTuple):
    """A metric, with its lines."""

    name: str
    kind: str
    help: str
    lines: list[str]

    def add(self, labels: Mapping[str, str], value: float, at: float) -> None:
        inner = ",".join(f'{key}="{text.translate(_ESCAPES)}"' for key, text in labels.items())
        named = f"{self.name}{{{inner}}}" if inner else self.name
        self.lines.append(f"{named} {value} {int(at * 1000)}")


def _text(families: Iterable[_Family]) -> str:
    out = []
    for family in families:
        if family.lines:
            out += [f"# HELP {family.name} {family.help}", f"# TYPE {family.name} {family.kind}"]
            out += family.lines
    return "\n".join(out) + "\n"


def resource_text(
    node: Sample | None, pods: Iterable[PodContainers], samples: Mapping[str, Sample]
) -> str:
    """As the kubelet's resource metrics endpoint, which metrics-server reads."""
    names = {
        (what, kind): _Family(
            f"{what}_{name}",
            type_,
            f"[STABLE] {text} of the {what}",
            [],
        )
        for what in ("container", "node", "pod")
        for kind, name, type_, text in (
            ("cpu", "cpu_usage_seconds_total", "counter", "Cumulative cpu time consumed"),
            ("memory", "memory_working_set_bytes", "gauge", "Current working set"),
        )
    }
    starts = _Family(
        "container_start_time_seconds", "gauge", "[STABLE] Start time of the container", []
    )

    def add(what: str, labels: Mapping[str, str], usage: Usage, at: float) -> None:
        names[what, "cpu"].add(labels, usage.cpu_ns / NANO, at)
        names[what, "memory"].add(labels, usage.working_set_bytes, at)

    if node is not None:
        add("node", {}, node.usage, node.at)
    for pod, status, sample in _each(pods, samples):
        labels = {"container": status.name, **pod}
        add("container", labels, sample.usage, sample.at)
        starts.add(labels, status.started_at, sample.at)
    for pod, usage, at in _sums(_each(pods, samples)):
        add("pod", pod, usage, at)
    error = _Family(
        "resource_scrape_error", "gauge", "[STABLE] 1 if there was an error, 0 otherwise", []
    )
    error.lines.append("resource_scrape_error 0")
    return _text([*names.values(), starts, error])


_Row = tuple[dict[str, str], ContainerStatus, Sample]


def _each(pods: Iterable[PodContainers], samples: Mapping[str, Sample]) -> Iterable[_Row]:
    for each in pods:
        meta = each.pod["metadata"]
        for status in each.containers:
            if status.id in samples:
                pod = {"namespace": meta["namespace"], "pod": meta["name"]}
                yield pod, status, samples[status.id]


def _sums(rows: Iterable[_Row]) -> Iterable[tuple[dict[str, str], Usage, float]]:
    sums: dict[tuple[str, ...], tuple[dict[str, str], Usage, float]] = {}
    for pod, _, sample in rows:
        key = tuple(pod.values())
        before = sums.get(key, (pod, NOTHING, 0.0))
        sums[key] = pod, before[1] + sample.usage, sample.at
    return sums.values()


def cadvisor_text(pods: Iterable[PodContainers], samples: Mapping[str, Sample]) -> str:
    """The few of cAdvisor's that dashboards and autoscalers go by."""
    rows: tuple[tuple[str, str, str, Callable[[Usage], float]], ...] = (
        ("container_cpu_usage_seconds_total", "counter", "Cumulative cpu time consumed",
         lambda usage: usage.cpu_ns / NANO),
        ("container_memory_usage_bytes", "gauge", "Current memory usage",
         lambda usage: usage.memory_bytes),
        ("container_memory_working_set_bytes", "gauge", "Current working set",
         lambda usage: usage.working_set_bytes),
        ("container_memory_rss", "gauge", "Size of RSS", lambda usage: usage.rss_bytes),
        ("container_processes", "gauge", "Number of processes running inside the container",
         lambda usage: usage.processes),
    )  # fmt: skip
    found = list(_each(pods, samples))
    families = []
    for name, kind, text, value in rows:
        family = _Family(name, kind, text, [])
        for pod, status, sample in found:
            labels = {"container": status.name, "id": f"/{status.id}", "image": status.image_id}
            family.add({**labels, "name": status.id, **pod}, value(sample.usage), sample.at)
        families.append(family)
    return _text(families)
