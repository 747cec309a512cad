"""exec, attach and port-forward of a kubelet with real containers; what they leave behind."""

from __future__ import annotations

import os
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from pathlib import Path
from typing import Any
from urllib.parse import urlencode

import pytest
import trio

from k8slite.api.kinds import PODS
from k8slite.kubelet.cleanup import cleanup, leftovers
from k8slite.kubelet.images.store import ImageStore
from k8slite.kubelet.network import LoopbackNetwork
from k8slite.kubelet.runtime.oci import open_oci_runtime
from k8slite.kubelet.runtime.process import open_process_runtime
from k8slite.streaming.bytes import ByteStream
from k8slite.streaming.portforward import TUNNEL
from k8slite.streaming.websocket import Tunnel, WebSocket
from raftkv.os_host import OsHost
from tests.kubelet.test_server import ask, connected
from tests.kubelet.world import Node, container, open_fake_node, open_node, pod
from tests.streaming.clients import (
    CLOSE,
    ERROR,
    RESIZE,
    STDERR,
    STDIN,
    STDOUT,
    Channels,
    Handshake,
    SpdyClient,
    shake_hands,
    spdy_headers,
    websocket_headers,
)

KINDS = ["process", pytest.param("oci", marks=[pytest.mark.root, pytest.mark.tool("runc")])]
BOTH = pytest.mark.parametrize("kind", KINDS)
V5 = websocket_headers("v5.channel.k8s.io")
HOLD = "sleep 1000 & wait"


@asynccontextmanager
async def running(kind: str, root: Path, *containers: Any, **spec: Any) -> AsyncIterator[Node]:
    """A node with the pod `p`, whose containers run."""
    opener = open_process_runtime if kind == "process" else open_oci_runtime
    network = LoopbackNetwork("127.244.7.0/24", root / "network")
    try:
        async with opener(root, OsHost(), ImageStore(root / "images")) as runtime:
            async with open_node(
                runtime, host=OsHost(), network=network, root_dir=str(root), serve=True
            ) as node:
                made = pod(containers=[*containers] or [container("c", "sh", "-c", HOLD)], **spec)
                node.api.add(PODS, made)
                await node.until(lambda: node.condition("Ready") == "True")
                yield node
    finally:
        cleanup(root)
        assert leftovers(root) == []


@asynccontextmanager
async def dialled(
    node: Node, path: str, headers: dict[bytes, bytes], method: str = "GET"
) -> AsyncIterator[tuple[trio.abc.Stream, Handshake]]:
    stream = await node.host.net.open_stream(node.kubelet.address)
    with trio.fail_after(30):
        async with stream:
            yield stream, await shake_hands(stream, path, headers, method=method)


def exec_path(*command: str, streams: str = "input output error", name: str = "c") -> str:
    query = [(word, "1") for word in streams.split()] + [("command", word) for word in command]
    return f"/exec/default/p/{name}?{urlencode(query)}"


@asynccontextmanager
async def executed(node: Node, *command: str, streams: str = "input output error") -> Any:
    async with dialled(node, exec_path(*command, streams=streams), V5) as (stream, answer):
        assert answer.status == 101, answer.body
        yield Channels(stream, answer.early)


def processes(mark: str) -> list[int]:
    """Who has these words in its command line."""
    found = []
    for path in Path("/proc").iterdir():
        if path.name.isdigit() and int(path.name) != os.getpid():
            try:
                words = (path / "cmdline").read_bytes().replace(b"\0", b" ")
            except OSError:
                continue
            if mark.encode() in words:
                found.append(int(path.name))
    return found


async def gone(mark: str) -> None:
    with trio.fail_after(10):
        while processes(mark):
            await trio.sleep(0.05)


