"""Rules in a definition's schema, before there is an object: their types, and what they may cost.

Pure. Messages are kube-apiserver's.
"""

from __future__ import annotations

from collections.abc import Iterator
from typing import TYPE_CHECKING

from k8slite.api.cel.limits import MOST, RULE_COST_MAX, SCHEMA_COST_MAX, cardinality
from k8slite.api.cel.program import CompileError
from k8slite.api.cel.rules import has_rules, with_optional_old
from k8slite.api.meta import Obj
from k8slite.api.status import FieldError, forbidden_field, invalid_value, required

if TYPE_CHECKING:
    from k8slite.api.cel.schema_types import SchemaTypes

__all__ = ["validate_rules"]


def validate_rules(schema: Obj, path: str) -> Iterator[FieldError]:
    """What is wrong with the rules of a whole schema themselves; `path` is the schema's."""
    if not has_rules(schema):
        return
    from k8slite.api.cel.schema_types import SchemaTypes, places_with_rules, with_root

    places = list(places_with_rules(with_root(schema), path, root=True))
    types = SchemaTypes([place for place, _ in places])
    counts = dict(_cardinalities(schema, path, 1))
    total = _Total()
    for place, where in places:
        yield from _validate_place(place, where, types, counts.get(where), total)
    if total.cost > SCHEMA_COST_MAX:
        for at in total.most_expensive():
            detail = (
                "contributed to estimated rule cost total exceeding cost limit for entire "
                "OpenAPIv3 schema"
            )
            yield forbidden_field(at, detail)
        subject = "x-kubernetes-validations estimated rule cost total for entire OpenAPIv3 schema"
        yield forbidden_field(path, _too_expensive(subject, total.cost, SCHEMA_COST_MAX))


class _Total:
    """Of all rules of a schema."""

    def __init__(self) -> None:
        self.cost = 0
        self._of: list[tuple[int, str]] = []

    def add(self, at: str, cost: int) -> None:
        self.cost += cost
        self._of.append((cost, at))

    def most_expensive(self) -> list[str]:
        """The paths of the four that cost most."""
        return [at for _, at in sorted(self._of, key=lambda each: -each[0])[:4]]


def _cardinalities(schema: Obj, path: str, times: int | None) -> Iterator[tuple[str, int | None]]:
    """How often each place of a schema may be in one object; None: nobody has said."""
    yield path, times
    for name, inner in (schema.get("properties") or {}).items():
        if isinstance(inner, dict):
            yield from _cardinalities(inner, f"{path}.properties[{name}]", times)
    for key, limit in (("items", "maxItems"), ("additionalProperties", "maxProperties")):
        inner = schema.get(key)
        if isinstance(inner, dict):
            most = schema.get(limit)
            below = None if times is None or most is None else times * int(most)
            yield from _cardinalities(inner, f"{path}.{key}", below)


def _validate_place(
    schema: Obj, path: str, types: SchemaTypes, times: int | None, total: _Total
) -> Iterator[FieldError]:
    from k8slite.api.cel.cost import rule_cost

    for i, rule in enumerate(schema["x-kubernetes-validations"]):
        at = f"{path}.x-kubernetes-validations[{i}]"
        if not (rule.get("rule") or "").strip():
            yield required(f"{at}.rule", "rule is not specified")
            continue
        for key, result, word in (
            ("rule", "BOOL", "cel expression must evaluate to a bool"),
            ("messageExpression", "STRING", "messageExpression must evaluate to a string"),
        ):
            source = rule.get(key) or ""
            if not source.strip():
                continue
            optional = bool(rule.get("optionalOldSelf"))
            try:
                checked = types.check(
                    schema, with_optional_old(rule, source), optional_old=optional
                )
                if checked.result not in (result, "DYN"):
                    raise CompileError(word)
            except CompileError as error:
                yield invalid_value(f"{at}.{key}", _shown(rule), str(error))
                continue
            if checked.tree is None:
                continue
            cost = min(rule_cost(checked, schema) * cardinality(schema, times), MOST)
            if cost > RULE_COST_MAX:
                yield forbidden_field(
                    f"{at}.{key}", _too_expensive(f"estimated {key} cost", cost, RULE_COST_MAX)
                )
            if key == "rule":
                total.add(f"{at}.rule", cost)


def _too_expensive(subject: str, cost: int, limit: int) -> str:
    factor = cost / limit
    shown = "more than 100x" if factor > 100 else f"{factor:.1f}x"
    return (
        f"{subject} exceeds budget by factor of {shown} (try simplifying the rule, or adding "
        "maxItems, maxProperties, and maxLength where arrays, maps, and strings are declared)"
    )


def _shown(rule: Obj) -> Obj:
    return {
        "Rule": rule.get("rule", ""),
        "Message": rule.get("message", ""),
        "MessageExpression": rule.get("messageExpression", ""),
        "Reason": rule.get("reason"),
        "FieldPath": rule.get("fieldPath", ""),
        "OptionalOldSelf": rule.get("optionalOldSelf"),
    }
