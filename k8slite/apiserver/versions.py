"""Custom resources in several versions: what their definition's webhook makes of objects.

Objects are stored in one version; those of another are converted when they are read, in one
question for as many as are needed, and the answer is kept with the entry. Errors have the words of
kube-apiserver's converter.
"""

from __future__ import annotations

import base64
import binascii
from collections.abc import Iterable
from typing import Any

import orjson
import trio

from k8slite.api.custom import CustomKind, prune
from k8slite.api.kinds import Kind
from k8slite.api.meta import Obj, copy
from k8slite.api.status import ApiError, resource_not_found
from k8slite.apiserver.backends import BackendError, place_of, refusal_words
from k8slite.apiserver.conversion import from_stored, to_stored
from k8slite.apiserver.core import Core
from k8slite.apiserver.kind_table import is_custom
from k8slite.apiserver.objects import decode_body, encode
from k8slite.apiserver.registry.identity import new_uid
from k8slite.apiserver.watch_cache import Entry

__all__ = ["in_version", "is_outdated", "prepare", "stored_value"]

BATCH_OBJECTS = 500
TIMEOUT_SECONDS = 30
_REVIEW = "ConversionReview"
_GROUP = "apiextensions.k8s.io"
_VERSIONS = ("v1", "v1beta1")
_KEPT = ("labels", "annotations")
"""What a webhook may change of the metadata."""


class _ConversionError(Exception):
    """The text goes after `conversion webhook for KIND`."""


def is_outdated(kind: Kind, entry: Entry) -> bool:
    """Is it stored in another version than it would be now?"""
    return bool(kind.stored_as and entry.version and entry.version != kind.stored_as)


async def prepare(core: Core, kind: Kind, entries: Iterable[Entry]) -> None:
    """Make entries ready for `forms.read` in a version of their kind. Raises ApiError 500."""
    if not kind.stored_as:
        return
    pending = [
        entry
        for entry in entries
        if (entry.version or kind.stored_as) != kind.api_version
        and (kind.version not in entry.converted or entry.converted[kind.version][0] is not kind)
    ]
    for start in range(0, len(pending), BATCH_OBJECTS):
        batch = pending[start : start + BATCH_OBJECTS]
        objects = [_as_stored(kind, entry) for entry in batch]
        made = await _convert(core, kind, objects, kind.api_version)
        for entry, obj in zip(batch, made, strict=True):
            entry.converted = {**entry.converted, kind.version: (kind, obj)}


def _as_stored(kind: Kind, entry: Entry) -> Obj:
    obj = decode_body(entry.body, kind)
    obj["apiVersion"] = entry.version or kind.stored_as
    return obj


async def in_version(core: Core, asked: Kind, wanted: Kind, obj: Obj) -> Obj:
    """A copy of an object of one version of a kind in another one. Raises ApiError 500."""
    if asked.stored_as:
        return (await _convert(core, asked, [copy(obj)], wanted.api_version))[0]
    return from_stored(wanted, copy(to_stored(asked, copy(obj))))


async def stored_value(core: Core, kind: Kind, obj: Obj) -> bytes:
    """The bytes to store for an object. Raises ApiError 500."""
    if not is_custom(kind):
        return encode(to_stored(kind, obj))
    custom = _definition(core, kind)
    if kind.stored_as:
        obj = (await _convert(core, kind, [copy(obj)], custom.storage))[0]
    return encode(obj, api_version=custom.storage)


def _definition(core: Core, kind: Kind) -> CustomKind:
    found = core.kinds.custom(kind)
    if found is None:  # the definition went while the request was on its way
        raise resource_not_found()
    return found


async def _convert(core: Core, kind: Kind, objects: list[Obj], wanted: str) -> list[Obj]:
    """All objects in the version wanted; those that are are left alone. Raises ApiError 500."""
    custom = _definition(core, kind)
    others = [obj for obj in objects if obj["apiVersion"] != wanted]
    if not others:
        return objects
    made = iter(await _ask(core, custom, others, wanted))
    schema = core.kinds.schemas(kind.group, wanted.rpartition("/")[2]).get(kind.kind)
    result = []
    for obj in objects:
        if obj["apiVersion"] != wanted:
            obj = next(made)
            if schema is not None:
                prune(schema, obj, [])
        result.append(obj)
    return result


async def _ask(core: Core, custom: CustomKind, objects: list[Obj], wanted: str) -> list[Obj]:
    webhook = custom.conversion or {}
    uid = new_uid(core.host.rng)
    head = f"conversion webhook for {objects[0]['apiVersion']}, Kind={custom.kind.kind}"
    try:
        response = await _exchange(core, webhook, uid, objects, wanted)
        made = _converted(response)
        if len(made) != len(objects):
            raise _ConversionError(f"returned {len(made)} objects, expected {len(objects)}")
        return [_checked(old, new, wanted) for old, new in zip(objects, made, strict=True)]
    except _ConversionError as error:
        raise ApiError(500, "", f"{head} {error}") from None


