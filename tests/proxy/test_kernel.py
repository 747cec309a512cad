"""Real rules in real namespaces, with real connections; the same for all that write rules."""

from __future__ import annotations

import contextlib
import functools
import random
import socket
import subprocess
import sys
from collections.abc import AsyncIterator, Callable, Iterator
from typing import Any

import pytest
from pyroute2 import Conntrack

from k8slite.network.namespaces import command_inside, inside
from k8slite.proxy.conntrack import FlowCleaner
from k8slite.proxy.iptables import IptablesWriter
from k8slite.proxy.ipvs import IpvsWriter, why_unusable
from k8slite.proxy.ipvs_kernel import INTERFACE
from k8slite.proxy.nftables import NftablesWriter
from k8slite.proxy.table import build_table
from k8slite.proxy.writer import WriteFailed
from tests.network.lab import Lab, open_lab
from tests.proxy.objects import endpoint, endpoint_slice, service

pytestmark = [
    pytest.mark.root,
    pytest.mark.tool("iptables-restore"),
    pytest.mark.tool("nft"),
]
Kind = Callable[..., Any]
PODS = "10.244.0.0/16"
WEB = "10.96.0.10"
NODE_PORT = [{"name": "http", "port": 80, "nodePort": 30080}]
BOTH = [endpoint_slice(endpoint("10.244.1.2"), endpoint("10.244.2.2", "node-2"))]


@pytest.fixture(scope="module")
def lab() -> Iterator[Lab]:
    with open_lab("proxytest", 2) as lab:
        for node, name in ((1, "one"), (2, "two")):
            lab.serve(lab.pod(name, node, 2), 8080, name)
            lab.pod(f"client-{node}", node, 9)
        lab.serve(lab.nodes[0].netns, 9090, "node")
        yield lab


KINDS: dict[str, Kind] = {
    "iptables": IptablesWriter,
    "nftables": NftablesWriter,
    "ipvs": IpvsWriter,
}
NO_IPVS = "needs a kernel with IPVS: .ci/kernel-vm .venv/bin/python -m pytest " + __file__


def make_writers(lab: Lab, kind: Kind) -> list[Any]:
    writers = []
    for node in lab.nodes:
        more: dict[str, Any] = {}
        if kind is IpvsWriter:
            enter = functools.partial(inside, node.netns)
            more = {"node_addresses": [node.address], "enter": enter}
        writers.append(kind(PODS, command=command_inside(node.netns, []), **more))
    return writers


@pytest.fixture(params=sorted(KINDS))
def kind(request: pytest.FixtureRequest, lab: Lab) -> Kind:
    chosen = KINDS[request.param]
    if chosen is IpvsWriter and why_unusable(enter=functools.partial(inside, lab.nodes[0].netns)):
        pytest.skip(NO_IPVS)
    return chosen


@pytest.fixture
async def writers(lab: Lab, kind: Kind) -> AsyncIterator[list[Any]]:
    writers = make_writers(lab, kind)
    yield writers
    for writer in writers:
        await writer.cleanup()
        await writer.cleanup()
    for node in lab.nodes:
        assert "KUBE-" not in lab.run(node.netns, ["iptables-save"]).stdout
        tables = lab.run(node.netns, ["nft", "list", "tables"]).stdout
        assert "k8slite-proxy" not in tables
        assert "k8slite-ipvs" not in tables
        assert INTERFACE not in lab.run(node.netns, ["ip", "link"]).stdout


async def sync(writers: list[Any], services: list[Any], slices: list[Any]) -> None:
    for number, writer in enumerate(writers, 1):
        assert await writer.sync(build_table(services, slices, f"node-{number}")) == []


def netns(name: str) -> str:
    return f"/run/netns/k8slite.proxytest.{name}"


async def test_cluster_ip_from_pods_and_nodes(lab: Lab, writers: list[Any]) -> None:
    await sync(writers, [service()], BOTH)
    for client in ("pod-client-1", "pod-client-2", "node-1", "node-2"):
        answers = lab.ask_often(netns(client), WEB, 80, 24)
        assert {answer.split()[0] for answer in answers} == {"one", "two"}, client
    assert lab.ask(netns("pod-client-1"), WEB, 80).split()[1] == "10.244.1.9"


async def test_node_port_on_every_node(lab: Lab, writers: list[Any]) -> None:
    await sync(writers, [service(type="NodePort", ports=NODE_PORT)], BOTH)
    for node in lab.nodes:
        answers = lab.ask_often(netns("node-1"), node.address, 30080, 24)
        assert {answer.split()[0] for answer in answers} == {"one", "two"}
    local = service(type="NodePort", ports=NODE_PORT, externalTrafficPolicy="Local")
    await sync(writers, [local], BOTH)
    for node, name in zip(lab.nodes, ("one", "two"), strict=True):
        answers = lab.ask_often("/proc/self/ns/net", node.address, 30080, 6)
        assert {answer.split()[0] for answer in answers} == {name}


