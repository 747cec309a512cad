"""kubectl and k8slite, run as a user runs them."""

from __future__ import annotations

import json
import os
import shutil
import subprocess
import sys
from pathlib import Path
from typing import Any

import attrs
import trio

from k8slite.cluster import control
from k8slite.demo.show import NotHeld, Show

__all__ = ["Tools", "find_kubectl"]


def find_kubectl() -> str:
    """The one on PATH, or the one beside our interpreter. Raises NotHeld."""
    beside = str(Path(sys.executable).parent)
    found = shutil.which("kubectl") or shutil.which("kubectl", path=beside)
    if found is None:
        raise NotHeld("there is no kubectl: `make setup` installs one")
    return found


@attrs.frozen
class Tools:
    """Commands on one cluster; `environment` holds its home and its kubeconfig."""

    show: Show
    name: str
    socket: Path
    environment: dict[str, str]
    kubectl_path: str

    async def kubectl(self, *arguments: str, quiet: bool = False) -> str:
        """Run the real kubectl, show the command and what it said. Raises NotHeld."""
        if not quiet:
            self.show.lines(f"$ kubectl {' '.join(arguments)}")
        output, _ = await self._run([self.kubectl_path, *arguments])
        if not quiet:
            self.show.lines(output)
        return output

    async def k8slite(self, *arguments: str) -> str:
        """Run our own command; what it printed, notices first. Raises NotHeld."""
        command = [sys.executable, "-m", "k8slite.cli.main", *arguments, "--name", self.name]
        output, errors = await self._run(command)
        notices = [line for line in errors.splitlines() if line.startswith("note: ")]
        return "\n".join([*notices, output])

    async def status(self) -> dict[str, Any]:
        """What `k8slite status` shows, asked for without starting a program. Raises NotHeld."""
        try:
            return await trio.to_thread.run_sync(control.ask, self.socket, {"op": "status"})
        except (control.NotRunning, control.Refused, TimeoutError) as error:
            raise NotHeld(f"the supervisor does not answer: {error}") from error

    async def kill(self, target: str) -> str:
        """Kill by `k8slite chaos`; the component that it was."""
        answer = json.loads(await self.k8slite("chaos", "kill", target, "-o", "json"))
        component: str = answer["done"][0]["component"]
        return component

    async def _run(self, command: list[str]) -> tuple[str, str]:
        done = await trio.run_process(
            command,
            env={**os.environ, **self.environment},
            stdin=subprocess.DEVNULL,
            capture_stdout=True,
            capture_stderr=True,
            check=False,
        )
        errors = done.stderr.decode(errors="replace")
        if done.returncode:
            words = f"{Path(command[0]).name} {' '.join(command[1:])}"
            raise NotHeld(f"{words}: {errors.strip()}")
        return done.stdout.decode(), errors
