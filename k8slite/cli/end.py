"""`k8slite stop | down`: end a cluster, and delete it."""

from __future__ import annotations

import argparse
import contextlib
import os
import signal
import time
from typing import Any, Final

from k8slite.cli.common import add_command, add_name, existing
from k8slite.cli.output import CommandFailed
from k8slite.cluster import cleanup, lock
from k8slite.cluster.layout import Layout, NoSuchCluster, find, home, unregister

__all__ = ["add_commands"]

ANSWER_SECONDS: Final = 5.0
STOP_SECONDS: Final = 60.0
LOOK_AGAIN_SECONDS: Final = 0.02

STOP: Final = """\
End all processes of a cluster, its pods and its network. Its data is kept: k8slite start.
"""
DOWN: Final = """\
End a cluster, running or not, and delete it with its data. Nothing of it stays on the machine; what
others have put into its directory is left there.
"""


def add_commands(commands: Any) -> None:
    add_name(add_command(commands, "stop", "end a cluster and keep its data", _stop, STOP))
    add_name(add_command(commands, "down", "end a cluster and delete it", _down, DOWN))


def _stop(arguments: argparse.Namespace) -> int:
    layout = existing(arguments.name)
    held, was_there = _end(arguments.name, layout)
    held.close()
    if was_there:
        print(f"Cluster {arguments.name!r} is stopped; {_fate(layout)}.")
    else:
        print(f"Cluster {arguments.name!r} was not running.")
    return 0


def _fate(layout: Layout) -> str:
    """What became of its objects."""
    try:
        spec, _ = layout.read()
    except NoSuchCluster:
        return "its data is kept, but not all of it can be read"
    return (
        "its objects were in memory, and are gone"
        if spec.store == "memory"
        else ("its data is kept")
    )


def _down(arguments: argparse.Namespace) -> int:
    name = arguments.name
    layout = find(name)
    if not layout.is_ours():
        if not (home() / name).is_symlink():
            existing(name)  # there is none
        unregister(name)
        print(f"Cluster {name!r} is forgotten; there was nothing of it in {layout.root}.")
        return 0
    held, _ = _end(name, layout)
    with held:
        try:
            cleanup.delete(layout)
        except OSError as error:
            raise CommandFailed(f"{layout.root} cannot be deleted: {error}") from error
        unregister(name)
    print(f"Cluster {name!r} is deleted.")
    if layout.root.exists():
        print(f"What else was in {layout.root} is still there.")
    return 0


def _end(name: str, layout: Layout) -> tuple[lock.Lock, bool]:
    """End everything outside the directory; the cluster's lock, and whether anything was there."""
    try:
        was_running = _stop_supervisor(layout)
        layout.lock.parent.mkdir(mode=0o700, exist_ok=True)
        held = lock.take(layout.lock)
        lost = bool(cleanup.strays(layout))
        cleanup.clean(name, layout)
    except lock.Held as error:
        raise CommandFailed(f"cluster {name!r} is being started: {error}; try again") from error
    except PermissionError as error:
        raise CommandFailed(f"{error}: was the cluster started by another user?") from error
    except OSError as error:
        raise CommandFailed(str(error)) from error
    return held, was_running or lost


def _stop_supervisor(layout: Layout) -> bool:
    """Whether there was one to stop. Raises CommandFailed for one that does not end."""
    from k8slite.cluster import control

    if not layout.is_running():
        return False
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
            raise CommandFailed(f"process {lock.holder(layout.lock)} does not end")
        time.sleep(LOOK_AGAIN_SECONDS)
    return True


def _kill(layout: Layout) -> None:
    """One that does not answer: stopped, or stuck in its start."""
    pid = lock.holder(layout.lock)
    if pid and layout.is_running():
        with contextlib.suppress(ProcessLookupError):
            os.kill(pid, signal.SIGKILL)
