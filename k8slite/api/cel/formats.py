"""Named formats of Kubernetes: what a text must look like. Pure."""

from __future__ import annotations

import base64
import binascii
import re
from collections.abc import Callable
from typing import Any
from urllib.parse import urlsplit

from k8slite.api import names
from k8slite.api.meta import parse_time

__all__ = ["FUNCTIONS"]

_Check = Callable[[str], list[str]]
_UUID = re.compile(
    r"[0-9a-f]{8}-?[0-9a-f]{4}-?[0-9a-f]{4}-?[0-9a-f]{4}-?[0-9a-f]{12}", re.IGNORECASE
)


def _prefix(check: _Check) -> _Check:
    """Of a name that something is appended to: it may end with a dash."""
    return lambda text: check(f"{text[:-1]}a" if text.endswith("-") else text)


def _uri(text: str) -> list[str]:
    try:
        parts = urlsplit(text)
    except ValueError as error:
        return [str(error)]
    good = text.startswith("/") or (parts.scheme and (parts.netloc or parts.path.startswith("/")))
    return [] if good else [f'parse "{text}": invalid URI for request']


def _base64(text: str) -> list[str]:
    try:
        base64.b64decode(text, validate=True)
    except (binascii.Error, ValueError):
        return ["invalid base64"]
    return []


def _date(text: str) -> list[str]:
    return _time(f"{text}T00:00:00Z", "invalid date")


def _date_time(text: str) -> list[str]:
    return _time(text, "invalid datetime")


def _time(text: str, complaint: str) -> list[str]:
    try:
        parse_time(text)
    except ValueError:
        return [complaint]
    return []


_FORMATS: dict[str, _Check] = {
    "dns1123Label": names.check_dns_label,
    "dns1123Subdomain": names.check_dns_subdomain,
    "dns1035Label": names.check_dns_1035_label,
    "qualifiedName": names.check_qualified_name,
    "dns1123LabelPrefix": _prefix(names.check_dns_label),
    "dns1123SubdomainPrefix": _prefix(names.check_dns_subdomain),
    "dns1035LabelPrefix": _prefix(names.check_dns_1035_label),
    "labelValue": names.check_label_value,
    "uri": _uri,
    "uuid": lambda text: [] if _UUID.fullmatch(text) else ["does not match the UUID format"],
    "byte": _base64,
    "date": _date,
    "datetime": _date_time,
}


def _named(name: str) -> str:
    """A format; of no name, for none."""
    return name if name in _FORMATS else ""


def _always(name: str) -> Callable[[], str]:
    return lambda: name


FUNCTIONS: tuple[tuple[str, str, str, Callable[..., Any]], ...] = (
    ("format.named", "s", "f", _named),
    (".validate", "Fs", "*", lambda name, text: list(_FORMATS[name](text))),
    *((f"format.{name}", "", "F", _always(name)) for name in _FORMATS),
)
