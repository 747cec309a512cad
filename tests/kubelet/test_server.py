"""The kubelet's HTTPS server: who may ask, what it answers, logs as they grow."""

from __future__ import annotations

import ssl
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from pathlib import Path
from typing import Any

import pytest
import trio

from k8slite.api.kinds import PODS
from k8slite.client.http import Connection, encode_request
from k8slite.kubelet.cleanup import cleanup
from k8slite.kubelet.images.store import ImageStore
from k8slite.kubelet.runtime.process import open_process_runtime
from raftkv.host import Address
from raftkv.os_host import OsHost
from tests.certificates import Authority
from tests.kubelet.world import Node, container, open_fake_node, open_node, pod


@asynccontextmanager
async def connected(
    net: Any, address: Address, tls: ssl.SSLContext | None = None
) -> AsyncIterator[Connection]:
    stream: trio.abc.Stream = await net.open_stream(address)
    if tls is not None:
        stream = trio.SSLStream(stream, tls, server_hostname="localhost", https_compatible=True)
    connection = Connection(stream, address)
    try:
        yield connection
    finally:
        with trio.CancelScope(shield=True):
            await connection.aclose()


async def ask(connection: Connection, path: str) -> tuple[int, bytes]:
    head = await connection.request(encode_request("GET", path, "kubelet", (), None))
    return head.status, await connection.receive_all()


async def test_health_pods_and_unknown_paths(autojump_clock: trio.testing.MockClock) -> None:
    listen = Address("127.100.0.1", 10250)
    async with open_fake_node(serve=True, listen=listen) as (node, _):
        node.api.add(PODS, pod())
        await node.until(lambda: node.status()["phase"] == "Running")
        async with connected(node.host.net, listen) as connection:
            assert await ask(connection, "/healthz") == (200, b"ok")
            status, body = await ask(connection, "/pods")
            assert status == 200
            assert b'"name":"p"' in body
            assert (await ask(connection, "/nothing"))[0] == 404
            assert (await ask(connection, "/containerLogs/default/q/c"))[0] == 404
            assert (await ask(connection, "/containerLogs/default/p/x"))[0] == 404
            assert (await ask(connection, "/containerLogs/default/p/c")) == (200, b"")
            wrong = await ask(connection, "/containerLogs/default/p/c?tailLines=x")
            assert wrong == (400, b"tailLines must be a whole number, not 'x'\n")
            gone = await ask(connection, "/containerLogs/default/p/c?previous=true")
            assert gone[0] == 400
            assert b"previous terminated container" in gone[1]


async def test_nonsense_closes_the_connection(autojump_clock: trio.testing.MockClock) -> None:
    listen = Address("127.100.0.1", 10250)
    async with open_fake_node(serve=True, listen=listen) as (node, _):
        stream = await node.host.net.open_stream(listen)
        await stream.send_all(b"\0\1\2 nonsense\r\n\r\n")
        answer = b""
        while data := await stream.receive_some(1000):
            answer += data
        assert answer.startswith(b"HTTP/1.1 400")
        async with connected(node.host.net, listen) as connection:
            assert (await ask(connection, "/healthz"))[0] == 200


@pytest.mark.parametrize(
    ("who", "token", "always", "status"),
    [
        ("", "", (), 401),
        ("", "bad", (), 401),
        ("", "anna", (), 200),
        ("apiserver", "", (), 200),
        ("other", "", (), 403),
        ("other", "", ("other",), 200),
        ("other", "", ("y",), 200),
        ("other", "anna", (), 403),  # the certificate counts
    ],
)
async def test_who_may_use_the_server(
    who: str, token: str, always: tuple[str, ...], status: int, tmp_path: Path
) -> None:
    authority = Authority(tmp_path)
    groups = {"apiserver": "system:masters", "other": "y"}
    from k8slite.kubelet.runtime.fake import open_fake_runtime

    host = OsHost()
    async with open_fake_runtime(host) as runtime:
        fields: dict[str, Any] = {
            "serve": True,
            "tls": authority.tls("kubelet", require_client=False).server,
            "authorized_users": always,
        }
        async with open_node(runtime, host=host, **fields) as node:
            tls = (
                authority.tls(who, groups[who]).client
                if who
                else ssl.create_default_context(cafile=authority.path)
            )
            headers = [("Authorization", f"Bearer {token}")] if token else []
            async with connected(host.net, node.kubelet.address, tls) as connection:
                assert (await ask(connection, "/healthz"))[0] == 200
                for path in ("/pods", "/pods", "/exec/default/p/c?command=ls&output=1"):
                    request = encode_request("GET", path, "kubelet", headers, None)
                    answer = await connection.request(request)
                    await connection.receive_all()
                    found = 200 if answer.status == 404 else answer.status  # let in: no such pod
                    assert found == status, path
            assert len(node.api.reviews) == (1 if status != 401 and not always else 0)


@asynccontextmanager
async def open_logging_node(root: Path) -> AsyncIterator[Node]:
    try:
        images = ImageStore(root / "images")
        async with open_process_runtime(root, OsHost(), images) as runtime:
            host = OsHost()
            async with open_node(runtime, host=host, root_dir=str(root), serve=True) as node:
                yield node
    finally:
        cleanup(root)


async def test_logs_of_real_containers(tmp_path: Path) -> None:
    async with open_logging_node(tmp_path) as node:
        script = (
            f"echo one; echo two >&2; while ! test -e {tmp_path}/go; do sleep 0.05; done; echo end"
        )
        node.api.add(PODS, pod(containers=[container("c", "sh", "-c", script)]))
        await node.until(lambda: node.status()["phase"] == "Running")
        address = node.kubelet.address
        path = "/containerLogs/default/p/c"
        async with connected(node.host.net, address) as connection:
            with trio.fail_after(10):
                while (await ask(connection, path)) != (200, b"one\ntwo\n"):
                    await trio.sleep(0.02)
            assert (await ask(connection, f"{path}?tailLines=1"))[1] == b"two\n"
            assert (await ask(connection, f"{path}?sinceSeconds=3600"))[1] == b"one\ntwo\n"
            stamped = (await ask(connection, f"{path}?timestamps=true"))[1].split(b"\n")[0]
            assert stamped.endswith(b"Z one")
        async with connected(node.host.net, address) as connection:
            request = encode_request("GET", f"{path}?follow=true", "kubelet", (), None)
            assert (await connection.request(request)).status == 200
            seen = b""
            while seen != b"one\ntwo\n":
                seen += await connection.receive()
            (tmp_path / "go").touch()
            with trio.fail_after(10):
                assert seen + await connection.receive_all() == b"one\ntwo\nend\n"
        await node.until(lambda: node.status()["containerStatuses"][0]["restartCount"] == 1)
        async with connected(node.host.net, address) as connection:
            previous = await ask(connection, f"{path}?previous=true")
            assert previous == (200, b"one\ntwo\nend\n")


async def test_a_reader_who_leaves_is_not_followed_for_ever(tmp_path: Path) -> None:
    async with open_logging_node(tmp_path) as node:
        node.api.add(PODS, pod(containers=[container("c", "sh", "-c", "echo on; sleep 1000")]))
        await node.until(lambda: node.status()["phase"] == "Running")
        for _ in range(3):
            async with connected(node.host.net, node.kubelet.address) as connection:
                path = "/containerLogs/default/p/c?follow=true"
                await connection.request(encode_request("GET", path, "kubelet", (), None))
                assert await connection.receive() == b"on\n"
        async with connected(node.host.net, node.kubelet.address) as connection:
            assert (await ask(connection, "/healthz"))[0] == 200
