"""The syntax tree of an expression, as the evaluator's library gives and takes it. Pure.

`Expression.serialize` is an Any of cel.expr.ParsedExpr or CheckedExpr (cel-spec's syntax.proto and
checked.proto). The messages are declared here, as far as they are read; what is not is kept as it
is, unread.
"""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any

from google.protobuf import any_pb2, descriptor_pb2, descriptor_pool, message_factory

__all__ = ["CHECKED", "PARSED", "children", "nodes", "pack", "unpack"]

PARSED, CHECKED = "ParsedExpr", "CheckedExpr"
_PACKAGE = "cel.expr"
_SCALARS = {"bool": 8, "string": 9, "bytes": 12, "int64": 3, "uint64": 4, "double": 1, "int32": 5}
_MESSAGE, _ONE, _MANY = 11, 1, 3

_TREE: dict[str, tuple[tuple[str, int, str], ...]] = {
    "Constant": (
        ("null_value", 1, "int32"),
        ("bool_value", 2, "bool"),
        ("int64_value", 3, "int64"),
        ("uint64_value", 4, "uint64"),
        ("double_value", 5, "double"),
        ("string_value", 6, "string"),
        ("bytes_value", 7, "bytes"),
    ),
    "Ident": (("name", 1, "string"),),
    "Select": (("operand", 1, "Expr"), ("field", 2, "string"), ("test_only", 3, "bool")),
    "Call": (("target", 1, "Expr"), ("function", 2, "string"), ("args", 3, "*Expr")),
    "CreateList": (("elements", 1, "*Expr"), ("optional_indices", 2, "*int32")),
    "Entry": (
        ("id", 1, "int64"),
        ("field_key", 2, "string"),
        ("map_key", 3, "Expr"),
        ("value", 4, "Expr"),
        ("optional_entry", 5, "bool"),
    ),
    "CreateStruct": (("message_name", 1, "string"), ("entries", 2, "*Entry")),
    "Comprehension": (
        ("iter_var", 1, "string"),
        ("iter_range", 2, "Expr"),
        ("accu_var", 3, "string"),
        ("accu_init", 4, "Expr"),
        ("loop_condition", 5, "Expr"),
        ("loop_step", 6, "Expr"),
        ("result", 7, "Expr"),
        ("iter_var2", 8, "string"),
    ),
    "Expr": (
        ("id", 2, "int64"),
        ("const_expr", 3, "Constant"),
        ("ident_expr", 4, "Ident"),
        ("select_expr", 5, "Select"),
        ("call_expr", 6, "Call"),
        ("list_expr", 7, "CreateList"),
        ("struct_expr", 8, "CreateStruct"),
        ("comprehension_expr", 9, "Comprehension"),
    ),
    "Position": (("key", 1, "int64"), ("value", 2, "int32")),
    "SourceInfo": (("positions", 4, "*Position"),),
    "Type": (
        ("primitive", 3, "int32"),
        ("wrapper", 4, "int32"),
        ("well_known", 5, "int32"),
        ("list_type", 6, "ListType"),
        ("map_type", 7, "MapType"),
        ("message_type", 9, "string"),
        ("abstract_type", 14, "AbstractType"),
    ),
    "ListType": (("elem_type", 1, "Type"),),
    "MapType": (("key_type", 1, "Type"), ("value_type", 2, "Type")),
    "AbstractType": (("name", 1, "string"), ("parameter_types", 2, "*Type")),
    "TypeEntry": (("key", 1, "int64"), ("value", 2, "Type")),
    "Reference": (("name", 1, "string"), ("overload_id", 3, "*string"), ("value", 4, "Constant")),
    "ReferenceEntry": (("key", 1, "int64"), ("value", 2, "Reference")),
    PARSED: (("expr", 2, "Expr"), ("source_info", 3, "SourceInfo")),
    CHECKED: (
        ("reference_map", 2, "*ReferenceEntry"),
        ("type_map", 3, "*TypeEntry"),
        ("expr", 4, "Expr"),
        ("source_info", 5, "SourceInfo"),
    ),
}
"""Message to fields: name, number, type; a star stands before what is repeated."""


def _make_classes() -> dict[str, Any]:
    file = descriptor_pb2.FileDescriptorProto(
        name="cel_tree.proto", package=_PACKAGE, syntax="proto3"
    )
    for name, fields in _TREE.items():
        message = file.message_type.add(name=name)
        for field, number, type_ in fields:
            plain = type_.removeprefix("*")
            made = message.field.add(
                name=field, number=number, label=_MANY if type_ != plain else _ONE
            )
            if plain in _SCALARS:
                made.type = _SCALARS[plain]
            else:
                made.type, made.type_name = _MESSAGE, f".{_PACKAGE}.{plain}"
            if name in ("Constant", "Type", "Expr", "Entry") and made.label == _ONE:
                _have_presence(message, made)
    pool = descriptor_pool.DescriptorPool()
    pool.AddSerializedFile(file.SerializeToString())
    return {
        name: message_factory.GetMessageClass(pool.FindMessageTypeByName(f"{_PACKAGE}.{name}"))
        for name in _TREE
    }


def _have_presence(message: Any, field: Any) -> None:
    """Tell a zero from nothing (a member of a union, in the original)."""
    field.proto3_optional = True
    field.oneof_index = len(message.oneof_decl)
    message.oneof_decl.add(name=f"_{field.name}")


_CLASSES = _make_classes()


def unpack(serialized: bytes, kind: str) -> Any:
    """The tree (`kind` is PARSED or CHECKED) out of what `Expression.serialize` gives."""
    wrapped = any_pb2.Any.FromString(serialized)
    assert wrapped.type_url.endswith(f"/{_PACKAGE}.{kind}"), wrapped.type_url
    return _CLASSES[kind].FromString(wrapped.value)


def pack(tree: Any) -> bytes:
    """What `Env.deserialize` takes."""
    url = f"type.googleapis.com/{tree.DESCRIPTOR.full_name}"
    packed: bytes = any_pb2.Any(type_url=url, value=tree.SerializeToString()).SerializeToString()
    return packed


def nodes(expr: Any) -> Iterator[Any]:
    """An Expr and all below it."""
    yield expr
    for child in children(expr):
        yield from nodes(child)


def children(expr: Any) -> Iterator[Any]:
    """The Exprs right below one."""
    if expr.HasField("select_expr"):
        yield expr.select_expr.operand
    elif expr.HasField("call_expr"):
        if expr.call_expr.HasField("target"):
            yield expr.call_expr.target
        yield from expr.call_expr.args
    elif expr.HasField("list_expr"):
        yield from expr.list_expr.elements
    elif expr.HasField("struct_expr"):
        for entry in expr.struct_expr.entries:
            if entry.HasField("map_key"):
                yield entry.map_key
            yield entry.value
    elif expr.HasField("comprehension_expr"):
        loop = expr.comprehension_expr
        yield from (
            loop.iter_range, loop.accu_init, loop.loop_condition, loop.loop_step, loop.result,
        )  # fmt: skip
