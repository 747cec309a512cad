"""Which nodes a pod's node selector and required node affinity allow (pure)."""

from __future__ import annotations

from collections.abc import Mapping, Sequence

from k8slite.api.meta import Obj

REQUIRED = "requiredDuringSchedulingIgnoredDuringExecution"


def matches_term(term: Obj, labels: Mapping[str, str], node_name: str) -> bool:
    """All expressions of one NodeSelectorTerm; a term without any matches nothing."""
    expressions = term.get("matchExpressions") or ()
    fields = term.get("matchFields") or ()
    if not expressions and not fields:
        return False
    by_field = {"metadata.name": node_name}
    return all(_matches(e, labels) for e in expressions) and all(
        _matches(e, by_field) for e in fields
    )


def required_terms(spec: Obj) -> Sequence[Obj] | None:
    """The terms of a pod spec of which one must match; None: all nodes do."""
    affinity = (spec.get("affinity") or {}).get("nodeAffinity") or {}
    required = affinity.get(REQUIRED)
    return None if required is None else required.get("nodeSelectorTerms") or ()


def allows(spec: Obj, labels: Mapping[str, str], node_name: str) -> bool:
    """Whether a pod of this spec may run on the node, as far as selector and affinity go."""
    if not (spec.get("nodeSelector") or {}).items() <= labels.items():
        return False
    terms = required_terms(spec)
    return terms is None or any(matches_term(t, labels, node_name) for t in terms)


def _matches(expression: Obj, values: Mapping[str, str]) -> bool:
    key, operator = expression["key"], expression["operator"]
    wanted: Sequence[str] = expression.get("values") or ()
    has = key in values
    match operator:
        case "In":
            return has and values[key] in wanted
        case "NotIn":
            return not has or values[key] not in wanted
        case "Exists":
            return has
        case "DoesNotExist":
            return not has
        case "Gt" | "Lt":
            try:
                number, bound = int(values.get(key, "")), int(wanted[0])
            except (ValueError, IndexError):
                return False
            return number > bound if operator == "Gt" else number < bound
    return False