async def test_a_pod_reaches_itself_through_its_service(lab: Lab, writers: list[Any]) -> None:
    await sync(writers, [service()], [endpoint_slice(endpoint("10.244.1.2"))])
    assert lab.ask(netns("pod-one"), WEB, 80).startswith("one ")


async def test_no_endpoints_refuses_at_once(lab: Lab, writers: list[Any]) -> None:
    await sync(writers, [service()], [])
    assert lab.ask(netns("pod-client-1"), WEB, 80) == "error 111"
    await sync(writers, [service()], BOTH)
    assert lab.ask(netns("pod-client-1"), WEB, 80).split()[0] in ("one", "two")
    await sync(writers, [], [])


async def test_affinity(lab: Lab, writers: list[Any]) -> None:
    await sync(writers, [service(sessionAffinity="ClientIP")], BOTH)
    assert len(set(lab.ask_often(netns("pod-client-1"), WEB, 80, 10))) == 1


async def test_the_host_is_reached_through_a_service(lab: Lab, writers: list[Any]) -> None:
    """As pods reach the apiserver by the service `kubernetes`."""
    import trio

    listener = socket.create_server((lab.switch.host_address, 0))
    port = listener.getsockname()[1]
    slices = [endpoint_slice(endpoint(lab.switch.host_address), port=port)]
    await sync(writers, [service()], slices)

    def serve() -> None:
        connection, _ = listener.accept()
        connection.sendall(b"host")
        connection.close()

    async with trio.open_nursery() as nursery:
        nursery.start_soon(trio.to_thread.run_sync, serve)
        answer = await trio.to_thread.run_sync(lab.ask, netns("pod-client-1"), WEB, 80)
    listener.close()
    assert answer == "host"


async def test_a_server_of_the_node_itself(lab: Lab, writers: list[Any]) -> None:
    """As pods ask their node for names: the endpoint is an address of the node that balances."""
    node = lab.nodes[0]
    slices = [endpoint_slice(endpoint(node.address), port=9090)]
    await sync(writers, [service(internalTrafficPolicy="Local")], slices)
    for client in ("pod-client-1", "node-1"):
        assert lab.ask(netns(client), WEB, 80).split()[0] == "node", client


async def test_a_second_life_takes_over_and_cleans_up(
    lab: Lab, kind: Kind, writers: list[Any]
) -> None:
    await sync(writers, [service(), service("old", "10.96.0.11")], BOTH)
    heirs = make_writers(lab, kind)
    await sync(heirs, [service()], [endpoint_slice(endpoint("10.244.2.2", "node-2"))])
    assert lab.ask(netns("pod-client-1"), WEB, 80).split()[0] == "two"
    assert lab.ask(netns("pod-client-1"), "10.96.0.11", 80).startswith("error")
    saved = lab.run(netns("node-1"), ["iptables-save"]).stdout
    assert "K8SLITE-EGRESS" in saved
    if kind is IptablesWriter:
        assert "default/old" not in saved
        assert saved.count("-j KUBE-POSTROUTING") == 1
        assert saved.count("-A OUTPUT") == 3


async def test_from_any_table_to_any_other(lab: Lab, writers: list[Any]) -> None:
    """Policies, affinity, ports and endpoints come and go; the tools take every step."""
    rng = random.Random(4)
    for _ in range(25):
        services, slices = [], []
        for number in range(rng.randrange(4)):
            ports = [{"name": "http", "port": 80}]
            if rng.random() < 0.5:
                ports[0]["nodePort"] = 30080 + number
            more: dict[str, Any] = {"externalIPs": ["192.0.2.1"]} if rng.random() < 0.3 else {}
            if rng.random() < 0.5:
                seconds = {"clientIP": {"timeoutSeconds": rng.choice((60, 90))}}
                more |= {"sessionAffinity": "ClientIP", "sessionAffinityConfig": seconds}
            services.append(
                service(
                    f"s{number}",
                    f"10.96.0.{20 + number}",
                    ports,
                    internalTrafficPolicy=rng.choice(("Cluster", "Local")),
                    externalTrafficPolicy=rng.choice(("Cluster", "Local")),
                    **more,
                )
            )
            ends = [
                endpoint(f"10.244.{node}.{last}", f"node-{node}")
                for node in (1, 2)
                for last in (2, 3)
                if rng.random() < 0.5
            ]
            slices.append(endpoint_slice(*ends, name=f"s{number}"))
        await sync(writers, services, slices)
    await sync(writers, [service()], BOTH)
    answers = lab.ask_often(netns("pod-client-1"), WEB, 80, 24)
    assert {answer.split()[0] for answer in answers} == {"one", "two"}


