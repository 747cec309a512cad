"""Label and field selectors: parsing with kube-apiserver's messages, and matching.

A label selector is a tuple of `Requirement`s; `parse_labels` reads the query parameter,
`from_object` a LabelSelector. A field selector is a tuple of (path, value, equal). Both match plain
objects.
"""

from __future__ import annotations

import re
from collections.abc import Mapping, Sequence
from typing import Any, NamedTuple

from k8slite.api import names
from k8slite.api.kinds import Kind
from k8slite.api.meta import Obj
from k8slite.api.status import ApiError, bad_request

IN, NOT_IN, EXISTS, DOES_NOT_EXIST, GREATER, LESS = "in", "notin", "exists", "!", "gt", "lt"
_OPERATOR_OF_OBJECT = {"In": IN, "NotIn": NOT_IN, "Exists": EXISTS, "DoesNotExist": DOES_NOT_EXIST}
_TOKEN = re.compile(r"\s*(==|!=|=|!|,|\(|\)|<|>|[^\s=!,()<>]+)")
_SPECIAL = frozenset(("==", "!=", "=", "!", ",", "(", ")", "<", ">"))
_EXPECTED = "in, notin, =, ==, !=, gt, lt"


class Requirement(NamedTuple):
    key: str
    operator: str
    values: tuple[str, ...] = ()

    def matches(self, labels: Mapping[str, str]) -> bool:
        has = self.key in labels
        match self.operator:
            case "in":
                return has and labels[self.key] in self.values
            case "notin":
                return not has or labels[self.key] not in self.values
            case "exists":
                return has
            case "!":
                return not has
        try:
            number, bound = int(labels.get(self.key, "")), int(self.values[0])
        except ValueError:
            return False
        return number > bound if self.operator == GREATER else number < bound

    def __str__(self) -> str:
        match self.operator:
            case "in" | "notin" if len(self.values) == 1:
                return f"{self.key}{'=' if self.operator == IN else '!='}{self.values[0]}"
            case "in" | "notin":
                return f"{self.key} {self.operator} ({','.join(sorted(self.values))})"
            case "exists":
                return self.key
            case "!":
                return f"!{self.key}"
        return f"{self.key}{'>' if self.operator == GREATER else '<'}{self.values[0]}"


class LabelSelector(NamedTuple):
    """Requirements that must all hold. `nothing` is the selector that matches no object at all."""

    requirements: tuple[Requirement, ...] = ()
    nothing: bool = False

    def matches(self, labels: Mapping[str, str] | None) -> bool:
        if self.nothing:
            return False
        labels = labels or {}
        for requirement in self.requirements:  # noqa: SIM110  # a generator costs more than this
            if not requirement.matches(labels):
                return False
        return True

    @property
    def empty(self) -> bool:
        return not self.requirements and not self.nothing

    def __str__(self) -> str:
        return ",".join(str(r) for r in sorted(self.requirements))


EVERYTHING = LabelSelector()
NOTHING = LabelSelector(nothing=True)


class SelectorError(ValueError):
    """The text is no selector; the message is kube-apiserver's."""


def parse_labels(text: str) -> LabelSelector:
    """Reads "app=web,tier in (a,b),!legacy". Raises SelectorError."""
    tokens = _tokens(text)
    if not tokens:
        return EVERYTHING
    requirements: list[Requirement] = []
    i = 0
    while True:
        requirement, i = _requirement(tokens, i)
        requirements.append(requirement)
        if i == len(tokens):
            return LabelSelector(tuple(requirements))
        if tokens[i] != ",":
            raise SelectorError(f"found '{tokens[i]}', expected: ',' or 'end of string'")
        i += 1
        if i == len(tokens) or (tokens[i] in _SPECIAL and tokens[i] != "!"):
            found = tokens[i] if i < len(tokens) else ""
            raise SelectorError(f"found '{found}', expected: identifier after ','")


def from_object(selector: Obj | None) -> LabelSelector:
    """Of a LabelSelector object ({matchLabels, matchExpressions}): None matches nothing, {}
    everything.
    """
    if selector is None:
        return NOTHING
    requirements = [
        Requirement(k, IN, (v,)) for k, v in (selector.get("matchLabels") or {}).items()
    ]
    for expression in selector.get("matchExpressions") or ():
        operator = _OPERATOR_OF_OBJECT.get(expression.get("operator", ""))
        if operator is None:
            bad = expression.get("operator", "")
            raise SelectorError(f'"{bad}" is not a valid label selector operator')
        values = tuple(expression.get("values") or ())
        requirements.append(Requirement(expression["key"], operator, values))
    return LabelSelector(tuple(requirements))


