"""kubectl exec, attach, run, cp, port-forward, proxy and logs, against real containers."""

from __future__ import annotations

import json
import socket
from pathlib import Path

import httptools
import pytest
import trio

from tests.streaming.lab import SECONDS, Lab, open_lab

pytestmark = pytest.mark.tool("kubectl")
KINDS = ["process", pytest.param("oci", marks=[pytest.mark.root, pytest.mark.tool("runc")])]
BOTH = pytest.mark.parametrize("kind", KINDS)
SPDY = {
    "KUBECTL_REMOTE_COMMAND_WEBSOCKETS": "false",
    "KUBECTL_PORT_FORWARD_WEBSOCKETS": "false",
}
WAYS: tuple[dict[str, str], ...] = ({}, SPDY)
SERVE = 'cd "${K8SLITE_ROOT:-/}"; echo hi > index.html; echo serving; exec httpd -f -p %s:8080'
DATA = bytes(range(256)) * 8000


@BOTH
async def test_exec(kind: str, tmp_path: Path) -> None:
    async with open_lab(kind, tmp_path) as lab:
        await lab.run_pod("p", "sleep 1000 & wait")
        for way in WAYS:
            done = await lab.kubectl(
                "exec", "p", "--", "sh", "-c", "echo out; echo err >&2; exit 3", env=way
            )
            assert (done.code, done.out) == (3, "out\n")
            assert done.err == "err\ncommand terminated with exit code 3\n"
            done = await lab.kubectl("exec", "-i", "p", "--", "cat", stdin=DATA, env=way)
            assert (done.code, done.err) == (0, "")
            assert done.out.encode("latin-1") == DATA
            done = await lab.kubectl("exec", "p", "--", "no-such", env=way)
            assert done.code == 1
            assert 'exec: "no-such": executable file not found in $PATH' in done.err
            done = await lab.kubectl("exec", "p", "-c", "x", "--", "ls", env=way)
            assert (done.code, "container x is not valid for pod p" in done.err) == (1, True)
            async with lab.terminal("exec", "-it", "p", "--", "sh", env=way) as terminal:
                await terminal.type("stty size; echo is-$((1+1))\n")
                assert "30 100" in await terminal.until("is-2")
                terminal.resize(66, 22)
                await terminal.type(f"{until_size('22 66')}; echo is-$((1+2))\n")
                await terminal.until("is-3")
                await terminal.type("exit 4\n")
                await terminal.until("command terminated with exit code 4")
                assert await terminal.process.wait() == 4


def until_size(size: str) -> str:
    """Shell: wait until the terminal has this size."""
    return f'until [ "$(stty size)" = "{size}" ]; do sleep 0.1; done'


@BOTH
async def test_attach_and_run(kind: str, tmp_path: Path) -> None:
    async with open_lab(kind, tmp_path) as lab:
        await lab.run_pod("i", "exec sh", stdin=True, tty=True)
        for way in WAYS:
            async with lab.terminal("attach", "-it", "i", env=way) as terminal:
                # To have the screen painted anew kubectl first tells a size that is one too large.
                await terminal.type(f"N=x$N; {until_size('30 100')}; echo is-$N-$((1+1))\n")
                seen = await terminal.until("-2\r\n")
                if way:
                    assert "is-xx-2" in seen  # the same shell as before
                    await terminal.type("exit 0\n")
                    await terminal.process.wait()
        overrides = '--overrides={"spec":{"nodeName":"node-1"}}'
        script = "while read x; do echo got $x; done; exit 7"
        done = await lab.kubectl(
            *("run", "r", "-i", "--rm", "--image=busybox", "--restart=Never", overrides),
            *("--quiet", "--", "sh", "-c", script),
            stdin=b"one\ntwo\n",
        )
        assert (done.code, done.out) == (7, "got one\ngot two\n"), done


@BOTH
async def test_copy(kind: str, tmp_path: Path) -> None:
    source, target = tmp_path / "from", tmp_path / "to"
    (source / "below").mkdir(parents=True)
    (source / "below" / "data").write_bytes(DATA)
    inside = tmp_path / "inside" if kind == "process" else Path("/inside")
    async with open_lab(kind, tmp_path) as lab:
        await lab.run_pod("p", "sleep 1000 & wait")
        done = await lab.kubectl("cp", str(source), f"p:{inside}")
        assert done.code == 0, done
        done = await lab.kubectl("exec", "p", "--", "ls", f"{inside}/below")
        assert done.out == "data\n"
        done = await lab.kubectl("cp", f"p:{inside}/below", str(target))
        assert done.code == 0, done
        assert (target / "data").read_bytes() == DATA