@BOTH
async def test_exec(kind: str, tmp_path: Path) -> None:
    async with running(kind, tmp_path) as node:
        async with executed(node, "sh", "-c", "echo out; echo err >&2; exit 3") as client:
            await client.receive_all()
            assert client.output[STDOUT] == b"out\n"
            assert client.output[STDERR] == b"err\n"
            assert client.status()["details"]["causes"] == [{"reason": "ExitCode", "message": "3"}]
        async with executed(node, "sh", "-c", "wc -c; kill -9 $$") as client:
            for _ in range(50):
                await client.send(STDIN, bytes(30_000))
            await client.send(CLOSE, bytes((STDIN,)))
            await client.receive_all()
            assert client.output[STDOUT].strip() == b"1500000"
            assert client.status()["details"]["causes"][0]["message"] == "137"
        async with executed(node, "head", "-c", "3000000", "/dev/zero") as client:
            await client.receive_all()
            assert client.output[STDOUT] == bytes(3_000_000)
            assert client.status()["status"] == "Success"
        async with executed(node, "no-such-program") as client:
            await client.receive_all()
            assert "executable file not found in $PATH" in client.status()["message"]
        directories = list((tmp_path / "runtime" / "containers").iterdir())
        assert not [path for d in directories for path in d.glob("exec-*")]


@BOTH
async def test_exec_with_a_terminal(kind: str, tmp_path: Path) -> None:
    async with running(kind, tmp_path) as node:
        async with executed(node, "sh", streams="input output tty") as client:
            await client.send(RESIZE, b'{"Width":91,"Height":37}')
            await client.send(STDIN, b"stty size; echo $TERM; test -t 0 && echo a-$((1+1))-tty\n")
            await client.until(STDOUT, b"a-2-tty")
            assert b"37 91" in client.output[STDOUT]
            assert b"xterm" in client.output[STDOUT]
            await client.send(RESIZE, b'{"Width":55,"Height":44}')
            await client.send(STDIN, b"sleep 998\n")
            await client.until(STDOUT, b"sleep 998")
            with trio.fail_after(10):
                while not processes("sleep 998"):
                    await trio.sleep(0.02)
            await client.send(STDIN, b"\x03")
            await client.send(STDIN, b"stty size; exit 4\n")
            await client.receive_all()
            assert b"44 55" in client.output[STDOUT]
            assert STDERR not in client.output
            assert client.status()["details"]["causes"][0]["message"] == "4"


@BOTH
async def test_exec_over_spdy(kind: str, tmp_path: Path) -> None:
    async with running(kind, tmp_path) as node:
        path = exec_path("sh", "-c", "cat; exit 5")
        headers = spdy_headers("v4.channel.k8s.io")
        async with dialled(node, path, headers, "POST") as (stream, answer):
            assert answer.status == 101
            client = SpdyClient(ByteStream.over(stream, answer.early))
            names = ("error", "stdin", "stdout", "stderr")
            error, stdin, stdout, stderr = [await client.open(streamtype=n) for n in names]
            await client.send(stdin, b"hello", fin=True)
            await client.until_ended(error, stdout, stderr)
            assert client.output[stdout] == b"hello"
            assert b'"message": "5"' in client.output[error]


@BOTH
async def test_who_leaves_leaves_no_process(kind: str, tmp_path: Path) -> None:
    """Whatever the command has started ends; the container's own process does not."""
    async with running(kind, tmp_path) as node:
        for streams, script in (
            ("output error", "sleep 997 & sleep 996; true"),
            ("input output tty", "trap '' HUP; sleep 997; true"),
            ("output", "yes 995995"),
        ):
            async with executed(node, "sh", "-c", script, streams=streams) as client:
                await client.receive()
                mark = "sleep 997" if "997" in script else "yes 995995"
                with trio.fail_after(10):
                    while not processes(mark):
                        await trio.sleep(0.02)
            for mark in ("sleep 997", "sleep 996", "yes 995995"):
                await gone(mark)
        assert node.status()["containerStatuses"][0]["restartCount"] == 0
        assert "running" in node.state()


@BOTH
async def test_what_a_command_leaves_behind(kind: str, tmp_path: Path) -> None:
    """A real container keeps the process; held pipes do not hold up the answer of a mere one."""
    script = "sleep 994 & echo done" if kind == "process" else "sleep 994 >&- 2>&- & echo done"
    async with running(kind, tmp_path) as node:
        async with executed(node, "sh", "-c", script) as client:
            await client.receive_all()
            assert client.output[STDOUT] == b"done\n"
            assert client.status()["status"] == "Success"
        if kind == "process":
            await gone("sleep 994")
        else:
            assert processes("sleep 994")


