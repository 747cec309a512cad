"""The `raftkv` command as a user runs it: as processes, ended by their ids."""

from __future__ import annotations

import contextlib
import io
import os
import signal
import subprocess
import sys
import time
from collections.abc import Iterator
from pathlib import Path

from raftkv.cli import main
from tests.server.support import free_addresses

ROOT = Path(__file__).resolve().parent.parent.parent
COMMAND = [sys.executable, "-m", "raftkv.cli"]
PATIENCE = 30.0


def environment(endpoints: str = "") -> dict[str, str]:
    return {**os.environ, "PYTHONPATH": str(ROOT), "RAFTKV_ENDPOINTS": endpoints}


def raftkv(
    *arguments: str, endpoints: str = "", data: bytes = b""
) -> subprocess.CompletedProcess[str]:
    """Run a command to its end, in this process: a start of Python costs more than most tests."""
    output, complaints = io.StringIO(), io.StringIO()
    before = sys.stdin, os.environ.get("RAFTKV_ENDPOINTS")
    sys.stdin = io.TextIOWrapper(io.BytesIO(data))
    os.environ["RAFTKV_ENDPOINTS"] = endpoints
    try:
        with contextlib.redirect_stdout(output), contextlib.redirect_stderr(complaints):
            code = main(arguments)
    except SystemExit as ended:  # argparse
        code = ended.code if isinstance(ended.code, int) else 1
    finally:
        sys.stdin = before[0]
        os.environ.pop("RAFTKV_ENDPOINTS")
        if before[1] is not None:
            os.environ["RAFTKV_ENDPOINTS"] = before[1]
    return subprocess.CompletedProcess(arguments, code, output.getvalue(), complaints.getvalue())


def raftkv_process(*arguments: str) -> subprocess.CompletedProcess[str]:
    """Run a command to its end, as a process of its own."""
    return subprocess.run(
        [*COMMAND, *arguments],
        capture_output=True,
        env=environment(),
        timeout=PATIENCE,
        check=False,
        text=True,
    )


class Member:
    """One `raftkv serve`."""

    def __init__(self, directory: Path, *arguments: str) -> None:
        self.client = str(free_addresses(1)[0])
        self.log = directory.with_suffix(".log")
        self.command = [*COMMAND, "serve", "--data-dir", str(directory)]
        self.command += ["--client-listen", self.client, *arguments]
        self.process: subprocess.Popen[bytes] | None = None

    def start(self) -> None:
        with self.log.open("ab") as output:
            self.process = subprocess.Popen(
                self.command, stdout=output, stderr=output, env=environment()
            )

    def wait_serving(self) -> None:
        assert self.process is not None
        deadline = time.monotonic() + PATIENCE
        while raftkv("status", "--timeout", "1", endpoints=self.client).returncode:
            assert self.process.poll() is None, self.log.read_text()
            assert time.monotonic() < deadline, self.log.read_text()

    def kill(self, how: signal.Signals = signal.SIGKILL) -> int:
        assert self.process is not None
        self.process.send_signal(how)
        return self.process.wait(PATIENCE)


@contextlib.contextmanager
def running(*members: Member) -> Iterator[None]:
    """The members as processes; they are gone at the end."""
    try:
        for member in members:
            member.start()
        for member in members:
            member.wait_serving()
        yield
    finally:
        for member in members:
            if member.process is not None and member.process.poll() is None:
                member.kill()
