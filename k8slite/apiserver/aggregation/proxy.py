"""Requests for what another server serves: passed on in the name of who asks.

The other server knows us by our certificate, and believes what our headers say of the user
(`X-Remote-User`...). Errors are plain texts, as kube-apiserver's aggregator words them.
"""

from __future__ import annotations

from urllib.parse import quote

import trio

from k8slite.api.status import ApiError
from k8slite.apiserver.aggregation.remotes import Service
from k8slite.apiserver.backends import BackendError
from k8slite.apiserver.call import User
from k8slite.apiserver.core import Core
from k8slite.apiserver.http.message import Request, Response
from k8slite.apiserver.streaming.backend import Backend, Header
from k8slite.apiserver.streaming.passing import HOP_BY_HOP, Answer, pass_on, upgrade_headers
from k8slite.streaming.upgrade import is_upgrade

__all__ = ["AGGREGATOR", "pass_to_server", "user_headers"]

AGGREGATOR = User("system:kube-aggregator", "", ("system:masters",))
"""As whom this server asks for itself."""
_TEXT = b"text/plain; charset=utf-8"
_SAFE = "/:@!$&'()*+,;=~"
_KEPT_BACK = HOP_BY_HOP | {b"authorization", b"host", b"content-length", b"expect"}
_KEPT_BACK_PREFIXES = (b"impersonate-", b"x-remote-", b"sec-websocket-")


async def pass_to_server(core: Core, request: Request, user: User, service: Service) -> Answer:
    """The answer of the server behind an APIService; also a stream, or another protocol."""
    if not service.is_available:
        return _unavailable("service unavailable")
    try:
        place = core.remotes.place(service)
    except BackendError:
        return _unavailable("service unavailable")
    try:
        stream = await core.backends.open_stream(place)
    except BackendError as error:
        return _unavailable(f"error trying to reach service: {error}")
    target = quote(request.path, safe=_SAFE)
    if request.query_string:
        target += f"?{request.query_string}"
    backend = Backend(stream, place.address)
    headers = [(b"Host", place.host.encode()), *_passed(request), *user_headers(user)]
    try:
        return await pass_on(backend, request.method, target, headers, request.body)
    except ApiError as error:
        return _unavailable(error.message)
    except trio.Cancelled:
        await trio.aclose_forcefully(stream)
        raise


def _unavailable(text: str) -> Response:
    return Response(503, f"{text}\n".encode(), _TEXT)


def _passed(request: Request) -> list[Header]:
    """The client's headers, without what is between it and this server."""
    given = request.headers
    headers = [
        (name, value)
        for name, value in given.items()
        if name not in _KEPT_BACK and not name.startswith(_KEPT_BACK_PREFIXES)
        if name != b"x-stream-protocol-version"
    ]
    if is_upgrade(given):
        headers += upgrade_headers(given)
    if request.body or request.method in ("POST", "PUT", "PATCH"):
        headers.append((b"Content-Length", b"%d" % len(request.body)))
    if request.peer.address is not None:
        headers.append((b"X-Forwarded-For", request.peer.address.host.encode()))
    return headers


def user_headers(user: User) -> list[Header]:
    """Who asks, for a server that trusts us."""
    headers = [(b"X-Remote-User", _value(user.name))]
    if user.uid:
        headers.append((b"X-Remote-Uid", _value(user.uid)))
    headers += [(b"X-Remote-Group", _value(group)) for group in user.groups]
    for key, values in user.extra.items():
        name = b"X-Remote-Extra-" + quote(key.lower(), safe="!#$&'*+-.^_`|~").encode()
        headers += [(name, _value(value)) for value in values]
    return headers


def _value(text: str) -> bytes:
    """A header's value; what could end it is left out."""
    return "".join(c for c in text if c.isprintable()).encode()
