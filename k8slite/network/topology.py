"""The switch, the nodes, and how all of it is found and removed again.

Everything bears the cluster's name: namespaces `k8slite.CLUSTER.switch` and
`k8slite.CLUSTER.node-N`, and one interface on the host. What is inside of a namespace goes with
it, so `delete_cluster` needs no memory of what was made, and works after a crash as well.

Pods are routed, not bridged, even between two pods of one node (`pods.py`): so every packet
passes the node's own iptables, whether or not the kernel hands bridged packets to them.

All functions are synchronous; making a node takes some 15 ms, removing one the kernel's 20 ms
for every link.
"""

from __future__ import annotations

import ipaddress
import logging
import subprocess
from collections.abc import Sequence
from typing import Final

import attrs

from k8slite.network import namespaces
from k8slite.network.addresses import (
    check_cluster,
    choose_subnet,
    hardware_address,
    host_interface,
    namespace_name,
)
from k8slite.network.netlink import Rtnl

__all__ = [
    "NodeNetwork",
    "Switch",
    "create_node",
    "create_switch",
    "delete_cluster",
    "delete_node",
    "list_leftovers",
]

log = logging.getLogger(__name__)

CLUSTER_CIDR: Final = "10.244.0.0/16"
SWITCH: Final = "switch"
SWITCH_BRIDGE: Final = "br0"
UPLINK: Final = "eth0"
POD_BRIDGE: Final = "pods"
FIRST_NODE_ADDRESS: Final = 10

ROUTER_SYSCTLS: Final = {
    "ipv4/ip_forward": "1",
    "ipv4/conf/all/rp_filter": "0",
    "ipv4/conf/default/rp_filter": "0",
    "ipv4/conf/all/send_redirects": "0",
    "ipv4/conf/default/send_redirects": "0",
    "ipv4/conf/all/route_localnet": "1",
    "bridge/bridge-nf-call-iptables": "0",
}


@attrs.frozen
class Switch:
    """The cluster's wire. `host_address` is where the host and its servers are reached."""

    cluster: str
    netns: str
    interface: str
    host_address: str
    subnet: str

    def node_address(self, index: int) -> str:
        """The address of node 1, 2, ..."""
        return str(ipaddress.IPv4Network(self.subnet)[FIRST_NODE_ADDRESS + index])


@attrs.frozen
class NodeNetwork:
    """A node: the file of its namespace, its address on the switch, its pods' range."""

    cluster: str
    index: int
    netns: str
    address: str
    pod_cidr: str


def create_switch(cluster: str, subnet: str | None = None) -> Switch:
    """The switch and the host's interface to it; a free /24 of 10.89.0.0/16 unless one is given.

    Raises OSError; then nothing is left behind.
    """
    check_cluster(cluster)
    interface = host_interface(cluster)
    with Rtnl() as host:
        if subnet is None:
            taken = [address.network for address in host.addresses()]
            subnet = str(choose_subnet(cluster, taken))
        network = ipaddress.IPv4Network(subnet)
        address = str(network[1])
        netns = namespaces.create(namespace_name(cluster, SWITCH))
        try:
            namespaces.set_sysctls(netns, {"bridge/bridge-nf-call-iptables": "0"})
            with Rtnl(netns) as switch:
                switch.set_up("lo")
                switch.add_bridge(SWITCH_BRIDGE, hardware_address(str(network[2])))
                switch.add_veth("host", interface, namespaces.OWN, bridge=SWITCH_BRIDGE)
            host.set_up(interface)
            host.add_address(interface, f"{address}/{network.prefixlen}")
        except OSError:
            delete_cluster(cluster)
            raise
    log.info("switch cluster=%s interface=%s subnet=%s", cluster, interface, subnet)
    return Switch(cluster, netns, interface, address, subnet)


