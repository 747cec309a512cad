"""Types for the checker, made of structural schemas: protobuf messages and what is made of them.

What has no type to be known (integers or strings, unknown fields, lists of lists) is dynamic, as it
is for the original or more so. Pure.
"""

from __future__ import annotations

from collections.abc import Iterable
from typing import Any

from cel_expr_python import cel
from google.protobuf import descriptor_pb2, duration_pb2, struct_pb2, timestamp_pb2

from k8slite.api.cel.library import new_environment
from k8slite.api.cel.names import escape
from k8slite.api.meta import Obj

__all__ = ["ROOT", "TypeTable"]

_T = cel.Type
_STRING, _BYTES, _BOOL, _INT64, _DOUBLE, _MESSAGE = 9, 12, 8, 3, 1, 11
_ONE, _MANY = 1, 3
_TIMESTAMP, _DURATION = ".google.protobuf.Timestamp", ".google.protobuf.Duration"
_VALUE, _LIST_VALUE, _STRUCT = (f".google.protobuf.{n}" for n in ("Value", "ListValue", "Struct"))
_WELL_KNOWN = {_TIMESTAMP: _T.TIMESTAMP, _DURATION: _T.DURATION, _VALUE: _T.DYN}
_SCALARS = {
    "string": (_STRING, _T.STRING),
    "integer": (_INT64, _T.INT),
    "number": (_DOUBLE, _T.DOUBLE),
    "boolean": (_BOOL, _T.BOOL),
}
_BY_FORMAT = {
    "byte": "bytes",
    "duration": _DURATION,
    "date": _TIMESTAMP,
    "date-time": _TIMESTAMP,
}
ROOT: Obj = {
    "apiVersion": {"type": "string"},
    "kind": {"type": "string"},
    "metadata": {
        "type": "object",
        "properties": {"name": {"type": "string"}, "generateName": {"type": "string"}},
    },
}


class TypeTable:
    """Of the schemas of variables. `file` has the messages."""

    def __init__(self, schemas: Iterable[Obj]) -> None:
        self.file = descriptor_pb2.FileDescriptorProto(name="schema.proto", syntax="proto2")
        for known in (struct_pb2, timestamp_pb2, duration_pb2):
            self.file.dependency.append(known.DESCRIPTOR.name)
        self._messages: dict[int, str] = {}
        for schema in schemas:
            self._declare(schema)
        self._makers = new_environment((), messages=self.file, functions=False)

    def _declare(self, schema: Obj) -> None:
        """The messages that a variable of this schema is made of."""
        shape = _shape(schema)
        if shape == "list":
            self._declare(schema["items"])
        elif shape == "map":
            self._declare(schema["additionalProperties"])
        elif shape == "message":
            self._message(schema)

    def type_of(self, schema: Obj) -> Any:
        """As the checker's variables have it."""
        shape = _shape(schema)
        if shape == "list":
            return _T.List(self.type_of(schema["items"]))
        if shape == "map":
            return _T.Map(_T.STRING, self.type_of(schema["additionalProperties"]))
        if shape == "message":
            # A type that is made by its name alone has no fields.
            return self._makers.compile(f"{self._message(schema)}{{}}").return_type()
        if shape == "bytes":
            return _T.BYTES
        return _WELL_KNOWN.get(shape) or _SCALARS[shape][1]

    def _message(self, schema: Obj) -> str:
        name = self._messages.get(id(schema))
        if name is not None:
            return name
        name = self._messages[id(schema)] = f"selfType{len(self._messages) + 1}"
        message = self.file.message_type.add(name=name)
        properties = schema.get("properties") or {}
        if schema.get("x-kubernetes-embedded-resource"):
            properties = {**properties, **ROOT}
        for property_, inner in properties.items():
            spelt = escape(property_)
            if spelt is not None and isinstance(inner, dict):
                self._field(message, spelt, inner)
        return name

    def _field(self, message: Any, name: str, schema: Obj) -> None:
        number = len(message.field) + 1
        field = message.field.add(name=name, number=number, json_name=f"f{number}", label=_ONE)
        shape = _shape(schema)
        if shape == "list":
            inner = _shape(schema["items"])
            if inner in ("list", "map"):
                field.type, field.type_name = _MESSAGE, _LIST_VALUE
                return
            field.label = _MANY
            self._single(field, inner, schema["items"])
        elif shape == "map":
            inner = _shape(schema["additionalProperties"])
            entry_name = _entry_name(name)
            taken = any(entry_name == other.name for other in message.nested_type)
            if inner in ("list", "map", _VALUE) or taken:
                field.type, field.type_name = _MESSAGE, _STRUCT
                return
            entry = message.nested_type.add(name=entry_name)
            entry.options.map_entry = True
            entry.field.add(name="key", number=1, type=_STRING, label=_ONE)
            value = entry.field.add(name="value", number=2, label=_ONE)
            self._single(value, inner, schema["additionalProperties"])
            field.label, field.type = _MANY, _MESSAGE
            field.type_name = f".{message.name}.{entry.name}"
        else:
            self._single(field, shape, schema)

    def _single(self, field: Any, shape: str, schema: Obj) -> None:
        if shape == "message":
            field.type, field.type_name = _MESSAGE, f".{self._message(schema)}"
        elif shape == "bytes":
            field.type = _BYTES
        elif shape in _SCALARS:
            field.type = _SCALARS[shape][0]
        else:
            field.type, field.type_name = _MESSAGE, shape


def _shape(schema: Obj) -> str:
    type_ = schema.get("type", "")
    if schema.get("x-kubernetes-int-or-string") or schema.get("nullable"):
        return _VALUE
    if type_ == "object":
        if isinstance(schema.get("additionalProperties"), dict):
            return "map"
        if schema.get("properties") or schema.get("x-kubernetes-embedded-resource"):
            return "message"
        return _VALUE if schema.get("x-kubernetes-preserve-unknown-fields") else "message"
    if type_ == "array":
        return "list" if isinstance(schema.get("items"), dict) else _VALUE
    if type_ == "string":
        return _BY_FORMAT.get(schema.get("format", ""), "string")
    return type_ if type_ in _SCALARS else _VALUE


def _entry_name(field: str) -> str:
    """As protobuf wants the message behind a map field to be called."""
    parts = field.split("_")
    return "".join(part[:1].upper() + part[1:] for part in parts) + "Entry"
