"""`k8slite stop | down`: end a cluster, and delete it."""

from __future__ import annotations

import argparse
from typing import Any, Final

from k8slite.cli.common import add_command, add_name, existing
from k8slite.cli.output import CommandFailed
from k8slite.cluster import ending
from k8slite.cluster.layout import Layout, NoSuchCluster, find, home, unregister

__all__ = ["add_commands"]

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
    try:
        held, was_there = ending.end(arguments.name, layout)
    except ending.CannotEnd as error:
        raise CommandFailed(str(error)) from error
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
    try:
        ending.delete(name, layout)
    except ending.CannotEnd as error:
        raise CommandFailed(str(error)) from error
    print(f"Cluster {name!r} is deleted.")
    if layout.root.exists():
        print(f"What else was in {layout.root} is still there.")
    return 0
