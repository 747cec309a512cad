"""Creates what a fresh cluster has: namespaces, roles, priority classes, the kubernetes Service.

Every server does it at its start; what exists already is left alone. One commit holds many
objects, so that it takes a fresh server a handful of round trips.
"""

from __future__ import annotations

import logging
from collections.abc import Iterator

from k8slite.api.apply import track_update
from k8slite.api.defaults import apply_defaults
from k8slite.api.kinds import KIND, NAMESPACES, PRIORITY_CLASSES, Kind
from k8slite.api.meta import Obj, format_time
from k8slite.api.strategies import prepare_for_create
from k8slite.apiserver.bootstrap.flow import PRODUCER, flow_objects, with_found_level
from k8slite.apiserver.bootstrap.rbac import rbac_objects
from k8slite.apiserver.core import Core
from k8slite.apiserver.flow.control import FLOW_SCHEMAS
from k8slite.apiserver.objects import encode, storage_key
from k8slite.apiserver.registry.identity import fill_created
from k8slite.apiserver.store.base import Changed, Write

__all__ = ["bootstrap", "new_object"]

log = logging.getLogger(__name__)

COMMIT_WRITES = 50
MANAGER = "kube-apiserver"
NAMES = ("default", "kube-system", "kube-public", "kube-node-lease")
PRIORITIES = {"system-cluster-critical": 2_000_000_000, "system-node-critical": 2_000_001_000}


def objects(core: Core) -> Iterator[tuple[Kind, Obj]]:
    """What must exist, in the order of creation."""
    for name in NAMES:
        yield NAMESPACES, {"metadata": {"name": name}, "spec": {}}
    yield from rbac_objects()
    for name, value in PRIORITIES.items():
        where = "cluster" if "cluster" in name else "node"
        about = f"Used for system critical pods that must {'run in the cluster, but can be moved to another node if necessary' if where == 'cluster' else 'not be moved from their current node'}."  # noqa: E501
        yield (
            PRIORITY_CLASSES,
            {"metadata": {"name": name}, "value": value, "description": about},
        )
    yield (
        KIND["servicecidrs.networking.k8s.io"],
        {"metadata": {"name": "kubernetes"}, "spec": {"cidrs": [core.config.service_cidr]}},
    )


def new_object(core: Core, kind: Kind, obj: Obj, manager: str = MANAGER) -> Obj:
    """An object of ours, ready to be stored: identity, defaults, strategy."""
    obj = {"apiVersion": kind.api_version, "kind": kind.kind, **obj}
    namespace = obj["metadata"].get("namespace", "")
    fill_created(kind, obj, namespace, core.now(), core.host.rng)
    apply_defaults(kind, obj)
    if core.config.track_field_owners:
        track_update(kind, None, obj, manager, format_time(core.now()))
    prepare_for_create(kind, obj)
    return obj


async def bootstrap(core: Core) -> None:
    """Create what is missing. Raises KvError when the store gives no answer."""
    missing: list[Write] = []
    for kind, wanted in objects(core):
        metadata = wanted["metadata"]
        namespace = metadata.get("namespace", "")
        if core.mirror.cache(kind).get(namespace, metadata["name"]) is None:
            obj = new_object(core, kind, wanted)
            missing.append(Write(storage_key(kind, namespace, metadata["name"]), encode(obj), 0))
    for kind, wanted in flow_objects():
        name = wanted["metadata"]["name"]
        if core.mirror.cache(kind).get("", name) is None:
            obj = new_object(core, kind, wanted, PRODUCER)
            if kind is FLOW_SCHEMAS and core.config.track_field_owners:
                obj = with_found_level(obj, core.now())
            missing.append(Write(storage_key(kind, "", name), encode(obj), 0))
    for start in range(0, len(missing), COMMIT_WRITES):
        await _create(core, missing[start : start + COMMIT_WRITES])
    if missing:
        log.info("bootstrap objects=%d", len(missing))


async def _create(core: Core, writes: list[Write]) -> None:
    """Create all; another server that is starting may create some of them at the same time."""
    while writes:
        try:
            await core.store.commit(writes)
            return
        except Changed as changed:
            writes = [w for w in writes if changed.current.get(w.key) is None]
