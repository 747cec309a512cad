"""delete and deletecollection: preconditions, grace, finalizers, propagation.

An object with a grace period or a finalizer is marked, not removed; whoever clears the last
reason to keep it (`writes.modify`) removes it then.
"""

from __future__ import annotations

from typing import NamedTuple

import trio

from k8slite.api.codec import DELETE_OPTIONS, decode
from k8slite.api.meta import Obj, copy, format_time, parse_time
from k8slite.api.status import (
    ApiError,
    FieldError,
    bad_request,
    conflict,
    invalid_kind,
    not_found,
    not_supported,
    success,
)
from k8slite.apiserver.admission.chain import review_delete
from k8slite.apiserver.call import Call
from k8slite.apiserver.forms import negotiate, read
from k8slite.apiserver.http.message import Response, json_response
from k8slite.apiserver.options import check_write_options, list_options
from k8slite.apiserver.registry import writes
from k8slite.apiserver.registry.reads import read_slice
from k8slite.apiserver.registry.strategies import strategy_of
from k8slite.apiserver.versions import prepare
from k8slite.apiserver.watch_cache import Entry

__all__ = ["DeleteOptions", "delete", "delete_collection", "delete_object"]

ORPHAN = "orphan"
FOREGROUND = "foregroundDeletion"
_POLICIES = ("Foreground", "Background", "Orphan")
DELETE_WORKERS = 8


class DeleteOptions(NamedTuple):
    """What a client says about a deletion; None: nothing."""

    grace_seconds: int | None = None
    policy: str | None = None
    uid: str | None = None
    resource_version: str | None = None


class Deletion(NamedTuple):
    """What came of it: the object as it is or was last, and whether it is gone."""

    obj: Obj
    gone: bool


def delete_options(call: Call) -> DeleteOptions:
    """From the body, or else from the query. Raises ApiError 400, 422."""
    body: Obj = {}
    if call.request.body.strip():
        content_type = call.request.header(b"content-type")
        body = decode(call.request.body, content_type, DELETE_OPTIONS).obj
    return options_of(body, call)


def options_of(body: Obj, call: Call) -> DeleteOptions:
    """A DeleteOptions object and the query as one."""
    grace = body.get("gracePeriodSeconds")
    if grace is None and call.param("gracePeriodSeconds"):
        text = call.param("gracePeriodSeconds")
        try:
            grace = int(text)
        except ValueError:
            raise bad_request(f'strconv.ParseInt: parsing "{text}": invalid syntax') from None
    policy = body.get("propagationPolicy") or call.param("propagationPolicy") or None
    orphans = body.get("orphanDependents")
    if policy is None and (orphans is not None or call.param("orphanDependents")):
        orphan = orphans if orphans is not None else call.param("orphanDependents") == "true"
        policy = "Orphan" if orphan else "Background"
    problems: list[FieldError] = []
    if policy is not None and policy not in _POLICIES:
        problems.append(
            not_supported("propagationPolicy", policy, ["Foreground", "Background", "Orphan"])
        )
    if any(value != "All" for value in body.get("dryRun") or ()):
        problems.append(not_supported("dryRun", body["dryRun"], ["All"]))
    if problems:
        raise invalid_kind("DeleteOptions", "meta.k8s.io", "", problems)
    if body.get("dryRun"):
        call.request.query["dryRun"] = ["All"]
    conditions = body.get("preconditions") or {}
    return DeleteOptions(
        None if grace is None else max(int(grace), 1) if grace < 0 else int(grace),
        policy,
        conditions.get("uid"),
        conditions.get("resourceVersion"),
    )


async def delete(call: Call) -> Response:
    """DELETE of one object."""
    check_write_options(call)
    options = delete_options(call)
    done = await delete_object(call, call.namespace, call.info.name, options)
    return deletion_answer(call, done)


def deletion_answer(call: Call, done: Deletion) -> Response:
    """The object, or where a kind does not give it back when it is gone, a Status."""
    kind = call.kind
    if done.gone and not strategy_of(kind).returns_deleted:
        details = {"name": call.info.name}
        if kind.group:
            details["group"] = kind.group
        details["kind"] = kind.plural
        details["uid"] = done.obj["metadata"]["uid"]
        return json_response(200, success(details))
    return writes.answer(call, 200, done.obj)


async def delete_object(
    call: Call, namespace: str, name: str, options: DeleteOptions, *, admitted: bool = False
) -> Deletion:
    """Delete or mark one object. `admitted`: nobody is to be asked any more. Raises ApiError."""
    mirror, kind = call.core.mirror, call.kind
    cache = mirror.cache(kind)
    await mirror.wait_fresh()
    entry = cache.get(namespace, name)
    for _ in range(writes.ATTEMPTS_MAX):
        if entry is None:
            raise not_found(kind, name)
        try:
            return await _attempt(call, entry, options, admitted=admitted)
        except writes.Moved as moved:
            call.core.metrics.conflicts_retried += 1
            item = moved.current
            entry = item and Entry.of(entry.key, item.revision, item.value)
    raise conflict(kind, name)


