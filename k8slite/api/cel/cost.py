"""What an expression may cost at worst, before any object is there: cel-go's estimate. Pure.

Costs and sizes are ranges (least, most). Sizes of what a schema describes follow from its limits,
or, where it has none, from the largest request there may be.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Any, NamedTuple

from k8slite.api.cel.limits import MOST, REQUEST_BYTES_MAX, max_elements
from k8slite.api.cel.names import escape
from k8slite.api.cel.schema_types import Checked
from k8slite.api.meta import Obj

__all__ = ["rule_cost"]

_TRAVERSAL, _REGEX = 0.1, 0.25
_LIST_COST, _MAP_COST, _STRUCT_COST = 10, 30, 40


class Range(NamedTuple):
    """Of a cost or of a size."""

    least: int
    most: int

    def plus(self, other: Range) -> Range:
        return Range(min(self.least + other.least, MOST), min(self.most + other.most, MOST))

    def times(self, other: Range) -> Range:
        return Range(min(self.least * other.least, MOST), min(self.most * other.most, MOST))

    def scaled(self, factor: float) -> Range:
        return Range(_scaled(self.least, factor), _scaled(self.most, factor))

    def union(self, other: Range) -> Range:
        return Range(min(self.least, other.least), max(self.most, other.most))


def _scaled(value: int, factor: float) -> int:
    if value >= MOST:
        return MOST
    product = value * factor
    return min(int(product) + (product > int(product)), MOST)


NOTHING, ONE = Range(0, 0), Range(1, 1)
_ANY_SIZE = Range(0, MOST)


_SCALARS = frozenset((1, 2, 3, 4))  # BOOL, INT64, UINT64, DOUBLE
_TEXT = 5  # STRING
_INTERNAL = ("@", "__")
"""Names that begin so are the macros' own."""
_KEYS: Obj = {"type": "string", "maxLength": REQUEST_BYTES_MAX // 4}


def rule_cost(checked: Checked, schema: Obj) -> int:
    """The most that one evaluation of a rule at this schema may cost."""
    return _Estimate(checked, schema).cost(checked.tree.expr).most


class _Estimate:
    def __init__(self, checked: Checked, schema: Obj) -> None:
        tree = checked.tree
        self._types = {entry.key: entry.value for entry in tree.type_map}
        self._overloads = {entry.key: list(entry.value.overload_id) for entry in tree.reference_map}
        self._places: dict[int, Obj] = {}
        """Node to schema, where its value comes from the object."""
        self._variables: dict[str, Obj] = {checked.self: schema, checked.old: schema}
        self._schema = schema
        self._sizes: dict[int, Range] = {}

    def cost(self, expr: Any) -> Range:
        """Of a node and all below it."""
        for field, handler in _NODES.items():
            if expr.HasField(field):
                return handler(self, expr)
        return NOTHING

    def _constant(self, expr: Any) -> Range:
        constant = expr.const_expr
        if constant.HasField("string_value"):
            size = len(constant.string_value)
            self._sizes[expr.id] = Range(size, size)
        elif constant.HasField("bytes_value"):
            size = len(constant.bytes_value)
            self._sizes[expr.id] = Range(size, size)
        return NOTHING

    def _ident(self, expr: Any) -> Range:
        name = expr.ident_expr.name
        if not name.startswith(_INTERNAL):
            # The original takes any other name, too, for as large as `self`.
            self._places[expr.id] = self._variables.get(name, self._schema)
        return ONE

    def _select(self, expr: Any) -> Range:
        select = expr.select_expr
        cost = self.cost(select.operand)
        place = self._places.get(select.operand.id)
        if place is not None:
            self._places[expr.id] = _member(place, select.field)
        if select.test_only:
            return cost
        type_ = self._types.get(select.operand.id)
        selects = type_ is not None and (
            type_.HasField("map_type") or type_.HasField("message_type")
        )
        return cost.plus(ONE) if selects else cost

    def _list(self, expr: Any) -> Range:
        cost = Range(_LIST_COST, _LIST_COST)
        for element in expr.list_expr.elements:
            cost = cost.plus(self.cost(element))
        size = len(expr.list_expr.elements)
        self._sizes[expr.id] = Range(size, size)
        return cost

    def _struct(self, expr: Any) -> Range:
        base = _STRUCT_COST if expr.struct_expr.message_name else _MAP_COST
        cost = Range(base, base)
        for entry in expr.struct_expr.entries:
            if entry.HasField("map_key"):
                cost = cost.plus(self.cost(entry.map_key))
            cost = cost.plus(self.cost(entry.value))
        size = len(expr.struct_expr.entries)
        self._sizes[expr.id] = Range(size, size)
        return cost

    def _comprehension(self, expr: Any) -> Range:
        loop = expr.comprehension_expr
        cost = self.cost(loop.iter_range).plus(self.cost(loop.accu_init))
        times = self._size(loop.iter_range)
        place = self._places.get(loop.iter_range.id)
        shadowed = self._variables.get(loop.iter_var)
        if place is not None and place is not self._schema:
            self._variables[loop.iter_var] = _element(place)
        each = self.cost(loop.loop_condition).plus(self.cost(loop.loop_step))
        self._variables.pop(loop.iter_var, None)
        if shadowed is not None:
            self._variables[loop.iter_var] = shadowed
        if loop.accu_init.HasField("list_expr"):
            self._sizes[expr.id] = times
        return cost.plus(times.times(each)).plus(self.cost(loop.result))

    def _call(self, expr: Any) -> Range:
        call = expr.call_expr
        costs = [self.cost(arg) for arg in call.args]
        target = call.target if call.HasField("target") else None
        cost = NOTHING if target is None else self.cost(target)
        all_costs = NOTHING
        for each in costs:
            all_costs = all_costs.plus(each)
        if call.function in ("_&&_", "_||_"):
            return Range(costs[0].least, costs[0].plus(costs[1]).most)
        if call.function == "_?_:_":
            return costs[0].plus(costs[1].union(costs[2]))
        own: Range | None = None
        for overload in self._overloads.get(expr.id) or [""]:
            found = self._own(expr, overload, target, list(call.args))
            own = found if own is None else own.union(found)
        if call.function in ("_[_]", "_[?_]") and call.args[0].id in self._places:
            self._places[expr.id] = _element(self._places[call.args[0].id], of_value=True)
        return cost.plus(all_costs).plus(own or ONE)

    def _own(self, expr: Any, overload: str, target: Any, args: list[Any]) -> Range:
        """Of a call itself, without its arguments."""
        call, values = expr.call_expr, ([] if target is None else [target]) + args
        if overload in ("equals", "not_equals") or _compares_texts(overload):
            most = min(self._size(values[0]).most, self._size(values[1]).most)
            return Range(1 if most else 0, most).scaled(_TRAVERSAL)
        if overload in ("add_string", "add_bytes", "add_list"):
            size = self._size(values[0]).plus(self._size(values[1]))
            self._sizes[expr.id] = size
            return ONE if overload == "add_list" else size.scaled(_TRAVERSAL)
        if overload == "in_list":
            return self._size(values[1])
        name = call.function
        if name in _TRAVERSES_ARGUMENT:
            return self._size(values[-1]).scaled(_TRAVERSAL)
        if name in ("matches", "find", "findAll"):
            text = self._size(values[0]).plus(ONE).scaled(_TRAVERSAL)
            if name != "matches":
                self._sizes[expr.id] = Range(0, self._size(values[0]).most)
            return text.times(self._size(values[1]).scaled(_REGEX))
        if name == "contains" and overload.startswith("contains_string"):
            text, wanted = (self._size(v).scaled(_TRAVERSAL) for v in values[:2])
            return text.times(wanted)
        if overload in ("string_to_bytes", "bytes_to_string"):
            size = self._size(values[0])
            self._sizes[expr.id] = Range(0, size.most)
            return size.scaled(_TRAVERSAL)
        if name in _TRAVERSES_TARGET or (name in _WALKS_LIST and self._is_text(values[0])):
            size = self._size(values[0])
            if name in _KEEPS_SIZE:
                self._sizes[expr.id] = Range(0, size.most)
            once = size.scaled(_TRAVERSAL)
            return once.plus(once) if name in _TRAVERSES_TWICE else once
        if name in _WALKS_LIST:
            return self._size(values[0])
        if name in _COMPARES_LISTS:
            return self._size(values[0]).times(self._size(values[1]))
        return ONE

    def _size(self, expr: Any) -> Range:
        found = self._sizes.get(expr.id)
        if found is not None:
            return found
        place = self._places.get(expr.id)
        if place is not None:
            return Range(0, max_elements(place))
        type_ = self._types.get(expr.id)
        if type_ is not None and (type_.primitive in _SCALARS or type_.HasField("well_known")):
            return ONE
        return _ANY_SIZE

    def _is_text(self, expr: Any) -> bool:
        type_ = self._types.get(expr.id)
        return type_ is not None and type_.primitive == _TEXT


def _compares_texts(overload: str) -> bool:
    return overload.startswith(("less_", "greater_")) and overload.endswith(("string", "bytes"))


_TRAVERSES_ARGUMENT = frozenset(("startsWith", "endsWith"))
_TRAVERSES_TARGET = frozenset(
    (
        "format", "lowerAscii", "upperAscii", "substring", "trim", "replace", "split", "join",
        "url", "isURL", "quantity", "isQuantity", "ip", "isIP", "cidr", "isCIDR", "semver",
        "isSemver", "strings.quote",
    )
)  # fmt: skip
_KEEPS_SIZE = frozenset(
    ("lowerAscii", "upperAscii", "substring", "trim", "replace", "split", "join")
)
_TRAVERSES_TWICE = frozenset(("replace", "split", "join"))
_WALKS_LIST = frozenset(("isSorted", "sum", "max", "min", "indexOf", "lastIndexOf"))
_COMPARES_LISTS = frozenset(("sets.contains", "sets.intersects", "sets.equivalent"))
_NODES: dict[str, Callable[[_Estimate, Any], Range]] = {
    "const_expr": _Estimate._constant,
    "ident_expr": _Estimate._ident,
    "select_expr": _Estimate._select,
    "call_expr": _Estimate._call,
    "list_expr": _Estimate._list,
    "struct_expr": _Estimate._struct,
    "comprehension_expr": _Estimate._comprehension,
}


def _member(schema: Obj, field: str) -> Obj:
    for name, inner in (schema.get("properties") or {}).items():
        if isinstance(inner, dict) and escape(name) == field:
            found: Obj = inner
            return found
    extra = schema.get("additionalProperties")
    return extra if isinstance(extra, dict) else {}


def _element(schema: Obj, *, of_value: bool = False) -> Obj:
    """What a loop over it sees: an item, or a key of a map; or what an index leads to."""
    items, extra = schema.get("items"), schema.get("additionalProperties")
    if isinstance(items, dict):
        return items
    if isinstance(extra, dict):
        return extra if of_value else _KEYS
    return {}
