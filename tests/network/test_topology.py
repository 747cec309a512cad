"""Real namespaces: who reaches whom, what is left, and that nothing is left."""

from __future__ import annotations

import json
import re
import socket
import subprocess
from collections.abc import Iterator
from pathlib import Path

import pytest
from pyroute2 import IPRoute

from k8slite.network import namespaces
from k8slite.network.addresses import namespace_name, pod_interface
from k8slite.network.netlink import Rtnl
from k8slite.network.pods import BridgeNetwork
from k8slite.network.topology import (
    create_node,
    create_switch,
    delete_cluster,
    delete_node,
    list_leftovers,
)
from tests.network.lab import Lab, open_lab

pytestmark = [
    pytest.mark.root,
    pytest.mark.tool("iptables-restore"),
    pytest.mark.tool("busybox"),
    pytest.mark.tool("unshare"),
]
CLUSTER = "nettest"
OF_OTHERS = re.compile(r"\bk8s(-|lite\.)(?!nettest)")


def inventory() -> list[str]:
    """What of the host must be the same before and after; clusters of others may come and go."""
    with Rtnl() as host, IPRoute() as kernel:
        links = sorted(host.links())
        dumped = kernel.addr("dump", family=socket.AF_INET)
        addresses = sorted(f"{found.get('label')} {found.get('address')}" for found in dumped)
    routes = Path("/proc/net/route").read_text().splitlines()
    rules = subprocess.run(["iptables-save"], capture_output=True, text=True, check=False).stdout
    lines = [*links, *addresses, *routes, *rules.splitlines(), *namespaces.names()]
    return [line for line in lines if not line.startswith("#") and not OF_OTHERS.search(line)]


@pytest.fixture(scope="module")
def lab() -> Iterator[Lab]:
    before = inventory()
    with open_lab(CLUSTER, 2) as lab:
        yield lab
    assert inventory() == before


def test_pods_reach_pods_nodes_and_the_host(lab: Lab) -> None:
    one, two = lab.pod("reach-1", 1, 2), lab.pod("reach-2", 1, 3)
    other = lab.pod("reach-3", 2, 2)
    for source, address in (
        (one, "10.244.1.3"),
        (one, "10.244.2.2"),
        (other, "10.244.1.3"),
        (two, lab.nodes[0].address),
        (two, lab.nodes[1].address),
        (other, lab.switch.host_address),
        (lab.nodes[0].netns, "10.244.2.2"),
        (lab.nodes[0].netns, lab.nodes[1].address),
    ):
        assert lab.pings(source, address), (source, address)
    assert not lab.pings(one, "10.244.2.99")


def test_pods_see_each_others_own_address(lab: Lab) -> None:
    server, near, far = lab.pod("nat-1", 1, 12), lab.pod("nat-2", 1, 13), lab.pod("nat-3", 2, 12)
    lab.serve(server, 8080, "server")
    assert lab.ask(near, "10.244.1.12", 8080) == "server 10.244.1.13"
    assert lab.ask(far, "10.244.1.12", 8080) == "server 10.244.2.12"
    assert lab.ask(lab.nodes[1].netns, "10.244.1.12", 8080) == f"server {lab.nodes[1].address}"


def test_pods_speak_to_the_host_as_their_node(lab: Lab) -> None:
    pod = lab.pod("egress", 1, 22)
    listener = subprocess.Popen(
        ["python3", "-c", _server(), "0", "host"], stdout=subprocess.PIPE, text=True
    )
    try:
        assert listener.stdout is not None
        port = int(listener.stdout.readline())
        assert lab.ask(pod, lab.switch.host_address, port) == f"host {lab.nodes[0].address}"
    finally:
        listener.kill()
        listener.communicate()


def _server() -> str:
    from tests.network.lab import SERVER

    return SERVER.replace('print("ready", flush=True)', "print(listener.getsockname()[1], flush=1)")


