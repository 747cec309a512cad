"""Tokens of service accounts: those that are asked for, and those that Secrets hold for good.

Owns the claims of tokens already verified; whether the account, and what a token is bound to, are
still there is looked at each time.
"""

from __future__ import annotations

import base64
import binascii
from typing import Any

from k8slite.api.kinds import NODES, PODS, SECRETS, SERVICE_ACCOUNTS, Kind
from k8slite.api.meta import Obj
from k8slite.apiserver.auth.jwt import LEGACY_ISSUER, InvalidToken, Verifier
from k8slite.apiserver.call import User
from k8slite.apiserver.mirror import Mirror

__all__ = ["ServiceAccountTokens"]

CACHE_MAX = 4096
_BOUND_KINDS = {"pod": PODS, "secret": SECRETS}
_LEGACY = "kubernetes.io/serviceaccount/"


class ServiceAccountTokens:
    """See the module."""

    def __init__(self, mirror: Mirror, verifier: Verifier, issuer: str) -> None:
        self._mirror = mirror
        self._verifier = verifier
        self._issuer = issuer
        self._claims: dict[str, dict[str, Any]] = {}

    def key_set(self) -> dict[str, Any]:
        """The keys that tokens are signed with."""
        return self._verifier.key_set()

    def user_of(self, token: str, now: float, audiences: tuple[str, ...]) -> User | None:
        """None for a token that is not good (any more)."""
        claims = self._claims.get(token)
        if claims is None or now >= claims.get("exp", now + 1):
            try:
                claims = self._verifier.claims(token, now)
            except InvalidToken:
                return None
            if len(self._claims) >= CACHE_MAX:
                self._claims.clear()
            self._claims[token] = claims
        if claims.get("iss") == LEGACY_ISSUER:
            return self._of_secret(claims, token, audiences)
        audience = claims.get("aud") or []
        wanted = audiences or (self._issuer,)
        if claims.get("iss") != self._issuer or not any(a in audience for a in wanted):
            return None
        return self._of_claims(claims)

    def _of_claims(self, claims: dict[str, Any]) -> User | None:
        private = claims.get("kubernetes.io") or {}
        namespace = private.get("namespace", "")
        account = private.get("serviceaccount") or {}
        name, uid = account.get("name", ""), account.get("uid", "")
        if self._find(SERVICE_ACCOUNTS, namespace, name, uid) is None:
            return None
        extra: dict[str, tuple[str, ...]] = {
            "authentication.kubernetes.io/credential-id": (f"JTI={claims.get('jti', '')}",),
        }
        for word, kind in _BOUND_KINDS.items():
            bound = private.get(word)
            if bound is None:
                continue
            if self._find(kind, namespace, bound["name"], bound["uid"]) is None:
                return None
            extra[f"authentication.kubernetes.io/{word}-name"] = (bound["name"],)
            extra[f"authentication.kubernetes.io/{word}-uid"] = (bound["uid"],)
        node = private.get("node")
        if node is not None:
            if not {"pod", "secret"} & private.keys() and (
                self._find(NODES, "", node["name"], node.get("uid", "")) is None
            ):
                return None
            extra["authentication.kubernetes.io/node-name"] = (node["name"],)
            if node.get("uid"):
                extra["authentication.kubernetes.io/node-uid"] = (node["uid"],)
        return _user(namespace, name, uid, extra)

    def _of_secret(
        self, claims: dict[str, Any], token: str, audiences: tuple[str, ...]
    ) -> User | None:
        """It is good as long as its Secret holds it."""
        namespace = str(claims.get(f"{_LEGACY}namespace", ""))
        name = str(claims.get(f"{_LEGACY}service-account.name", ""))
        uid = str(claims.get(f"{_LEGACY}service-account.uid", ""))
        if audiences and self._issuer not in audiences:
            return None
        if self._find(SERVICE_ACCOUNTS, namespace, name, uid) is None:
            return None
        secret = self._mirror.cache(SECRETS).get(
            namespace, str(claims.get(f"{_LEGACY}secret.name", ""))
        )
        if secret is None or secret.parsed()["metadata"].get("deletionTimestamp"):
            return None
        try:
            held = base64.b64decode((secret.parsed().get("data") or {}).get("token") or "")
        except binascii.Error:
            return None
        return _user(namespace, name, uid, {}) if held == token.encode() else None

    def _find(self, kind: Kind, namespace: str, name: str, uid: str) -> Obj | None:
        """The object of that name, if it is still the same one."""
        entry = self._mirror.cache(kind).get(namespace, name)
        if entry is None or entry.parsed()["metadata"].get("uid") != uid:
            return None
        return entry.parsed()


def _user(namespace: str, name: str, uid: str, extra: dict[str, tuple[str, ...]]) -> User:
    groups = ("system:serviceaccounts", f"system:serviceaccounts:{namespace}")
    return User(f"system:serviceaccount:{namespace}:{name}", uid, groups, extra)
