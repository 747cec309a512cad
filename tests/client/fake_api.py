"""An apiserver in memory that fulfils `k8slite.client.api.Api`, with faults on demand.

Owns just the semantics that controllers lean on: resourceVersions, uids, generations, status
apart from spec, conflicts, finalizers, graceful deletion of bound pods, watches from a version.
"""

from __future__ import annotations

from collections.abc import AsyncIterator, Callable
from contextlib import asynccontextmanager
from typing import Any

import trio

from k8slite.api.kinds import KIND, PODS, Kind, by_gvk
from k8slite.api.meta import Obj, copy, format_time, key, labels, make_key, name, namespace
from k8slite.api.status import already_exists, conflict, expired, not_found, service_unavailable
from k8slite.client.api import ObjList
from k8slite.client.errors import UnknownOutcome
from tests.client.world import EPOCH

Fault = Callable[[str, Kind, str], BaseException | None]
"""(verb, kind, key) -> what to raise instead of an answer."""
TOP_FIELDS = ("apiVersion", "kind", "metadata", "status")


class FakeApi:
    """Objects by kind and key; `log` lists the writes as (verb, plural, key)."""

    def __init__(self) -> None:
        self.objects: dict[Kind, dict[str, Obj]] = {}
        self.journal: list[tuple[int, Kind, str, Obj]] = []
        self.log: list[tuple[str, str, str]] = []
        self.version = 0
        self.compacted = 0
        self.fault: Fault | None = None
        self.lose_answers: Fault | None = None
        self.drop_events: Callable[[str, Kind, Obj], bool] | None = None
        self.event_delay: Callable[[], float] | None = None
        self.double_events = False
        self._uids = 0
        self._names = 0
        self._changed = trio.Event()
        self._watches: list[trio.CancelScope] = []

    # What tests use directly.

    def add(self, kind: Kind, obj: Obj) -> Obj:
        """Put an object, status included, as if it had always been there."""
        obj = copy(obj)
        self._stamp(kind, obj)
        obj["metadata"].setdefault("creationTimestamp", self.now())
        return self._store("ADDED", kind, obj)

    def read(self, kind: Kind, object_key: str) -> Obj:
        return self.objects[kind][object_key]

    def all(self, kind: Kind) -> list[Obj]:
        return [*self.objects.get(kind, {}).values()]

    def set_status(self, kind: Kind, object_key: str, **status: Any) -> None:
        obj = copy(self.read(kind, object_key))
        obj.setdefault("status", {}).update(status)
        self._store("MODIFIED", kind, obj)

    def change(self, kind: Kind, object_key: str, change: Callable[[Obj], Any]) -> Obj:
        obj = copy(self.read(kind, object_key))
        before = copy(obj)
        change(obj)
        self._bump_generation(before, obj)
        return self._store("MODIFIED", kind, obj)

    def remove(self, kind: Kind, object_key: str) -> None:
        self._store("DELETED", kind, copy(self.objects[kind][object_key]))

    def break_watches(self, *, compact: bool = False) -> None:
        """End all watches; with `compact`, they cannot resume where they were."""
        if compact:
            self.compacted = self.version
        for scope in self._watches:
            scope.cancel()

    def now(self) -> str:
        return format_time(EPOCH + trio.current_time())

    # Api.

    async def get(
        self,
        kind: Kind,
        name: str,
        namespace: str | None = None,
        *,
        subresource: str = "",
        resource_version: str | None = None,
    ) -> Obj:
        await self._enter("get", kind, make_key(namespace, name))
        found = copy(self._find(kind, name, namespace))
        return _scale(found) if subresource == "scale" else found

    async def list(
        self,
        kind: Kind,
        namespace: str | None = None,
        *,
        labels: str = "",
        fields: str = "",
        limit: int = 0,
        continue_: str = "",
        resource_version: str | None = None,
    ) -> ObjList:
        await self._enter("list", kind, namespace or "")
        items = [o for o in self.all(kind) if _selected(o, namespace, labels, fields)]
        return ObjList(copy(items), str(self.version), "")

    async def create(
        self,
        kind: Kind,
        obj: Obj,
        *,
        namespace: str | None = None,
        name: str = "",
        subresource: str = "",
    ) -> Obj:
        obj = copy(obj)
        if subresource == "binding":
            return await self._bind(obj, namespace, name)
        metadata = obj["metadata"]
        if namespace:
            metadata["namespace"] = namespace
        if not metadata.get("name"):
            self._names += 1
            metadata["name"] = f"{metadata['generateName']}{self._names:05x}"
        await self._enter("create", kind, key(obj))
        if key(obj) in self.objects.get(kind, {}):
            raise already_exists(kind, metadata["name"])
        if kind.plural not in ("leases", "endpoints", "events"):
            metadata["generation"] = 1
        metadata["creationTimestamp"] = self.now()
        self._stamp(kind, obj)
        if kind.namespaced and "status" in kind.subresources:
            obj["status"] = {"phase": "Pending"} if kind is PODS else {}
        stored = self._store("ADDED", kind, obj)
        self._leave("create", kind, key(obj))
        return copy(stored)

    async def update(self, kind: Kind, obj: Obj, *, subresource: str = "") -> Obj:
        verb = f"update/{subresource}" if subresource else "update"
        await self._enter(verb, kind, key(obj))
        old = self._find(kind, name(obj), namespace(obj))
        version = obj["metadata"].get("resourceVersion")
        if version and version != old["metadata"]["resourceVersion"]:
            raise conflict(kind, name(obj))
        if subresource in ("status", "approval"):
            new = {**copy(old), "status": copy(obj.get("status", {}))}
        elif subresource == "scale":
            spec = {**copy(old["spec"]), "replicas": obj["spec"]["replicas"]}
            new = {**copy(old), "spec": spec}
        elif subresource == "finalize":
            new = {**copy(old), "spec": copy(obj.get("spec", {}))}
        else:
            new = copy(obj)
            for field in ("uid", "creationTimestamp", "deletionTimestamp", "generation"):
                if field in old["metadata"]:
                    new["metadata"][field] = old["metadata"][field]
            if "status" in kind.subresources:
                new["status"] = copy(old.get("status", {}))
        stored = self._update(kind, old, new)
        self._leave(verb, kind, key(obj))
        return copy(stored)

    async def patch(
        self,
        kind: Kind,
        name: str,
        namespace: str | None,
        patch: Any,
        *,
        type: str = "merge",  # noqa: A002 - the API's own word
        subresource: str = "",
    ) -> Obj:
        verb = f"patch/{subresource}" if subresource else "patch"
        await self._enter(verb, kind, make_key(namespace, name))
        assert type == "merge", "the fake knows merge patches only"
        old = self._find(kind, name, namespace)
        patch = copy(patch)
        metadata = patch.get("metadata", {})
        if metadata.pop("uid", old["metadata"]["uid"]) != old["metadata"]["uid"]:
            raise conflict(kind, name, "the uid does not match")
        version = metadata.pop("resourceVersion", None)
        if version and version != old["metadata"]["resourceVersion"]:
            raise conflict(kind, name)
        new = _merge(copy(old), patch)
        stored = self._update(kind, old, new)
        self._leave(verb, kind, make_key(namespace, name))
        return copy(stored)

    async def delete(
        self,
        kind: Kind,
        name: str,
        namespace: str | None = None,
        *,
        grace_period_seconds: int | None = None,
        propagation: str | None = None,
        uid: str | None = None,
        resource_version: str | None = None,
    ) -> Obj:
        await self._enter("delete", kind, make_key(namespace, name))
        old = self._find(kind, name, namespace)
        metadata = old["metadata"]
        if uid and uid != metadata["uid"]:
            raise conflict(kind, name, "the UID in the precondition does not match")
        if resource_version and resource_version != metadata["resourceVersion"]:
            raise conflict(kind, name, "the ResourceVersion in the precondition does not match")
        new = copy(old)
        finalizers = new["metadata"].setdefault("finalizers", [])
        added = {"Foreground": "foregroundDeletion", "Orphan": "orphan"}.get(propagation or "")
        if added and added not in finalizers:
            finalizers.append(added)
        graceful = (
            kind is PODS
            and new.get("spec", {}).get("nodeName")
            and grace_period_seconds != 0
            and new.get("status", {}).get("phase") not in ("Succeeded", "Failed")
        )
        if kind.plural == "namespaces":
            new.setdefault("status", {})["phase"] = "Terminating"
        if finalizers or graceful or kind.plural == "namespaces":
            new["metadata"].setdefault("deletionTimestamp", self.now())
            stored = self._store("MODIFIED", kind, new)
        else:
            stored = self._store("DELETED", kind, new)
        self._leave("delete", kind, make_key(namespace, name))
        return copy(stored)

    async def delete_collection(
        self,
        kind: Kind,
        namespace: str | None = None,
        *,
        labels: str = "",
        fields: str = "",
        grace_period_seconds: int | None = None,
        propagation: str | None = None,
    ) -> Obj:
        for obj in self.all(kind):
            if _selected(obj, namespace, labels, fields):
                await self.delete(
                    kind, name(obj), namespace, grace_period_seconds=grace_period_seconds
                )
        return {"kind": "Status", "status": "Success"}

    @asynccontextmanager
    async def watch(
        self,
        kind: Kind,
        namespace: str | None = None,
        *,
        resource_version: str = "",
        labels: str = "",
        fields: str = "",
        bookmarks: bool = True,
        timeout_seconds: int = 0,
    ) -> AsyncIterator[AsyncIterator[tuple[str, Obj]]]:
        await self._enter("watch", kind, namespace or "")
        start = int(resource_version or self.version)
        if start < self.compacted:
            raise expired()
        with trio.CancelScope() as scope:
            self._watches.append(scope)
            try:
                send, receive = trio.open_memory_channel[tuple[str, Obj]](10_000)
                async with trio.open_nursery() as nursery:
                    nursery.start_soon(self._feed, send, kind, namespace, labels, fields, start)
                    scope_of_body = _EndsQuietly(receive)
                    yield scope_of_body
                    nursery.cancel_scope.cancel()
            finally:
                self._watches.remove(scope)

    async def _feed(
        self,
        send: trio.MemorySendChannel[tuple[str, Obj]],
        kind: Kind,
        namespace: str | None,
        selector: str,
        fields: str,
        start: int,
    ) -> None:
        position = 0
        while True:
            while position < len(self.journal):
                version, event_kind, event_type, obj = self.journal[position]
                position += 1
                if version <= start or event_kind != kind:
                    continue
                if not _selected(obj, namespace, selector, fields):
                    continue
                if self.drop_events is not None and self.drop_events(event_type, kind, obj):
                    continue
                if self.event_delay is not None:
                    await trio.sleep(self.event_delay())
                for _ in range(2 if self.double_events else 1):
                    await send.send((event_type, copy(obj)))
            changed = self._changed
            await changed.wait()

    # Inside.

    async def _enter(self, verb: str, kind: Kind, object_key: str) -> None:
        await trio.lowlevel.checkpoint()
        if self.fault is not None:
            error = self.fault(verb, kind, object_key)
            if error is not None:
                raise error
        if verb not in ("get", "list", "watch"):
            self.log.append((verb, kind.plural, object_key))

    def _leave(self, verb: str, kind: Kind, object_key: str) -> None:
        if self.lose_answers is not None:
            error = self.lose_answers(verb, kind, object_key)
            if error is not None:
                raise error

    def _find(self, kind: Kind, name: str, namespace: str | None) -> Obj:
        obj = self.objects.get(kind, {}).get(make_key(namespace, name))
        if obj is None:
            raise not_found(kind, name)
        return obj

    def _stamp(self, kind: Kind, obj: Obj) -> None:
        obj["apiVersion"], obj["kind"] = kind.api_version, kind.kind
        if "uid" not in obj["metadata"]:
            self._uids += 1
            obj["metadata"]["uid"] = f"uid-{self._uids}"

    def _bump_generation(self, old: Obj, new: Obj) -> None:
        changed = any(old.get(f) != new.get(f) for f in {**old, **new} if f not in TOP_FIELDS)
        if changed and "generation" in old["metadata"]:
            new["metadata"]["generation"] = old["metadata"]["generation"] + 1

    def _update(self, kind: Kind, old: Obj, new: Obj) -> Obj:
        if _without_version(old) == _without_version(new):
            return old
        self._bump_generation(old, new)
        metadata = new["metadata"]
        finished = not metadata.get("finalizers") and not new.get("spec", {}).get("finalizers")
        stopped = kind is not PODS or new.get("status", {}).get("phase") in ("Succeeded", "Failed")
        if metadata.get("deletionTimestamp") and finished and stopped:
            return self._store("DELETED", kind, new)
        return self._store("MODIFIED", kind, new)

    def _store(self, event_type: str, kind: Kind, obj: Obj) -> Obj:
        self.version += 1
        obj["metadata"]["resourceVersion"] = str(self.version)
        objects = self.objects.setdefault(kind, {})
        if event_type == "DELETED":
            objects.pop(key(obj))
        else:
            objects[key(obj)] = obj
        self.journal.append((self.version, kind, event_type, obj))
        self._changed.set()
        self._changed = trio.Event()
        return obj

    async def _bind(self, binding: Obj, space: str | None, pod_name: str) -> Obj:
        await self._enter("bind", PODS, make_key(space, pod_name))
        old = self._find(PODS, pod_name, space)
        if old["spec"].get("nodeName"):
            raise conflict(PODS, pod_name, f"pod {pod_name} is already assigned to a node")
        new = copy(old)
        new["spec"]["nodeName"] = binding["target"]["name"]
        self._store("MODIFIED", PODS, new)
        self._leave("bind", PODS, make_key(space, pod_name))
        return {"kind": "Status", "status": "Success"}