@BOTH
async def test_attach(kind: str, tmp_path: Path) -> None:
    script = "while read x; do echo got $x; echo err >&2; done; echo end; exit 6"
    one = container("c", "sh", "-c", script, stdin=True, stdinOnce=True)
    async with running(kind, tmp_path, one, restartPolicy="Never") as node:
        path = "/attach/default/p/c?input=1&output=1&error=1"
        looker = "/attach/default/p/c?output=1"
        async with dialled(node, looker, V5) as (other, seen):
            watcher = Channels(other, seen.early)
            await watcher.receive()
            async with dialled(node, path, V5) as (stream, answer):
                client = Channels(stream, answer.early)
                await client.send(STDIN, b"one\n")
                await client.until(STDOUT, b"got one\n")
                await client.until(STDERR, b"err\n")
                await watcher.until(STDOUT, b"got one\n")
                await client.send(CLOSE, bytes((STDIN,)))
                await client.receive_all()
                assert client.output[STDOUT].endswith(b"end\n")
                assert client.status()["status"] == "Success"
            await watcher.receive_all()
            assert watcher.output[STDOUT] == b"got one\nend\n"
        await node.until(lambda: node.state()["terminated"]["exitCode"] == 6)


@BOTH
async def test_attach_to_a_terminal(kind: str, tmp_path: Path) -> None:
    one = container("c", "sh", stdin=True, tty=True)
    async with running(kind, tmp_path, one) as node:
        path = "/attach/default/p/c?input=1&output=1&tty=1"
        for turn in ("first", "second"):
            async with dialled(node, path, V5) as (stream, answer):
                client = Channels(stream, answer.early)
                await client.send(RESIZE, b'{"Width":71,"Height":17}')
                await client.send(STDIN, b"stty size; echo $KEPT; KEPT=first; echo is-$((1+1))\n")
                await client.until(STDOUT, b"is-2")
                assert b"17 71" in client.output[STDOUT]
                if turn == "second":
                    assert b"\nfirst" in client.output[STDOUT].replace(b"\r", b"")
        assert "running" in node.state()  # a client who leaves ends nothing
        (log,) = (tmp_path / "logs").glob("*/c/0.log")
        assert b"is-2" in log.read_bytes()


@BOTH
async def test_a_slow_client_holds_output_up_and_loses_nothing(kind: str, tmp_path: Path) -> None:
    script = "read x; head -c 3000000 /dev/zero | tr '\\0' x; echo"
    one = container("c", "sh", "-c", script, stdin=True, stdinOnce=True)
    async with running(kind, tmp_path, one, restartPolicy="Never") as node:
        path = "/attach/default/p/c?input=1&output=1"
        async with dialled(node, path, V5) as (stream, answer):
            client = Channels(stream, answer.early)
            await client.send(STDIN, b"go\n")
            await trio.sleep(0.5)
            assert "running" in node.state()
            await client.receive_all()
            assert client.output[STDOUT] == b"x" * 3_000_000 + b"\n"


