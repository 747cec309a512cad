"""The OpenAPI v2 document as protobuf, which client-go asks for. Pure.

The messages are those of gnostic's `openapi.v2.Document`. Each is a table here: the keyword of the
JSON document, its field number, and how its value is written. Keywords that begin with `x-` go into
`vendor_extension`; values of any form are written as YAML, of which JSON is a part. Keywords that
the message has no field for are left out.
"""

from __future__ import annotations

import struct
from collections.abc import Callable, Iterable
from typing import Any

import orjson

from k8slite.api.meta import Obj

__all__ = ["ASKED_FOR", "MEDIA_TYPE", "encode"]

MEDIA_TYPE = "application/com.github.proto-openapi.spec.v2.v1.0+protobuf"
ASKED_FOR = (MEDIA_TYPE, "application/com.github.proto-openapi.spec.v2@v1.0+protobuf")
"""Names that clients know it by; the one with an @, which no MIME type may have, is the older."""

Write = Callable[[int, Any], bytes]
"""Of a field's number and its value: the field on the wire, or several of the same number."""
Table = dict[str, tuple[int, Write]]

_VARINT, _FIXED64, _BYTES = 0, 1, 2


def encode(document: Obj) -> bytes:
    """A Swagger document, as `openapi_v2.swagger` makes it, as bytes of a Document message."""
    return _message(_DOCUMENT, document)


def _varint(value: int) -> bytes:
    value &= (1 << 64) - 1
    out = bytearray()
    while value > 127:
        out.append(value & 127 | 128)
        value >>= 7
    out.append(value)
    return bytes(out)


def _bytes(number: int, value: bytes) -> bytes:
    return _varint(number << 3 | _BYTES) + _varint(len(value)) + value


def _string(number: int, value: Any) -> bytes:
    return _bytes(number, str(value).encode())


def _strings(number: int, value: Any) -> bytes:
    return b"".join(_string(number, each) for each in value)


def _integer(number: int, value: Any) -> bytes:
    return _varint(number << 3 | _VARINT) + _varint(int(value))


def _double(number: int, value: Any) -> bytes:
    return _varint(number << 3 | _FIXED64) + struct.pack("<d", value)


def _any(number: int, value: Any) -> bytes:
    return _bytes(number, _string(2, orjson.dumps(value).decode()))


def _anys(number: int, value: Any) -> bytes:
    return b"".join(_any(number, each) for each in value)


def _of(table: Callable[[], Table]) -> Write:
    """A message of that table, which may come later in this file."""
    return lambda number, value: _bytes(number, _message(table(), value))


def _named(write: Write) -> Write:
    """A map: (name = 1, value = 2) for each."""

    def writes(number: int, value: Any) -> bytes:
        return b"".join(
            _bytes(number, _string(1, name) + write(2, each)) for name, each in value.items()
        )

    return writes


def _inside(write: Write) -> Write:
    """A message whose only field, 1, it is."""
    return lambda number, value: _bytes(number, write(1, value))


def _each(write: Write) -> Write:
    return lambda number, value: b"".join(write(number, each) for each in value)


_extensions = _named(_any)


def _message(table: Table, value: Obj) -> bytes:
    out = [table[key][1](table[key][0], each) for key, each in value.items() if key in table]
    if "x-" in table:
        number, write = table["x-"]
        out.append(write(number, {k: v for k, v in value.items() if k.startswith("x-")}))
    return b"".join(out)


def _types(number: int, value: Any) -> bytes:
    return _bytes(number, _strings(1, [value] if isinstance(value, str) else value))


def _items(number: int, value: Any) -> bytes:
    schemas: Iterable[Obj] = value if isinstance(value, list) else [value]
    return _bytes(number, _each(_schema)(1, schemas))


def _additional(number: int, value: Any) -> bytes:
    if isinstance(value, bool):
        return _bytes(number, _integer(2, value))
    return _bytes(number, _schema(1, value))


_schema = _of(lambda: _SCHEMA)
_SCHEMA: Table = {
    "$ref": (1, _string),
    "format": (2, _string),
    "title": (3, _string),
    "description": (4, _string),
    "default": (5, _any),
    "multipleOf": (6, _double),
    "maximum": (7, _double),
    "exclusiveMaximum": (8, _integer),
    "minimum": (9, _double),
    "exclusiveMinimum": (10, _integer),
    "maxLength": (11, _integer),
    "minLength": (12, _integer),
    "pattern": (13, _string),
    "maxItems": (14, _integer),
    "minItems": (15, _integer),
    "uniqueItems": (16, _integer),
    "maxProperties": (17, _integer),
    "minProperties": (18, _integer),
    "required": (19, _strings),
    "enum": (20, _anys),
    "additionalProperties": (21, _additional),
    "type": (22, _types),
    "items": (23, _items),
    "allOf": (24, _each(_schema)),
    "properties": (25, _inside(_named(_schema))),
    "readOnly": (27, _integer),
    "example": (30, _any),
    "x-": (31, _extensions),
}
_BODY: Table = {
    "description": (1, _string),
    "name": (2, _string),
    "in": (3, _string),
    "required": (4, _integer),
    "schema": (5, _schema),
    "x-": (6, _extensions),
}
_IN_PATH: Table = {
    "required": (1, _integer),
    "in": (2, _string),
    "description": (3, _string),
    "name": (4, _string),
    "type": (5, _string),
    "format": (6, _string),
    "uniqueItems": (19, _integer),
    "x-": (22, _extensions),
}
_IN_QUERY: Table = {
    "required": (1, _integer),
    "in": (2, _string),
    "description": (3, _string),
    "name": (4, _string),
    "type": (6, _string),
    "format": (7, _string),
    "uniqueItems": (20, _integer),
    "x-": (23, _extensions),
}


def _parameter(number: int, value: Obj) -> bytes:
    """ParametersItem { Parameter { BodyParameter or NonBodyParameter { by its place } } }"""
    if value["in"] == "body":
        parameter = _bytes(1, _message(_BODY, value))
    elif value["in"] == "query":
        parameter = _bytes(2, _bytes(3, _message(_IN_QUERY, value)))
    else:
        parameter = _bytes(2, _bytes(4, _message(_IN_PATH, value)))
    return _bytes(number, _bytes(1, parameter))


_RESPONSE: Table = {
    "description": (1, _string),
    "schema": (2, _inside(_schema)),
    "x-": (5, _extensions),
}
_OPERATION: Table = {
    "tags": (1, _strings),
    "description": (3, _string),
    "operationId": (5, _string),
    "produces": (6, _strings),
    "consumes": (7, _strings),
    "parameters": (8, _each(_parameter)),
    "responses": (9, _inside(_named(_inside(_of(lambda: _RESPONSE))))),
    "x-": (13, _extensions),
}
_operation = _of(lambda: _OPERATION)
_PATH: Table = {
    "get": (2, _operation),
    "put": (3, _operation),
    "post": (4, _operation),
    "delete": (5, _operation),
    "patch": (8, _operation),
    "parameters": (9, _each(_parameter)),
    "x-": (10, _extensions),
}


def _paths(number: int, value: Obj) -> bytes:
    return _bytes(number, _named(_of(lambda: _PATH))(2, value))


_INFO: Table = {"title": (1, _string), "version": (2, _string)}
_DOCUMENT: Table = {
    "swagger": (1, _string),
    "info": (2, _of(lambda: _INFO)),
    "paths": (8, _paths),
    "definitions": (9, _inside(_named(_schema))),
}
