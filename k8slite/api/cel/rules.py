"""x-kubernetes-validations: rules in a definition's schema, for the value they stand at. Pure.

A rule sees the value as `self`, and on updates, where the value can be found again in the old
object, the old one as `oldSelf`. Names that are no identifiers are escaped; numbers, times and
bytes have the types that the schema says.
"""

from __future__ import annotations

import base64
import binascii
import re
from typing import Any

from k8slite.api.cel.names import escape
from k8slite.api.cel.program import (
    BOOL,
    STRING,
    CompileError,
    EvaluationError,
    compile_expression,
)
from k8slite.api.meta import Obj, parse_time
from k8slite.api.status import (
    DUPLICATE,
    FORBIDDEN,
    INVALID,
    REQUIRED,
    FieldError,
    invalid_value,
)

__all__ = ["check_rules", "has_rules", "list_counterpart", "with_optional_old"]

EVALUATIONS_MAX = 10_000
"""For one object."""
OUT_OF_BUDGET = (
    "validation failed due to running out of cost budget, no further validation rules will be run"
)
VARIABLES = ("self", "oldSelf")
_OLD = re.compile(r"\boldSelf\b")
_OPTIONAL = "(oldSelf.size() == 0 ? optional.none() : optional.of(oldSelf[0]))"
_REASONS = {
    "FieldValueForbidden": FORBIDDEN,
    "FieldValueRequired": REQUIRED,
    "FieldValueDuplicate": DUPLICATE,
}


def has_rules(schema: Any) -> bool:
    """Is there a rule anywhere in it?"""
    if not isinstance(schema, dict):
        return False
    if schema.get("x-kubernetes-validations"):
        return True
    inner = [*(schema.get("properties") or {}).values()]
    inner += [schema.get("items"), schema.get("additionalProperties")]
    return any(has_rules(each) for each in inner)


def _source(rule: Obj) -> str:
    return with_optional_old(rule, rule["rule"])


def with_optional_old(rule: Obj, source: str) -> str:
    """A rule's expression. Where oldSelf is optional, it comes as a list of one or none."""
    return _OLD.sub(_OPTIONAL, source) if rule.get("optionalOldSelf") else source


def check_rules(schema: Obj, obj: Obj, old: Obj | None) -> list[FieldError]:
    """Why the rules refuse an object whose structure is good; `old` is what an update replaces."""
    walk = _Walk()
    walk.check(schema, obj, old, "", root=True)
    return walk.errors


class _Walk:
    """One pass over an object."""

    def __init__(self) -> None:
        self.errors: list[FieldError] = []
        self._left = EVALUATIONS_MAX
        self._known: dict[int, bool] = {}

    def _has_rules(self, schema: Any) -> bool:
        found = self._known.get(id(schema))
        if found is None:
            found = self._known[id(schema)] = has_rules(schema)
        return found

    def check(self, schema: Obj, value: Any, old: Any, path: str, *, root: bool = False) -> None:
        """`old` is the value's counterpart, None if there is none."""
        if value is None or self._left <= 0:
            return
        rules = schema.get("x-kubernetes-validations") or ()
        if rules:
            self._apply(rules, schema, value, old, path, root=root)
        if isinstance(value, dict):
            before = old if isinstance(old, dict) else {}
            known = schema.get("properties") or {}
            extra = schema.get("additionalProperties")
            for name, item in value.items():
                inner = known.get(name, extra)
                if isinstance(inner, dict) and self._has_rules(inner):
                    below = f"{path}[{name}]" if name not in known else _join(path, name)
                    self.check(inner, item, before.get(name), below)
        elif isinstance(value, list) and self._has_rules(schema.get("items")):
            for i, item in enumerate(value):
                counterpart = list_counterpart(schema, item, old)
                self.check(schema["items"], item, counterpart, f"{path}[{i}]")

    def _apply(
        self, rules: Any, schema: Obj, value: Any, old: Any, path: str, *, root: bool
    ) -> None:
        variables = {"self": convert(schema, value, root=root), "oldSelf": None}
        before = None if old is None else convert(schema, old, root=root)
        for rule in rules:
            uses_old = _OLD.search(rule["rule"]) is not None
            if rule.get("optionalOldSelf"):
                variables["oldSelf"] = [] if old is None else [before]
            elif uses_old and old is None:
                continue
            else:
                variables["oldSelf"] = before
            if not uses_old and old is not None and value == old:
                continue  # it was so before: who changes something else is not to blame
            self._left -= 1
            if self._left <= 0:
                self.errors.append(invalid_value(path or "<nil>", _type(schema), OUT_OF_BUDGET))
                return
            error = self._one(rule, schema, variables, path)
            if error is not None:
                self.errors.append(error)

    def _one(self, rule: Obj, schema: Obj, variables: Obj, path: str) -> FieldError | None:
        told = (rule.get("message") or "").strip() or f"failed rule: {rule['rule'].strip()}"
        shown = path or "<nil>"
        try:
            good = compile_expression(_source(rule), VARIABLES, BOOL).evaluate(variables)
        except (CompileError, EvaluationError) as error:
            message = (rule.get("message") or rule["rule"]).strip()
            if "cost limit" in str(error):
                detail = (
                    f"'{error}': no further validation rules will be run due to call cost exceeds "
                    f"limit for rule: {message}"
                )
            elif str(error).startswith("no such overload"):
                detail = (
                    f"'{error}': call arguments did not match a supported operator, function or "
                    f"macro signature for rule: {message}"
                )
            else:
                detail = f"{error} evaluating rule: {message}"
            return invalid_value(shown, _type(schema), detail)
        if good is True:
            return None
        if rule.get("messageExpression"):
            told = _told(rule, variables) or told
        type_ = _REASONS.get(rule.get("reason", ""), INVALID)
        at = f"{path}{rule.get('fieldPath', '')}".removeprefix(".") or "<nil>"
        return FieldError(type_, at, _type(schema), told)


