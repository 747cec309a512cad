"""Namespaces: they end in two steps."""

from __future__ import annotations

from k8slite.api.meta import Obj
from k8slite.api.status import ApiError, forbidden
from k8slite.apiserver.call import Call
from k8slite.apiserver.registry.strategy import Strategy

__all__ = ["NamespaceStrategy"]

_IMMORTAL = frozenset(("default", "kube-system", "kube-public"))


class NamespaceStrategy(Strategy):
    """A namespace vanishes when its spec.finalizers are empty too."""

    returns_deleted = True

    def is_finished(self, obj: Obj) -> bool:
        return not (obj.get("spec") or {}).get("finalizers")

    def check_delete(self, call: Call, obj: Obj) -> ApiError | None:
        name = obj["metadata"]["name"]
        if name in _IMMORTAL:
            return forbidden(call.kind, name, "this namespace may not be deleted")
        return None

    def mark_deleted(self, obj: Obj) -> None:
        obj["status"] = {**(obj.get("status") or {}), "phase": "Terminating"}
