"""The few counters that tell how an apiserver fares, in Prometheus' text form."""

from __future__ import annotations

from collections import Counter

from k8slite.api.kinds import Kind

__all__ = ["Metrics"]

_BUCKETS = (0.005, 0.025, 0.1, 0.25, 0.5, 1.0, 2.5, 5.0, 10.0)


class Metrics:
    """Owned by the server; plain ints, changed in place."""

    def __init__(self) -> None:
        self.requests: Counter[tuple[str, str, str, str, str, int]] = Counter()
        self.watches_started = 0
        self.conflicts_retried = 0
        self.connections = 0
        self._seconds: dict[str, list[float]] = {}

    def observe(
        self, verb: str, kind: Kind | None, subresource: str, code: int, seconds: float
    ) -> None:
        """Count an answered request. What no kind is served for goes under no name, however a
        client spelt it, so that nobody can make the table grow.
        """
        group = version = resource = ""
        if kind is not None:
            group, version, resource = kind.group, kind.version, kind.plural
        if kind is None or subresource not in kind.subresources:
            subresource = ""
        self.requests[verb, group, version, resource, subresource, code] += 1
        row = self._seconds.get(verb)
        if row is None:
            row = self._seconds[verb] = [0.0] * (len(_BUCKETS) + 2)
        for i, bound in enumerate(_BUCKETS):
            if seconds <= bound:
                row[i] += 1
                break
        row[-2] += seconds
        row[-1] += 1

    def text(self, gauges: dict[str, float]) -> str:
        """Everything, with `gauges` read at this moment."""
        lines = ["# TYPE apiserver_request_total counter"]
        for (verb, group, version, resource, subresource, code), count in self.requests.items():
            labels = (
                f'code="{code}",component="apiserver",dry_run="",group="{group}",'
                f'resource="{resource}",scope="",subresource="{subresource}",'
                f'verb="{verb.upper()}",version="{version}"'
            )
            lines.append(f"apiserver_request_total{{{labels}}} {count}")
        name = "apiserver_request_duration_seconds"
        lines.append(f"# TYPE {name} histogram")
        for verb, row in sorted(self._seconds.items()):
            labels, total = f'verb="{verb.upper()}"', 0.0
            for i, bound in enumerate(_BUCKETS):
                total += row[i]
                lines.append(f'{name}_bucket{{{labels},le="{bound}"}} {total:g}')
            lines.append(f'{name}_bucket{{{labels},le="+Inf"}} {row[-1]:g}')
            lines.append(f"{name}_sum{{{labels}}} {row[-2]:.6f}")
            lines.append(f"{name}_count{{{labels}}} {row[-1]:g}")
        counters = {
            "apiserver_watches_started_total": self.watches_started,
            "apiserver_conflicts_retried_total": self.conflicts_retried,
            "apiserver_connections_total": self.connections,
        }
        for key, value in counters.items():
            lines += [f"# TYPE {key} counter", f"{key} {value}"]
        known = ""
        for key, gauge in sorted(gauges.items()):
            name = key.partition("{")[0]
            if name != known:
                lines.append(f"# TYPE {name} gauge")
                known = name
            lines.append(f"{key} {gauge:g}")
        return "\n".join(lines) + "\n"