async def _exchange(core: Core, webhook: Obj, uid: str, objects: list[Obj], wanted: str) -> Obj:
    """The ConversionResponse. Raises _ConversionError."""
    accepted = webhook.get("conversionReviewVersions") or ["v1"]
    version = next((v for v in accepted if v in _VERSIONS), None)
    if version is None:
        raise _ConversionError("failed: no supported conversion review versions")
    frame = {"kind": _REVIEW, "apiVersion": f"{_GROUP}/{version}"}
    request = {"uid": uid, "desiredAPIVersion": wanted, "objects": objects}
    config = webhook.get("clientConfig") or {}
    url = config.get("url") or ""
    try:
        ca = base64.b64decode(config.get("caBundle") or "").decode()
        place = place_of(core.mirror, config, ca, core.host.rng)
        url = place.url
        with trio.fail_after(TIMEOUT_SECONDS):
            body = orjson.dumps({**frame, "request": request})
            answer = await core.backends.post(place, f"timeout={TIMEOUT_SECONDS}s", body)
    except trio.TooSlowError:
        raise _ConversionError(_post(url, "context deadline exceeded")) from None
    except (BackendError, binascii.Error, UnicodeDecodeError) as error:
        raise _ConversionError(_post(url, str(error))) from None
    if answer.status != 200:
        raise _ConversionError(f"failed: {refusal_words(answer)}")
    return _read(answer.body, frame, uid, strict=version == "v1")


def _post(url: str, reason: str) -> str:
    return (
        f'failed: Post "{url}?timeout={TIMEOUT_SECONDS}s": {reason}' if url else f"failed: {reason}"
    )


def _read(body: bytes, frame: Obj, uid: str, *, strict: bool) -> Obj:
    try:
        review = orjson.loads(body)
    except orjson.JSONDecodeError as error:
        raise _ConversionError(f"failed: couldn't decode the webhook's answer: {error}") from None
    if not isinstance(review, dict):
        raise _ConversionError("failed: the webhook's answer is no object")
    if strict and any(review.get(key) != value for key, value in frame.items()):
        raise _ConversionError(
            f"failed: expected webhook response of {frame['apiVersion']}, Kind={frame['kind']}, "
            f"got {review.get('apiVersion')}, Kind={review.get('kind')}"
        )
    response = review.get("response")
    if not isinstance(response, dict):
        raise _ConversionError("failed: no response provided")
    if strict and response.get("uid") != uid:
        raise _ConversionError(
            f'failed: expected response.uid="{uid}", got "{response.get("uid", "")}"'
        )
    return response


def _converted(response: Obj) -> list[Any]:
    result = response.get("result") or {}
    if result.get("status") != "Success":
        status = result.get("status", "")
        told = result.get("message") or f"response.result.status was '{status}', not 'Success'"
        raise _ConversionError(f"failed: {told}")
    return list(response.get("convertedObjects") or ())


def _checked(old: Obj, new: Any, wanted: str) -> Obj:
    """The converted object, with the metadata that it had. Raises _ConversionError."""
    if not isinstance(new, dict):
        raise _ConversionError("returned invalid object: it is no object")
    place = "returned invalid object at index 0"
    if new.get("apiVersion") != wanted:
        received = new.get("apiVersion", "")
        raise _ConversionError(
            f"{place}: invalid groupVersion (expected {wanted}, received {received})"
        )
    if new.get("kind") != old["kind"]:
        received = new.get("kind", "")
        raise _ConversionError(
            f"{place}: invalid kind (expected {old['kind']}, received {received})"
        )
    metadata = new.get("metadata")
    if not isinstance(metadata, dict):
        raise _ConversionError("returned invalid metadata: invalid metadata of converted object")
    for word, key in (("name", "name"), ("namespace", "namespace"), ("UID", "uid")):
        before, after = old["metadata"].get(key, ""), metadata.get(key, "")
        if before != after:
            raise _ConversionError(
                f"returned invalid object: must have the same {word}: {before} != {after}"
            )
    restored = {key: value for key, value in old["metadata"].items() if key not in _KEPT}
    for key in _KEPT:
        if metadata.get(key) is None:
            continue
        if not isinstance(metadata[key], dict):
            raise _ConversionError(f"returned invalid metadata: {key} are no map")
        restored[key] = metadata[key]
    return {**new, "metadata": restored}
