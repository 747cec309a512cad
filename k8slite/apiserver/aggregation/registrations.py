"""APIServices for what this server serves itself: one for each group and version.

Those of built-in kinds are made at a start; those of definitions come and go with them.
"""

from __future__ import annotations

import logging
from collections.abc import Iterator

import trio

from k8slite.api.discovery import priority_of
from k8slite.api.kinds import API_SERVICES, CUSTOM_RESOURCE_DEFINITIONS, KINDS
from k8slite.api.meta import Obj, condition_is, format_time, set_condition
from k8slite.api.status import ApiError
from k8slite.apiserver.aggregation.availability import LOCAL
from k8slite.apiserver.bootstrap.objects import new_object
from k8slite.apiserver.core import Core
from k8slite.apiserver.objects import encode, storage_key
from k8slite.apiserver.rounds import run_rounds
from k8slite.apiserver.store.base import Changed, Write
from raftkv.errors import KvError

__all__ = ["register_built_in", "run_registrations"]

log = logging.getLogger(__name__)

MANAGED = "kube-aggregator.kubernetes.io/automanaged"
AT_START, ALWAYS = "onstart", "true"
_ITSELF = "apiregistration.k8s.io"


async def register_built_in(core: Core) -> None:
    """Make those of built-in kinds. Raises KvError."""
    served = dict.fromkeys((kind.group, kind.version) for kind in KINDS)
    known = core.mirror.cache(API_SERVICES)
    writes = [
        _write(core, group, version, AT_START)
        for group, version in served
        if group != _ITSELF and known.get("", f"{version}.{group}") is None
    ]
    while writes:
        try:
            await core.store.commit(writes)
            return
        except Changed as changed:  # another server is starting, too
            writes = [w for w in writes if changed.current.get(w.key) is None]


async def run_registrations(core: Core) -> None:
    """For ever: follow the definitions."""
    kinds = (CUSTOM_RESOURCE_DEFINITIONS, API_SERVICES)
    await run_rounds(core, kinds, lambda: _round(core))


async def _round(core: Core) -> bool:
    wanted = set(_of_definitions(core))
    entries = core.mirror.cache(API_SERVICES).entries
    writes = [
        _write(core, group, version, ALWAYS)
        for group, version in sorted(wanted)
        if f"{version}.{group}" not in entries
    ]
    for entry in entries.values():
        obj = entry.parsed()
        spec = obj.get("spec") or {}
        ours = (obj["metadata"].get("labels") or {}).get(MANAGED) == ALWAYS
        if ours and (spec.get("group", ""), spec.get("version", "")) not in wanted:
            writes.append(Write(storage_key(API_SERVICES, "", entry.name), None, entry.revision))
    for write in writes:
        try:
            with trio.fail_after(core.config.store_seconds):
                await core.store.commit([write])
        except Changed:
            log.debug("another server was faster key=%s", write.key)
        except (KvError, ApiError, trio.TooSlowError) as error:
            log.warning("apiservices wait: %s", error)
            return False
    return True


def _of_definitions(core: Core) -> Iterator[tuple[str, str]]:
    for entry in core.mirror.cache(CUSTOM_RESOURCE_DEFINITIONS).entries.values():
        definition = entry.parsed()
        if condition_is(definition, "Established"):
            for version in definition["spec"].get("versions") or ():
                if version.get("served"):
                    yield definition["spec"]["group"], version["name"]


def _write(core: Core, group: str, version: str, managed: str) -> Write:
    name, priority = f"{version}.{group}", priority_of(group, version)
    spec: Obj = {
        "version": version,
        "groupPriorityMinimum": priority.group,
        "versionPriority": priority.version,
    }
    if group:
        spec["group"] = group
    obj = new_object(
        core, API_SERVICES, {"metadata": {"name": name, "labels": {MANAGED: managed}}, "spec": spec}
    )
    obj["status"] = {}
    set_condition(obj["status"], LOCAL, format_time(core.now()))
    return Write(storage_key(API_SERVICES, "", name), encode(obj), 0)
