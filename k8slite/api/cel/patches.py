"""Expressions that make patches: `Object.spec{replicas: 1}` and `JSONPatch{op: "add", ...}`. Pure.

The library's checker takes messages of declared types only, and an Object may have any field. So an
expression is parsed, types are declared that have just the fields it names, and it is checked
with these. For the evaluator the checked tree's messages become maps that carry their type's name
under TYPE, which `plain` takes off again.
"""

from __future__ import annotations

import re
from collections.abc import Iterator
from functools import lru_cache
from typing import Any, NamedTuple

from google.protobuf import descriptor_pb2, struct_pb2

from k8slite.api.cel.library import new_environment
from k8slite.api.cel.program import ANY, PROGRAMS_KEPT, CompileError, Program, compile_with, words
from k8slite.api.cel.syntax import CHECKED, PARSED, nodes, pack, unpack

__all__ = ["APPLY_CONFIGURATION", "JSON_PATCH", "compile_patch", "mismatches", "plain"]

APPLY_CONFIGURATION, JSON_PATCH = "Object", "list(JSONPatch)"
TYPE = "\ue000type"
"""The key under which a made object carries the name of its type."""
_OURS = re.compile(r"\.?(?:Object(?:\.\w+)*|JSONPatch)")
_SPELT = re.compile(r"\.?\s*(?:Object(?:\s*\.\s*\w+)*|JSONPatch)")
_OPERATION = {"op": 9, "path": 9, "from": 9}
"""Fields of a JSONPatch that are texts; all else may be anything."""
_STRING, _MESSAGE, _ONE = 9, 11, 1
_ESCAPES = (("__underscores__", "__"), ("__dot__", "."), ("__dash__", "-"), ("__slash__", "/"))
_KEYWORD = re.compile(r"__(\w+)__")


@lru_cache(maxsize=PROGRAMS_KEPT)
def compile_patch(source: str, variables: tuple[str, ...], result: str = ANY) -> Program:
    """A program that may name these variables and make objects. Raises CompileError."""
    bare = _environment(variables)
    made = _made(bare, source)
    if not made:
        if result not in _RESULTS:
            return compile_with(bare, source, result, variables)
        program = compile_with(bare, source, ANY, variables)
        if _VARIABLES.search(source) is None:
            raise CompileError(f"must evaluate to {result}")
        return program
    env = new_environment(variables, patches=True, messages=_declare(made))
    spelt, names = _without_dots(source, made)
    try:
        checked = env.compile(spelt)
    except RuntimeError as error:
        raise CompileError(f"compilation failed: {_with_dots(words(str(error)), names)}") from None
    found = str(checked.return_type())
    if result in _RESULTS and found != _RESULTS[result]:
        raise CompileError(f"must evaluate to {result}")
    tree = unpack(checked.serialize(), CHECKED)
    types = {at.node: at.name for at in made}
    references = [entry for entry in tree.reference_map if entry.key not in types]
    del tree.reference_map[:]
    tree.reference_map.extend(references)
    for node in nodes(tree.expr):
        if node.id in types:
            _become_map(node.struct_expr, types[node.id])
    return Program(source, bare, bare.deserialize(pack(tree)))


@lru_cache(maxsize=16)
def _environment(variables: tuple[str, ...]) -> Any:
    return new_environment(variables, patches=True)


_VARIABLES = re.compile(r"\bvariables\.")
"""Their types are not known before they have a value."""
_RESULTS = {APPLY_CONFIGURATION: "Object", JSON_PATCH: "LIST<JSONPatch>"}


class _Made(NamedTuple):
    """A place where an object is made: its node's number, its type, the fields it is given."""

    node: int
    name: str
    fields: tuple[str, ...]
    position: int


