"""Rules as text: kube-proxy's names, and only what changed."""

from __future__ import annotations

from typing import Any

from hypothesis import given, settings
from hypothesis import strategies as st

from k8slite.proxy import nft_rules
from k8slite.proxy.rules import ChainBuilder, Chains, build_chains, changes
from k8slite.proxy.table import Table, TableBuilder, build_table
from tests.proxy.objects import endpoint, endpoint_slice, service

PODS = "10.244.0.0/16"


def chains_of(services: list[Any], slices: list[Any], node: str = "node-1") -> Chains:
    return build_chains(build_table(services, slices, node), PODS)


def one_chain(chains: Chains, prefix: str) -> tuple[str, ...]:
    (found,) = [rules for (_, name), rules in chains.items() if name.startswith(prefix)]
    return found


def test_chain_names_are_kube_proxys() -> None:
    """From kube-proxy's own unit tests: ns1/svc1:p80 over TCP."""
    web = service("svc1", ports=[{"name": "p80", "port": 80, "protocol": "TCP"}])
    web["metadata"]["namespace"] = "ns1"
    slices = endpoint_slice(endpoint("10.180.0.1"), name="svc1", port=80, port_name="p80")
    slices["metadata"]["namespace"] = "ns1"
    chains = chains_of([web], [slices])
    assert ("nat", "KUBE-SVC-XPGD46QRK7WJZT7O") in chains
    assert ("nat", "KUBE-SEP-SXIVWICOYRO3J4NJ") in chains


def test_cluster_ip() -> None:
    slices = [endpoint_slice(endpoint("10.244.1.2"), endpoint("10.244.2.2"))]
    chains = chains_of([service()], slices)
    svc = one_chain(chains, "KUBE-SVC-")
    assert svc[0] == (
        '-m comment --comment "default/web:http cluster IP" -m tcp -p tcp -d 10.96.0.10/32 '
        "--dport 80 ! -s 10.244.0.0/16 -j KUBE-MARK-MASQ"
    )
    assert "--probability 0.5000000000 -j KUBE-SEP-" in svc[1]
    assert "statistic" not in svc[2]
    assert chains["nat", "KUBE-SERVICES"][-1].endswith("-j KUBE-NODEPORTS")
    assert chains["filter", "KUBE-SERVICES"] == ()


def test_no_endpoints_is_rejected() -> None:
    ports = [{"name": "http", "port": 80, "nodePort": 30080}]
    chains = chains_of([service(type="NodePort", ports=ports)], [])
    assert chains["filter", "KUBE-SERVICES"] == (
        '-m comment --comment "default/web:http has no endpoints" -m tcp -p tcp '
        "-d 10.96.0.10/32 --dport 80 -j REJECT",
    )
    assert chains["filter", "KUBE-EXTERNAL-SERVICES"] == (
        '-m comment --comment "default/web:http has no endpoints" -m addrtype --dst-type LOCAL '
        "-m tcp -p tcp --dport 30080 -j REJECT",
    )
    assert len(chains["nat", "KUBE-SERVICES"]) == 1
    assert chains["nat", "KUBE-NODEPORTS"] == ()


def test_external_policy_local() -> None:
    ports = [{"name": "http", "port": 80, "nodePort": 30080}]
    local = service(type="NodePort", ports=ports, externalTrafficPolicy="Local")
    slices = [endpoint_slice(endpoint("10.244.1.2"), endpoint("10.244.2.2", "node-2"))]
    here = chains_of([local], slices)
    assert "KUBE-SVL-" in one_chain(here, "KUBE-EXT-")[-1]
    assert len(one_chain(here, "KUBE-SVL-")) == 1
    assert here["filter", "KUBE-EXTERNAL-SERVICES"] == ()
    elsewhere = chains_of([local], slices, "node-3")
    assert "KUBE-SVL-" not in "".join(one_chain(elsewhere, "KUBE-EXT-"))
    assert "-j DROP" in elsewhere["filter", "KUBE-EXTERNAL-SERVICES"][0]


def test_affinity_uses_recent() -> None:
    slices = [endpoint_slice(endpoint("10.244.1.2"), endpoint("10.244.2.2"))]
    chains = chains_of([service(sessionAffinity="ClientIP")], slices)
    assert sum("--rcheck --seconds 10800 --reap" in r for r in one_chain(chains, "KUBE-SVC-")) == 2


def test_only_changed_chains_are_written() -> None:
    services = [service(f"s{i}", f"10.96.1.{i}") for i in range(100)]
    slices = [endpoint_slice(endpoint(f"10.244.1.{i}"), name=f"s{i}") for i in range(100)]
    before = chains_of(services, slices)
    assert changes(before, before) == ""
    slices[7] = endpoint_slice(endpoint("10.244.2.2"), name="s7")
    text = changes(before, chains_of(services, slices))
    lines = text.splitlines()
    assert lines[0] == "*nat"
    assert [line.split("-")[1] for line in lines if line.startswith(":")] == ["SVC", "SEP", "SEP"]
    assert len(lines) == 10
    assert lines[-2].startswith("-X KUBE-SEP-")


