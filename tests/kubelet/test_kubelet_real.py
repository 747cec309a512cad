"""A kubelet with real containers, against the API in memory: what only real ones can show."""

from __future__ import annotations

import json
import os
import signal
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from pathlib import Path
from typing import Any

import pytest
import trio
import yaml

from k8slite.api.kinds import CONFIG_MAPS, PODS, SECRETS
from k8slite.api.meta import Obj
from k8slite.kubelet.cleanup import cleanup, leftovers
from k8slite.kubelet.config import KubeletTimings
from k8slite.kubelet.images.store import ImageStore
from k8slite.kubelet.network import LoopbackNetwork
from k8slite.kubelet.runtime.oci import open_oci_runtime
from k8slite.kubelet.runtime.process import open_process_runtime
from k8slite.kubelet.volumes.volume_files import mounts_below
from raftkv.os_host import OsHost
from tests.kubelet.world import KubeletApi, Node, container, open_node, pod

KINDS = [
    "process",
    pytest.param("oci", marks=[pytest.mark.root, pytest.mark.tool("runc")]),
]
BOTH = pytest.mark.parametrize("kind", KINDS)
ROOT = "${K8SLITE_ROOT:-}"  # where mounts are, in either kind
FAST = KubeletTimings(backoff_initial=0.2, backoff_max=1.0, retry=0.1, relist=0.5)


@asynccontextmanager
async def open_real(
    kind: str, root: Path, api: KubeletApi | None = None, **fields: Any
) -> AsyncIterator[Node]:
    images = ImageStore(root / "images")
    opener = open_process_runtime if kind == "process" else open_oci_runtime
    network = LoopbackNetwork("127.244.8.0/24", root / "network")
    async with opener(root, OsHost(), images) as runtime:
        async with open_node(
            runtime,
            api=api,
            host=OsHost(),
            network=network,
            **{"root_dir": str(root), "timings": FAST, **fields},
        ) as node:
            yield node


@pytest.fixture
def root(tmp_path: Path) -> Any:
    yield tmp_path
    cleanup(tmp_path)
    assert leftovers(tmp_path) == []


def log_of(root: Path, name: str = "c", attempt: int = 0, pod_name: str = "p") -> str:
    (path,) = (root / "logs").glob(f"default_{pod_name}_*/{name}/{attempt}.log")
    return "\n".join(line.split(" ", 3)[3] for line in path.read_text().splitlines())


def config_map(name: str, **data: str) -> Obj:
    return {
        "apiVersion": "v1",
        "kind": "ConfigMap",
        "metadata": {"name": name, "namespace": "default"},
        "data": data,
    }


@BOTH
async def test_exit_codes_messages_and_restarts(kind: str, root: Path) -> None:
    async with open_real(kind, root) as node:
        script = f"echo why > {ROOT}/dev/termination-log; echo bye; exit 5"
        node.api.add(PODS, pod(containers=[container("c", "sh", "-c", script)]))
        await node.until(lambda: node.status()["containerStatuses"][0]["restartCount"] >= 2)
        shown = node.status()["containerStatuses"][0]
        last = (shown["lastState"] or shown["state"])["terminated"]
        assert (last["exitCode"], last["message"]) == (5, "why\n")
        assert log_of(root, attempt=1) == "bye"


