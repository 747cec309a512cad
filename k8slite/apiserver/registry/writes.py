"""create, update and patch: the way from a body to a commit.

Every change is an optimistic one: it is computed from the mirror's newest state and committed
only if that is still the store's. If it is not, it is computed again from what the store said;
a refusal that may be due to old state is checked against fresh state before it is told.
"""

from __future__ import annotations

from collections.abc import Awaitable, Callable
from typing import NamedTuple

import orjson

from k8slite.api.codec import IGNORE, STRICT, WARN, decode, from_parsed, media_type
from k8slite.api.kinds import Kind
from k8slite.api.meta import Obj, copy
from k8slite.api.status import (
    ApiError,
    FieldError,
    already_exists,
    bad_request,
    conflict,
    invalid,
    invalid_value,
    not_found,
    plain_internal,
)
from k8slite.api.strategies import set_generation
from k8slite.apiserver.admission.chain import admit, review
from k8slite.apiserver.admission.quota import charges, quota_turn
from k8slite.apiserver.call import Call
from k8slite.apiserver.forms import negotiate, read
from k8slite.apiserver.http.message import Response
from k8slite.apiserver.objects import storage_key, storage_kind
from k8slite.apiserver.options import check_write_options, is_dry_run
from k8slite.apiserver.registry.identity import fill_created, new_name
from k8slite.apiserver.registry.ownership import (
    APPLY_PATCH,
    Configuration,
    check_apply_options,
    track,
)
from k8slite.apiserver.registry.patches import apply_patch
from k8slite.apiserver.registry.strategies import strategy_of
from k8slite.apiserver.registry.strategy import Strategy
from k8slite.apiserver.store.base import Changed, Item, Write
from k8slite.apiserver.versions import is_outdated, prepare, stored_value
from k8slite.apiserver.watch_cache import Entry

__all__ = [
    "Change",
    "Moved",
    "answer",
    "commit",
    "create",
    "create_object",
    "modify",
    "patch",
    "remove",
    "update",
    "validation_level",
]

ATTEMPTS_MAX = 30
NAME_ATTEMPTS_MAX = 8
Transform = Callable[[Obj], Obj] | Callable[[Obj], Awaitable[Obj]]
"""The new object made of (a copy of) the old one. Raises ApiError."""


class Change(NamedTuple):
    """What became of a modification: the object as stored now, and whether it vanished."""

    obj: Obj
    deleted: bool = False


def validation_level(call: Call) -> str:
    """What to do about unknown fields: Ignore, Warn or Strict."""
    level = call.param("fieldValidation")
    return level if level in (IGNORE, STRICT) else WARN


def read_body(call: Call) -> Obj:
    """The body as an object of the call's kind. Raises ApiError 400, 415."""
    content_type = call.request.header(b"content-type")
    decoded = decode(call.request.body, content_type, call.kind, validation_level(call))
    for warning in decoded.warnings:
        call.warn(warning)
    strategy_of(call.kind).decoded(call, decoded.obj, validation_level(call))
    return decoded.obj


def answer(call: Call, status: int, obj: Obj) -> Response:
    """The answer to a write."""
    form = negotiate(call)
    body = form.value(call.kind, obj, call.core.now())
    return form.response(status, body)


# --- create -------------------------------------------------------------------------------------


async def create(call: Call) -> Response:
    """POST to a collection."""
    check_write_options(call)
    obj = await create_object(call, read_body(call))
    return answer(call, 201, obj)


async def create_object(call: Call, obj: Obj, *, applied: bool = False) -> Obj:
    """Store a new object, given as decoded (or as applied). Raises ApiError."""
    kind, core = call.kind, call.core
    metadata = obj["metadata"]
    generated = not metadata.get("name") and bool(metadata.get("generateName"))
    _check_namespace(call, metadata)
    if metadata.get("resourceVersion"):
        raise plain_internal("resourceVersion should not be set on objects to be created")
    strategy = strategy_of(kind)
    fill_created(kind, obj, call.namespace, core.now(), core.host.rng)
    strategy.defaults(call, obj)
    if not applied:
        metadata.pop("managedFields", None)
        track(call, obj, None, "")
    await admit(call, obj, None)
    strategy.prepare_create(call, obj)
    problems = _that_count(call, strategy.validate_create(call, obj))
    if problems:
        raise invalid(kind, metadata.get("name", ""), problems)
    await review(call, obj, None)
    for attempt in range(NAME_ATTEMPTS_MAX if generated else 1):
        if attempt:
            metadata["name"] = new_name(metadata["generateName"], core.host.rng)
        try:
            return await commit(call, strategy, obj, None)
        except Moved:
            continue
    raise already_exists(kind, metadata["name"])


