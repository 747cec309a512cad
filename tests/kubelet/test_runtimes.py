"""One suite for every runtime: what the kubelet relies on, held by each of them."""

from __future__ import annotations

import contextlib
import os
from collections.abc import AsyncIterator, Callable
from contextlib import asynccontextmanager
from pathlib import Path
from typing import Any

import attrs
import pytest
import trio

from k8slite.kubelet.cleanup import cleanup, leftovers
from k8slite.kubelet.images.store import ImageStore
from k8slite.kubelet.network import LoopbackNetwork
from k8slite.kubelet.runtime.fake import Life, open_fake_runtime
from k8slite.kubelet.runtime.interface import (
    ContainerConfig,
    ContainerNotFound,
    ContainerState,
    ImageMissing,
    Runtime,
    RuntimeFailure,
    SandboxConfig,
    SandboxStatus,
    StartFailure,
)
from k8slite.kubelet.runtime.oci import open_oci_runtime
from k8slite.kubelet.runtime.process import open_process_runtime
from k8slite.kubelet.volumes.volume_files import mounts_below
from raftkv.os_host import OsHost
from tests.client.world import MemoryHost

KINDS = [
    "fake",
    "process",
    pytest.param("runc", marks=[pytest.mark.root, pytest.mark.tool("runc")]),
    pytest.param("crun", marks=[pytest.mark.root, pytest.mark.tool("crun")]),
]
REAL = KINDS[1:]
OCI = KINDS[2:]


@attrs.frozen
class Bench:
    """A runtime under test, and how to open it once more."""

    runtime: Runtime
    network: LoopbackNetwork
    root: Path
    reopen: Callable[[], Any]

    async def sandbox(self, uid: str = "u1", **fields: Any) -> SandboxStatus:
        config = SandboxConfig(uid, "default", "p", hostname="p-host", **fields)
        return await self.runtime.run_pod_sandbox(config, self.network)

    async def create(self, sandbox: SandboxStatus, *command: str, **fields: Any) -> str:
        config = ContainerConfig(
            **{
                "name": "c",
                "image": "busybox:1.36",
                "command": command,
                "log_path": str(self.root / "logs" / "c.log"),
                **fields,
            }
        )
        return await self.runtime.create_container(sandbox.id, config)

    async def run(self, sandbox: SandboxStatus, *command: str, **fields: Any) -> str:
        container_id = await self.create(sandbox, *command, **fields)
        await self.runtime.start_container(container_id)
        return container_id

    async def ended(self, container_id: str) -> Any:
        with trio.fail_after(20):
            while True:
                status = await self.runtime.container_status(container_id)
                if status.state is ContainerState.EXITED:
                    return status
                await trio.sleep(0.01)

    def log(self) -> str:
        lines = (self.root / "logs" / "c.log").read_text().splitlines()
        return "\n".join(line.split(" ", 3)[3] for line in lines)


def fake_life(sandbox: SandboxConfig, config: ContainerConfig) -> Life:
    """What the commands of this suite would do."""
    text = " ".join(config.command)
    if "nosuchprogram" in text:
        return Life(start_error="executable file not found")
    if "exit 3" in text:
        return Life(run_seconds=0.05, exit_code=3)
    if "trap" in text:
        return Life(stop_seconds=None)
    return Life(stop_seconds=0.01, run_seconds=0.05 if text == "true" else None)


@asynccontextmanager
async def open_bench(kind: str, root: Path) -> AsyncIterator[Bench]:
    network = LoopbackNetwork("127.244.7.0/24")
    if kind == "fake":
        async with open_fake_runtime(MemoryHost(), life=fake_life) as runtime:
            yield Bench(runtime, network, root, lambda: None)
        return
    images = ImageStore(root / "images")

    def reopen() -> Any:
        if kind == "process":
            return open_process_runtime(root, OsHost(), images)
        return open_oci_runtime(root, OsHost(), images, binary=kind)

    try:
        async with reopen() as runtime:
            yield Bench(runtime, network, root, reopen)
    finally:
        await trio.to_thread.run_sync(cleanup, root)
        assert leftovers(root) == []