@BOTH
async def test_environment_and_volumes(kind: str, root: Path) -> None:
    api = KubeletApi()
    api.add(CONFIG_MAPS, config_map("cm", key="value", other="more"))
    secret = {"apiVersion": "v1", "kind": "Secret", "data": {"s": "aGlkZGVu"}}
    api.add(SECRETS, {**secret, "metadata": {"name": "sec", "namespace": "default"}})
    env = [
        {"name": "POD", "valueFrom": {"fieldRef": {"fieldPath": "metadata.name"}}},
        {"name": "KEY", "valueFrom": {"configMapKeyRef": {"name": "cm", "key": "key"}}},
        {"name": "BOTH", "value": "$(POD)-$(KEY)-$$(X)"},
    ]
    script = (
        f"echo $BOTH $0 $P_other; cat {ROOT}/cm/key {ROOT}/sec/s {ROOT}/info/labels;"
        f" echo; echo data > {ROOT}/scratch/file; sleep 1000"
    )
    volumes = [
        {"name": "cm", "configMap": {"name": "cm"}},
        {"name": "sec", "secret": {"secretName": "sec", "defaultMode": 0o400}},
        {"name": "scratch", "emptyDir": {}},
        {
            "name": "info",
            "downwardAPI": {
                "items": [{"path": "labels", "fieldRef": {"fieldPath": "metadata.labels"}}]
            },
        },
    ]
    mounts = [{"name": v["name"], "mountPath": f"/{v['name']}"} for v in volumes]
    one = container(
        "c",
        "sh",
        "-c",
        script,
        "$(KEY)",
        env=env,
        envFrom=[{"prefix": "P_", "configMapRef": {"name": "cm"}}],
        volumeMounts=mounts,
    )
    made = pod(containers=[one], volumes=volumes)
    made["metadata"]["labels"] = {"app": "x"}
    async with open_real(kind, root, api) as node:
        api.add(PODS, made)
        await node.until(lambda: node.condition("Ready") == "True")
        uid = made["metadata"]["uid"]
        file = root / f"pods/{uid}/volumes/kubernetes.io~empty-dir/scratch/file"
        await node.until(lambda: file.exists() and "app" in log_of(root))
        assert log_of(root) == 'p-value-$(X) value more\nvaluehiddenapp="x"'
        assert file.read_text() == "data\n"
        api.end("default/p", 0)
        await node.until(lambda: not api.all(PODS) and not node.kubelet.pods())
        assert not (root / "pods" / uid).exists()
        assert not list((root / "logs").glob("*"))


@BOTH
async def test_config_maps_change_under_a_running_pod(kind: str, root: Path) -> None:
    api = KubeletApi()
    api.add(CONFIG_MAPS, config_map("cm", key="old"))
    script = f"while ! grep new {ROOT}/cm/key; do sleep 0.05; done; sleep 1000"
    one = container("c", "sh", "-c", script, volumeMounts=[{"name": "cm", "mountPath": "/cm"}])
    timings = KubeletTimings(resync=0.2)
    async with open_real(kind, root, api, timings=timings) as node:
        api.add(PODS, pod(containers=[one], volumes=[{"name": "cm", "configMap": {"name": "cm"}}]))
        await node.until(lambda: node.status()["phase"] == "Running")
        api.change(CONFIG_MAPS, "default/cm", lambda cm: cm["data"].update(key="new"))
        await node.until(lambda: "new" in log_of(root))


@BOTH
async def test_a_new_kubelet_adopts_without_restarting(kind: str, root: Path) -> None:
    api = KubeletApi()
    runs = container("c", "sh", "-c", "echo started; sleep 1000")
    ends = container("d", "sh", "-c", "sleep 0.3; exit 9")
    async with open_real(kind, root, api) as node:
        api.add(PODS, pod(containers=[runs, ends], restartPolicy="Never"))
        api.add(PODS, pod("gone", containers=[runs], terminationGracePeriodSeconds=1))
        await node.until(
            lambda: node.condition("Ready") == "True" or "terminated" in node.state(number=1)
        )
        await node.until(lambda: node.condition("Ready", "default/gone") == "True")
        before = node.status()
    api.remove(PODS, "default/gone")  # while no kubelet is there to see it
    async with open_real(kind, root, api) as node:
        await node.until(lambda: "terminated" in node.state(number=1))
        status = node.status()
        assert (
            status["containerStatuses"][0]["containerID"]
            == (before["containerStatuses"][0]["containerID"])
        )
        assert status["containerStatuses"][1]["state"]["terminated"]["exitCode"] == 9
        assert status["podIP"] == before["podIP"]
        assert status["startTime"] == before["startTime"]
        for number in (0, 1):
            assert status["containerStatuses"][number]["restartCount"] == 0
        assert log_of(root) == "started"

        async def only_one() -> bool:
            return len(await node.runtime.list_pod_sandbox()) == 1

        with trio.fail_after(20):
            while not await only_one():
                await trio.sleep(0.05)


