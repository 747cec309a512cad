"""Servers that are asked about users and rights: by URL, or as a kubeconfig file says."""

from __future__ import annotations

import base64
import binascii
from pathlib import Path
from typing import Any
from urllib.parse import urlsplit

from k8slite.api import yaml_codec
from k8slite.apiserver.backends import BackendError, Backends, Place
from raftkv.host import Address

__all__ = ["Remote", "RemoteError", "from_kubeconfig"]


class RemoteError(Exception):
    """It gave no usable answer; the text says why."""


class Remote:
    """One of them. Its certificate must be of `ca` (PEM), or of the machine's own authorities.

    Raises ValueError for a URL that is none; `identity` in `backends` is our certificate.
    """

    def __init__(
        self,
        backends: Backends,
        url: str,
        ca: str = "",
        token: str = "",
        *,
        identified: bool = False,
    ) -> None:
        parts = urlsplit(url)
        if parts.scheme != "https" or not parts.hostname:
            raise ValueError(f"must be an https URL: {url!r}")
        path = (parts.path or "/") + (f"?{parts.query}" if parts.query else "")
        address = Address(parts.hostname, parts.port or 443)
        self._backends = backends
        self._place = Place(
            address, parts.hostname, parts.netloc, path, url, ca, as_proxy=identified
        )
        self._headers = [("Accept", "application/json"), ("User-Agent", "kube-apiserver")]
        if token:
            self._headers.append(("Authorization", f"Bearer {token}"))

    async def send(self, method: str, body: bytes | None) -> bytes:
        """The body of an answer of success. Raises RemoteError; the caller bounds the time."""
        headers = [*self._headers, ("Content-Type", "application/json")] if body else self._headers
        try:
            answer = await self._backends.send(self._place, method, self._place.path, headers, body)
        except BackendError as error:
            raise RemoteError(f"{self._place.url}: {error}") from None
        if not 200 <= answer.status < 300:
            raise RemoteError(f"{self._place.url}: HTTP {answer.status}")
        return answer.body


def from_kubeconfig(backends: Backends, path: str) -> Remote:
    """The server of a kubeconfig's current context, and our identity there.

    Raises OSError, and ValueError that names file and field.
    """
    file = Path(path)
    document = yaml_codec.load(file.read_text())
    if not isinstance(document, dict):
        raise ValueError(f"{path}: not a kubeconfig")
    context = _named(document, "contexts", document.get("current-context"), "context", path)
    cluster = _named(document, "clusters", context.get("cluster"), "cluster", path)
    user = {}
    if context.get("user"):
        user = _named(document, "users", context["user"], "user", path)
    ca = _pem(cluster, "certificate-authority", file)
    token = user.get("token", "")
    if user.get("tokenFile"):
        token = (file.parent / user["tokenFile"]).read_text().strip()
    certificate, key = user.get("client-certificate"), user.get("client-key")
    if user.get("client-certificate-data"):
        raise ValueError(f"{path}: give client-certificate as a file")
    if certificate and key:
        pair = (str(file.parent / certificate), str(file.parent / key))
        backends = backends.identified_by(pair)
    try:
        return Remote(
            backends, cluster.get("server", ""), ca, token, identified=bool(certificate and key)
        )
    except ValueError as error:
        raise ValueError(f"{path}: clusters: server: {error}") from None


def _named(document: Any, section: str, name: Any, part: str, path: str) -> dict[str, Any]:
    for each in document.get(section) or ():
        if isinstance(each, dict) and each.get("name") == name and isinstance(each.get(part), dict):
            found: dict[str, Any] = each[part]
            return found
    raise ValueError(f"{path}: {section}: there is no {name!r}")


def _pem(cluster: dict[str, Any], key: str, file: Path) -> str:
    if cluster.get(f"{key}-data"):
        try:
            return base64.b64decode(cluster[f"{key}-data"], validate=True).decode()
        except (binascii.Error, UnicodeDecodeError):
            raise ValueError(f"{file}: clusters: {key}-data: not base64 of PEM") from None
    return (file.parent / cluster[key]).read_text() if cluster.get(key) else ""
