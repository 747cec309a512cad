"""Real rules in real namespaces, with real connections."""

from __future__ import annotations

from collections.abc import AsyncIterator, Iterator
from typing import Any

import pytest

from k8slite.network.namespaces import command_inside
from k8slite.proxy.iptables import IptablesWriter
from k8slite.proxy.table import build_table
from k8slite.proxy.writer import WriteFailed
from tests.network.lab import Lab, open_lab
from tests.proxy.objects import endpoint, endpoint_slice, service

pytestmark = [pytest.mark.root, pytest.mark.tool("iptables-restore")]
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
        yield lab


@pytest.fixture
async def writers(lab: Lab) -> AsyncIterator[list[IptablesWriter]]:
    writers = [IptablesWriter(PODS, command=command_inside(node.netns, [])) for node in lab.nodes]
    yield writers
    for writer in writers:
        await writer.cleanup()
    for node in lab.nodes:
        assert "KUBE-" not in lab.run(node.netns, ["iptables-save"]).stdout


async def sync(writers: list[IptablesWriter], services: list[Any], slices: list[Any]) -> None:
    for number, writer in enumerate(writers, 1):
        assert await writer.sync(build_table(services, slices, f"node-{number}")) == []


def netns(name: str) -> str:
    return f"/run/netns/k8slite.proxytest.{name}"


async def test_cluster_ip_from_pods_and_nodes(lab: Lab, writers: list[IptablesWriter]) -> None:
    await sync(writers, [service()], BOTH)
    for client in ("pod-client-1", "pod-client-2", "node-1", "node-2"):
        answers = lab.ask_often(netns(client), WEB, 80, 24)
        assert {answer.split()[0] for answer in answers} == {"one", "two"}, client
    assert lab.ask(netns("pod-client-1"), WEB, 80).split()[1] == "10.244.1.9"


async def test_node_port_on_every_node(lab: Lab, writers: list[IptablesWriter]) -> None:
    await sync(writers, [service(type="NodePort", ports=NODE_PORT)], BOTH)
    for node in lab.nodes:
        answers = lab.ask_often(netns("node-1"), node.address, 30080, 24)
        assert {answer.split()[0] for answer in answers} == {"one", "two"}
    local = service(type="NodePort", ports=NODE_PORT, externalTrafficPolicy="Local")
    await sync(writers, [local], BOTH)
    for node, name in zip(lab.nodes, ("one", "two"), strict=True):
        answers = lab.ask_often("/proc/self/ns/net", node.address, 30080, 6)
        assert {answer.split()[0] for answer in answers} == {name}


async def test_a_pod_reaches_itself_through_its_service(
    lab: Lab, writers: list[IptablesWriter]
) -> None:
    await sync(writers, [service()], [endpoint_slice(endpoint("10.244.1.2"))])
    assert lab.ask(netns("pod-one"), WEB, 80).startswith("one ")


async def test_no_endpoints_refuses_at_once(lab: Lab, writers: list[IptablesWriter]) -> None:
    await sync(writers, [service()], [])
    assert lab.ask(netns("pod-client-1"), WEB, 80) == "error 111"
    await sync(writers, [service()], BOTH)
    assert lab.ask(netns("pod-client-1"), WEB, 80).split()[0] in ("one", "two")
    await sync(writers, [], [])


async def test_affinity(lab: Lab, writers: list[IptablesWriter]) -> None:
    await sync(writers, [service(sessionAffinity="ClientIP")], BOTH)
    assert len(set(lab.ask_often(netns("pod-client-1"), WEB, 80, 10))) == 1


async def test_the_host_is_reached_through_a_service(
    lab: Lab, writers: list[IptablesWriter]
) -> None:
    """As pods reach the apiserver by the service `kubernetes`."""
    import socket

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


async def test_a_second_life_takes_over_and_cleans_up(
    lab: Lab, writers: list[IptablesWriter]
) -> None:
    await sync(writers, [service(), service("old", "10.96.0.11")], BOTH)
    heirs = [IptablesWriter(PODS, command=command_inside(n.netns, [])) for n in lab.nodes]
    await sync(heirs, [service()], [endpoint_slice(endpoint("10.244.2.2", "node-2"))])
    assert lab.ask(netns("pod-client-1"), WEB, 80).split()[0] == "two"
    saved = lab.run(netns("node-1"), ["iptables-save"]).stdout
    assert "default/old" not in saved
    assert saved.count("-j KUBE-POSTROUTING") == 1
    assert saved.count("-A OUTPUT") == 2
    assert "K8SLITE-EGRESS" in saved


async def test_failure_says_why(writers: list[IptablesWriter]) -> None:
    broken = IptablesWriter(PODS, command=["/nowhere/nsenter"])
    with pytest.raises(WriteFailed, match="can't be run"):
        await broken.sync({})
    odd = IptablesWriter("not a network", command=writers[0]._command)
    table = build_table([service()], BOTH, "node-1")
    with pytest.raises(WriteFailed, match="iptables-restore failed"):
        await odd.sync(table)
