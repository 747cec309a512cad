"""To which priority level and flow a request belongs, as FlowSchemas say. Pure."""

from __future__ import annotations

from collections.abc import Iterable
from typing import NamedTuple

from k8slite.api.meta import Obj
from k8slite.apiserver.call import User
from k8slite.apiserver.requestinfo import RequestInfo

__all__ = ["Classifier", "Flow"]

MEMO_MAX = 8_192
CATCH_ALL = "catch-all"


class Flow(NamedTuple):
    """Requests of one flow of a schema are equals; flows of one level take turns."""

    level: str
    name: tuple[str, str]


class _Schema(NamedTuple):
    precedence: int
    name: str
    level: str
    by: str
    rules: list[Obj]


class Classifier:
    """The schemas in the order in which they are tried. Remembers what it has decided."""

    def __init__(self, schemas: Iterable[Obj]) -> None:
        found = []
        for schema in schemas:
            spec = schema.get("spec") or {}
            by = (spec.get("distinguisherMethod") or {}).get("type", "")
            level = (spec.get("priorityLevelConfiguration") or {}).get("name", "")
            precedence = spec.get("matchingPrecedence", 1000)
            rules = spec.get("rules") or []
            found.append(_Schema(precedence, schema["metadata"]["name"], level, by, rules))
        self._schemas = sorted(found, key=lambda schema: schema[:2])
        self._memo: dict[tuple[object, ...], Flow] = {}

    def classify(self, user: User, info: RequestInfo) -> Flow:
        """The first schema that matches decides."""
        path = "" if info.resource else info.path
        key = (
            user.name, user.groups, info.verb, info.group, info.resource, info.subresource,
            info.namespace, path,
        )  # fmt: skip
        flow = self._memo.get(key)
        if flow is None:
            flow = self._decide(user, info)
            if len(self._memo) >= MEMO_MAX:
                self._memo.clear()
            self._memo[key] = flow
        return flow

    def _decide(self, user: User, info: RequestInfo) -> Flow:
        for schema in self._schemas:
            if any(_rule_matches(rule, user, info) for rule in schema.rules):
                distinguished = {"ByUser": user.name, "ByNamespace": info.namespace}
                return Flow(schema.level, (schema.name, distinguished.get(schema.by, "")))
        return Flow(CATCH_ALL, (CATCH_ALL, ""))


def _rule_matches(rule: Obj, user: User, info: RequestInfo) -> bool:
    if not any(_is_subject(subject, user) for subject in rule.get("subjects") or ()):
        return False
    if info.resource:
        return any(_is_resource(each, info) for each in rule.get("resourceRules") or ())
    return any(_is_path(each, info) for each in rule.get("nonResourceRules") or ())


def _is_subject(subject: Obj, user: User) -> bool:
    match subject.get("kind"):
        case "User":
            name = (subject.get("user") or {}).get("name")
            return name in ("*", user.name)
        case "Group":
            name = (subject.get("group") or {}).get("name")
            return name == "*" or name in user.groups
        case "ServiceAccount":
            account = subject.get("serviceAccount") or {}
            prefix = f"system:serviceaccount:{account.get('namespace', '')}:"
            wanted = account.get("name")
            if wanted == "*":
                return user.name.startswith(prefix)
            return user.name == f"{prefix}{wanted}"
    return False


def _has(values: list[str] | None, wanted: str) -> bool:
    return values is not None and ("*" in values or wanted in values)


def _is_resource(rule: Obj, info: RequestInfo) -> bool:
    resource = f"{info.resource}/{info.subresource}" if info.subresource else info.resource
    if not (
        _has(rule.get("verbs"), info.verb)
        and _has(rule.get("apiGroups"), info.group)
        and _has(rule.get("resources"), resource)
    ):
        return False
    if not info.namespace:
        return bool(rule.get("clusterScope"))
    return _has(rule.get("namespaces"), info.namespace)


def _is_path(rule: Obj, info: RequestInfo) -> bool:
    if not _has(rule.get("verbs"), info.verb):
        return False
    for url in rule.get("nonResourceURLs") or ():
        if url in ("*", info.path) or (url.endswith("/*") and info.path.startswith(url[:-1])):
            return True
    return False
