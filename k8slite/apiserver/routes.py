"""From what a request is about to the function that answers it: one table, no ladder."""

from __future__ import annotations

from collections.abc import Awaitable, Callable

from k8slite.api.kinds import Kind
from k8slite.api.resource_metrics import RESOURCE_METRICS
from k8slite.api.status import ApiError, method_not_supported, resource_not_found
from k8slite.apiserver.call import Call
from k8slite.apiserver.http.message import Response, StreamResponse, UpgradeResponse
from k8slite.apiserver.kind_table import KindTable, is_custom
from k8slite.apiserver.registry import deletes, reads, resource_metrics, watches, writes
from k8slite.apiserver.registry.pod_subresources import bind_by_collection
from k8slite.apiserver.registry.reviews import REVIEWS
from k8slite.apiserver.registry.subresources import SCALE, SUBRESOURCES
from k8slite.apiserver.requestinfo import RequestInfo

__all__ = ["Handler", "route"]

Handler = Callable[[Call], Awaitable[Response | StreamResponse | UpgradeResponse]]

VERBS: dict[str, Handler] = {
    "get": reads.get,
    "list": reads.list_,
    "watch": watches.watch,
    "create": writes.create,
    "update": writes.update,
    "patch": writes.patch,
    "delete": deletes.delete,
    "deletecollection": deletes.delete_collection,
}
STATUS_VERBS: dict[str, Handler] = {
    "get": reads.get,
    "update": writes.update_status,
    "patch": writes.patch_status,
}
UNSTORED: dict[str, Handler] = {**REVIEWS, "bindings": bind_by_collection}
"""Resources that are asked or told, and never stored."""
COMPUTED: dict[str, dict[str, Handler]] = {
    kind.resource: {"get": resource_metrics.get, "list": resource_metrics.list_}
    for kind in RESOURCE_METRICS
}
"""Resources that are made when they are asked for."""
PAGE_NOT_FOUND = "PageNotFound"


def route(kinds: KindTable, info: RequestInfo) -> tuple[Handler, Kind]:
    """The handler and the kind. Raises ApiError 404 or 405."""
    kind = kinds.find(info.group, info.version, info.resource)
    if kind is None:
        if kinds.serves(info.group, info.version):
            raise resource_not_found()
        raise ApiError(404, PAGE_NOT_FOUND, "404 page not found")
    if info.subresource:
        return _subresource(info, kind), kind
    if kind.resource in UNSTORED and info.verb == "create" and not info.name:
        return UNSTORED[kind.resource], kind
    if info.verb not in kind.verbs or (info.verb == "create" and info.name):
        raise method_not_supported()
    return COMPUTED.get(kind.resource, VERBS)[info.verb], kind


def _subresource(info: RequestInfo, kind: Kind) -> Handler:
    found = kind.subresources.get(info.subresource)
    if found is None:
        raise resource_not_found()
    if info.verb not in found.verbs:
        raise method_not_supported()
    handlers = SUBRESOURCES.get(f"{kind.resource}/{info.subresource}")
    if handlers is None and info.subresource == "status":
        handlers = STATUS_VERBS
    if handlers is None and info.subresource == "scale" and is_custom(kind):
        handlers = SCALE
    handler = (handlers or {}).get(info.verb)
    if handler is None:
        raise method_not_supported()
    return handler
