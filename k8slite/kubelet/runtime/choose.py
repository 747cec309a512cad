"""Runtimes by name."""

from __future__ import annotations

from collections.abc import AsyncGenerator, Sequence
from contextlib import asynccontextmanager
from pathlib import Path

from k8slite.kubelet.images.store import ImageStore
from k8slite.kubelet.runtime.fake import open_fake_runtime
from k8slite.kubelet.runtime.interface import Runtime
from k8slite.kubelet.runtime.oci import open_oci_runtime
from k8slite.kubelet.runtime.process import open_process_runtime
from raftkv.host import Host

RUNTIMES = ("oci", "process", "fake")


@asynccontextmanager
async def open_runtime(
    name: str,
    root_dir: str | Path,
    host: Host,
    images: ImageStore,
    registry_command: Sequence[str] = (),
) -> AsyncGenerator[Runtime]:
    """The runtime of that name (of RUNTIMES). `registry_command`: a way into the network where
    registries are, where it is another. Raises RuntimeFailure when it cannot be had here,
    ValueError for another name."""
    if name == "oci":
        async with open_oci_runtime(
            root_dir, host, images, registry_command=registry_command
        ) as oci:
            yield oci
    elif name == "process":
        async with open_process_runtime(
            root_dir, host, images, registry_command=registry_command
        ) as process:
            yield process
    elif name == "fake":
        async with open_fake_runtime(host) as fake:
            yield fake
    else:
        raise ValueError(f"{name!r} is no runtime; there are {', '.join(RUNTIMES)}")
