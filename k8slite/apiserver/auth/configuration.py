"""AuthenticationConfiguration and AuthorizationConfiguration, read and checked. Pure.

The files are kube-apiserver's (`apiserver.config.k8s.io`). All errors are ValueErrors that name the
field; expressions are compiled here, so that a server with a wrong one does not start.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

from attrs import frozen

from k8slite.api import yaml_codec
from k8slite.api.cel import CompileError, Program, compile_expression
from k8slite.api.meta import Obj

__all__ = [
    "Anonymous",
    "Authentication",
    "Authorizer",
    "Issuer",
    "Mapping",
    "Rule",
    "duration",
    "read_authentication",
    "read_authorization",
    "read_document",
]

GROUP = "apiserver.config.k8s.io/"
_UNITS = {"ms": 0.001, "s": 1.0, "m": 60.0, "h": 3600.0}


@frozen
class Anonymous:
    """Who shows nothing may still ask: for every path, or for these alone."""

    enabled: bool = True
    paths: frozenset[str] | None = None

    def allows(self, path: str) -> bool:
        return self.enabled and (self.paths is None or path in self.paths)


@frozen
class Mapping:
    """Where a part of a user comes from: a claim with a prefix, or an expression."""

    claim: str = ""
    prefix: str = ""
    expression: Program | None = None


@frozen
class Rule:
    """What must hold; `claim` with `value`, or an expression with the message of its refusal."""

    claim: str = ""
    value: str = ""
    expression: Program | None = None
    message: str = ""


@frozen
class Issuer:
    """Whose tokens are good, and which user each names."""

    url: str
    discovery_url: str
    ca: str
    audiences: tuple[str, ...]
    username: Mapping
    groups: Mapping | None
    uid: Mapping | None
    extra: tuple[tuple[str, Program], ...]
    claim_rules: tuple[Rule, ...]
    user_rules: tuple[Rule, ...]


@frozen
class Authentication:
    issuers: tuple[Issuer, ...] = ()
    anonymous: Anonymous | None = None


@frozen
class Authorizer:
    """One of the chain: Node, RBAC, AlwaysAllow, AlwaysDeny, or Webhook with the rest."""

    type: str
    name: str = ""
    kubeconfig: str = ""
    timeout_seconds: float = 30.0
    allowed_seconds: float = 300.0
    denied_seconds: float = 30.0
    fails_closed: bool = False
    """A webhook that gives no answer refuses."""
    conditions: tuple[Program, ...] = ()
    """Requests that don't fulfil all of them are none of its business."""


def read_document(text: str, kind: str) -> Obj:
    """A configuration of that kind. Raises ValueError."""
    document = yaml_codec.load(text)
    if not isinstance(document, dict):
        raise ValueError(f"not a {kind}")
    version = str(document.get("apiVersion", ""))
    if document.get("kind") != kind or not version.startswith(GROUP):
        found = f"{version}, Kind={document.get('kind')}"
        raise ValueError(f"must be {GROUP}v1, Kind={kind}, not {found}")
    return document


def read_authentication(text: str) -> Authentication:
    document = read_document(text, "AuthenticationConfiguration")
    issuers = tuple(
        _issuer(each, f"jwt[{i}]") for i, each in enumerate(_list(document, "jwt", "jwt"))
    )
    urls = [each.url for each in issuers]
    for i, url in enumerate(urls):
        if url in urls[:i]:
            raise ValueError(f'jwt[{i}].issuer.url: Duplicate value: "{url}"')
    given = document.get("anonymous")
    if given is None:
        return Authentication(issuers)
    conditions = given.get("conditions")
    if conditions and not given.get("enabled"):
        raise ValueError("anonymous.conditions: must not be given where enabled is false")
    paths = None if conditions is None else frozenset(c.get("path", "") for c in conditions)
    return Authentication(issuers, Anonymous(bool(given.get("enabled")), paths))


def _issuer(given: Obj, at: str) -> Issuer:
    issuer = given.get("issuer") or {}
    url, audiences = issuer.get("url", ""), tuple(_list(issuer, "audiences", f"{at}.issuer"))
    if not str(url).startswith("https://"):
        raise ValueError(f'{at}.issuer.url: Invalid value: "{url}": URL scheme must be https')
    discovery = issuer.get("discoveryURL") or f"{url.rstrip('/')}/.well-known/openid-configuration"
    if not audiences or not all(audiences):
        raise ValueError(f"{at}.issuer.audiences: Required value: at least one is needed")
    if len(audiences) > 1 and issuer.get("audienceMatchPolicy") != "MatchAny":
        raise ValueError(f"{at}.issuer.audienceMatchPolicy: must be MatchAny for several audiences")
    mappings = given.get("claimMappings") or {}
    username = _mapping(mappings.get("username"), f"{at}.claimMappings.username", prefixed=True)
    if username is None:
        raise ValueError(f"{at}.claimMappings.username: claim or expression is required")
    return Issuer(
        url,
        discovery,
        issuer.get("certificateAuthority", ""),
        audiences,
        username,
        _mapping(mappings.get("groups"), f"{at}.claimMappings.groups", prefixed=True),
        _mapping(mappings.get("uid"), f"{at}.claimMappings.uid", prefixed=False),
        tuple(
            _extra(each, f"{at}.claimMappings.extra[{i}]")
            for i, each in enumerate(_list(mappings, "extra", f"{at}.claimMappings"))
        ),
        _rules(given, "claimValidationRules", "claims", at),
        _rules(given, "userValidationRules", "user", at),
    )


