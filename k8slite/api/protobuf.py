"""Reads Kubernetes' protobuf bodies into JSON-shaped objects.

The format: the four bytes `k8s\\0`, then a runtime.Unknown message whose `raw` is the object's own
message. A small reader driven by the schema's field numbers is enough (kubectl's bodies are a few
hundred bytes) and spares every process the protobuf library. Embedded structs of Go are messages on
the wire and inlined in JSON; times, quantities and the like are messages with one JSON value each.
"""

from __future__ import annotations

import base64
import struct
from functools import cache
from typing import Any, NamedTuple

import orjson

from k8slite.api.meta import Obj, format_micro_time, format_time
from k8slite.api.schema import Field, Type

MAGIC = b"k8s\x00"
_VARINT, _FIXED64, _BYTES, _FIXED32 = 0, 1, 2, 5
_ZERO_TIME_SECONDS = -62135596800


class ProtobufError(ValueError):
    """The bytes are no such message."""


class Unknown(NamedTuple):
    """The envelope: what the bytes in `raw` are."""

    api_version: str
    kind: str
    raw: bytes
    content_type: str


def read_envelope(body: bytes) -> Unknown:
    """Raises ProtobufError where the body does not begin with the envelope."""
    if body[:4] != MAGIC:
        raise ProtobufError(
            "provided data does not appear to be a protobuf message, expected prefix"
        )
    try:
        return _read_envelope(body)
    except _MISTYPED as error:
        raise ProtobufError("a field of the envelope has the wrong wire type") from error


_MISTYPED = (TypeError, AttributeError, KeyError, OverflowError)
"""What reading a number as a message or text runs into, or the other way round."""


def _read_envelope(body: bytes) -> Unknown:
    api_version = kind = content_type = ""
    raw = b""
    for number, _, value in _fields(body, 4, len(body)):
        if number == 1:
            for inner, _, text in _fields(value, 0, len(value)):
                if inner == 1:
                    api_version = text.decode()
                elif inner == 2:
                    kind = text.decode()
        elif number == 2:
            raw = value
        elif number == 4:
            content_type = value.decode()
    return Unknown(api_version, kind, raw, content_type)


def read_object(type_: Type, raw: bytes) -> Obj:
    """The message as an object; fields that Go would omit are still there (see normalise)."""
    out: Obj = {}
    try:
        _read_struct(_table(type_), raw, out)
    except _MISTYPED as error:
        raise ProtobufError("a field has the wrong wire type") from error
    return out


_Table = dict[int, Any]  # field number -> Field, or the _Table of an embedded struct


@cache
def _table(type_: Type) -> _Table:
    table: _Table = {}
    for field in type_.fields.values():
        level = table
        if not field.numbers:
            continue
        for number in field.numbers[:-1]:
            level = level.setdefault(number, {})
        level[field.numbers[-1]] = field
    return table


def _read_struct(table: _Table, data: bytes, out: Obj) -> None:
    for number, wire, value in _fields(data, 0, len(data)):
        field = table.get(number)
        if field is None:
            continue
        if isinstance(field, dict):
            _read_struct(field, value, out)
            continue
        shape = field.shape
        if not shape:
            item = _value(field, wire, value)
            if item is not None:
                out[field.name] = item
        elif shape[0] == "[":
            items = out.setdefault(field.name, [])
            if wire == _BYTES and field.code in "ilb":
                items.extend(_packed(field, value))
            else:
                items.append(_value(field, wire, value))
        else:
            entries = out.setdefault(field.name, {})
            key, item = _entry(field, value)
            entries[key] = item


def _entry(field: Field, data: bytes) -> tuple[str, Any]:
    key = ""
    item: Any = [] if len(field.shape) > 1 else _EMPTY.get(field.code, "")
    if field.code == "@":
        item = {}
    for number, wire, value in _fields(data, 0, len(data)):
        if number == 1:
            key = value.decode()
        elif len(field.shape) > 1:  # a map of lists: the value is a message with repeated items
            item = [_value(field, w, v) for n, w, v in _fields(value, 0, len(value)) if n == 1]
        else:
            item = _value(field, wire, value)
    return key, item


