"""What the library does not know of the language: comprehensions of two variables, and functions
whose result is optional. Both are put into the syntax tree. Pure.

The library's checker takes sources only, so that a tree with comprehensions of two variables goes
unchecked to the evaluator, but for names that nobody has declared.
"""

from __future__ import annotations

import re
from collections.abc import Callable, Iterator
from typing import Any

from k8slite.api.cel.syntax import children, nodes

__all__ = ["FUNCTIONS", "expand", "has_optional_results", "undeclared", "wrap_optional_results"]

_RESULT = "@result"
_MERGE = "__merge"
_OPTIONAL_RESULTS = frozenset(("validate", "format.named"))
_ENTRIES_MAX = 10_000
_MENTIONS = re.compile(r"\bvalidate\s*\(|\bformat\.named\b")


def _merged(into: dict[Any, Any], new: dict[Any, Any]) -> dict[Any, Any]:
    for key in new:
        if key in into:
            raise ValueError(f"insert failed: key {key!r} already exists")
    if len(into) > _ENTRIES_MAX:
        raise ValueError("operation cancelled: actual cost limit exceeded")
    return {**into, **new}


FUNCTIONS: tuple[tuple[str, str, str, Callable[..., Any]], ...] = ((_MERGE, "mm", "m", _merged),)


class _Builder:
    """Makes nodes with numbers of their own."""

    def __init__(self, root: Any) -> None:
        self._next = max(node.id for node in nodes(root)) + 1
        self._new = type(root)

    def node(self) -> Any:
        made = self._new(id=self._next)
        self._next += 1
        return made

    def call(self, function: str, *args: Any) -> Any:
        made = self.node()
        made.call_expr.function = function
        made.call_expr.args.extend(args)
        return made

    def ident(self, name: str) -> Any:
        made = self.node()
        made.ident_expr.name = name
        return made

    def constant(self, field: str, value: Any) -> Any:
        made = self.node()
        setattr(made.const_expr, field, value)
        return made

    def list(self, *elements: Any) -> Any:
        made = self.node()
        made.list_expr.elements.extend(elements)
        if not elements:
            made.list_expr.SetInParent()
        return made

    def map(self, *entries: tuple[Any, Any]) -> Any:
        made = self.node()
        made.struct_expr.SetInParent()
        for key, value in entries:
            entry = made.struct_expr.entries.add(id=self.node().id)
            entry.map_key.CopyFrom(key)
            entry.value.CopyFrom(value)
        return made


def expand(tree: Any) -> bool:
    """Make loops of all macros with two variables in a parsed tree; are there any?"""
    builder = _Builder(tree.expr)
    found = False
    for node in reversed(list(nodes(tree.expr))):  # those inside first: they are copied
        if _is_macro(node):
            _become_loop(builder, node)
            found = True
    return found


def _is_macro(node: Any) -> bool:
    if not node.HasField("call_expr") or not node.call_expr.HasField("target"):
        return False
    call = node.call_expr
    wanted = _MACROS.get(call.function)
    if wanted is None or len(call.args) not in wanted[0]:
        return False
    return all(arg.HasField("ident_expr") for arg in call.args[:2])


def _become_loop(builder: _Builder, node: Any) -> None:
    call = type(node.call_expr)()
    call.CopyFrom(node.call_expr)
    first, second, *rest = call.args
    if call.function == "transformMap":
        rest = [first, *rest]
    begin, condition, step, result = _MACROS[call.function][1](builder, *rest)
    node.ClearField("call_expr")
    loop = node.comprehension_expr
    loop.iter_var, loop.iter_var2 = first.ident_expr.name, second.ident_expr.name
    loop.accu_var = _RESULT
    loop.iter_range.CopyFrom(call.target)
    loop.accu_init.CopyFrom(begin)
    loop.loop_condition.CopyFrom(condition)
    loop.loop_step.CopyFrom(step)
    loop.result.CopyFrom(result)


_Parts = tuple[Any, Any, Any, Any]