@BOTH
async def test_exec_probes_and_hooks(kind: str, root: Path) -> None:
    probe = {"exec": {"command": ["sh", "-c", f"test -e {ROOT}/s/ready"]}, "periodSeconds": 1}
    hooks = {
        "postStart": {"exec": {"command": ["sh", "-c", f"touch {ROOT}/s/ready"]}},
        "preStop": {"exec": {"command": ["sh", "-c", f"echo stop > {ROOT}/s/stopped"]}},
    }
    one = container(
        "c",
        "sleep",
        "1000",
        readinessProbe=probe,
        lifecycle=hooks,
        volumeMounts=[{"name": "s", "mountPath": "/s"}],
    )
    target = root / "shared"
    volumes = [{"name": "s", "hostPath": {"path": str(target), "type": "DirectoryOrCreate"}}]
    async with open_real(kind, root) as node:
        node.api.add(PODS, pod(containers=[one], volumes=volumes))
        await node.until(lambda: node.condition("Ready") == "True")
        node.api.end("default/p", 2)
        await node.until(lambda: not node.api.all(PODS))
        assert (target / "stopped").read_text() == "stop\n"


@BOTH
async def test_a_failed_liveness_probe_restarts(kind: str, root: Path) -> None:
    probe = {"exec": {"command": ["false"]}, "periodSeconds": 1, "failureThreshold": 1}
    one = container("c", "sleep", "1000", livenessProbe=probe)
    async with open_real(kind, root) as node:
        node.api.add(PODS, pod(containers=[one], terminationGracePeriodSeconds=0))
        await node.until(lambda: node.status()["containerStatuses"][0]["restartCount"] >= 1)
        assert ("Killing", "Container c failed liveness probe, will be restarted") in (
            node.api.events()
        )


@BOTH
async def test_what_cannot_start_is_told(kind: str, root: Path) -> None:
    async with open_real(kind, root) as node:
        node.api.add(PODS, pod(containers=[container("c", "nosuchprogram")], restartPolicy="Never"))
        await node.until(lambda: node.status()["phase"] == "Failed")
        ended = node.state()["terminated"]
        assert (ended["exitCode"], ended["reason"]) == (128, "StartError")
        assert "executable file not found" in ended["message"]
        assert "Failed" in [reason for reason, _ in node.api.events()]


@BOTH
async def test_init_containers_share_an_empty_dir(kind: str, root: Path) -> None:
    mount = [{"name": "s", "mountPath": "/s"}]
    first = container("a", "sh", "-c", f"echo prepared > {ROOT}/s/f", volumeMounts=mount)
    second = container("c", "sh", "-c", f"cat {ROOT}/s/f", volumeMounts=mount)
    async with open_real(kind, root) as node:
        node.api.add(
            PODS,
            pod(
                initContainers=[first],
                containers=[second],
                volumes=[{"name": "s", "emptyDir": {}}],
                restartPolicy="Never",
            ),
        )
        await node.until(lambda: node.status()["phase"] == "Succeeded")
        assert log_of(root) == "prepared"


async def test_the_process_runtime_says_what_it_cannot_do(root: Path) -> None:
    one = container(
        "c",
        "sleep",
        "1000",
        volumeMounts=[{"name": "s", "mountPath": "/s"}],
        securityContext={"privileged": True},
    )
    async with open_real("process", root) as node:
        node.api.add(PODS, pod(containers=[one], volumes=[{"name": "s", "emptyDir": {}}]))
        await node.until(lambda: node.status()["phase"] == "Running")
        await node.until(lambda: len(node.api.events()) >= 4)
        texts = [text for reason, text in node.api.events() if reason == "Unsupported"]
        assert len(texts) == 2
        assert "volumes are linked below $K8SLITE_ROOT, not mounted: /s" in texts[0] + texts[1]


async def test_a_lost_sandbox_is_made_anew(root: Path) -> None:
    if os.geteuid() != 0:
        pytest.skip("needs root")
    async with open_real("oci", root) as node:
        one = container("c", "sleep", "1000")
        node.api.add(PODS, pod(containers=[one], terminationGracePeriodSeconds=0))
        await node.until(lambda: node.condition("Ready") == "True")
        (state,) = (root / "runtime/sandboxes").glob("*/state.json")
        os.kill(json.loads(state.read_text())["pid"], signal.SIGKILL)
        await node.runtime.list_pod_sandbox()
        await node.until(lambda: node.status()["containerStatuses"][0]["restartCount"] == 1)
        await node.until(lambda: node.condition("Ready") == "True")


