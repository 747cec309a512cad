"""Leader election by a Lease object, as client-go does it.

`decide` is pure: what a candidate may do with the Lease it sees. The rest renews and cancels.

What it promises, and what not. A candidate takes a Lease only after it has not seen it change
for the whole lease duration *by its own monotonic clock*, and the update carries the
resourceVersion it decided on, so that of two candidates one wins. A leader that could not renew
for `renew_seconds` stops its work (`run` is cancelled) before others may take over, since
renew_seconds < lease_seconds. A leader whose process stood still meanwhile (SIGSTOP, a swapped
machine) finds out when it runs again: in between, requests it had already sent may still be
executed. This is the general limit of leases; what fences such a late write is its own
precondition. Hence the rule for all our controllers: updates carry the resourceVersion they
were planned on, deletions the uid, and creations a name that a second leader would draw too, or
an owner that notices one too many.
"""

from __future__ import annotations

import logging
from collections.abc import Awaitable, Callable
from enum import Enum

import trio
from attrs import define, frozen

from k8slite.api.kinds import LEASES
from k8slite.api.meta import Obj, copy, format_micro_time, resource_version
from k8slite.api.status import ApiError
from k8slite.client.api import Api
from k8slite.client.errors import REQUEST_ERRORS
from raftkv.host import Host

__all__ = ["LeaderElectionConfig", "LeaderState", "run_leader_elected"]

log = logging.getLogger(__name__)

NOT_FOUND = 404
RELEASE_SECONDS_MAX = 2.0
JITTER = 1.2


@frozen(kw_only=True)
class LeaderElectionConfig:
    """Which Lease, who we are, and the three times (client-go's LeaseDuration, RenewDeadline and
    RetryPeriod), which must decrease in this order."""

    namespace: str = "kube-system"
    name: str
    identity: str
    lease_seconds: float = 15.0
    renew_seconds: float = 10.0
    retry_seconds: float = 2.0

    def __attrs_post_init__(self) -> None:
        if not self.lease_seconds > self.renew_seconds > JITTER * self.retry_seconds > 0:
            raise ValueError(
                f"leader election {self.name}: lease_seconds={self.lease_seconds} must be more "
                f"than renew_seconds={self.renew_seconds}, and that more than "
                f"{JITTER} * retry_seconds={self.retry_seconds}"
            )


@define
class LeaderState:
    """What one candidate knows: the Lease as last seen, and when (monotonic) it last changed.

    `transitions` numbers the terms of leadership: it grows with each change of holder and may
    serve as a fencing token.
    """

    leading: bool = False
    transitions: int = 0
    holder: str = ""
    seen: Obj | None = None
    changed_at: float = 0.0

    def observe(self, lease: Obj, now: float) -> None:
        """Note the Lease; its age counts from when it changed under our eyes."""
        if self.seen is None or resource_version(self.seen) != resource_version(lease):
            self.seen = lease
            self.changed_at = now
        self.holder = lease["spec"].get("holderIdentity") or ""


class Decision(Enum):
    CREATE = "create"
    TAKE = "take"
    RENEW = "renew"
    WAIT = "wait"


def decide(state: LeaderState, identity: str, lease: Obj | None, now: float) -> Decision:
    """What to do about the Lease (None: there is none); `state` has observed it (pure)."""
    if lease is None:
        return Decision.CREATE
    if state.holder == identity:
        return Decision.RENEW
    duration = lease["spec"].get("leaseDurationSeconds") or 0
    if not state.holder or now >= state.changed_at + duration:
        return Decision.TAKE
    return Decision.WAIT


def next_lease(
    config: LeaderElectionConfig, decision: Decision, lease: Obj | None, now: str
) -> Obj:
    """The Lease to write; `now` is a MicroTime (pure)."""
    fresh: Obj = {
        "apiVersion": "coordination.k8s.io/v1",
        "kind": "Lease",
        "metadata": {"name": config.name, "namespace": config.namespace},
        "spec": {"leaseTransitions": 0},
    }
    written = fresh if lease is None else copy(lease)
    spec = written["spec"]
    spec["holderIdentity"] = config.identity
    spec["leaseDurationSeconds"] = max(1, round(config.lease_seconds))
    spec["renewTime"] = now
    if decision is not Decision.RENEW:
        spec["acquireTime"] = now
    if decision is Decision.TAKE:
        spec["leaseTransitions"] = (spec.get("leaseTransitions") or 0) + 1
    return written


