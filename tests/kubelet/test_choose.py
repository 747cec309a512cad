"""Runtimes by name."""

from __future__ import annotations

from pathlib import Path

import pytest

from k8slite.kubelet.images.store import ImageStore
from k8slite.kubelet.runtime.choose import open_runtime
from k8slite.kubelet.runtime.interface import RuntimeFailure
from raftkv.os_host import OsHost


@pytest.mark.parametrize("name", ["process", "fake"])
async def test_by_name(name: str, tmp_path: Path) -> None:
    images = ImageStore(tmp_path / "images")
    async with open_runtime(name, tmp_path, OsHost(), images) as runtime:
        assert runtime.name == name


async def test_no_such_runtime(tmp_path: Path) -> None:
    images = ImageStore(tmp_path / "images")
    with pytest.raises(ValueError, match="there are oci, process, fake"):
        async with open_runtime("docker", tmp_path, OsHost(), images):
            pass


async def test_containers_need_root(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    images = ImageStore(tmp_path / "images")
    monkeypatch.setattr("os.geteuid", lambda: 1000)
    with pytest.raises(RuntimeFailure, match="needs root"):
        async with open_runtime("oci", tmp_path, OsHost(), images):
            pass
