"""Writes per second by quorum size: real members, real disks, one machine.

Owns: the members it starts and their directory; both are gone when it returns, also after an
error or Ctrl-C. Each size is measured on fresh members with empty logs; everything is written
with fsync, and a put counts only once its reply is there.

`add_arguments` and `run` are what `k8slite bench quorum` uses; programs call `run_quorum`.
"""

from __future__ import annotations

import argparse
import contextlib
import json
import os
import shutil
import signal
import socket
import subprocess
import sys
import tempfile
from collections.abc import AsyncIterator, Callable, Sequence
from pathlib import Path
from typing import Any

import trio

__all__ = ["add_arguments", "run", "run_quorum"]

START_SECONDS = 30.0
STOP_SECONDS = 5.0
HEADINGS = ("MEMBERS", "CLIENTS", "PUT/S", "P50 MS", "P90 MS", "P99 MS")
FIELDS = ("members", "clients", "put_per_second", "p50_ms", "p90_ms", "p99_ms")

Report = Callable[[str], None]


def add_arguments(parser: argparse.ArgumentParser) -> None:
    add = parser.add_argument
    add("--sizes", default="1,3,5", metavar="N,...", help="cluster sizes (default: %(default)s)")
    add("--clients", default="64", metavar="N,...", help="puts in flight (default: %(default)s)")
    add("--seconds", type=float, default=10.0, help="measured time per size (default: 10)")
    add("--connections", type=int, default=8, help="connections of the load (default: 8)")
    add("--value-bytes", type=int, default=256, help="size of each value (default: 256)")
    add("--dir", default=None, metavar="DIR", help="where the logs go for the time being")
    add("-o", "--output", choices=("table", "json"), default="table", help="default: table")


def run(arguments: argparse.Namespace) -> int:
    """The command; its exit code."""
    try:
        sizes, clients = _numbers(arguments.sizes), _numbers(arguments.clients)
    except ValueError as error:
        sys.stderr.write(f"bench quorum: {error}\n")
        return 2
    report = _progress if sys.stderr.isatty() else _silence
    try:
        results = run_quorum(
            sizes,
            clients,
            arguments.seconds,
            connections=arguments.connections,
            value_bytes=arguments.value_bytes,
            directory=arguments.dir,
            report=report,
        )
    except KeyboardInterrupt:
        return 130
    except (OSError, BenchFailed) as error:
        sys.stderr.write(f"bench quorum: {error}\n")
        return 1
    if arguments.output == "json":
        sys.stdout.write(json.dumps(results) + "\n")
    else:
        sys.stdout.write(table(results))
    return 0


def table(results: Sequence[dict[str, Any]]) -> str:
    lines = [HEADINGS, *(tuple(str(result[field]) for field in FIELDS) for result in results)]
    widths = [max(len(line[column]) for line in lines) for column in range(len(HEADINGS))]
    rows = ["  ".join(c.rjust(w) for c, w in zip(line, widths, strict=True)) for line in lines]
    return "\n".join(rows) + "\n"


def _numbers(text: str) -> list[int]:
    numbers = [int(each) for each in text.split(",") if each.strip().isdigit()]
    if not numbers or min(numbers) < 1 or len(numbers) != len(text.split(",")):
        raise ValueError(f"{text!r} is not a list of numbers like 1,3,5")
    return numbers


def _progress(message: str) -> None:
    sys.stderr.write(f"\r\x1b[K{message}")
    sys.stderr.flush()


def _silence(message: str) -> None:
    """No terminal, no progress."""


class BenchFailed(Exception):
    """A member or the load ended badly; the message holds what it said last."""


def run_quorum(
    sizes: Sequence[int] = (1, 3, 5),
    clients: Sequence[int] = (64,),
    seconds: float = 10.0,
    *,
    connections: int = 8,
    value_bytes: int = 256,
    directory: str | None = None,
    report: Report = _silence,
) -> list[dict[str, Any]]:
    """Measure every size with every number of clients.

    Each result: members, clients, seconds, puts, put_per_second, p50_ms, p90_ms, p99_ms,
    value_bytes, fsync. Raises BenchFailed, OSError.
    """
    options = {"connections": connections, "value_bytes": value_bytes}
    return trio.run(_measure_all, sizes, clients, seconds, options, directory, report)


