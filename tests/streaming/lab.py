"""An apiserver and a kubelet with real containers on this machine, over TLS, and kubectl."""

from __future__ import annotations

import fcntl
import json
import os
import ssl
import struct
import subprocess
import termios
from collections.abc import AsyncIterator, Mapping
from contextlib import asynccontextmanager
from pathlib import Path
from types import MappingProxyType
from typing import Any

import attrs
import trio

from k8slite.api.kinds import CONFIG_MAPS, KIND, PODS
from k8slite.api.meta import condition_is
from k8slite.apiserver import StaticToken, open_apiserver
from k8slite.client.client import Client, ClientConfig, open_client
from k8slite.kubelet.cleanup import cleanup, leftovers
from k8slite.kubelet.images.store import ImageStore
from k8slite.kubelet.kubelet import open_kubelet
from k8slite.kubelet.network import LoopbackNetwork
from k8slite.kubelet.runtime.oci import open_oci_runtime
from k8slite.kubelet.runtime.process import open_process_runtime
from raftkv.host import Address
from raftkv.os_host import OsHost
from tests.apiserver.support import ADMIN, TOKENS, make_config
from tests.certificates import Authority
from tests.kubelet.world import config

NODE_TOKEN = StaticToken("node-token", "system:node:node-1", "", ("system:nodes",))
SECONDS = 30.0


@attrs.frozen
class Result:
    code: int
    out: str
    err: str


@attrs.frozen
class Lab:
    """A cluster of one node; `directory` has the kubeconfig."""

    kind: str
    directory: Path
    api: Client
    endpoint: Address

    def command(self, *words: str) -> list[str]:
        return ["kubectl", f"--kubeconfig={self.directory}/kubeconfig", *words]

    def env(self, more: Mapping[str, str]) -> dict[str, str]:
        home = {"HOME": str(self.directory), "PATH": os.environ["PATH"], "TERM": "xterm"}
        return {**home, **more}

    async def kubectl(
        self, *words: str, stdin: bytes = b"", env: Mapping[str, str] = MappingProxyType({})
    ) -> Result:
        """Run kubectl to its end."""
        with trio.fail_after(SECONDS):
            done = await trio.run_process(
                self.command(*words),
                stdin=stdin,
                capture_stdout=True,
                capture_stderr=True,
                check=False,
                env=self.env(env),
            )
        return Result(done.returncode, done.stdout.decode("latin-1"), done.stderr.decode())

    @asynccontextmanager
    async def background(
        self, *words: str, env: Mapping[str, str] = MappingProxyType({})
    ) -> AsyncIterator[trio.Process]:
        """kubectl while the body runs; its standard output can be read."""
        process = await trio.lowlevel.open_process(
            self.command(*words),
            stdout=subprocess.PIPE,
            stderr=subprocess.DEVNULL,
            env=self.env(env),
        )
        try:
            yield process
        finally:
            await _kill(process)

    @asynccontextmanager
    async def terminal(
        self, *words: str, env: Mapping[str, str] = MappingProxyType({})
    ) -> AsyncIterator[Terminal]:
        """kubectl at a terminal of 100 columns and 30 rows."""
        master, slave = os.openpty()
        size = struct.pack("HHHH", 30, 100, 0, 0)
        fcntl.ioctl(master, termios.TIOCSWINSZ, size)
        process = await trio.lowlevel.open_process(
            ["setsid", "--ctty", *self.command(*words)],
            stdin=slave,
            stdout=slave,
            stderr=slave,
            env=self.env(env),
        )
        os.close(slave)
        terminal = Terminal(master, trio.lowlevel.FdStream(master), process)
        try:
            with trio.fail_after(SECONDS):
                yield terminal
        finally:
            await _kill(process)
            await terminal.stream.aclose()

    async def run_pod(self, name: str, script: str, **fields: Any) -> None:
        """A pod that runs a shell script, once it runs."""
        field = {"fieldRef": {"fieldPath": "status.podIP"}}
        container = {
            "name": "c",
            "image": "busybox",
            "command": ["sh", "-c", script],
            "env": [{"name": "POD_IP", "valueFrom": field}],
            **fields,
        }
        spec = {"nodeName": "node-1", "containers": [container], "terminationGracePeriodSeconds": 0}
        meta = {"name": name, "namespace": "default"}
        await self.api.create(
            PODS, {"apiVersion": "v1", "kind": "Pod", "metadata": meta, "spec": spec}
        )
        with trio.fail_after(SECONDS):
            while not condition_is(await self.api.get(PODS, name, "default"), "Ready"):
                await trio.sleep(0.05)


