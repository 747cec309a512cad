"""The proxy subresources: HTTP to a pod, a service or a node, also where it is upgraded.

What only the apiserver should know (credentials, impersonation) stays here; redirects are turned so
that they lead through the apiserver again.
"""

from __future__ import annotations

import re
from urllib.parse import quote, urlsplit

from k8slite.apiserver.call import Call
from k8slite.apiserver.http.message import Response
from k8slite.apiserver.streaming.backend import Header, open_backend
from k8slite.apiserver.streaming.kubelets import open_kubelet, open_pod
from k8slite.apiserver.streaming.locate import Target, locate
from k8slite.apiserver.streaming.passing import HOP_BY_HOP, Answer, pass_on, upgrade_headers
from k8slite.streaming.upgrade import is_upgrade

__all__ = ["PROXY"]

_NAMESPACED = re.compile(r"((?:/+[^/]+){7})(.*)", re.DOTALL)  # /api/v1/namespaces/N/pods/P/proxy
_CLUSTER = re.compile(r"((?:/+[^/]+){5})(.*)", re.DOTALL)  # /api/v1/nodes/N/proxy
_SAFE = "/:@!$&'()*+,;=~"
_KEPT_BACK = HOP_BY_HOP | {b"authorization", b"host", b"content-length", b"expect"}


async def proxy(call: Call) -> Answer:
    """Any verb of NAME/proxy and all below it."""
    request = call.request
    match = (_NAMESPACED if call.kind.namespaced else _CLUSTER).fullmatch(request.path)
    assert match is not None, "the route has such a path"
    prefix, path = match.groups()
    query = f"?{request.query_string}" if request.query_string else ""
    if not path:
        # Relative links of the page would lead elsewhere without the slash.
        location = f"{quote(prefix, safe=_SAFE)}/{query}".encode()
        return Response(301, b"", b"", ((b"Location", location),))
    target = await locate(call)
    if target.kubelet:
        backend = await open_kubelet(call, target.address)
    elif target.pod is not None:
        backend = await open_pod(call, target.pod, target.address, target.tls)
    else:
        backend = await open_backend(call, target.address, target.tls)

    def change(name: bytes, value: bytes) -> bytes:
        return _turned(prefix, target, value) if name == b"location" else value

    headers = _headers(call, target, prefix, path)
    url = quote(path, safe=_SAFE) + query
    return await pass_on(backend, request.method, url, headers, request.body, change=change)


def _headers(call: Call, target: Target, prefix: str, path: str) -> list[Header]:
    request = call.request
    headers: list[Header] = [(b"Host", str(target.address).encode())]
    given = request.headers
    for name, value in given.items():
        if name in _KEPT_BACK or name.startswith((b"impersonate-", b"sec-websocket-")):
            continue
        if name != b"x-stream-protocol-version":
            headers.append((name, value))
    if is_upgrade(given):
        headers += upgrade_headers(given)
    if request.body or request.method in ("POST", "PUT", "PATCH"):
        headers.append((b"Content-Length", b"%d" % len(request.body)))
    scheme = b"https" if call.core.config.tls is not None else b"http"
    uri = quote(prefix + path, safe=_SAFE).encode()
    forwarded: list[Header] = [(b"X-Forwarded-Uri", uri), (b"X-Forwarded-Proto", scheme)]
    if b"host" in given:
        forwarded.append((b"X-Forwarded-Host", given[b"host"]))
    return headers + forwarded


def _turned(prefix: str, target: Target, location: bytes) -> bytes:
    """A redirect within the same server, led through us; others stay as they are."""
    text = location.decode("latin-1")
    try:
        parts = urlsplit(text)
    except ValueError:
        return location
    if parts.netloc and parts.netloc not in (str(target.address), target.address.host):
        return location
    if not parts.path.startswith("/"):
        return location
    turned = quote(prefix, safe=_SAFE) + parts.path
    turned += f"?{parts.query}" if parts.query else ""
    turned += f"#{parts.fragment}" if parts.fragment else ""
    return turned.encode("latin-1", "replace")


PROXY = dict.fromkeys(("get", "create", "update", "patch", "delete"), proxy)
