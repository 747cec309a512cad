"""Connects pods to their node, for the kubelet that runs in the node's namespace.

A pod has its address alone (/32), with a route to the node's bridge and over it to everywhere.
So even a pod of the same node is reached through the node's routing and its iptables, and a
service that leads there works, also back to the pod itself, without help from br_netfilter.

Owns the table of who has which address, in a file that outlives the kubelet.
"""

from __future__ import annotations

import contextlib
import errno
import json
import os
from pathlib import Path

import trio

from k8slite.network.addresses import AddressPool, pod_interface
from k8slite.network.netlink import Rtnl
from k8slite.network.topology import POD_BRIDGE

__all__ = ["BridgeNetwork", "attach_pod", "detach_pod"]

POD_LINK = "eth0"


def attach_pod(node_netns: str | None, pod_netns: str, pod_id: str, ip: str, gateway: str) -> None:
    """A link between a node's bridge and a pod's namespace, both ends up, addresses, routes.

    `node_netns` None: the current namespace. A pod that is connected already stays so; one that
    comes with another namespace (its sandbox was made anew) is connected there. Raises OSError.
    """
    interface = pod_interface(pod_id)
    with Rtnl(pod_netns) as pod, Rtnl(node_netns) as node:
        if not pod.has_link(POD_LINK):
            node.delete_link(interface)
            node.add_veth(interface, POD_LINK, pod_netns, bridge=POD_BRIDGE)
        pod.set_up("lo")
        pod.set_up(POD_LINK)
        pod.add_address(POD_LINK, f"{ip}/32")
        pod.set_route(f"{gateway}/32", link=POD_LINK)
        pod.set_route("0.0.0.0/0", gateway=gateway)


def detach_pod(node_netns: str | None, pod_id: str) -> None:
    """Remove the link, with both ends; none is no error."""
    with Rtnl(node_netns) as node:
        node.delete_link(pod_interface(pod_id))


class BridgeNetwork:
    """The kubelet's pod network on a node that was made by `topology.create_node`."""

    def __init__(
        self, pod_cidr: str, directory: str | Path | None = None, *, node_netns: str | None = None
    ) -> None:
        """`directory` keeps the addresses; without one they are forgotten with the process."""
        self._pool = AddressPool(pod_cidr)
        self._node_netns = node_netns
        self._file = None if directory is None else Path(directory) / "addresses.json"
        if self._file is not None:
            self._file.parent.mkdir(parents=True, exist_ok=True)
            with contextlib.suppress(FileNotFoundError):
                self._pool.load_json(json.loads(self._file.read_text()))

    async def attach(self, pod_id: str, netns: str | None) -> str:
        """Connect the pod; its address. The same pod gets the same one. Raises OSError, also
        where no address is left."""
        if netns is None:
            raise OSError(errno.EINVAL, f"pod {pod_id} has no network namespace to connect")
        known = self._pool.get(pod_id)
        try:
            address = known or self._pool.take(pod_id)
        except ValueError as error:
            raise OSError(errno.EADDRNOTAVAIL, str(error)) from error
        if known is None:
            self._store()
        attach_pod(self._node_netns, netns, pod_id, address, self._pool.gateway)
        return address

    async def detach(self, pod_id: str, netns: str | None) -> None:
        """Disconnect the pod and give its address back; an unknown pod is no error."""
        # The kernel takes some 20 ms to remove a link, and says nothing before it is done.
        await trio.to_thread.run_sync(detach_pod, self._node_netns, pod_id)
        if self._pool.give_back(pod_id):
            self._store()

    def _store(self) -> None:
        if self._file is None:
            return
        temporary = self._file.with_suffix(".tmp")
        temporary.write_text(json.dumps(self._pool.to_json()))
        os.replace(temporary, self._file)
