"""What runs in a forked process, by role.

A role's modules are imported by `load`, in the zygote; here only when it is opened.
"""

from __future__ import annotations

import importlib
import ssl
from collections.abc import AsyncIterator, Callable, Mapping
from contextlib import AbstractAsyncContextManager, asynccontextmanager
from pathlib import Path
from typing import Any, Final

from k8slite.cluster import control_plane, node_network, node_parts
from k8slite.cluster.context import Context, InheritingNet, Running
from k8slite.cluster.layout import Layout
from k8slite.cluster.spec import ClusterSpec, Component, Place
from raftkv.errors import KvError
from raftkv.os_host import OsHost

__all__ = ["EXPECTED", "load", "open_component"]

EXPECTED: Final = (KvError, OSError, ssl.SSLError, ValueError)
"""What a component may end with that is no bug: a broken disk, a taken port, a damaged file."""

MODULES: Final[Mapping[str, tuple[str, ...]]] = {
    "raftkv": ("raftkv.server", "k8slite.cluster.child"),
    "apiserver": ("k8slite.apiserver.server", "k8slite.apiserver.store.raftkv"),
    "scheduler": ("k8slite.scheduler.scheduler",),
    "controller-manager": ("k8slite.controllers.manager", "k8slite.cloud.service"),
    "kubelet": (
        "k8slite.kubelet.kubelet",
        "k8slite.kubelet.runtime.choose",
        "k8slite.kubelet.network",
        "k8slite.kubelet.images.store",
    ),
    "proxy": ("k8slite.proxy.proxy", "k8slite.proxy.userspace", "k8slite.dns.dns"),
    "network": ("k8slite.network.topology",),
}


def load(role: str) -> None:
    """Import what a role needs."""
    for module in MODULES.get(role, ()):
        importlib.import_module(module)


OPENERS: Final[dict[str, Callable[[Context], AbstractAsyncContextManager[Running]]]] = {
    "raftkv": control_plane.open_raftkv,
    "apiserver": control_plane.open_apiserver,
    "scheduler": control_plane.open_scheduler,
    "controller-manager": control_plane.open_controller_manager,
    "kubelet": node_parts.open_kubelet,
    "proxy": node_network.open_proxy,
}


@asynccontextmanager
async def open_component(request: dict[str, Any], listeners: list[int]) -> AsyncIterator[Running]:
    """The component of a request as the supervisor makes it: see `kept.request_of`."""
    spec = ClusterSpec.from_json(request["spec"])
    place = Place.from_json(request["place"])
    component = Component(request["role"], request["number"])
    host = OsHost(component.name)
    if listeners:
        host.net = InheritingNet(dict(zip(place.shared_addresses(), listeners, strict=True)))
    context = Context(component, spec, place, Layout(Path(request["root"])), host)
    async with OPENERS[component.role](context) as running:
        yield running
