"""Which function answers which verb of which subresource. /status of other kinds is generic."""

from __future__ import annotations

from collections.abc import Awaitable, Callable

from k8slite.api.meta import Obj
from k8slite.apiserver.call import Call
from k8slite.apiserver.http.message import Response, StreamResponse, UpgradeResponse
from k8slite.apiserver.registry import pod_subresources as pods
from k8slite.apiserver.registry import reads, writes
from k8slite.apiserver.registry.connections import connecting
from k8slite.apiserver.registry.logs import pod_log
from k8slite.apiserver.registry.scale import get_scale, patch_scale, put_scale
from k8slite.apiserver.registry.tokens import create_token
from k8slite.apiserver.streaming.pods import attach_pod, exec_pod, forward_ports
from k8slite.apiserver.streaming.proxy import PROXY

__all__ = ["SCALE", "SUBRESOURCES"]

Handler = Callable[[Call], Awaitable[Response | StreamResponse | UpgradeResponse]]

SCALE: dict[str, Handler] = {"get": get_scale, "update": put_scale, "patch": patch_scale}


async def finalize(call: Call) -> Response:
    """PUT of spec.finalizers: who empties them lets the namespace go."""
    given = writes.read_body(call)

    def transform(old: Obj) -> Obj:
        new = dict(old)
        new["metadata"] = dict(old["metadata"])
        if given["metadata"].get("resourceVersion"):
            new["metadata"]["resourceVersion"] = given["metadata"]["resourceVersion"]
        new["spec"] = {**(old.get("spec") or {})}
        finalizers = (given.get("spec") or {}).get("finalizers")
        if finalizers:
            new["spec"]["finalizers"] = finalizers
        else:
            new["spec"].pop("finalizers", None)
        return new

    change = await writes.modify(call, transform, part="raw")
    return writes.answer(call, 200, change.obj)


def _connects(handler: Handler) -> dict[str, Handler]:
    return dict.fromkeys(("get", "create"), connecting(handler))


_PROXIES: dict[str, Handler] = {verb: connecting(handler) for verb, handler in PROXY.items()}
SUBRESOURCES: dict[str, dict[str, Handler]] = {
    "namespaces/finalize": {"update": finalize},
    "pods/binding": {"create": pods.bind},
    "pods/eviction": {"create": pods.evict},
    "pods/log": {"get": pod_log},
    "pods/exec": _connects(exec_pod),
    "pods/attach": _connects(attach_pod),
    "nodes/proxy": _PROXIES,
    "pods/proxy": _PROXIES,
    "services/proxy": _PROXIES,
    "pods/portforward": _connects(forward_ports),
    "pods/ephemeralcontainers": {
        "get": reads.get,
        "update": pods.ephemeral_containers,
        "patch": pods.patch_ephemeral,
    },
    "pods/resize": {"get": reads.get, "update": pods.resize, "patch": pods.patch_resize},
    "serviceaccounts/token": {"create": create_token},
    "deployments.apps/scale": SCALE,
    "replicasets.apps/scale": SCALE,
    "statefulsets.apps/scale": SCALE,
    "replicationcontrollers/scale": SCALE,
    "certificatesigningrequests.certificates.k8s.io/approval": {
        "get": reads.get,
        "update": writes.update_status,
        "patch": writes.patch_status,
    },
}
