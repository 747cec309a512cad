"""Which of our protocols a client asks for in its upgrade request, and the answer's headers.

Pure. WebSocket by RFC 6455 (version 13; no extensions are taken), SPDY/3.1 by its Upgrade header
with the protocols in X-Stream-Protocol-Version, as Kubernetes does it. The client's order of
preference decides among what we speak.
"""

from __future__ import annotations

import base64
import binascii
from collections.abc import Mapping, Sequence
from typing import NamedTuple

from wsproto.utilities import generate_accept_token

__all__ = [
    "STREAM_PROTOCOL",
    "Upgrade",
    "UpgradeRefused",
    "choose_spdy",
    "choose_websocket",
    "is_spdy",
    "is_upgrade",
    "is_websocket",
]

STREAM_PROTOCOL = b"x-stream-protocol-version"
_Header = tuple[bytes, bytes]


class UpgradeRefused(Exception):
    """No protocol in common (403), or no proper upgrade request (400)."""

    def __init__(self, status: int, message: str) -> None:
        super().__init__(message)
        self.status = status
        self.message = message


class Upgrade(NamedTuple):
    """What was agreed: `protocol` is empty when the client named none."""

    protocol: str
    headers: tuple[_Header, ...]


def _tokens(headers: Mapping[bytes, bytes], name: bytes) -> list[str]:
    text = headers.get(name, b"").decode("latin-1")
    return [token.strip() for token in text.split(",") if token.strip()]


def is_upgrade(headers: Mapping[bytes, bytes]) -> bool:
    """Does this request want to leave HTTP? Header names are lower case."""
    wanted = [token.lower() for token in _tokens(headers, b"connection")]
    return "upgrade" in wanted and b"upgrade" in headers


def is_websocket(headers: Mapping[bytes, bytes]) -> bool:
    return is_upgrade(headers) and headers[b"upgrade"].lower() == b"websocket"


def is_spdy(headers: Mapping[bytes, bytes]) -> bool:
    return is_upgrade(headers) and headers[b"upgrade"].lower().startswith(b"spdy/3.1")


def choose_websocket(headers: Mapping[bytes, bytes], spoken: Sequence[str]) -> Upgrade:
    """Raises UpgradeRefused. `spoken` has "" where clients may name no protocol at all."""
    if headers.get(b"sec-websocket-version", b"").strip() != b"13":
        raise UpgradeRefused(400, "Bad Request: Sec-WebSocket-Version must be 13")
    key = headers.get(b"sec-websocket-key", b"").strip()
    try:
        valid = len(base64.b64decode(key, validate=True)) == 16
    except (binascii.Error, ValueError):
        valid = False
    if not valid:
        raise UpgradeRefused(400, "Bad Request: Sec-WebSocket-Key is missing or malformed")
    asked = _tokens(headers, b"sec-websocket-protocol")
    protocol = next((p for p in (asked or [""]) if p in spoken), None)
    if protocol is None:
        raise UpgradeRefused(
            403, f"requested protocol(s) are not supported: {_go(asked)}; supports {_go(spoken)}"
        )
    answer: list[_Header] = [
        (b"Upgrade", b"websocket"),
        (b"Connection", b"Upgrade"),
        (b"Sec-WebSocket-Accept", generate_accept_token(key)),
    ]
    if protocol:
        answer.append((b"Sec-WebSocket-Protocol", protocol.encode("latin-1")))
    return Upgrade(protocol, tuple(answer))


def choose_spdy(headers: Mapping[bytes, bytes], spoken: Sequence[str]) -> Upgrade:
    """Raises UpgradeRefused. A client that names no protocol gets the oldest, the last spoken."""
    asked = _tokens(headers, STREAM_PROTOCOL)
    protocol = next((p for p in asked if p in spoken), None)
    if protocol is None and asked:
        raise UpgradeRefused(
            403,
            f"unable to upgrade: unable to negotiate protocol: client supports {_go(asked)}, "
            f"server accepts {_go(spoken)}",
        )
    answer: list[_Header] = [(b"Connection", b"Upgrade"), (b"Upgrade", b"SPDY/3.1")]
    if protocol is None:
        return Upgrade(spoken[-1], tuple(answer))
    answer.append((b"X-Stream-Protocol-Version", protocol.encode("latin-1")))
    return Upgrade(protocol, tuple(answer))


def _go(names: Sequence[str]) -> str:
    return f"[{' '.join(names)}]"
