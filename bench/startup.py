"""Time until a cluster is ready, and the memory of all its processes when it idles.

Each run makes a fresh cluster in a directory of its own with `k8slite up --detach`, as a user
would, and deletes it. Ready means what `up` waits for: every node is Ready, and the service account
`default` exists, seen through the API. Memory is the sum of the proportional set sizes (PSS) of
all processes that the cluster started, the supervisor's too.
"""

from __future__ import annotations

import argparse
import json
import os
import statistics
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

__all__ = ["add_arguments", "run", "run_startup"]

NAME = "bench-startup"
COMMAND = (sys.executable, "-m", "k8slite.cli.main")


class BenchFailed(Exception):
    """A command did not work; the message is for the user."""


def add_arguments(parser: argparse.ArgumentParser) -> None:
    add = parser.add_argument
    add("--runs", type=int, default=3, metavar="N", help="fresh clusters (default: %(default)s)")
    add("--control-planes", type=int, default=3, metavar="N", help="default: %(default)s")
    add("--nodes", type=int, default=2, metavar="N", help="default: %(default)s")
    add("--runtime", default="auto", help="default: %(default)s")
    add("--idle", type=float, default=5.0, metavar="SECONDS", help="before memory is measured")
    add("-o", "--output", choices=("table", "json"), default="table", help="default: table")


def run(arguments: argparse.Namespace) -> int:
    """The command; its exit code."""
    up = ["--control-planes", str(arguments.control_planes), "--nodes", str(arguments.nodes)]
    up += ["--runtime", arguments.runtime]
    report = _progress if sys.stderr.isatty() else _silence
    try:
        results = run_startup(arguments.runs, up, arguments.idle, report)
    except BenchFailed as error:
        sys.stderr.write(f"bench startup: {error}\n")
        return 1
    if arguments.output == "json":
        print(json.dumps(results, indent=2))
        return 0
    seconds = [each["ready_seconds"] for each in results["runs"]]
    memory = [each["pss_bytes"] / 1e6 for each in results["runs"]]
    print(f"{'RUN':6}{'READY S':>10}{'PSS MB':>10}{'PROCESSES':>12}")
    for number, each in enumerate(results["runs"], 1):
        print(
            f"{number:<6}{each['ready_seconds']:10.2f}{each['pss_bytes'] / 1e6:10.0f}"
            f"{each['processes']:12}"
        )
    print(f"{'median':6}{statistics.median(seconds):10.2f}{statistics.median(memory):10.0f}")
    return 0


def _progress(message: str) -> None:
    sys.stderr.write(f"{message}\n")


def _silence(message: str) -> None:
    return


def run_startup(
    runs: int, up: list[str], idle: float, report: Callable[[str], None]
) -> dict[str, Any]:
    """Figures of each run, in seconds and bytes. Raises BenchFailed."""
    with tempfile.TemporaryDirectory(prefix="k8slite-bench-") as home:
        environment = {**os.environ, "K8SLITE_HOME": str(Path(home) / "home")}
        results = []
        for number in range(1, runs + 1):
            report(f"run {number} of {runs}")
            try:
                started = time.monotonic()
                _command(environment, "up", "--detach", "--name", NAME, *up)
                seconds = time.monotonic() - started
                time.sleep(idle)
                status = json.loads(_command(environment, "status", "-o", "json", "--name", NAME))
            finally:
                _command(environment, "down", "--name", NAME)
            rows = [*status["components"].values(), *status["own"].values()]
            results.append(
                {
                    "ready_seconds": seconds,
                    "pss_bytes": sum(row["memory"] for row in rows),
                    "processes": len(rows),
                    "components": {
                        name: row["memory"]
                        for name, row in {**status["components"], **status["own"]}.items()
                    },
                }
            )
    return {"cpus": os.cpu_count(), "runs": results}


def _command(environment: dict[str, str], *arguments: str) -> str:
    done = subprocess.run(
        [*COMMAND, *arguments], env=environment, capture_output=True, text=True, check=False
    )
    if done.returncode:
        raise BenchFailed(f"k8slite {' '.join(arguments)}: {done.stderr.strip()}")
    return done.stdout
