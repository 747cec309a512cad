"""Loops of two variables, and named formats."""

from __future__ import annotations

from typing import Any

import pytest

from k8slite.api.cel import CompileError, compile_expression
from k8slite.api.cel.schema_types import SchemaTypes

SELF: dict[str, Any] = {"m": {"a": 1, "b": 2}, "l": [5, 6], "name": "Bad_Name", "good": "a-b"}


def value(expression: str) -> Any:
    return compile_expression(expression, ("self",)).evaluate({"self": SELF})


@pytest.mark.parametrize(
    "expression",
    [
        "self.m.all(k, v, v > 0 && k != 'z') && !self.m.all(k, v, v > 1)",
        "self.m.exists(k, v, k == 'b' && v == 2) && !self.m.exists(k, v, k == 'b' && v == 1)",
        "self.m.existsOne(k, v, v > 1) && !self.m.existsOne(k, v, v > 0)",
        "self.l.all(i, v, v == i + 5) && self.l.transformList(i, v, v * i) == [0, 6]",
        "self.m.transformList(k, v, v > 1, k) == ['b']",
        "self.m.transformMap(k, v, v + 1) == {'a': 2, 'b': 3}",
        "self.m.transformMap(k, v, k == 'a', v) == {'a': 1}",
        "self.m.transformMapEntry(k, v, {v: k}) == {1: 'a', 2: 'b'}",
        "self.m.all(k, v, self.l.exists(x, x > v) && self.l.exists(i, x, i < v))",
        "!format.dns1123Label().validate(self.good).hasValue()",
        "format.dns1123Label().validate(self.name).value()[0].contains('RFC 1123')",
        "format.dns1123Subdomain().validate('a.b').orValue([]) == []",
        "!format.dns1123LabelPrefix().validate('a-').hasValue()",
        "format.dns1123Label().validate('a-').hasValue()",
        "format.named('labelValue').value().validate('-').hasValue()",
        "!format.named('none').hasValue() && format.uuid().validate('x').hasValue()",
        "format.date().validate('2020-13-01').value() == ['invalid date']",
        "!format.datetime().validate('2020-01-01T00:00:00Z').hasValue()",
        "!format.uri().validate('https://x/').hasValue()",
        "!format.byte().validate('YQ==').hasValue()",
        "[1, 2].all(x, x > 0 && !format.qualifiedName().validate('a/b').hasValue())",
    ],
)  # fmt: skip
def test_true(expression: str) -> None:
    assert value(expression) is True


def test_names_that_nobody_declared() -> None:
    with pytest.raises(CompileError, match="undeclared reference to 'w'"):
        compile_expression("self.m.all(k, v, w > 0)", ("self",))
    with pytest.raises(CompileError, match="undeclared reference to 'k'"):
        compile_expression("self.m.all(k, k, 2, v)", ("self",))


def test_rules_with_two_variables() -> None:
    schema = {"type": "object", "additionalProperties": {"type": "integer"}}
    types = SchemaTypes([schema])
    assert types.check(schema, "self.all(k, v, v > 0)").tree is None
    with pytest.raises(CompileError):
        types.check(schema, "self.all(k, v, x > 0)")
