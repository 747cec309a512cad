"""How an object lies in the store: one key, one JSON value; and how its bytes become answers.

The value is `{"metadata":{...},...}`: metadata first, without apiVersion, kind and
resourceVersion, because those follow from the key, the path asked for and the store's revision.
The `body` of a stored object is the value with the revision spliced in and the first brace cut
off: `"metadata":{"resourceVersion":"7",...},...}`. An answer is a few constant bytes and the
body; a list is a join of bodies.

Versions of custom resources may differ in shape, and the version in which they are stored may
change: before their metadata stands the apiVersion in which they were stored.

Pure. Never parses on the way out.
"""

from __future__ import annotations

import sys
from typing import Any

import orjson

from k8slite.api.kinds import KIND, KINDS, Kind
from k8slite.api.meta import Obj

__all__ = [
    "ROOT",
    "body_at",
    "body_of",
    "decode_body",
    "encode",
    "list_bytes",
    "object_bytes",
    "parse_key",
    "resource_prefix",
    "storage_key",
    "storage_kind",
    "version_of",
]

ROOT = b"/registry/"
_VALUE_HEAD = b'{"metadata":{'
_VERSION_HEAD = b'{"apiVersion":"'
_BODY_HEAD = b'"metadata":{"resourceVersion":"%d",'
_CORE = frozenset(kind.plural for kind in KINDS if not kind.group)

_SAME_OBJECTS = {"events.events.k8s.io": "events"}
"""Resources of two groups that are one set of objects."""


def storage_kind(kind: Kind) -> Kind:
    """The kind (group and version) in whose shape objects of `kind` are stored."""
    resource = _SAME_OBJECTS.get(kind.resource, kind.resource)
    return KIND.get(resource, kind)


def resource_prefix(group: str, plural: str) -> bytes:
    """The store prefix of a resource, with the final slash."""
    path = f"{group}/{plural}/" if group else f"{plural}/"
    return ROOT + path.encode()


def storage_key(kind: Kind, namespace: str, name: str) -> bytes:
    """The store key of one object; kind is the storage kind."""
    rest = f"{namespace}/{name}" if kind.namespaced else name
    return resource_prefix(kind.group, kind.plural) + rest.encode()


def parse_key(key: bytes) -> tuple[str, str, str]:
    """(group, plural, rest) of a store key; rest is `namespace/name` or `name`."""
    assert key.startswith(ROOT), key
    first, _, rest = key[len(ROOT) :].decode().partition("/")
    if first in _CORE:
        return "", first, rest
    plural, _, rest = rest.partition("/")
    return first, plural, rest


def encode(obj: Obj, *, api_version: str = "") -> bytes:
    """The stored value of an object; `api_version` is noted with it. It must have a name."""
    metadata: dict[str, Any] = obj["metadata"]
    assert metadata.get("name"), "an object without a name cannot be stored"
    value: dict[str, Any] = {"apiVersion": api_version} if api_version else {}
    value["metadata"] = {k: v for k, v in metadata.items() if k != "resourceVersion"}
    for key, part in obj.items():
        if key not in ("metadata", "apiVersion", "kind"):
            value[key] = part
    return orjson.dumps(value)


def body_of(value: bytes, revision: int) -> bytes:
    """The body of a stored value at its revision."""
    start = 0 if value.startswith(_VALUE_HEAD) else value.index(b'"metadata":{') - 1
    return _BODY_HEAD % revision + value[start + len(_VALUE_HEAD) :]


def version_of(value: bytes) -> str:
    """The apiVersion noted with a stored value; empty if none is."""
    if not value.startswith(_VERSION_HEAD):
        return ""
    start = len(_VERSION_HEAD)
    return sys.intern(value[start : value.index(b'"', start)].decode())


def body_at(body: bytes, revision: int) -> bytes:
    """The same body under another revision."""
    return _BODY_HEAD % revision + body[body.index(b'",') + 2 :]


def decode_body(body: bytes, kind: Kind) -> Obj:
    """The object as a dict of our own, with apiVersion, kind and resourceVersion."""
    obj: Obj = {"kind": kind.kind, "apiVersion": kind.api_version}
    obj.update(orjson.loads(b"{" + body))
    return obj


def object_bytes(body: bytes, kind: Kind) -> bytes:
    """The JSON of one object, as answers and watch events carry it."""
    return _object_head(kind) + body


_heads: dict[tuple[str, str], bytes] = {}


def _object_head(kind: Kind) -> bytes:
    key = (kind.kind, kind.api_version)
    found = _heads.get(key)
    if found is None:
        found = b'{"kind":"%b","apiVersion":"%b",' % (kind.kind.encode(), kind.api_version.encode())
        _heads[key] = found
    return found


def list_bytes(
    kind: Kind, revision: int, bodies: list[bytes], continue_: str = "", remaining: int = 0
) -> bytes:
    """The JSON of a list; items of built-in kinds don't repeat apiVersion and kind."""
    metadata: dict[str, Any] = {"resourceVersion": str(revision)}
    if continue_:
        metadata["continue"] = continue_
        if remaining > 0:
            metadata["remainingItemCount"] = remaining
    head = orjson.dumps(
        {"kind": kind.list_kind, "apiVersion": kind.api_version, "metadata": metadata}
    )
    if not bodies:
        return head[:-1] + b',"items":[]}'
    opening = b"{" if KIND.get(kind.resource) is not None else _object_head(kind)
    return b"".join((head[:-1], b',"items":[', opening, (b"}," + opening)[1:].join(bodies), b"]}"))
