"""May this user do this? The chain: system:masters, the node authorizer, RBAC."""

from __future__ import annotations

from k8slite.api.status import ApiError
from k8slite.apiserver.auth.rbac import Attributes, Decision, Rbac
from k8slite.apiserver.call import User
from k8slite.apiserver.requestinfo import RequestInfo

__all__ = ["Authorizer", "attributes_of"]

_MASTERS = "system:masters"
_NODES = "system:nodes"
_NODE_PREFIX = "system:node:"
_WRITES = frozenset(("update", "patch", "delete"))
ALWAYS_ALLOWED = frozenset(("/healthz", "/readyz", "/livez"))


def attributes_of(info: RequestInfo) -> Attributes:
    """What a request asks for."""
    if not info.is_resource:
        return Attributes(info.verb, path=info.path)
    return Attributes(
        info.verb, info.group, info.resource, info.subresource, info.namespace, info.name
    )


class Authorizer:
    """Decides; `require` also words the refusal."""

    def __init__(self, rbac: Rbac, *, enabled: bool) -> None:
        self.rbac = rbac
        self._enabled = enabled

    def decide(self, user: User, asked: Attributes) -> Decision:
        """Is it allowed?"""
        if not self._enabled or _MASTERS in user.groups:
            return Decision(True)
        if asked.path and asked.path in ALWAYS_ALLOWED:
            return Decision(True)
        is_node = _NODES in user.groups and user.name.startswith(_NODE_PREFIX)
        if is_node and self._node_may(user.name.removeprefix(_NODE_PREFIX), asked):
            return Decision(True)
        return self.rbac.decide(user, asked)

    def _node_may(self, node: str, asked: Attributes) -> bool:
        """What system:node allows, and of nodes and their leases only its own may be written."""
        if not any(rule.allows(asked) for rule in self.rbac.role_rules("system:node")):
            return False
        if asked.verb in _WRITES and asked.resource in ("nodes", "leases"):
            return asked.name == node
        return True

    def require(self, user: User, info: RequestInfo) -> None:
        """Raises ApiError 403 with upstream's words."""
        asked = attributes_of(info)
        if not self.decide(user, asked).allowed:
            raise refusal(user, asked)


def refusal(user: User, asked: Attributes) -> ApiError:
    """403 for what is not allowed."""
    who = f'User "{user.name}" cannot'
    if asked.path:
        message = f'forbidden: {who} {asked.verb} path "{asked.path}"'
        return ApiError(403, "Forbidden", message, {})
    qualified = f"{asked.resource}.{asked.group}" if asked.group else asked.resource
    subject = f'{qualified} "{asked.name}"' if asked.name else qualified
    where = f'in the namespace "{asked.namespace}"' if asked.namespace else "at the cluster scope"
    message = (
        f'{subject} is forbidden: {who} {asked.verb} resource "{asked.full_resource}" '
        f'in API group "{asked.group}" {where}'
    )
    details = {"name": asked.name} if asked.name else {}
    if asked.group:
        details["group"] = asked.group
    details["kind"] = asked.resource
    return ApiError(403, "Forbidden", message, details)