def from_map(labels: Mapping[str, str] | None) -> LabelSelector:
    """Of a plain map of labels (a Service's selector): all must be equal; an empty map matches
    everything.
    """
    return LabelSelector(tuple(Requirement(k, IN, (v,)) for k, v in sorted((labels or {}).items())))


def _tokens(text: str) -> list[str]:
    text = text.rstrip()
    tokens: list[str] = []
    at = 0
    while at < len(text):
        match = _TOKEN.match(text, at)
        assert match is not None, "each character begins a token"
        tokens.append(match[1])
        at = match.end()
    return tokens


def _parse_error(found: str, expected: str) -> SelectorError:
    return SelectorError(f"unable to parse requirement: found '{found}', expected: {expected}")


def _requirement(tokens: list[str], i: int) -> tuple[Requirement, int]:
    def token(at: int) -> str:
        return tokens[at] if at < len(tokens) else ""

    absent = token(i) == "!"
    if absent:
        i += 1
    key = token(i)
    if not key or key in _SPECIAL:
        raise _parse_error(key, "identifier")
    _check_key(key)
    i += 1
    if token(i) in ("", ",") or absent:
        return Requirement(key, DOES_NOT_EXIST if absent else EXISTS), i
    operator = token(i)
    if operator in (IN, NOT_IN):
        values, i = _value_list(tokens, i + 1)
        return Requirement(key, operator, tuple(_check_value(key, v) for v in values)), i
    i += 1
    if operator in ("=", "==", "!=") and token(i) in ("", ","):
        return Requirement(key, NOT_IN if operator == "!=" else IN, ("",)), i
    value = token(i)
    if operator in ("=", "==", "!="):
        if value in _SPECIAL:
            raise _parse_error(value, "identifier")
        return (
            Requirement(key, NOT_IN if operator == "!=" else IN, (_check_value(key, value),)),
            i + 1,
        )
    if operator in ("<", ">"):
        if re.fullmatch(r"[+-]?[0-9]+", value) is None:
            raise SelectorError(
                f'unable to parse requirement: values[0][{key}]: Invalid value: "{value}": for'
                " 'Gt', 'Lt' operators, the value must be an integer"
            )
        return Requirement(key, LESS if operator == "<" else GREATER, (value,)), i + 1
    raise _parse_error(operator, _EXPECTED)


def _value_list(tokens: list[str], i: int) -> tuple[list[str], int]:
    found = tokens[i] if i < len(tokens) else ""
    if found != "(":
        raise _parse_error(found, "'('")
    values: list[str] = []
    i += 1
    expect_value = True
    while True:
        found = tokens[i] if i < len(tokens) else ""
        i += 1
        if found == ")":
            if expect_value:
                values.append("")
            return values, i
        if found == ",":
            if expect_value:
                values.append("")
            expect_value = True
        elif not found or found in _SPECIAL or not expect_value:
            raise _parse_error(found, "',', ')' or identifier")
        else:
            values.append(found)
            expect_value = False


def _check_key(key: str) -> None:
    problems = names.check_qualified_name(key)
    if problems:
        raise SelectorError(
            f'unable to parse requirement: key: Invalid value: "{key}": {"; ".join(problems)}'
        )


def _check_value(key: str, value: str) -> str:
    problems = names.check_label_value(value)
    if problems:
        raise SelectorError(
            f'unable to parse requirement: values[0][{key}]: Invalid value: "{value}":'
            f" {'; '.join(problems)}"
        )
    return value


class FieldTerm(NamedTuple):
    path: str
    value: str
    equal: bool


class FieldSelector(NamedTuple):
    terms: tuple[FieldTerm, ...] = ()

    def matches(self, o: Obj) -> bool:
        for path, value, equal in self.terms:  # noqa: SIM110  # a generator costs more than this
            if (field_value(o, path) == value) is not equal:
                return False
        return True

    @property
    def empty(self) -> bool:
        return not self.terms

    def required(self, path: str) -> str | None:
        """The value that this field must have for a match, or None: lets a list go straight to one
        name.
        """
        for term in self.terms:
            if term.path == path and term.equal:
                return term.value
        return None

    def __str__(self) -> str:
        return ",".join(f"{p}{'=' if e else '!='}{_escape(v)}" for p, v, e in self.terms)


def _escape(value: str) -> str:
    return value.replace("\\", "\\\\").replace(",", "\\,").replace("=", "\\=")


ALL_FIELDS = FieldSelector()


