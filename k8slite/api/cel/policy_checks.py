"""Expressions of ValidatingAdmissionPolicies against the types of the kinds that they match. Pure.

A policy's expressions were compiled when it was written, with objects of any type. Here each is
compiled once more for each kind, and what is wrong becomes a warning in the policy's status.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator
from typing import Any

from k8slite.api.cel.library import new_environment
from k8slite.api.cel.program import words
from k8slite.api.cel.schema_types import without_struct
from k8slite.api.cel.type_table import TypeTable
from k8slite.api.kinds import Kind, by_path
from k8slite.api.meta import Obj
from k8slite.api.schema import Field, Type, type_of

__all__ = ["built_in_schema", "type_warnings"]

KINDS_MAX = 10
_DYNAMIC = ("request", "params", "variables", "authorizer", "authorizer.requestResource")
_SCALARS: dict[str, Obj] = {
    "s": {"type": "string"},
    "i": {"type": "integer"},
    "l": {"type": "integer"},
    "b": {"type": "boolean"},
    "n": {"type": "number"},
    "B": {"type": "string", "format": "byte"},
    "t": {"type": "string", "format": "date-time"},
    "u": {"type": "string", "format": "date-time"},
}
_ANYTHING: Obj = {"x-kubernetes-preserve-unknown-fields": True}
Resolve = Callable[[str, str, str], tuple[Kind, Obj] | None]
"""(group, version, plural) to the kind and its schema."""


def built_in_schema(group: str, version: str, plural: str) -> tuple[Kind, Obj] | None:
    """Of a built-in kind."""
    kind = by_path(group, version, plural)
    type_ = None if kind is None else type_of(kind)
    return None if kind is None or type_ is None else (kind, _schema(type_, {}))


def _schema(type_: Type, made: dict[str, Obj]) -> Obj:
    """As a structural schema; types may contain themselves."""
    found = made.get(type_.name)
    if found is None:
        found = made[type_.name] = {"type": "object", "properties": {}}
        for name, field in type_.fields.items():
            found["properties"][name] = _field(field, field.shape, made)
    return found


def _field(field: Field, shape: str, made: dict[str, Obj]) -> Obj:
    if shape.startswith("["):
        return {"type": "array", "items": _field(field, shape[1:], made)}
    if shape.startswith("{"):
        return {"type": "object", "additionalProperties": _field(field, shape[1:], made)}
    return _schema(field.type, made) if field.code == "@" else _SCALARS.get(field.code, _ANYTHING)


def type_warnings(policy: Obj, resolve: Resolve = built_in_schema) -> list[Obj]:
    """The expressionWarnings of a policy's status."""
    spec = policy.get("spec") or {}
    kinds = list(_kinds(spec, resolve))[:KINDS_MAX]
    environments = [(kind, _environment(schema)) for kind, schema in kinds]
    found: list[Obj] = []
    for i, validation in enumerate(spec.get("validations") or ()):
        for part in ("expression", "messageExpression"):
            source = (validation.get(part) or "").strip()
            texts = [
                f"{kind.api_version}, Kind={kind.kind}: {problem}"
                for kind, env in environments
                if source and (problem := _problem(env, source))
            ]
            if texts:
                where = f"spec.validations[{i}].{part}"
                found.append({"fieldRef": where, "warning": "\n".join(texts)})
    return found


def _kinds(spec: Obj, resolve: Resolve) -> Iterator[tuple[Kind, Obj]]:
    """What the rules name in so many words; rules with asterisks match whatever there is."""
    seen: set[Kind] = set()
    for rule in (spec.get("matchConstraints") or {}).get("resourceRules") or ():
        axes = [rule.get(key) or () for key in ("apiGroups", "apiVersions", "resources")]
        if any("*" in value for axis in axes for value in axis):
            continue
        groups, versions, resources = axes
        for group in groups:
            for version in versions:
                for resource in resources:
                    found = None if "/" in resource else resolve(group, version, resource)
                    if found is not None and found[0] not in seen:
                        seen.add(found[0])
                        yield found


def _environment(schema: Obj) -> Any:
    namespace = built_in_schema("", "v1", "namespaces")
    assert namespace is not None
    table = TypeTable((schema, namespace[1]))
    type_ = table.type_of(schema)
    typed = {
        "object": type_,
        "oldObject": type_,
        "namespaceObject": table.type_of(namespace[1]),
    }
    return new_environment(_DYNAMIC, messages=table.file, typed=typed)


def _problem(env: Any, source: str) -> str:
    try:
        env.compile(source)
    except RuntimeError as error:
        return without_struct(words(str(error)))
    return ""