@pytest.mark.parametrize("kind", KINDS)
async def test_a_container_lives_and_ends(kind: str, tmp_path: Path) -> None:
    async with open_bench(kind, tmp_path) as bench:
        sandbox = await bench.sandbox()
        assert sandbox.ready
        assert sandbox.ip == "127.244.7.1"
        container = await bench.create(sandbox, "sh", "-c", "echo hello; exit 3")
        status = await bench.runtime.container_status(container)
        assert (status.state, status.pod_uid) == (ContainerState.CREATED, "u1")
        await bench.runtime.start_container(container)
        status = await bench.ended(container)
        assert (status.exit_code, status.reason) == (3, "Error")
        assert status.created_at <= status.finished_at
        assert status.started_at <= status.finished_at
        await bench.runtime.remove_container(container)
        assert await bench.runtime.list_containers() == []
        await bench.runtime.stop_pod_sandbox(sandbox.id, bench.network)
        assert [s.ready for s in await bench.runtime.list_pod_sandbox("u1")] == [False]
        await bench.runtime.remove_pod_sandbox(sandbox.id)
        assert await bench.runtime.list_pod_sandbox() == []


@pytest.mark.parametrize("kind", KINDS)
async def test_changes_are_announced_by_pod(kind: str, tmp_path: Path) -> None:
    async with open_bench(kind, tmp_path) as bench:
        sandbox = await bench.sandbox("u9")
        container = await bench.run(sandbox, "true")
        with trio.fail_after(20):
            async for uid in bench.runtime.events:
                assert uid == "u9"
                status = await bench.runtime.container_status(container)
                if status.state is ContainerState.EXITED:
                    break
        assert (status.exit_code, status.reason) == (0, "Completed")


@pytest.mark.parametrize("kind", KINDS)
async def test_stop_kills_who_does_not_listen(kind: str, tmp_path: Path) -> None:
    async with open_bench(kind, tmp_path) as bench:
        sandbox = await bench.sandbox()
        deaf = await bench.run(
            sandbox, "sh", "-c", "trap '' TERM; echo on; while :; do sleep 1; done"
        )
        if kind != "fake":
            while "on" not in (bench.log() if (bench.root / "logs/c.log").exists() else ""):
                await trio.sleep(0.01)
        await bench.runtime.stop_container(deaf, 0.2)
        status = await bench.runtime.container_status(deaf)
        assert (status.state, status.exit_code) == (ContainerState.EXITED, 137)
        await bench.runtime.stop_container(deaf, 5)  # again: no error, no wait


@pytest.mark.parametrize("kind", KINDS)
async def test_stopping_a_sandbox_ends_all_in_it(kind: str, tmp_path: Path) -> None:
    async with open_bench(kind, tmp_path) as bench:
        sandbox = await bench.sandbox()
        for name in ("a", "b"):
            await bench.run(sandbox, "sleep", "1000", name=name)
        await bench.runtime.stop_pod_sandbox(sandbox.id, bench.network)
        await bench.runtime.stop_pod_sandbox(sandbox.id, bench.network)
        states = {c.state for c in await bench.runtime.list_containers("u1")}
        assert states == {ContainerState.EXITED}
        await bench.runtime.remove_pod_sandbox(sandbox.id)
        await bench.runtime.remove_pod_sandbox(sandbox.id)
        assert await bench.runtime.list_containers() == []
        again = await bench.sandbox("u2")
        assert again.ip == "127.244.7.2"


@pytest.mark.parametrize("kind", KINDS)
async def test_what_cannot_start_is_an_exited_container(kind: str, tmp_path: Path) -> None:
    async with open_bench(kind, tmp_path) as bench:
        sandbox = await bench.sandbox()
        container = await bench.create(sandbox, "nosuchprogram")
        with pytest.raises(StartFailure, match=r"executable file .*not found"):
            await bench.runtime.start_container(container)
        status = await bench.runtime.container_status(container)
        assert (status.exit_code, status.reason) == (128, "StartError")
        assert "executable file" in status.message


@pytest.mark.parametrize("kind", KINDS)
async def test_unknown_things(kind: str, tmp_path: Path) -> None:
    async with open_bench(kind, tmp_path) as bench:
        runtime = bench.runtime
        with pytest.raises(ContainerNotFound):
            await runtime.container_status("nothing")
        with pytest.raises(RuntimeFailure):
            await runtime.exec_sync("nothing", ("true",))
        for call in (runtime.remove_container("x"), runtime.stop_container("x", 1)):
            await call
        await runtime.stop_pod_sandbox("x", bench.network)
        await runtime.remove_pod_sandbox("x")
        with pytest.raises(ContainerNotFound):
            await runtime.create_container("x", ContainerConfig("c", "busybox"))


