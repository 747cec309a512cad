"""The store that a StoreConfig names."""

from __future__ import annotations

from collections.abc import AsyncIterator
from contextlib import asynccontextmanager

from k8slite.apiserver.config import StoreConfig
from k8slite.apiserver.store.base import Store
from k8slite.apiserver.store.memory import MemoryStore
from raftkv.host import Host

__all__ = ["open_store"]


@asynccontextmanager
async def open_store(config: StoreConfig, host: Host) -> AsyncIterator[Store]:
    """Memory without endpoints, else a client of raftkv."""
    if not config.endpoints:
        yield MemoryStore()
        return
    from k8slite.apiserver.store.raftkv import open_raftkv_store

    async with open_raftkv_store(config, host) as store:
        yield store