def _check_namespace(call: Call, metadata: Obj) -> None:
    said = metadata.get("namespace")
    if not said:
        return
    if not call.kind.namespaced:
        metadata.pop("namespace")
    elif said != call.namespace:
        raise bad_request(
            "the namespace of the provided object does not match the namespace sent on the request"
        )


class Moved(Exception):
    """The commit met another state of the object than expected."""

    def __init__(self, current: Item | None) -> None:
        super().__init__("the object has changed")
        self.current = current


async def commit(call: Call, strategy: Strategy, new: Obj, old: Entry | None) -> Obj:
    """Write `new` in the place of `old` (None: nothing), with what belongs to it.

    The object as answers show it. Raises Moved; conflicts of companions are tried again.
    """
    kind = call.kind
    metadata = new["metadata"]
    key = storage_key(storage_kind(kind), metadata.get("namespace", ""), metadata["name"])
    before = None if old is None else read(kind, old)
    if is_dry_run(call):
        if old is None and call.core.mirror.cache(kind).get(
            metadata.get("namespace", ""), metadata["name"]
        ):
            raise Moved(None)
        await strategy.companions(call, new, before)
        await charges(call, new, before)
        if old is None:
            metadata.pop("resourceVersion", None)
        return new
    pristine = copy(new) if strategy.has_companions else new
    expected = 0 if old is None else old.revision
    async with quota_turn(call, new, before) as turn:
        for attempt in range(ATTEMPTS_MAX):
            if attempt:
                new = copy(pristine)
                metadata = new["metadata"]
            companions = [
                *await strategy.companions(call, new, before),
                *await charges(call, new, before),
            ]
            value = await stored_value(call.core, kind, new)
            try:
                revision = await call.core.store.commit([Write(key, value, expected), *companions])
            except Changed as changed:
                current = changed.current[key]
                if (current.revision if current else 0) != expected:
                    raise Moved(current) from None
                await call.core.mirror.wait_fresh()
                continue
            turn.revision = revision
            metadata["resourceVersion"] = str(revision)
            return new
    raise conflict(kind, metadata["name"])


# --- update and patch ---------------------------------------------------------------------------


async def update(call: Call) -> Response:
    """PUT of an object."""
    return await _update(call, "main")


async def update_status(call: Call) -> Response:
    """PUT of an object's status."""
    return await _update(call, "status")


async def _update(call: Call, part: str) -> Response:
    check_write_options(call)
    obj = read_body(call)
    _check_name(call, obj)
    attempts = 0

    def transform(old: Obj) -> Obj:
        nonlocal attempts
        attempts += 1
        return copy(obj)

    try:
        change = await modify(call, transform, part=part)
    except ApiError as error:
        strategy = strategy_of(call.kind)
        if error.code != 404 or not strategy.create_on_update or attempts or part == "status":
            raise
        obj["metadata"].pop("resourceVersion", None)
        return answer(call, 201, await create_object(call, obj))
    return answer(call, 200, change.obj)


def _check_name(call: Call, obj: Obj) -> None:
    metadata = obj["metadata"]
    name = metadata.get("name", "")
    if not name:
        metadata["name"] = call.info.name
    elif name != call.info.name:
        raise bad_request(
            f"the name of the object ({name}) does not match the name on the URL ({call.info.name})"
        )
    _check_namespace(call, metadata)


async def patch(call: Call) -> Response:
    """PATCH of an object."""
    return await _patch(call, "main")


async def patch_status(call: Call) -> Response:
    """PATCH of an object's status."""
    return await _patch(call, "status")


