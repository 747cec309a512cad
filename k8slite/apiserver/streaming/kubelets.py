"""Where a node's kubelet listens, and how to speak to it."""

from __future__ import annotations

import ssl
from urllib.parse import quote

import trio

from k8slite.api.kinds import NODES
from k8slite.api.status import ApiError, not_found
from k8slite.apiserver.call import Call
from k8slite.apiserver.endpoints import PodOnNode
from k8slite.apiserver.mirror import Mirror
from k8slite.apiserver.streaming.backend import Backend, open_backend, secured, unreachable
from k8slite.streaming.bytes import BROKEN
from raftkv.host import Address

__all__ = ["address_of_kubelet", "kubelet_address", "lead_on", "open_kubelet", "open_pod"]

KUBELET_PORT = 10250
REASON_BYTES_MAX = 1024


def kubelet_address(call: Call, node: str) -> Address:
    """Raises ApiError 404 or 500."""
    return address_of_kubelet(call.core.mirror, node)


def address_of_kubelet(mirror: Mirror, node: str) -> Address:
    """Raises ApiError 404 or 500."""
    entry = mirror.cache(NODES).get("", node)
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


async def open_pod(
    call: Call, pod: PodOnNode, address: Address, tls: ssl.SSLContext | None
) -> Backend:
    """A connection to a pod by way of its node. Raises ApiError 404, 500, 503."""
    kubelet = await open_kubelet(call, kubelet_address(call, pod.node))
    try:
        await lead_on(kubelet, pod, address)
        return await secured(kubelet.detach(), address, tls)
    except BROKEN as error:
        await kubelet.aclose()
        raise unreachable(address, error) from None
    except BaseException:
        await kubelet.aclose()
        raise


async def lead_on(kubelet: Backend, pod: PodOnNode, address: Address) -> None:
    """Have the connection to a kubelet become one to a port of a pod on its node.

    Raises BROKEN's errors.
    """
    path = f"/podDial/{quote(pod.namespace)}/{quote(pod.name)}?port={address.port}"
    headers = [(b"Host", b"kubelet"), (b"Connection", b"Upgrade"), (b"Upgrade", b"tcp")]
    await kubelet.request("GET", path, headers)
    if kubelet.status != 101:
        text = (await kubelet.read_rest(REASON_BYTES_MAX)).decode("utf-8", "replace").strip()
        raise trio.BrokenResourceError(text)
