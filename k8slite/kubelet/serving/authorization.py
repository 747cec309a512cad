"""Who may use the kubelet's server: certificates and tokens, and what the apiserver says of them.

Owns: the answers remembered for a while (Kubernetes' times), at most REMEMBERED_MAX of them; when
there are more all are forgotten. What is asked is what `kubectl auth can-i` shows: a verb on
nodes/proxy, or on nodes/metrics, nodes/stats, nodes/log for their paths.
"""

from __future__ import annotations

import hashlib
import logging

import trio
from attrs import define, field

from k8slite.api.kinds import KIND, Kind
from k8slite.api.meta import Obj
from k8slite.client.api import Api
from k8slite.client.errors import REQUEST_ERRORS
from k8slite.kubelet.serving.http_server import Identity, Request

__all__ = ["Gate", "Refusal"]

log = logging.getLogger(__name__)

ACCESS = KIND["subjectaccessreviews.authorization.k8s.io"]
TOKENS = KIND["tokenreviews.authentication.k8s.io"]
ALLOWED_SECONDS, DENIED_SECONDS, TOKEN_SECONDS = 300.0, 30.0, 120.0
REMEMBERED_MAX = 1024
_VERBS = {"GET": "get", "POST": "create", "PUT": "update", "PATCH": "patch", "DELETE": "delete"}
_SUBRESOURCES = {"stats": "stats", "metrics": "metrics", "logs": "log"}


class Refusal(Exception):
    """401, 403 or 500 with words."""

    def __init__(self, status: int, message: str) -> None:
        super().__init__(message)
        self.status = status
        self.message = message


@define
class Gate:
    """Lets requests in. `always` are users and groups that need not be asked about."""

    api: Api
    node_name: str
    always: frozenset[str]
    _decisions: dict[tuple[str, ...], tuple[bool, float]] = field(factory=dict)
    _tokens: dict[bytes, tuple[Identity | None, float]] = field(factory=dict)

    async def require(self, request: Request) -> None:
        """Raises Refusal."""
        who = request.identity or await self._of_token(request)
        if who is None:
            raise Refusal(401, "Unauthorized")
        if self.always & {who.user, *who.groups}:
            return
        verb = _VERBS.get(request.method, "")
        first = request.path.strip("/").split("/")[0]
        subresource = _SUBRESOURCES.get(first, "proxy")
        about = f"(user={who.user}, verb={verb}, resource=nodes, subresource={subresource})"
        try:
            allowed = await self._may(who, verb, subresource)
        except REQUEST_ERRORS as error:
            log.warning("cannot ask whether access is allowed %s: %s", about, error)
            raise Refusal(500, f"Authorization error {about}") from None
        if not allowed:
            raise Refusal(403, f"Forbidden {about}")

    async def _may(self, who: Identity, verb: str, subresource: str) -> bool:
        key = (verb, subresource, who.user, *who.groups)
        known = self._decisions.get(key)
        if known is not None and known[1] > trio.current_time():
            return known[0]
        spec = {
            "user": who.user,
            "groups": [*who.groups, "system:authenticated"],
            "resourceAttributes": {
                "verb": verb,
                "version": "v1",
                "resource": "nodes",
                "subresource": subresource,
                "name": self.node_name,
            },
        }
        answer = await self.api.create(ACCESS, _review(ACCESS, spec))
        allowed = bool((answer.get("status") or {}).get("allowed"))
        if len(self._decisions) >= REMEMBERED_MAX:
            self._decisions.clear()
        seconds = ALLOWED_SECONDS if allowed else DENIED_SECONDS
        self._decisions[key] = allowed, trio.current_time() + seconds
        return allowed

    async def _of_token(self, request: Request) -> Identity | None:
        header = request.headers.get(b"authorization", b"").decode("latin-1")
        scheme, _, token = header.partition(" ")
        if scheme.lower() != "bearer" or not token:
            return None
        key = hashlib.sha256(token.encode()).digest()
        known = self._tokens.get(key)
        if known is not None and known[1] > trio.current_time():
            return known[0]
        try:
            review = _review(TOKENS, {"token": token.strip()})
            status = (await self.api.create(TOKENS, review)).get("status") or {}
        except REQUEST_ERRORS as error:
            log.warning("cannot ask whose token it is: %s", error)
            return None
        who: Identity | None = None
        if status.get("authenticated"):
            user = status.get("user") or {}
            who = Identity(user.get("username", ""), tuple(user.get("groups") or ()))
        if len(self._tokens) >= REMEMBERED_MAX:
            self._tokens.clear()
        self._tokens[key] = who, trio.current_time() + TOKEN_SECONDS
        return who


def _review(kind: Kind, spec: Obj) -> Obj:
    return {"apiVersion": kind.api_version, "kind": kind.kind, "metadata": {}, "spec": spec}
