"""A container on a real node asks for a name, through the rules of the service kube-dns."""

from __future__ import annotations

import random
import socket
from pathlib import Path
from typing import Any

import pytest

from k8slite.api.kinds import PODS
from k8slite.client.background import open_background
from k8slite.dns.forward import Forwarder
from k8slite.dns.objects import Place, endpoint_slice
from k8slite.dns.objects import service as dns_service
from k8slite.dns.server import DnsServer, bind
from k8slite.dns.zone import Zone
from k8slite.kubelet.cleanup import cleanup, leftovers
from k8slite.network.namespaces import command_inside, inside
from k8slite.proxy.iptables import IptablesWriter
from k8slite.proxy.table import build_table
from tests.dns.objects import endpoint as named
from tests.dns.objects import external, headless, service, slice_of
from tests.dns.test_server import open_upstream, say
from tests.kubelet.world import KubeletApi, container, pod
from tests.network.lab import open_lab
from tests.network.test_kubelets import open_kubelets

pytestmark = [
    pytest.mark.root,
    pytest.mark.tool("runc"),
    pytest.mark.tool("iptables-restore"),
]
DNS = "10.96.0.10"
SCRIPT = """
for name in web db-0.db.default.svc.cluster.local far www.example.org; do
  echo "$name: $(nslookup $name | tail -n +3 | grep ^Address | sort -u | tr '\\n' ' ')"
done
echo done; sleep 1000
"""


def objects() -> tuple[list[Any], list[Any]]:
    services = [service(), headless(), external("far", "www.example.org")]
    return services, [slice_of("db", named("10.244.1.77", "db-0"))]


async def test_nslookup_in_a_container(tmp_path: Path) -> None:
    services, slices = objects()
    zone = Zone("cluster.local", DNS)
    for one in services:
        zone.service_changed(None, one)
    for each in slices:
        zone.slice_changed(None, each)
    resolv_conf = tmp_path / "upstream"
    resolv_conf.write_text("nameserver 127.0.0.1\n")
    api = KubeletApi()
    try:
        with open_lab("dnstest", 1) as lab:
            (there,) = lab.nodes
            place = Place("node-1", DNS, there.address, 53)
            kube_dns = dns_service(place)
            kube_dns["metadata"]["uid"] = "1"
            writer = IptablesWriter("10.244.0.0/16", command=command_inside(there.netns, []))
            ends = [endpoint_slice(place, kube_dns)]
            assert await writer.sync(build_table([kube_dns], ends, "node-1")) == []
            with inside(there.netns):
                udp, tcp = bind(there.address, 53)
            async with (
                open_upstream(say("IN A 192.0.2.7")) as port,
                open_kubelets(lab, tmp_path, api, cluster_dns=(DNS,)) as (node,),
                open_background() as nursery,
            ):
                rng = random.Random(1)
                # The server is in the node's namespace, what it asks outside in the machine's.
                forwarder = Forwarder(resolv_conf, rng, port=port, open_socket=socket.socket)
                server = DnsServer(zone, forwarder, rng, 5)
                nursery.start_soon(server.serve_datagrams, udp)
                nursery.start_soon(server.serve_connections, tcp)
                client = pod("client", containers=[container("c", "sh", "-c", SCRIPT)])
                client["spec"]["nodeName"] = "node-1"
                api.add(PODS, client)

                def output() -> str:
                    logs = (tmp_path / "node-1" / "logs").glob("default_client_*/c/0.log")
                    return "".join(path.read_text() for path in logs)

                await node.until(lambda: "done" in output())
            udp.close()
            tcp.close()
            said = [line.split(" F ")[1].strip() for line in output().splitlines()]
            assert said[:4] == [
                "web: Address: 10.96.0.50",
                "db-0.db.default.svc.cluster.local: Address: 10.244.1.77",
                "far: Address: 192.0.2.7",
                "www.example.org: Address: 192.0.2.7",
            ]
    finally:
        cleanup(tmp_path / "node-1")
    assert leftovers(tmp_path / "node-1") == []
