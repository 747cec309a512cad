"""The stores that can be measured, by name, so that a benchmark treats them alike."""

from __future__ import annotations

import contextlib
import shutil
import tempfile
from collections.abc import AsyncIterator, Sequence
from pathlib import Path

from bench import etcd, members
from bench.processes import Running
from bench.wires import NO_WIRES, Wires

__all__ = ["STORES", "leader_of", "open_store"]

STORES = {
    "raftkv": (members.open_members, members.leader_of),
    "etcd": (etcd.open_etcd, etcd.leader_of),
}


@contextlib.asynccontextmanager
async def open_store(
    store: str,
    size: int,
    *,
    parent: str | None = None,
    options: Sequence[str] = (),
    wires: Wires = NO_WIRES,
) -> AsyncIterator[Running]:
    """Fresh members in a directory of their own below `parent`; all of it is gone at the end."""
    open_members, _ = STORES[store]
    directory = tempfile.mkdtemp(prefix=f"{store}-bench-", dir=parent)
    try:
        async with open_members(size, Path(directory), options=options, wires=wires) as running:
            yield running
    finally:
        shutil.rmtree(directory, ignore_errors=True)


async def leader_of(running: Running) -> int:
    """The number (from 0) of the member that leads, as soon as one does."""
    _, leader_of = STORES[running.store]
    running.check()
    return await leader_of(running)
