"""Who asks: a trusted proxy's word, a client certificate, a token, or nobody.

Tokens are tried in kube-apiserver's order: the token file, service accounts, bootstrap tokens,
OpenID Connect, a webhook. Owns a cache of certificates already examined.
"""

from __future__ import annotations

import base64
import binascii
from typing import Any

from attrs import frozen
from cryptography import x509
from cryptography.x509.oid import NameOID

from k8slite.api.status import unauthorized
from k8slite.apiserver.auth.accounts import ServiceAccountTokens
from k8slite.apiserver.auth.bootstrap_tokens import user_of_bootstrap_token
from k8slite.apiserver.auth.configuration import Anonymous
from k8slite.apiserver.auth.front_proxy import FrontProxy
from k8slite.apiserver.auth.oidc import OpenIdConnect
from k8slite.apiserver.auth.webhooks import TokenWebhook
from k8slite.apiserver.call import ANONYMOUS, User
from k8slite.apiserver.config import StaticToken
from k8slite.apiserver.http.message import Request
from k8slite.apiserver.mirror import Mirror

__all__ = ["Authenticator", "Ways"]

CACHE_MAX = 4096
ANYBODY = Anonymous()
AUTHENTICATED = "system:authenticated"


@frozen
class Ways:
    """The ways in, each of them if it is there."""

    tokens: tuple[StaticToken, ...] = ()
    accounts: ServiceAccountTokens | None = None
    oidc: OpenIdConnect | None = None
    webhook: TokenWebhook | None = None
    proxy: FrontProxy | None = None
    anonymous: Anonymous = ANYBODY


class Authenticator:
    """See the module."""

    def __init__(self, mirror: Mirror, ways: Ways) -> None:
        self._mirror = mirror
        self._ways = ways
        self._static = {t.token: User(t.user, t.uid, t.groups) for t in ways.tokens}
        self._certificates: dict[bytes, User | None] = {}

    async def authenticate(self, request: Request, now: float) -> User:
        """The user. Raises ApiError 401."""
        user = self._of_certificate(request)
        if user is not None:
            return _known(user)
        authorization = request.headers.get(b"authorization")
        if authorization is not None:
            scheme, _, token = authorization.decode("latin-1").partition(" ")
            if scheme.lower() == "bearer":
                found = await self.of_token(token.strip(), now)
                if found is None:
                    raise unauthorized()
                return found
        token = _websocket_token(request)
        if token:
            found = await self.of_token(token, now)
            if found is not None:
                return found
        if not self._ways.anonymous.allows(request.path):
            raise unauthorized()
        return ANONYMOUS

    def _of_certificate(self, request: Request) -> User | None:
        der, proxy = request.peer.certificate, self._ways.proxy
        if der is None:
            return None
        if proxy is not None and proxy.issued(der):
            return proxy.user_of(request)
        if der in self._certificates:
            return self._certificates[der]
        subject = x509.load_der_x509_certificate(der).subject
        names = [str(a.value) for a in subject.get_attributes_for_oid(NameOID.COMMON_NAME)]
        groups = [str(a.value) for a in subject.get_attributes_for_oid(NameOID.ORGANIZATION_NAME)]
        user = User(names[0], "", tuple(groups)) if names else None
        if len(self._certificates) >= CACHE_MAX:
            self._certificates.clear()
        self._certificates[der] = user
        return user

    def key_set(self) -> dict[str, Any]:
        """The keys that service-account tokens are signed with."""
        accounts = self._ways.accounts
        return {"keys": []} if accounts is None else accounts.key_set()

    async def of_token(
        self, token: str, now: float, audiences: tuple[str, ...] = ()
    ) -> User | None:
        """The user of a bearer token; None for a token that is not good (any more)."""
        ways = self._ways
        user = self._static.get(token)
        if user is None and ways.accounts is not None:
            user = ways.accounts.user_of(token, now, audiences)
        if user is None:
            user = user_of_bootstrap_token(self._mirror, token, now)
        if user is None and ways.oidc is not None:
            user = await ways.oidc.user_of(token, now)
        if user is None and ways.webhook is not None:
            user = await ways.webhook.user_of(token, audiences)
        return None if user is None else _known(user)


def _known(user: User) -> User:
    """One of those who have shown who they are."""
    if AUTHENTICATED in user.groups or "system:unauthenticated" in user.groups:
        return user
    return user._replace(groups=(*user.groups, AUTHENTICATED))


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