def _all(b: _Builder, holds: Any) -> _Parts:
    condition = b.call("@not_strictly_false", b.ident(_RESULT))
    step = b.call("_&&_", b.ident(_RESULT), holds)
    return b.constant("bool_value", True), condition, step, b.ident(_RESULT)


def _exists(b: _Builder, holds: Any) -> _Parts:
    condition = b.call("@not_strictly_false", b.call("!_", b.ident(_RESULT)))
    step = b.call("_||_", b.ident(_RESULT), holds)
    return b.constant("bool_value", False), condition, step, b.ident(_RESULT)


def _exists_one(b: _Builder, holds: Any) -> _Parts:
    more = b.call("_+_", b.ident(_RESULT), b.constant("int64_value", 1))
    step = b.call("_?_:_", holds, more, b.ident(_RESULT))
    result = b.call("_==_", b.ident(_RESULT), b.constant("int64_value", 1))
    return b.constant("int64_value", 0), b.constant("bool_value", True), step, result


def _transform_list(b: _Builder, *rest: Any) -> _Parts:
    grown = b.call("_+_", b.ident(_RESULT), b.list(rest[-1]))
    return _filtered(b, b.list(), grown, rest)


def _transform_map(b: _Builder, key: Any, *rest: Any) -> _Parts:
    return _transform_entry(b, *rest[:-1], b.map((key, rest[-1])))


def _transform_entry(b: _Builder, *rest: Any) -> _Parts:
    return _filtered(b, b.map(), b.call(_MERGE, b.ident(_RESULT), rest[-1]), rest)


def _filtered(b: _Builder, begin: Any, grown: Any, rest: tuple[Any, ...]) -> _Parts:
    step = b.call("_?_:_", rest[0], grown, b.ident(_RESULT)) if len(rest) > 1 else grown
    return begin, b.constant("bool_value", True), step, b.ident(_RESULT)


_Make = Callable[..., _Parts]
_MACROS: dict[str, tuple[tuple[int, ...], _Make]] = {
    "all": ((3,), _all),
    "exists": ((3,), _exists),
    "existsOne": ((3,), _exists_one),
    "transformList": ((3, 4), _transform_list),
    "transformMap": ((3, 4), _transform_map),
    "transformMapEntry": ((3, 4), _transform_entry),
}
"""Name to how many arguments there may be, and what it becomes."""


def undeclared(expr: Any, known: frozenset[str]) -> Iterator[str]:
    """Names that neither the environment nor a loop around them has declared."""
    if expr.HasField("ident_expr"):
        if expr.ident_expr.name.removeprefix(".") not in known:
            yield expr.ident_expr.name
        return
    if expr.HasField("comprehension_expr"):
        loop = expr.comprehension_expr
        yield from undeclared(loop.iter_range, known)
        yield from undeclared(loop.accu_init, known)
        inner = known | {loop.accu_var}
        yield from undeclared(loop.result, inner)
        inner |= {loop.iter_var, loop.iter_var2}
        yield from undeclared(loop.loop_condition, inner)
        yield from undeclared(loop.loop_step, inner)
        return
    for child in children(expr):
        yield from undeclared(child, known)


def has_optional_results(source: str) -> bool:
    """May an expression call a function whose result is optional?"""
    return _MENTIONS.search(source) is not None


def wrap_optional_results(tree: Any) -> None:
    """Nothing to complain of, no format of that name: that is no value, in a checked tree."""
    builder = _Builder(tree.expr)
    for node in reversed(list(nodes(tree.expr))):
        if node.HasField("call_expr") and node.call_expr.function in _OPTIONAL_RESULTS:
            inner = builder.node()
            inner.call_expr.CopyFrom(node.call_expr)
            node.call_expr.ClearField("target")
            node.call_expr.function = "optional.ofNonZeroValue"
            del node.call_expr.args[:]
            node.call_expr.args.append(inner)
            references = [entry for entry in tree.reference_map if entry.key == node.id]
            for entry in references:
                tree.reference_map.add(key=inner.id).value.CopyFrom(entry.value)
                del entry.value.overload_id[:]
                entry.value.overload_id.append("optional_ofNonZeroValue")
