"""What a cluster may be, and the addresses that follow from its place."""

from __future__ import annotations

import ipaddress
import json

import pytest

from k8slite.cluster.durations import parse_seconds
from k8slite.cluster.spec import ClusterSpec, Component, InvalidSpec, Place, components
from k8slite.cluster.timings import DEFAULT, FAST, Timings, timings_of


@pytest.mark.parametrize(
    ("flags", "words"),
    [
        ({"name": "Big"}, "--name"),
        ({"name": "-a"}, "--name"),
        ({"name": ""}, "--name"),
        ({"name": "a" * 33}, "at most 32"),
        ({"name": "../x"}, "--name"),
        ({"control_planes": 0}, "--control-planes 0"),
        ({"control_planes": 10}, "from 1 to 9"),
        ({"nodes": -1}, "--nodes -1"),
        ({"port": 65536}, "--port 65536"),
        ({"runtime": "docker"}, "oci, process, fake"),
        ({"store": "etcd"}, "raftkv, memory"),
        ({"store": "memory", "control_planes": 3}, "needs --store raftkv"),
        ({"runtime": "oci", "proxy": "userspace"}, "do not go together"),
        ({"runtime": "process", "proxy": "iptables"}, "do not go together"),
    ],
)
def test_a_cluster_that_cannot_be_is_refused(flags: dict[str, object], words: str) -> None:
    with pytest.raises(InvalidSpec, match=words):
        ClusterSpec(**flags)  # type: ignore[arg-type]  # a table of flags


def test_components_in_the_order_in_which_they_start() -> None:
    names = [c.name for c in components(ClusterSpec(control_planes=2, nodes=1))]
    assert names == [
        "raftkv-1", "raftkv-2", "apiserver-1", "apiserver-2", "controller-manager-1",
        "controller-manager-2", "kubelet-1", "scheduler-1", "scheduler-2", "proxy-1",
    ]  # fmt: skip
    roles = {c.role for c in components(ClusterSpec(store="memory", control_planes=1, nodes=0))}
    assert roles == {"apiserver", "controller-manager", "scheduler"}
    assert Component("kubelet", 2).node == "node-2"
    assert Component("apiserver", 2).node == ""


def test_a_spec_comes_back_from_its_file_and_from_that_of_a_later_version() -> None:
    spec = ClusterSpec(name="a", control_planes=5, fast=True, runtime="oci", proxy="nftables")
    assert ClusterSpec.from_json({**spec.to_json(), "later": 1}) == spec


PLACES = (
    Place(port=6443, slot=0, first_port=20_000),
    Place(port=6444, slot=199, first_port=20_000 + 199 * 28),
    Place(port=6445, slot=2, first_port=20_056, bridge="10.89.7.1", subnet="10.89.7.0/24"),
)


@pytest.mark.parametrize("place", PLACES)
def test_no_two_things_of_a_place_have_one_address(place: Place) -> None:
    numbers = range(1, 10)
    listening = [place.api, *(place.raft_client(n) for n in numbers)]
    listening += [place.raft_peer(n) for n in numbers] + [place.apiserver(n) for n in numbers]
    assert len({address.port for address in listening}) == len(listening)
    ranges = [ipaddress.IPv4Network(place.pod_cidr(n)) for n in range(1, 101)]
    ranges.append(ipaddress.IPv4Network(place.service_cidr))
    for index, each in enumerate(ranges):
        assert not any(each.overlaps(other) for other in ranges[index + 1 :])
    nodes = {place.node_address(n) for n in range(1, 101)}
    assert len(nodes) == 100
    for node in nodes:
        assert not any(ipaddress.IPv4Address(node) in each for each in ranges)
    assert Place.from_json(json.loads(json.dumps(place.to_json()))) == place
    moved = place.moved(7, 20_196).moved(9, 20_252)
    assert (moved.service_cidr, moved.first_port) == (place.service_cidr, 20_252)


def test_places_of_two_slots_share_no_loopback_range() -> None:
    first, second, _ = PLACES
    for mine in (first.service_cidr, first.cluster_cidr):
        for other in (second.service_cidr, second.cluster_cidr):
            assert not ipaddress.IPv4Network(mine).overlaps(ipaddress.IPv4Network(other))


@pytest.mark.parametrize(
    ("text", "seconds"),
    [("20", 20), ("20s", 20), ("1.5m", 90), ("2h", 7200), ("250ms", 0.25), ("0", 0),
     ("inf", float("inf"))],
)  # fmt: skip
def test_times_as_people_write_them(text: str, seconds: float) -> None:
    assert parse_seconds(text) == seconds


@pytest.mark.parametrize("text", ["", "x", "-1s", "1d", "1 s", "1e3", "nan", "s"])
def test_what_is_no_time_is_refused_with_an_example(text: str) -> None:
    with pytest.raises(ValueError, match="20s, 2m, or inf"):
        parse_seconds(text)


@pytest.mark.parametrize("timings", [DEFAULT, FAST])
def test_timings_fit_together(timings: Timings) -> None:
    lease, renew, retry = timings.election
    assert retry < renew < lease
    assert timings.node_lease_renew < timings.node_lease <= timings.node_grace
    assert timings.bookmark < timings.watch_silence
    assert timings_of(timings is FAST) is timings
