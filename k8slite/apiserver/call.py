"""One request on its way through the chain: what every filter and handler may use.

Owns: the shape of a call and of a user. A Call lives as long as its request.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import TYPE_CHECKING, NamedTuple

from k8slite.api.kinds import Kind
from k8slite.apiserver.http.message import Peer, Request
from k8slite.apiserver.requestinfo import RequestInfo

if TYPE_CHECKING:
    from k8slite.apiserver.core import Core

__all__ = ["ANONYMOUS", "SERVER", "Call", "User", "internal_call"]


class User(NamedTuple):
    """Who asks. `extra` is what authenticators add and reviews show."""

    name: str
    uid: str = ""
    groups: tuple[str, ...] = ()
    extra: Mapping[str, tuple[str, ...]] = {}


ANONYMOUS = User("system:anonymous", "", ("system:unauthenticated",))


class Call:
    """A request, who asks, what about, and the parts of the server that answer it."""

    __slots__ = ("annotations", "core", "info", "kind", "request", "user", "warnings")

    def __init__(
        self, core: Core, request: Request, info: RequestInfo, user: User, kind: Kind
    ) -> None:
        self.core = core
        self.request = request
        self.info = info
        self.user = user
        self.kind = kind
        self.warnings: list[str] = []
        self.annotations: dict[str, str] = {}
        """What admission has said to auditors (see `annotate`)."""

    @property
    def namespace(self) -> str:
        """The namespace of the object; empty for kinds that live in none."""
        return self.info.namespace if self.kind.namespaced else ""

    def param(self, name: str) -> str:
        """A query parameter, empty if absent."""
        return self.request.param(name)

    def warn(self, text: str) -> None:
        """Have the answer carry a Warning header."""
        if text not in self.warnings:
            self.warnings.append(text)

    def annotate(self, key: str, value: str) -> None:
        """Tell auditors, in the place of what was said under this key before."""
        self.annotations[key] = value
        if self.request.audit is not None:
            self.request.audit.annotate(key, value)

    def headers(self) -> tuple[tuple[bytes, bytes], ...]:
        """The answer's extra headers."""
        return tuple(
            (b"Warning", b'299 - "%b"' % text.replace("\\", "\\\\").replace('"', '\\"').encode())
            for text in self.warnings
        )


SERVER = User("system:apiserver", "", ("system:masters",))


def internal_call(core: Core, kind: Kind, verb: str, namespace: str, name: str) -> Call:
    """A call of the server's own, for what no client asked in so many words."""
    request = Request("GET", "", "", {}, b"", Peer(None, None))
    info = RequestInfo("", verb, kind.group, kind.version, namespace, kind.plural, name)
    return Call(core, request, info, SERVER, kind)