@BOTH
async def test_debug(kind: str, tmp_path: Path) -> None:
    async with open_lab(kind, tmp_path) as lab:
        await lab.run_pod("p", "sleep 1000 & wait")
        script = "read x; echo got $x; tr '\\0' ' ' < /proc/1/cmdline; echo"
        words = (
            "debug",
            "p",
            "--image=busybox",
            "--target=c",
            "-i",
            "--quiet",
            "--profile=general",
        )
        done = await lab.kubectl(*words, "--", "sh", "-c", script, stdin=b"typed\n")
        assert done.code == 0, done
        assert "got typed\n" in done.out
        if kind == "oci":
            assert "sh -c sleep 1000 & wait" in done.out  # the target's first process
        shown = await lab.kubectl("get", "pod", "p", "-o", "json")
        (status,) = json.loads(shown.out)["status"]["ephemeralContainerStatuses"]
        assert status["image"] == "busybox"
        done = await lab.kubectl("debug", "p", "--image=busybox", "--target=x", "--", "true")
        assert done.code == 1
        assert 'targetContainerName: Not found: "x"' in done.err


def free_port() -> int:
    with socket.socket() as sock:
        sock.bind(("127.0.0.1", 0))
        return int(sock.getsockname()[1])


async def fetch(port: int, path: str = "/") -> bytes:
    """The body of a page; waits until somebody listens."""
    body = b""

    class Parser:
        done = False

        def on_body(self, data: bytes) -> None:
            nonlocal body
            body += data

        def on_message_complete(self) -> None:
            self.done = True

    while True:
        try:
            stream = await trio.open_tcp_stream("127.0.0.1", port)
        except OSError:
            await trio.sleep(0.05)
            continue
        async with stream:
            await stream.send_all(f"GET {path} HTTP/1.1\r\nHost: 127.0.0.1\r\n\r\n".encode())
            events = Parser()
            parser = httptools.HttpResponseParser(events)
            while not events.done:
                data = bytes(await stream.receive_some())
                if not data:
                    break
                parser.feed_data(data)
            return body


async def serving(lab: Lab, text: str) -> None:
    with trio.fail_after(SECONDS):
        while text not in (await lab.kubectl("logs", "p")).out:
            await trio.sleep(0.05)


@BOTH
async def test_port_forward(kind: str, tmp_path: Path) -> None:
    async with open_lab(kind, tmp_path) as lab:
        await lab.run_pod("p", SERVE % ("$POD_IP" if kind == "process" else "127.0.0.1"))
        await serving(lab, "serving")
        for way in WAYS:
            port = free_port()
            async with lab.background("port-forward", "pod/p", f"{port}:8080", env=way):
                with trio.fail_after(SECONDS):
                    assert await fetch(port) == b"hi\n"
                    async with trio.open_nursery() as nursery:
                        for _ in range(10):
                            nursery.start_soon(fetch, port)


async def test_proxy_and_logs(tmp_path: Path) -> None:
    async with open_lab("process", tmp_path) as lab:
        await lab.run_pod("p", SERVE % "$POD_IP")
        await serving(lab, "serving")
        done = await lab.kubectl("get", "--raw", "/api/v1/nodes/node-1/proxy/healthz")
        assert done.out == "ok"
        port = free_port()
        path = "/api/v1/namespaces/default/pods/p:8080/proxy/"
        async with lab.background("proxy", f"--port={port}", "--reject-paths=^$"):
            with trio.fail_after(SECONDS):
                assert await fetch(port, path) == b"hi\n"
            server = f"--server=http://127.0.0.1:{port}"
            done = await lab.kubectl(server, "exec", "p", "--", "echo", "through")
            assert done.out == "through\n", done
        async with lab.background("logs", "-f", "p") as following:
            assert following.stdout is not None
            with trio.fail_after(SECONDS):
                assert bytes(await following.stdout.receive_some()) == b"serving\n"


async def test_a_killed_client_leaves_no_process(tmp_path: Path) -> None:
    async with open_lab("process", tmp_path) as lab:
        await lab.run_pod("p", "sleep 1000 & wait")
        (tmp_path / "mark").touch()
        script = f"echo ready; tail -f {tmp_path}/mark"
        for way in WAYS:
            async with lab.background("exec", "p", "--", "sh", "-c", script, env=way) as process:
                assert process.stdout is not None
                assert await process.stdout.receive_some() == b"ready\n"
            with trio.fail_after(10):
                while _tails(tmp_path):
                    await trio.sleep(0.05)


def _tails(directory: Path) -> list[str]:
    mark = f"{directory}/mark".encode()
    found = []
    for path in Path("/proc").iterdir():
        if path.name.isdigit():
            try:
                words = (path / "cmdline").read_bytes()
            except OSError:
                continue
            if mark in words:
                found.append(path.name)
    return found
