"""Run one command for a client who listens: its streams, its terminal, its end.

Owns: the process from start to exit. When the caller is cancelled (the client has left) the
command's session is hung up and, a moment later, killed; when it ends by itself, what it left
behind goes on where the container owns it (`Exec.pid_file`), and is killed otherwise.
Output is read only as fast as the client takes it.
"""

from __future__ import annotations

import contextlib
import fcntl
import json
import os
import shutil
import signal
import struct
import subprocess
import sys
import termios
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from pathlib import Path

import trio
from attrs import define

from k8slite.kubelet.runtime.execute import Exec
from k8slite.kubelet.runtime.interface import RuntimeFailure, Streams
from k8slite.kubelet.runtime.sessions import kill_session, session_of

__all__ = ["run_interactive"]

TERMINAL = Path(__file__).with_name("terminal.py")
READ_BYTES = 32 * 1024
QUIET_SECONDS = 1.0  # how long a child left behind may hold the pipes in silence
HANGUP_SECONDS = 0.5
SIZE_SECONDS = 0.2  # how long a command with a terminal waits for its size


@define
class _Pump:
    """How one output fares, for who decides that it has run dry."""

    done_bytes: int = 0
    is_reading: bool = True


async def run_interactive(how: Exec, client: Streams, *, stdin: bool, tty: bool) -> int:
    """The exit code. Raises RuntimeFailure when the command cannot start, HangUp of the client."""
    _check(how)
    try:
        run = _run_with_terminal if tty else _run
        return await run(how, client, stdin=stdin)
    finally:
        for path in (how.pid_file, how.log, how.process):
            if path:
                with contextlib.suppress(OSError):
                    os.unlink(path)


async def _run(how: Exec, client: Streams, *, stdin: bool) -> int:
    async with _open_process(
        how,
        how.argv,
        stdin=subprocess.PIPE if stdin else subprocess.DEVNULL,
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
    ) as process:
        async with trio.open_nursery() as nursery:
            if process.stdin is not None:
                nursery.start_soon(_feed, client, process.stdin)
            pumps = [_Pump(), _Pump()]
            async with trio.open_nursery() as outputs:
                assert process.stdout is not None
                assert process.stderr is not None
                outputs.start_soon(_pump, process.stdout, "stdout", client, pumps[0])
                outputs.start_soon(_pump, process.stderr, "stderr", client, pumps[1])
                await process.wait()
                nursery.start_soon(_until_quiet, pumps, outputs.cancel_scope)
            nursery.cancel_scope.cancel()
    return _exit_code(process, how)


async def _run_with_terminal(how: Exec, client: Streams, *, stdin: bool) -> int:
    master, slave = os.openpty()
    stream = trio.lowlevel.FdStream(master)
    try:
        with trio.move_on_after(SIZE_SECONDS):
            size = await client.next_size()
            _resize(slave, size)
            if how.process:
                _give_size(how.process, size)
        argv = how.argv
        if not how.process:
            argv = (sys.executable, "-I", "-S", str(TERMINAL), *argv)
        async with _open_process(how, argv, stdin=slave, stdout=slave, stderr=slave) as process:
            os.close(slave)
            slave = -1
            pump = _Pump()
            async with trio.open_nursery() as nursery:
                if stdin:
                    nursery.start_soon(_feed_terminal, client, stream)
                nursery.start_soon(_follow_size, client, master, process)
                async with trio.open_nursery() as outputs:
                    outputs.start_soon(_pump, stream, "stdout", client, pump)
                    await process.wait()
                    nursery.start_soon(_until_quiet, [pump], outputs.cancel_scope)
                nursery.cancel_scope.cancel()
        return _exit_code(process, how)
    finally:
        if slave >= 0:
            os.close(slave)
        with trio.CancelScope(shield=True):
            await stream.aclose()


def _check(how: Exec) -> None:
    name = how.argv[0]
    if "/" not in name and shutil.which(name, path=how.env.get("PATH", os.defpath)) is None:
        raise RuntimeFailure(f'exec: "{name}": executable file not found in $PATH')


@asynccontextmanager
async def _open_process(
    how: Exec, argv: tuple[str, ...], *, stdin: int, stdout: int, stderr: int
) -> AsyncIterator[trio.Process]:
    """The running command; leaving means that it has ended."""
    try:
        process = await trio.lowlevel.open_process(
            list(argv),
            stdin=stdin,
            stdout=stdout,
            stderr=stderr,
            env=how.env,
            cwd=how.cwd,
            start_new_session=True,
        )
    except OSError as error:
        raise RuntimeFailure(f'exec: "{how.argv[0]}": {error.strerror}') from None
    try:
        yield process
    finally:
        with trio.CancelScope(shield=True):
            for stream in (process.stdin, process.stdout, process.stderr):
                if stream is not None:
                    await stream.aclose()
            await _end(process, how)


