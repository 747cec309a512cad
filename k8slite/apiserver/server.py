"""An apiserver, opened: listeners, connections, the mirror, and the loops beside them.

`async with open_apiserver(config, host) as server:` enters when the server answers and its
bootstrap objects exist, and leaves when all its connections are closed.
"""

from __future__ import annotations

import logging
from collections.abc import AsyncIterator
from contextlib import AsyncExitStack, asynccontextmanager
from typing import Any

import trio

from k8slite.api.status import ApiError
from k8slite.apiserver.account_secrets import run_account_secrets
from k8slite.apiserver.aggregation.availability import run_availability
from k8slite.apiserver.aggregation.registrations import register_built_in, run_registrations
from k8slite.apiserver.aggregation.remotes import Remotes
from k8slite.apiserver.audit.log import open_audit
from k8slite.apiserver.auth.jwt import Signer
from k8slite.apiserver.auth.open import make_authenticator, make_authorizer
from k8slite.apiserver.backends import Backends
from k8slite.apiserver.bootstrap.identity import Membership
from k8slite.apiserver.bootstrap.objects import bootstrap
from k8slite.apiserver.bootstrap.trust import publish_trust
from k8slite.apiserver.config import ApiserverConfig
from k8slite.apiserver.core import Core
from k8slite.apiserver.definitions import run_definitions
from k8slite.apiserver.expiry import expire_events
from k8slite.apiserver.flow.control import FlowControl
from k8slite.apiserver.http.connection import serve_connection
from k8slite.apiserver.http.crowd import Crowd
from k8slite.apiserver.kind_table import KindTable
from k8slite.apiserver.mirror import Mirror
from k8slite.apiserver.pipeline import Pipeline
from k8slite.apiserver.store.base import Store
from k8slite.apiserver.store.encrypted import open_encrypted
from k8slite.apiserver.store.open import open_store
from raftkv.errors import Compacted, KvError
from raftkv.host import Address, Host, Listener

__all__ = ["Apiserver", "open_apiserver"]

log = logging.getLogger(__name__)


class Apiserver:
    """A running server."""

    def __init__(self, core: Core) -> None:
        self.core = core

    @property
    def addresses(self) -> tuple[Address, ...]:
        """Where it listens, with real ports, in the order of the config."""
        return self.core.addresses

    @property
    def address(self) -> Address:
        """The first of them."""
        return self.core.addresses[0]

    @property
    def url(self) -> str:
        """Of the first address."""
        scheme = "https" if self.core.config.tls is not None else "http"
        return f"{scheme}://{self.address}"

    def status(self) -> dict[str, Any]:
        """What it tells of itself: one flat map."""
        core = self.core
        return {
            "revision": core.mirror.revision,
            "requests": sum(core.metrics.requests.values()),
            "connections": core.crowd.open,
            "ready": all(core.ready.values()),
        }


@asynccontextmanager
async def open_apiserver(
    config: ApiserverConfig, host: Host, store: Store | None = None
) -> AsyncIterator[Apiserver]:
    """Serve the Kubernetes API. `store` lets several servers of one process share a store.

    Raises OSError when an address cannot be had, ValueError for keys that are none.
    """
    async with AsyncExitStack() as stack:
        if store is None:
            store = await stack.enter_async_context(open_store(config.store, host))
        encrypted = open_encrypted(config.encryption_config, store)
        core = _make_core(config, host, encrypted or store)
        core.encrypted = encrypted
        if config.audit_policy:
            core.audit = open_audit(config, host)
            stack.callback(core.audit.close)
        stack.push_async_callback(core.backends.aclose)
        listeners = []
        for address in config.listen:
            listener = await host.net.listen(address)
            stack.push_async_callback(listener.aclose)
            listeners.append(listener)
        core.addresses = tuple(listener.address for listener in listeners)
        pipeline = Pipeline(core)
        async with trio.open_nursery() as nursery:
            nursery.start_soon(core.mirror.run)
            await core.mirror.synced.wait()
            for listener in listeners:
                nursery.start_soon(_accept, core, pipeline, listener)
            nursery.start_soon(_bookmarks, core)
            nursery.start_soon(run_definitions, core)
            nursery.start_soon(run_availability, core)
            nursery.start_soon(_compact, core)
            nursery.start_soon(expire_events, core)
            nursery.start_soon(run_account_secrets, core)
            membership = Membership(core)
            if config.bootstrap:
                await _bootstrap(core)
                await membership.step()
                nursery.start_soon(membership.run)
                nursery.start_soon(run_registrations, core)
            core.ready["bootstrap"] = True
            yield Apiserver(core)
            if config.bootstrap:
                with trio.move_on_after(LEAVE_SECONDS):
                    await membership.leave()
            for listener in listeners:
                await listener.aclose()
            for cache in core.mirror.caches():
                cache.close_all()
            with trio.move_on_after(config.drain_seconds):
                await core.crowd.drain()
            nursery.cancel_scope.cancel()


