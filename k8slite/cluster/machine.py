"""What this machine and user can have: containers or processes, which proxy, and why."""

from __future__ import annotations

import functools
import os
import shutil
from typing import Final, NamedTuple

__all__ = ["Choice", "choose", "why_no_ipvs"]

PROXIES: Final = {"oci": "iptables", "process": "userspace", "fake": "none"}


class Choice(NamedTuple):
    """A runtime and a proxy, and one line for the user where it is less than containers."""

    runtime: str
    proxy: str
    notice: str = ""


def choose(runtime: str, proxy: str) -> Choice:
    """Decide what is "auto"; what is asked for by name is not questioned."""
    notice = ""
    if runtime == "auto":
        if proxy == "userspace":
            runtime = "process"
        else:
            missing = why_no_containers()
            runtime = "process" if missing else "oci"
            if missing:
                notice = f"{missing}: pods run as processes, and services are relayed in user space"
    if proxy == "auto":
        proxy = PROXIES.get(runtime, "none")
    return Choice(runtime, proxy, notice)


def why_no_ipvs(scheduler: str) -> str:
    """What is missing for services as the kernel's virtual servers; "" when nothing."""
    if os.geteuid() != 0:
        return "not root"
    from k8slite.network import namespaces
    from k8slite.proxy.ipvs import why_unusable

    name = f"k8slite.probe.{os.getpid()}"
    try:
        path = namespaces.create(name)
        try:
            return why_unusable(scheduler, functools.partial(namespaces.inside, path))
        finally:
            namespaces.delete(name)
    except OSError as error:
        return f"network namespaces cannot be made here ({error.strerror})"


def why_no_containers() -> str:
    """What is missing for nodes as network namespaces and pods as containers; "" when nothing."""
    if os.geteuid() != 0:
        return "not root"
    if not (shutil.which("runc") or shutil.which("crun")):
        return "no OCI runtime is installed (crun or runc)"
    if not shutil.which("iptables-restore"):
        return "iptables is not installed"
    return _why_no_namespaces()


def _why_no_namespaces() -> str:
    """Root of a locked-down container may not make them."""
    from k8slite.network import namespaces

    name = f"k8slite.probe.{os.getpid()}"
    try:
        namespaces.create(name)
    except OSError as error:
        return f"network namespaces cannot be made here ({error.strerror})"
    namespaces.delete(name)
    return ""
