"""Which other servers answer for which groups and versions, and what they say of themselves.

Owns: what was last heard of each server's discovery and OpenAPI, until its APIService goes.
"""

from __future__ import annotations

import base64
import binascii
from typing import NamedTuple

from k8slite.api.discovery import Remote
from k8slite.api.kinds import API_SERVICES
from k8slite.api.meta import Obj, condition_is
from k8slite.apiserver.backends import BackendError, Place, service_endpoint
from k8slite.apiserver.kind_table import KindTable
from k8slite.apiserver.mirror import Mirror
from raftkv.host import Host

__all__ = ["Heard", "Remotes", "Service"]


class Service(NamedTuple):
    """An APIService that leads to another server."""

    name: str
    obj: Obj

    @property
    def group(self) -> str:
        return str(self.obj["spec"].get("group", ""))

    @property
    def version(self) -> str:
        return str(self.obj["spec"].get("version", ""))

    @property
    def reference(self) -> Obj:
        """Namespace, name and port of its Service."""
        found: Obj = self.obj["spec"]["service"]
        return found

    @property
    def port(self) -> int:
        return int(self.reference.get("port") or 443)

    @property
    def is_available(self) -> bool:
        return condition_is(self.obj, "Available")

    @property
    def path(self) -> str:
        """Where its resources are."""
        return f"/apis/{self.group}/{self.version}" if self.group else f"/api/{self.version}"


class Heard(NamedTuple):
    """Of one APIService: its resources in the aggregated form, and its OpenAPI document's hash."""

    resources: list[Obj]
    document: str = ""
    is_fresh: bool = True


class Remotes:
    """See the module."""

    def __init__(self, mirror: Mirror, kinds: KindTable, host: Host) -> None:
        self._mirror = mirror
        self._kinds = kinds
        self._host = host
        self._cache = mirror.cache(API_SERVICES)
        self._heard: dict[str, Heard] = {}
        self._seen_at = (-1, -1)

    def find(self, group: str, version: str) -> Service | None:
        """Who answers for a group and version, if it is not this server."""
        entry = self._cache.get("", f"{version}.{group}")
        if entry is None or not (entry.parsed().get("spec") or {}).get("service"):
            return None
        return Service(entry.name, entry.parsed())

    def all(self) -> list[Service]:
        """All that lead to other servers, by name."""
        return [
            Service(entry.name, entry.parsed())
            for entry in self._cache.entries.values()
            if (entry.parsed().get("spec") or {}).get("service")
        ]

    def place(self, service: Service, *, insecure: bool = False) -> Place:
        """Where a server listens now. Raises BackendError."""
        spec, reference = service.obj["spec"], service.reference
        name, namespace = reference.get("name", ""), reference.get("namespace", "")
        try:
            ca = base64.b64decode(spec.get("caBundle") or "").decode()
        except (binascii.Error, UnicodeDecodeError) as error:
            raise BackendError(f"caBundle cannot be read: {error}") from None
        found = service_endpoint(self._mirror, namespace, name, service.port, self._host.rng)
        server_name = f"{name}.{namespace}.svc"
        host = f"{server_name}:{service.port}"
        return Place(
            found.address,
            server_name,
            host,
            service.path,
            f"https://{found.address}{service.path}",
            ca,
            found.pod,
            insecure or bool(spec.get("insecureSkipTLSVerify")),
            as_proxy=True,
        )

    # --- what they serve ------------------------------------------------------------------------

    def heard(self, name: str) -> Heard | None:
        """What was last heard of one."""
        return self._heard.get(name)

    def hear(self, name: str, heard: Heard) -> None:
        """Something was heard; answers made of older news are forgotten."""
        if self._heard.get(name) != heard:
            self._heard[name] = heard
            self._kinds.memo.clear()

    def served(self) -> list[Remote]:
        """For discovery."""
        found = []
        for service in self.all():
            if not service.group:
                continue
            spec, heard = service.obj["spec"], self._heard.get(service.name)
            found.append(
                Remote(
                    service.group,
                    service.version,
                    spec.get("groupPriorityMinimum", 0),
                    spec.get("versionPriority", 0),
                    [] if heard is None else heard.resources,
                    heard is not None and heard.is_fresh and service.is_available,
                )
            )
        return found

    def refresh(self) -> None:
        """Forget what was made of APIServices that have changed since."""
        at = (self._cache.floor, self._cache.changed_at)
        if at != self._seen_at:
            self._seen_at = at
            self._kinds.memo.clear()
            known = self._cache.entries
            self._heard = {name: heard for name, heard in self._heard.items() if name in known}