async def _attempt(call: Call, entry: Entry, options: DeleteOptions, *, admitted: bool) -> Deletion:
    kind = call.kind
    strategy = strategy_of(kind)
    await prepare(call.core, kind, (entry,))
    obj = read(kind, entry)
    metadata = obj["metadata"]
    _check_preconditions(call, obj, options)
    refusal = strategy.check_delete(call, obj)
    if refusal is not None:
        raise refusal
    if not admitted:
        await review_delete(call, obj)
    now = call.core.now()
    grace = strategy.grace_seconds(obj, options.grace_seconds)
    finalizers = _finalizers(obj, options.policy)
    if not metadata.get("deletionTimestamp"):
        finalizers += [f for f in strategy.deletion_finalizers(call, obj) if f not in finalizers]
    new = copy(obj)
    if metadata.get("deletionTimestamp"):
        if grace and grace >= metadata.get("deletionGracePeriodSeconds", 0):
            return Deletion(obj, False)
        shortened = options.grace_seconds is not None and metadata.get("deletionGracePeriodSeconds")
        unchanged = finalizers == metadata.get("finalizers", []) and not shortened
        if unchanged and (finalizers or grace or not strategy.is_finished(obj)):
            return Deletion(obj, False)
        base = parse_time(metadata["deletionTimestamp"]) - metadata.get(
            "deletionGracePeriodSeconds", 0
        )
        new["metadata"]["deletionTimestamp"] = format_time(min(base + grace, now + grace))
    else:
        new["metadata"]["deletionTimestamp"] = format_time(now + grace)
        if metadata.get("generation"):
            new["metadata"]["generation"] = metadata["generation"] + 1
        strategy.mark_deleted(new)
    new["metadata"]["deletionGracePeriodSeconds"] = grace
    if finalizers:
        new["metadata"]["finalizers"] = finalizers
    else:
        new["metadata"].pop("finalizers", None)
    if grace or finalizers or not strategy.is_finished(new):
        return Deletion(await writes.commit(call, strategy, new, entry), False)
    await writes.remove(call, strategy, new, entry)
    return Deletion(new, True)


def _check_preconditions(call: Call, obj: Obj, options: DeleteOptions) -> None:
    kind, metadata = call.kind, obj["metadata"]
    for word, wanted, actual in (
        ("UID", options.uid, metadata["uid"]),
        ("ResourceVersion", options.resource_version, metadata["resourceVersion"]),
    ):
        if wanted is not None and wanted != actual:
            tail = (
                "The object might have been deleted and then recreated"
                if word == "UID"
                else "The object might have been modified"
            )
            message = (
                f"the {word} in the precondition ({wanted}) does not match the {word} in record "
                f"({actual}). {tail}"
            )
            name = metadata["name"]
            text = f'Operation cannot be fulfilled on {kind.qualified_kind} "{name}": {message}'
            details = {"name": name, "kind": kind.kind}
            if kind.group:
                details["group"] = kind.group
            raise ApiError(409, "Conflict", text, details)


def _finalizers(obj: Obj, policy: str | None) -> list[str]:
    """The finalizers after a deletion with this policy was asked for."""
    finalizers = list(obj["metadata"].get("finalizers") or ())
    if policy is None:
        return finalizers
    finalizers = [f for f in finalizers if f not in (ORPHAN, FOREGROUND)]
    if policy == "Orphan":
        finalizers.append(ORPHAN)
    elif policy == "Foreground":
        finalizers.append(FOREGROUND)
    return finalizers


async def delete_collection(call: Call) -> Response:
    """DELETE of a collection: every object that the selectors choose."""
    check_write_options(call)
    options = delete_options(call)
    form = negotiate(call)
    part = await read_slice(call, list_options(call, call.kind))
    await prepare(call.core, call.kind, part.entries)
    pending = iter(part.entries)

    async def work() -> None:
        for entry in pending:
            try:
                await delete_object(call, entry.namespace, entry.name, options)
            except ApiError as error:
                if error.code != 404:
                    errors.append(error)

    errors: list[ApiError] = []
    async with trio.open_nursery() as nursery:
        for _ in range(min(DELETE_WORKERS, len(part.entries))):
            nursery.start_soon(work)
    if errors:
        raise errors[0]
    body = form.list(call.kind, part.entries, call.core.now(), part.revision)
    return form.response(200, body)
