"""How a registry asks who we are: `WWW-Authenticate` headers (RFC 9110, 11.6.1). Pure."""

from __future__ import annotations

import re
from typing import Final, NamedTuple

__all__ = ["Challenge", "parse_challenges"]

TOKEN: Final = r"[!#$%&'*+.^_`|~0-9A-Za-z-]+"
PARAMETER: Final = re.compile(rf'\s*,?\s*({TOKEN})\s*=\s*(?:"((?:[^"\\]|\\.)*)"|({TOKEN}))')
SCHEME: Final = re.compile(rf"\s*,?\s*({TOKEN})(?=\s|$)(?!\s*=)")


class Challenge(NamedTuple):
    """`scheme` in lower case; names of parameters as well."""

    scheme: str
    parameters: dict[str, str]


def parse_challenges(header: str) -> list[Challenge]:
    """All challenges of a header; what is not understood ends it."""
    found: list[Challenge] = []
    at = 0
    while at < len(header):
        scheme = SCHEME.match(header, at)
        if scheme is None:
            break
        at = scheme.end()
        parameters: dict[str, str] = {}
        while parameter := PARAMETER.match(header, at):
            name, quoted, bare = parameter.groups()
            value = bare if quoted is None else re.sub(r"\\(.)", r"\1", quoted)
            parameters[name.lower()] = value
            at = parameter.end()
        found.append(Challenge(scheme.group(1).lower(), parameters))
    return found