async def _patch(call: Call, part: str) -> Response:
    check_write_options(call)
    apply = media_type(call.request.header(b"content-type")) == APPLY_PATCH
    check_apply_options(call, apply=apply)
    if apply:
        return await _apply(call, part)
    transform = patch_transform(call, call.kind)
    change = await modify(call, transform, part=part)
    return answer(call, 200, change.obj)


async def _apply(call: Call, part: str) -> Response:
    """Server-side apply: create what is not there, else merge into it."""
    configuration = Configuration(call, validation_level(call))
    strategy_of(call.kind).decoded(call, configuration.obj, validation_level(call))
    _check_name(call, configuration.obj)
    subresource = "" if part == "main" else part

    def transform(old: Obj) -> Obj:
        return configuration.apply_to(old, subresource)

    for _ in range(ATTEMPTS_MAX):
        try:
            change = await modify(call, transform, part=part, applied=True)
            return answer(call, 200, change.obj)
        except ApiError as error:
            if error.code != 404 or part != "main":
                raise
        try:
            obj = await create_object(call, configuration.apply_to(None), applied=True)
            return answer(call, 201, obj)
        except ApiError as error:
            if error.reason != "AlreadyExists":
                raise
    raise conflict(call.kind, call.info.name)


def patch_transform(call: Call, kind: Kind) -> Callable[[Obj], Obj]:
    """The body as a patch of objects of `kind`. Raises ApiError 400, 415."""
    media = media_type(call.request.header(b"content-type"))
    apply = apply_patch(kind, media, call.request.body)

    def transform(old: Obj) -> Obj:
        patched = apply(old)
        decoded = from_parsed(patched, kind, validation_level(call), body=orjson.dumps(patched))
        for warning in decoded.warnings:
            call.warn(warning)
        strategy_of(kind).decoded(call, decoded.obj, validation_level(call))
        _check_name(call, decoded.obj)
        return decoded.obj

    return transform


async def modify(
    call: Call, transform: Transform, *, part: str = "main", applied: bool = False
) -> Change:
    """Change a stored object. Raises ApiError.

    `part` is what may be changed: "main" (all but the status), "scale" (the same, through that
    subresource), "status", the name of another subresource whose handler leaves all else as it
    was, or "raw": a handler of ours made the change itself, and neither strategy, admission nor
    validation looks at it. `applied`: the new object says itself who owns
    its fields.
    """
    mirror, kind = call.core.mirror, call.kind
    cache = mirror.cache(kind)
    entry = cache.get(call.namespace, call.info.name)
    fresh = False
    for _ in range(ATTEMPTS_MAX):
        if entry is None and not fresh:
            await mirror.wait_fresh()
            fresh = True
            entry = cache.get(call.namespace, call.info.name)
        if entry is None:
            raise not_found(kind, call.info.name)
        try:
            return await _attempt(call, entry, transform, part=part, fresh=fresh, applied=applied)
        except _Stale:
            entry, fresh = None, False
        except Moved as moved:
            call.core.metrics.conflicts_retried += 1
            fresh = True
            entry = None
            if moved.current is not None:
                item = moved.current
                key = f"{call.namespace}/{call.info.name}" if kind.namespaced else ""
                entry = Entry.of(key or call.info.name, item.revision, item.value)
    raise conflict(kind, call.info.name)


class _Stale(Exception):
    """The answer would rest on state that is not known to be the newest, and was not."""


async def _attempt(
    call: Call, entry: Entry, transform: Transform, *, part: str, fresh: bool, applied: bool
) -> Change:
    kind = call.kind
    strategy = strategy_of(kind)
    await prepare(call.core, kind, (entry,))
    old = read(kind, entry)
    try:
        made = transform(copy(old))
        new = await made if isinstance(made, Awaitable) else made
        _check_preconditions(kind, new, old)
        _keep_system_fields(new, old, applied=applied)
        if part != "raw":
            await _check_change(call, strategy, new, old, part=part, applied=applied)
    except ApiError:
        await _require_newest(call, entry, fresh=fresh)
        raise
    if new == old and not is_outdated(kind, entry) and not call.core.is_stale(kind, entry):
        await _require_newest(call, entry, fresh=fresh)
        return Change(old)
    if _vanishes(strategy, new):
        await remove(call, strategy, new, entry)
        return Change(new, deleted=True)
    return Change(await commit(call, strategy, new, entry))


