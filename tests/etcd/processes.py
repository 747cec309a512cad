"""Real servers that speak etcd's API: Debian's etcd, and members of ours."""

from __future__ import annotations

import contextlib
import os
import socket
import subprocess
import sys
import time
from collections.abc import Iterator, Sequence
from pathlib import Path

from tests.ports import free_port

__all__ = ["Members", "etcd", "etcdctl", "raftkv", "wait_port"]

START_SECONDS = 30.0


def wait_port(port: int, process: subprocess.Popen[bytes], log: Path) -> None:
    deadline = time.monotonic() + START_SECONDS
    while time.monotonic() < deadline:
        with contextlib.suppress(OSError), socket.create_connection(("127.0.0.1", port), 1):
            return
        if process.poll() is not None:
            break
        time.sleep(0.05)
    raise AssertionError(f"{process.args!r} does not listen:\n{log.read_text()[-2000:]}")


@contextlib.contextmanager
def running(command: list[str], log: Path, *ports: int) -> Iterator[subprocess.Popen[bytes]]:
    """A process until the block ends; in it, it listens on the ports."""
    with log.open("wb") as output:
        process = subprocess.Popen(command, stdout=output, stderr=subprocess.STDOUT)
    try:
        for port in ports:
            wait_port(port, process, log)
        yield process
    finally:
        process.terminate()
        try:
            process.wait(10)
        except subprocess.TimeoutExpired:
            process.kill()
            process.wait()


@contextlib.contextmanager
def etcd(directory: Path) -> Iterator[str]:
    """Debian's etcd, a single member; `HOST:PORT`."""
    directory.mkdir(exist_ok=True)
    client, peer = free_port(), free_port()
    url = f"http://127.0.0.1:{client}"
    peer_url = f"http://127.0.0.1:{peer}"
    command = ["etcd", "--data-dir", str(directory / "etcd"), "--logger=zap", "--log-level=error"]
    command += ["--listen-client-urls", url, "--advertise-client-urls", url]
    command += ["--listen-peer-urls", peer_url, "--initial-advertise-peer-urls", peer_url]
    command += ["--initial-cluster", f"default={peer_url}"]
    with running(command, directory / "etcd.log", client):
        yield f"127.0.0.1:{client}"


class Members(list[str]):
    """`HOST:PORT` of each for etcd's clients, and for ours."""

    def __init__(self) -> None:
        super().__init__()
        self.native: list[str] = []


@contextlib.contextmanager
def raftkv(directory: Path, *flags: str, members: int = 1) -> Iterator[Members]:
    """Members of ours with `--etcd-listen`."""
    directory.mkdir(exist_ok=True)
    numbers = range(1, members + 1)
    peers = {n: free_port() for n in numbers}
    given = ",".join(f"m{n}=127.0.0.1:{port}" for n, port in peers.items())
    addresses = Members()
    with contextlib.ExitStack() as stack:
        for n in numbers:
            client, front = free_port(), free_port()
            command = [sys.executable, "-m", "raftkv.cli", "serve", "--name", f"m{n}", "--campaign"]
            command += ["--data-dir", str(directory / f"m{n}"), "--peers", given]
            command += ["--client-listen", f"127.0.0.1:{client}"]
            command += ["--etcd-listen", f"127.0.0.1:{front}", *flags]
            stack.enter_context(running(command, directory / f"m{n}.log", client, front))
            addresses.append(f"127.0.0.1:{front}")
            addresses.native.append(f"127.0.0.1:{client}")
        yield addresses


def etcdctl(
    endpoints: Sequence[str], *arguments: str, given: str = "", flags: Sequence[str] = ()
) -> str:
    """What etcdctl prints; it must succeed."""
    where = [f"--endpoints={','.join(endpoints)}"] if endpoints else []
    ran = subprocess.run(
        ["etcdctl", *where, *flags, *arguments],
        env={**os.environ, "ETCDCTL_API": "3"},
        input=given,
        capture_output=True,
        text=True,
        timeout=60,
        check=False,
    )
    assert ran.returncode == 0, f"etcdctl {arguments}: {ran.stdout}{ran.stderr}"
    return ran.stdout
