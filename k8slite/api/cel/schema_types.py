"""The types of a definition's schema, for checking its rules: messages out of structural schemas.

Rules are evaluated on plain maps and lists; types serve the checker alone, which says what is wrong
before any object is there, and the estimate of costs. What has no type to be known (integers or
strings, unknown fields, lists of lists) is dynamic, as it is for the original or more so.
Pure.
"""

from __future__ import annotations

import re
from collections.abc import Iterator
from typing import Any

from cel_expr_python import cel
from google.protobuf import descriptor_pb2, duration_pb2, struct_pb2, timestamp_pb2

from k8slite.api.cel.library import new_environment
from k8slite.api.cel.names import escape
from k8slite.api.cel.program import CompileError, expand_macros, words
from k8slite.api.cel.syntax import CHECKED, PARSED, nodes, unpack
from k8slite.api.meta import Obj

__all__ = ["Checked", "SchemaTypes"]

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
_ROOT: Obj = {
    "apiVersion": {"type": "string"},
    "kind": {"type": "string"},
    "metadata": {
        "type": "object",
        "properties": {"name": {"type": "string"}, "generateName": {"type": "string"}},
    },
}
_MEMBER = re.compile(r" not found in struct '[^']*'")


def with_root(schema: Obj) -> Obj:
    """A schema with what every object has."""
    return {**schema, "properties": {**(schema.get("properties") or {}), **_ROOT}}


class Checked:
    """A rule that is well typed: its tree (None if it could not be checked), and the variables
    that it may name.
    """

    __slots__ = ("old", "result", "self", "tree")

    def __init__(self, tree: Any, result: str, self_: str, old: str) -> None:
        self.tree = tree
        self.result = result
        self.self = self_
        self.old = old


class SchemaTypes:
    """Of one schema. One environment serves all rules, wherever they stand: the checker is told
    of a variable for each place, whose name is as long as that in the rule.
    """

    def __init__(self, places: list[Obj]) -> None:
        """`places`: the schemas that have rules, the root's `with_root`."""
        self._file = descriptor_pb2.FileDescriptorProto(name="schema.proto", syntax="proto2")
        for known in (struct_pb2, timestamp_pb2, duration_pb2):
            self._file.dependency.append(known.DESCRIPTOR.name)
        self._messages: dict[int, str] = {}
        self._numbers = {id(place): number for number, place in enumerate(places)}
        for place in places:
            self._declare(place)
        self._makers = new_environment((), messages=self._file, functions=False)
        types = [self._type(place) for place in places]
        variables: dict[str, Any] = {}
        for number, type_ in enumerate(types):
            variables[_self(number)] = type_
            variables[_old(number)] = type_
            variables[_old_list(number)] = _T.List(type_)
        self._env = new_environment((), messages=self._file, typed=variables)

    # --- checking -------------------------------------------------------------------------------

    def check(self, place: Obj, source: str, *, optional_old: bool = False) -> Checked:
        """The rule's types. `optional_old`: oldSelf is a list of one or none.

        Raises CompileError.
        """
        number = self._numbers[id(place)]
        old = _old_list(number) if optional_old else _old(number)
        spelt = self._renamed(source, {"self": _self(number), "oldSelf": old})
        try:
            expression = self._env.compile(spelt)
        except RuntimeError as error:
            if expand_macros(self._env, spelt, (_self(number), old)) is not None:
                return Checked(None, "DYN", _self(number), old)
            text = words(str(error)).replace(old, "oldSelf").replace(_self(number), "self")
            raise CompileError(f"compilation failed: {_MEMBER.sub('', text)}") from None
        tree = unpack(expression.serialize(), CHECKED)
        return Checked(tree, expression.return_type().name(), _self(number), old)

    def _renamed(self, source: str, names: dict[str, str]) -> str:
        try:
            parsed = self._env.compile(source, disable_check=True)
        except RuntimeError as error:
            raise CompileError(f"compilation failed: {words(str(error))}") from None
        tree = unpack(parsed.serialize(), PARSED)
        positions = {entry.key: entry.value for entry in tree.source_info.positions}
        text = list(source)
        for node in nodes(tree.expr):
            name = node.ident_expr.name if node.HasField("ident_expr") else ""
            at = positions.get(node.id, -1)
            if name in names and source.startswith(name, at):
                text[at : at + len(name)] = names[name]
        return "".join(text)

    # --- types ----------------------------------------------------------------------------------

    def _declare(self, schema: Obj) -> None:
        """The messages that a variable of this schema is made of."""
        shape = _shape(schema)
        if shape == "list":
            self._declare(schema["items"])
        elif shape == "map":
            self._declare(schema["additionalProperties"])
        elif shape == "message":
            self._message(schema)

    def _type(self, schema: Obj) -> Any:
        """As the checker's variables have it."""
        shape = _shape(schema)
        if shape == "list":
            return _T.List(self._type(schema["items"]))
        if shape == "map":
            return _T.Map(_T.STRING, self._type(schema["additionalProperties"]))
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
        message = self._file.message_type.add(name=name)
        properties = schema.get("properties") or {}
        if schema.get("x-kubernetes-embedded-resource"):
            properties = {**properties, **_ROOT}
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


_DIGITS = "abcdefghijklmnopqrstuvwxyz0123456789"


def _spelt(number: int) -> str:
    """Three characters."""
    first, rest = divmod(number, len(_DIGITS) ** 2)
    return _DIGITS[first] + _DIGITS[rest // len(_DIGITS)] + _DIGITS[rest % len(_DIGITS)]


def _self(number: int) -> str:
    return "S" + _spelt(number)


def _old(number: int) -> str:
    return "OldS" + _spelt(number)


def _old_list(number: int) -> str:
    return "OldL" + _spelt(number)


def places_with_rules(schema: Obj, path: str, *, root: bool = False) -> Iterator[tuple[Obj, str]]:
    """Schemas that have rules, each with its path; the root is `with_root` already."""
    if schema.get("x-kubernetes-validations"):
        yield schema, path
    for name, inner in (schema.get("properties") or {}).items():
        if isinstance(inner, dict) and not (root and name in _ROOT):
            yield from places_with_rules(inner, f"{path}.properties[{name}]")
    if isinstance(schema.get("items"), dict):
        yield from places_with_rules(schema["items"], f"{path}.items")
    if isinstance(schema.get("additionalProperties"), dict):
        yield from places_with_rules(schema["additionalProperties"], f"{path}.additionalProperties")
