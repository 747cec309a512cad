"""Device plugins: who has which device, and a real plugin over gRPC that is not ours."""

from __future__ import annotations

import shutil
import subprocess
import sys
import tempfile
from collections.abc import Iterator
from pathlib import Path

import pytest
import trio
from hypothesis import given
from hypothesis import strategies as st

from k8slite.api.kinds import NODES, PODS
from k8slite.kubelet.cleanup import cleanup
from k8slite.kubelet.devices.grant import Grant
from k8slite.kubelet.devices.grpc import GrpcError, serve_connection, unary_call
from k8slite.kubelet.devices.ledger import Ledger, NoDevices
from k8slite.kubelet.devices.manager import open_device_manager
from k8slite.kubelet.devices.messages import MESSAGES, REGISTER
from k8slite.kubelet.runtime.interface import ConfigFailure
from tests.kubelet.test_kubelet_real import log_of, open_real
from tests.kubelet.world import KubeletApi, container, pod

PLUGIN = Path(__file__).parents[2] / "examples/device-plugin/plugin.py"
TOY = "example.com/toy"


def test_devices_are_given_once() -> None:
    ledger = Ledger({TOY: {"a": True, "b": False, "c": True}})
    assert ledger.counts() == {TOY: (3, 2)}
    assert ledger.take("pod", "c1", TOY, 1) == ("a",)
    assert ledger.take("pod", "c1", TOY, 1) == ("a",), "a restart keeps it"
    assert ledger.take("pod", "c2", TOY, 1) == ("c",)
    with pytest.raises(NoDevices, match="Requested: 1, Available: 0"):
        ledger.take("other", "c", TOY, 1)
    assert not ledger.keep_only({"pod"})
    assert ledger.keep_only({"other"})
    assert ledger.take("other", "c", TOY, 2) == ("a", "c")
    ledger.lost(TOY)
    assert ledger.counts() == {TOY: (3, 0)}
    assert ledger.held("other", "c", TOY) == ("a", "c")


def test_the_checkpoint(tmp_path: Path) -> None:
    ledger = Ledger({TOY: {"a": True}})
    ledger.take("pod", "c", TOY, 1)
    ledger.save(tmp_path / "checkpoint")
    heir = Ledger()
    heir.load(tmp_path / "checkpoint")
    heir.load(tmp_path / "absent")
    assert heir.held("pod", "c", TOY) == ("a",)
    assert heir.counts() == {TOY: (1, 0)}, "until its plugin comes again"


TAKES = st.lists(
    st.tuples(st.sampled_from("pqr"), st.sampled_from("12"), st.integers(1, 3)), max_size=12
)


@given(TAKES)
def test_no_device_has_two_owners(takes: list[tuple[str, str, int]]) -> None:
    ledger = Ledger({TOY: {str(n): n != 2 for n in range(5)}})
    held: dict[tuple[str, str], tuple[str, ...]] = {}
    for owner, name, amount in takes:
        try:
            held[owner, name] = ledger.take(owner, name, TOY, amount)
        except NoDevices:
            held.pop((owner, name), None)
    given_away = [each for ids in held.values() for each in ids]
    assert len(given_away) == len(set(given_away))
    assert set(given_away) == ledger.taken(TOY) <= {"0", "1", "3", "4"}


@pytest.fixture
def directory() -> Iterator[Path]:
    """A short path: plugins bind sockets below it by name."""
    path = Path(tempfile.mkdtemp(prefix="dp-"))
    yield path
    cleanup(path)
    shutil.rmtree(path)


@pytest.mark.parametrize(
    ("fields", "words"),
    [
        ({"version": "v1"}, "version 'v1' is not supported"),
        ({"resource_name": "toy"}, "ResourceName 'toy' is invalid"),
        ({"endpoint": "../x"}, "no name of a socket"),
    ],
)
async def test_who_may_not_register(fields: dict[str, str], words: str, directory: Path) -> None:
    whole = {"version": "v1beta1", "resource_name": TOY, "endpoint": "x.sock", **fields}
    request = MESSAGES["RegisterRequest"](**whole).SerializeToString()
    async with open_device_manager(directory) as manager:
        with trio.fail_after(10):
            with pytest.raises(GrpcError, match=words):
                await unary_call(str(directory / "kubelet.sock"), REGISTER, request)
            with pytest.raises(GrpcError, match="unknown method"):
                await unary_call(str(directory / "kubelet.sock"), "/x.Y/Z", request)
        assert manager.counts() == {}


async def test_nonsense_is_no_call() -> None:
    one, two = trio.testing.memory_stream_pair()
    await one.send_all(b"GET / HTTP/1.1\r\n\r\n")
    with pytest.raises(GrpcError):
        await serve_connection(two, {})


async def test_a_plugin_that_is_not_there(directory: Path) -> None:
    """It registers, and its own socket is missing."""
    fields = {"version": "v1beta1", "resource_name": TOY, "endpoint": "absent.sock"}
    request = MESSAGES["RegisterRequest"](**fields).SerializeToString()
    async with open_device_manager(directory) as manager:
        told = trio.Event()
        manager.changed = told.set
        with trio.fail_after(10):
            await unary_call(str(directory / "kubelet.sock"), REGISTER, request)
            await told.wait()
        assert manager.counts() == {TOY: (0, 0)}
        resources = {"limits": {TOY: "1", "memory": "1Mi"}}
        with pytest.raises(ConfigFailure, match=r"plugin of example.com/toy is not registered"):
            await manager.allocate(pod(), container(resources=resources))
        other = {"limits": {"example.com/other": "1"}}
        assert await manager.allocate(pod(), container(resources=other)) == Grant()


def start_plugin(directory: Path, *more: str) -> subprocess.Popen[str]:
    command = [sys.executable, str(PLUGIN), "--directory", str(directory), *more]
    return subprocess.Popen(command, stdout=subprocess.PIPE, text=True)


@pytest.mark.root
@pytest.mark.tool("runc")
async def test_a_container_gets_its_device(directory: Path) -> None:
    pytest.importorskip("grpc")
    api = KubeletApi()
    script = "echo $TOY_DEVICES; head -c 3 /dev/toy | wc -c; sleep 1000"
    resources = {"limits": {TOY: "1"}, "requests": {TOY: "1"}}
    made = pod(containers=[container("c", "sh", "-c", script, resources=resources)])

    def allocatable() -> str:
        found: str = api.read(NODES, "node-1")["status"]["allocatable"].get(TOY, "")
        return found

    broken = directory / "broken"
    async with open_real("oci", directory, api, device_plugins=True) as node:
        plugins = directory / "device-plugins"
        process = start_plugin(plugins, "--device", "/dev/zero", "--broken", str(broken))
        try:
            await node.until(lambda: allocatable() == "2")
            api.add(PODS, made)
            await node.until(lambda: node.condition("Ready") == "True")
            await node.until(lambda: log_of(directory) == "toy-0\n3")
            other = pod("q", containers=[container("c", resources={"requests": {TOY: "3"}})])
            api.add(PODS, other)
            await node.until(lambda: node.status("default/q").get("reason") == f"OutOf{TOY}")
            await trio.to_thread.run_sync(broken.write_text, "toy-1")
            await node.until(lambda: allocatable() == "1")
        finally:
            process.kill()
            process.communicate()
        await node.until(lambda: allocatable() == "0")
        assert node.condition("Ready") == "True", "what runs keeps its device"
        api.end("default/p", 0)
        api.end("default/q", 0)
        await node.until(lambda: not api.all(PODS))
