"""Who can reach whom, tried from real pods' namespaces on two nodes, beside what policies mean."""

from __future__ import annotations

import subprocess
import sys
from collections.abc import AsyncIterator, Iterator
from typing import Any

import pytest
import trio

from k8slite.api.kinds import NAMESPACES, NETWORK_POLICIES, PODS
from k8slite.client.background import open_background
from k8slite.client.informer import open_informers
from k8slite.network.namespaces import command_inside, path_of
from k8slite.network.policy.enforcer import Enforcer, PolicyWriter
from k8slite.network.policy.plan import make_plan, view_of_pod
from k8slite.network.policy.rules import make_rules
from tests.client.fake_api import FakeApi
from tests.client.world import MemoryHost
from tests.network.lab import Lab, open_lab
from tests.network.policies import World, match, namespace, of_namespace, pod, policy

pytestmark = [pytest.mark.root, pytest.mark.tool("nft"), pytest.mark.tool("iptables-restore")]

PORTS = (80, 8080)
HTTP = [{"name": "http", "containerPort": 8080}]
THERE = [
    pod("web", "a", "10.244.1.2", "node-1", ports=HTTP),
    pod("db", "a", "10.244.2.2", "node-2", ports=HTTP),
    pod("web", "b", "10.244.1.3", "node-1"),
    pod("db", "b", "10.244.2.3", "node-2"),
]
ALL_NAMESPACES = [namespace("a"), namespace("b")]
IPS = [each["status"]["podIP"] for each in THERE]
SERVER = """
import socket, sys, time
listeners = [socket.create_server(("0.0.0.0", int(port)), backlog=64) for port in sys.argv[1:]]
print("ready", flush=True)
time.sleep(600)
"""
PROBE = """
import select, socket, sys
poll, waiting = select.poll(), {}
for target in sys.argv[1:]:
    ip, port = target.split(":")
    sock = socket.socket(); sock.setblocking(False); sock.connect_ex((ip, int(port)))
    poll.register(sock, select.POLLOUT); waiting[sock.fileno()] = sock, target
while found := poll.poll(400):
    for fd, _ in found:
        sock, target = waiting.pop(fd); poll.unregister(fd)
        if not sock.getsockopt(socket.SOL_SOCKET, socket.SO_ERROR):
            print(target)
        sock.close()
"""


@pytest.fixture(scope="module")
def lab() -> Iterator[Lab]:
    servers = []
    with open_lab("policytest", 2) as lab:
        for each in THERE:
            name = f"{each['metadata']['name']}-{each['metadata']['namespace']}"
            node, number = map(int, each["status"]["podIP"].split(".")[2:])
            netns = lab.pod(name, node, number)
            command = [sys.executable, "-c", SERVER, *map(str, PORTS)]
            server = subprocess.Popen(command_inside(netns, command), stdout=subprocess.PIPE)
            servers.append(server)
            assert server.stdout is not None
            assert server.stdout.readline() == b"ready\n"
        yield lab
        for server in servers:
            server.kill()
            server.communicate()


@pytest.fixture
async def writers(lab: Lab) -> AsyncIterator[list[PolicyWriter]]:
    writers = [PolicyWriter(command=command_inside(node.netns, [])) for node in lab.nodes]
    yield writers
    for node, writer in zip(lab.nodes, writers, strict=True):
        await writer.cleanup()
        assert "k8slite-policy" not in lab.run(node.netns, ["nft", "list", "tables"]).stdout


def netns_of(each: dict[str, Any]) -> str:
    name = f"{each['metadata']['name']}-{each['metadata']['namespace']}"
    return path_of(f"k8slite.policytest.pod-{name}")


def matrix() -> set[tuple[str, str, int]]:
    """Which connections are made, of all from each pod to each port of each other."""
    targets = {ip: [f"{to}:{port}" for to in IPS if to != ip for port in PORTS] for ip in IPS}
    probes = {}
    for each in THERE:
        ip = each["status"]["podIP"]
        command = command_inside(netns_of(each), [sys.executable, "-c", PROBE, *targets[ip]])
        probes[ip] = subprocess.Popen(command, stdout=subprocess.PIPE, text=True)
    found = set()
    for ip, probe in probes.items():
        for line in probe.communicate()[0].splitlines():
            to, _, port = line.partition(":")
            found.add((ip, to, int(port)))
    return found


def expected(policies: list[dict[str, Any]]) -> set[tuple[str, str, int]]:
    world = World(policies, THERE, ALL_NAMESPACES)
    return {
        (source, target, port)
        for source in IPS
        for target in IPS
        for port in PORTS
        if source != target and world.allows(source, target, port)
    }


