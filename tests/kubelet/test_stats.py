"""What containers use, as it is read, sampled and told."""

from __future__ import annotations

import subprocess
import sys
from pathlib import Path
from typing import Any

import attrs
import orjson
import pytest
import trio
from trio.testing import MockClock

from k8slite.api.kinds import PODS
from k8slite.kubelet.runtime.fake import open_fake_runtime
from k8slite.kubelet.runtime.interface import ContainerState, ContainerStatus, Usage
from k8slite.kubelet.runtime.usage import ProcessTable, of_group, of_process
from k8slite.kubelet.serving.http_server import Request
from k8slite.kubelet.stats.exposition import cadvisor_text, resource_text
from k8slite.kubelet.stats.machine import read_machine_state
from k8slite.kubelet.stats.sample import Sample
from k8slite.kubelet.stats.sampler import Sampler
from k8slite.kubelet.stats.server import Stats
from k8slite.kubelet.stats.summary import (
    FileSystem,
    MachineState,
    make_summary,
    running_containers,
)
from tests.client.world import MemoryHost
from tests.kubelet.world import container, open_fake_node, pod

GROUP = "k8slite-1/pod-u/c1"


def write(path: Path, text: str) -> None:
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_text(text)


def test_groups_of_version_2(tmp_path: Path) -> None:
    write(tmp_path / "cgroup.controllers", "cpu memory pids")
    group = tmp_path / GROUP
    write(group / "cpu.stat", "usage_usec 1500\nuser_usec 1000\n")
    write(group / "memory.stat", "anon 700\ninactive_file 300\npgfault 5\npgmajfault 1\nfile 300\n")
    write(group / "memory.current", "1000\n")
    write(group / "pids.current", "3\n")
    assert of_group(GROUP, tmp_path) == Usage(1_500_000, 1000, 700, 700, 5, 1, 3)
    (group / "pids.current").unlink()
    assert of_group(GROUP, tmp_path) is None, "it is going"


def test_groups_of_version_1(tmp_path: Path) -> None:
    write(tmp_path / "cpuacct" / GROUP / "cpuacct.usage", "77\n")
    write(tmp_path / "memory" / GROUP / "memory.usage_in_bytes", "1000\n")
    stat = "rss 1\ntotal_rss 600\ntotal_inactive_file 1200\ntotal_pgfault 5\ntotal_pgmajfault 0\n"
    write(tmp_path / "memory" / GROUP / "memory.stat", stat)
    write(tmp_path / "pids" / GROUP / "pids.current", "2\n")
    assert of_group(GROUP, tmp_path) == Usage(77, 1000, 0, 600, 5, 0, 2)
    assert of_group("absent", tmp_path) is None


CHILD = """
import os, subprocess, sys
subprocess.run([sys.executable, "-c", "sum(range(3_000_000))"])
blob = bytearray(30_000_000)
print("ready", flush=True)
sys.stdin.read()
"""


def test_processes_and_what_they_have_waited_for() -> None:
    own = of_process()
    assert own is not None
    assert own.rss_bytes > 1_000_000
    shim = subprocess.Popen(
        ["sh", "-c", f"{sys.executable} -c '{CHILD}'; true"],
        stdin=subprocess.PIPE,
        stdout=subprocess.PIPE,
    )
    with shim:
        assert shim.stdout is not None
        assert shim.stdout.readline() == b"ready\n"
        used = ProcessTable.read().below(shim.pid)
        assert used is not None
        assert used.processes == 1, "the shell itself is not counted"
        assert used.memory_bytes > 30_000_000
        assert used.cpu_ns >= 10_000_000, "its child's time counts as well"
        assert shim.stdin is not None
        shim.stdin.close()
    assert ProcessTable.read().below(shim.pid) is None


def test_a_rate_needs_two_looks() -> None:
    first = Sample(100.0, Usage(1_000, 5, 5))
    assert first.next(Usage(501_000, 6, 6), 110.0) == Sample(
        110.0, Usage(501_000, 6, 6), 50_000, 10.0
    )
    assert first.next(Usage(999, 6, 6), 110.0) == Sample(110.0, Usage(999, 6, 6))
    assert first.next(Usage(2_000, 6, 6), 100.0).nano_cores is None


def status_of(pod: Any, name: str, **fields: Any) -> ContainerStatus:
    return ContainerStatus(
        id=f"id-{name}",
        sandbox_id="s",
        pod_uid=pod["metadata"]["uid"],
        name=name,
        attempt=0,
        state=ContainerState.RUNNING,
        image="busybox",
        image_id="sha256:1",
        created_at=90.0,
        started_at=90.0,
        **fields,
    )