class _EndsQuietly:
    def __init__(self, receive: trio.MemoryReceiveChannel[tuple[str, Obj]]) -> None:
        self._receive = receive

    def __aiter__(self) -> _EndsQuietly:
        return self

    async def __anext__(self) -> tuple[str, Obj]:
        return await self._receive.receive()


def _scale(obj: Obj) -> Obj:
    selector = obj["spec"].get("selector", {}).get("matchLabels", {})
    text = ",".join(f"{label}={value}" for label, value in selector.items())
    replicas = obj.get("status", {}).get("replicas", 0)
    return {
        "metadata": obj["metadata"],
        "spec": {"replicas": obj["spec"].get("replicas", 1)},
        "status": {"replicas": replicas, "selector": text},
    }


def _without_version(obj: Obj) -> Obj:
    metadata = {k: v for k, v in obj["metadata"].items() if k != "resourceVersion"}
    return {**obj, "metadata": metadata}


def _merge(target: Any, patch: Any) -> Any:
    if not isinstance(patch, dict):
        return patch
    if not isinstance(target, dict):
        target = {}
    for field, value in patch.items():
        if value is None:
            target.pop(field, None)
        else:
            target[field] = _merge(target.get(field), value)
    return target


def _selected(obj: Obj, space: str | None, selector: str, fields: str) -> bool:
    if space and namespace(obj) != space:
        return False
    for term in filter(None, selector.split(",")):
        label, _, value = term.partition("=")
        if labels(obj).get(label) != value:
            return False
    for term in filter(None, fields.split(",")):
        path, _, value = term.partition("=")
        found: Any = obj
        for step in path.split("."):
            found = found.get(step, "") if isinstance(found, dict) else ""
        if found != value:
            return False
    return True


def unavailable(verb: str, kind: Kind, object_key: str) -> BaseException | None:
    """A fault for every request."""
    return service_unavailable("the fake is down")


class Flaky:
    """Every n-th write fails; every other failure happens after the write was executed."""

    def __init__(self, period: int) -> None:
        self._period = period
        self._count = 0

    def before(self, verb: str, kind: Kind, object_key: str) -> BaseException | None:
        if verb in ("get", "list", "watch"):
            return None
        self._count += 1
        if self._count % self._period == 0:
            return service_unavailable("flaky")
        return None

    def after(self, verb: str, kind: Kind, object_key: str) -> BaseException | None:
        if self._count % self._period == self._period // 2:
            return UnknownOutcome(f"{verb} {object_key}: flaky")
        return None


def kind_of(obj: Obj) -> Kind:
    kind = by_gvk(obj["apiVersion"], obj["kind"])
    assert kind is not None
    return kind


def every_kind() -> list[Kind]:
    return [*KIND.values()]
