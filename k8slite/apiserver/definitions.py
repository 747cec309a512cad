"""Definitions of custom resources: accepting their names, and cleaning up behind them.

Every server does this; the writes are the same for all and guarded by revision, so that they
need no leader. Level-triggered: each round looks at all definitions.
"""

from __future__ import annotations

import logging

import trio

from k8slite.api.custom import Names, accept_names, custom_kinds
from k8slite.api.kinds import CUSTOM_RESOURCE_DEFINITIONS, KINDS
from k8slite.api.meta import Obj, condition_is, copy, format_time, set_condition
from k8slite.api.status import ApiError
from k8slite.apiserver.call import internal_call
from k8slite.apiserver.core import Core
from k8slite.apiserver.forms import read
from k8slite.apiserver.objects import encode, storage_key
from k8slite.apiserver.registry.custom import CLEANUP
from k8slite.apiserver.registry.deletes import DeleteOptions, delete_object
from k8slite.apiserver.rounds import run_rounds
from k8slite.apiserver.store.base import Changed, Write
from raftkv.errors import KvError

__all__ = ["run_definitions"]

log = logging.getLogger(__name__)


async def run_definitions(core: Core) -> None:
    """For ever: look at the definitions whenever one has changed."""
    await run_rounds(core, (CUSTOM_RESOURCE_DEFINITIONS,), lambda: _round(core))


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
    """Accept the names that nobody else has, and serve what has them all."""
    name, group = definition["metadata"]["name"], definition["spec"]["group"]
    status = definition.setdefault("status", {})
    if status.get("conditions") is None:
        status["conditions"] = []
    accepted, conflict = accept_names(definition, _names_taken(core, group, name))
    status["acceptedNames"] = accepted
    now = format_time(core.now())
    reason, message = conflict or ("NoConflicts", "no conflicts found")
    condition = {
        "type": "NamesAccepted",
        "status": "False" if conflict else "True",
        "reason": reason,
        "message": message,
    }
    set_condition(status, condition, now)
    if condition_is(definition, "Established"):
        return
    condition = {
        "type": "Established",
        "status": "False",
        "reason": "NotAccepted",
        "message": "not all names are accepted",
    }
    if not conflict:
        log.info("established definition=%s", name)
        told = "the initial names have been accepted"
        condition |= {"status": "True", "reason": "InitialNamesAccepted", "message": told}
    set_condition(status, condition, now)


def _names_taken(core: Core, group: str, name: str) -> Names:
    """Of a group, without those of one definition."""
    taken = Names(set(), set())
    for kind in KINDS:
        if kind.group == group:
            taken.resources.update((kind.plural, kind.singular, *kind.short_names))
            taken.kinds.update((kind.kind, kind.list_kind))
    for entry in core.mirror.cache(CUSTOM_RESOURCE_DEFINITIONS).entries.values():
        other = entry.parsed()
        if entry.name != name and other["spec"]["group"] == group:
            names = (other.get("status") or {}).get("acceptedNames") or {}
            taken.resources.update(
                (names.get("plural", ""), names.get("singular", ""), *names.get("shortNames", ()))
            )
            taken.kinds.update((names.get("kind", ""), names.get("listKind", "")))
    return taken


async def _clean(core: Core, definition: Obj) -> bool:
    """Delete all resources of a definition that goes; then take our finalizer away."""
    finalizers = definition["metadata"].get("finalizers") or []
    if CLEANUP not in finalizers:
        return True
    condition = {
        "type": "Terminating",
        "status": "True",
        "reason": "InstanceDeletionInProgress",
        "message": "CustomResource deletion is in progress",
    }
    set_condition(definition["status"], condition, format_time(core.now()))
    customs = sorted(custom_kinds(definition), key=lambda c: c.kind.api_version != c.storage)
    kind = next((custom.kind for custom in customs), None)
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
