"""A lease that is kept alive as long as a block lasts.

Owns: one granted lease and the task that renews it. Says when the lease may be gone (`lost`): no
later than its TTL after the last renewal that was *asked for* in time and answered. Even so a
holder may be paused between looking and acting; who needs certainty compares a revision in a
transaction (`compare(key, "create", "=", lease_key_revision)`), which is what `election` gives.
"""

from __future__ import annotations

import contextlib
import logging
from collections.abc import AsyncIterator

import trio

from raftkv.client.client import KvClient
from raftkv.errors import KvError, LeaseNotFound, UnknownOutcome
from raftkv.streams import only_error

__all__ = ["KeptLease", "open_lease"]

log = logging.getLogger(__name__)


class KeptLease:
    """`id` goes into `put`; `lost` is set when the lease has ended or may have."""

    def __init__(self, lease_id: int, ttl: int, granted_at: float) -> None:
        self.id = lease_id
        self.ttl = ttl
        self.lost = trio.Event()
        self._valid_until = granted_at + ttl  # until then it certainly lives, on trio's clock

    async def keep(self, kv: KvClient) -> None:
        """Renew at every third of the TTL, until it's lost."""
        while not self.lost.is_set():
            await trio.sleep(self.ttl / 3)
            with trio.move_on_at(self._valid_until):
                asked_at = trio.current_time()
                try:
                    await kv.lease_keep_alive(self.id)
                except LeaseNotFound:
                    break
                self._valid_until = asked_at + self.ttl
            if trio.current_time() >= self._valid_until:
                break
        log.info("lease lost id=%x", self.id)
        self.lost.set()


@contextlib.asynccontextmanager
async def open_lease(kv: KvClient, ttl: int) -> AsyncIterator[KeptLease]:
    """Grant a lease of `ttl` seconds, renew it during the block, revoke it afterwards."""
    granted_at = trio.current_time()
    lease = KeptLease(await kv.lease_grant(ttl), ttl, granted_at)
    try:
        async with trio.open_nursery() as nursery:
            nursery.start_soon(lease.keep, kv)
            yield lease
            nursery.cancel_scope.cancel()
    except BaseExceptionGroup as group:
        raise only_error(group) from None
    finally:
        with trio.move_on_after(1) as farewell:
            farewell.shield = True
            try:
                await kv.lease_revoke(lease.id)
            except (LeaseNotFound, UnknownOutcome):
                pass
            except KvError as error:
                log.info("lease not revoked id=%x error=%s", lease.id, error)
