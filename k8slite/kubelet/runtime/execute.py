"""Run one command beside or inside a container, and leave nothing of it behind."""

from __future__ import annotations

import contextlib
import os
import signal
import subprocess
from pathlib import Path

import attrs
import trio

from k8slite.kubelet.runtime.interface import ExecResult, RuntimeFailure
from k8slite.kubelet.runtime.sessions import kill_session

EXEC_OUTPUT_MAX = 1024 * 1024
DRAIN_SECONDS = 1.0  # how long a child left behind may hold the pipes


@attrs.frozen
class Exec:
    """How to run a command inside a container."""

    argv: tuple[str, ...]
    env: dict[str, str]
    cwd: str
    pid_file: str = ""  # who runs inside, where `argv` only asks for it
    log: str = ""  # where the OCI runtime says why it could not
    process: str = ""  # what `argv` reads: the OCI process, with a terminal of its own


async def run_command(how: Exec) -> ExecResult:
    """Run a command in a session of its own; when cancelled, kill that whole session.

    Of each stream EXEC_OUTPUT_MAX bytes are kept; the rest is read and dropped.
    """
    try:
        process = await trio.lowlevel.open_process(
            list(how.argv),
            stdin=subprocess.DEVNULL,
            stdout=subprocess.PIPE,
            stderr=subprocess.PIPE,
            env=how.env,
            cwd=how.cwd,
            start_new_session=True,
        )
    except OSError as error:
        raise RuntimeFailure(f'exec: "{how.argv[0]}": {error.strerror}') from None
    output = {"stdout": bytearray(), "stderr": bytearray()}

    async def collect(stream: trio.abc.ReceiveStream | None, into: bytearray) -> None:
        assert stream is not None
        async with stream:
            async for chunk in stream:
                into += chunk[: EXEC_OUTPUT_MAX - len(into)]

    try:
        async with trio.open_nursery() as nursery:
            nursery.start_soon(collect, process.stdout, output["stdout"])
            nursery.start_soon(collect, process.stderr, output["stderr"])
            code = await process.wait()
            with trio.move_on_after(DRAIN_SECONDS):  # a child left behind may hold the pipes
                while nursery.child_tasks:
                    await trio.sleep(0.01)
            nursery.cancel_scope.cancel()
    finally:
        if process.returncode is None and how.pid_file:
            with trio.CancelScope(shield=True):
                await _kill_inside(how.pid_file)
        with contextlib.suppress(ProcessLookupError, PermissionError):
            os.killpg(process.pid, signal.SIGKILL)
        with trio.CancelScope(shield=True):
            await process.wait()
        for path in (how.pid_file, how.log):
            if path:
                with contextlib.suppress(OSError):
                    os.unlink(path)
    code = 128 - code if code < 0 else code
    return ExecResult(code, bytes(output["stdout"]), bytes(output["stderr"]))


async def _kill_inside(pid_file: str) -> None:
    """Kill the command in the container, which does not end with who asked for it.

    It may be just about to start: then its pid is not written yet. Returns when it is gone.
    """
    with trio.move_on_after(DRAIN_SECONDS):
        while True:
            with contextlib.suppress(OSError, ValueError):
                leader = int(Path(pid_file).read_text())  # noqa: ASYNC240
                while kill_session(leader, signal.SIGKILL):
                    await trio.sleep(0.01)
                return
            await trio.sleep(0.01)