async def _end(process: trio.Process, how: Exec) -> None:
    """End what must not outlive the client, and reap."""
    leader = process.pid
    if how.pid_file:
        if process.returncode is not None:
            return  # what it left behind is the container's
        leader = await _pid_inside(process, how.pid_file)
    if leader:
        kill_session(leader, signal.SIGHUP)
        with trio.move_on_after(HANGUP_SECONDS):
            while session_of(leader):
                await trio.sleep(0.05)
        kill_session(leader, signal.SIGKILL)
    with trio.move_on_after(HANGUP_SECONDS):
        await process.wait()
    if process.returncode is None or how.pid_file:
        kill_session(process.pid, signal.SIGKILL)
        await process.wait()


async def _pid_inside(process: trio.Process, pid_file: str) -> int:
    """Who runs inside the container; it may be just about to start. 0: nobody."""
    with trio.move_on_after(QUIET_SECONDS):
        while process.poll() is None:
            with contextlib.suppress(OSError, ValueError):
                return int(Path(pid_file).read_text())  # noqa: ASYNC240
            await trio.sleep(0.01)
    return 0


async def _pump(source: trio.abc.ReceiveStream, name: str, client: Streams, state: _Pump) -> None:
    while True:
        try:
            state.is_reading = True
            data = bytes(await source.receive_some(READ_BYTES))
        except trio.BrokenResourceError:  # how a terminal ends
            data = b""
        state.is_reading = False
        if not data:
            state.is_reading = True
            return
        await client.write(name, data)
        state.done_bytes += len(data)


async def _until_quiet(pumps: list[_Pump], scope: trio.CancelScope) -> None:
    """After the exit: cancel when the outputs are held open, but nothing comes any more."""
    seen = -1
    while True:
        done = sum(pump.done_bytes for pump in pumps)
        if done == seen and all(pump.is_reading for pump in pumps):
            scope.cancel()
            return
        seen = done
        await trio.sleep(QUIET_SECONDS)


async def _feed(client: Streams, stdin: trio.abc.SendStream) -> None:
    async with stdin:
        try:
            while data := await client.read_stdin():
                await stdin.send_all(data)
        except (trio.BrokenResourceError, trio.ClosedResourceError):
            client.refuse_stdin()


async def _feed_terminal(client: Streams, terminal: trio.abc.SendStream) -> None:
    """The end of the client's input is no end of the terminal's."""
    try:
        while data := await client.read_stdin():
            await terminal.send_all(data)
    except (trio.BrokenResourceError, trio.ClosedResourceError):
        client.refuse_stdin()


async def _follow_size(client: Streams, master: int, process: trio.Process) -> None:
    while True:
        _resize(master, await client.next_size())
        if process.returncode is None:  # who keeps a terminal of its own inside must be told
            with contextlib.suppress(ProcessLookupError):
                os.kill(process.pid, signal.SIGWINCH)


def _resize(terminal: int, size: tuple[int, int]) -> None:
    columns, rows = size
    fcntl.ioctl(terminal, termios.TIOCSWINSZ, struct.pack("HHHH", rows, columns, 0, 0))


def _give_size(path: str, size: tuple[int, int]) -> None:
    file = Path(path)
    process = json.loads(file.read_text())
    process["consoleSize"] = {"width": size[0], "height": size[1]}
    file.write_text(json.dumps(process))


def _exit_code(process: trio.Process, how: Exec) -> int:
    """Raises RuntimeFailure when it was not the command that failed, but its start."""
    code = process.returncode
    assert code is not None, "it has ended"
    if how.pid_file and not os.path.exists(how.pid_file):
        problem = _last_error(how.log)
        raise RuntimeFailure(problem or f"{how.argv[0]} failed with status {code}")
    return 128 - code if code < 0 else code


def _last_error(path: str) -> str:
    """The last error in an OCI runtime's log of JSON lines."""
    text = ""
    with contextlib.suppress(OSError, ValueError, KeyError):
        for line in Path(path).read_text().splitlines():
            record = json.loads(line)
            if record["level"] == "error":
                text = record["msg"]
    return text