def _mapping(given: Any, at: str, *, prefixed: bool) -> Mapping | None:
    if not given:
        return None
    claim, expression, prefix = given.get("claim"), given.get("expression"), given.get("prefix")
    if bool(claim) == bool(expression):
        if not claim:
            return None
        raise ValueError(f"{at}: claim and expression can't both be set")
    if expression:
        if prefix is not None:
            raise ValueError(f"{at}.prefix: must not be set when expression is")
        return Mapping(expression=_compile(expression, "claims", f"{at}.expression"))
    if prefixed and prefix is None:
        raise ValueError(f"{at}.prefix: Required value: prefix is required when claim is set")
    return Mapping(claim, prefix or "")


def _extra(given: Obj, at: str) -> tuple[str, Program]:
    key = given.get("key", "")
    if "/" not in key or key != key.lower():
        raise ValueError(f'{at}.key: Invalid value: "{key}": must be a domain-prefixed path '
                         "in lower case")  # fmt: skip
    return key, _compile(given.get("valueExpression", ""), "claims", f"{at}.valueExpression")


def _rules(given: Obj, name: str, variable: str, at: str) -> tuple[Rule, ...]:
    rules = []
    for i, rule in enumerate(_list(given, name, at)):
        expression = rule.get("expression")
        if expression:
            where = f"{at}.{name}[{i}].expression"
            program = _compile(expression, variable, where, "bool")
            rules.append(Rule(expression=program, message=rule.get("message", "")))
        elif rule.get("claim") and variable == "claims":
            rules.append(Rule(rule["claim"], rule.get("requiredValue", "")))
        else:
            raise ValueError(f"{at}.{name}[{i}]: claim or expression is required")
    return tuple(rules)


def read_authorization(text: str) -> tuple[Authorizer, ...]:
    document = read_document(text, "AuthorizationConfiguration")
    given = _list(document, "authorizers", "authorizers")
    if not given:
        raise ValueError("authorizers: Required value: at least one authorization mode is needed")
    return tuple(_authorizer(each, f"authorizers[{i}]") for i, each in enumerate(given))


def _authorizer(given: Obj, at: str) -> Authorizer:
    type_, name = given.get("type", ""), given.get("name", "")
    if type_ in ("Node", "RBAC", "AlwaysAllow", "AlwaysDeny"):
        return Authorizer(type_, name)
    if type_ != "Webhook":
        raise ValueError(f'{at}.type: Unsupported value: "{type_}": supported values: '
                         '"AlwaysAllow", "AlwaysDeny", "Node", "RBAC", "Webhook"')  # fmt: skip
    hook = given.get("webhook") or {}
    connection = hook.get("connectionInfo") or {}
    if connection.get("type") != "KubeConfigFile" or not connection.get("kubeConfigFile"):
        raise ValueError(f"{at}.webhook.connectionInfo: must be a KubeConfigFile with its path")
    policy = hook.get("failurePolicy", "")
    if policy not in ("NoOpinion", "Deny"):
        raise ValueError(f'{at}.webhook.failurePolicy: Unsupported value: "{policy}": '
                         'supported values: "Deny", "NoOpinion"')  # fmt: skip
    return Authorizer(
        type_,
        name,
        connection["kubeConfigFile"],
        duration(hook.get("timeout", "30s"), f"{at}.webhook.timeout"),
        duration(hook.get("authorizedTTL", "5m"), f"{at}.webhook.authorizedTTL"),
        duration(hook.get("unauthorizedTTL", "30s"), f"{at}.webhook.unauthorizedTTL"),
        policy == "Deny",
        tuple(
            _compile(each.get("expression", ""), "request",
                     f"{at}.webhook.matchConditions[{i}].expression", "bool")
            for i, each in enumerate(_list(hook, "matchConditions", at))
        ),
    )  # fmt: skip


def _compile(source: str, variable: str, at: str, result: str = "any") -> Program:
    if not source:
        raise ValueError(f"{at}: Required value")
    try:
        return compile_expression(source, (variable,), result)
    except CompileError as error:
        raise ValueError(f'{at}: Invalid value: "{source}": {error}') from None


def _list(given: Obj, key: str, at: str) -> list[Any]:
    found = given.get(key) or []
    if not isinstance(found, list):
        raise ValueError(f"{at}.{key}: must be a list")
    return found


def duration(text: Any, at: str) -> float:
    """Seconds of a Go duration of one unit ("5m", "1.5s"). Raises ValueError."""
    convert: Callable[[Any], float] = float
    for unit in ("ms", "s", "m", "h"):
        if isinstance(text, str) and text.endswith(unit):
            try:
                return convert(text.removesuffix(unit)) * _UNITS[unit]
            except ValueError:
                break
    raise ValueError(f'{at}: Invalid value: "{text}": not a duration')