@BOTH
async def test_port_forward(kind: str, tmp_path: Path) -> None:
    listen = "$POD_IP:8081" if kind == "process" else "127.0.0.1:8081"
    field = {"fieldRef": {"fieldPath": "status.podIP"}}
    one = container(
        "c",
        "sh",
        "-c",
        f"cd ${{K8SLITE_ROOT:-/}}; echo hi > index.html; exec httpd -f -p {listen}",
        env=[{"name": "POD_IP", "valueFrom": field}],
    )
    async with running(kind, tmp_path, one) as node:
        for headers, method in (
            (websocket_headers(TUNNEL), "GET"),
            (spdy_headers("portforward.k8s.io"), "POST"),
        ):
            async with dialled(node, "/portForward/default/p", headers, method) as (stream, answer):
                assert answer.status == 101
                plain = ByteStream.over(stream, answer.early)
                tunnelled = method == "GET"
                client = SpdyClient(Tunnel(WebSocket(plain, client=True)) if tunnelled else plain)
                body = b""
                while b"hi\n" not in body:  # until it listens
                    error = await client.open(streamtype="error", port="8081")
                    data = await client.open(streamtype="data", port="8081")
                    await client.send(data, b"GET / HTTP/1.0\r\n\r\n")
                    await client.until_ended(data, error)
                    body = client.output[data]
                error = await client.open(streamtype="error", port="8099")
                await client.open(streamtype="data", port="8099")
                await client.until_ended(error)
                assert b"connection refused" in client.output[error]
        if kind == "process":  # by the pod's own address, as the apiserver's proxies ask for it
            tcp = {b"connection": b"Upgrade", b"upgrade": b"tcp"}
            async with dialled(node, "/podDial/default/p?port=8081", tcp) as (stream, answer):
                assert answer.status == 101
                await stream.send_all(b"GET / HTTP/1.0\r\n\r\n")
                page = answer.early
                while piece := bytes(await stream.receive_some()):
                    page += piece
                assert page.endswith(b"hi\n")
            found = await refusal(node, "/podDial/default/p?port=8099", tcp)
            assert (found[0], b"connection refused" in found[1]) == (502, True)
            assert (await refusal(node, "/podDial/default/p", tcp))[0] == 400
        refused = await refusal(node, "/portForward/default/p", websocket_headers())
        assert refused == (400, b'query parameter "port" is required\n')


async def refusal(node: Node, path: str, headers: dict[bytes, bytes]) -> tuple[int, bytes]:
    async with dialled(node, path, headers) as (_, answer):
        return answer.status, answer.body


async def test_what_is_refused(tmp_path: Path) -> None:
    done = container("done", "true")
    async with running("process", tmp_path, restartPolicy="OnFailure") as node:
        ended = pod("q", containers=[done], restartPolicy="Never")
        node.api.add(PODS, ended)
        await node.until(lambda: node.status("default/q").get("phase") == "Succeeded")
        spdy = spdy_headers("v4.channel.k8s.io")
        asked = "?output=1&command=ls"
        for path, status, words in (
            (f"/exec/default/none/c{asked}", 404, b"pod does not exist"),
            (f"/exec/default/p/none{asked}", 404, b"container none not found in pod p"),
            (f"/exec/default/p/wrong-uid/c{asked}", 404, b"pod does not exist"),
            (f"/exec/default/q/done{asked}", 404, b"container not found"),
            ("/exec/default/p/c?output=1", 400, b"at least one command"),
            ("/exec/default/p/c?command=ls", 400, b"at least 1 of stdin, stdout, stderr"),
            ("/attach/default/p/c", 400, b"at least 1 of stdin, stdout, stderr"),
            ("/portForward/default/none", 404, b"pod does not exist"),
            ("/portForward/default/p?port=70000", 400, b"unable to parse"),
        ):
            found = await refusal(node, path, spdy)
            assert (found[0], words in found[1]) == (status, True), (path, found)
        async with dialled(node, f"/exec/default/q/done{asked}", V5) as (stream, answer):
            client = Channels(stream, answer.early)
            await client.receive_all()
            assert "unable to upgrade connection: container not found" in client.status()["message"]
        async with connected(node.host.net, node.kubelet.address) as connection:
            assert (await ask(connection, f"/exec/default/p/c{asked}"))[0] == 400  # no upgrade


async def test_the_fake_runtime_says_that_nothing_runs(autojump_clock: object) -> None:
    async with open_fake_node(serve=True) as (node, _):
        node.api.add(PODS, pod())
        await node.until(lambda: node.status()["phase"] == "Running")
        for path in ("/exec/default/p/c?output=1&command=ls", "/attach/default/p/c?output=1"):
            async with dialled(node, path, V5) as (stream, answer):
                client = Channels(stream, answer.early)
                await client.receive_all()
                assert "no process runs in them" in client.status()["message"]
                assert ERROR in client.output
