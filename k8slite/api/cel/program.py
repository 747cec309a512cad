"""Compiled expressions. Pure.

Owns: the environments (which variables an expression may name), a cache of programs, the words of
errors. An evaluation is bounded: at most 10,000 iterations of comprehensions, which is the
library's limit, and strings of STRING_MAX characters in the functions that make new ones.
"""

from __future__ import annotations

import re
from collections.abc import Callable, Iterable, Mapping
from functools import lru_cache
from typing import Any

from k8slite.api.cel.authorizer import using

__all__ = ["CompileError", "EvaluationError", "Program", "compile_expression", "matches"]

PROGRAMS_KEPT = 4_096
ANY, BOOL, STRING, STRING_OR_NULL = "any", "bool", "string", "string or null"
_ALLOWED = {
    BOOL: ("BOOL", "DYN"),
    STRING: ("STRING", "DYN"),
    STRING_OR_NULL: ("STRING", "NULL", "DYN"),
}
_MUST = {
    BOOL: "must evaluate to bool",
    STRING: "must evaluate to string",
    STRING_OR_NULL: "must evaluate to one of [string null_type]",
}


class CompileError(ValueError):
    """The expression is none, or of the wrong type; the text is kube-apiserver's."""


class EvaluationError(Exception):
    """An expression has no value for this input: a missing key, a division by zero..."""


class Program:
    """A compiled expression."""

    __slots__ = ("_env", "_expression", "source")

    def __init__(self, source: str, env: Any, expression: Any) -> None:
        self.source = source
        self._env = env
        self._expression = expression

    def evaluate(
        self,
        variables: Mapping[str, Any],
        authorize: Callable[[Mapping[str, Any]], tuple[bool, str]] | None = None,
    ) -> Any:
        """The value as plain Python. `authorize` answers what the variable `authorizer` is asked.

        Raises EvaluationError.
        """
        try:
            with using(authorize):
                result = self._expression.eval(data=variables)
            if result.type().name() == "ERROR":
                raise EvaluationError(_reason(str(result.value())))
            return result.plain_value()
        except (RuntimeError, TypeError) as error:
            raise EvaluationError(_reason(str(error))) from None


@lru_cache(maxsize=PROGRAMS_KEPT)
def compile_expression(source: str, variables: tuple[str, ...], result: str = ANY) -> Program:
    """A program that may name these variables. Raises CompileError."""
    return compile_with(_environment(variables), source, result, variables)


def compile_with(env: Any, source: str, result: str, variables: tuple[str, ...]) -> Program:
    """A program of an environment that is there already. Raises CompileError."""
    from k8slite.api.cel import macros
    from k8slite.api.cel.syntax import CHECKED, pack, unpack

    try:
        expression = env.compile(source)
    except RuntimeError as error:
        expanded = expand_macros(env, source, variables)
        if expanded is not None:
            return Program(source, env, expanded)
        raise CompileError(f"compilation failed: {words(str(error))}") from None
    wanted = _ALLOWED.get(result)
    if wanted is not None and expression.return_type().name() not in wanted:
        raise CompileError(_MUST[result])
    if macros.has_optional_results(source):
        tree = unpack(expression.serialize(), CHECKED)
        macros.wrap_optional_results(tree)
        expression = env.deserialize(pack(tree))
    return Program(source, env, expression)


def expand_macros(env: Any, source: str, variables: Iterable[str]) -> Any:
    """An expression whose loops have two variables, unchecked; None if it has none such.

    Raises CompileError where it names what nobody has declared.
    """
    from k8slite.api.cel import macros
    from k8slite.api.cel.syntax import PARSED, pack, unpack

    try:
        tree = unpack(env.compile(source, disable_check=True).serialize(), PARSED)
    except RuntimeError:
        return None
    if not macros.expand(tree):
        return None
    known = frozenset((*variables, *_NAMED_EVERYWHERE))
    for name in macros.undeclared(tree.expr, known):
        text = f"undeclared reference to '{name}' (in container '')"
        raise CompileError(f"compilation failed: ERROR: <input>:1:1: {text}")
    return env.deserialize(pack(tree))


_NAMED_EVERYWHERE = (
    "int", "uint", "double", "bool", "string", "bytes", "list", "map", "null_type", "type", "sets",
    "format", "strings", "optional", "google", "jsonpatch",
)  # fmt: skip
"""Types, and what functions' names begin with."""


@lru_cache(maxsize=64)
def _environment(variables: tuple[str, ...]) -> Any:
    from k8slite.api.cel.library import new_environment

    return new_environment(variables)


def matches(pattern: str, text: str) -> bool:
    """Is there a match of an RE2 pattern? In linear time; a pattern that is none matches all."""
    program = compile_expression("text.matches(pattern)", ("pattern", "text"))
    try:
        return bool(program.evaluate({"pattern": pattern, "text": text}))
    except EvaluationError:
        return True


def words(text: str) -> str:
    """The library's error without its code, at the place where the original sees it."""
    code, found, rest = text.partition(": ")
    if found and code.isupper():
        text = rest.removesuffix(f" [{code}]")
    for theirs, ours in _TYPES.items():
        text = text.replace(theirs, ours)
    return _QUALIFIED.sub(_first_name, text)


_TYPES = {"google.protobuf.Timestamp": "timestamp", "google.protobuf.Duration": "duration"}


_QUALIFIED = re.compile(
    r"ERROR: <input>:(\d+):(\d+): undeclared reference to '(\w+)((?:\.\w+)*)\.\w+'"
    r"(.*\n \| .*\n \| )\.*\^"
)


def _first_name(match: re.Match[str]) -> str:
    """Of `a.b.c`, it is `a` that is not known."""
    line, column, name, between, rest = match.groups()
    start = max(int(column) - len(name + between), 1)
    dots = "." * (start - 1)
    return f"ERROR: <input>:{line}:{start}: undeclared reference to '{name}'{rest}{dots}^"


_SAME = {
    "Key not found in map : ": "no such key: ",
    "divide by zero": "division by zero",
    "modulus by zero": "modulus by zero",
    "No matching overloads found : ": "no such overload: ",
    "Applying SELECT to non-message type": "no such overload",
    "Iteration budget exceeded": "operation cancelled: actual cost limit exceeded",
    "Index error: ": "index out of bounds: ",
}


def _reason(text: str) -> str:
    """An evaluation's error in the words of the original."""
    text = words(text)
    for theirs, ours in _SAME.items():
        if text.startswith(theirs):
            rest = text[len(theirs) :]
            return ours + (rest.strip('"') if ours.endswith("key: ") else rest)
    return text