async def _check_change(
    call: Call, strategy: Strategy, new: Obj, old: Obj, *, part: str, applied: bool
) -> None:
    """Let strategy, defaults, admission and validation have their say. Raises ApiError."""
    kind = call.kind
    strategy.defaults(call, new)
    if not applied:
        track(call, new, old, "" if part == "main" else part)
    if part != "scale":  # its own handler has asked, about the Scale
        await admit(call, new, old)
    if part == "status":
        strategy.prepare_status(call, new, old)
        problems = strategy.validate_status(call, new, old)
    elif part not in ("main", "scale"):
        set_generation(kind, new, old)
        problems = _that_count(call, strategy.validate_part(call, part, new, old))
    else:
        strategy.prepare_update(call, new, old)
        problems = _that_count(call, strategy.validate_update(call, new, old))
    if problems:
        raise invalid(kind, call.info.name, problems)
    if part != "scale":
        await review(call, new, old)


def _that_count(call: Call, problems: list[FieldError]) -> list[FieldError]:
    """Where pods share the machine's network, their addresses are loopback ones, and allowed."""
    if not call.core.config.allow_loopback_endpoints:
        return problems
    return [each for each in problems if "in the loopback range" not in each.detail]


async def _require_newest(call: Call, entry: Entry, *, fresh: bool) -> None:
    """Make sure that `entry` is the newest state. Raises _Stale if it is not."""
    if fresh:
        return
    await call.core.mirror.wait_fresh()
    newest = call.core.mirror.cache(call.kind).get(call.namespace, call.info.name)
    if newest is None or newest.revision != entry.revision:
        raise _Stale


def _check_preconditions(kind: Kind, new: Obj, old: Obj) -> None:
    """What the object itself says about the state it was made from."""
    mine, theirs = new["metadata"], old["metadata"]
    uid, version = mine.get("uid"), mine.get("resourceVersion")
    name = theirs["name"]
    if uid and uid != theirs["uid"]:
        key = storage_key(storage_kind(kind), theirs.get("namespace", ""), name).decode()
        raise conflict(
            kind,
            name,
            f"StorageError: invalid object, Code: 4, Key: {key}, ResourceVersion: 0, "
            f"AdditionalErrorMsg: Precondition failed: UID in precondition: {uid}, "
            f"UID in object meta: {theirs['uid']}",
        )
    if version and version != "0":
        if version != theirs["resourceVersion"]:
            raise conflict(kind, name)
    elif not strategy_of(kind).unconditional_update:
        field = "metadata.resourceVersion"
        raise invalid(kind, name, [invalid_value(field, 0, "must be specified for an update")])


_SYSTEM_FIELDS = (
    "uid",
    "creationTimestamp",
    "deletionTimestamp",
    "deletionGracePeriodSeconds",
    "generation",
    "resourceVersion",
    "namespace",
    "generateName",
)


def _keep_system_fields(new: Obj, old: Obj, *, applied: bool) -> None:
    mine, theirs = new["metadata"], old["metadata"]
    for field in _SYSTEM_FIELDS if applied else (*_SYSTEM_FIELDS, "managedFields"):
        if field in theirs:
            mine[field] = theirs[field]
        else:
            mine.pop(field, None)
    mine.pop("selfLink", None)


def _vanishes(strategy: Strategy, new: Obj) -> bool:
    """Has a deletion only waited for this change?"""
    metadata = new["metadata"]
    return bool(
        metadata.get("deletionTimestamp")
        and not metadata.get("finalizers")
        and not metadata.get("deletionGracePeriodSeconds")
        and strategy.is_finished(new)
    )


async def remove(call: Call, strategy: Strategy, obj: Obj, entry: Entry) -> int:
    """Delete the key of an object, if it is still as in `entry`; the revision. Raises Moved."""
    metadata = obj["metadata"]
    key = storage_key(storage_kind(call.kind), metadata.get("namespace", ""), metadata["name"])
    if is_dry_run(call):
        return entry.revision
    companions = await strategy.companions(call, None, obj)
    try:
        return await call.core.store.commit([Write(key, None, entry.revision), *companions])
    except Changed as changed:
        raise Moved(changed.current[key]) from None
