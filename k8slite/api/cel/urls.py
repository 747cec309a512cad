"""URLs, as Go's url.ParseRequestURI sees them. Pure."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any
from urllib.parse import SplitResult, parse_qs, quote, urlsplit

__all__ = ["FUNCTIONS"]


def _parse(text: str) -> SplitResult:
    try:
        parts = urlsplit(text)
        _ = parts.port
    except ValueError as error:
        raise ValueError(f"URL parse error during conversion from string: {error}") from None
    absolute = parts.scheme and (parts.netloc or parts.path.startswith("/"))
    if any(c <= " " for c in text) or not (absolute or text.startswith("/")):
        reason = f'parse "{text}": invalid URI for request'
        raise ValueError(f"URL parse error during conversion from string: {reason}")
    return parts


def _url(text: str) -> str:
    _parse(text)
    return text


def _is_url(text: str) -> bool:
    try:
        _parse(text)
    except ValueError:
        return False
    return True


def _host_and_port(text: str) -> str:
    return _parse(text).netloc.rpartition("@")[2]


def _host_name(text: str) -> str:
    host = _host_and_port(text)
    if host.startswith("["):
        return host[1:].partition("]")[0]
    return host.partition(":")[0]


def _port(text: str) -> str:
    port = _parse(text).port
    return "" if port is None else str(port)


FUNCTIONS: tuple[tuple[str, str, str, Callable[..., Any]], ...] = (
    ("url", "s", "U", _url),
    ("isURL", "s", "b", _is_url),
    (".getScheme", "U", "s", lambda text: _parse(text).scheme),
    (".getHost", "U", "s", _host_and_port),
    (".getHostname", "U", "s", _host_name),
    (".getPort", "U", "s", _port),
    (".getEscapedPath", "U", "s", lambda t: quote(_parse(t).path, safe="/%:@!$&'()*+,;=~-._")),
    (".getQuery", "U", "M", lambda t: parse_qs(_parse(t).query, keep_blank_values=True)),
)