@pytest.mark.root
@pytest.mark.tool("runc")
async def test_volumes_in_memory_sub_paths_and_groups(root: Path) -> None:
    script = (
        "id -G; df -k /mem | tail -1; cat /one/key; echo; touch /one/x; touch /mem/f && ls -ln /mem"
    )
    volumes = [
        {"name": "mem", "emptyDir": {"medium": "Memory", "sizeLimit": "1Mi"}},
        {"name": "cm", "configMap": {"name": "cm"}},
        {"name": "host", "hostPath": {"path": str(root / "host")}},
    ]
    mounts = [
        {"name": "mem", "mountPath": "/mem"},
        {"name": "cm", "mountPath": "/one"},
        {"name": "host", "mountPath": "/sub", "subPath": "a/b"},
    ]
    api = KubeletApi()
    api.add(CONFIG_MAPS, config_map("cm", key="value"))
    made = pod(
        containers=[container("c", "sh", "-c", f"{script}; touch /sub/made", volumeMounts=mounts)],
        volumes=volumes,
        restartPolicy="Never",
        securityContext={"runAsUser": 1000, "runAsGroup": 1001, "fsGroup": 1002},
    )
    (root / "host/a/b").mkdir(parents=True)
    (root / "host/a/b").chmod(0o777)
    for path in (root, root / "host", root / "host/a"):
        path.chmod(0o755)
    async with open_real("oci", root, api) as node:
        api.add(PODS, made)
        await node.until(lambda: node.status()["phase"] == "Succeeded")
        lines = log_of(root).splitlines()
        assert lines[0].split() == ["1001", "1002"]
        assert lines[1].split()[:2] == ["tmpfs", "1024"]
        assert "value" in lines
        assert "Read-only file system" in log_of(root)
        assert next(line for line in lines if line.endswith(" f")).split()[2:4] == ["1000", "1002"]
        assert (root / "host/a/b/made").exists()
        api.end("default/p", 0)
        await node.until(lambda: not api.all(PODS) and not node.kubelet.pods())
        assert mounts_below(root) == []


def examples() -> list[Obj]:
    files = sorted((Path(__file__).parents[2] / "examples").glob("*.yaml"))
    chosen = [file for file in files if file.stem in ("web", "job", "config")]
    assert len(chosen) == 3
    return [d for file in chosen for d in yaml.safe_load_all(file.read_text()) if d]


@BOTH
async def test_the_examples_run(kind: str, root: Path) -> None:
    """What examples/*.yaml show, without the controllers: their pods, on one node."""
    api = KubeletApi()
    documents = examples()
    for document in documents:
        if document["kind"] == "ConfigMap":
            document["metadata"]["namespace"] = "default"
            api.add(CONFIG_MAPS, document)
    async with open_real(kind, root, api) as node:
        for document in documents:
            template = document["spec"].get("template") if "spec" in document else None
            spec = template["spec"] if template else document.get("spec")
            if not spec or "containers" not in spec:
                continue
            for one in spec["containers"]:
                if kind == "oci":  # nobody has connected the pods here
                    one.pop("readinessProbe", None)
            made = pod(document["metadata"]["name"], **spec)
            api.add(PODS, made)
        await node.until(lambda: node.condition("Ready", "default/web") == "True")
        await node.until(lambda: "file" in log_of(root, "greeter", pod_name="greeter"))
        assert log_of(root, "greeter", pod_name="greeter") == "hello\nhello from a file"
        (web,) = [c.id for c in await node.runtime.list_containers() if c.name == "web"]
        address = node.status("default/web")["podIP"]
        command = ("wget", "-q", "-O", "-", f"http://{address}:8080/")
        with trio.fail_after(10):
            while (found := await node.runtime.exec_sync(web, command)).exit_code != 0:
                await trio.sleep(0.05)
        assert found.stdout == b"web\n"
        await node.until(lambda: node.status("default/count")["phase"] == "Succeeded")
        assert log_of(root, "count", pod_name="count") == "1\n2\n3\n4\n5"
