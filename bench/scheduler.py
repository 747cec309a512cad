"""Pods bound per second on fake nodes, end to end through the API, and decisions alone.

Each run makes a fresh cluster of one control plane and no nodes, adds Node objects that no kubelet
stands behind, creates pods over several connections, and follows a watch until every pod has its
node. The rate counts from the first request to the last binding seen. Decisions alone are measured
in a process of their own, without API and cluster (`k8slite.scheduler.measure`).
"""

from __future__ import annotations

import argparse
import base64
import http.client
import json
import os
import ssl
import subprocess
import sys
import tempfile
import threading
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

__all__ = ["add_arguments", "run", "run_scheduler"]

NAME = "bench-scheduler"
COMMAND = (sys.executable, "-m", "k8slite.cli.main")
MEASURE = (sys.executable, "-m", "k8slite.scheduler.measure")
PATIENCE_SECONDS = 600.0
ZONE, HOST = "topology.kubernetes.io/zone", "kubernetes.io/hostname"
Report = Callable[[str], None]


class BenchFailed(Exception):
    """A command did not work; the message is for the user."""


def add_arguments(parser: argparse.ArgumentParser) -> None:
    add = parser.add_argument
    add("--nodes", default="100,1000", metavar="N,...", help="default: %(default)s")
    add("--pods", type=int, default=3000, help="default: %(default)s")
    add("--shape", choices=("plain", "spread", "affinity"), default="plain", help="of the pods")
    add("--connections", type=int, default=16, help="that create pods (default: %(default)s)")
    add("--store", choices=("raftkv", "memory"), default="raftkv", help="default: %(default)s")
    add("--decisions-only", action="store_true", help="no cluster")
    add("-o", "--output", choices=("table", "json"), default="table", help="default: table")


def run(arguments: argparse.Namespace) -> int:
    """The command; its exit code."""
    report = _progress if sys.stderr.isatty() else _silence
    try:
        sizes = [int(word) for word in arguments.nodes.split(",")]
        results = run_scheduler(
            sizes,
            arguments.pods,
            arguments.shape,
            arguments.connections,
            store=arguments.store,
            decisions_only=arguments.decisions_only,
            report=report,
        )
    except (BenchFailed, ValueError) as error:
        sys.stderr.write(f"bench scheduler: {error}\n")
        return 1
    if arguments.output == "json":
        print(json.dumps(results, indent=2))
        return 0
    print(f"{'NODES':8}{'PODS':>8}{'BOUND/S':>10}{'DECISION US':>14}{'P99 US':>10}")
    for each in results:
        rate = each.get("bound_per_second")
        print(
            f"{each['nodes']:<8}{each['pods']:8}{'-' if rate is None else round(rate):>10}"
            f"{each['decision']['mean_us']:14.0f}{each['decision']['p99_us']:10.0f}"
        )
    return 0


def _progress(message: str) -> None:
    sys.stderr.write(f"{message}\n")


def _silence(message: str) -> None:
    return


def run_scheduler(
    sizes: list[int],
    pods: int,
    shape: str,
    connections: int,
    *,
    store: str = "raftkv",
    decisions_only: bool = False,
    report: Report = _silence,
) -> list[dict[str, Any]]:
    """Figures for each number of nodes. Raises BenchFailed."""
    results = []
    for size in sizes:
        report(f"{size} nodes: decisions")
        words = ("--nodes", str(size), "--pods", str(pods), "--shape", shape)
        decision = json.loads(_output([*MEASURE, *words], os.environ))
        row: dict[str, Any] = {"nodes": size, "pods": pods, "shape": shape, "decision": decision}
        if not decisions_only:
            report(f"{size} nodes: a cluster")
            row |= _through_the_api(size, pods, shape, connections, store)
        results.append(row)
    return results


def _output(words: list[str], environment: Any) -> str:
    done = subprocess.run(words, env=environment, capture_output=True, text=True, check=False)
    if done.returncode:
        raise BenchFailed(f"{' '.join(words[2:])}: {done.stderr.strip()}")
    return done.stdout


def _through_the_api(
    size: int, pods: int, shape: str, connections: int, store: str
) -> dict[str, Any]:
    with tempfile.TemporaryDirectory(prefix="k8slite-bench-") as home:
        environment = {**os.environ, "K8SLITE_HOME": str(Path(home) / "home")}
        up = ["up", "--detach", "--name", NAME, "--control-planes", "1", "--nodes", "0"]
        up += ["--runtime", "fake", "--store", store]
        try:
            _output([*COMMAND, *up], environment)
            config = _output([*COMMAND, "kubeconfig", "--name", NAME], environment)
            api = Api(config, Path(home))
            api.many("/api/v1/nodes", [_node(number) for number in range(size)], connections)
            seen = Seen(api, pods)
            began = time.monotonic()
            path = "/api/v1/namespaces/default/pods"
            api.many(path, [_pod(number, shape) for number in range(pods)], connections)
            created = time.monotonic() - began
            if not seen.done.wait(PATIENCE_SECONDS):
                raise BenchFailed(f"only {seen.count} of {pods} pods got a node")
            seconds = time.monotonic() - began
            status = json.loads(
                _output([*COMMAND, "status", "-o", "json", "--name", NAME], environment)
            )
        finally:
            subprocess.run(
                [*COMMAND, "down", "--name", NAME],
                env=environment,
                capture_output=True,
                check=False,
            )
    return {
        "bound_per_second": pods / seconds,
        "created_per_second": pods / created,
        "memory_bytes": {
            name: row["memory"]
            for name, row in status["components"].items()
            if name.startswith(("scheduler", "controller", "apiserver"))
        },
    }