async def test_failure_says_why(kind: Kind, writers: list[Any]) -> None:
    more: dict[str, Any] = {"node_addresses": []} if kind is IpvsWriter else {}
    broken = kind(PODS, command=["/nowhere/nsenter"], **more)
    with pytest.raises(WriteFailed, match="can't be run"):
        await broken.sync({})
    odd = kind("not a network", command=writers[0]._command, **more)
    table = build_table([service()], BOTH, "node-1")
    with pytest.raises(WriteFailed, match="failed with"):
        await odd.sync(table)


BALANCER = "192.0.2.9"


def balanced(*ranges: str, **spec: Any) -> dict[str, Any]:
    one = service(type="LoadBalancer", loadBalancerSourceRanges=list(ranges), **spec)
    one["status"] = {"loadBalancer": {"ingress": [{"ip": BALANCER}]}}
    return one


async def test_source_ranges_of_a_load_balancer(lab: Lab, writers: list[Any]) -> None:
    client, other = netns("pod-client-1"), netns("pod-client-2")
    await sync(writers, [balanced(externalIPs=["192.0.2.1"])], BOTH)
    for ip in (BALANCER, "192.0.2.1"):
        answers = lab.ask_often(client, ip, 80, 16)
        assert {answer.split()[0] for answer in answers} == {"one", "two"}
    await sync(writers, [balanced("10.244.1.9/32", externalIPs=["192.0.2.1"])], BOTH)
    assert lab.ask(client, BALANCER, 80).split()[0] in ("one", "two")
    assert lab.ask(other, BALANCER, 80).startswith("error")
    assert lab.ask(other, "192.0.2.1", 80).split()[0] in ("one", "two")
    assert lab.ask(other, WEB, 80).split()[0] in ("one", "two")


async def test_flushed_rules_are_written_again(lab: Lab, writers: list[Any]) -> None:
    await sync(writers, [service()], BOTH)
    for writer in writers:
        await writer.look()
        assert writer._written is not None
    lab.run(lab.nodes[0].netns, ["nft", "flush", "ruleset"])
    for writer in writers:
        await writer.look()
    assert [writer._written is None for writer in writers] == [True, False]
    await sync(writers, [service()], BOTH)
    assert lab.ask(netns("pod-client-1"), WEB, 80).split()[0] in ("one", "two")


async def test_clients_of_udp_leave_a_pod_that_has_gone(lab: Lab, writers: list[Any]) -> None:
    """One socket that never changes its port, as DNS clients have them."""
    ports = [{"name": "http", "port": 53, "protocol": "UDP"}]
    ends = [endpoint_slice(endpoint("10.244.1.2"), protocol="UDP")]
    moved = [endpoint_slice(endpoint("10.244.2.2", "node-2"), protocol="UDP")]

    def open_kernel() -> Conntrack:
        with inside(lab.nodes[0].netns):
            kernel = Conntrack()
            list(kernel.dump_entries())  # its socket is made by the first request
        return kernel

    cleaner = FlowCleaner(open_kernel)
    with contextlib.ExitStack() as stack:
        for name in ("one", "two"):
            stack.enter_context(udp_server(lab, netns(f"pod-{name}"), name))
        client = stack.enter_context(udp_client(lab, netns("pod-client-1")))
        assert client() == "", "nobody yet"
        for slices, name in ((ends, "one"), (moved, "two")):
            await sync(writers, [service(ports=ports)], slices)
            assert await cleaner.sync(build_table([service(ports=ports)], slices, "node-1")) == []
            assert client() == name


@contextlib.contextmanager
def udp_server(lab: Lab, netns: str, name: str) -> Iterator[None]:
    code = (
        "import socket,sys\ns=socket.socket(type=socket.SOCK_DGRAM);s.bind(('',8080));"
        "print('ready',flush=True)\nwhile 1:\n _,a=s.recvfrom(99);s.sendto(sys.argv[1].encode(),a)"
    )
    command = command_inside(netns, [sys.executable, "-c", code, name])
    with subprocess.Popen(command, stdout=subprocess.PIPE, text=True) as process:
        try:
            assert process.stdout is not None
            assert process.stdout.readline() == "ready\n"
            yield
        finally:
            process.kill()


@contextlib.contextmanager
def udp_client(lab: Lab, netns: str) -> Iterator[Callable[[], str]]:
    """Who answers; "" for nobody."""
    with inside(netns):
        sock = socket.socket(type=socket.SOCK_DGRAM)
    sock.settimeout(0.5)

    def ask() -> str:
        sock.sendto(b"?", (WEB, 53))
        try:
            return sock.recv(99).decode()
        except OSError:
            return ""

    with sock:
        yield ask