_EMPTY: dict[str, Any] = {"i": 0, "l": 0, "b": False, "q": "0"}


def _packed(field: Field, data: bytes) -> list[Any]:
    items: list[Any] = []
    at = 0
    while at < len(data):
        number, at = _varint(data, at)
        items.append(_value(field, _VARINT, number))
    return items


def _value(field: Field, wire: int, value: Any) -> Any:
    code = field.code
    if wire == _VARINT:
        if code == "b":
            return value != 0
        return value - (1 << 64) if value >= 1 << 63 else value
    if code == "s":
        return value.decode()
    if code == "@":
        out: Obj = {}
        _read_struct(_table(field.type), value, out)
        return out
    return _READERS[code](value)


def _read_bytes(value: bytes) -> str:
    return base64.b64encode(value).decode()


def _seconds(value: bytes) -> tuple[int, int] | None:
    seconds = nanos = 0
    for number, _, n in _fields(value, 0, len(value)):
        signed = n - (1 << 64) if n >= 1 << 63 else n
        if number == 1:
            seconds = signed
        elif number == 2:
            nanos = signed
    if (seconds == 0 and nanos == 0) or seconds == _ZERO_TIME_SECONDS:
        return None
    return seconds, nanos


def _read_time(value: bytes) -> str | None:
    read = _seconds(value)
    return None if read is None else format_time(read[0])


def _read_micro_time(value: bytes) -> str | None:
    read = _seconds(value)
    return None if read is None else format_micro_time(read[0] + read[1] / 1e9)


def _read_quantity(value: bytes) -> str:
    for number, _, text in _fields(value, 0, len(value)):
        if number == 1:
            return str(text.decode())
    return "0"


def _read_int_or_string(value: bytes) -> int | str:
    is_text, number_value, text_value = False, 0, ""
    for number, _, v in _fields(value, 0, len(value)):
        if number == 1:
            is_text = v == 1
        elif number == 2:
            number_value = v - (1 << 64) if v >= 1 << 63 else v
        elif number == 3:
            text_value = v.decode()
    return text_value if is_text else number_value


def _read_raw(value: bytes) -> Any:
    for number, _, raw in _fields(value, 0, len(value)):
        if number == 1 and raw:
            try:
                return orjson.loads(raw)
            except orjson.JSONDecodeError as error:
                raise ProtobufError(f"embedded JSON: {error}") from None
    return None


def _read_double(value: bytes) -> float:
    return float(struct.unpack("<d", value)[0])


_READERS = {
    "B": _read_bytes,
    "t": _read_time,
    "u": _read_micro_time,
    "q": _read_quantity,
    "x": _read_int_or_string,
    "a": _read_raw,
    "n": _read_double,
}


def _varint(data: bytes, at: int) -> tuple[int, int]:
    number = shift = 0
    while True:
        if at >= len(data) or shift > 63:
            raise ProtobufError("unexpected EOF")
        byte = data[at]
        at += 1
        number |= (byte & 0x7F) << shift
        if byte < 0x80:
            return number & 0xFFFFFFFFFFFFFFFF, at
        shift += 7


def _fields(data: bytes, at: int, end: int) -> list[tuple[int, int, Any]]:
    """(field number, wire type, int or bytes) of every field of a message, in order."""
    found: list[tuple[int, int, Any]] = []
    while at < end:
        key, at = _varint(data, at)
        wire = key & 7
        value: Any
        if wire == _VARINT:
            value, at = _varint(data, at)
        elif wire == _BYTES:
            size, at = _varint(data, at)
            value, at = data[at : at + size], at + size
        elif wire == _FIXED64:
            value, at = data[at : at + 8], at + 8
        elif wire == _FIXED32:
            value, at = data[at : at + 4], at + 4
        else:
            raise ProtobufError(f"illegal wire type {wire}")
        if at > end:
            raise ProtobufError("unexpected EOF")
        found.append((key >> 3, wire, value))
    return found