def create_node(
    switch: Switch,
    index: int,
    pod_cidr: str,
    *,
    others: Sequence[NodeNetwork] = (),
    cluster_cidr: str = CLUSTER_CIDR,
) -> NodeNetwork:
    """A node with its link to the switch, its bridge for pods, and routes from and to `others`:
    the nodes that are there already.

    Raises OSError; then nothing of the node is left behind.
    """
    name = f"node-{index}"
    address = switch.node_address(index)
    prefix = ipaddress.IPv4Network(switch.subnet).prefixlen
    gateway = str(ipaddress.IPv4Network(pod_cidr)[1])
    netns = namespaces.create(namespace_name(switch.cluster, name))
    try:
        namespaces.set_sysctls(netns, ROUTER_SYSCTLS)
        with Rtnl(switch.netns) as rtnl:
            rtnl.add_veth(name, UPLINK, netns, bridge=SWITCH_BRIDGE)
        with Rtnl(netns) as rtnl:
            rtnl.set_up("lo")
            rtnl.set_up(UPLINK)
            rtnl.add_address(UPLINK, f"{address}/{prefix}")
            rtnl.set_route("0.0.0.0/0", gateway=switch.host_address)
            rtnl.add_bridge(POD_BRIDGE, hardware_address(gateway))
            prefix = ipaddress.IPv4Network(pod_cidr).prefixlen
            rtnl.add_address(POD_BRIDGE, f"{gateway}/{prefix}")
            for other in others:
                rtnl.set_route(other.pod_cidr, gateway=other.address)
        node = NodeNetwork(switch.cluster, index, netns, address, pod_cidr)
        _masquerade(switch, node, cluster_cidr)
        for other in others:
            with Rtnl(other.netns) as rtnl:
                rtnl.set_route(pod_cidr, gateway=address)
    except OSError:
        delete_node(switch.cluster, index)
        raise
    return node


def _masquerade(switch: Switch, node: NodeNetwork, cluster_cidr: str) -> None:
    """Pods speak to the outside with their node's address, for nobody there has a route back.

    The outside includes the host. Pods and nodes among themselves are never rewritten.
    """
    rules = f"""\
*nat
:K8SLITE-EGRESS - [0:0]
-A POSTROUTING -s {node.pod_cidr} -j K8SLITE-EGRESS
-A K8SLITE-EGRESS -d {cluster_cidr} -j RETURN
-A K8SLITE-EGRESS -d {switch.host_address}/32 -j MASQUERADE
-A K8SLITE-EGRESS -d {switch.subnet} -j RETURN
-A K8SLITE-EGRESS -d 224.0.0.0/4 -j RETURN
-A K8SLITE-EGRESS -j MASQUERADE
COMMIT
"""
    with namespaces.inside(node.netns):
        process = subprocess.Popen(
            ["iptables-restore", "--noflush"],
            stdin=subprocess.PIPE,
            stdout=subprocess.DEVNULL,
            stderr=subprocess.PIPE,
            text=True,
        )
    _, errors = process.communicate(rules)
    if process.returncode:
        raise OSError(f"iptables-restore on {node.netns}: {errors.strip()}")


def delete_node(cluster: str, index: int) -> None:
    """Remove a node's namespace and its port at the switch; none is no error."""
    name = f"node-{index}"
    switch = namespace_name(cluster, SWITCH)
    if switch in namespaces.names():
        with Rtnl(namespaces.path_of(switch)) as rtnl:
            rtnl.delete_link(name)
    namespaces.delete(namespace_name(cluster, name))


def delete_cluster(cluster: str) -> None:
    """Remove all that bears the cluster's name; safe to repeat, and after a crash.

    Processes in the namespaces are not ended: that is their owner's task, before.
    """
    with Rtnl() as host:
        host.delete_link(host_interface(cluster))
    prefix = namespace_name(cluster, "")
    switch = namespaces.path_of(namespace_name(cluster, SWITCH))
    for name in namespaces.names():
        if name.startswith(prefix):
            if namespaces.path_of(name) == switch:
                _unplug(switch)
            namespaces.delete(name)


def _unplug(switch: str) -> None:
    """Delete the switch's links now: namespaces that processes keep alive lose their wires."""
    try:
        with Rtnl(switch) as rtnl:
            for name in rtnl.links():
                if name != "lo":
                    rtnl.delete_link(name)
    except OSError as error:
        log.info("unplug netns=%s error=%s", switch, error)


def list_leftovers(cluster: str) -> list[str]:
    """What of the cluster is on this machine, for people; empty after `delete_cluster`."""
    prefix = namespace_name(cluster, "")
    found = [f"network namespace {name}" for name in namespaces.names() if name.startswith(prefix)]
    interface = host_interface(cluster)
    with Rtnl() as host:
        if host.has_link(interface):
            found.append(f"interface {interface}")
    return found
