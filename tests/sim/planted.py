"""Bugs to plant into a whole member, so that the simulation can show that it finds them.

    python -m tests.sim.planted [SEEDS]     find the first seed that notices each one

The core's own are in tests/raft/planted.py. FOUND_BY holds the seeds and what noticed; any change
of the members moves them, and then others find the bug.
"""

from __future__ import annotations

import sys
from collections.abc import Callable, Iterable, Iterator, Sequence
from contextlib import contextmanager
from typing import Any

from netsim.disk import SimFile
from raftkv.client.client import KvClient
from raftkv.errors import KvError, LeaderChanged, ProposalDropped, UnknownOutcome
from raftkv.mvcc.commands import Event
from raftkv.mvcc.leases import Lessor
from raftkv.mvcc.machine import Machine
from raftkv.mvcc.watchers import WatchHub
from raftkv.server.incarnations import Incarnations
from raftkv.server.pending import Pending
from raftkv.storage import records
from tests.sim.scenario import play

__all__ = ["FOUND_BY", "PLANTED", "finding", "found_by", "planted"]

Bug = tuple[Any, str, Callable[..., Any]]


async def _skip_fsync(file: SimFile) -> None:
    return


def _drop_an_event(hub: WatchHub, events: Sequence[Event]) -> dict[int, Sequence[Event]]:
    told = _notify(hub, events)
    if hub.revision % 7 == 0:
        return {watch: matched[:-1] for watch, matched in told.items() if len(matched) > 1}
    return told


def _tell_twice(hub: WatchHub, events: Sequence[Event]) -> dict[int, Sequence[Event]]:
    told = _notify(hub, events)
    if hub.revision % 7 == 0:
        return {watch: [*matched, *matched] for watch, matched in told.items()}
    return told


def _call_the_unknown_refused(pending: Pending, error: KvError) -> None:
    _fail_writes(pending, ProposalDropped() if isinstance(error, LeaderChanged) else error)


def _forget_renewals(lessor: Lessor, lease_id: int, now: float) -> int:
    lessor._table.get(lease_id)
    return 5


def _restore_without_leases(data: bytes) -> Machine:
    machine = _restore(data)
    for lease in list(machine.leases):
        for key in list(lease.keys):
            machine.leases.detach(key, lease.id)
        machine.leases.remove(lease.id)
    return machine


def _promise_the_next(hub: WatchHub, watch_ids: Iterable[int]) -> int | None:
    told = _progress(hub, watch_ids)
    return None if told is None else told + 1


def _listen_to_anybody(known: Incarnations, peer: int, incarnation: int) -> None:
    return


def _call_it_torn(data: memoryview, offset: int) -> None:
    return


async def _try_again(client: KvClient, request: tuple[Any, ...]) -> Any:
    while True:
        try:
            return await _write(client, request)
        except UnknownOutcome:
            continue


_notify = WatchHub.notify
_fail_writes = Pending.fail_writes
_restore = Machine.restore
_progress = WatchHub.progress
_write = KvClient.write

PLANTED: dict[str, Bug] = {
    "fsync is skipped": (SimFile, "sync", _skip_fsync),
    "a watch loses an event": (WatchHub, "notify", _drop_an_event),
    "a watch shows events twice": (WatchHub, "notify", _tell_twice),
    "an unknown outcome is called a refusal": (Pending, "fail_writes", _call_the_unknown_refused),
    "renewals of leases are forgotten": (Lessor, "renew", _forget_renewals),
    "a snapshot comes without its leases": (Machine, "restore", _restore_without_leases),
    "the client repeats writes of unknown outcome": (KvClient, "write", _try_again),
    "progress is told too early": (WatchHub, "progress", _promise_the_next),
    "a wiped member is listened to": (Incarnations, "look", _listen_to_anybody),
    "damage is cut off as a torn tail is": (records, "_damage", _call_it_torn),
}


@contextmanager
def planted(name: str) -> Iterator[None]:
    owner, attribute, wrong = PLANTED[name]
    right = owner.__dict__[attribute]
    setattr(owner, attribute, staticmethod(wrong) if isinstance(right, classmethod) else wrong)
    try:
        yield
    finally:
        setattr(owner, attribute, right)


def finding(name: str, seed: int) -> str:
    """What notices the bug in the story of a seed; empty where nothing does."""
    with planted(name):
        try:
            play(seed)
        except BaseException as error:
            if isinstance(error, KeyboardInterrupt):
                raise
            return _cause(error)
    return ""


def _cause(error: BaseException) -> str:
    while isinstance(error, BaseExceptionGroup):
        error = error.exceptions[0]
    return type(error).__name__


FOUND_BY: dict[str, tuple[int, str]] = {
    "fsync is skipped": (1, "WalDamaged"),
    "a watch loses an event": (0, "WatchViolation"),
    "a watch shows events twice": (0, "WatchViolation"),
    "an unknown outcome is called a refusal": (39, "RevisionViolation"),
    "renewals of leases are forgotten": (3, "LeaseViolation"),
    "a snapshot comes without its leases": (1, "Disagreement"),
    "the client repeats writes of unknown outcome": (13, "RevisionViolation"),
    "progress is told too early": (0, "WatchViolation"),
    "a wiped member is listened to": (8, "AssertionError"),
    "damage is cut off as a torn tail is": (7, "AssertionError"),
}
"""The seed to try first, and what notices; an AssertionError is the core's own: entries that were
acknowledged are gone."""
SEEDS = 80


def found_by(name: str, checker: str) -> int | None:
    """A seed in which that checker notices the bug: the known one, or the first other one."""
    for seed in (FOUND_BY[name][0], *range(SEEDS)):
        if finding(name, seed) == checker:
            return seed
    return None


if __name__ == "__main__":
    limit = int(sys.argv[1]) if len(sys.argv) > 1 else 200
    for bug in PLANTED:
        found = next(((s, f) for s in range(limit) if (f := finding(bug, s))), None)
        print(f'    "{bug}": {found},', flush=True)
