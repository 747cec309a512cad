"""Writes the statuses of pods to the API, as few and as small patches as do.

Owns what each pod's status should be and what the API is known to have. A newer status replaces an
unsent one, so the queue is bounded by the number of pods on the node. At most PATCHES_MAX requests
are under way, one a pod. Failed ones are repeated; a pod that is gone is forgotten.
"""

from __future__ import annotations

import logging

import attrs
import trio

from k8slite.api.kinds import PODS
from k8slite.api.meta import Obj
from k8slite.api.status import ApiError
from k8slite.client.api import Api
from k8slite.client.errors import REQUEST_ERRORS
from k8slite.kubelet.pods import is_static
from k8slite.kubelet.status import OWN_FIELDS, status_patch

log = logging.getLogger(__name__)

PATCHES_MAX = 8
GONE = (404, 409)  # no such pod, or another one of that name
REFUSED = (400, 422)  # the same patch would be refused again


@attrs.define
class _Entry:
    """`known` is the newest version of the pod we have seen; `wanted` None: nothing to send.
    `last`: what was wanted last. `mirror`: the object that shows a static pod in the API."""

    @property
    def target(self) -> Obj | None:
        """What is to be patched; None: a static pod that has no mirror now."""
        return self.mirror if is_static(self.known) else self.known

    known: Obj
    wanted: Obj | None = None
    last: Obj | None = None
    mirror: Obj | None = None
    busy: bool = False
    settled: trio.Event = attrs.field(factory=trio.Event)


class StatusManager:
    def __init__(self, api: Api, *, retry_seconds: float) -> None:
        self._api = api
        self._retry_seconds = retry_seconds
        self._entries: dict[str, _Entry] = {}
        self._dirty: dict[str, None] = {}
        self._work = trio.Event()
        self.patches = 0

    def seen(self, pod: Obj) -> None:
        """A version of the pod from the API."""
        entry = self._entries.get(pod["metadata"]["uid"])
        if entry is not None and _version(pod) >= _version(entry.known):
            entry.known = pod

    def differs(self, uid: str, status: Obj) -> bool:
        """Whether somebody else changed in the API what is ours, after we had settled it.

        The node controller does, when it takes the node for dead: it makes pods unready, and who
        makes them ready again is the kubelet that comes back.
        """
        entry = self._entries.get(uid)
        if entry is None or entry.busy or entry.wanted is not None or entry.target is None:
            return False
        return status_patch(entry.target, status) is not None

    def mirrored(self, uid: str, mirror: Obj | None) -> None:
        """The mirror that shows a static pod, as the API has it."""
        entry = self._entries.get(uid)
        if entry is None:
            return
        fresh = mirror is not None and (
            entry.mirror is None or mirror["metadata"]["uid"] != entry.mirror["metadata"]["uid"]
        )
        if mirror is None or fresh or _version(mirror) >= _version(entry.mirror or mirror):
            entry.mirror = mirror
        if fresh and entry.last is not None:
            self.set(entry.known, entry.last)

    def set(self, pod: Obj, status: Obj) -> None:
        """From now on the pod's status is to be so."""
        uid = pod["metadata"]["uid"]
        entry = self._entries.setdefault(uid, _Entry(pod))
        self.seen(pod)
        entry.wanted = entry.last = status
        entry.settled = trio.Event() if entry.settled.is_set() else entry.settled
        self._dirty[uid] = None
        self._work.set()

    def forget(self, uid: str) -> None:
        entry = self._entries.pop(uid, None)
        self._dirty.pop(uid, None)
        if entry is not None:
            entry.settled.set()

    async def flush(self, uid: str) -> None:
        """Return once the pod's last status is in the API, or the pod is not."""
        while (entry := self._entries.get(uid)) is not None and entry.wanted is not None:
            await entry.settled.wait()

    async def run(self) -> None:
        """Send until cancelled."""
        limit = trio.CapacityLimiter(PATCHES_MAX)
        async with trio.open_nursery() as nursery:
            while True:
                await self._work.wait()
                self._work = trio.Event()
                for uid in [*self._dirty]:
                    entry = self._entries[uid]
                    if not entry.busy:
                        del self._dirty[uid]
                        entry.busy = True
                        nursery.start_soon(self._send, uid, entry, limit)

    async def _send(self, uid: str, entry: _Entry, limit: trio.CapacityLimiter) -> None:
        async with limit:
            wanted = entry.wanted
            done = wanted is None or await self._patch(uid, entry, wanted)
        if not done:
            await trio.sleep(self._retry_seconds)
        entry.busy = False
        if uid not in self._entries:
            return
        if done and entry.wanted is wanted:
            entry.wanted = None
            entry.settled.set()
        else:
            self._dirty[uid] = None
            self._work.set()

    async def _patch(self, uid: str, entry: _Entry, wanted: Obj) -> bool:
        """True when nothing remains to be done."""
        target = entry.target
        patch = None if target is None else status_patch(target, wanted)
        if target is None or patch is None:
            return True
        meta = target["metadata"]
        try:
            self.patches += 1
            answer = await self._api.patch(
                PODS,
                meta["name"],
                meta["namespace"],
                patch,
                type="strategic",
                subresource="status",
            )
        except REQUEST_ERRORS as error:
            if isinstance(error, ApiError) and error.code in GONE:
                log.info("status not written pod=%s/%s: %s", meta["namespace"], meta["name"], error)
                if is_static(entry.known):
                    entry.mirror = None
                else:
                    self.forget(uid)
                return True
            if isinstance(error, ApiError) and error.code in REFUSED:
                log.error("status refused pod=%s/%s: %s", meta["namespace"], meta["name"], error)
                return True
            log.warning("status retried pod=%s/%s: %s", meta["namespace"], meta["name"], error)
            return False
        self.seen(answer)
        # Whatever the server made of it: asked once for the same thing is enough.
        kept = {k: wanted[k] for k in OWN_FIELDS if k in wanted and k != "conditions"}
        target = entry.target or target
        target = {**target, "status": {**(target.get("status") or {}), **kept}}
        if is_static(entry.known):
            entry.mirror = {**answer, "status": target["status"]}
        else:
            entry.known = target
        return True


def _version(pod: Obj) -> int:
    text = pod["metadata"].get("resourceVersion") or "0"
    return int(text) if text.isdigit() else 0
