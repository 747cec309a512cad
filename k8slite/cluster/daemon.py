"""The supervisor as a process: `python -m k8slite.cluster.daemon DIRECTORY UP LOCK API BLOCK`.

The last four are descriptors that `launch.py` hands over: the socket to the `up` that waits, the
cluster's lock, the apiservers' listening socket, the sign that the block of ports is taken.

First of all it starts what takes long and needs nothing of it: the zygote, which imports, and the
child that makes certificates. Only then it imports an event loop. It never imports what only
components need: it lives as long as they do, and its memory counts.
"""

from __future__ import annotations

import ctypes
import logging
import os
import signal
import socket
import sys
from pathlib import Path
from typing import Final

from k8slite.cluster.certificates import begin_certificates
from k8slite.cluster.launch import start_zygote
from k8slite.cluster.layout import Layout, NoSuchCluster
from k8slite.cluster.lock import Lock
from k8slite.cluster.logs import open_log
from k8slite.cluster.reporter import Reporter

__all__ = ["main"]

PR_SET_NAME: Final = 15

log = logging.getLogger("k8slite.cluster.daemon")


def main(arguments: list[str]) -> int:
    """The process; its exit code."""
    ctypes.CDLL(None).prctl(PR_SET_NAME, b"k8slite", 0, 0, 0)
    signal.signal(signal.SIGHUP, signal.SIG_IGN)
    layout = Layout(Path(arguments[0]))
    up, lock, api, block = map(int, arguments[1:])
    reporter = Reporter(socket.socket(fileno=up))
    for fd in (up, api, block):
        os.set_inheritable(fd, False)
    Lock(lock)  # nobody closes it: it is held until this process ends
    open_log("supervisor", layout.log("supervisor"))
    try:
        spec, place = layout.read()
        reporter.step("certificates")
        zygote = start_zygote(layout, spec)
        certificates = begin_certificates(layout, spec, place)
    except (NoSuchCluster, OSError) as error:
        log.error("start failed: %s", error)
        reporter.tell(error=str(error))
        return 1
    from k8slite.cluster.lifecycle import live

    return live(layout, spec, place, zygote, certificates, socket.socket(fileno=api), reporter)


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
