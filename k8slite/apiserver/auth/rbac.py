"""Role-based access control: roles and bindings from the mirror, turned into an index.

Owns: the index, rebuilt when one of the four kinds changed. Deny is the absence of a rule.
"""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any, NamedTuple

from k8slite.api.kinds import CLUSTER_ROLE_BINDINGS, CLUSTER_ROLES, ROLE_BINDINGS, ROLES
from k8slite.api.selectors import from_object
from k8slite.apiserver.call import User
from k8slite.apiserver.mirror import Mirror

__all__ = ["Attributes", "Decision", "Rbac", "Rule"]

_KINDS = (CLUSTER_ROLES, CLUSTER_ROLE_BINDINGS, ROLES, ROLE_BINDINGS)
_SERVICE_ACCOUNT = "system:serviceaccount:"


class Attributes(NamedTuple):
    """What is asked for. A path request has `path` and no resource."""

    verb: str
    group: str = ""
    resource: str = ""
    subresource: str = ""
    namespace: str = ""
    name: str = ""
    path: str = ""

    @property
    def full_resource(self) -> str:
        """`pods` or `pods/log`."""
        return f"{self.resource}/{self.subresource}" if self.subresource else self.resource


class Decision(NamedTuple):
    """`reason` is what a SubjectAccessReview shows. Neither allowed nor `denied`: no opinion."""

    allowed: bool
    reason: str = ""
    denied: bool = False
    """Nobody who comes later in the chain may allow it."""


class Rule:
    """A PolicyRule, ready for matching."""

    __slots__ = ("groups", "names", "raw", "resources", "urls", "verbs")

    def __init__(self, raw: dict[str, Any]) -> None:
        self.raw = raw
        self.verbs = frozenset(raw.get("verbs") or ())
        self.groups = frozenset(raw.get("apiGroups") or ())
        self.resources = frozenset(raw.get("resources") or ())
        self.names = frozenset(raw.get("resourceNames") or ())
        self.urls = tuple(raw.get("nonResourceURLs") or ())

    def allows(self, asked: Attributes) -> bool:
        """Does this rule cover what is asked for?"""
        if asked.verb not in self.verbs and "*" not in self.verbs:
            return False
        if asked.path:
            return any(
                url in ("*", asked.path) or (url[-1:] == "*" and asked.path.startswith(url[:-1]))
                for url in self.urls
            )
        if asked.group not in self.groups and "*" not in self.groups:
            return False
        resources = self.resources
        any_parent = f"*/{asked.subresource}" if asked.subresource else "*"
        if resources.isdisjoint((asked.full_resource, "*", any_parent)):
            return False
        return not self.names or asked.name in self.names


class _Grant(NamedTuple):
    """A binding as seen from one of its subjects."""

    reason: str
    role_kind: str
    role_name: str
    namespace: str


class Rbac:
    """See the module."""

    def __init__(self, mirror: Mirror) -> None:
        self._caches = [mirror.cache(kind) for kind in _KINDS]
        self._built_at: tuple[int, ...] = ()
        self._roles: dict[tuple[str, str], list[Rule]] = {}
        self._grants: dict[tuple[str, str, str], list[_Grant]] = {}
        self._decisions: dict[tuple[str, tuple[str, ...], Attributes], Decision] = {}

    def decide(self, user: User, asked: Attributes) -> Decision:
        """Is it allowed, and by which binding?"""
        self._refresh()
        key = (user.name, user.groups, asked)
        decision = self._decisions.get(key)
        if decision is None:
            decision = self._decide(user, asked)
            if len(self._decisions) > DECISIONS_MAX:
                self._decisions.clear()
            self._decisions[key] = decision
        return decision

    def _decide(self, user: User, asked: Attributes) -> Decision:
        for grant in self._grants_of(user, asked.namespace):
            for rule in self._rules_of(grant):
                if rule.allows(asked):
                    return Decision(True, grant.reason)
        return Decision(False)

    def rules(self, user: User, namespace: str) -> list[Rule]:
        """All rules that hold for a user in a namespace."""
        self._refresh()
        return [rule for g in self._grants_of(user, namespace) for rule in self._rules_of(g)]

    def role_rules(self, name: str) -> list[Rule]:
        """The rules of a cluster role; none if there is no such role."""
        self._refresh()
        return self._roles.get(("", name), [])

    def _rules_of(self, grant: _Grant) -> list[Rule]:
        namespace = grant.namespace if grant.role_kind == "Role" else ""
        return self._roles.get((namespace, grant.role_name), [])

    def _grants_of(self, user: User, namespace: str) -> Iterator[_Grant]:
        for scope in ("", namespace) if namespace else ("",):
            yield from self._grants.get((scope, "User", user.name), ())
            for group in user.groups:
                yield from self._grants.get((scope, "Group", group), ())

    def _refresh(self) -> None:
        at = tuple(v for cache in self._caches for v in (cache.floor, cache.changed_at))
        if at != self._built_at:
            self._built_at = at
            self._build()

    def _build(self) -> None:
        cluster_roles, cluster_bindings, roles, bindings = self._caches
        self._roles, self._grants, self._decisions = {}, {}, {}
        for cache in (cluster_roles, roles):
            for entry in cache.entries.values():
                rules = [Rule(raw) for raw in entry.parsed().get("rules") or ()]
                self._roles[entry.namespace, entry.name] = rules
        self._aggregate()
        for cache, kind in ((cluster_bindings, "ClusterRoleBinding"), (bindings, "RoleBinding")):
            for entry in cache.entries.values():
                self._bind(kind, entry.namespace, entry.name, entry.parsed())

    def _aggregate(self) -> None:
        """Fill aggregated roles that no controller has filled yet, so that they always work."""
        given = [
            (entry.name, entry.parsed(), list(self._roles["", entry.name]))
            for entry in self._caches[0].entries.values()
        ]
        for _ in range(AGGREGATION_DEPTH):
            for name, role, own in given:
                selectors = (role.get("aggregationRule") or {}).get("clusterRoleSelectors")
                if not selectors or own:
                    continue
                chosen = [from_object(selector) for selector in selectors]
                self._roles["", name] = [
                    rule
                    for other, given_role, _ in given
                    if other != name
                    and any(s.matches(given_role["metadata"].get("labels")) for s in chosen)
                    for rule in self._roles["", other]
                ]

    def _bind(self, kind: str, namespace: str, name: str, binding: dict[str, Any]) -> None:
        role = binding["roleRef"]
        shown = f"{name}/{namespace}" if namespace else name
        for subject in binding.get("subjects") or ():
            subject_kind, subject_name = subject["kind"], subject["name"]
            told = subject_name
            if subject_kind == "ServiceAccount":
                space = subject.get("namespace") or namespace
                told = f"{subject_name}/{space}"
                key = (namespace, "User", f"{_SERVICE_ACCOUNT}{space}:{subject_name}")
            else:
                key = (namespace, subject_kind, subject_name)
            reason = (
                f'RBAC: allowed by {kind} "{shown}" of {role["kind"]} "{role["name"]}" '
                f'to {subject_kind} "{told}"'
            )
            grant = _Grant(reason, role["kind"], role["name"], namespace)
            self._grants.setdefault(key, []).append(grant)


DECISIONS_MAX = 20_000
AGGREGATION_DEPTH = 3
"""view is part of edit, which is part of admin."""