async def run_leader_elected(
    api: Api,
    host: Host,
    config: LeaderElectionConfig,
    run: Callable[[], Awaitable[None]],
    state: LeaderState | None = None,
) -> None:
    """Wait to become leader, then run `run`; return when leadership is lost (`run` is cancelled
    and has ended by then) or when `run` returns.

    On the way out, also when cancelled, the Lease is released if we hold it, so that the next
    leader need not wait. `state` lets others look.
    """
    elector = _Elector(api, host, config, state or LeaderState())
    await elector.acquire()
    log.info("leading lease=%s identity=%s", config.name, config.identity)
    try:
        async with trio.open_nursery() as nursery:

            async def lead() -> None:
                await run()
                nursery.cancel_scope.cancel()

            nursery.start_soon(lead)
            await elector.renew_until_lost()
            log.warning("leadership lost lease=%s identity=%s", config.name, config.identity)
            nursery.cancel_scope.cancel()
    finally:
        elector.state.leading = False
        with trio.move_on_after(RELEASE_SECONDS_MAX, shield=True):
            await elector.release()


class _Elector:
    def __init__(
        self, api: Api, host: Host, config: LeaderElectionConfig, state: LeaderState
    ) -> None:
        self._api = api
        self._host = host
        self._config = config
        self.state = state

    async def acquire(self) -> None:
        while not await self._try():
            pause = self._config.retry_seconds
            await trio.sleep(pause * (1 + (JITTER - 1) * self._host.rng.random()))

    async def renew_until_lost(self) -> None:
        """Renew every retry period; return once no renewal succeeded for renew_seconds.

        The deadline counts from the *start* of the last successful try: the write may have
        been executed then.
        """
        renewed_at = trio.current_time()
        while True:
            await trio.sleep(self._config.retry_seconds)
            deadline = renewed_at + self._config.renew_seconds
            while True:
                started = trio.current_time()
                if started >= deadline:
                    return
                with trio.CancelScope(deadline=deadline):
                    if await self._try():
                        renewed_at = started
                        break
                    if not self.state.leading:
                        return  # somebody else holds the Lease: no need to wait
                    await trio.sleep(self._config.retry_seconds)

    async def _try(self) -> bool:
        """One round of reading, deciding and writing; True if we hold the Lease now."""
        with trio.move_on_after(self._config.renew_seconds / 2):
            try:
                return await self._round()
            except REQUEST_ERRORS as error:
                level = logging.WARNING if self.state.leading else logging.INFO
                log.log(level, "lease=%s error=%s", self._config.name, error)
        return False

    async def _round(self) -> bool:
        config, state = self._config, self.state
        now = trio.current_time()
        lease: Obj | None = state.seen
        if state.leading and lease is not None:
            # The usual renewal writes over what we wrote last; nothing need be read for that.
            try:
                await self._write(Decision.RENEW, lease, now)
                return True
            except ApiError as error:
                log.info("lease=%s reading again error=%s", config.name, error)
        try:
            lease = await self._api.get(LEASES, config.name, config.namespace)
            state.observe(lease, now)
        except ApiError as error:
            if error.code != NOT_FOUND:
                raise
            lease = None
        decision = decide(state, config.identity, lease, now)
        if decision is Decision.WAIT:
            state.leading = False
            return False
        await self._write(decision, lease, now)
        return True

    async def _write(self, decision: Decision, lease: Obj | None, now: float) -> None:
        stamp = format_micro_time(self._host.now())
        written = next_lease(self._config, decision, lease, stamp)
        if decision is Decision.CREATE:
            answer = await self._api.create(LEASES, written)
        else:
            answer = await self._api.update(LEASES, written)
        self.state.observe(answer, now)
        self.state.transitions = answer["spec"].get("leaseTransitions") or 0
        self.state.leading = True

    async def release(self) -> None:
        """Give the Lease up if it is ours; failing to costs the next leader some waiting."""
        lease = self.state.seen
        if lease is None or self.state.holder != self._config.identity:
            return
        released = copy(lease)
        now = format_micro_time(self._host.now())
        released["spec"].update(
            holderIdentity="", leaseDurationSeconds=1, renewTime=now, acquireTime=now
        )
        try:
            await self._api.update(LEASES, released)
        except REQUEST_ERRORS as error:
            log.info("release lease=%s error=%s", self._config.name, error)
