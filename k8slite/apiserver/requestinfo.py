"""What a request is about, read off its method, path and query: verb, resource, namespace, name.

Pure. The rules are upstream's RequestInfoFactory: everything under /api/VERSION and
/apis/GROUP/VERSION is a resource request, the rest is a path.
"""

from __future__ import annotations

from attrs import define

from k8slite.apiserver.http.message import Request

__all__ = ["RequestInfo", "request_info"]

_VERBS = {
    "GET": "get",
    "HEAD": "get",
    "POST": "create",
    "PUT": "update",
    "PATCH": "patch",
    "DELETE": "delete",
}
_TRUE = frozenset(("1", "t", "T", "true", "TRUE", "True", ""))
_NAMESPACE_SUBRESOURCES = frozenset(("status", "finalize"))


@define
class RequestInfo:
    """`resource` is empty for a non-resource path; then `verb` is the lower-case method."""

    path: str
    verb: str
    group: str = ""
    version: str = ""
    namespace: str = ""
    resource: str = ""
    name: str = ""
    subresource: str = ""
    rest: str = ""

    @property
    def is_resource(self) -> bool:
        """Does the request concern a resource (existing or not)?"""
        return bool(self.resource)


def is_true(text: str) -> bool:
    """A boolean parameter that is present, as Go reads it; its mere presence counts as true."""
    return text in _TRUE


def request_info(request: Request) -> RequestInfo:
    """Never fails: what is no resource request is a path."""
    parts = [part for part in request.path.split("/") if part]
    plain = RequestInfo(request.path, request.method.lower())
    if len(parts) >= 3 and parts[0] == "api":
        group, version, rest = "", parts[1], parts[2:]
    elif len(parts) >= 4 and parts[0] == "apis":
        group, version, rest = parts[1], parts[2], parts[3:]
    else:
        return plain
    info = RequestInfo(request.path, _VERBS.get(request.method, ""), group, version)
    if rest[0] in ("watch", "proxy") and len(rest) > 1:
        if rest[0] == "watch":
            info.verb = "watch"
        rest = rest[1:]
    if rest[0] == "namespaces" and len(rest) > 1:
        info.namespace = rest[1]
        if len(rest) > 2 and rest[2] not in _NAMESPACE_SUBRESOURCES:
            rest = rest[2:]
    info.resource = rest[0]
    info.name = rest[1] if len(rest) > 1 else ""
    info.subresource = rest[2] if len(rest) > 2 else ""
    info.rest = "/".join(rest[3:])
    if info.resource == "namespaces" and not group:
        info.namespace = info.name
    if not info.name:
        _collection_verb(info, request)
    elif info.verb == "get" and not info.subresource and _wants_watch(request):
        info.verb = "watch"
    return info


def _collection_verb(info: RequestInfo, request: Request) -> None:
    if info.verb == "get":
        info.verb = "watch" if _wants_watch(request) else "list"
    elif info.verb == "delete":
        info.verb = "deletecollection"


def _wants_watch(request: Request) -> bool:
    values = request.query.get("watch")
    return values is not None and is_true(values[0])