slices_of = st.lists(
    st.tuples(st.sampled_from("abc"), st.sampled_from(["10.244.1.2", "10.244.2.2"]), st.booleans()),
    max_size=6,
)
services_of = st.lists(
    st.tuples(
        st.sampled_from("abc"),
        st.booleans(),
        st.sampled_from(["Cluster", "Local"]),
        st.sampled_from(["Cluster", "Local"]),
        st.sampled_from(["None", "ClientIP"]),
    ),
    max_size=3,
    unique_by=lambda each: each[0],
)


def world(services: Any, slices: Any) -> tuple[list[Any], list[Any]]:
    made = []
    for number, (name, node_port, internal, external, affinity) in enumerate(services):
        port = {"name": "http", "port": 80}
        if node_port:
            port["nodePort"] = 30000 + number
        made.append(
            service(
                name,
                f"10.96.0.{10 + number}",
                [port],
                internalTrafficPolicy=internal,
                externalTrafficPolicy=external,
                sessionAffinity=affinity,
            )
        )
    ends = [
        endpoint_slice(
            endpoint(ip, "node-1" if ip == "10.244.1.2" else "node-2", ready=ready),
            name=name,
            suffix=str(number),
        )
        for number, (name, ip, ready) in enumerate(slices)
    ]
    return made, ends


def keep(old: list[Any], new: list[Any]) -> list[Any]:
    """Objects that did not change stay the same objects, as in an informer."""
    return [next((before for before in old if before == each), each) for each in new]


def carry_out(state: dict[tuple[str, str], list[str]], text: str) -> None:
    """What iptables-restore --noflush does, and what it refuses."""
    table = ""
    for line in text.splitlines():
        if line.startswith("*"):
            table = line[1:]
        elif line.startswith(":"):
            state[table, line[1:].split()[0]] = []
        elif line.startswith("-A "):
            _, chain, rule = line.split(" ", 2)
            state[table, chain].append(rule)
        elif line.startswith("-X "):
            name = line[3:]
            assert state.pop((table, name)) == []
        elif line == "COMMIT":
            for (where, _), rules in state.items():
                for rule in rules:
                    target = f" {rule}".split(" -j ")[1].split()[0]
                    if target.startswith("KUBE-"):
                        assert (where, target) in state, "a jump to a chain that is not there"


@settings(max_examples=200)
@given(st.lists(st.tuples(services_of, slices_of), min_size=1, max_size=4))
def test_changes_lead_from_any_world_to_any_other(worlds: list[Any]) -> None:
    """Applied one after the other they give what a fresh start gives, and no jump ever dangles."""
    state: dict[tuple[str, str], list[str]] = {}
    written: Chains = {}
    builder, tables = ChainBuilder(PODS), TableBuilder("node-1")
    made: list[Any] = []
    ends: list[Any] = []
    for services, slices in worlds:
        new_made, new_ends = world(services, slices)
        made = keep(made, new_made)
        ends = keep(ends, new_ends)
        table: Table = tables.build(made, ends)
        assert table == build_table(made, ends, "node-1")
        wanted = builder.build(table)
        assert wanted == build_chains(table, PODS)
        carry_out(state, changes(written, wanted))
        written = wanted
        assert {key: tuple(rules) for key, rules in state.items()} == wanted


def test_nftables_writes_only_what_changed() -> None:
    services = [service(f"s{i}", f"10.96.1.{i}") for i in range(100)]
    slices = [endpoint_slice(endpoint(f"10.244.1.{i}"), name=f"s{i}") for i in range(100)]
    builder, tables = nft_rules.RulesetBuilder(PODS), TableBuilder("node-1")
    before = builder.build(tables.build(services, slices))
    assert nft_rules.changes(before, before) == ""
    assert nft_rules.changes(None, before).startswith(nft_rules.STATIC)
    slices[7] = endpoint_slice(endpoint("10.244.2.2"), name="s7")
    table = tables.build(services, slices)
    after = builder.build(table)
    assert after == nft_rules.build_ruleset(table, PODS)
    verbs = [" ".join(line.split()[:2]) for line in nft_rules.changes(before, after).splitlines()]
    assert verbs == [
        "add chain",
        "add chain",
        "flush chain",
        "flush chain",
        *["add rule"] * 4,
        "delete chain",
    ]
    lost = nft_rules.changes(after, builder.build(tables.build(services, slices[:-1])))
    assert "delete element ip k8slite-proxy service-ips { 10.96.1.99 . tcp . 80 }" in lost
    assert "no-endpoint-services { 10.96.1.99 . tcp . 80 : goto reject-chain }" in lost
