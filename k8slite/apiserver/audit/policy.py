"""An audit Policy (`audit.k8s.io/v1`): how much is told of which requests. Pure.

The first rule that a request fits decides; without one nothing is told.
"""

from __future__ import annotations

from typing import Any

from attrs import frozen

from k8slite.api import yaml_codec
from k8slite.api.meta import Obj
from k8slite.apiserver.call import User
from k8slite.apiserver.requestinfo import RequestInfo

__all__ = ["LEVELS", "STAGES", "Decision", "Policy", "read_policy"]

LEVELS = ("None", "Metadata", "Request", "RequestResponse")
STAGES = ("RequestReceived", "ResponseStarted", "ResponseComplete", "Panic")


@frozen
class Decision:
    """How much to tell of one request, and when not."""

    level: str
    omit_stages: frozenset[str] = frozenset()
    omit_managed_fields: bool = False

    @property
    def tells_request(self) -> bool:
        return self.level in ("Request", "RequestResponse")

    @property
    def tells_response(self) -> bool:
        return self.level == "RequestResponse"


@frozen
class Resources:
    """Of one group; no resources or names: all of them."""

    group: str
    resources: tuple[str, ...]
    names: frozenset[str]

    def fit(self, info: RequestInfo) -> bool:
        if info.group != self.group:
            return False
        if not self.resources:
            return True
        if self.names and info.name not in self.names:
            return False
        whole = f"{info.resource}/{info.subresource}" if info.subresource else info.resource
        wanted = {"*", whole, f"{info.resource}/*"}
        if info.subresource:
            wanted.add(f"*/{info.subresource}")
        return not wanted.isdisjoint(self.resources)


@frozen
class Rule:
    """What is left empty fits everything."""

    decision: Decision
    users: frozenset[str]
    groups: frozenset[str]
    verbs: frozenset[str]
    resources: tuple[Resources, ...]
    namespaces: frozenset[str]
    urls: tuple[str, ...]

    def fits(self, user: User, info: RequestInfo) -> bool:
        if self.users and user.name not in self.users:
            return False
        if self.groups and self.groups.isdisjoint(user.groups):
            return False
        if self.verbs and info.verb not in self.verbs:
            return False
        if self.namespaces or self.resources:
            return info.is_resource and self._fits_resource(info)
        if self.urls:
            return not info.is_resource and any(_is_url(url, info.path) for url in self.urls)
        return True

    def _fits_resource(self, info: RequestInfo) -> bool:
        if self.namespaces and info.namespace not in self.namespaces:
            return False
        return not self.resources or any(each.fit(info) for each in self.resources)


def _is_url(pattern: str, path: str) -> bool:
    return pattern in ("*", path) or (pattern[-1:] == "*" and path.startswith(pattern[:-1]))


@frozen
class Policy:
    rules: tuple[Rule, ...]

    def decide(self, user: User, info: RequestInfo) -> Decision:
        for rule in self.rules:
            if rule.fits(user, info):
                return rule.decision
        return NOTHING


NOTHING = Decision("None")


def read_policy(text: str) -> Policy:
    """Raises ValueError that names the field."""
    document = yaml_codec.load(text)
    if not isinstance(document, dict) or document.get("kind") != "Policy":
        raise ValueError("must be an audit.k8s.io/v1 Policy")
    if document.get("apiVersion") != "audit.k8s.io/v1":
        version = document.get("apiVersion")
        raise ValueError(f"apiVersion: Invalid value: {version!r}: must be audit.k8s.io/v1")
    rules = _list(document, "rules", "")
    if not rules:
        raise ValueError("rules: Required value: a policy without rules tells nothing")
    return Policy(tuple(_rule(each, document, f"rules[{i}]") for i, each in enumerate(rules)))


def _rule(given: Obj, policy: Obj, at: str) -> Rule:
    level = given.get("level", "")
    if level not in LEVELS:
        known = ", ".join(f'"{each}"' for each in LEVELS)
        raise ValueError(f'{at}.level: Unsupported value: "{level}": supported values: {known}')
    urls = _texts(given, "nonResourceURLs", at)
    resources, namespaces = _list(given, "resources", at), _texts(given, "namespaces", at)
    if urls and (resources or namespaces):
        raise ValueError(f"{at}.nonResourceURLs: Invalid value: rules cannot apply to both regular "
                         "resources and non-resource URLs")  # fmt: skip
    for url in urls:
        if url != "*" and (not url.startswith("/") or "*" in url[:-1]):
            raise ValueError(f'{at}.nonResourceURLs: Invalid value: "{url}": must be "*" or begin '
                             "with /, with a * at its end alone")  # fmt: skip
    stages = {*_stages(policy, "omitStages", ""), *_stages(given, "omitStages", at)}
    omit = given.get("omitManagedFields", policy.get("omitManagedFields"))
    return Rule(
        Decision(level, frozenset(stages), bool(omit)),
        frozenset(_texts(given, "users", at)),
        frozenset(_texts(given, "userGroups", at)),
        frozenset(_texts(given, "verbs", at)),
        tuple(
            Resources(
                each.get("group", ""),
                _texts(each, "resources", f"{at}.resources[{i}]"),
                frozenset(_texts(each, "resourceNames", f"{at}.resources[{i}]")),
            )
            for i, each in enumerate(resources)
        ),
        frozenset(namespaces),
        urls,
    )


def _stages(given: Obj, key: str, at: str) -> tuple[str, ...]:
    stages = _texts(given, key, at)
    for each in stages:
        if each not in STAGES:
            raise ValueError(f'{at}.{key}: Unsupported value: "{each}"'.lstrip("."))
    return stages


def _texts(given: Obj, key: str, at: str) -> tuple[str, ...]:
    found = _list(given, key, at)
    if not all(isinstance(each, str) for each in found):
        raise ValueError(f"{at}.{key}: must be a list of texts".lstrip("."))
    return tuple(found)


def _list(given: Obj, key: str, at: str) -> list[Any]:
    found = given.get(key) or []
    if not isinstance(found, list):
        raise ValueError(f"{at}.{key}: must be a list".lstrip("."))
    return found
