"""Image names: what people write, and the one full form the store keeps. Pure.

`busybox`, `library/busybox` and `docker.io/library/busybox:latest` are the same image. The rules
are those of the distribution project's reference grammar.
"""

from __future__ import annotations

import re

import attrs

DEFAULT_DOMAIN = "docker.io"
COMPONENT = r"[a-z0-9]+(?:(?:[._]|__|-+)[a-z0-9]+)*"
PATH = re.compile(rf"{COMPONENT}(?:/{COMPONENT})*")
DOMAIN = re.compile(r"(?:[A-Za-z0-9](?:[A-Za-z0-9.-]*[A-Za-z0-9])?|\[[0-9a-fA-F:]+\])(?::[0-9]+)?")
TAG = re.compile(r"[A-Za-z0-9_][A-Za-z0-9_.-]{0,127}")
DIGEST = re.compile(r"sha256:[0-9a-f]{64}|sha512:[0-9a-f]{128}")


class InvalidReference(ValueError):
    """Not an image name; the text is Kubernetes'."""


@attrs.frozen
class Reference:
    """`repository` is the full `DOMAIN/PATH`; `digest` is empty or `sha256:HEX`."""

    repository: str
    tag: str
    digest: str

    def __str__(self) -> str:
        return (
            f"{self.repository}@{self.digest}" if self.digest else f"{self.repository}:{self.tag}"
        )


def parse_reference(text: str) -> Reference:
    """Raises InvalidReference."""
    problem = f'Failed to apply default image tag "{text}": couldn\'t parse image name "{text}"'
    name, _, digest = text.partition("@")
    if digest and not DIGEST.fullmatch(digest):
        raise InvalidReference(f"{problem}: invalid reference format")
    first, slash, rest = name.partition("/")
    if slash and ("." in first or ":" in first or first == "localhost" or first.startswith("[")):
        domain, path = first, rest
    else:
        domain, path = DEFAULT_DOMAIN, name
    path, colon, tag = path.partition(":")
    if domain in (DEFAULT_DOMAIN, "index.docker.io"):
        domain = DEFAULT_DOMAIN
        path = path if "/" in path else f"library/{path}"
    if path != path.lower():
        raise InvalidReference(
            f"{problem}: invalid reference format: repository name ({path}) must be lowercase"
        )
    if (
        not PATH.fullmatch(path)
        or not DOMAIN.fullmatch(domain)
        or (colon and not TAG.fullmatch(tag))
    ):
        raise InvalidReference(f"{problem}: invalid reference format")
    return Reference(f"{domain}/{path}", tag or "latest", digest)