def _told(rule: Obj, variables: Obj) -> str:
    source = with_optional_old(rule, rule["messageExpression"])
    try:
        text = compile_expression(source, VARIABLES, STRING).evaluate(variables)
    except (CompileError, EvaluationError):
        return ""
    if not isinstance(text, str) or "\n" in text.strip():
        return ""
    return text.strip()


def _join(path: str, name: str) -> str:
    return f"{path}.{name}" if path else name


def _type(schema: Obj) -> str:
    """What stands in the place of the value."""
    found: str = schema.get("type") or ""
    return found


def list_counterpart(schema: Obj, item: Any, old: Any) -> Any:
    """The item of the old list with the same keys; None in lists that have none."""
    keys = schema.get("x-kubernetes-list-map-keys") or ()
    if schema.get("x-kubernetes-list-type") != "map" or not isinstance(old, list):
        return None
    if not isinstance(item, dict):
        return None
    for other in old:
        if isinstance(other, dict) and all(other.get(k) == item.get(k) for k in keys):
            return other
    return None


# --- values -------------------------------------------------------------------------------------

_ROOT = ("name", "generateName")


def convert(schema: Obj, value: Any, *, root: bool = False) -> Any:
    """A value as an expression sees it."""
    if schema.get("x-kubernetes-int-or-string") or value is None:
        return value
    if isinstance(value, dict):
        return _convert_object(schema, value, root=root)
    if isinstance(value, list):
        items = schema.get("items")
        return [convert(items, item) for item in value] if isinstance(items, dict) else value
    type_ = schema.get("type")
    if type_ == "number" and isinstance(value, int):
        return float(value)
    if type_ == "integer" and isinstance(value, float):
        return int(value)
    if type_ == "string" and isinstance(value, str):
        return _convert_string(schema.get("format", ""), value)
    return value


def _convert_object(schema: Obj, value: Obj, *, root: bool) -> Obj:
    known = schema.get("properties") or {}
    extra = schema.get("additionalProperties")
    converted: Obj = {}
    if root or schema.get("x-kubernetes-embedded-resource"):
        metadata = value.get("metadata") or {}
        converted["metadata"] = {k: metadata[k] for k in _ROOT if k in metadata}
        for key in ("apiVersion", "kind"):
            if key in value:
                converted[key] = value[key]
    for name, item in value.items():
        if name in converted:
            continue
        if name in known:
            spelt = escape(name)
            if spelt is not None:
                converted[spelt] = convert(known[name], item)
        elif isinstance(extra, dict):
            converted[name] = convert(extra, item)
        elif schema.get("x-kubernetes-preserve-unknown-fields") and not known:
            converted[name] = item
    return converted


_DURATION = re.compile(r"([-+]?)((?:\d+(?:\.\d*)?(?:ns|us|µs|ms|s|m|h))+)")
_DURATION_PART = re.compile(r"(\d+(?:\.\d*)?)(ns|us|µs|ms|s|m|h)")
_UNITS = {"ns": 1e-9, "us": 1e-6, "µs": 1e-6, "ms": 1e-3, "s": 1.0, "m": 60.0, "h": 3600.0}


def _convert_string(format_: str, value: str) -> Any:
    """Times, durations and bytes; a value that is none (validation has said so) stays text."""
    if format_ == "byte":
        try:
            return base64.b64decode(value, validate=True)
        except (binascii.Error, ValueError):
            return value
    if format_ in ("date", "date-time"):
        from google.protobuf.timestamp_pb2 import Timestamp

        try:
            seconds = parse_time(value if format_ == "date-time" else f"{value}T00:00:00Z")
        except ValueError:
            return value
        whole = int(seconds // 1)
        return Timestamp(seconds=whole, nanos=round((seconds - whole) * 1e9) % 1_000_000_000)
    if format_ == "duration":
        from google.protobuf.duration_pb2 import Duration

        found = _DURATION.fullmatch(value)
        if found is None:
            return value
        total = sum(float(n) * _UNITS[unit] for n, unit in _DURATION_PART.findall(found[2]))
        nanos = round(total * 1e9) * (-1 if found[1] == "-" else 1)
        sign = -1 if nanos < 0 else 1
        return Duration(seconds=sign * (abs(nanos) // 10**9), nanos=sign * (abs(nanos) % 10**9))
    return value
