"""A node that runs short of something: thresholds, who goes first, what is told, who may come."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import attrs
import pytest
import trio
from hypothesis import given
from hypothesis import strategies as st
from trio.testing import MockClock

from k8slite.api.kinds import PODS
from k8slite.kubelet.config import KubeletTimings
from k8slite.kubelet.eviction.disk import with_disk
from k8slite.kubelet.eviction.manager import EvictionManager
from k8slite.kubelet.eviction.ranking import Using, over_limits, rank, verdict
from k8slite.kubelet.eviction.thresholds import (
    HARD,
    MEMORY,
    NODE_FS,
    NODE_INODES,
    Observation,
    Pressure,
    Threshold,
    met,
    observe,
    reserved,
)
from k8slite.kubelet.node.admission import Rejection, admit
from k8slite.kubelet.node.node import UNDER_PRESSURE, allocatable, node_status, read_machine
from k8slite.kubelet.paths import Paths
from k8slite.kubelet.runtime.interface import DiskUsage
from k8slite.kubelet.runtime.usage import disk_usage
from k8slite.kubelet.stats.sampler import Sampler
from k8slite.kubelet.stats.summary import FileSystem, MachineState
from tests.kubelet.test_stats import status_of
from tests.kubelet.world import config, container, open_fake_node, pod

MIB = 1024**2
FINE = MachineState(1000 * MIB, 500 * MIB, FileSystem(1000, 500, 100, 50), 1000, 10, 0.0)


def test_what_is_observed_and_met() -> None:
    assert met(HARD, observe(FINE)) == []
    short = attrs.evolve(FINE, memory_available_bytes=99 * MIB)
    assert [each.signal for each in met(HARD, observe(short))] == [MEMORY]
    full = attrs.evolve(short, file_system=FileSystem(1000, 99, 100, 4))
    assert [each.signal for each in met(HARD, observe(full))] == [MEMORY, NODE_FS, NODE_INODES]
    assert observe(MachineState()) == {}
    no_inodes = attrs.evolve(FINE, file_system=FileSystem(1000, 500, 0, 0))
    assert NODE_INODES not in observe(no_inodes)


def test_what_was_met_must_be_cleared_by_more() -> None:
    threshold = Threshold(MEMORY, "100Mi", reclaim="50Mi")
    seen = {MEMORY: Observation(120 * MIB, 1000 * MIB)}
    assert met([threshold], seen) == []
    assert met([threshold], seen, before=[threshold]) == [threshold]


def test_grace_and_transition() -> None:
    soft = Threshold(MEMORY, "10%", grace_seconds=30.0)
    pressure = Pressure(300.0)
    assert pressure.note([soft], 0.0) == []
    assert pressure.conditions(1.0) == {"MemoryPressure"}
    assert pressure.note([], 20.0) == []
    assert pressure.note([soft], 40.0) == [], "its grace begins anew"
    assert pressure.note([soft], 70.0) == [soft]
    pressure.note([], 80.0)
    assert pressure.conditions(369.0) == {"MemoryPressure"}
    assert pressure.conditions(370.0) == set()


def test_what_is_kept_is_not_allocatable() -> None:
    capacity = {"cpu": "4", "memory": "1Gi", "ephemeral-storage": "1000Ki"}
    assert reserved(HARD, capacity) == {"memory": "104857600", "ephemeral-storage": "102400"}
    node = config(capacity=capacity, eviction=HARD)
    machine = read_machine(node, real=False)
    found = allocatable(node, machine)
    assert found["memory"] == "924Mi"
    assert found["ephemeral-storage"] == "900Ki"
    assert found["cpu"] == "4"


def of(name: str, *, priority: int = 0, **requests: str) -> Any:
    one = container("c", resources={"requests": requests})
    return pod(name, uid=name, containers=[one], priority=priority)


def test_who_goes_first() -> None:
    pods = [
        of("within", memory="100Mi"),
        of("important", priority=10),
        of("small"),
        of("large", memory="10Mi"),
        of("system", priority=2_000_000_000),
    ]
    using = {
        "within": Using({"c": 90 * MIB}),
        "important": Using({"c": 500 * MIB}),
        "small": Using({"c": 20 * MIB}),
        "large": Using({"c": 60 * MIB}),
        "system": Using({"c": 900 * MIB}),
    }
    order = [each["metadata"]["name"] for each in rank(pods, using, "memory")]
    assert order == ["large", "small", "important", "within"]
    mirror = of("mirror")
    mirror["metadata"]["annotations"] = {"kubernetes.io/config.mirror": "x"}
    assert rank([mirror], {}, "memory") == []


@given(st.lists(st.tuples(st.integers(0, 3), st.integers(0, 200), st.integers(0, 200)), max_size=6))
def test_nobody_goes_before_who_exceeds_more(rows: list[tuple[int, int, int]]) -> None:
    pods = [of(f"p{n}", priority=p, memory=f"{r}") for n, (p, r, _) in enumerate(rows)]
    using = {f"p{n}": Using({"c": used}) for n, (_, _, used) in enumerate(rows)}
    keys = [
        (rows[n][2] <= rows[n][1], rows[n][0], rows[n][1] - rows[n][2])
        for n in (int(each["metadata"]["name"][1:]) for each in rank(pods, using, "memory"))
    ]
    assert keys == sorted(keys)
    assert len(keys) == len(rows)


def test_the_words() -> None:
    found = verdict(
        of("p", memory="10Mi"),
        Using({"c": 20 * MIB}),
        HARD[0],
        Observation(50 * MIB, 1000 * MIB),
    )
    assert found == (
        "Evicted",
        "The node was low on resource: memory. Threshold quantity: 100Mi, available: 50Mi. "
        "Container c was using 20Mi, request is 10Mi, has larger consumption of memory. ",
    )
    inodes = verdict(of("p"), Using(), HARD[2], Observation(3, 100))
    assert inodes.message == (
        "The node was low on resource: inodes. Threshold quantity: 5, available: 3. "
    )


def test_limits_of_local_storage() -> None:
    limits = {"limits": {"ephemeral-storage": "1Mi"}}
    volume = {"name": "scratch", "emptyDir": {"sizeLimit": "2Mi"}}
    limited = pod(containers=[container("c", resources=limits)], volumes=[volume])
    assert over_limits(limited, Using(disk={"c": MIB})) is None
    for using, part in (
        (Using(volumes={"scratch": 3 * MIB}), 'EmptyDir volume "scratch" exceeds the limit "2Mi"'),
        (Using(disk={"c": 2 * MIB}), "exceeds the total limit of containers 1Mi"),
    ):
        found = over_limits(limited, using)
        assert found is not None
        assert part in found.message
    both = pod(containers=[container("c", resources=limits), container("d")])
    found = over_limits(both, Using(disk={"c": 2 * MIB}))
    assert found is not None
    assert 'Container c exceeded its local ephemeral storage limit "1Mi"' in found.message


def test_the_disk_of_a_pod(tmp_path: Path) -> None:
    made = pod(uid="u", volumes=[{"name": "scratch", "emptyDir": {}}])
    paths = Paths(tmp_path)
    scratch = paths.volumes("u") / "kubernetes.io~empty-dir" / "scratch"
    log = paths.log(made, "c", 0)
    for path, size in ((scratch / "a" / "file", 9000), (log, 5000)):
        path.parent.mkdir(parents=True)
        path.write_bytes(b"x" * size)
    (scratch / "link").symlink_to("/")
    status = attrs.evolve(status_of(made, "c"), id="id")
    found = with_disk(made, Using(), paths, [status], {"id": DiskUsage(1000, 2)})
    assert found.volumes["scratch"] >= 9000
    assert found.disk["c"] >= 6000
    assert found.inodes >= 2 + 2 + 4
    assert found.of("ephemeral-storage") < 200_000, "links are not followed"
    assert disk_usage(tmp_path / "absent") == DiskUsage(0, 0)


def admitted(new: Any, *others: Any, conditions: tuple[str, ...] = ()) -> Rejection | None:
    return admit(
        new, others, allocatable={"cpu": "2", "memory": "1Gi", "pods": "3"}, conditions=conditions
    )


def test_admission_by_resources() -> None:
    assert admitted(of("a", cpu="1500m"), of("b", cpu="500m")) is None
    assert admitted(of("a", cpu="1501m"), of("b", cpu="500m")) == (
        "OutOfcpu",
        "Node didn't have enough resource: cpu, requested: 1501, used: 500, capacity: 2000",
    )
    found = admitted(of("a"), of("b"), of("c"), of("d"))
    assert found is not None
    assert found.reason == "OutOfpods"
    found = admitted(of("a", **{"example.com/gpu": "1"}))
    assert found is not None
    assert found.reason == "OutOfexample.com/gpu"


def test_admission_under_pressure() -> None:
    found = admitted(of("a"), conditions=("MemoryPressure",))
    assert found == ("Evicted", "The node had condition: [MemoryPressure]. ")
    assert admitted(of("a", memory="1Mi"), conditions=("MemoryPressure",)) is None
    assert admitted(of("a", priority=2_000_000_000), conditions=("DiskPressure",)) is None
    assert admitted(of("a", memory="1Mi"), conditions=("DiskPressure",)) is not None
    tolerant = of("a")
    key = "node.kubernetes.io/memory-pressure"
    tolerant["spec"]["tolerations"] = [{"key": key, "operator": "Exists"}]
    assert admitted(tolerant, conditions=("MemoryPressure",)) is None


async def test_a_node_short_of_memory_evicts(autojump_clock: MockClock) -> None:
    """One pod a round, until there is enough; the API and the node tell it."""
    async with open_fake_node(timings=KubeletTimings(eviction=10.0)) as (node, runtime):
        for name, memory in (("large", "300Mi"), ("small", "100Mi")):
            made = pod(name)
            made["metadata"]["annotations"] = {"fake.k8slite.io/memory": memory}
            node.api.add(PODS, made)
        await node.until(lambda: node.status("default/small")["phase"] == "Running")
        told: list[tuple[str, str]] = []
        sampler = Sampler(node.host, runtime, 1.0)
        await sampler.sample()

        async def machine() -> MachineState:
            used = sum(sample.usage.memory_bytes for sample in sampler.containers.values())
            return MachineState(450 * MIB, 450 * MIB - used)

        manager = EvictionManager(
            config=config(eviction=HARD),
            host=node.host,
            runtime=runtime,
            sampler=sampler,
            machine=machine,
            pods=node.kubelet.pods,
            evict=node.kubelet.evict,
            tell=lambda reason, message: told.append((reason, message)),
            paths=Paths(Path("/nowhere")),
        )
        await manager.look()
        await node.until(lambda: node.status("default/large")["phase"] == "Failed")
        status = node.status("default/large")
        assert status["reason"] == "Evicted"
        assert status["message"].startswith("The node was low on resource: memory. ")
        assert node.condition("DisruptionTarget", "default/large") == "True"
        assert told == [("EvictionThresholdMet", "Attempting to reclaim memory")]
        await sampler.sample()
        await manager.look()
        assert node.status("default/small")["phase"] == "Running"
        assert len(told) == 1
        assert manager.conditions() == {"MemoryPressure"}
        await trio.sleep(400)
        assert manager.conditions() == set()


async def test_a_pod_that_does_not_fit_fails(autojump_clock: MockClock) -> None:
    async with open_fake_node(capacity={"cpu": "1"}) as (node, _):
        node.api.add(PODS, of("fits", cpu="1"))
        node.api.add(PODS, of("not", cpu="100m"))
        await node.until(lambda: node.status("default/not").get("phase") == "Failed")
        status = node.status("default/not")
        assert status["reason"] == "OutOfcpu"
        assert status["message"].startswith("Pod was rejected: Node didn't have enough resource")
        await node.until(lambda: node.status("default/fits")["phase"] == "Running")


@pytest.mark.parametrize("kind", sorted(UNDER_PRESSURE))
def test_the_node_tells(kind: str) -> None:
    machine = read_machine(config(), real=False)
    status = node_status(
        config(), machine, old={}, port=1, runtime="x", images=(), now=1.0, pressures={kind}
    )
    [found] = [c for c in status["conditions"] if c["type"] == kind]
    assert (found["status"], found["reason"]) == ("True", UNDER_PRESSURE[kind][0])
