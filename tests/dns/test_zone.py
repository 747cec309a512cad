"""What a cluster's names lead to."""

from __future__ import annotations

import pytest
from hypothesis import given
from hypothesis import strategies as st

from k8slite.dns.zone import Answer, Zone
from tests.dns.objects import endpoint, external, headless, service, slice_of

SVC = "svc.cluster.local"


def data(zone: Zone, name: str, type_: str = "A") -> list[str] | str | None:
    """The contents; NXDOMAIN, or None for what is not ours."""
    answer = zone.lookup(name, type_)
    if answer is None:
        return None
    return [record.data for record in answer.records] if answer.exists else "NXDOMAIN"


@pytest.fixture
def zone() -> Zone:
    zone = Zone("cluster.local", "10.96.0.10")
    zone.namespace_changed(None, {"metadata": {"name": "empty"}})
    for one in (
        service(),
        service("both", "10.96.0.51", clusterIPs=["10.96.0.51", "fd00::51"]),
        headless(),
        headless("nobody"),
        external("far", "www.example.org"),
        external("near", f"web.default.{SVC}"),
        external("loop", f"pool.default.{SVC}"),
        external("pool", f"loop.default.{SVC}"),
        external("odd", "not..a name"),
    ):
        zone.service_changed(None, one)
    ends = (
        endpoint("10.244.1.2", "db-0"),
        endpoint("10.244.2.2"),
        endpoint("10.244.2.3", "db-2", False),
    )
    zone.slice_changed(None, slice_of("db", *ends))
    zone.slice_changed(None, slice_of("db", endpoint("fd00::7", "db-0"), suffix="2"))
    return zone


@pytest.mark.parametrize(
    ("name", "type_", "expected"),
    [
        (f"web.default.{SVC}", "A", ["10.96.0.50"]),
        (f"web.default.{SVC}", "AAAA", []),
        (f"both.default.{SVC}", "AAAA", ["fd00::51"]),
        (f"_http._tcp.web.default.{SVC}", "SRV", [f"0 100 80 web.default.{SVC}."]),
        (f"_http._tcp.web.default.{SVC}", "A", []),
        (f"_tcp.web.default.{SVC}", "A", []),
        (f"_http._udp.web.default.{SVC}", "SRV", "NXDOMAIN"),
        (f"x.web.default.{SVC}", "A", "NXDOMAIN"),
        (f"web.other.{SVC}", "A", "NXDOMAIN"),
        (f"web.empty.{SVC}", "A", "NXDOMAIN"),
        (f"empty.{SVC}", "A", []),
        (f"default.{SVC}", "A", []),
        (f"other.{SVC}", "A", "NXDOMAIN"),
        (SVC, "A", []),
        ("cluster.local", "A", []),
        ("cluster.local", "NS", ["ns.dns.cluster.local."]),
        ("ns.dns.cluster.local", "A", ["10.96.0.10"]),
        ("dns-version.cluster.local", "TXT", ['"1.1.0"']),
        ("nothing.cluster.local", "A", "NXDOMAIN"),
        (f"db.default.{SVC}", "A", ["10.244.1.2", "10.244.2.2"]),
        (f"db.default.{SVC}", "AAAA", ["fd00::7"]),
        (f"db-0.db.default.{SVC}", "A", ["10.244.1.2"]),
        (f"db-2.db.default.{SVC}", "A", "NXDOMAIN"),
        (f"10-244-2-2.db.default.{SVC}", "A", ["10.244.2.2"]),
        (
            f"_http._tcp.db.default.{SVC}",
            "SRV",
            [
                f"0 33 8080 db-0.db.default.{SVC}.",
                f"0 33 8080 10-244-2-2.db.default.{SVC}.",
            ],
        ),
        (f"nobody.default.{SVC}", "A", []),
        ("10-1-2-3.default.pod.cluster.local", "A", ["10.1.2.3"]),
        ("fd00--1.default.pod.cluster.local", "AAAA", ["fd00::1"]),
        ("10-1-2-3.default.pod.cluster.local", "AAAA", []),
        ("10-1-2-3.other.pod.cluster.local", "A", "NXDOMAIN"),
        ("10-1-2.default.pod.cluster.local", "A", "NXDOMAIN"),
        ("a.10-1-2-3.default.pod.cluster.local", "A", "NXDOMAIN"),
        ("default.pod.cluster.local", "A", []),
        ("pod.cluster.local", "A", []),
        ("50.0.96.10.in-addr.arpa", "PTR", [f"web.default.{SVC}."]),
        ("2.1.244.10.in-addr.arpa", "PTR", [f"db-0.db.default.{SVC}."]),
        ("50.0.96.10.in-addr.arpa", "A", []),
        ("51.0.96.10.in-addr.arpa", "PTR", [f"both.default.{SVC}."]),
        ("9.9.96.10.in-addr.arpa", "PTR", None),
        ("96.10.in-addr.arpa", "PTR", None),
        ("example.org", "A", None),
        ("notcluster.local", "A", None),
        (f"near.default.{SVC}", "A", [f"web.default.{SVC}.", "10.96.0.50"]),
        (f"far.default.{SVC}", "CNAME", ["www.example.org."]),
        (f"odd.default.{SVC}", "A", []),
    ],
)  # fmt: skip
def test_names(zone: Zone, name: str, type_: str, expected: list[str] | str | None) -> None:
    assert data(zone, name, type_) == expected