def _make_core(config: ApiserverConfig, host: Host, store: Store) -> Core:
    mirror = Mirror(
        store,
        history_events=config.watch_history_events,
        store_seconds=config.store_seconds,
    )
    backends = Backends(host, mirror, config.kubelet_tls, config.proxy_client)
    signer = None
    if config.service_account_private_key:
        signer = Signer(config.service_account_private_key)
    kinds = KindTable(mirror)
    return Core(
        config,
        host,
        store,
        mirror,
        kinds,
        make_authenticator(config, mirror, backends, signer),
        make_authorizer(config, mirror, backends),
        signer,
        backends,
        Crowd(config.connections_max),
        FlowControl(mirror, kinds, config.requests_max),
        Remotes(mirror, kinds, host),
    )


async def _bootstrap(core: Core) -> None:
    """Create what is missing; a store without a quorum is waited for."""
    while True:
        try:
            await bootstrap(core)
            await register_built_in(core)
            await publish_trust(core)
            await core.mirror.wait_fresh()
            return
        except (KvError, ApiError) as error:
            log.warning("bootstrap waits for the store: %s", error)
            await trio.sleep(BOOTSTRAP_RETRY_SECONDS)


async def _accept(core: Core, pipeline: Pipeline, listener: Listener) -> None:
    """Serve every connection of a listener, each in its own task."""
    async with trio.open_nursery() as nursery:
        while True:
            try:
                stream = await listener.accept()
            except trio.ClosedResourceError:
                return
            except OSError as error:
                log.warning("accept failed: %s", error)
                core.crowd.make_room()  # the process may have no file descriptor left
                await trio.sleep(ACCEPT_RETRY_SECONDS)
                continue
            core.metrics.connections += 1
            if core.crowd.enter():
                nursery.start_soon(_serve, core, pipeline, stream)
            else:
                log.warning("too many connections at work, refused open=%d", core.crowd.open)
                await trio.aclose_forcefully(stream)


async def _serve(core: Core, pipeline: Pipeline, stream: trio.abc.Stream) -> None:
    try:
        await serve_connection(
            stream,
            pipeline.handle,
            tls=core.config.tls,
            body_bytes_max=core.config.body_bytes_max,
            address=_address_of(stream),
            crowd=core.crowd,
        )
    finally:
        core.crowd.leave()


def _address_of(stream: trio.abc.Stream) -> Address | None:
    """Of the other end."""
    if not isinstance(stream, trio.SocketStream):
        return None
    try:
        host, port = stream.socket.getpeername()[:2]
    except OSError:  # it has gone already
        return None
    return Address(host, port)


async def _bookmarks(core: Core) -> None:
    """Tell idle watchers how far they are, so that they can resume there."""
    while True:
        await trio.sleep(core.config.bookmark_seconds)
        for cache in core.mirror.caches():
            cache.bookmark(core.mirror.revision)


async def _compact(core: Core) -> None:
    """Have the store forget history that is older than one period.

    All servers do this; one that comes second is told Compacted, which is as good.
    """
    before = core.mirror.revision
    while True:
        await trio.sleep(core.config.compact_seconds)
        try:
            with trio.move_on_after(core.config.store_seconds):
                await core.store.compact(before)
        except Compacted:
            log.debug("already compacted revision=%s", before)
        except KvError as error:
            log.warning("compaction failed revision=%s: %s", before, error)
        before = core.mirror.revision


ACCEPT_RETRY_SECONDS = 0.1
LEAVE_SECONDS = 1.0
BOOTSTRAP_RETRY_SECONDS = 0.5
