"""In which form a client wants objects: plain JSON, YAML, Table or metadata only.

Owns: content negotiation, and the encoding of entries in each form. Plain JSON of a kind whose
stored shape is the one asked for is made of stored bytes; all else is decoded first.
"""

from __future__ import annotations

from collections.abc import Iterable, Sequence

import orjson
from attrs import frozen

from k8slite.api.kinds import KIND, Kind
from k8slite.api.meta import Obj, copy
from k8slite.api.status import ApiError, not_acceptable
from k8slite.api.tables import to_table
from k8slite.apiserver.call import Call
from k8slite.apiserver.conversion import from_stored, is_stored_version
from k8slite.apiserver.http.message import Response
from k8slite.apiserver.objects import decode_body, list_bytes, object_bytes
from k8slite.apiserver.watch_cache import Entry

__all__ = ["JSON", "Form", "negotiate"]

ACCEPTED = (
    "application/json",
    "application/yaml",
    "application/vnd.kubernetes.protobuf",
)
_META = "meta.k8s.io"


@frozen
class Form:
    """`style` is "json", "table" or "metadata"; `version` is that of the meta group."""

    style: str = "json"
    version: str = "v1"
    yaml: bool = False
    include_object: str = "Metadata"
    printer_columns: tuple[Obj, ...] = ()

    def object(self, kind: Kind, entry: Entry, now: float) -> bytes:
        """One object."""
        if self.style == "json":
            if is_stored_version(kind):
                return object_bytes(entry.body, kind)
            return orjson.dumps(read(kind, entry))
        if self.style == "metadata":
            return orjson.dumps(self._metadata(entry.parsed()))
        table = self._table(
            kind, [read(kind, entry)], now, {"resourceVersion": str(entry.revision)}
        )
        return orjson.dumps(table)

    def list(
        self,
        kind: Kind,
        entries: Sequence[Entry],
        now: float,
        revision: int,
        continue_: str = "",
        remaining: int = 0,
    ) -> bytes:
        """A list of objects as of `revision`."""
        if self.style == "json" and is_stored_version(kind):
            bodies = [entry.body for entry in entries]
            return list_bytes(kind, revision, bodies, continue_, remaining)
        metadata: Obj = {"resourceVersion": str(revision)}
        if continue_:
            metadata["continue"] = continue_
            if remaining > 0:
                metadata["remainingItemCount"] = remaining
        if self.style == "table":
            objects = [read(kind, entry) for entry in entries]
            return orjson.dumps(self._table(kind, objects, now, metadata))
        if self.style == "metadata":
            return orjson.dumps(
                {
                    "kind": "PartialObjectMetadataList",
                    "apiVersion": f"{_META}/{self.version}",
                    "metadata": metadata,
                    "items": [self._metadata(entry.parsed()) for entry in entries],
                }
            )
        return orjson.dumps(
            {
                "kind": kind.list_kind,
                "apiVersion": kind.api_version,
                "metadata": metadata,
                "items": [_item(kind, read(kind, entry)) for entry in entries],
            }
        )

    def event_object(self, kind: Kind, entry: Entry, now: float, *, columns: bool) -> bytes:
        """The object of a watch event; a table tells its columns only if `columns`."""
        if self.style != "table":
            return self.object(kind, entry, now)
        table = self._table(
            kind, [read(kind, entry)], now, {"resourceVersion": str(entry.revision)}
        )
        if not columns:
            table["columnDefinitions"] = None
        return orjson.dumps(table)

    def bookmark(self, kind: Kind, metadata: Obj) -> Obj:
        """The object of a BOOKMARK event."""
        if self.style == "json":
            return {"kind": kind.kind, "apiVersion": kind.api_version, "metadata": metadata}
        partial = self._metadata({"metadata": metadata})
        if self.style == "metadata":
            return partial
        return {
            "kind": "Table",
            "apiVersion": f"{_META}/{self.version}",
            "metadata": {"resourceVersion": metadata["resourceVersion"]},
            "columnDefinitions": None,
            "rows": [{"cells": [], "object": partial}],
        }

    def value(self, kind: Kind, obj: Obj, now: float) -> bytes:
        """An object that need not be stored (the answer to a write, a review)."""
        if self.style == "metadata":
            return orjson.dumps(self._metadata(obj))
        if self.style == "table":
            version = obj.get("metadata", {}).get("resourceVersion", "")
            return orjson.dumps(self._table(kind, [obj], now, {"resourceVersion": version}))
        return orjson.dumps(obj)

    def response(
        self, status: int, body: bytes, headers: tuple[tuple[bytes, bytes], ...] = ()
    ) -> Response:
        """The answer with JSON `body`, turned into YAML if that is what was asked for."""
        if self.yaml:
            import yaml  # slow to import, and hardly anybody asks for it

            text = yaml.safe_dump(orjson.loads(body), sort_keys=True, allow_unicode=True)
            return Response(status, text.encode(), b"application/yaml", headers)
        return Response(status, body, headers=headers)

    def _metadata(self, obj: Obj) -> Obj:
        return {
            "kind": "PartialObjectMetadata",
            "apiVersion": f"{_META}/{self.version}",
            "metadata": obj["metadata"],
        }

    def _table(self, kind: Kind, objects: Iterable[Obj], now: float, metadata: Obj) -> Obj:
        table = to_table(
            kind,
            objects,
            now,
            metadata,
            self.include_object,
            printer_columns=self.printer_columns or None,
        )
        if self.version != "v1":
            table["apiVersion"] = f"{_META}/{self.version}"
        return table


JSON = Form()


def read(kind: Kind, entry: Entry) -> Obj:
    """An entry as an object of its own in the version asked for.

    An entry that only a webhook can convert must have been prepared (`versions.prepare`).
    """
    if kind.stored_as:
        found = entry.converted.get(kind.version)
        if found is not None and found[0] is kind:
            return copy(found[1])
        if (entry.version or kind.stored_as) != kind.api_version:
            raise ApiError(500, "", f"{kind.resource} {entry.key} is not converted yet")
    return from_stored(kind, decode_body(entry.body, kind))


def _item(kind: Kind, obj: Obj) -> Obj:
    """An object as an item of a list; of built-in kinds they don't repeat apiVersion and kind."""
    if kind.resource not in KIND:
        return obj
    return {k: v for k, v in obj.items() if k not in ("kind", "apiVersion")}


def negotiate(call: Call, *, transform: bool = True) -> Form:
    """The first form in the Accept header that we can make. Raises ApiError 406.

    `transform` False: what is answered is no stored object, so tables cannot be had.
    """
    request = call.request
    accept = request.headers.get(b"accept")
    if accept is None or accept in (b"*/*", b"application/json"):
        return JSON
    for clause in accept.decode("latin-1").split(","):
        media, *rest = (part.strip() for part in clause.split(";"))
        params = dict(part.partition("=")[::2] for part in rest)
        if media not in ("application/json", "application/yaml", "*/*", "application/*", ""):
            continue
        style = params.get("as")
        is_yaml = media == "application/yaml"
        if style is None:
            return Form(yaml=True) if is_yaml else JSON
        if not transform or params.get("g") != _META or params.get("v") not in ("v1", "v1beta1"):
            continue
        if style == "Table":
            included = request.param("includeObject") or "Metadata"
            columns = call.core.kinds.printer_columns(call.kind)
            return Form("table", params["v"], is_yaml, included, columns)
        if style in ("PartialObjectMetadata", "PartialObjectMetadataList"):
            return Form("metadata", params["v"], is_yaml)
    raise not_acceptable(ACCEPTED)
