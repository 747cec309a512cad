"""Clusters of real processes for tests: each in a home of its own, each gone afterwards."""

from __future__ import annotations

import base64
import contextlib
import json
import os
import signal
import ssl
import subprocess
import sys
import tempfile
import time
import urllib.error
import urllib.request
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any, Final, TypeVar

import attrs
import yaml

from k8slite.cluster import control
from k8slite.cluster.cleanup import leftovers, strays
from k8slite.cluster.layout import Layout
from tests.ports import free_port

PATIENCE_SECONDS: Final = 60.0
T = TypeVar("T")


def eventually(look: Callable[[], T], *, seconds: float = PATIENCE_SECONDS) -> T:
    """What `look` gives once it gives something true; the last of it after `seconds`."""
    ends_at = time.monotonic() + seconds
    while not (found := look()) and time.monotonic() < ends_at:
        time.sleep(0.05)
    return found


@attrs.frozen
class Cluster:
    """A cluster of that name in that home, there or not."""

    home: Path
    name: str

    @property
    def layout(self) -> Layout:
        return Layout((self.home / self.name).resolve())

    @property
    def environment(self) -> dict[str, str]:
        return {**os.environ, "K8SLITE_HOME": str(self.home)}

    def popen(self, *arguments: str) -> subprocess.Popen[str]:
        if arguments[0] == "up" and "--port" not in arguments and not self.layout.exists():
            # One that nobody else on the machine takes while this cluster is stopped.
            arguments = (*arguments, "--port", str(free_port()))
        return subprocess.Popen(
            [sys.executable, "-m", "k8slite.cli.main", *arguments, "--name", self.name],
            env=self.environment,
            stdin=subprocess.DEVNULL,
            stdout=subprocess.PIPE,
            stderr=subprocess.STDOUT,
            text=True,
        )

    def run(self, *arguments: str) -> tuple[int, str]:
        """The exit code, and what was said on both outputs."""
        with self.popen(*arguments) as process:
            output, _ = process.communicate(timeout=180)
        return process.returncode, output

    def must(self, *arguments: str) -> str:
        code, output = self.run(*arguments)
        assert code == 0, output + self.logs()
        return output

    def logs(self) -> str:
        """The last lines of every log, for one who has to find out."""
        words = ""
        for path in sorted(self.layout.logs.glob("*.log")) if self.layout.logs.is_dir() else []:
            lines = path.read_text(errors="replace").splitlines()[-5:]
            words += f"\n--- {path.name}\n" + "\n".join(lines)
        return words

    def status(self) -> dict[str, Any]:
        """What `k8slite status -o json` shows, without starting a program for it."""
        return control.ask(self.layout.socket, {"op": "status"})

    def row(self, component: str) -> dict[str, Any]:
        found: dict[str, Any] = self.status()["components"][component]
        return found

    def all_run(self) -> bool:
        return all(row["state"] == "running" for row in self.status()["components"].values())

    def leader(self, role: str) -> str:
        """Who leads, by its own word; empty when nobody or two do."""
        leaders = [
            name
            for name, row in self.status()["components"].items()
            if row["role"] == role
            and (row["status"].get("leading") or row["status"].get("role") == "leader")
        ]
        return leaders[0] if len(leaders) == 1 else ""

    def kill_all(self) -> None:
        """As when the machine loses its power: nobody gets to say a word."""
        for pid in strays(self.layout):
            with contextlib.suppress(ProcessLookupError):
                os.kill(pid, signal.SIGKILL)
        assert eventually(lambda: not self.layout.is_running())

    # --- its API, as any program with the kubeconfig sees it ---

    def get(
        self, path: str, body: dict[str, Any] | None = None, *, method: str | None = None
    ) -> dict[str, Any]:
        """GET, or POST with a body, or what `method` says. Raises OSError."""
        config = yaml.safe_load(self.layout.kubeconfig.read_text())
        cluster, user = config["clusters"][0]["cluster"], config["users"][0]["user"]
        ca = base64.b64decode(cluster["certificate-authority-data"]).decode()
        context = ssl.create_default_context(cadata=ca)
        with tempfile.NamedTemporaryFile() as pem:
            pem.write(base64.b64decode(user["client-certificate-data"]))
            pem.write(base64.b64decode(user["client-key-data"]))
            pem.flush()
            context.load_cert_chain(pem.name)
        request = urllib.request.Request(
            cluster["server"] + path,
            data=None if body is None else json.dumps(body).encode(),
            headers={"Content-Type": "application/json"},
            method=method,
        )
        with urllib.request.urlopen(request, context=context, timeout=20) as answer:
            found: dict[str, Any] = json.load(answer)
        return found

    def answers(self) -> bool:
        try:
            self.get("/api/v1/namespaces/default")
        except OSError:
            return False
        return True

    def write(self, name: str) -> None:
        """A config map of that name, acknowledged. Raises OSError."""
        body = {"metadata": {"name": name}, "data": {"is": name}}
        self.get("/api/v1/namespaces/default/configmaps", body)

    def has(self, name: str) -> bool:
        """Raises OSError where the question has no answer."""
        try:
            found = self.get(f"/api/v1/namespaces/default/configmaps/{name}")
        except urllib.error.HTTPError as error:
            if error.code == 404:
                return False
            raise
        return bool(found["data"] == {"is": name})


@contextmanager
def cluster(home: Path, name: str) -> Iterator[Cluster]:
    """A name to work with. Whatever the test does, nothing of it is left."""
    made = Cluster(home, name)
    try:
        yield made
    finally:
        layout = made.layout
        if layout.is_ours():
            made.run("down")
        left = leftovers(name, layout)
        for pid in strays(layout):
            os.kill(pid, signal.SIGKILL)
        assert not left
        assert not layout.root.exists()
