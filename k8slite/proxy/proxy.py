"""The proxy of a node: watches services and endpoints, and keeps its writer in step.

Level-triggered: every change only says that the table may differ; the table is built from the
informers' copies, and the writer finds what to change. Changes are gathered, so that a rollout of
a thousand pods is not a thousand writes.
"""

from __future__ import annotations

import logging
from collections.abc import AsyncIterator, Sequence
from contextlib import asynccontextmanager

import attrs
import trio

from k8slite.api.kinds import ENDPOINT_SLICES, SERVICES
from k8slite.api.meta import Obj
from k8slite.client.background import open_background
from k8slite.client.client import ClientConfig, open_client
from k8slite.client.informer import Informer, SharedInformers, open_informers
from k8slite.proxy.table import TableBuilder
from k8slite.proxy.writer import Follower, WriteFailed, Writer
from raftkv.host import Host

__all__ = ["Proxy", "ProxyConfig", "open_proxy", "open_proxy_over"]

log = logging.getLogger(__name__)


@attrs.frozen
class ProxyConfig:
    """`min_sync_seconds`: at least this between two writes (kube-proxy's minSyncPeriod).
    `retry_seconds`: after a failure, or while something could not be done.
    `look_seconds`: how often the writer looks whether somebody removed its rules, and the table is
    handed to it again."""

    client: ClientConfig
    node_name: str
    min_sync_seconds: float = 1.0
    retry_seconds: float = 5.0
    look_seconds: float = 30.0


class Proxy:
    """A running proxy. Use `open_proxy`."""

    def __init__(
        self,
        config: ProxyConfig,
        services: Informer,
        slices: Informer,
        writer: Writer,
        followers: Sequence[Follower] = (),
    ) -> None:
        self._config = config
        self._services = services
        self._slices = slices
        self._writer = writer
        self._followers = followers
        self._builder = TableBuilder(config.node_name)
        self._dirty = trio.Event()
        self._synced = trio.Event()
        self.syncs = 0
        self.ports = 0
        self.problems: list[str] = []
        """What the last sync could not do, one sentence each."""
        for informer in (services, slices):
            informer.add_handler(self._changed)

    async def wait_synced(self) -> None:
        """Return once the first table is real."""
        await self._synced.wait()

    def _changed(self, old: Obj | None, new: Obj | None) -> None:
        self._dirty.set()

    async def run(self) -> None:
        await self._services.wait_synced()
        await self._slices.wait_synced()
        config = self._config
        while True:
            self._dirty = trio.Event()
            started = trio.current_time()
            again = config.look_seconds if await self._sync() else config.retry_seconds
            await trio.sleep_until(started + config.min_sync_seconds)
            with trio.move_on_after(again) as patience:
                await self._dirty.wait()
            if patience.cancelled_caught:
                await self._writer.look()

    async def _sync(self) -> bool:
        """Whether everything could be done."""
        table = self._builder.build(self._services.list(), self._slices.list())
        try:
            problems = await self._writer.sync(table)
        except WriteFailed as error:
            problems = [str(error)]
        else:
            self.syncs += 1
            self.ports = len(table)
            self._synced.set()
            for follower in self._followers:
                problems = [*problems, *await follower.sync(table)]
        if problems != self.problems:
            for problem in problems:
                log.warning("node=%s problem=%s", self._config.node_name, problem)
        self.problems = problems
        return not problems


@asynccontextmanager
async def open_proxy(config: ProxyConfig, host: Host, writer: Writer) -> AsyncIterator[Proxy]:
    """A proxy that runs until left. What it wrote stays, as with kube-proxy: connections go on
    while the proxy is restarted; `writer.cleanup` removes it."""
    async with (
        open_client(config.client, host) as client,
        open_informers(client, host) as informers,
        open_proxy_over(informers, config, writer) as proxy,
    ):
        yield proxy


@asynccontextmanager
async def open_proxy_over(
    informers: SharedInformers,
    config: ProxyConfig,
    writer: Writer,
    followers: Sequence[Follower] = (),
) -> AsyncIterator[Proxy]:
    """`open_proxy` over informers that others use as well."""
    async with open_background() as nursery:
        services, slices = informers.of(SERVICES), informers.of(ENDPOINT_SLICES)
        proxy = Proxy(config, services, slices, writer, followers)
        nursery.start_soon(proxy.run, name="proxy")
        yield proxy