async def test_kubelets_network_remembers_over_a_restart(lab: Lab, tmp_path: Path) -> None:
    node = lab.nodes[0].netns
    netns = namespaces.create(namespace_name(CLUSTER, "pod-bridge"))
    network = BridgeNetwork("10.244.1.128/25", tmp_path, node_netns=node)
    address = await network.attach("some-uid", netns)
    assert address == "10.244.1.130"
    assert await network.attach("some-uid", netns) == address
    again = BridgeNetwork("10.244.1.128/25", tmp_path, node_netns=node)
    assert await again.attach("some-uid", netns) == address
    await again.detach("some-uid", netns)
    await again.detach("some-uid", None)
    with Rtnl(netns) as pod:
        assert sorted(pod.links()) == ["lo"]
    with pytest.raises(OSError, match="no network namespace"):
        await again.attach("other", None)


async def test_a_pod_whose_process_is_gone_can_be_detached(lab: Lab, tmp_path: Path) -> None:
    network = BridgeNetwork("10.244.1.192/26", node_netns=lab.nodes[0].netns)
    name = namespace_name(CLUSTER, "pod-short")
    await network.attach("short", namespaces.create(name))
    namespaces.delete(name)
    await network.detach("short", None)
    with pytest.raises(OSError):
        await network.attach("never", namespaces.path_of("k8slite.nobody.there"))


async def test_a_pod_is_a_process_with_a_namespace(lab: Lab, tmp_path: Path) -> None:
    """As a runtime gives it: /proc/PID/ns/net; with the process all of the pod's network goes."""
    node = lab.nodes[1].netns
    stored = {"network": "10.244.2.0/24", "addresses": {}, "last": 200}
    (tmp_path / "addresses.json").write_text(json.dumps(stored))
    network = BridgeNetwork("10.244.2.0/24", tmp_path, node_netns=node)
    with lab.open_sandbox() as netns:
        address = await network.attach("uid-1", netns)
        assert address == "10.244.2.201"
        assert lab.pings(lab.nodes[0].netns, address)
        assert lab.pings(netns, lab.switch.host_address)
        with lab.open_sandbox() as another:
            assert await network.attach("uid-1", another) == address
            assert lab.pings(another, lab.switch.host_address)
            with Rtnl(netns) as first:
                assert sorted(first.links()) == ["lo"]
    await network.detach("uid-1", None)
    with Rtnl(node) as rtnl:
        assert pod_interface("uid-1") not in rtnl.links()


def test_a_node_that_exists_is_left_alone(lab: Lab) -> None:
    with pytest.raises(FileExistsError):
        create_node(lab.switch, 1, "10.244.1.0/24")
    assert namespace_name(CLUSTER, "node-1") in namespaces.names()


def test_delete_after_a_crash_and_twice() -> None:
    before = inventory()
    cluster = "nettest-crash"
    switch = create_switch(cluster)
    create_node(switch, 1, "10.244.1.0/24")
    assert len(list_leftovers(cluster)) == 3
    sleeper = subprocess.Popen(namespaces.command_inside(switch.netns, ["sleep", "60"]))
    try:
        delete_node(cluster, 1)
        delete_node(cluster, 1)
        assert len(list_leftovers(cluster)) == 2
        delete_cluster(cluster)
        delete_cluster(cluster)
        assert list_leftovers(cluster) == []
        assert inventory() == before
    finally:
        sleeper.kill()
        sleeper.wait()


def test_two_clusters_at_once() -> None:
    with open_lab("nettest-a", 1) as one, open_lab("nettest-b", 1) as two:
        assert one.switch.subnet != two.switch.subnet
        assert one.pings(one.nodes[0].netns, one.switch.host_address)
        assert two.pings(two.nodes[0].netns, two.switch.host_address)
        delete_cluster("nettest-a")
        assert two.pings(two.nodes[0].netns, two.switch.host_address)
