"""Who gets which address, and that it stays."""

from __future__ import annotations

import ipaddress
from typing import Any

import trio
from hypothesis import given
from hypothesis import strategies as st

from k8slite.api.kinds import SERVICES
from k8slite.client.client import ClientConfig, open_client
from k8slite.cloud.provider import LocalBalancers
from k8slite.cloud.service import FINALIZER, CloudConfig, open_cloud, planned
from raftkv.os_host import OsHost
from tests.apiserver.support import ADMIN, open_test_apiserver

POOL = "127.66.240.0/29"
Obj = dict[str, Any]


def balanced(name: str, shown: str = "", asked: str = "", age: str = "", **spec: Any) -> Obj:
    made: Obj = {
        "metadata": {"name": name, "namespace": "default", "creationTimestamp": age},
        "spec": {"type": "LoadBalancer", "ports": [{"port": 80}], **spec},
    }
    if asked:
        made["spec"]["loadBalancerIP"] = asked
    if shown:
        made["status"] = {"loadBalancer": {"ingress": [{"ip": shown}]}}
    return made


def place(*services: Obj) -> dict[str, str]:
    placed = LocalBalancers(POOL).place(services)
    return {where.removeprefix("default/"): ip for where, ip in placed.items()}


def test_an_address_is_kept_and_follows_from_the_name() -> None:
    (fresh,) = place(balanced("web")).values()
    assert place(balanced("web")) == {"web": fresh}
    other = "127.66.240.3" if fresh != "127.66.240.3" else "127.66.240.4"
    assert place(balanced("web", shown=other)) == {"web": other}
    assert place(balanced("web", shown="192.0.2.1")) == {"web": fresh}, "not of this pool"


def test_the_older_keeps_what_two_have() -> None:
    young, old = balanced("a", "127.66.240.1", age="2"), balanced("b", "127.66.240.1", age="1")
    placed = place(young, old)
    assert placed["b"] == "127.66.240.1"
    assert placed["a"] != "127.66.240.1"


def test_who_asks_gets_that_or_nothing() -> None:
    assert place(balanced("a", asked="127.66.240.5")) == {"a": "127.66.240.5"}
    assert place(balanced("a", asked="127.66.240.7")) == {}, "the last one is no address"
    assert place(balanced("a", asked="nonsense")) == {}
    taken = balanced("b", shown="127.66.240.5")
    assert place(balanced("a", asked="127.66.240.5"), taken) == {"b": "127.66.240.5"}
    moved = balanced("a", shown="127.66.240.2", asked="127.66.240.5")
    assert place(moved) == {"a": "127.66.240.5"}


def test_what_is_not_ours() -> None:
    other = balanced("a", loadBalancerClass="example.org/x")
    leaving = balanced("b")
    leaving["metadata"]["deletionTimestamp"] = "2026-01-01T00:00:00Z"
    assert place(other, leaving, balanced("c", type="ClusterIP")) == {}
    assert planned(other, None) == (None, None)


def test_what_is_written() -> None:
    marked, shown = planned(balanced("a"), "127.66.240.1")
    assert marked is not None
    assert marked["metadata"]["finalizers"] == [FINALIZER]
    assert shown is not None
    assert shown["status"]["loadBalancer"]["ingress"] == [{"ip": "127.66.240.1", "ipMode": "VIP"}]
    done = balanced("a", shown="127.66.240.1")
    done["metadata"]["finalizers"] = ["mine", FINALIZER]
    assert planned(done, "127.66.240.1") == (None, None)
    done["metadata"]["deletionTimestamp"] = "2026-01-01T00:00:00Z"
    marked, shown = planned(done, None)
    assert marked is not None
    assert marked["metadata"]["finalizers"] == ["mine"]
    assert shown is not None
    assert shown["status"]["loadBalancer"] == {}


@given(
    st.lists(
        st.tuples(
            st.sampled_from([f"s{i}" for i in range(10)]),
            st.sampled_from(["", *(f"127.66.240.{i}" for i in range(8))]),
            st.sampled_from(["", "127.66.240.2", "127.66.240.6"]),
        ),
        max_size=10,
        unique_by=lambda each: each[0],
    )
)
def test_no_two_share_and_what_was_placed_stays(rows: list[tuple[str, str, str]]) -> None:
    services = [balanced(name, shown, asked) for name, shown, asked in rows]
    placed = place(*services)
    assert len(set(placed.values())) == len(placed)
    network = ipaddress.ip_network(POOL)
    assert all(ipaddress.ip_address(ip) in network for ip in placed.values())
    free = [name for name, _, asked in rows if not asked]
    others = len(placed.keys() - set(free))
    assert sum(name in placed for name in free) >= min(len(free), 7 - others)
    asked = {name: wish for name, _, wish in rows}
    again = [balanced(name, ip, asked[name]) for name, ip in placed.items()]
    assert place(*again) == placed


async def test_a_service_gets_an_address_and_gives_it_back() -> None:
    host = OsHost("cloud")
    async with open_test_apiserver(service_cidr="127.96.0.0/16") as server:
        client_config = ClientConfig(endpoints=(server.addresses[0],), token=ADMIN)
        config = CloudConfig(client=client_config, identity="cloud-1")

        async def address(wanted: bool) -> str:
            with trio.fail_after(20):
                while True:
                    one = await api.get(SERVICES, "web", "default")
                    ingress = (one["status"].get("loadBalancer") or {}).get("ingress") or []
                    if bool(ingress) == wanted:
                        return str(ingress[0]["ip"]) if ingress else ""
                    await trio.sleep(0.01)

        async with open_client(client_config, host) as api:
            async with open_cloud(config, host, LocalBalancers(POOL)):
                made = {
                    "apiVersion": "v1",
                    "kind": "Service",
                    "metadata": {"name": "web", "namespace": "default"},
                    "spec": {"type": "LoadBalancer", "ports": [{"port": 80}]},
                }
                await api.create(SERVICES, made)
                first = await address(True)
                assert ipaddress.ip_address(first) in ipaddress.ip_network(POOL)
            async with open_cloud(config, host, LocalBalancers(POOL)):
                assert await address(True) == first
                patch = {"spec": {"type": "ClusterIP"}}
                await api.patch(SERVICES, "web", "default", patch)
                await address(False)
                await api.patch(SERVICES, "web", "default", {"spec": {"type": "LoadBalancer"}})
                assert await address(True) == first
                with trio.fail_after(20):
                    finalizers = None
                    while finalizers != [FINALIZER]:
                        one = await api.get(SERVICES, "web", "default")
                        finalizers = one["metadata"].get("finalizers")
                await api.delete(SERVICES, "web", "default")
                with trio.fail_after(20):
                    while (await api.list(SERVICES, "default")).items[1:]:
                        await trio.sleep(0.01)
