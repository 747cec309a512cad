"""A cluster of real processes for a test: real kubectl, real clients, real kills.

    with open_processes(nodes=1) as cluster:
        config.load_kube_config(str(cluster.kubeconfig))      # or any other client
        cluster.kubectl("apply", "-f", "web.yaml")
        cluster.kill("raft-leader")

It is gone afterwards, however the block is left. When even this process is killed the cluster stops
by itself; `k8slite list` then shows what is left on the disk, and `k8slite down` deletes it.
"""

from __future__ import annotations

import itertools
import os
import shutil
import subprocess
import sys
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any, Final

import attrs

from k8slite.cluster import ending, starting
from k8slite.cluster.layout import Layout, find
from k8slite.cluster.machine import choose
from k8slite.cluster.spec import ClusterSpec

__all__ = ["ProcessCluster", "open_processes"]

LOG_LINES: Final = 8

_numbers = itertools.count(1)


@attrs.frozen
class ProcessCluster:
    """A cluster that runs. Targets of chaos are those of `k8slite chaos`: `raft-leader`,
    `scheduler-leader`, `apiserver-2`, `node-1`, ..."""

    name: str
    spec: ClusterSpec
    layout: Layout

    @property
    def kubeconfig(self) -> Path:
        """What clients need; valid in every process of this user, of the group system:masters."""
        return self.layout.kubeconfig

    @property
    def environment(self) -> dict[str, str]:
        """Ours, with KUBECONFIG: for programs that the test starts."""
        return {**os.environ, "KUBECONFIG": str(self.kubeconfig)}

    def kubectl(self, *arguments: str, stdin: str = "") -> str:
        """What kubectl prints. Raises subprocess.CalledProcessError, with its `stderr`, and
        FileNotFoundError where there is none on PATH or beside our interpreter."""
        beside = str(Path(sys.executable).parent)
        kubectl = shutil.which("kubectl") or shutil.which("kubectl", path=beside)
        if kubectl is None:
            raise FileNotFoundError("there is no kubectl, neither on PATH nor beside Python")
        done = subprocess.run(
            [kubectl, *arguments],
            env=self.environment,
            input=stdin,
            capture_output=True,
            text=True,
            check=True,
        )
        return done.stdout

    def status(self) -> dict[str, Any]:
        """What `k8slite status -o json` shows: `components` by name, and more."""
        return self._ask({"op": "status"})

    def kill(self, target: str, *, seconds: float | None = 0.0) -> list[str]:
        """SIGKILL; the components that it was. They stay dead for `seconds`; None: until
        `resume`. Raises k8slite.cluster.control.Refused for what is no target."""
        return self._chaos("kill", target, seconds=seconds)

    def pause(self, target: str) -> list[str]:
        """SIGSTOP: it keeps its connections and its memory, and does nothing."""
        return self._chaos("pause", target)

    def resume(self, target: str) -> list[str]:
        """What is paused goes on, what is kept dead starts."""
        return self._chaos("resume", target)

    def logs(self) -> str:
        """The last lines of every component's log, for who has to find out."""
        words = ""
        for path in sorted(self.layout.logs.glob("*.log")):
            lines = path.read_text(errors="replace").splitlines()[-LOG_LINES:]
            words += f"--- {path.name}\n" + "".join(f"{line}\n" for line in lines)
        return words

    def _chaos(self, operation: str, target: str, **more: Any) -> list[str]:
        done = self._ask({"op": operation, "target": target, **more})["done"]
        return [each["component"] for each in done]

    def _ask(self, request: dict[str, Any]) -> dict[str, Any]:
        from k8slite.cluster import control

        return control.ask(self.layout.socket, request)


@contextmanager
def open_processes(
    *,
    name: str = "",
    control_planes: int = 3,
    nodes: int = 2,
    runtime: str = "auto",
    proxy: str = "auto",
    fast: bool = True,
) -> Iterator[ProcessCluster]:
    """A cluster that is ready; the options are those of `k8slite up`.

    `name` is by default one that nobody else has. `fast`: short leases, and nodes that are missed
    after seconds. Raises CannotStart, with the words of `up` and
    the ends of all logs, and InvalidSpec.
    """
    name = name or f"test-{os.getpid()}-{next(_numbers)}"
    choice = choose(runtime, proxy)
    spec = ClusterSpec(
        name=name,
        control_planes=control_planes,
        nodes=nodes,
        runtime=choice.runtime,
        proxy=choice.proxy,
        fast=fast,
    )
    layout = find(name)
    if layout.exists():
        raise starting.CannotStart(
            f"there is a cluster {name!r} already: k8slite down --name {name}"
        )
    started = starting.start(name, layout, spec)
    cluster = ProcessCluster(name, spec, layout)
    try:
        try:
            started.wait_ready()
        except starting.CannotStart as error:
            raise starting.CannotStart(f"{error}\n{cluster.logs()}") from error
        yield cluster
    finally:
        started.stop()
        if layout.is_ours():
            ending.delete(name, layout)
