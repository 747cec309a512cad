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

from k8slite.api.cel.library import new_environment
from k8slite.api.cel.program import CompileError, expand_macros, words
from k8slite.api.cel.syntax import CHECKED, PARSED, nodes, unpack
from k8slite.api.cel.type_table import ROOT, TypeTable
from k8slite.api.meta import Obj

__all__ = ["Checked", "SchemaTypes"]

_MEMBER = re.compile(r" not found in struct '[^']*'")


def without_struct(text: str) -> str:
    """An error as the original words it: it does not say which struct has no such field."""
    return _MEMBER.sub("", text)


def with_root(schema: Obj) -> Obj:
    """A schema with what every object has."""
    return {**schema, "properties": {**(schema.get("properties") or {}), **ROOT}}


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
        table = TypeTable(places)
        self._numbers = {id(place): number for number, place in enumerate(places)}
        types = [table.type_of(place) for place in places]
        variables: dict[str, Any] = {}
        for number, type_ in enumerate(types):
            variables[_self(number)] = type_
            variables[_old(number)] = type_
            variables[_old_list(number)] = cel.Type.List(type_)
        self._env = new_environment((), messages=table.file, typed=variables)

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
            raise CompileError(f"compilation failed: {without_struct(text)}") from None
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
        if isinstance(inner, dict) and not (root and name in ROOT):
            yield from places_with_rules(inner, f"{path}.properties[{name}]")
    if isinstance(schema.get("items"), dict):
        yield from places_with_rules(schema["items"], f"{path}.items")
    if isinstance(schema.get("additionalProperties"), dict):
        yield from places_with_rules(schema["additionalProperties"], f"{path}.additionalProperties")