@pytest.mark.parametrize("kind", REAL)
async def test_images_that_are_not_here(kind: str, tmp_path: Path) -> None:
    async with open_bench(kind, tmp_path) as bench:
        sandbox = await bench.sandbox()
        assert await bench.runtime.image_status("nginx") is None
        with pytest.raises(RuntimeFailure, match="k8slite image load"):
            await bench.runtime.pull_image("localhost:1/nginx")
        with pytest.raises(ImageMissing):
            await bench.create(sandbox, "true", image="nginx")
        found = await bench.runtime.image_status("busybox")
        assert found is not None
        assert found.names == ("docker.io/library/busybox:latest",)


@pytest.mark.parametrize("kind", REAL)
async def test_logs_environment_and_exec(kind: str, tmp_path: Path) -> None:
    async with open_bench(kind, tmp_path) as bench:
        sandbox = await bench.sandbox()
        script = "echo $A $HOSTNAME; echo oops >&2; printf half; exec sleep 1000"
        container = await bench.run(sandbox, "sh", "-c", script, env=(("A", "b"),))
        result = await bench.runtime.exec_sync(
            container, ("sh", "-c", "echo $A; echo e >&2; exit 4")
        )
        assert (result.exit_code, result.stdout, result.stderr) == (4, b"b\n", b"e\n")
        with pytest.raises(RuntimeFailure) if kind == "process" else contextlib.nullcontext():
            missing = await bench.runtime.exec_sync(container, ("nosuchprogram",))
            assert missing.exit_code != 0
        await bench.runtime.stop_container(container, 0)
        lines = (tmp_path / "logs/c.log").read_text().splitlines()
        found = sorted(line.split(" ", 1)[1] for line in lines)
        assert found == ["stderr F oops", "stdout F b p-host", "stdout F half"]


@pytest.mark.parametrize("kind", REAL)
async def test_a_cancelled_exec_leaves_nothing(kind: str, tmp_path: Path) -> None:
    async with open_bench(kind, tmp_path) as bench:
        sandbox = await bench.sandbox()
        container = await bench.run(sandbox, "sleep", "1000")
        with trio.move_on_after(0.3) as scope:
            await bench.runtime.exec_sync(container, ("sleep", "98765"))
        assert scope.cancelled_caught
        assert not _commands("98765")


def _commands(word: str) -> list[str]:
    found = []
    for path in Path("/proc").iterdir():
        if path.name.isdigit():
            with contextlib.suppress(OSError):
                text = (path / "cmdline").read_bytes().split(b"\0")
                if word.encode() in text:
                    found.append(path.name)
    return found


@pytest.mark.parametrize("kind", REAL)
async def test_containers_outlive_the_runtime_and_are_adopted(kind: str, tmp_path: Path) -> None:
    async with open_bench(kind, tmp_path) as bench:
        sandbox = await bench.sandbox()
        stays = await bench.run(sandbox, "sleep", "1000", name="stays")
        ends = await bench.run(sandbox, "sh", "-c", "sleep 0.2; exit 7", name="ends")
        before = await bench.runtime.container_status(stays)
        async with bench.reopen() as second:
            assert (await second.list_pod_sandbox())[0] == sandbox
            adopted = await second.container_status(stays)
            assert adopted == before
            other = attrs.evolve(bench, runtime=second)
            assert (await other.ended(ends)).exit_code == 7
            assert (await second.exec_sync(stays, ("true",))).exit_code == 0
            await second.stop_container(stays, 0)
            assert (await second.container_status(stays)).exit_code == 137


@pytest.mark.parametrize("kind", REAL)
async def test_a_shim_that_was_killed_takes_its_container_along(kind: str, tmp_path: Path) -> None:
    import json
    import signal

    async with open_bench(kind, tmp_path) as bench:
        sandbox = await bench.sandbox()
        container = await bench.run(sandbox, "sh", "-c", "sleep 43210 & wait")
        state = json.loads((tmp_path / f"runtime/containers/{container}/state.json").read_text())
        os.kill(state["shim"], signal.SIGKILL)
        status = await bench.ended(container)
        assert (status.exit_code, status.reason) == (255, "Unknown")
        await bench.runtime.stop_pod_sandbox(sandbox.id, bench.network)
        assert not _commands("43210")


