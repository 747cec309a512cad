"""Rules before there is an object: their types against the schema, and what they may cost."""

from __future__ import annotations

from typing import Any

import pytest

from k8slite.api.cel.cost import rule_cost
from k8slite.api.cel.program import CompileError
from k8slite.api.cel.rule_checks import validate_rules
from k8slite.api.cel.schema_types import SchemaTypes

INTEGER, NUMBER, TEXT = {"type": "integer"}, {"type": "number"}, {"type": "string"}


def array(items: dict[str, Any], **limits: Any) -> dict[str, Any]:
    return {"type": "array", "items": items, **limits}


def mapping(values: dict[str, Any], **limits: Any) -> dict[str, Any]:
    return {"type": "object", "additionalProperties": values, **limits}


def struct(**properties: dict[str, Any]) -> dict[str, Any]:
    return {"type": "object", "properties": properties}


SCHEMA = struct(
    n=INTEGER,
    f=NUMBER,
    s=TEXT,
    short={"type": "string", "maxLength": 10},
    state={"type": "string", "enum": ["on", "off"]},
    when={"type": "string", "format": "date-time"},
    wait={"type": "string", "format": "duration"},
    raw={"type": "string", "format": "byte"},
    any={"x-kubernetes-int-or-string": True},
    free={"type": "object", "x-kubernetes-preserve-unknown-fields": True},
    maybe={"type": "string", "nullable": True},
    numbers=array(INTEGER),
    few=array(TEXT, maxItems=3),
    grid=array(array(INTEGER)),
    tags=mapping(TEXT),
    parts=array(struct(name=TEXT, size=INTEGER)),
    **{"odd-name": TEXT, "namespace": TEXT},
)
TYPES = SchemaTypes([SCHEMA])


@pytest.mark.parametrize(
    "rule",
    [
        "self.n > 2 && self.f < 1.5 && self.s == 'x' && self.state in ['on']",
        "self.when > timestamp('2020-01-01T00:00:00Z') && self.wait < duration('1h')",
        "self.raw == b'x' && self.any == 3 && self.any == 'x' && self.free.whatever > 3",
        "self.maybe == null || self.maybe == 'x'",
        "self.parts.all(p, p.size > 0 && has(p.name)) && self.tags.all(k, k.startsWith('x'))",
        "self.tags['a'] == 'b' && 'a' in self.tags && self.grid[0][0] == 1",
        "self.odd__dash__name == self.__namespace__ && !has(oldSelf.n)",
        "self.?s.orValue('') == 'x' && quantity(self.s).isGreaterThan(quantity('1'))",
    ],
)
def test_well_typed(rule: str) -> None:
    assert TYPES.check(SCHEMA, rule).result == "BOOL"


@pytest.mark.parametrize(
    ("rule", "message"),
    [
        ("self.x == 1", "ERROR: <input>:1:5: undefined field 'x'\n | self.x == 1\n | ....^"),
        (
            "self.n == 'a'",
            "ERROR: <input>:1:8: found no matching overload for '_==_' applied to '(int, string)'"
            "\n | self.n == 'a'\n | .......^",
        ),
        (
            "oldSelf.when > self.wait",
            "ERROR: <input>:1:14: found no matching overload for '_>_' applied to "
            "'(timestamp, duration)'\n | oldSelf.when > self.wait\n | .............^",
        ),
        (
            "self.parts.all(p, p.nope)",
            "ERROR: <input>:1:20: undefined field 'nope'\n | self.parts.all(p, p.nope)\n"
            " | ...................^",
        ),
    ],
)
def test_ill_typed(rule: str, message: str) -> None:
    with pytest.raises(CompileError) as raised:
        TYPES.check(SCHEMA, rule)
    assert str(raised.value) == f"compilation failed: {message}"


MIB3 = 3 * 1024 * 1024


@pytest.mark.parametrize(
    ("rule", "cost"),
    [
        ("self.n == self.n", 4),
        ("self.f < double(self.n)", 6),
        ("has(self.n) && has(self.s)", 2),
        ("self.s == self.s", 4 + 314573),
        ("self.short == self.short", 4 + 4),
        ("self.state == 'off'", 3),
        ("self.s.startsWith('four')", 3),
        ("self.s.matches('^[a-z]*$')", 2 + 314573 * 2),
        ("self.short.matches('^[a-z]*$')", 2 + 5 * 2),
        ("self.short.contains(self.short)", 4 + 16),
        ("1 in self.numbers", 2 + (MIB3 - 2) // 2),
        ("self.few.all(x, size(x) > 0)", 2 + 3 * 6 + 1),
        ("self.tags.size() == 1", 4),
        ("self.few + ['a'] == ['b']", 24),
    ],
)
def test_costs(rule: str, cost: int) -> None:
    """As cel-go estimates them."""
    found = rule_cost(TYPES.check(SCHEMA, rule), SCHEMA)
    assert found == cost


BUDGET = (
    "(try simplifying the rule, or adding maxItems, maxProperties, and maxLength where arrays, "
    "maps, and strings are declared)"
)


def with_rule(schema: dict[str, Any], *rules: str) -> dict[str, Any]:
    return {**schema, "x-kubernetes-validations": [{"rule": rule} for rule in rules]}


def problems(schema: dict[str, Any]) -> list[tuple[str, str]]:
    found = validate_rules({"type": "object", "properties": {"spec": schema}}, "at")
    return [(error.field.removeprefix("at.properties[spec]"), error.detail) for error in found]


RULE = ".x-kubernetes-validations[0].rule"
OVER: list[tuple[dict[str, Any], list[tuple[str, str]]]] = [
    (with_rule(array(TEXT, maxItems=10), "self.all(x, size(x) < 3)"), []),
    (
        with_rule(struct(l=array(TEXT)), "self.l.all(x, self.l.all(y, x == y))"),
        [
            (RULE, f"estimated rule cost exceeds budget by factor of more than 100x {BUDGET}"),
            (
                RULE,
                "contributed to estimated rule cost total exceeding cost limit for entire "
                "OpenAPIv3 schema",
            ),
            (
                "at",
                "x-kubernetes-validations estimated rule cost total for entire OpenAPIv3 schema "
                f"exceeds budget by factor of more than 100x {BUDGET}",
            ),
        ],
    ),
    (
        with_rule(array(INTEGER), "self.all(k, k > 0 && size(self) > 0)"),
        [(RULE, f"estimated rule cost exceeds budget by factor of 1.3x {BUDGET}")],
    ),
    (
        array(with_rule({"type": "string", "maxLength": 100}, "self.matches('[a-z]*')")),
        [(f".items{RULE}", f"estimated rule cost exceeds budget by factor of 8.7x {BUDGET}")],
    ),
    (array(with_rule({"type": "string", "maxLength": 9}, "self.size() > 1"), maxItems=9), []),
    (
        with_rule(INTEGER, "self"),
        [(RULE, "cel expression must evaluate to a bool")],
    ),
]


@pytest.mark.parametrize(("schema", "expected"), OVER)
def test_budgets(schema: dict[str, Any], expected: list[tuple[str, str]]) -> None:
    assert problems(schema) == expected