def test_ipv6_reverse(zone: Zone) -> None:
    name = ".".join(reversed("fd000000000000000000000000000051")) + ".ip6.arpa"
    assert data(zone, name, "PTR") == [f"both.default.{SVC}."]


def test_an_external_name_is_to_be_asked_outside(zone: Zone) -> None:
    answer = zone.lookup(f"far.default.{SVC}", "A")
    assert answer is not None
    assert answer.outside == "www.example.org"
    assert [record.type for record in answer.records] == ["CNAME"]


def test_names_that_lead_to_each_other_end(zone: Zone) -> None:
    answer = zone.lookup(f"loop.default.{SVC}", "A")
    assert answer is not None
    assert {record.type for record in answer.records} == {"CNAME"}


def test_addresses_come_along_with_a_named_port(zone: Zone) -> None:
    answer = zone.lookup(f"_http._tcp.db.default.{SVC}", "SRV")
    assert answer is not None
    found = [(record.name.split(".")[0], record.data) for record in answer.additional]
    assert found == [("db-0", "10.244.1.2"), ("db-0", "fd00::7"), ("10-244-2-2", "10.244.2.2")]


def test_changes_are_followed(zone: Zone) -> None:
    old = slice_of("db", endpoint("10.244.1.2", "db-0"))
    new = slice_of("db", endpoint("10.244.9.9", "db-0"))
    zone.slice_changed(old, new)
    assert data(zone, f"db-0.db.default.{SVC}") == ["10.244.9.9"]
    assert data(zone, "2.1.244.10.in-addr.arpa", "PTR") is None
    zone.slice_changed(new, None)
    assert data(zone, f"db.default.{SVC}") == []
    zone.service_changed(service(), service(ip="10.96.0.99"))
    assert data(zone, f"web.default.{SVC}") == ["10.96.0.99"]
    zone.service_changed(service(), None)
    assert data(zone, f"web.default.{SVC}") == "NXDOMAIN"
    assert data(zone, "99.0.96.10.in-addr.arpa", "PTR") is None
    zone.namespace_changed({"metadata": {"name": "empty"}}, None)
    assert data(zone, f"empty.{SVC}") == "NXDOMAIN"


KEYS = [f"{name}.default.{SVC}" for name in "abc"]


@given(
    st.lists(
        st.tuples(
            st.sampled_from("abc"),
            st.sampled_from(["10.96.0.1", "10.96.0.2", "None", ""]),
            st.lists(st.sampled_from(["10.244.0.1", "10.244.0.2"]), max_size=2),
        ),
        max_size=12,
    )
)
def test_any_history_gives_what_a_fresh_zone_gives(steps: list[tuple[str, str, list[str]]]) -> None:
    """Names that are kept step by step are those made at once from what there is in the end."""
    zone = Zone("cluster.local", "10.96.0.10")
    services: dict[str, dict[str, object]] = {}
    slices: dict[str, dict[str, object]] = {}
    for name, ip, ends in steps:
        new = service(name, ip) if ip else None
        if new or name in services:
            zone.service_changed(services.get(name), new)
        services.pop(name, None)
        if new:
            services[name] = new
        ends_slice = slice_of(name, *map(endpoint, ends)) if ends else None
        zone.slice_changed(slices.get(name), ends_slice)
        slices.pop(name, None)
        if ends_slice:
            slices[name] = ends_slice
        zone.lookup("1.0.96.10.in-addr.arpa", "PTR")
    fresh = Zone("cluster.local", "10.96.0.10")
    for one in services.values():
        fresh.service_changed(None, one)
    for each in slices.values():
        fresh.slice_changed(None, each)
    reverse = [f"{n}.0.{r}.10.in-addr.arpa" for n in (1, 2) for r in (96, 244)]
    for question in [*KEYS, *reverse, f"default.{SVC}"]:
        for type_ in ("A", "PTR"):
            one_answer: Answer | None = zone.lookup(question, type_)
            assert one_answer == fresh.lookup(question, type_), question
