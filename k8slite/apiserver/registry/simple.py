"""Kinds that differ from the ordinary in one or two rules."""

from __future__ import annotations

from k8slite.api.meta import Obj
from k8slite.apiserver.call import Call
from k8slite.apiserver.registry.strategy import Strategy

__all__ = [
    "CertificateStrategy",
    "ConfirmedStrategy",
    "DeploymentStrategy",
    "GivesBackStrategy",
    "LaxStrategy",
]


class LaxStrategy(Strategy):
    """A PUT of what does not exist creates it."""

    create_on_update = True

    def __init__(self, *, unconditional: bool = True) -> None:
        self.unconditional_update = unconditional


class GivesBackStrategy(Strategy):
    """A deletion is answered with the object that is gone."""

    returns_deleted = True


class ConfirmedStrategy(Strategy):
    """An update must say of which version it is."""

    unconditional_update = False


class DeploymentStrategy(Strategy):
    """Annotations count as wanted, because they are copied to the replica sets."""

    def prepare_update(self, call: Call, new: Obj, old: Obj) -> None:
        super().prepare_update(call, new, old)
        was, now = old["metadata"], new["metadata"]
        if was.get("annotations") != now.get("annotations"):
            now["generation"] = was.get("generation", 0) + 1

    def prepare_status(self, call: Call, new: Obj, old: Obj) -> None:
        super().prepare_status(call, new, old)
        labels = old["metadata"].get("labels")
        if labels is None:
            new["metadata"].pop("labels", None)
        else:
            new["metadata"]["labels"] = labels


class CertificateStrategy(Strategy):
    """The requester is who asked, whatever the object says."""

    def prepare_create(self, call: Call, obj: Obj) -> None:
        super().prepare_create(call, obj)
        spec = obj.setdefault("spec", {})
        spec["username"], spec["groups"] = call.user.name, list(call.user.groups)
        for key, value in (
            ("uid", call.user.uid),
            ("extra", {k: list(v) for k, v in call.user.extra.items()}),
        ):
            if value:
                spec[key] = value
            else:
                spec.pop(key, None)

    def prepare_update(self, call: Call, new: Obj, old: Obj) -> None:
        super().prepare_update(call, new, old)
        new["spec"] = old["spec"]
