"""A child process makes the cluster's certificates, for the library takes memory and time.

It runs beside the zygote's imports. The supervisor hears of it through a pipe: "store" once members
of the store can start, "all" once everybody can, or "failed" and why.
"""

from __future__ import annotations

import contextlib
import ipaddress
import os
import sys
from collections.abc import Callable
from typing import Final

import attrs

from k8slite.cluster.layout import Layout, write_file
from k8slite.cluster.spec import ClusterSpec, Place

__all__ = ["Certificates", "begin_certificates"]

FAILED: Final = "failed "
DESCRIPTORS: Final = 256
"""More than a supervisor has that has just begun."""


@attrs.frozen
class Certificates:
    """The child, and the reading end of its pipe."""

    pid: int
    pipe: int

    def reap(self) -> None:
        """Once it has said its last word: it ends at once, and must not stay a zombie."""
        os.waitpid(self.pid, 0)


def begin_certificates(layout: Layout, spec: ClusterSpec, place: Place) -> Certificates:
    """Fork the child; this process must have one thread and no event loop yet."""
    reading, writing = os.pipe2(os.O_CLOEXEC)
    pid = os.fork()
    if pid:
        os.close(writing)
        return Certificates(pid, reading)
    code = 1
    try:
        os.closerange(3, writing)  # the lock above all: it is not ours to hold
        os.closerange(writing + 1, DESCRIPTORS)

        def tell(word: str) -> None:
            os.write(writing, f"{word}\n".encode())

        code = _make(layout, spec, place, tell)
    finally:
        sys.stderr.flush()
        os._exit(code)


def _make(layout: Layout, spec: ClusterSpec, place: Place, tell: Callable[[str], None]) -> int:
    from k8slite.cluster.kubeconfig import kubeconfig
    from k8slite.cluster.pki import STORE_CA, identities, make_pki, make_service_account_key

    nodes = [place.node_address(number) for number in range(1, spec.nodes + 1)]
    first_service = str(ipaddress.IPv4Network(place.service_cidr)[1])
    wanted = identities(spec, sorted({"127.0.0.1", place.host, first_service}), nodes)
    with contextlib.suppress(BrokenPipeError):  # the supervisor has ended meanwhile
        try:
            make_pki(layout.pki, [i for i in wanted if i.authority == STORE_CA])
            tell("store")
            make_pki(layout.pki, [i for i in wanted if i.authority != STORE_CA])
            make_service_account_key(layout.pki)
            text = kubeconfig(spec.name, place.api, layout.pki)
            write_file(layout.kubeconfig, text.encode(), 0o600)
            tell("all")
            return 0
        except (OSError, ValueError) as error:
            tell(f"{FAILED}{error}".replace("\n", " "))
    return 1
