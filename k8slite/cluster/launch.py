"""Starts the two processes that are not forked from the zygote: the supervisor, and it.

What is handed over as a descriptor is open in the new process before this one lets go of it.
"""

from __future__ import annotations

import os
import socket
import subprocess
import sys
from typing import TYPE_CHECKING

from k8slite.cluster.layout import Layout
from k8slite.cluster.lock import Lock
from k8slite.cluster.spec import ClusterSpec, components
from k8slite.cluster.zygote import MARK

if TYPE_CHECKING:
    from k8slite.cluster.placing import Held

__all__ = ["start_supervisor", "start_zygote"]


def start_supervisor(
    layout: Layout, lock: Lock, held: Held
) -> tuple[subprocess.Popen[bytes], socket.socket]:
    """The process, and the socket on which it reports (see `reporter.py`). Raises OSError.

    It gets the lock and the place; this process keeps no part of them.
    """
    ours, theirs = socket.socketpair()
    with theirs, open(layout.log("supervisor"), "ab") as output:
        fds = [theirs.fileno(), lock.fd, held.api.fileno(), held.block.fileno()]
        process = subprocess.Popen(
            [sys.executable, "-m", "k8slite.cluster.daemon", str(layout.root), *map(str, fds)],
            pass_fds=fds,
            stdin=subprocess.DEVNULL,
            stdout=output,
            stderr=output,
            start_new_session=True,
            cwd="/",
            env={**os.environ, MARK: str(layout.root)},
        )
    lock.name_holder(process.pid)
    lock.close()
    held.close()
    return process, ours


def start_zygote(
    layout: Layout, spec: ClusterSpec
) -> tuple[subprocess.Popen[bytes], socket.socket]:
    """The process, and the socket of `link.Link`. Raises OSError."""
    ours, theirs = socket.socketpair(socket.AF_UNIX, socket.SOCK_SEQPACKET)
    with theirs, open(layout.log("zygote"), "ab") as output:
        process = subprocess.Popen(
            [sys.executable, "-m", "k8slite.cluster.zygote", str(theirs.fileno()), *_roles(spec)],
            pass_fds=[theirs.fileno()],
            stdin=subprocess.DEVNULL,
            stdout=output,
            stderr=output,
            env={**os.environ, MARK: str(layout.root)},
        )
    ours.setblocking(False)
    return process, ours


def _roles(spec: ClusterSpec) -> list[str]:
    """What the zygote will be asked for, in that order."""
    roles = list(dict.fromkeys(component.role for component in components(spec)))
    if spec.bridged:
        roles.insert(roles.index("apiserver"), "network")
    return roles
