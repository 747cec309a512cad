"""Where a node's kubelet listens, and how to speak to it."""

from __future__ import annotations

from k8slite.api.kinds import NODES
from k8slite.api.status import ApiError, not_found
from k8slite.apiserver.call import Call
from k8slite.apiserver.streaming.backend import Backend, open_backend
from raftkv.host import Address

__all__ = ["kubelet_address", "open_kubelet"]

KUBELET_PORT = 10250


def kubelet_address(call: Call, node: str) -> Address:
    """Raises ApiError 404 or 500."""
    entry = call.core.mirror.cache(NODES).get("", node)
    if entry is None:
        raise not_found(NODES, node)
    status = entry.parsed().get("status") or {}
    found = {a.get("type"): a.get("address") for a in status.get("addresses") or ()}
    host = found.get("InternalIP") or found.get("ExternalIP") or found.get("Hostname")
    if not host:
        raise ApiError(500, "InternalError", f"Internal error occurred: no address of node {node}")
    endpoint = (status.get("daemonEndpoints") or {}).get("kubeletEndpoint") or {}
    return Address(host, endpoint.get("Port") or KUBELET_PORT)


async def open_kubelet(call: Call, address: Address) -> Backend:
    """A connection as the apiserver's own user. Raises ApiError 500."""
    try:
        return await open_backend(call, address, call.core.config.kubelet_tls)
    except ApiError as error:
        reason = error.message.removeprefix("error trying to reach service: ")
        message = f"Internal error occurred: error dialing backend: {reason}"
        raise ApiError(500, "InternalError", message) from None