class Api:
    """The apiserver, as its administrator; each thread has a connection of its own."""

    def __init__(self, kubeconfig: str, directory: Path) -> None:
        found: dict[str, str] = {}
        for line in kubeconfig.splitlines():
            name, colon, value = line.strip().removeprefix("- ").partition(":")
            if colon and value.strip():
                found[name] = value.strip().strip('"')
        address = found["server"].removeprefix("https://")
        self._host, _, port = address.rpartition(":")
        self._port = int(port)
        self._tls = ssl.create_default_context(
            cadata=base64.b64decode(found["certificate-authority-data"]).decode()
        )
        pem = directory / "client.pem"
        both = [found["client-certificate-data"], found["client-key-data"]]
        pem.write_bytes(b"".join(map(base64.b64decode, both)))
        self._tls.load_cert_chain(pem)

    def connect(self) -> http.client.HTTPSConnection:
        return http.client.HTTPSConnection(self._host, self._port, context=self._tls)

    def one(
        self, method: str, path: str, body: bytes | None = None, kind: str = "application/json"
    ) -> Any:
        connection = self.connect()
        connection.request(method, path, body, {"Content-Type": kind})
        answer = connection.getresponse()
        data = answer.read()
        connection.close()
        if answer.status >= 300:
            raise BenchFailed(f"{method} {path}: {answer.status} {data[:200]!r}")
        return json.loads(data)

    def many(self, path: str, bodies: list[bytes], connections: int) -> None:
        """POST them all. Raises BenchFailed."""
        failures: list[str] = []

        def work(mine: list[bytes]) -> None:
            connection = self.connect()
            for body in mine:
                connection.request("POST", path, body, {"Content-Type": "application/json"})
                answer = connection.getresponse()
                data = answer.read()
                if answer.status != 201:
                    failures.append(f"POST {path}: {answer.status} {data[:200]!r}")
                    return

        threads = [
            threading.Thread(target=work, args=(bodies[i::connections],))
            for i in range(connections)
        ]
        for thread in threads:
            thread.start()
        for thread in threads:
            thread.join()
        if failures:
            raise BenchFailed(failures[0])


class Seen:
    """Counts the bindings that a watch shows."""

    def __init__(self, api: Api, wanted: int) -> None:
        self.count = 0
        self.done = threading.Event()
        self._wanted = wanted
        version = api.one("GET", "/api/v1/pods?limit=1")["metadata"]["resourceVersion"]
        connection = api.connect()
        connection.request("GET", f"/api/v1/pods?watch=1&resourceVersion={version}")
        self._answer = connection.getresponse()
        threading.Thread(target=self._follow, daemon=True).start()

    def _follow(self) -> None:
        bound: set[bytes] = set()
        for line in self._answer:
            if b'"nodeName":"fake-' in line:
                at = line.index(b'"name":"pod-')
                bound.add(line[at : at + 20])
                self.count = len(bound)
                if self.count == self._wanted:
                    self.done.set()
                    return


def _node(number: int) -> bytes:
    own = f"fake-{number:05}"
    size = {"cpu": "32", "memory": "256Gi", "pods": "110"}
    ready = {"type": "Ready", "status": "True", "reason": "KubeletReady"}
    metadata = {"name": own, "labels": {HOST: own, ZONE: f"zone-{number % 3}"}}
    status = {"allocatable": size, "capacity": size, "conditions": [ready]}
    return json.dumps({"metadata": metadata, "spec": {}, "status": status}).encode()


def _pod(number: int, shape: str) -> bytes:
    """Tolerates everything: the fake nodes are soon found to be dead."""
    app = f"app-{number % 10}"
    selector = {"matchLabels": {"app": app}}
    resources = {"requests": {"cpu": "100m", "memory": "256Mi"}}
    spec: dict[str, Any] = {
        "containers": [{"name": "c", "image": "fake", "resources": resources}],
        "tolerations": [{"operator": "Exists"}],
        "nodeSelector": {},
    }
    if shape == "spread":
        rule = {"maxSkew": 1, "topologyKey": ZONE, "labelSelector": selector}
        spec["topologySpreadConstraints"] = [{**rule, "whenUnsatisfiable": "DoNotSchedule"}]
    elif shape == "affinity":
        term = {"topologyKey": HOST, "labelSelector": selector}
        weighted = [{"weight": 100, "podAffinityTerm": term}]
        rules = {"preferredDuringSchedulingIgnoredDuringExecution": weighted}
        spec["affinity"] = {"podAntiAffinity": rules}
    metadata = {"name": f"pod-{number:05}", "labels": {"app": app}}
    return json.dumps({"metadata": metadata, "spec": spec}).encode()