async def write(writers: list[PolicyWriter], policies: list[dict[str, Any]]) -> None:
    views = [view for view in map(view_of_pod, THERE) if view is not None]
    for number, writer in enumerate(writers, 1):
        plan = make_plan(policies, views, ALL_NAMESPACES, f"node-{number}")
        await writer.write(make_rules(plan))


FROM_B = {"namespaceSelector": of_namespace("b")}
BOTH = ["Ingress", "Egress"]
SCENARIOS = {
    "nobody is closed": [],
    "default deny": [policy(types=["Ingress", "Egress"])],
    "own namespace only": [policy(ingress=[{"from": [{"podSelector": {}}]}])],
    "one pod, one port, another namespace": [
        policy(
            pods=match(app="db"),
            ingress=[
                {
                    "from": [FROM_B | {"podSelector": match(app="web")}],
                    "ports": [{"port": "http"}],
                }
            ],
        )
    ],
    "out to some": [
        policy(
            egress=[
                {"to": [{"podSelector": match(app="db")}], "ports": [{"port": "http"}]},
                {"to": [{"namespaceSelector": of_namespace("b")}], "ports": [{"port": 80}]},
            ],
            types=["Egress"],
        )
    ],
    "ranges of addresses and ports": [
        policy(
            ingress=[
                {
                    "from": [{"ipBlock": {"cidr": "10.244.0.0/16", "except": ["10.244.1.0/24"]}}],
                    "ports": [{"port": 1000, "endPort": 9000}],
                }
            ]
        ),
        policy("q", "b", ingress=[{"ports": [{"port": 80}]}], egress=[{}], types=BOTH),
    ],
    "two policies add up": [
        policy("p", ingress=[{"from": [{"podSelector": match(app="web")}]}]),
        policy("q", ingress=[{"from": [FROM_B], "ports": [{"port": 80}]}]),
    ],
}


async def test_the_matrix(lab: Lab, writers: list[PolicyWriter]) -> None:
    """All scenarios one after the other, so that the steps between them are tried as well."""
    for name, policies in SCENARIOS.items():
        await write(writers, policies)
        assert matrix() == expected(policies), name


async def test_the_own_node_gets_through_and_replies_pass(
    lab: Lab, writers: list[PolicyWriter]
) -> None:
    lab.serve(netns_of(THERE[0]), 7000, "web")
    await write(writers, [policy(types=["Ingress", "Egress"])])
    assert lab.ask(lab.nodes[0].netns, IPS[0], 7000).startswith("web ")
    assert lab.ask(lab.nodes[1].netns, IPS[0], 7000).startswith("error")
    await write(writers, [policy(egress=[{}], types=["Egress"], ingress=[])])
    assert lab.ask(netns_of(THERE[2]), IPS[0], 7000).startswith("web ")


async def test_the_loop_follows_the_api(lab: Lab, writers: list[PolicyWriter]) -> None:
    api = FakeApi()
    for one in ALL_NAMESPACES:
        api.add(NAMESPACES, one)
    for each in THERE:
        api.add(PODS, each)
    everything = expected([])
    async with open_informers(api, MemoryHost()) as informers, open_background() as nursery:
        for number, writer in enumerate(writers, 1):
            enforcer = Enforcer(informers, f"node-{number}", writer)
            nursery.start_soon(enforcer.run)
        deny = policy(types=["Ingress"])

        async def settles(wanted: set[tuple[str, str, int]]) -> None:
            with trio.fail_after(20):
                while matrix() != wanted:
                    await trio.sleep(0.05)

        await settles(everything)
        api.add(NETWORK_POLICIES, deny)
        await settles(expected([deny]))
        allow = policy("q", ingress=[{"from": [{"namespaceSelector": match(team="x")}]}])
        api.add(NETWORK_POLICIES, allow)
        await settles(expected([deny]))
        api.change(NAMESPACES, "b", lambda o: o["metadata"]["labels"].update(team="x"))
        world = [t for t in everything if t[1] not in (IPS[0], IPS[1]) or t[0] in (IPS[2], IPS[3])]
        await settles(set(world))
        api.remove(NETWORK_POLICIES, "a/p")
        api.remove(NETWORK_POLICIES, "a/q")
        await settles(everything)
        assert enforcer.problems == []


async def test_flushed_rules_are_seen(lab: Lab, writers: list[PolicyWriter]) -> None:
    deny = [policy(types=["Ingress"])]
    await write(writers, deny)
    lab.run(lab.nodes[0].netns, ["nft", "flush", "ruleset"])
    for writer in writers:
        await writer.look()
    await write(writers, deny)
    listed = lab.run(lab.nodes[0].netns, ["nft", "list", "table", "ip", "k8slite-policy"]).stdout
    assert "drop" in listed
