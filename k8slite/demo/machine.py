"""What is on the machine outside the cluster's directory, so that before and after compare."""

from __future__ import annotations

import os
import shutil
import subprocess
from pathlib import Path

__all__ = ["Machine", "look"]

Machine = dict[str, set[str]]


def look() -> Machine:
    """Everything that a cluster might leave behind, by sort."""
    return {
        "network namespace": _names("/run/netns"),
        "interface": _names("/sys/class/net"),
        "mount": _mounts(),
        "control group": _groups(),
        "rule": _rules(),
    }


def _names(directory: str) -> set[str]:
    try:
        return set(os.listdir(directory))
    except FileNotFoundError:
        return set()


def _mounts() -> set[str]:
    lines = Path("/proc/self/mountinfo").read_text().splitlines()
    return {line.split()[4] for line in lines}


def _groups() -> set[str]:
    """Those that bear our name; others come and go by themselves."""
    found = set()
    for top in Path("/sys/fs/cgroup").glob("*"):
        found |= {str(path) for path in top.glob("k8slite*")}
    return found | {str(path) for path in Path("/sys/fs/cgroup").glob("k8slite*")}


def _rules() -> set[str]:
    """The host's own packet rules, which must never be touched."""
    if os.geteuid() != 0 or not shutil.which("iptables-save"):
        return set()
    done = subprocess.run(["iptables-save"], capture_output=True, text=True, check=False)
    return {line.split("[")[0] for line in done.stdout.splitlines() if not line.startswith("#")}
