"""What admission is about: one operation on one object, and how it looks in another version."""

from __future__ import annotations

from typing import Any

import orjson

from k8slite.api.codec import IGNORE, Expected, from_parsed
from k8slite.api.kinds import NAMESPACES, Kind
from k8slite.api.meta import Obj
from k8slite.apiserver.call import SERVER, Call
from k8slite.apiserver.options import is_dry_run
from k8slite.apiserver.registry.strategies import strategy_of
from k8slite.apiserver.versions import in_version

__all__ = ["CREATE", "DELETE", "UPDATE", "Attributes", "is_exempt"]

CREATE, UPDATE, DELETE, CONNECT = "CREATE", "UPDATE", "DELETE", "CONNECT"
_OPTIONS = {CREATE: "CreateOptions", UPDATE: "UpdateOptions", DELETE: "DeleteOptions"}
_EXEMPT = frozenset(
    f"{plural}.admissionregistration.k8s.io"
    for plural in (
        "mutatingwebhookconfigurations",
        "validatingwebhookconfigurations",
        "mutatingadmissionpolicies",
        "mutatingadmissionpolicybindings",
        "validatingadmissionpolicies",
        "validatingadmissionpolicybindings",
    )
)


def is_exempt(call: Call) -> bool:
    """Nobody may lock himself out: configurations are not asked about configurations. Nor about
    what the server does for itself.
    """
    return call.kind.resource in _EXEMPT or call.user is SERVER


class Attributes:
    """Of one request. `new` is None for a deletion, `old` for a creation.

    `body` is what a subresource is written with, where that is an object of its own: a Scale, a
    Binding, the options of a connection. It is the same whatever the version of the resource.
    """

    def __init__(
        self,
        call: Call,
        operation: str,
        new: Obj | None,
        old: Obj | None,
        body: Expected | None = None,
    ) -> None:
        self.call = call
        self.kind = call.kind
        self.body = body
        self.operation = operation
        self.subresource = call.info.subresource
        self.namespace = call.namespace
        self.new = new
        self.old = old
        self._named: Obj = (new or old or {}).get("metadata") or {}

    @property
    def name(self) -> str:
        """Empty while it is not generated yet."""
        return self._named.get("name") or self.call.info.name

    def namespace_object(self) -> Obj | None:
        """The namespace in which it happens; None for what lives in none."""
        if not self.kind.namespaced:
            return None
        entry = self.call.core.mirror.cache(NAMESPACES).get("", self.namespace)
        return {"apiVersion": "v1", "kind": "Namespace", **entry.parsed()} if entry else None

    def namespace_labels(self) -> Any:
        """What namespace selectors look at: of a namespace, its own; None: nothing to look at."""
        if self.kind.resource == NAMESPACES.resource:
            return ((self.new or self.old or {}).get("metadata") or {}).get("labels") or {}
        found = self.namespace_object()
        if found is None:
            return {} if self.kind.namespaced else None
        return found["metadata"].get("labels") or {}

    def versions(self) -> list[Kind]:
        """The kind, and the other versions in which the same objects are served."""
        kind = self.kind
        others = [
            each
            for each in self.call.core.kinds.all()
            if each.plural == kind.plural
            and each.group == kind.group
            and each.version != kind.version
        ]
        return [kind, *others]

    async def shown_as(self, kind: Kind, obj: Obj | None) -> Obj | None:
        """One of the objects in a version of its kind; a copy where that is another one."""
        if obj is None or kind is self.kind or self.body is not None:
            return obj
        return await in_version(self.call.core, self.kind, kind, obj)

    async def take(self, kind: Kind, patched: Obj) -> bool:
        """Make a changed object, in a version of its kind, the new one. Is it another one now?

        Raises ApiError.
        """
        call = self.call
        assert self.new is not None
        decoded = from_parsed(patched, self.body or kind, IGNORE, body=orjson.dumps(patched)).obj
        if self.body is not None:
            return self._become(decoded)
        if kind is not call.kind:
            decoded = await in_version(call.core, kind, call.kind, decoded)
        strategy = strategy_of(call.kind)
        strategy.decoded(call, decoded, IGNORE)
        strategy.defaults(call, decoded)
        return self._become(decoded)

    def _become(self, obj: Obj) -> bool:
        assert self.new is not None
        if obj == self.new:
            return False
        self.new.clear()
        self.new.update(obj)
        return True

    def request(self, kind: Kind, uid: str) -> Obj:
        """The AdmissionRequest, without the objects."""
        call, asked = self.call, self.kind
        user: Obj = {"username": call.user.name, "groups": list(call.user.groups)}
        if call.user.uid:
            user["uid"] = call.user.uid
        if call.user.extra:
            user["extra"] = {key: list(values) for key, values in call.user.extra.items()}
        request: Obj = {
            "uid": uid,
            "kind": _gvk(self.body or kind),
            "resource": {"group": kind.group, "version": kind.version, "resource": kind.plural},
            "requestKind": _gvk(self.body or asked),
            "requestResource": {
                "group": asked.group,
                "version": asked.version,
                "resource": asked.plural,
            },
            "operation": self.operation,
            "userInfo": user,
            "dryRun": is_dry_run(call),
            "options": None if self.operation == CONNECT else self._options(),
        }
        if self.subresource:
            request["subResource"] = request["requestSubResource"] = self.subresource
        name = call.info.name if self.body is not None else self.name
        if name:
            request["name"] = name
        if self.namespace:
            request["namespace"] = self.namespace
        return request

    def _options(self) -> Obj:
        call = self.call
        kind = _OPTIONS[self.operation]
        if call.info.verb == "patch":
            kind = "PatchOptions" if self.operation == UPDATE else kind
        options: Obj = {"apiVersion": "meta.k8s.io/v1", "kind": kind}
        for key in ("fieldManager", "fieldValidation"):
            if call.param(key) and self.operation != DELETE:
                options[key] = call.param(key)
        if is_dry_run(call):
            options["dryRun"] = ["All"]
        return options


def _gvk(kind: Kind | Expected) -> Obj:
    return {"group": kind.group, "version": kind.version, "kind": kind.kind}
