"""Names and addresses follow from the cluster's name alone."""

from __future__ import annotations

import ipaddress
import json
import subprocess
import sys

import pytest
from hypothesis import given
from hypothesis import strategies as st

from k8slite.network.addresses import (
    AddressPool,
    choose_subnet,
    hardware_address,
    host_interface,
    namespace_name,
    pod_interface,
)

clusters = st.from_regex(r"[a-z0-9]([-a-z0-9]{0,61}[a-z0-9])?", fullmatch=True)


@given(clusters, clusters)
def test_names_are_short_enough_and_clusters_stay_apart(one: str, two: str) -> None:
    assert len(host_interface(one)) <= 15
    assert len(pod_interface(one)) <= 15
    if one != two:
        assert not namespace_name(one, "switch").startswith(namespace_name(two, ""))


@pytest.mark.parametrize("name", ["", "a.b", "-a", "A", "a/b", "x" * 64])
def test_names_that_are_none(name: str) -> None:
    with pytest.raises(ValueError, match="is not a cluster name"):
        host_interface(name)


def test_short_names_stay_readable() -> None:
    assert host_interface("demo") == "k8s-demo"
    assert host_interface("a-quite-long-name").startswith("k8s-a-qu")


def test_subnet_is_the_same_each_time_and_avoids_others() -> None:
    first = choose_subnet("demo", [])
    assert choose_subnet("demo", []) == first
    second = choose_subnet("demo", [first])
    assert not second.overlaps(first)
    with pytest.raises(ValueError, match="no free network"):
        choose_subnet("demo", [ipaddress.IPv4Network("10.0.0.0/8")])


def test_hardware_address() -> None:
    assert hardware_address("10.244.1.1") == "0a:58:0a:f4:01:01"


@given(st.lists(st.tuples(st.booleans(), st.integers(0, 8)), max_size=60))
def test_no_two_pods_share_an_address(steps: list[tuple[bool, int]]) -> None:
    pool = AddressPool("10.244.1.0/28")
    held: dict[str, str] = {}
    for take, number in steps:
        pod = f"pod-{number}"
        if take:
            address = pool.take(pod)
            assert held.get(pod, address) == address
            assert address not in [a for p, a in held.items() if p != pod]
            assert address not in ("10.244.1.0", "10.244.1.1", "10.244.1.15")
            held[pod] = address
        else:
            assert pool.give_back(pod) == (pod in held)
            held.pop(pod, None)
    again = AddressPool("10.244.1.0/28")
    again.load_json(json.loads(json.dumps(pool.to_json())))
    assert again.to_json() == pool.to_json()


def test_address_rests_before_it_comes_again_and_the_range_has_an_end() -> None:
    pool = AddressPool("10.244.1.0/29")
    first = pool.take("a")
    assert first == "10.244.1.2"
    pool.give_back("a")
    assert [pool.take(str(i)) for i in range(5)] == [
        "10.244.1.3",
        "10.244.1.4",
        "10.244.1.5",
        "10.244.1.6",
        "10.244.1.2",
    ]
    with pytest.raises(ValueError, match="no address is left"):
        pool.take("one too many")


def test_stored_addresses_of_another_range_are_ignored() -> None:
    pool = AddressPool("10.244.2.0/24")
    other = AddressPool("10.244.1.0/24")
    other.take("a")
    pool.load_json(other.to_json())
    assert len(pool) == 0


def test_addresses_need_no_netlink() -> None:
    """A rootless cluster knows its addresses without paying for pyroute2's import."""
    code = (
        "import sys, k8slite.network.addresses, k8slite.network.namespaces;"
        "sys.exit('pyroute2' in sys.modules)"
    )
    subprocess.run([sys.executable, "-c", code], check=True)
