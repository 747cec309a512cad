"""Who asks: client certificate, static token, service-account token, or nobody.

Owns: caches of certificates and tokens already examined; a token is examined again when its
service account, or the pod it is bound to, is gone.
"""

from __future__ import annotations

import base64
import binascii
from typing import Any

from cryptography import x509
from cryptography.x509.oid import NameOID

from k8slite.api.kinds import PODS, SECRETS, SERVICE_ACCOUNTS
from k8slite.api.status import unauthorized
from k8slite.apiserver.auth.jwt import InvalidToken, Verifier
from k8slite.apiserver.call import ANONYMOUS, User
from k8slite.apiserver.config import StaticToken
from k8slite.apiserver.http.message import Request
from k8slite.apiserver.mirror import Mirror

__all__ = ["Authenticator"]

CACHE_MAX = 4096
AUTHENTICATED = "system:authenticated"
_BOUND_KINDS = {"pod": PODS, "secret": SECRETS}


class Authenticator:
    """See the module."""

    def __init__(
        self,
        mirror: Mirror,
        *,
        tokens: tuple[StaticToken, ...],
        verifier: Verifier | None,
        issuer: str,
        anonymous: bool,
    ) -> None:
        self._mirror = mirror
        self._static = {t.token: User(t.user, t.uid, _with_authenticated(t.groups)) for t in tokens}
        self._verifier = verifier
        self._issuer = issuer
        self._anonymous = anonymous
        self._certificates: dict[bytes, User | None] = {}
        self._claims: dict[str, dict[str, Any]] = {}

    def authenticate(self, request: Request, now: float) -> User:
        """The user. Raises ApiError 401."""
        certificate = request.peer.certificate
        if certificate is not None:
            user = self._of_certificate(certificate)
            if user is not None:
                return user
        authorization = request.headers.get(b"authorization")
        if authorization is not None:
            scheme, _, token = authorization.decode("latin-1").partition(" ")
            if scheme.lower() == "bearer":
                found = self.of_token(token.strip(), now)
                if found is None:
                    raise unauthorized()
                return found
        token = _websocket_token(request)
        if token:
            found = self.of_token(token, now)
            if found is not None:
                return found
        if not self._anonymous:
            raise unauthorized()
        return ANONYMOUS

    def _of_certificate(self, der: bytes) -> User | None:
        if der in self._certificates:
            return self._certificates[der]
        subject = x509.load_der_x509_certificate(der).subject
        names = [str(a.value) for a in subject.get_attributes_for_oid(NameOID.COMMON_NAME)]
        groups = [str(a.value) for a in subject.get_attributes_for_oid(NameOID.ORGANIZATION_NAME)]
        user = User(names[0], "", _with_authenticated(tuple(groups))) if names else None
        if len(self._certificates) >= CACHE_MAX:
            self._certificates.clear()
        self._certificates[der] = user
        return user

    def key_set(self) -> dict[str, Any]:
        """The keys that service-account tokens are signed with."""
        return {"keys": []} if self._verifier is None else self._verifier.key_set()

    def of_token(self, token: str, now: float, audiences: tuple[str, ...] = ()) -> User | None:
        """The user of a bearer token; None for a token that is not good (any more)."""
        user = self._static.get(token)
        if user is not None:
            return user
        if self._verifier is None:
            return None
        claims = self._claims.get(token)
        if claims is None or now >= claims["exp"]:
            try:
                claims = self._verifier.claims(token, now)
            except InvalidToken:
                return None
            if len(self._claims) >= CACHE_MAX:
                self._claims.clear()
            self._claims[token] = claims
        audience = claims.get("aud") or []
        wanted = audiences or (self._issuer,)
        if claims.get("iss") != self._issuer or not any(a in audience for a in wanted):
            return None
        return self._of_claims(claims)

    def _of_claims(self, claims: dict[str, Any]) -> User | None:
        private = claims.get("kubernetes.io") or {}
        namespace = private.get("namespace", "")
        account = private.get("serviceaccount") or {}
        name = account.get("name", "")
        entry = self._mirror.cache(SERVICE_ACCOUNTS).get(namespace, name)
        if entry is None or entry.parsed()["metadata"].get("uid") != account.get("uid"):
            return None
        extra = {"authentication.kubernetes.io/credential-id": (f"JTI={claims.get('jti', '')}",)}
        for word, kind in _BOUND_KINDS.items():
            bound = private.get(word)
            if bound is None:
                continue
            owner = self._mirror.cache(kind).get(namespace, bound["name"])
            if owner is None or owner.parsed()["metadata"].get("uid") != bound["uid"]:
                return None
            extra[f"authentication.kubernetes.io/{word}-name"] = (bound["name"],)
            extra[f"authentication.kubernetes.io/{word}-uid"] = (bound["uid"],)
        node = private.get("node")
        if node is not None:
            extra["authentication.kubernetes.io/node-name"] = (node["name"],)
        groups = ("system:serviceaccounts", f"system:serviceaccounts:{namespace}")
        return User(
            f"system:serviceaccount:{namespace}:{name}",
            account.get("uid", ""),
            _with_authenticated(groups),
            extra,
        )


def _with_authenticated(groups: tuple[str, ...]) -> tuple[str, ...]:
    return groups if AUTHENTICATED in groups else (*groups, AUTHENTICATED)


def _websocket_token(request: Request) -> str:
    """A browser's WebSocket carries its token as a subprotocol."""
    prefix = "base64url.bearer.authorization.k8s.io."
    for protocol in request.header(b"sec-websocket-protocol").split(","):
        if protocol.strip().startswith(prefix):
            text = protocol.strip().removeprefix(prefix)
            try:
                return base64.urlsafe_b64decode(text + "=" * (-len(text) % 4)).decode()
            except (binascii.Error, UnicodeDecodeError):
                return ""
    return ""
