"""Starts a cluster from a program without an event loop: `k8slite up`, and tests of other people.

`launch` claims the directory, finds a place and starts the supervisor. What it returns is a tie: as
long as it is neither detached nor ended, the cluster ends with the process that holds it, however
that ends. A start that fails leaves nothing but its logs.
"""

from __future__ import annotations

import contextlib
import json
import socket
import subprocess
from collections.abc import Callable
from typing import Any

import attrs

from k8slite.cluster import cleanup, launch, lock, placing
from k8slite.cluster.layout import Layout, register, unregister
from k8slite.cluster.spec import ClusterSpec

__all__ = ["CannotStart", "Started", "running_already", "start"]

Step = Callable[[float, str], None]
"""Told at each step of a start: seconds since it began, and what is done now."""


class CannotStart(Exception):
    """The message is for the user."""


def start(name: str, layout: Layout, new: ClusterSpec | None) -> Started:
    """Start the supervisor of a new cluster, or (None) of the one that is there.

    Raises CannotStart, InvalidSpec; then nothing is left of a new one.
    """
    held = None
    with contextlib.ExitStack() as undo:
        try:
            layout.claim(name)
            held = lock.take(layout.lock)
            undo.callback(held.close)
            cleanup.clean(name, layout)  # what a crash has left
            if new is not None and not layout.exists():
                place = placing.make_place(layout, new)
            else:
                place = placing.refresh_place(layout, *layout.read())
            undo.callback(place.close)
            register(name, layout)
            process, sock = launch.start_supervisor(layout, held, place)
        except lock.Held as error:
            raise CannotStart(running_already(name)) from error
        except (placing.PortTaken, OSError) as error:
            ours = layout.is_ours() and (held is not None or not layout.is_running())
            if new is not None and ours:
                with contextlib.suppress(OSError):
                    layout.delete()
                    unregister(name)
            raise CannotStart(_could_not(name, _words(error))) from error
        undo.pop_all()  # all of it is the supervisor's now
        return Started(name, layout, process, sock, made=new is not None)


def running_already(name: str) -> str:
    return (
        f"cluster {name!r} is running already, or being started: k8slite status --name {name}; "
        "for another one choose another --name"
    )


def _could_not(name: str, why: str) -> str:
    return f"cluster {name!r} could not be started: {why}"


def _words(error: Exception) -> str:
    if isinstance(error, OSError) and error.filename is not None:
        hint = (
            "; K8SLITE_HOME says where clusters are" if isinstance(error, PermissionError) else ""
        )
        return f"{error.strerror}: {error.filename}{hint}"
    return str(error)


@attrs.define(eq=False)
class Started:
    """A cluster that starts or runs, and our end of the tie to its supervisor."""

    name: str
    layout: Layout
    _process: subprocess.Popen[bytes]
    _socket: socket.socket
    made: bool = attrs.field(kw_only=True)
    """It had never been there."""
    _buffer: bytes = b""

    def wait_ready(self, show: Step = lambda seconds, step: None) -> list[str]:
        """What the user should know of a cluster that is ready. Raises CannotStart; then all of
        it is undone but for its logs."""
        while True:
            words = self._next()
            if words is None:
                why = "its supervisor was ended, by `k8slite stop`, `down` or a signal"
            elif "ready" in words:
                notices: list[str] = words["notices"]
                return notices
            elif "error" in words:
                why = words["error"]
            else:
                show(words["seconds"], words["step"])
                continue
            note = self._end(keep_logs=True)
            raise CannotStart(_could_not(self.name, why) + (f"\n{note}" if note else ""))

    def detach(self) -> None:
        """It runs on without us."""
        self._socket.sendall(b"detach")
        self._socket.close()

    def wait_end(self) -> None:
        """Return when somebody else has ended it."""
        while self._next() is not None:
            continue
        self._end(keep_logs=True)

    def stop(self) -> str:
        """End it. Its data is kept if it has ever been ready; of a start that was interrupted
        nothing is. A note for the user where something could not be undone."""
        return self._end(keep_logs=False)

    def _next(self) -> dict[str, Any] | None:
        """A line of the supervisor's; None once it is gone."""
        while b"\n" not in self._buffer:
            try:
                chunk = self._socket.recv(4096)
            except ConnectionResetError:
                return None
            if not chunk:
                return None
            self._buffer += chunk
        line, self._buffer = self._buffer.split(b"\n", 1)
        words: dict[str, Any] = json.loads(line)
        if "ready" in words:
            self.made = False  # from now on there is data to keep
        return words

    def _end(self, *, keep_logs: bool) -> str:
        """Of a cluster that had never been there only logs stay, and these only when they may
        say why."""
        self._socket.close()
        self._process.wait()
        try:
            with lock.take(self.layout.lock):
                cleanup.clean(self.name, self.layout)  # it has, unless it was killed
                if self.made:
                    self.layout.delete(keep_logs=keep_logs)
        except lock.Held:
            return ""  # somebody else is at it
        except OSError as error:
            return f"note: not all of cluster {self.name!r} could be undone ({error}): k8slite down"
        if self.made and not keep_logs:
            unregister(self.name)
        return ""
