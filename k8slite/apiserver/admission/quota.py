"""ResourceQuota: what a namespace may take, exactly, however many ask at the same time.

A write that takes more is committed together with the quota's new `status.used`, on condition
that the quota is still as it was seen: of two that race for the last place one is refused,
whichever apiserver they asked, and what was not written was not charged. Within one server
those that charge the same namespace wait for each other, which costs less than conflicts.
"""

from __future__ import annotations

from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from weakref import WeakKeyDictionary

import trio
from attrs import define, field

from k8slite.api.kinds import RESOURCE_QUOTAS
from k8slite.api.meta import Obj
from k8slite.api.quota import (
    Amounts,
    added,
    exceeded,
    grown,
    missing_requests,
    plain_kind,
    selects,
    usage,
)
from k8slite.api.status import forbidden
from k8slite.apiserver.call import Call
from k8slite.apiserver.core import Core
from k8slite.apiserver.forms import read
from k8slite.apiserver.objects import encode, storage_key
from k8slite.apiserver.store.base import Write
from k8slite.apiserver.watch_cache import Entry

__all__ = ["Turn", "charges", "quota_turn"]


@define(eq=False)
class Turn:
    """Who charges a namespace's quotas next, and what the last one must tell: its revision."""

    lock: trio.Lock = field(factory=trio.Lock)
    revision: int = 0


_turns: WeakKeyDictionary[Core, dict[str, Turn]] = WeakKeyDictionary()
"""By namespace; a turn is dropped when nobody waits for it."""


@asynccontextmanager
async def quota_turn(call: Call, new: Obj, old: Obj | None) -> AsyncIterator[Turn]:
    """Within, nobody else of this server charges the namespace's quotas, and the mirror shows
    what the last one did."""
    if not _charged(call, new, old):
        yield Turn()
        return
    turns = _turns.setdefault(call.core, {})
    turn = turns.setdefault(call.namespace, Turn())
    try:
        async with turn.lock:
            await call.core.mirror.wait_revision(turn.revision)
            yield turn
    finally:
        if not turn.lock.locked() and turns.get(call.namespace) is turn:
            del turns[call.namespace]


async def charges(call: Call, new: Obj, old: Obj | None) -> list[Write]:
    """The new states of the quotas that a write takes from. Raises ApiError 403.

    A refusal rests on the newest state.
    """
    charged = _charged(call, new, old)
    if any(_refusal(call, new, entry, more) for entry, more in charged):
        await call.core.mirror.wait_fresh()
        charged = _charged(call, new, old)
    writes: list[Write] = []
    for entry, more in charged:
        refusal = _refusal(call, new, entry, more)
        if refusal:
            metadata = new["metadata"]
            shown = metadata.get("name") or metadata.get("generateName", "")
            raise forbidden(call.kind, shown, refusal)
        quota = read(RESOURCE_QUOTAS, entry)
        status = {**quota["status"], "used": added(quota["status"].get("used") or {}, more)}
        key = storage_key(RESOURCE_QUOTAS, call.namespace, quota["metadata"]["name"])
        writes.append(Write(key, encode({**quota, "status": status}), entry.revision))
    return writes


def _charged(call: Call, new: Obj, old: Obj | None) -> list[tuple[Entry, Amounts]]:
    """The quotas that count what this write takes more, and how much."""
    kind = call.kind
    if not kind.namespaced or not call.namespace:
        return []
    found: list[tuple[Entry, Amounts]] = []
    for entry in call.core.mirror.cache(RESOURCE_QUOTAS).select(f"{call.namespace}/"):
        quota = entry.parsed()
        hard = (quota.get("status") or {}).get("hard") or {}
        names = [name for name in hard if plain_kind(name) == kind.resource]
        if not names or not selects(quota, kind, new):
            continue
        before = usage(kind, old) if old is not None and selects(quota, kind, old) else {}
        more = grown(usage(kind, new), before)
        more = {name: more[name] for name in names if name in more}
        if more or (old is None and kind.resource == "pods"):
            found.append((entry, more))
    return found


def _refusal(call: Call, new: Obj, entry: Entry, more: Amounts) -> str:
    quota = entry.parsed()
    name, status = quota["metadata"]["name"], quota["status"]
    hard, used = status["hard"], status.get("used") or {}
    if call.kind.resource == "pods":
        missing = missing_requests(new, hard)
        if missing:
            return f"failed quota: {name}: {missing}"
    unknown = sorted(resource for resource in more if resource not in used)
    if unknown:
        return f"status unknown for quota: {name}, resources: {','.join(unknown)}"
    over = exceeded(hard, used, more)
    return f"exceeded quota: {name}, {over}" if over else ""
