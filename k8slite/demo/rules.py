"""The host's own packet rules, which a cluster must never touch: its rules are the nodes'."""

from __future__ import annotations

import os
import shutil
import subprocess
from typing import Final

__all__ = ["rules_of_ours"]

COMMANDS: Final = (("iptables-save",), ("nft", "list", "ruleset"))
MARKS: Final = ("KUBE-", "K8SLITE", "k8slite")


def rules_of_ours() -> list[str]:
    """Rules of the host that bear the names which a cluster gives; none without root."""
    if os.geteuid() != 0:
        return []
    found = []
    for command in COMMANDS:
        if shutil.which(command[0]):
            done = subprocess.run(command, capture_output=True, text=True, check=False)
            found += [
                f"rule {line.strip()}"
                for line in done.stdout.splitlines()
                if any(mark in line for mark in MARKS)
            ]
    return found
