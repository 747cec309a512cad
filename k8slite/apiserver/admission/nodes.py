"""NodeRestriction: a kubelet writes only its own node and the pods on it."""

from __future__ import annotations

from k8slite.api.meta import Obj
from k8slite.api.status import forbidden
from k8slite.apiserver.call import Call

__all__ = ["node_restriction"]

_NODE_USER = "system:node:"


async def node_restriction(call: Call, new: Obj, old: Obj | None) -> None:
    """A node's own credentials may write only that node and the pods bound to it."""
    user = call.user
    if not user.name.startswith(_NODE_USER) or "system:nodes" not in user.groups:
        return
    node = user.name.removeprefix(_NODE_USER)
    name = new["metadata"].get("name", "")
    if call.kind.resource == "nodes" and name != node:
        raise forbidden(call.kind, name, f'node "{node}" is not allowed to modify node "{name}"')
    if call.kind.resource == "pods":
        bound = (old or new).get("spec", {}).get("nodeName", "")
        if bound != node:
            raise forbidden(
                call.kind,
                name,
                f'node "{node}" can only create or update pods with spec.nodeName set to itself',
            )
