"""Who we are to a registry: docker's configuration files and pull secrets. Pure.

The rules of matching are those of Kubernetes' credential provider: a key is a host with or without
port and path, possibly as a URL, and each part of its host may be a pattern (`*.example.com`); the
most specific key comes first, and all that match are tried in turn.
"""

from __future__ import annotations

import base64
import binascii
import fnmatch
from collections.abc import Iterable, Mapping
from typing import Any, Final

import attrs
import orjson

__all__ = ["BadCredentials", "Credential", "Keyring", "read_config", "read_secret"]

CONFIG_KIND: Final = "kubernetes.io/dockerconfigjson"
OLD_KIND: Final = "kubernetes.io/dockercfg"
HUB: Final = "index.docker.io"
HUB_NAMES: Final = ("docker.io", "registry-1.docker.io", "registry.hub.docker.com")


class BadCredentials(ValueError):
    """A configuration or secret that cannot be read; the text says what is odd."""


@attrs.frozen
class Credential:
    """`identity_token` is exchanged for tokens at the realm, `registry_token` is sent as it is."""

    username: str = ""
    password: str = attrs.field(default="", repr=False)
    identity_token: str = attrs.field(default="", repr=False)
    registry_token: str = attrs.field(default="", repr=False)


@attrs.define
class Keyring:
    """Credentials by what they are for."""

    _entries: list[tuple[str, Credential]] = attrs.field(factory=list)

    def add(self, entries: Mapping[str, Credential]) -> None:
        for key, credential in entries.items():
            self._entries.append((_normal(key), credential))
        self._entries.sort(key=lambda entry: entry[0], reverse=True)

    def lookup(self, repository: str) -> list[Credential]:
        """For an image's `DOMAIN/PATH`, the most specific first, each once."""
        return list(
            dict.fromkeys(
                credential for key, credential in self._entries if _covers(key, repository)
            )
        )


def _normal(key: str) -> str:
    """`https://HOST/v1/` is HOST; docker's hub has one name."""
    bare = key.removeprefix("https://").removeprefix("http://")
    host, slash, path = bare.partition("/")
    if path in ("v1", "v2", "v1/", "v2/") or path.startswith(("v1/", "v2/")):
        slash, path = "", path[3:]
        slash = "/" if path else ""
    if host in HUB_NAMES:
        host = HUB
    return f"{host}{slash}{path}".rstrip("/")


def _covers(key: str, repository: str) -> bool:
    pattern, _, prefix = key.partition("/")
    domain, _, path = repository.partition("/")
    if domain in HUB_NAMES:
        domain = HUB
    if prefix and path != prefix and not path.startswith(prefix):
        return False
    pattern_host, _, pattern_port = pattern.partition(":")
    host, _, port = domain.partition(":")
    globs, labels = pattern_host.split("."), host.split(".")
    return (
        pattern_port == port
        and len(globs) == len(labels)
        and all(map(fnmatch.fnmatchcase, labels, globs))
    )


def read_secret(secret: Mapping[str, Any]) -> dict[str, Credential]:
    """What a pull secret holds; of another type: nothing. Raises BadCredentials."""
    keys = {CONFIG_KIND: ".dockerconfigjson", OLD_KIND: ".dockercfg"}
    kind = secret.get("type", "")
    data = (secret.get("data") or {}).get(keys.get(kind, ""))
    if data is None:
        return {}
    try:
        raw = base64.b64decode(data, validate=True)
    except (binascii.Error, ValueError):
        raise BadCredentials(f"{keys[kind]} is not base64") from None
    return _read_auths(_parse(raw)) if kind == OLD_KIND else read_config(raw)


def read_config(raw: bytes) -> dict[str, Credential]:
    """docker's `config.json`: its `auths`; helpers are not called. Raises BadCredentials."""
    auths = _parse(raw).get("auths", {})
    if not isinstance(auths, dict):
        raise BadCredentials("auths must be an object")
    return _read_auths(auths)


def _parse(raw: bytes) -> dict[str, Any]:
    try:
        document = orjson.loads(raw)
    except orjson.JSONDecodeError as error:
        raise BadCredentials(f"not JSON: {error}") from None
    if not isinstance(document, dict):
        raise BadCredentials("must be an object")
    return document


def _read_auths(auths: dict[str, Any]) -> dict[str, Credential]:
    return dict(_entries(auths))


def _entries(auths: dict[str, Any]) -> Iterable[tuple[str, Credential]]:
    for key, entry in auths.items():
        if not isinstance(entry, dict):
            raise BadCredentials(f"auths of {key} must be an object")
        texts = {name: entry.get(name) or "" for name in ("username", "password", "auth")}
        texts |= {name: entry.get(name) or "" for name in ("identitytoken", "registrytoken")}
        if not all(isinstance(text, str) for text in texts.values()):
            raise BadCredentials(f"auths of {key} must be strings")
        username, password = texts["username"], texts["password"]
        if texts["auth"]:
            try:
                pair = base64.b64decode(texts["auth"]).decode()
            except ValueError:
                raise BadCredentials(f"auth of {key} is not base64") from None
            username, colon, password = pair.partition(":")
            if not colon:
                raise BadCredentials(f"auth of {key} must be USER:PASSWORD in base64")
        found = Credential(username, password, texts["identitytoken"], texts["registrytoken"])
        if found != Credential():
            yield key, found