async def _kill(process: trio.Process) -> None:
    with trio.CancelScope(shield=True):
        process.kill()
        await process.wait()
        if process.stdout is not None:
            await process.stdout.aclose()


@attrs.define
class Terminal:
    master: int
    stream: trio.lowlevel.FdStream
    process: trio.Process
    seen: bytes = b""

    def resize(self, columns: int, rows: int) -> None:
        size = struct.pack("HHHH", rows, columns, 0, 0)
        fcntl.ioctl(self.master, termios.TIOCSWINSZ, size)

    async def type(self, text: str) -> None:
        await self.stream.send_all(text.encode())

    async def until(self, text: str) -> str:
        """Read until it is shown; everything that has been."""
        while text.encode() not in self.seen:
            try:
                data = bytes(await self.stream.receive_some())
            except trio.BrokenResourceError:
                data = b""
            assert data, f"ended without {text!r}: {self.seen.decode()}"
            self.seen += data
        return self.seen.decode()


@asynccontextmanager
async def open_lab(kind: str, directory: Path) -> AsyncIterator[Lab]:
    """A running lab with runtime `kind`; leaving it checks that nothing is left."""
    authority = Authority(directory)
    host = OsHost()

    settings = make_config(
        tls=authority.tls("apiserver", require_client=False).server,
        kubelet_tls=authority.tls("kube-apiserver-kubelet-client", "system:masters").client,
        tokens=(*TOKENS, NODE_TOKEN),
    )
    client_tls = ssl.create_default_context(cafile=str(authority.path))
    opener = open_process_runtime if kind == "process" else open_oci_runtime
    root = directory / "kubelet"
    try:
        async with open_apiserver(settings, OsHost("test")) as server:
            _write_kubeconfig(directory, server.url, str(authority.path))
            admin = ClientConfig(endpoints=server.addresses, token=ADMIN, tls=client_tls)
            async with open_client(admin, host) as api:
                await _prepare(api)
                async with opener(root, host, ImageStore(root / "images")) as runtime:
                    node = config(
                        str(root),
                        client=ClientConfig(
                            endpoints=server.addresses, token=NODE_TOKEN.token, tls=client_tls
                        ),
                        serve=True,
                        node_ip="127.0.0.1",
                        tls=authority.tls(
                            "system:node:node-1", "system:nodes", require_client=False
                        ).server,
                    )
                    network = LoopbackNetwork("127.244.6.0/24")
                    async with open_kubelet(node, host, runtime, network):
                        yield Lab(kind, directory, api, server.address)
    finally:
        cleanup(root)
    assert leftovers(root) == []


async def _prepare(api: Client) -> None:
    """What the controllers would make."""
    meta = {"name": "kube-root-ca.crt", "namespace": "default"}
    await api.create(
        CONFIG_MAPS,
        {"apiVersion": "v1", "kind": "ConfigMap", "metadata": meta, "data": {"ca.crt": "x"}},
    )
    account = {"name": "default", "namespace": "default"}
    await api.create(
        KIND["serviceaccounts"], {"apiVersion": "v1", "kind": "ServiceAccount", "metadata": account}
    )


def _write_kubeconfig(directory: Path, url: str, ca: str) -> None:
    cluster = {"server": url, "certificate-authority": ca}
    content = {
        "apiVersion": "v1",
        "kind": "Config",
        "current-context": "lab",
        "contexts": [{"name": "lab", "context": {"cluster": "lab", "user": "admin"}}],
        "clusters": [{"name": "lab", "cluster": cluster}],
        "users": [{"name": "admin", "user": {"token": ADMIN}}],
    }
    (directory / "kubeconfig").write_text(json.dumps(content))
