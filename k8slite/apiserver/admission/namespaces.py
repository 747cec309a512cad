"""NamespaceLifecycle: nothing is created in a namespace that is not there or is going away."""

from __future__ import annotations

from k8slite.api.kinds import NAMESPACES
from k8slite.api.meta import Obj
from k8slite.api.status import ApiError, forbidden, not_found
from k8slite.apiserver.call import Call

__all__ = ["namespace_lifecycle"]

_ALWAYS = frozenset(
    ("localsubjectaccessreviews.authorization.k8s.io",)
)  # questions need no namespace


async def namespace_lifecycle(call: Call, new: Obj, old: Obj | None) -> None:
    """Raises ApiError 404 (no such namespace) or 403 (it is being terminated)."""
    if old is not None or not call.kind.namespaced or call.kind.resource in _ALWAYS:
        return
    name = call.namespace
    cache = call.core.mirror.cache(NAMESPACES)
    entry = cache.get("", name)
    if entry is None:
        await call.core.mirror.wait_fresh()
        entry = cache.get("", name)
    if entry is None:
        raise not_found(NAMESPACES, name)
    namespace = entry.parsed()
    if namespace["metadata"].get("deletionTimestamp"):
        error = forbidden(
            call.kind,
            new["metadata"].get("name", ""),
            f"unable to create new content in namespace {name} because it is being terminated",
        )
        cause = {
            "reason": "NamespaceTerminating",
            "message": f"namespace {name} is being terminated",
            "field": "metadata.namespace",
        }
        raise ApiError(
            403, error.reason, error.message, {**(error.details or {}), "causes": [cause]}
        )
