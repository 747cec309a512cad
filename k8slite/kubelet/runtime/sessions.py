"""Sessions of processes: who belongs to one, and how it is ended whole."""

from __future__ import annotations

import contextlib
import os
import signal
from pathlib import Path

__all__ = ["kill_session", "session_of"]


def session_of(leader: int) -> list[int]:
    """The living processes of the session that `leader` began, wherever their parents are.

    `leader` itself is among them even if it never began one (crun's commands do not).
    """
    found = []
    for path in Path("/proc").iterdir():
        if path.name.isdigit():
            with contextlib.suppress(OSError, IndexError):
                fields = (path / "stat").read_bytes().rpartition(b")")[2].split()
                if leader in (int(fields[3]), int(path.name)) and fields[0] not in (b"Z", b"X"):
                    found.append(int(path.name))
    return found


def kill_session(leader: int, number: signal.Signals) -> list[int]:
    """Signal all of a session; who they were."""
    found = session_of(leader)
    for pid in found:
        with contextlib.suppress(ProcessLookupError, PermissionError):
            os.kill(pid, number)
    return found
