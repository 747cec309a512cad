"""get and list: which revision a read is of, and where its bytes come from.

A read is answered from the mirror; one that must be the newest first waits until the mirror has
caught up. Only a list pinned to an older revision (`Exact`, or a later page) goes to the store.
"""

from __future__ import annotations

from collections.abc import Iterable
from itertools import islice
from typing import NamedTuple

import trio

from k8slite.api.status import ApiError, expired, not_found
from k8slite.apiserver.call import Call
from k8slite.apiserver.forms import negotiate
from k8slite.apiserver.http.message import Response
from k8slite.apiserver.mirror import store_unavailable
from k8slite.apiserver.objects import resource_prefix, storage_kind
from k8slite.apiserver.options import (
    EXACT,
    ListOptions,
    decode_continue,
    encode_continue,
    list_options,
)
from k8slite.apiserver.store.base import prefix_end
from k8slite.apiserver.versions import prepare
from k8slite.apiserver.watch_cache import Entry, KindCache
from raftkv.errors import Compacted, FutureRevision, KvError

__all__ = ["Slice", "find", "get", "list_", "read_slice"]

PAGE_ITEMS = 1_000
EXPIRED_CONTINUE = (
    "The provided continue parameter is too old to display a consistent list result. "
    "You can start a new list without the continue parameter."
)


async def find(call: Call, *, version: int | None = None) -> Entry:
    """The newest state of the object that the path names (or one not older than `version`).

    Raises ApiError 404.
    """
    mirror = call.core.mirror
    if version is None:
        await mirror.wait_fresh()
    elif version:
        await mirror.wait_at_least(version)
    entry = mirror.cache(call.kind).get(call.namespace, call.info.name)
    if entry is None:
        raise not_found(call.kind, call.info.name)
    return entry


async def get(call: Call) -> Response:
    """GET of one object, or of its status."""
    form = negotiate(call)
    options = list_options(call, call.kind)
    entry = await find(call, version=options.resource_version)
    await prepare(call.core, call.kind, (entry,))
    return form.response(200, form.object(call.kind, entry, call.core.now()))


class Slice(NamedTuple):
    """Part of a list: entries at `revision`, and where the next part begins."""

    entries: list[Entry]
    revision: int
    continue_: str = ""
    remaining: int = 0


async def list_(call: Call) -> Response:
    """GET of a collection."""
    form = negotiate(call)
    options = list_options(call, call.kind)
    part = await read_slice(call, options)
    await prepare(call.core, call.kind, part.entries)
    body = form.list(
        call.kind, part.entries, call.core.now(), part.revision, part.continue_, part.remaining
    )
    return form.response(200, body)


async def read_slice(call: Call, options: ListOptions) -> Slice:
    """The part of the collection that the options ask for. Raises ApiError."""
    mirror = call.core.mirror
    cache = mirror.cache(call.kind)
    prefix = _prefix(call)
    version = options.resource_version
    if options.selection.converts is not None:
        await mirror.wait_fresh()
        await prepare(call.core, call.kind, cache.select(prefix))
    if options.continue_:
        if version:
            raise ApiError(
                400,
                "BadRequest",
                "specifying resource version is not allowed when using continue",
            )
        pinned, start = decode_continue(options.continue_)
        if not start.startswith(prefix):
            raise ApiError(400, "BadRequest", "continue key is not valid: it is of another list")
        await mirror.wait_at_least(pinned)
        if cache.changed_at > pinned or cache.floor > pinned:
            return await _stored(call, cache, options, prefix, start, pinned)
        return _mirrored(cache, options, prefix, start, pinned)
    if options.match == EXACT or (version and options.limit and not options.match):
        assert version
        await mirror.wait_at_least(version)
        if cache.changed_at > version or cache.floor > version:
            return await _stored(call, cache, options, prefix, "", version)
        return _mirrored(cache, options, prefix, "", version)
    if version is None:
        await mirror.wait_fresh()
    elif version:
        await mirror.wait_at_least(version)
    return _mirrored(cache, options, prefix, "", mirror.revision)


def _prefix(call: Call) -> str:
    namespace = call.namespace
    return f"{namespace}/" if namespace and call.kind.namespaced else ""


def _mirrored(
    cache: KindCache, options: ListOptions, prefix: str, start: str, revision: int
) -> Slice:
    """From the mirror, whose state is that of `revision` as far as this cache goes."""
    selection, limit = options.selection, options.limit
    name = selection.fields.required("metadata.name")
    found: Iterable[Entry]
    if name is not None and prefix and not start:
        entry = cache.entries.get(prefix + name)
        found = () if entry is None else (entry,)
    else:
        found = cache.select(prefix, start)
    if selection.empty:
        if not limit:
            return Slice(list(found), revision)
        entries = list(islice(found, limit + 1))
        if len(entries) <= limit:
            return Slice(entries, revision)
        following = entries.pop()
        remaining = sum(1 for _ in cache.select(prefix, following.key))
        return Slice(entries, revision, encode_continue(revision, following.key), remaining)
    matches = selection.matches
    chosen = (entry for entry in found if matches(entry))
    if not limit:
        return Slice(list(chosen), revision)
    entries = list(islice(chosen, limit))
    if len(entries) == limit and next(chosen, None) is not None:
        return Slice(entries, revision, encode_continue(revision, entries[-1].key + "\0"))
    return Slice(entries, revision)


async def _stored(
    call: Call, cache: KindCache, options: ListOptions, prefix: str, start: str, revision: int
) -> Slice:
    """From the store, as of an older revision."""
    stored = storage_kind(call.kind)
    root = resource_prefix(stored.group, stored.plural)
    at, end = root + (start or prefix).encode(), prefix_end(root + prefix.encode())
    entries: list[Entry] = []
    limit = options.limit
    try:
        with trio.fail_after(call.core.config.store_seconds):
            while True:
                page = await call.core.store.page(at, end, limit or PAGE_ITEMS, revision)
                for item in page.items:
                    key = item.key[len(root) :].decode()
                    entry = Entry.of(key, item.revision, item.value)
                    if options.selection.converts is not None:
                        await prepare(call.core, call.kind, (entry,))
                    if options.selection.empty or options.selection.matches(entry):
                        entries.append(entry)
                if page.remaining <= 0:
                    return Slice(entries, revision)
                at = page.items[-1].key + b"\0"
                if limit and len(entries) >= limit:
                    break
    except Compacted:
        raise expired(EXPIRED_CONTINUE if options.continue_ else _TOO_OLD) from None
    except (trio.TooSlowError, KvError, FutureRevision) as error:
        raise store_unavailable(error) from None
    token = encode_continue(revision, at[len(root) :].decode())
    if len(entries) > limit:
        token = encode_continue(revision, entries[limit].key)
        entries = entries[:limit]
    remaining = page.remaining if options.selection.empty else 0
    return Slice(entries, revision, token, remaining)


_TOO_OLD = "The resourceVersion for the provided list is too old."
