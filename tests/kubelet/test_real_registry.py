"""A pull from Debian's docker-registry, the reference implementation."""

from __future__ import annotations

import subprocess
import time
import urllib.error
import urllib.request
from collections.abc import Iterator
from pathlib import Path

import pytest
import trio

from k8slite.kubelet.images.pull import PullFailed, pull
from k8slite.kubelet.images.reference import parse_reference
from k8slite.kubelet.images.store import ImageStore
from raftkv.os_host import TcpNet
from tests.kubelet.archives import digest, directory, member, oci_files, tar
from tests.ports import free_port

MANIFEST = "application/vnd.oci.image.manifest.v1+json"
CONFIG = """\
version: 0.1
storage: {{filesystem: {{rootdirectory: {root}}}}}
http: {{addr: "127.0.0.1:{port}"}}
log: {{level: error, accesslog: {{disabled: true}}}}
"""


@pytest.fixture
def registry(tmp_path: Path) -> Iterator[str]:
    port = free_port()
    config = tmp_path / "registry.yml"
    config.write_text(CONFIG.format(root=tmp_path / "registry", port=port))
    log = (tmp_path / "registry.log").open("w")
    with (
        log,
        subprocess.Popen(
            ["docker-registry", "serve", str(config)], stdout=log, stderr=subprocess.STDOUT
        ) as process,
    ):
        try:
            _wait(f"http://127.0.0.1:{port}/v2/")
            yield f"127.0.0.1:{port}"
        finally:
            process.terminate()


def _wait(url: str) -> None:
    deadline = time.monotonic() + 20
    while True:
        try:
            urllib.request.urlopen(url, timeout=5).close()
            return
        except OSError:
            assert time.monotonic() < deadline, "the registry does not start"
            time.sleep(0.05)


def request(method: str, url: str, body: bytes = b"", kind: str = "") -> str:
    headers = {"Content-Type": kind or "application/octet-stream"}
    asked = urllib.request.Request(url, body, headers, method=method)
    with urllib.request.urlopen(asked, timeout=10) as answer:
        location: str = answer.headers.get("Location", "")
        return location


def push(
    registry: str, repository: str, tag: str, files: dict[str, bytes], manifest: bytes
) -> None:
    base = f"http://{registry}/v2/{repository}"
    for path, data in files.items():
        if path.startswith("blobs/") and data != manifest:
            where = request("POST", f"{base}/blobs/uploads/")
            request("PUT", f"{where}&digest={digest(data)}", data)
    request("PUT", f"{base}/manifests/{tag}", manifest, MANIFEST)


@pytest.mark.tool("docker-registry")
async def test_pull_from_a_real_registry(registry: str, tmp_path: Path) -> None:
    layers = [tar(directory("etc"), member("etc/name", b"lower")), tar(member("more", b"x" * 9999))]
    files = oci_files(layers, Cmd=["run"])
    [manifest] = [data for data in files.values() if b'"layers": [{' in data]
    push(registry, "team/app", "1", files, manifest)
    store = ImageStore(tmp_path / "store")
    with trio.fail_after(30):
        image = await pull(store, parse_reference(f"{registry}/team/app:1"), (), TcpNet())
        assert image.digest == digest(manifest)
        assert image.config.command == ("run",)
        with pytest.raises(PullFailed, match="404 MANIFEST_UNKNOWN"):
            await pull(store, parse_reference(f"{registry}/team/app:2"), (), TcpNet())
