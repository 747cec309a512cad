"""Pods: what a deletion waits for, and what may change through which subresource."""

from __future__ import annotations

from k8slite.api.meta import Obj
from k8slite.api.status import FieldError
from k8slite.api.validation.pod_parts import validate_ephemeral_update, validate_resize
from k8slite.apiserver.call import Call
from k8slite.apiserver.registry.strategy import Strategy

__all__ = ["DONE", "PodStrategy"]

DEFAULT_GRACE_SECONDS = 30
DONE = ("Succeeded", "Failed")


class PodStrategy(Strategy):
    """A pod on a node is deleted by its kubelet, after its grace period."""

    returns_deleted = True

    def validate_part(self, call: Call, part: str, new: Obj, old: Obj) -> list[FieldError]:
        check = validate_ephemeral_update if part == "ephemeralcontainers" else validate_resize
        return check(new, old)

    def grace_seconds(self, obj: Obj, asked: int | None) -> int:
        spec = obj.get("spec") or {}
        if not spec.get("nodeName") or (obj.get("status") or {}).get("phase") in DONE:
            return 0
        if asked is not None:
            return asked
        given = spec.get("terminationGracePeriodSeconds")
        return DEFAULT_GRACE_SECONDS if given is None else max(int(given), 1 if given < 0 else 0)