def parse_fields(text: str) -> FieldSelector:
    """Reads "spec.nodeName=n1,status.phase!=Running". Raises SelectorError."""
    terms: list[FieldTerm] = []
    for part in re.split(r"(?<!\\),", text):
        if not part:
            continue
        match = re.match(r"((?:\\.|[^\\=!])*)(==|!=|=)(.*)", part, re.DOTALL)
        if match is None:
            raise SelectorError(f"invalid selector: '{text}'; can't understand '{part}'")
        value = re.sub(r"\\([\\,=])", r"\1", match[3])
        terms.append(FieldTerm(match[1], value, match[2] != "!="))
    return FieldSelector(tuple(terms))


_EVENT_FIELDS = (
    *(f"involvedObject.{f}" for f in ("kind", "namespace", "name", "uid", "apiVersion")),
    "involvedObject.resourceVersion",
    "involvedObject.fieldPath",
    "reason",
    "reportingComponent",
    "source",
    "type",
)
SELECTABLE_FIELDS: dict[str, Sequence[str]] = {
    "pods": (
        "spec.nodeName",
        "spec.restartPolicy",
        "spec.schedulerName",
        "spec.serviceAccountName",
        "spec.hostNetwork",
        "status.phase",
        "status.podIP",
        "status.podIPs",
        "status.nominatedNodeName",
    ),
    "nodes": ("spec.unschedulable",),
    "namespaces": ("status.phase", "name"),
    "secrets": ("type",),
    "services": ("spec.clusterIP", "spec.type"),
    "replicationcontrollers": ("status.replicas",),
    "replicasets.apps": ("status.replicas",),
    "jobs.batch": ("status.successful",),
    "events": _EVENT_FIELDS,
    "events.events.k8s.io": _EVENT_FIELDS,
    "certificatesigningrequests.certificates.k8s.io": ("spec.signerName",),
    "resourceslices.resource.k8s.io": ("spec.nodeName", "spec.driver"),
    "ipaddresses.networking.k8s.io": ("spec.parentRef.resource",),
}


def check_fields(kind: Kind, selector: FieldSelector) -> None:
    """Raises the 400 of a field that this kind cannot be selected by."""
    allowed = kind.selectable or SELECTABLE_FIELDS.get(kind.resource, ())
    for term in selector.terms:
        known = term.path in allowed or term.path == "metadata.name"
        if not known and not (term.path == "metadata.namespace" and kind.namespaced):
            raise ApiError(
                400,
                "BadRequest",
                (
                    f'Unable to find "{kind.group}/{kind.version}, Resource={kind.plural}" that'
                    f' match label selector "", field selector "{selector}": "{term.path}" is not a'
                    ' known field selector: only "metadata.name", "metadata.namespace"'
                    if not allowed
                    else (
                        f'Unable to find "{kind.group}/{kind.version}, Resource={kind.plural}" that'
                        f' match label selector "", field selector "{selector}": field label not'
                        f" supported: {term.path}"
                    )
                ),
            )


def field_value(o: Obj, path: str) -> str:
    """The text of the field at a dotted path; "" where absent, "true"/"false" for booleans."""
    value: Any = o
    match path:
        case "name":
            path = "metadata.name"
        case "source":
            value = o.get("source") or o.get("deprecatedSource") or {}
            return value.get("component") or o.get("reportingController") or ""
        case "status.successful":
            path = "status.succeeded"
        case "status.podIPs":
            ips = (o.get("status") or {}).get("podIPs") or ()
            return ",".join(i.get("ip", "") for i in ips)
        case "reportingComponent":
            return o.get("reportingComponent") or o.get("reportingController") or ""
    if path.startswith("involvedObject.") and "regarding" in o:
        path = "regarding" + path[len("involvedObject") :]
    for step in path.split("."):
        value = value.get(step) if isinstance(value, dict) else None
    if value is None:
        return _ABSENT.get(path, "")
    if isinstance(value, bool):
        return "true" if value else "false"
    return str(value)


_ABSENT = {
    "spec.unschedulable": "false",
    "spec.hostNetwork": "false",
    "status.replicas": "0",
    "status.succeeded": "0",
}


def labels_or_400(text: str) -> LabelSelector:
    """`parse_labels` for a request: the SelectorError as the API's 400."""
    try:
        return parse_labels(text)
    except SelectorError as error:
        raise bad_request(str(error)) from None


def fields_or_400(kind: Kind, text: str) -> FieldSelector:
    try:
        selector = parse_fields(text)
    except SelectorError as error:
        raise bad_request(str(error)) from None
    check_fields(kind, selector)
    return selector
