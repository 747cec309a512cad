"""The small pure modules: back-off, probes, expansion, DNS, resources, statuses, bundles."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from k8slite.api.meta import Obj
from k8slite.kubelet.containers.backoff import Backoff
from k8slite.kubelet.containers.dns import hostname_of, hosts_file, resolv_conf
from k8slite.kubelet.containers.expansion import expand
from k8slite.kubelet.containers.fields import NodeFacts
from k8slite.kubelet.containers.resources import resources_of, security_of
from k8slite.kubelet.network import LoopbackNetwork
from k8slite.kubelet.probes.machine import ProbeKind, ProbeSpec, ProbeState, is_over, observe
from k8slite.kubelet.runtime.bundle import Identity, capabilities_of, make_bundle
from k8slite.kubelet.runtime.interface import (
    ConfigFailure,
    ContainerConfig,
    Mount,
    NetworkFailure,
    Security,
)
from k8slite.kubelet.runtime.users import identity_of
from k8slite.kubelet.status import status_patch
from tests.kubelet.world import container, pod

NODE = NodeFacts("node-1", "10.0.0.9", {"cpu": "4", "memory": "8Gi"})


def test_back_off_doubles_to_its_limit_and_forgets() -> None:
    backoff = Backoff()
    now, waits = 0.0, []
    for _ in range(8):
        until = backoff.wait_until("k", now)
        waits.append(until - now)
        backoff.tried("k", now, until)
        now = until + 1
    assert waits == [0, 10, 20, 40, 80, 160, 300, 300]
    assert backoff.wait_until("k", now + 601) == now + 601
    backoff.tried("k", now + 601, now + 601)
    assert backoff.delay("k") == 10


def spec(kind: ProbeKind = ProbeKind.READINESS, **fields: Any) -> ProbeSpec:
    return ProbeSpec.of(kind, fields)


def test_probe_defaults_are_kubernetes() -> None:
    made = spec(initialDelaySeconds=0)
    assert (made.period, made.timeout, made.initial_delay) == (10, 1, 0)
    assert (made.success_threshold, made.failure_threshold) == (1, 3)


@pytest.mark.parametrize(
    ("outcomes", "verdicts"),
    [
        ("s", "s"),
        ("f", "f"),
        ("sfff", "sssf"),
        ("sffsff", "ssssss"),
        ("sfffs", "sssfs"),
    ],
)
def test_readiness_by_thresholds(outcomes: str, verdicts: str) -> None:
    state, seen = ProbeState.initial(ProbeKind.READINESS), ""
    for outcome in outcomes:
        state = observe(spec(), state, outcome == "s")
        seen += "s" if state.verdict else "f"
    assert seen == verdicts


@given(st.lists(st.booleans()), st.integers(1, 4), st.integers(1, 4))
def test_a_verdict_is_the_last_long_enough_run(
    outcomes: list[bool], success: int, failure: int
) -> None:
    made = spec(successThreshold=success, failureThreshold=failure)
    state, expected = ProbeState.initial(ProbeKind.READINESS), False
    for index, outcome in enumerate(outcomes):
        state = observe(made, state, outcome)
        needed = success if outcome else failure
        if index + 1 >= needed and all(
            o == outcome for o in outcomes[index + 1 - needed : index + 1]
        ):
            expected = outcome
        assert state.verdict is expected


def test_startup_decides_once_and_liveness_holds_its_failure() -> None:
    startup = spec(ProbeKind.STARTUP, failureThreshold=2)
    state = ProbeState.initial(ProbeKind.STARTUP)
    assert state.verdict is None
    state = observe(startup, state, False)
    assert not is_over(startup, state)
    assert is_over(startup, observe(startup, state, True))
    assert is_over(startup, observe(startup, state, False))
    live = spec(ProbeKind.LIVENESS, failureThreshold=1)
    assert ProbeState.initial(ProbeKind.LIVENESS).verdict is True
    assert is_over(live, observe(live, ProbeState(True), False))
    assert not is_over(live, observe(live, ProbeState(True), True))


@pytest.mark.parametrize(
    ("text", "result"),
    [
        ("$(A)", "1"),
        ("x$(A)$(B)y", "x12y"),
        ("$(X)", "$(X)"),
        ("$$(A)", "$(A)"),
        ("$$$(A)", "$1"),
        ("$A ${A} $", "$A ${A} $"),
        ("$(A", "$(A"),
        ("$()", "$()"),
        ("$(A$(A)", "$(A$(A)"),
        ("$", "$"),
        ("", ""),
    ],
)
def test_expansion(text: str, result: str) -> None:
    assert expand(text, {"A": "1", "B": "2"}) == result


@given(st.text("$(AB)x", max_size=12))
def test_expansion_without_variables_changes_only_escapes(text: str) -> None:
    assert expand(text, {}).replace("$", "") == text.replace("$", "")


def test_resolv_conf_by_policy() -> None:
    machine = "search lan # ours\nnameserver 192.168.1.1\noptions edns0\n"
    given: dict[str, Any] = {"cluster_dns": ("10.96.0.10",), "cluster_domain": "cluster.local"}
    made = resolv_conf(pod(), machine=machine, **given)
    assert made == (
        "search default.svc.cluster.local svc.cluster.local cluster.local lan\n"
        "nameserver 10.96.0.10\noptions ndots:5\n"
    )
    default = resolv_conf(pod(dnsPolicy="Default"), machine=machine, **given)
    assert default == "search lan\nnameserver 192.168.1.1\noptions edns0\n"
    extra = {
        "nameservers": ["1.1.1.1"],
        "searches": ["x"],
        "options": [{"name": "ndots", "value": "2"}],
    }
    none = resolv_conf(pod(dnsPolicy="None", dnsConfig=extra), machine=machine, **given)
    assert none == "search x\nnameserver 1.1.1.1\noptions ndots:2\n"
    host = resolv_conf(pod(hostNetwork=True), machine=machine, **given)
    assert host == default


def test_hosts_and_hostname() -> None:
    made = pod(hostAliases=[{"ip": "1.2.3.4", "hostnames": ["a", "b"]}])
    text = hosts_file(made, ip="10.1.1.1", hostname="p", domain="sub.default.svc.cluster.local")
    assert "10.1.1.1\tp.sub.default.svc.cluster.local\tp\n" in text
    assert text.endswith("# Entries added by HostAliases.\n1.2.3.4\ta\tb\n")
    assert hostname_of(pod("x" * 70), "n") == "x" * 63
    assert hostname_of(pod(hostname="h"), "n") == "h"
    assert hostname_of(pod(hostNetwork=True), "n") == "n"


@pytest.mark.parametrize(
    ("quality", "resources", "expected"),
    [
        ("BestEffort", {}, (2, 0, 0, 1000)),
        (
            "Guaranteed",
            {"requests": {"cpu": "1", "memory": "1Gi"}, "limits": {"cpu": "1", "memory": "1Gi"}},
            (1024, 100_000, 1 << 30, -997),
        ),
        ("Burstable", {"requests": {"cpu": "100m", "memory": "1Gi"}}, (102, 0, 0, 875)),
        ("Burstable", {"limits": {"cpu": "1m"}}, (2, 1000, 0, 999)),
    ],
)
def test_limits(quality: str, resources: Obj, expected: tuple[int, ...]) -> None:
    made = pod(containers=[container("c", resources=resources)])
    made["status"]["qosClass"] = quality
    found = resources_of(made, made["spec"]["containers"][0], pids_max=7, memory_total=8 << 30)
    assert (
        found.cpu_shares,
        found.cpu_quota_us,
        found.memory_bytes,
        found.oom_score_adj,
    ) == expected
    assert found.pids_max == 7


def test_security_of_the_container_wins() -> None:
    made = pod(
        containers=[
            container("c", securityContext={"runAsUser": 5, "allowPrivilegeEscalation": False})
        ],
        securityContext={"runAsUser": 1, "runAsGroup": 2, "fsGroup": 3, "supplementalGroups": [4]},
    )
    found = security_of(made, made["spec"]["containers"][0])
    assert (found.user, found.group, found.supplemental_groups) == (5, 2, (4, 3))
    assert found.no_new_privileges


def test_capabilities() -> None:
    assert "CAP_SYS_ADMIN" not in capabilities_of(Security())
    assert "CAP_SYS_ADMIN" in capabilities_of(Security(privileged=True))
    dropped = Security(drop_capabilities=("ALL",), add_capabilities=("NET_BIND_SERVICE",))
    assert capabilities_of(dropped) == ["CAP_NET_BIND_SERVICE"]
    assert "CAP_CHOWN" not in capabilities_of(Security(drop_capabilities=("chown",)))


def test_users_come_from_the_image(tmp_path: Path) -> None:
    (tmp_path / "etc").mkdir()
    (tmp_path / "etc/passwd").write_text("root:x:0:0::/:\nweb:x:7:8::/:/bin/sh\n")
    (tmp_path / "etc/group").write_text("root:x:0:\nextra:x:9:web\n")
    layers = (tmp_path,)
    assert identity_of(Security(), "", layers) == Identity(0, 0)
    assert identity_of(Security(), "web", layers) == Identity(7, 8, (9,))
    assert identity_of(Security(), "7", layers) == Identity(7, 8, (9,))
    assert identity_of(Security(), "web:extra", layers) == Identity(7, 9, (9,))
    assert identity_of(Security(), "11:12", layers) == Identity(11, 12)
    assert identity_of(Security(user=5, group=6, supplemental_groups=(3,)), "web", layers) == (
        Identity(5, 6, (3,))
    )
    with pytest.raises(ConfigFailure, match="unable to find user nobody"):
        identity_of(Security(), "nobody", layers)
    with pytest.raises(ConfigFailure, match="image will run as root"):
        identity_of(Security(run_as_non_root=True), "", layers)


def test_a_bundle_joins_the_pods_namespaces() -> None:
    config = ContainerConfig(
        "c", "i", mounts=(Mount("/host", "/in", read_only=True),), security=Security(user=5)
    )
    made = make_bundle(
        config,
        argv=("a", "b"),
        env={"A": "1"},
        cwd="/",
        identity=Identity(5, 6, (7,)),
        namespaces_pid=42,
        host_pid=False,
        cgroup="g/x",
        oom_score_adj_min=0,
    )
    kinds = {n["type"]: n.get("path") for n in made["linux"]["namespaces"]}
    assert kinds["network"] == "/proc/42/ns/net"
    assert kinds["pid"] is None
    assert kinds["mount"] is None
    assert made["mounts"][-1] == {
        "destination": "/in",
        "type": "bind",
        "source": "/host",
        "options": ["rbind", "rprivate", "ro"],
    }
    assert made["process"]["capabilities"]["effective"] == []
    assert made["linux"]["cgroupsPath"] == "/g/x"


async def test_addresses_are_kept_and_not_reused_at_once(tmp_path: Path) -> None:
    network = LoopbackNetwork("127.244.3.0/29", tmp_path)
    first = [await network.attach(f"p{n}", None) for n in range(6)]
    assert first == [f"127.244.3.{n}" for n in range(1, 7)]
    with pytest.raises(NetworkFailure, match="no address left"):
        await network.attach("one more", None)
    assert await network.attach("p2", None) == "127.244.3.3"
    await network.detach("p5", None)
    await network.detach("p1", None)
    await network.detach("p1", None)
    again = LoopbackNetwork("127.244.3.0/29", tmp_path)
    assert await again.attach("p3", None) == "127.244.3.4"
    assert await again.attach("new", None) == "127.244.3.2"


def test_a_status_patch_has_only_what_changed() -> None:
    conditions = [
        {"type": kind, "status": "True", "lastProbeTime": None, "lastTransitionTime": "t"}
        for kind in ("Ready", "PodScheduled")
    ]
    other = {"type": "mine", "status": "True"}
    old = pod()
    old["status"] = {"phase": "Running", "podIP": "1", "podIPs": [{"ip": "1"}]}
    old["status"]["conditions"] = [*conditions, other]
    same = {"phase": "Running", "podIP": "1", "podIPs": [{"ip": "1"}], "conditions": conditions}
    assert status_patch(old, same) is None
    changed = {**same, "podIP": "2", "podIPs": [{"ip": "2"}]}
    assert status_patch(old, changed) == {
        "metadata": {"uid": old["metadata"]["uid"]},
        "status": {"podIP": "2", "podIPs": [{"ip": "2"}, {"$patch": "replace"}]},
    }
    unready = [{**conditions[0], "status": "False", "reason": "R"}, conditions[1]]
    patch = status_patch(old, {**same, "conditions": unready})
    assert patch is not None
    assert patch["status"] == {"conditions": [unready[0]]}
