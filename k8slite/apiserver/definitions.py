"""Definitions of custom resources: accepting their names, and cleaning up behind them.

Every server does this; the writes are the same for all and guarded by revision, so that they
need no leader. Level-triggered: each round looks at all definitions.
"""

from __future__ import annotations

import logging

import trio

from k8slite.api.custom import custom_kinds
from k8slite.api.kinds import CUSTOM_RESOURCE_DEFINITIONS, KIND
from k8slite.api.meta import Obj, condition_is, copy, format_time, set_condition
from k8slite.api.status import ApiError
from k8slite.apiserver.call import internal_call
from k8slite.apiserver.core import Core
from k8slite.apiserver.forms import read
from k8slite.apiserver.objects import encode, storage_key
from k8slite.apiserver.registry.custom import CLEANUP
from k8slite.apiserver.registry.deletes import DeleteOptions, delete_object
from k8slite.apiserver.store.base import Changed, Write
from k8slite.apiserver.watch_cache import Subscription
from raftkv.errors import KvError

__all__ = ["run_definitions"]

log = logging.getLogger(__name__)

RETRY_SECONDS = 0.5
QUEUE_EVENTS_MAX = 1_000


async def run_definitions(core: Core) -> None:
    """For ever: look at the definitions whenever one has changed."""
    cache = core.mirror.cache(CUSTOM_RESOURCE_DEFINITIONS)
    while True:
        subscription = Subscription(
            core.mirror.waker, "", "", None, QUEUE_EVENTS_MAX, bookmarks=False
        )
        number = cache.add(subscription)
        try:
            while not subscription.closed:
                if await _round(core):
                    await subscription.take()
                else:
                    await trio.sleep(RETRY_SECONDS)
        finally:
            cache.remove(number)


async def _round(core: Core) -> bool:
    """Bring every definition one step further; False: come again soon."""
    done = True
    for entry in list(core.mirror.cache(CUSTOM_RESOURCE_DEFINITIONS).entries.values()):
        old = read(CUSTOM_RESOURCE_DEFINITIONS, entry)
        try:
            new = copy(old)
            if old["metadata"].get("deletionTimestamp"):
                done = await _clean(core, new) and done
            else:
                _accept(core, new)
            if new == old:
                continue
            key = storage_key(CUSTOM_RESOURCE_DEFINITIONS, "", entry.name)
            gone = new["metadata"].get("deletionTimestamp") and not new["metadata"].get(
                "finalizers"
            )
            value = None if gone else encode(new)
            with trio.fail_after(core.config.store_seconds):
                await core.store.commit([Write(key, value, entry.revision)])
        except Changed:
            log.debug("definition changed meanwhile name=%s", entry.name)
        except (KvError, ApiError, trio.TooSlowError) as error:
            log.warning("definition waits name=%s: %s", entry.name, error)
            done = False
    return done


def _accept(core: Core, definition: Obj) -> None:
    """Accept the names, unless somebody has them already."""
    spec, name = definition["spec"], definition["metadata"]["name"]
    status = definition.setdefault("status", {})
    if status.get("conditions") is None:
        status["conditions"] = []
    now = format_time(core.now())
    if f"{spec['names']['plural']}.{spec['group']}" in KIND:
        message = f'"{spec["names"]["plural"]}" is already in use'
        condition = {
            "type": "NamesAccepted",
            "status": "False",
            "reason": "PluralConflict",
            "message": message,
        }
        set_condition(status, condition, now)
        return
    condition = {
        "type": "NamesAccepted",
        "status": "True",
        "reason": "NoConflicts",
        "message": "no conflicts found",
    }
    set_condition(status, condition, now)
    if not condition_is(definition, "Established"):
        log.info("established definition=%s", name)
    condition = {
        "type": "Established",
        "status": "True",
        "reason": "InitialNamesAccepted",
        "message": "the initial names have been accepted",
    }
    set_condition(status, condition, now)
    status["acceptedNames"] = copy(spec["names"])


async def _clean(core: Core, definition: Obj) -> bool:
    """Delete all resources of a definition that goes; then take our finalizer away."""
    finalizers = definition["metadata"].get("finalizers") or []
    if CLEANUP not in finalizers:
        return True
    kind = next((custom.kind for custom in custom_kinds(definition)), None)
    if kind is not None:
        cache = core.mirror.cache(kind)
        for entry in list(cache.entries.values()):
            call = internal_call(core, kind, "delete", entry.namespace, entry.name)
            try:
                await delete_object(call, entry.namespace, entry.name, DeleteOptions())
            except ApiError as error:
                if error.code != 404:
                    raise
        await core.mirror.wait_fresh()
        if cache.entries:
            return False
    definition["metadata"]["finalizers"] = [f for f in finalizers if f != CLEANUP]
    return True