@pytest.mark.parametrize("kind", REAL)
async def test_cleanup_ends_everything_after_a_crash(kind: str, tmp_path: Path) -> None:
    async with open_bench(kind, tmp_path) as bench:
        sandbox = await bench.sandbox()
        await bench.run(sandbox, "sh", "-c", "sleep 54321 & wait")
        assert leftovers(tmp_path) != []
        await trio.to_thread.run_sync(cleanup, tmp_path)
        assert not _commands("54321")
        assert leftovers(tmp_path) == []
        await trio.to_thread.run_sync(cleanup, tmp_path)  # twice is no error


@pytest.mark.parametrize("kind", OCI)
async def test_a_container_is_alone(kind: str, tmp_path: Path) -> None:
    from k8slite.kubelet.runtime.interface import Mount, Resources, Security

    shared = tmp_path / "shared"
    shared.mkdir()
    (shared / "in").write_text("from outside")
    async with open_bench(kind, tmp_path) as bench:
        sandbox = await bench.sandbox()
        script = (
            "ls /proc | grep -c '^[0-9]'; hostname; id -u; cat /data/in; ip addr | grep -c ' lo'"
        )
        container = await bench.run(
            sandbox,
            "sh",
            "-c",
            f"{script}; touch /data/x; echo w > /tmp/file; exec sleep 1000",
            mounts=(Mount(str(shared), "/data", read_only=True),),
            resources=Resources(cpu_shares=102, memory_bytes=64 << 20, pids_max=50),
            security=Security(user=1000, no_new_privileges=True),
        )
        while "Read-only" not in (bench.log()):
            await trio.sleep(0.01)
        lines = bench.log().splitlines()
        assert lines[1:3] == ["p-host", "1000"]
        assert "from outside" in lines[3]
        assert int(lines[0]) < 5
        second = await bench.create(sandbox, "sh", "-c", "cat /tmp/file", name="d")
        await bench.runtime.start_container(second)
        assert (await bench.ended(second)).exit_code == 1  # another root file system
        assert mounts_below(tmp_path) == []
        await bench.runtime.remove_container(container)


@pytest.mark.parametrize("kind", OCI)
async def test_a_container_beyond_its_memory_says_so(kind: str, tmp_path: Path) -> None:
    from k8slite.kubelet.runtime.interface import Resources

    async with open_bench(kind, tmp_path) as bench:
        sandbox = await bench.sandbox()
        container = await bench.run(
            sandbox,
            "sh",
            "-c",
            "x=abcdefgh; while :; do x=$x$x; done",
            resources=Resources(memory_bytes=16 << 20),
        )
        status = await bench.ended(container)
        assert (status.exit_code, status.reason) == (137, "OOMKilled")


@pytest.mark.parametrize("kind", KINDS)
async def test_many_pods_at_once(kind: str, tmp_path: Path) -> None:
    async with open_bench(kind, tmp_path) as bench:

        async def one(number: int) -> None:
            sandbox = await bench.sandbox(f"u{number}")
            log_path = str(tmp_path / f"logs/{number}.log")
            container = await bench.run(sandbox, "true", log_path=log_path)
            assert (await bench.ended(container)).exit_code == 0

        async with trio.open_nursery() as nursery:
            for number in range(12):
                nursery.start_soon(one, number)
        addresses = {s.ip for s in await bench.runtime.list_pod_sandbox()}
        assert len(addresses) == 12


@pytest.mark.parametrize("kind", REAL)
async def test_a_start_whose_kubelet_dies_goes_on(kind: str, tmp_path: Path) -> None:
    images = ImageStore(tmp_path / "images")

    def reopen() -> Any:
        if kind == "process":
            return open_process_runtime(tmp_path, OsHost(), images)
        return open_oci_runtime(tmp_path, OsHost(), images, binary=kind)

    try:
        async with reopen() as runtime:
            bench = Bench(runtime, LoopbackNetwork("127.244.7.0/24"), tmp_path, reopen)
            sandbox = await bench.sandbox()
            await bench.run(sandbox, "true", name="warm")  # the launcher is there
            container = await bench.create(sandbox, "sleep", "1000")
            with trio.move_on_after(0.002):
                await runtime.start_container(container)
        async with reopen() as second:
            with trio.fail_after(10):
                while True:
                    status = await second.container_status(container)
                    if status.state is ContainerState.RUNNING:
                        break
                    assert status.state is ContainerState.CREATED
                    await trio.sleep(0.02)
            assert (await second.exec_sync(container, ("true",))).exit_code == 0
    finally:
        await trio.to_thread.run_sync(cleanup, tmp_path)
        assert leftovers(tmp_path) == []
