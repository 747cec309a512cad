"""The few counters that tell how an apiserver fares, in Prometheus' text form."""

from __future__ import annotations

from collections import Counter

__all__ = ["Metrics"]

_BUCKETS = (0.005, 0.025, 0.1, 0.25, 0.5, 1.0, 2.5, 5.0, 10.0)


class Metrics:
    """Owned by the server; plain ints, changed in place."""

    def __init__(self) -> None:
        self.requests: Counter[tuple[str, str, int]] = Counter()
        self.watches_started = 0
        self.conflicts_retried = 0
        self.connections = 0
        self._seconds: dict[str, list[float]] = {}

    def observe(self, verb: str, resource: str, code: int, seconds: float) -> None:
        """Count an answered request."""
        self.requests[verb, resource, code] += 1
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
        for (verb, resource, code), count in sorted(self.requests.items()):
            labels = f'verb="{verb.upper()}",resource="{resource}",code="{code}"'
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
        for key, gauge in sorted(gauges.items()):
            lines += [f"# TYPE {key} gauge", f"{key} {gauge:g}"]
        return "\n".join(lines) + "\n"
