"""Writes a table as virtual servers of the kernel's balancer, into the namespace of this process.

Needs the kernel's IPVS (module ip_vs), dummy interfaces, and `nft`. A request over netlink takes
about half a millisecond, so unlike rules this is not one transaction: servers come before
addresses, and go after them. What an earlier life left is read back at the first sync, and after
any failure.
"""

from __future__ import annotations

import logging
import os
import shutil
import subprocess
from collections.abc import Callable, Iterator, Sequence
from contextlib import AbstractContextManager, contextmanager, nullcontext
from pathlib import Path
from typing import Final

import attrs

from k8slite.proxy.command import run_command
from k8slite.proxy.ipvs_kernel import Kernel
from k8slite.proxy.ipvs_plan import (
    TABLE,
    IpvsPlan,
    VirtualServer,
    make_plan,
    set_changes,
    static_rules,
)
from k8slite.proxy.ipvs_steps import (
    AddServer,
    DeleteServer,
    Live,
    apply,
    drained,
    draining,
    intact,
    steps,
)
from k8slite.proxy.table import Table
from k8slite.proxy.writer import WriteFailed

__all__ = ["IpvsWriter", "open_kernel", "why_unusable"]

log = logging.getLogger(__name__)

SCHEDULER: Final = "rr"
BALANCER: Final = Path("/proc/net/ip_vs")
Enter = Callable[[], AbstractContextManager[None]]


@contextmanager
def open_kernel(enter: Enter = nullcontext) -> Iterator[Kernel]:
    """The balancer of the network namespace that `enter` leads into; no await may stand within.

    Raises WriteFailed for what the kernel refuses.
    """
    from pyroute2 import IPVS, IPRoute, NetlinkError

    try:
        with enter(), IPVS() as balancer, IPRoute() as links:
            yield Kernel(balancer, links)
    except NetlinkError as error:
        raise WriteFailed(f"IPVS: {os.strerror(error.code)}") from error
    except OSError as error:
        raise WriteFailed(f"IPVS: {error}") from error


def why_unusable(scheduler: str = SCHEDULER, enter: Enter = nullcontext) -> str:
    """What the kernel lacks; "" when nothing. It is all tried out, in a namespace to spare."""
    if not shutil.which("nft"):
        return "nft is not installed"
    if not BALANCER.exists() and shutil.which("modprobe"):
        subprocess.run(["modprobe", "-q", "ip_vs"], check=False)
    if not BALANCER.exists():
        return "the kernel has no IPVS (module ip_vs)"
    probe = VirtualServer("TCP", "127.0.0.1", 1)
    trials: tuple[tuple[Callable[[Kernel], object], str], ...] = (
        (Kernel.prepare, "dummy interfaces (module dummy)"),
        (
            lambda kernel: kernel.carry_out(AddServer(probe, scheduler, 0)),
            f"scheduler {scheduler} for IPVS (module ip_vs_{scheduler})",
        ),
    )
    for trial, what in trials:
        try:
            with open_kernel(enter) as kernel:
                trial(kernel)
        except WriteFailed:
            return f"the kernel has no {what}"
    return ""


@attrs.define
class _Written:
    plan: IpvsPlan
    there: dict[VirtualServer, Live]


class IpvsWriter:
    """`node_addresses`: where node ports are served. `command` and `enter` are ways into a
    namespace, for tests: for programs, and for this thread."""

    def __init__(
        self,
        cluster_cidr: str,
        node_addresses: Sequence[str],
        *,
        scheduler: str = SCHEDULER,
        command: Sequence[str] = (),
        enter: Enter = nullcontext,
    ) -> None:
        self._cluster_cidr = cluster_cidr
        self._node_addresses = tuple(node_addresses)
        self._scheduler = scheduler
        self._command = list(command)
        self._enter = enter
        self._written: _Written | None = None

    async def sync(self, table: Table) -> list[str]:
        """See `Writer`."""
        wanted = make_plan(table, self._node_addresses)
        written, self._written = self._written, None
        old = written.plan if written is not None else IpvsPlan()
        text = "" if written is not None else static_rules(self._cluster_cidr)
        text += set_changes(old, wanted)
        if text:
            await run_command([*self._command, "nft", "-f", "-"], text)
        with open_kernel(self._enter) as kernel:
            if written is None:
                kernel.prepare()
                there, addresses = kernel.servers(), kernel.addresses()
            else:
                there, addresses = written.there, written.plan.addresses
            todo = list(steps(there, wanted.servers, self._scheduler))
            for step in todo:
                if not isinstance(step, DeleteServer):
                    kernel.carry_out(step)
                    apply(there, step)
            kernel.set_addresses(addresses, wanted.addresses)
            for step in todo:
                if isinstance(step, DeleteServer):
                    kernel.carry_out(step)
                    apply(there, step)
            _drain(kernel, there)
        self._written = _Written(wanted, there)
        return []

    async def look(self) -> None:
        """See `Writer`. Endpoints without connections left are removed as well."""
        written = self._written
        if written is None:
            return
        command = ["nft", "list", "set", *TABLE.split(), "KUBE-FIREWALL"]
        try:
            await run_command([*self._command, *command], "")
            with open_kernel(self._enter) as kernel:
                is_intact = intact(kernel.servers(), written.there) and (
                    kernel.addresses().keys() == written.plan.addresses.keys()
                )
                if is_intact:
                    _drain(kernel, written.there)
        except WriteFailed:
            is_intact = False
        if not is_intact:
            log.warning("virtual servers or rules are gone, writing them again")
            self._written = None

    async def cleanup(self) -> None:
        """Remove the interface, all virtual servers and the table, also of an earlier life."""
        self._written = None
        with open_kernel(self._enter) as kernel:
            for where in kernel.servers():
                kernel.carry_out(DeleteServer(where))
            kernel.delete_interface()
        text = f"add table {TABLE}\ndelete table {TABLE}\n"
        await run_command([*self._command, "nft", "-f", "-"], text)


def _drain(kernel: Kernel, there: dict[VirtualServer, Live]) -> None:
    leaving = draining(there)
    for step in list(drained(leaving, kernel.connections(leaving))):
        kernel.carry_out(step)
        apply(there, step)
