"""Is a policy or webhook to be asked about a request? Rules, scopes and selectors."""

from __future__ import annotations

from collections.abc import Iterable

from k8slite.api.kinds import Kind
from k8slite.api.meta import Obj
from k8slite.api.selectors import from_object
from k8slite.apiserver.admission.dynamic.attributes import Attributes

__all__ = ["matching_kind"]


def matching_kind(
    attributes: Attributes,
    match: Obj,
    rules: Iterable[Obj],
    exclude: Iterable[Obj] = (),
    *,
    every: bool = False,
) -> Kind | None:
    """In which version of the kind to ask; None: not at all.

    `match` has the selectors and the match policy. `every`: no rules mean all requests.
    """
    rules, exclude = list(rules), list(exclude)
    exact = match.get("matchPolicy") == "Exact"
    kinds = [attributes.kind] if exact else attributes.versions()
    if any(_rule_matches(rule, attributes, kind) for kind in kinds for rule in exclude):
        return None
    if not rules and every:
        found: Kind | None = attributes.kind
    else:
        found = next(
            (k for k in kinds if any(_rule_matches(r, attributes, k) for r in rules)), None
        )
    if found is None or not _selected(attributes, match):
        return None
    return found


def _selected(attributes: Attributes, match: Obj) -> bool:
    selector = match.get("namespaceSelector")
    if selector:
        labels = attributes.namespace_labels()
        if labels is not None and not from_object(selector).matches(labels):
            return False
    selector = match.get("objectSelector")
    if selector:
        wanted = from_object(selector)
        return any(
            wanted.matches((obj.get("metadata") or {}).get("labels"))
            for obj in (attributes.new, attributes.old)
            if obj is not None
        )
    return True


def _rule_matches(rule: Obj, attributes: Attributes, kind: Kind) -> bool:
    scope = rule.get("scope")
    if scope == "Namespaced" and not kind.namespaced:
        return False
    if scope == "Cluster" and kind.namespaced:
        return False
    names = rule.get("resourceNames")
    if names and attributes.name not in names:
        return False
    return (
        _has(rule.get("operations"), attributes.operation)
        and _has(rule.get("apiGroups"), kind.group)
        and _has(rule.get("apiVersions"), kind.version)
        and _has_resource(rule.get("resources") or (), kind.plural, attributes.subresource)
    )


def _has(values: list[str] | None, wanted: str) -> bool:
    return values is not None and ("*" in values or wanted in values)


def _has_resource(resources: Iterable[str], plural: str, subresource: str) -> bool:
    for pattern in resources:
        resource, _, sub = pattern.partition("/")
        if resource in ("*", plural) and sub in ("*", subresource):
            return True
    return False
