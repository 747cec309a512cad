"""CEL with Kubernetes' functions: values, errors in the original's words, bounds."""

from __future__ import annotations

from typing import Any

import pytest

from k8slite.api.cel import CompileError, EvaluationError, compile_expression
from k8slite.api.cel.library import message
from k8slite.api.cel.program import BOOL, matches

SELF: dict[str, Any] = {
    "n": 3, "f": 1.5, "s": "hello", "l": [3, 1, 2], "words": ["a", "b"], "m": {"k": "v"},
    "big": list(range(3000)), "z": None,
}  # fmt: skip


def value(expression: str) -> Any:
    return compile_expression(expression, ("self",)).evaluate({"self": SELF})


@pytest.mark.parametrize(
    "expression",
    [
        "self.n > 2 && self.f < 2 && self.s.size() == 5",
        "self.?missing.orValue(7) == 7 && !has(self.missing) && has(self.m.k)",
        "self.l.all(x, x > 0) && self.l.exists_one(x, x == 1)",
        "self.l.map(x, x * 2).sum() == 12 && self.l.min() == 1 && self.l.max() == 3",
        "!self.l.isSorted() && self.words.isSorted() && self.l.indexOf(2) == 2",
        "self.words.indexOf('b') == 1 && self.words.lastIndexOf('c') == -1",
        "sets.contains(self.l, [1, 2]) && !sets.intersects(self.l, [9])",
        "sets.equivalent([1, 1, 2], [2, 1])",
        "'%s-%d %.2f %x'.format([self.s, self.n, self.f, 255]) == 'hello-3 1.50 ff'",
        "'a,b'.split(',') == self.words && self.words.join('-') == 'a-b'",
        "'Hello'.lowerAscii() == self.s && self.s.substring(1, 3) == 'el'",
        "self.s.replace('l', 'L', 1) == 'heLlo' && self.s.charAt(1) == 'e'",
        "self.s.indexOf('l') == 2 && self.s.lastIndexOf('l') == 3 && ' x '.trim() == 'x'",
        "'abc 123 def 456'.find('[0-9]+') == '123'",
        "'123 abc 456'.findAll('[0-9]+') == ['123', '456']",
        "'123 abc 456'.findAll('[0-9]+', 1) == ['123']",
        "self.s.matches('^h.*o$')",
        "url('https://u@example.com:80/a%20b?k=1&k=2').getHost() == 'example.com:80'",
        "url('https://[::1]:80/').getHostname() == '::1'",
        "url('https://example.com/?k=1&k=2').getQuery()['k'] == ['1', '2']",
        "isURL('https://x') && !isURL('../x') && url('/p').getEscapedPath() == '/p'",
        "quantity('1Gi') == quantity('1024Mi') && quantity('1').isLessThan(quantity('1500m'))",
        "quantity('1k').add(quantity('1')).asInteger() == 1001 && !isQuantity('1X')",
        "quantity('100m').compareTo(quantity('0.1')) == 0 && quantity('-1').sign() == -1",
        "ip('127.0.0.1').isLoopback() && ip('::1').family() == 6 && !isIP('1.2.3')",
        "cidr('10.0.0.0/8').containsIP('10.1.1.1') && cidr('10.1.0.0/8').prefixLength() == 8",
        "cidr('10.0.0.0/8').containsCIDR('10.2.0.0/16')",
        "cidr('10.9.0.0/8').ip() == ip('10.9.0.0')",
        "semver('1.2.3').isGreaterThan(semver('1.2.3-rc.1')) && semver('v1', true).major() == 1",
        "duration('1h') > duration('59m')",
        "timestamp('2020-01-01T00:00:00Z').getFullYear() == 2020",
        "self.z == null && type(self.n) == int",
        "self.m == {'k': 'v'} && 'k' in self.m && self.m.all(k, k == 'k')",
    ],
)
def test_true(expression: str) -> None:
    assert value(expression) is True


@pytest.mark.parametrize(
    ("expression", "message"),
    [
        ("a", "ERROR: <input>:1:1: undeclared reference to 'a' (in container '')\n | a\n | ^"),
        (
            "1 > 0 && a.b.c == 1",
            "ERROR: <input>:1:10: undeclared reference to 'a' (in container '')\n"
            " | 1 > 0 && a.b.c == 1\n | .........^",
        ),
        (
            "Bad_Value!",
            "ERROR: <input>:1:10: Syntax error: extraneous input '!' expecting <EOF>\n"
            " | Bad_Value!\n | .........^",
        ),
        (
            "'a' > 1",
            "ERROR: <input>:1:5: found no matching overload for '_>_' applied to '(string, int)'\n"
            " | 'a' > 1\n | ....^",
        ),
    ],
)
def test_what_is_no_expression(expression: str, message: str) -> None:
    with pytest.raises(CompileError) as caught:
        compile_expression(expression, ("self",))
    assert str(caught.value) == f"compilation failed: {message}"


def test_the_result_must_be_of_the_wanted_type() -> None:
    compile_expression("self.n", ("self",), BOOL)
    with pytest.raises(CompileError, match="must evaluate to bool"):
        compile_expression("1 + 1", ("self",), BOOL)


@pytest.mark.parametrize(
    ("expression", "message"),
    [
        ("self.missing > 1", "no such key: missing"),
        ("1 / (self.n - 3)", "division by zero"),
        ("self.s + 1", "no such overload: _+_(string, int64)"),
        ("self.big.all(x, self.big.all(y, x + y >= 0))", "actual cost limit exceeded"),
        ("'aaaaaaaaaaaaaaaaaaaaaaaa!'.find('(a+)+$')", "no repetitions inside repetitions"),
        ("quantity('nonsense')", "quantities must match"),
        ("self.s.substring(9)", "index out of range: 9"),
        ("url('no url')", "URL parse error"),
    ],
)
def test_errors_of_evaluations(expression: str, message: str) -> None:
    with pytest.raises(EvaluationError) as caught:
        value(expression)
    assert message in str(caught.value)


def test_strings_do_not_grow_without_bound() -> None:
    grow = "self" + ".replace('', 'xxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxx')" * 8
    with pytest.raises(EvaluationError, match="cost limit"):
        compile_expression(grow, ("self",)).evaluate({"self": "x"})


def test_the_authorizer_is_asked() -> None:
    asked = []

    def authorize(question: Any) -> tuple[bool, str]:
        asked.append(question)
        return question["verb"] == "get", "because"

    program = compile_expression(
        "authorizer.group('apps').resource('deployments').namespace('n').check(self).allowed()",
        ("self", "authorizer"),
    )
    for verb in ("get", "create"):
        variables = {"self": verb, "authorizer": message("A", "")}
        assert program.evaluate(variables, authorize) is (verb == "get")
    assert asked[0] == {
        "group": "apps", "resource": "deployments", "namespace": "n", "verb": "get",
    }  # fmt: skip


def test_patterns_match_in_linear_time() -> None:
    assert matches("^(a+)+$", "a" * 5000)
    assert not matches("^(a+)+$", "a" * 5000 + "!")
