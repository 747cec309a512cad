"""A trusted proxy in front of this server tells who asks, in headers (`X-Remote-User` and others).

It shows a certificate of an authority that signs for nothing else; a certificate of that authority
names no user by itself. Pure but for a cache.
"""

from __future__ import annotations

from urllib.parse import unquote

from cryptography import x509
from cryptography.exceptions import InvalidSignature
from cryptography.x509.oid import NameOID

from k8slite.apiserver.call import User
from k8slite.apiserver.http.message import Request

__all__ = ["FrontProxy"]

CACHE_MAX = 256
_EXTRA = b"x-remote-extra-"


class FrontProxy:
    """Whoever has a certificate of `authority` (PEM), with one of the names if any are given."""

    def __init__(self, authority: bytes, allowed_names: tuple[str, ...]) -> None:
        self._authority = x509.load_pem_x509_certificate(authority)
        self._allowed = allowed_names
        self._names: dict[bytes, str | None] = {}

    def issued(self, der: bytes) -> bool:
        """Is it a certificate of that authority?"""
        return self._name(der) is not None

    def user_of(self, request: Request) -> User | None:
        """Whom the proxy speaks for; None if it speaks for nobody, or may not."""
        certificate = request.peer.certificate
        name = None if certificate is None else self._name(certificate)
        user = request.header(b"x-remote-user")
        if name is None or not user or (self._allowed and name not in self._allowed):
            return None
        extra = {
            unquote(key[len(_EXTRA) :].decode("latin-1")): _values(value)
            for key, value in request.headers.items()
            if key.startswith(_EXTRA)
        }
        groups = _values(request.headers.get(b"x-remote-group", b""))
        return User(user, request.header(b"x-remote-uid"), groups, extra)

    def _name(self, der: bytes) -> str | None:
        """The common name of a certificate of that authority."""
        if der not in self._names:
            if len(self._names) >= CACHE_MAX:
                self._names.clear()
            self._names[der] = self._look(der)
        return self._names[der]

    def _look(self, der: bytes) -> str | None:
        certificate = x509.load_der_x509_certificate(der)
        try:
            certificate.verify_directly_issued_by(self._authority)
        except (ValueError, TypeError, InvalidSignature):
            return None
        names = certificate.subject.get_attributes_for_oid(NameOID.COMMON_NAME)
        return str(names[0].value) if names else ""


def _values(header: bytes) -> tuple[str, ...]:
    parts = header.decode("latin-1").split(",")
    return tuple(part.strip() for part in parts if part.strip())
