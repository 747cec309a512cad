"""What counts as a service, a port, an endpoint."""

from __future__ import annotations

from typing import Any

import pytest

from k8slite.proxy.table import Endpoint, ServicePort, build_table
from tests.proxy.objects import endpoint, endpoint_slice, service


def only(services: list[Any], slices: list[Any], node: str = "node-1") -> ServicePort:
    (entry,) = build_table(services, slices, node).values()
    return entry


def test_a_service_and_its_endpoints() -> None:
    entry = only(
        [service(sessionAffinity="ClientIP")],
        [
            endpoint_slice(endpoint("10.244.1.2"), endpoint("10.244.2.2", "node-2")),
            endpoint_slice(endpoint("10.244.1.1"), endpoint("10.244.1.2"), suffix="2"),
            endpoint_slice(endpoint("10.244.9.9"), name="other"),
        ],
    )
    assert entry.key == "default/web:http"
    assert (entry.cluster_ip, entry.port, entry.protocol) == ("10.96.0.10", 80, "TCP")
    assert entry.affinity_seconds == 10800
    assert entry.endpoints == (
        Endpoint("10.244.1.1", 8080, True),
        Endpoint("10.244.1.2", 8080, True),
        Endpoint("10.244.2.2", 8080, False),
    )


@pytest.mark.parametrize(
    "ignored",
    [
        service(cluster_ip="None"),
        service(cluster_ip=""),
        service(cluster_ip="fd00::1"),
        service(type="ExternalName"),
        {
            **service(),
            "metadata": {
                "name": "web",
                "namespace": "default",
                "labels": {"service.kubernetes.io/service-proxy-name": "mine"},
            },
        },
    ],
)
def test_services_that_are_not_ours(ignored: Any) -> None:
    assert build_table([ignored], [endpoint_slice(endpoint("10.244.1.2"))], "node-1") == {}


def test_only_ready_ones_but_in_need_those_that_still_serve() -> None:
    dying = endpoint("10.244.1.3", ready=False, serving=True, terminating=True)
    starting = endpoint("10.244.1.4", ready=False, serving=False, terminating=False)
    ready = endpoint("10.244.1.2", ready=True, serving=True, terminating=False)
    unknown = {"addresses": ["10.244.1.5"]}
    both = only([service()], [endpoint_slice(ready, dying, starting)])
    assert [e.ip for e in both.endpoints] == ["10.244.1.2"]
    need = only([service()], [endpoint_slice(dying, starting)])
    assert [e.ip for e in need.endpoints] == ["10.244.1.3"]
    assert [e.ip for e in only([service()], [endpoint_slice(unknown)]).endpoints] == ["10.244.1.5"]
    assert only([service()], []).endpoints == ()


def test_traffic_policies() -> None:
    slices = [endpoint_slice(endpoint("10.244.1.2"), endpoint("10.244.2.2", "node-2"))]
    entry = only([service(internalTrafficPolicy="Local")], slices, "node-2")
    assert [e.ip for e in entry.cluster_endpoints] == ["10.244.2.2"]
    assert len(entry.external_endpoints) == 2
    entry = only([service(externalTrafficPolicy="Local")], slices, "node-3")
    assert len(entry.cluster_endpoints) == 2
    assert entry.external_endpoints == ()


def test_ports_by_name_and_external_addresses() -> None:
    balanced = service(
        type="LoadBalancer",
        externalIPs=["192.0.2.1", "fd00::2"],
        ports=[
            {"name": "http", "port": 80, "nodePort": 30080},
            {"name": "dns", "port": 53, "protocol": "UDP"},
        ],
    )
    balanced["status"] = {"loadBalancer": {"ingress": [{"ip": "192.0.2.7"}, {"hostname": "x"}]}}
    table = build_table([balanced], [endpoint_slice(endpoint("10.244.1.2"))], "node-1")
    assert list(table) == [("default/web:dns", "UDP"), ("default/web:http", "TCP")]
    assert table["default/web:dns", "UDP"].endpoints == ()
    http = table["default/web:http", "TCP"]
    assert http.node_port == 30080
    assert http.external_ips == ("192.0.2.1", "192.0.2.7")


def test_order_of_objects_does_not_matter() -> None:
    services = [service(f"s{i}", f"10.96.0.{i}") for i in range(5)]
    slices = [endpoint_slice(endpoint(f"10.244.1.{i}"), name=f"s{i}") for i in range(5)]
    one = build_table(services, slices, "node-1")
    two = build_table(services[::-1], slices[::-1], "node-1")
    assert list(one.items()) == list(two.items())


def test_where_all_of_this_node_are_terminating_they_serve_its_own_traffic() -> None:
    dying = endpoint("10.244.1.3", ready=False, serving=True, terminating=True)
    far = endpoint("10.244.2.2", "node-2")
    local = service(externalTrafficPolicy="Local")
    entry = only([local], [endpoint_slice(dying, far)])
    assert [e.ip for e in entry.external_endpoints] == ["10.244.1.3"]
    assert [e.ip for e in entry.cluster_endpoints] == ["10.244.2.2"]
    assert entry.ready_here == 0
    entry = only([local], [endpoint_slice(dying, far, endpoint("10.244.1.4"))])
    assert [e.ip for e in entry.external_endpoints] == ["10.244.1.4"]
    assert entry.ready_here == 1


def test_load_balancers() -> None:
    balanced = service(
        type="LoadBalancer",
        externalIPs=["192.0.2.1"],
        externalTrafficPolicy="Local",
        healthCheckNodePort=31000,
        loadBalancerSourceRanges=["198.51.100.0/24", "fd00::/8"],
    )
    ingress = [{"ip": "192.0.2.9"}, {"ip": "192.0.2.10", "ipMode": "Proxy"}, {"hostname": "x"}]
    balanced["status"] = {"loadBalancer": {"ingress": ingress}}
    entry = only([balanced], [])
    assert entry.external_ips == ("192.0.2.1", "192.0.2.9")
    assert entry.balancer_ips == ("192.0.2.9",)
    assert entry.source_ranges == ("198.51.100.0/24",)
    assert entry.health_port == 31000
    open_ = {**balanced, "spec": {**balanced["spec"], "loadBalancerSourceRanges": ["0.0.0.0/0"]}}
    assert only([open_], []).source_ranges == ()
    cluster = {**balanced, "spec": {**balanced["spec"], "externalTrafficPolicy": "Cluster"}}
    assert only([cluster], []).health_port == 0