def _made(env: Any, source: str) -> list[_Made]:
    """The places where one of our objects is made, and its type. Raises CompileError."""
    try:
        parsed = env.compile(source, disable_check=True)
    except RuntimeError as error:
        raise CompileError(f"compilation failed: {words(str(error))}") from None
    tree = unpack(parsed.serialize(), PARSED)
    positions = {entry.key: entry.value for entry in tree.source_info.positions}
    return [
        _Made(
            node.id,
            node.struct_expr.message_name.removeprefix("."),
            tuple(entry.field_key for entry in node.struct_expr.entries),
            positions.get(node.id, 0),
        )
        for node in nodes(tree.expr)
        if node.HasField("struct_expr") and _OURS.fullmatch(node.struct_expr.message_name)
    ]


def _declare(made: list[_Made]) -> Any:
    """Types with the fields that are named; an operation has those it may have.

    Raises CompileError.
    """
    fields: dict[str, dict[str, int]] = {}
    for at in made:
        odd = next((field for field in at.fields if not field.isidentifier()), None)
        if odd is not None:
            raise CompileError(f"compilation failed: field name '{odd}' must be escaped")
        known = fields.setdefault(at.name.replace(".", "_"), {})
        if at.name == "JSONPatch":
            known.update(_OPERATION, value=_MESSAGE)
        else:
            known.update(dict.fromkeys(at.fields, _MESSAGE))
    file = descriptor_pb2.FileDescriptorProto(
        name="objects.proto", syntax="proto3", dependency=[struct_pb2.DESCRIPTOR.name]
    )
    for name, known in fields.items():
        message = file.message_type.add(name=name)
        for number, (field, type_) in enumerate(known.items(), 1):
            declared = message.field.add(name=field, number=number, type=type_, label=_ONE)
            if type_ == _MESSAGE:
                declared.type_name = ".google.protobuf.Value"
    return file


def _without_dots(source: str, made: list[_Made]) -> tuple[str, set[str]]:
    """The source with names of types of the same length that a type may have; and the names."""
    text = list(source)
    for at in made:
        match = _SPELT.match(source, at.position)
        if match is not None:
            text[match.start() : match.end()] = re.sub(r"\W", "_", match[0])
    return "".join(text), {at.name for at in made}


def _with_dots(text: str, names: set[str]) -> str:
    for name in sorted(names, key=len, reverse=True):
        text = re.sub(rf"\b{name.replace('.', '_')}\b", name, text)
    return text


def _become_map(made: Any, name: str) -> None:
    made.message_name = ""
    for entry in made.entries:
        key = entry.field_key
        entry.ClearField("field_key")
        entry.map_key.const_expr.string_value = _unescape(key)
        entry.map_key.id = entry.id
    marker = made.entries.add()
    marker.map_key.const_expr.string_value = TYPE
    marker.value.const_expr.string_value = name


def _unescape(name: str) -> str:
    """A field's name as the object has it."""
    if "__" not in name:
        return name
    for theirs, ours in _ESCAPES:
        name = name.replace(theirs, ours)
    keyword = _KEYWORD.fullmatch(name)
    return keyword[1] if keyword else name


def mismatches(value: Any, path: str = "Object") -> Iterator[str]:
    """Objects whose type is not that of the place where they stand."""
    if isinstance(value, list):
        for item in value:
            yield from mismatches(item, path)
    elif isinstance(value, dict):
        name = value.get(TYPE)
        if name is not None and name != path:
            yield (
                f'unexpected type name "{name}", expected "{path}", which matches field name path '
                "from root Object type"
            )
        for key, item in value.items():
            if key != TYPE:
                yield from mismatches(item, path if name is None else f"{path}.{key}")


def plain(value: Any) -> Any:
    """A value as JSON has it: without the names of types. Raises ValueError where it has none."""
    if isinstance(value, list):
        return [plain(item) for item in value]
    if isinstance(value, dict):
        if not all(isinstance(key, str) for key in value):
            raise ValueError("keys of maps must be strings")
        return {key: plain(item) for key, item in value.items() if key != TYPE}
    if value is None or isinstance(value, (str, bool, int, float)):
        return value
    raise ValueError(f"{type(value).__name__} is no JSON value")