async def _measure_all(
    sizes: Sequence[int],
    clients: Sequence[int],
    seconds: float,
    options: dict[str, int],
    directory: str | None,
    report: Report,
) -> list[dict[str, Any]]:
    results = []
    for size in sizes:
        for count in clients:
            report(f"{size} members, {count} clients: starting")
            parent = tempfile.mkdtemp(prefix="raftkv-bench-", dir=directory)
            try:
                async with open_members(size, Path(parent)) as endpoints:
                    report(f"{size} members, {count} clients: measuring for {seconds:g} s")
                    summary = await _load(endpoints, count, seconds, options)
            finally:
                shutil.rmtree(parent, ignore_errors=True)
            if summary["errors"]:
                raise BenchFailed(f"puts failed: {summary['errors'][0]}")
            extra = {"value_bytes": options["value_bytes"], "fsync": True}
            results.append({"members": size, **summary, **extra})
    report("")
    return results


async def _load(
    endpoints: list[str], clients: int, seconds: float, options: dict[str, int]
) -> dict[str, Any]:
    """The load, in its own process; it is ended with us."""
    command = [sys.executable, "-m", "bench.load", "--endpoints", ",".join(endpoints)]
    command += ["--clients", str(clients), "--seconds", str(seconds)]
    command += ["--connections", str(options["connections"])]
    command += ["--value-bytes", str(options["value_bytes"])]
    ended = await trio.run_process(
        command, capture_stdout=True, capture_stderr=True, check=False, env=_environment()
    )
    if ended.returncode:
        raise BenchFailed(f"the load failed: {_last_line(ended.stderr)}")
    summary: dict[str, Any] = json.loads(ended.stdout)
    return summary


@contextlib.asynccontextmanager
async def open_members(size: int, directory: Path) -> AsyncIterator[list[str]]:
    """Members as processes; their client addresses. They are gone at the end of the block."""
    ports = _free_ports(2 * size)
    names = [f"m{number}" for number in range(1, size + 1)]
    peers = ",".join(f"{name}=127.0.0.1:{port}" for name, port in zip(names, ports, strict=False))
    endpoints = [f"127.0.0.1:{port}" for port in ports[size:]]
    processes: list[subprocess.Popen[bytes]] = []
    try:
        for name, endpoint in zip(names, endpoints, strict=True):
            command = [sys.executable, "-m", "raftkv.cli", "serve", "--name", name]
            command += ["--data-dir", str(directory / name), "--client-listen", endpoint]
            command += ["--peers", peers] if size > 1 else []
            command += ["--campaign"] if name == "m1" else []
            processes.append(_start(command, directory / f"{name}.log"))
        await _wait_listening(endpoints, processes, directory)
        yield endpoints
        for name, process in zip(names, processes, strict=True):
            if process.poll() is not None:
                said = _last_line((directory / f"{name}.log").read_bytes())
                raise BenchFailed(f"member {name} ended: {said}")
    finally:
        _stop(processes)


def _start(command: list[str], output: Path) -> subprocess.Popen[bytes]:
    with output.open("wb") as file:
        return subprocess.Popen(command, stdout=file, stderr=file, env=_environment())


async def _wait_listening(
    endpoints: list[str], processes: list[subprocess.Popen[bytes]], directory: Path
) -> None:
    with trio.fail_after(START_SECONDS):
        for number, endpoint in enumerate(endpoints):
            host, _, port = endpoint.rpartition(":")
            while True:
                if processes[number].poll() is not None:
                    said = _last_line((directory / f"m{number + 1}.log").read_bytes())
                    raise BenchFailed(f"a member did not start: {said}")
                with contextlib.suppress(OSError):
                    await trio.aclose_forcefully(await trio.open_tcp_stream(host, int(port)))
                    break
                await trio.sleep(0.05)


def _stop(processes: list[subprocess.Popen[bytes]]) -> None:
    """SIGKILL is fine: what they wrote is deleted anyway."""
    for process in processes:
        if process.poll() is None:
            process.send_signal(signal.SIGKILL)
    for process in processes:
        with contextlib.suppress(subprocess.TimeoutExpired):
            process.wait(STOP_SECONDS)


def _free_ports(count: int) -> list[int]:
    sockets = [socket.socket() for _ in range(count)]
    try:
        for each in sockets:
            each.bind(("127.0.0.1", 0))
        return [each.getsockname()[1] for each in sockets]
    finally:
        for each in sockets:
            each.close()


def _environment() -> dict[str, str]:
    """Children find the packages where we found them, wherever they are run."""
    root = str(Path(__file__).resolve().parent.parent)
    path = os.environ.get("PYTHONPATH")
    return {**os.environ, "PYTHONPATH": f"{root}{os.pathsep}{path}" if path else root}


def _last_line(output: bytes) -> str:
    lines = output.decode(errors="replace").strip().splitlines()
    return lines[-1] if lines else "(it said nothing)"


def main() -> int:
    parser = argparse.ArgumentParser(prog="python -m bench.quorum", description=__doc__)
    add_arguments(parser)
    return run(parser.parse_args())


if __name__ == "__main__":
    sys.exit(main())
