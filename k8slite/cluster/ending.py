"""Ends a cluster, however much of it still works, from a program without an event loop."""

from __future__ import annotations

import contextlib
import os
import signal
import time
from typing import Final

from k8slite.cluster import cleanup, lock
from k8slite.cluster.layout import Layout, unregister

__all__ = ["CannotEnd", "delete", "end"]

ANSWER_SECONDS: Final = 5.0
STOP_SECONDS: Final = 60.0
LOOK_AGAIN_SECONDS: Final = 0.02


class CannotEnd(Exception):
    """The message is for the user."""


def delete(name: str, layout: Layout) -> None:
    """End the cluster and delete its directory, but for what is not ours. Raises CannotEnd."""
    held, _ = end(name, layout)
    with held:
        try:
            cleanup.delete(layout)
        except OSError as error:
            raise CannotEnd(f"{layout.root} cannot be deleted: {error}") from error
        unregister(name)


def end(name: str, layout: Layout) -> tuple[lock.Lock, bool]:
    """End everything outside the directory; the cluster's lock, and whether anything was there.

    Raises CannotEnd.
    """
    try:
        was_running = _stop_supervisor(layout)
        layout.lock.parent.mkdir(mode=0o700, exist_ok=True)
        held = lock.take(layout.lock)
        lost = bool(cleanup.strays(layout))
        cleanup.clean(name, layout)
    except lock.Held as error:
        raise CannotEnd(f"cluster {name!r} is being started: {error}; try again") from error
    except PermissionError as error:
        raise CannotEnd(f"{error}: was the cluster started by another user?") from error
    except OSError as error:
        raise CannotEnd(str(error)) from error
    return held, was_running or lost


def _stop_supervisor(layout: Layout) -> bool:
    """Whether there was one to stop. Raises CannotEnd for one that does not end."""
    if not layout.is_running():
        return False
    from k8slite.cluster import control  # with an event loop, which most commands do without

    began = time.monotonic()
    ask_until, kill_at = began + ANSWER_SECONDS, began + STOP_SECONDS
    asked = False
    while layout.is_running():
        now = time.monotonic()
        if not asked and now < ask_until:
            try:
                control.ask(layout.socket, {"op": "stop"}, seconds=ANSWER_SECONDS)
                asked = True
            except control.NotRunning:
                pass  # it has only just begun, or ends by itself
            except (control.Refused, TimeoutError):
                ask_until = now
        elif not asked or now > kill_at:
            _kill(layout)
        if now > kill_at + STOP_SECONDS:
            raise CannotEnd(f"process {lock.holder(layout.lock)} does not end")
        time.sleep(LOOK_AGAIN_SECONDS)
    return True


def _kill(layout: Layout) -> None:
    """One that does not answer: stopped, or stuck in its start."""
    pid = lock.holder(layout.lock)
    if pid and layout.is_running():
        with contextlib.suppress(ProcessLookupError):
            os.kill(pid, signal.SIGKILL)
