"""How long services take to become rules on a node: everything at first, then one endpoint.

Each cell is a process of its own in a fresh network namespace (`k8slite.proxy.measure`), without
API and cluster. Needs root, `unshare`, and the tools that write the rules.
"""

from __future__ import annotations

import argparse
import json
import statistics
import subprocess
import sys
from typing import Any

__all__ = ["add_arguments", "run", "run_proxy"]

MEASURE = ("unshare", "--net", sys.executable, "-m", "k8slite.proxy.measure")


class BenchFailed(Exception):
    """A measurement did not work; the message is for the user."""


def add_arguments(parser: argparse.ArgumentParser) -> None:
    add = parser.add_argument
    add("--modes", default="iptables,nftables", metavar="MODE,...", help="default: %(default)s")
    add("--services", default="1000", metavar="N,...", help="default: %(default)s")
    add("--endpoints", type=int, default=5, metavar="N", help="each has (default: %(default)s)")
    add("--changes", type=int, default=20, metavar="N", help="measured (default: %(default)s)")
    add("-o", "--output", choices=("table", "json"), default="table", help="default: table")


def run(arguments: argparse.Namespace) -> int:
    """The command; its exit code."""
    try:
        sizes = [int(word) for word in arguments.services.split(",")]
        modes = arguments.modes.split(",")
        results = run_proxy(modes, sizes, arguments.endpoints, arguments.changes)
    except (BenchFailed, ValueError) as error:
        sys.stderr.write(f"bench proxy: {error}\n")
        return 1
    if arguments.output == "json":
        print(json.dumps(results, indent=2))
        return 0
    print(f"{'MODE':10}{'SERVICES':>10}{'ENDPOINTS':>11}{'FIRST S':>9}{'CHANGE MS':>11}{'P90':>7}")
    for each in results["cells"]:
        changes = sorted(each["change_seconds"])
        p90 = changes[min(len(changes) - 1, len(changes) * 9 // 10)]
        print(
            f"{each['mode']:10}{each['services']:>10}{each['endpoints']:>11}"
            f"{each['first_seconds']:>9.2f}{statistics.median(changes) * 1e3:>11.1f}"
            f"{p90 * 1e3:>7.1f}"
        )
    return 0


def run_proxy(modes: list[str], sizes: list[int], endpoints: int, changes: int) -> dict[str, Any]:
    """All cells. Raises BenchFailed."""
    cells = []
    for mode in modes:
        for size in sizes:
            options = ["--mode", mode, "--services", str(size)]
            options += ["--endpoints", str(endpoints), "--changes", str(changes)]
            try:
                done = subprocess.run([*MEASURE, *options], capture_output=True, text=True)
            except OSError as error:
                raise BenchFailed(f"{MEASURE[0]}: {error}") from error
            if done.returncode:
                raise BenchFailed(done.stderr.strip() or f"exit code {done.returncode}")
            cells.append(json.loads(done.stdout))
    return {"cells": cells}
