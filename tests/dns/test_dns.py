"""The whole: a real apiserver's services get names, and the service kube-dns leads to us."""

from __future__ import annotations

from typing import Any

import dns.message
import trio

from k8slite.api.kinds import ENDPOINT_SLICES, SERVICES
from k8slite.client.client import ClientConfig, open_client
from k8slite.client.informer import open_informers
from k8slite.dns.dns import DnsConfig, cluster_dns_address, open_dns
from raftkv.host import Address
from raftkv.os_host import OsHost
from tests.apiserver.support import ADMIN, open_test_apiserver
from tests.dns.test_server import Client, texts


def config(**changes: object) -> DnsConfig:
    settings: dict[str, object] = {
        "node_name": "node-1",
        "listen": Address("127.0.0.1", 0),
        "cluster_ip": cluster_dns_address("127.96.0.0/16"),
        "high_port": 10053,
        **changes,
    }
    return DnsConfig(**settings)  # type: ignore[arg-type]  # values of many types


async def test_services_get_names_and_kube_dns_leads_to_us() -> None:
    host = OsHost("node-1")
    async with open_test_apiserver(service_cidr="127.96.0.0/16") as server:
        client_config = ClientConfig(endpoints=(server.addresses[0],), token=ADMIN)
        async with (
            open_client(client_config, host) as api,
            open_informers(api, host) as informers,
            open_dns(api, config(), host, informers) as running,
            open_dns(api, config(node_name="node-2"), host, informers),
        ):
            client = Client(running.address.port)
            found = await client.udp("kubernetes.default.svc.cluster.local.")
            assert texts(found) == ["5 127.96.0.1"]
            slices: list[dict[str, Any]] = []
            with trio.fail_after(20):
                while len(slices) < 2:
                    every = (await api.list(ENDPOINT_SLICES, "kube-system")).items
                    slices = [each for each in every if each["metadata"]["name"] != "kubernetes"]
                    await trio.sleep(0.01)
            kube_dns = await api.get(SERVICES, "kube-dns", "kube-system")
            assert kube_dns["spec"]["clusterIP"] == "127.96.0.10"
            assert kube_dns["metadata"]["labels"]["k8s-app"] == "kube-dns"
            assert [port["port"] for port in kube_dns["spec"]["ports"]] == [53, 53, 10053, 10053]
            assert {each["endpoints"][0]["nodeName"] for each in slices} == {"node-1", "node-2"}
            assert slices[0]["ports"][0]["port"] == running.address.port

            await api.delete(SERVICES, "kube-dns", "kube-system")
            with trio.fail_after(20):
                uid = kube_dns["metadata"]["uid"]
                while uid == kube_dns["metadata"]["uid"]:
                    await trio.sleep(0.01)
                    answer = await client.udp("kube-dns.kube-system.svc.cluster.local.")
                    every = (await api.list(SERVICES, "kube-system")).items
                    uid = next((one["metadata"]["uid"] for one in every), uid)
            with trio.fail_after(20):
                while not answer.answer:
                    answer = await client.udp("kube-dns.kube-system.svc.cluster.local.")
            assert texts(answer) == ["5 127.96.0.10"]
            assert isinstance(answer, dns.message.Message)
