"""May this user do this? The chain: system:masters, then what is configured (Node, RBAC, ...)."""

from __future__ import annotations

from collections.abc import Mapping, Sequence

from k8slite.api.status import ApiError
from k8slite.apiserver.auth.configuration import Authorizer as Settings
from k8slite.apiserver.auth.rbac import Attributes, Decision, Rbac
from k8slite.apiserver.auth.webhooks import WebhookAuthorizer
from k8slite.apiserver.call import User
from k8slite.apiserver.requestinfo import RequestInfo

__all__ = ["Authorizer", "attributes_of"]

_MASTERS = "system:masters"
_NODES = "system:nodes"
_NODE_PREFIX = "system:node:"
_WRITES = frozenset(("update", "patch", "delete"))
DEFAULT_CHAIN = (Settings("Node"), Settings("RBAC"))
ALWAYS_ALLOWED = frozenset(("/healthz", "/readyz", "/livez"))


def attributes_of(info: RequestInfo) -> Attributes:
    """What a request asks for."""
    if not info.is_resource:
        return Attributes(info.verb, path=info.path)
    return Attributes(
        info.verb, info.group, info.resource, info.subresource, info.namespace, info.name
    )


class Authorizer:
    """Decides.

    The chain is asked in order until one allows or denies. `hooks` are the webhooks in it, by name.
    """

    def __init__(
        self,
        rbac: Rbac,
        chain: Sequence[Settings] = DEFAULT_CHAIN,
        hooks: Mapping[str, WebhookAuthorizer] | None = None,
    ) -> None:
        self.rbac = rbac
        self._chain = chain
        self._hooks = hooks or {}

    async def decide(self, user: User, asked: Attributes) -> Decision:
        """Is it allowed?"""
        known = self._always(user, asked)
        if known is not None:
            return known
        last = Decision(False)
        for each in self._chain:
            if each.type == "Webhook":
                decision = await self._hooks[each.name].decide(user, asked)
            else:
                decision = self._local(each.type, user, asked)
            if decision.allowed or decision.denied:
                return decision
            last = decision if decision.reason else last
        return last

    def decide_here(self, user: User, asked: Attributes) -> Decision:
        """Is it allowed, as far as can be said without a webhook? For expressions."""
        known = self._always(user, asked)
        if known is not None:
            return known
        for each in self._chain:
            decision = self._local(each.type, user, asked)
            if decision.allowed or decision.denied:
                return decision
        return Decision(False)

    def _always(self, user: User, asked: Attributes) -> Decision | None:
        if _MASTERS in user.groups or (asked.path and asked.path in ALWAYS_ALLOWED):
            return Decision(True)
        return None

    def _local(self, type_: str, user: User, asked: Attributes) -> Decision:
        match type_:
            case "AlwaysAllow":
                return Decision(True)
            case "AlwaysDeny":
                return Decision(False, "Everything is forbidden.")
            case "RBAC":
                return self.rbac.decide(user, asked)
            case "Node" if _NODES in user.groups and user.name.startswith(_NODE_PREFIX):
                return Decision(self._node_may(user.name.removeprefix(_NODE_PREFIX), asked))
        return Decision(False)

    def _node_may(self, node: str, asked: Attributes) -> bool:
        """What system:node allows, and of nodes and their leases only its own may be written."""
        if not any(rule.allows(asked) for rule in self.rbac.role_rules("system:node")):
            return False
        if asked.verb in _WRITES and asked.resource in ("nodes", "leases"):
            return asked.name == node
        return True


def refusal(user: User, asked: Attributes, reason: str = "") -> ApiError:
    """403 for what is not allowed; a webhook may have given the reason."""
    because = f": {reason}" if reason else ""
    who = f'User "{user.name}" cannot'
    if asked.path:
        message = f'forbidden: {who} {asked.verb} path "{asked.path}"{because}'
        return ApiError(403, "Forbidden", message, {})
    qualified = f"{asked.resource}.{asked.group}" if asked.group else asked.resource
    subject = f'{qualified} "{asked.name}"' if asked.name else qualified
    where = f'in the namespace "{asked.namespace}"' if asked.namespace else "at the cluster scope"
    message = (
        f'{subject} is forbidden: {who} {asked.verb} resource "{asked.full_resource}" '
        f'in API group "{asked.group}" {where}{because}'
    )
    details = {"name": asked.name} if asked.name else {}
    if asked.group:
        details["group"] = asked.group
    details["kind"] = asked.resource
    return ApiError(403, "Forbidden", message, details)
