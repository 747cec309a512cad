"""Load balancers' addresses on the switch: who holds them, and that the host reaches them."""

from __future__ import annotations

from typing import Any

import pytest
import trio

from k8slite.api.kinds import ENDPOINT_SLICES, NODES, SERVICES
from k8slite.client.background import open_background
from k8slite.client.informer import open_informers
from k8slite.network.announce import Announcer, holder, plan
from k8slite.network.namespaces import command_inside
from k8slite.proxy.iptables import IptablesWriter
from k8slite.proxy.table import build_table
from tests.client.fake_api import FakeApi
from tests.client.world import MemoryHost
from tests.network.lab import open_lab
from tests.proxy.objects import endpoint, endpoint_slice, service

POOL = "192.0.2."


def node(name: str, ready: str = "True") -> dict[str, Any]:
    return {
        "metadata": {"name": name},
        "status": {"conditions": [{"type": "Ready", "status": ready}]},
    }


def balanced(address: str, **spec: Any) -> dict[str, Any]:
    one = service(type="LoadBalancer", **spec)
    one["status"] = {"loadBalancer": {"ingress": [{"ip": address}]}}
    return one


def test_one_holder_and_only_its_addresses_move() -> None:
    nodes = [f"node-{number}" for number in range(5)]
    addresses = [f"192.0.2.{number}" for number in range(50)]
    before = {ip: holder(ip, nodes) for ip in addresses}
    assert len(set(before.values())) == 5
    for ip, node_name in before.items():
        after = holder(ip, nodes[1:])
        assert after == node_name or node_name == "node-0"
    assert holder("192.0.2.1", []) == ""


def test_only_ready_nodes_and_with_local_only_those_with_endpoints() -> None:
    nodes = [node("node-1"), node("node-2"), node("node-3", "Unknown")]
    held = plan([balanced("192.0.2.9")], [], nodes, POOL)
    assert held["192.0.2.9"] in ("node-1", "node-2")
    local = balanced("192.0.2.9", externalTrafficPolicy="Local")
    for number in (1, 2):
        ends = [endpoint_slice(endpoint("10.244.1.2", f"node-{number}"))]
        assert plan([local], ends, nodes, POOL) == {"192.0.2.9": f"node-{number}"}
    assert plan([balanced("198.51.100.1"), service()], [], nodes, POOL) == {}


@pytest.mark.root
@pytest.mark.tool("iptables-restore")
async def test_the_host_reaches_an_address_and_goes_on_when_its_node_is_lost() -> None:
    api = FakeApi()
    with open_lab("balancertest", 2) as lab:
        pool = lab.switch.subnet.rpartition(".")[0] + "."
        address = f"{pool}200"
        one = balanced(address)
        slices = [endpoint_slice(endpoint("10.244.1.2"), endpoint("10.244.2.2", "node-2"))]
        for number, there in enumerate(lab.nodes, 1):
            lab.serve(lab.pod(f"web-{number}", number, 2), 8080, f"web-{number}")
            writer = IptablesWriter("10.244.0.0/16", command=command_inside(there.netns, []))
            await writer.sync(build_table([one], slices, f"node-{number}"))
            api.add(NODES, node(f"node-{number}"))
        api.add(SERVICES, one)
        api.add(ENDPOINT_SLICES, slices[0])
        async with open_informers(api, MemoryHost()) as informers, open_background() as nursery:
            announcers = [
                Announcer(informers, f"node-{number}", pool, netns=there.netns)
                for number, there in enumerate(lab.nodes, 1)
            ]
            for announcer in announcers:
                nursery.start_soon(announcer.run)

            async def held_by() -> int:
                with trio.fail_after(20):
                    while True:
                        holders = [n for n, a in enumerate(announcers, 1) if a.addresses]
                        if len(holders) == 1:
                            return holders[0]
                        await trio.sleep(0.01)

            first = await held_by()
            answers = lab.ask_often("/proc/self/ns/net", address, 80, 16)
            assert {answer.split()[0] for answer in answers} == {"web-1", "web-2"}
            api.set_status(
                NODES, f"node-{first}", conditions=[{"type": "Ready", "status": "Unknown"}]
            )
            with trio.fail_after(20):
                while await held_by() == first:
                    await trio.sleep(0.01)
            answers = lab.ask_often("/proc/self/ns/net", address, 80, 16)
            assert {answer.split()[0] for answer in answers} == {"web-1", "web-2"}
