"""The whole demo, as `make demo` runs it: what it promises is checked by its own exit code."""

from __future__ import annotations

import subprocess
import sys

import pytest

DEMO = (sys.executable, "-m", "k8slite.cli.main", "demo")


def run(*flags: str) -> None:
    done = subprocess.run([*DEMO, *flags], capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stdout + done.stderr
    assert "All of it held." in done.stdout


@pytest.mark.slow
@pytest.mark.tool("kubectl")
def test_with_processes() -> None:
    run("--runtime", "process")


@pytest.mark.slow
@pytest.mark.root
@pytest.mark.tool("kubectl")
@pytest.mark.tool("runc")
@pytest.mark.tool("iptables-restore")
def test_with_containers() -> None:
    run("--runtime", "oci")