def test_the_summary() -> None:
    one = pod("one", uid="u1")
    ended = attrs.evolve(status_of(one, "old"), state=ContainerState.EXITED)
    statuses = [status_of(one, "a"), status_of(one, "b"), status_of(one, "new"), ended]
    samples = {
        "id-a": Sample(100.0, Usage(10, 20, 15, processes=1), 1_000, 10.0),
        "id-b": Sample(100.0, Usage(5, 7, 6, processes=2), 500, 10.0),
    }
    node = Sample(100.0, Usage(99, 50, 40), 2_000, 10.0)
    machine = MachineState(1000, 600, FileSystem(100, 40, 10, 3), 4096, 70, 1.0)
    running = running_containers([one, pod("idle")], statuses)
    told = make_summary("node-1", machine, node, running, samples)
    assert told["node"]["nodeName"] == "node-1"
    assert told["node"]["memory"]["availableBytes"] == 600
    assert told["node"]["fs"]["usedBytes"] == 60
    assert told["node"]["fs"]["inodesUsed"] == 7
    assert told["node"]["rlimit"]["curproc"] == 70
    [shown] = told["pods"]
    assert shown["podRef"] == {"name": "one", "namespace": "default", "uid": "u1"}
    assert [c["name"] for c in shown["containers"]] == ["a", "b"], "of the new one nothing is known"
    assert shown["cpu"]["usageNanoCores"] == 1_500
    assert shown["cpu"]["usageCoreNanoSeconds"] == 15
    assert shown["memory"]["workingSetBytes"] == 21
    assert shown["process_stats"] == {"process_count": 3}
    less = make_summary("node-1", machine, None, running, {}, only_cpu_and_memory=True)
    assert "fs" not in less["node"]
    assert "cpu" not in less["pods"][0]


def test_the_text_formats() -> None:
    odd = pod('o"d', uid="u1")
    running = running_containers([odd], [status_of(odd, "a"), status_of(odd, "b")])
    samples = {
        "id-a": Sample(100.5, Usage(1_500_000_000, 20, 15)),
        "id-b": Sample(100.5, Usage(500_000_000, 7, 6)),
    }
    text = resource_text(Sample(100.5, Usage(2, 50, 40)), running, samples)
    who = 'namespace="default",pod="o\\"d"'
    for line in (
        "# TYPE container_cpu_usage_seconds_total counter",
        f'container_cpu_usage_seconds_total{{container="a",{who}}} 1.5 100500',
        f"pod_cpu_usage_seconds_total{{{who}}} 2.0 100500",
        f"pod_memory_working_set_bytes{{{who}}} 21 100500",
        "node_memory_working_set_bytes 40 100500",
        "resource_scrape_error 0",
    ):
        assert line in text.splitlines()
    assert 'container_memory_usage_bytes{container="b",id="/id-b"' in cadvisor_text(
        running, samples
    )
    assert resource_text(None, [], {}).splitlines()[-1] == "resource_scrape_error 0"


async def test_the_node_never_uses_less_time(autojump_clock: MockClock) -> None:
    """Of a fake node, whose pods use what their annotations say."""
    async with open_fake_node() as (node, runtime):
        busy = pod("busy", containers=[container("a"), container("b")])
        busy["metadata"]["annotations"] = {"fake.k8slite.io/cpu": "250m"}
        node.api.add(PODS, busy)
        await node.until(lambda: node.status("default/busy")["phase"] == "Running")
        sampler = Sampler(node.host, runtime, 10.0)
        async with trio.open_nursery() as nursery:
            nursery.start_soon(sampler.run)
            await trio.sleep(25)
            rates = [sample.nano_cores for sample in sampler.containers.values()]
            assert rates == [pytest.approx(250_000_000, abs=10)] * 2
            assert sampler.node is not None
            assert sampler.node.nano_cores == pytest.approx(500_000_000, abs=10)
            before = sampler.node.usage.cpu_ns
            node.api.end("default/busy", 1)
            await trio.sleep(30)
            assert sampler.containers == {}
            assert sampler.node.usage.cpu_ns >= before
            nursery.cancel_scope.cancel()


async def test_what_the_server_answers(tmp_path: Path) -> None:
    host = MemoryHost()
    async with open_fake_runtime(host) as runtime:
        from tests.kubelet.world import config

        stats = Stats(config(), host, runtime, list, Sampler(host, runtime, 1.0))
        for path in ("/stats/summary", "/metrics/resource", "/metrics/cadvisor"):
            answer = await stats.answer(Request("GET", path, {}, None))
            assert answer is not None
            assert answer.status == 200
        summary = await stats.answer(Request("GET", "/stats/summary", {}, None))
        assert summary is not None
        assert isinstance(summary.body, bytes)
        assert orjson.loads(summary.body)["node"]["nodeName"] == "node-1"
        assert await stats.answer(Request("GET", "/stats/other", {}, None)) is None
    machine = read_machine_state(str(tmp_path), 5.0)
    assert machine.memory_bytes > machine.memory_available_bytes > 0
    assert machine.file_system is not None
    assert machine.file_system.capacity_bytes > 0
    assert machine.pids_max > machine.pids > 0
