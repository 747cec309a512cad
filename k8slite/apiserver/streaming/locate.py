"""Where pods/proxy, services/proxy and nodes/proxy lead to, from names like `https:web:http`."""

from __future__ import annotations

import ipaddress
import ssl
from typing import NamedTuple

from k8slite.api.kinds import SERVICES
from k8slite.api.meta import Obj
from k8slite.api.status import ApiError, bad_request
from k8slite.apiserver.call import Call
from k8slite.apiserver.endpoints import PodOnNode, behind_node, ready_endpoints
from k8slite.apiserver.registry.reads import find
from k8slite.apiserver.streaming.kubelets import kubelet_address
from raftkv.host import Address

__all__ = ["Target", "locate"]

HTTP_PORT, HTTPS_PORT = 80, 443


class Target(NamedTuple):
    """A server to speak HTTP with; `kubelet` with the apiserver's own certificate.

    `pod`: whose address it is, in a network that this machine may not be part of.
    """

    address: Address
    tls: ssl.SSLContext | None
    kubelet: bool = False
    pod: PodOnNode | None = None


class _Name(NamedTuple):
    scheme: str
    name: str
    port: str


def _split(call: Call) -> _Name:
    """`NAME`, `NAME:PORT` or `SCHEME:NAME:PORT`. Raises ApiError 400."""
    parts = call.info.name.split(":")
    if len(parts) == 1:
        return _Name("http", parts[0], "")
    if len(parts) == 2 and parts[0]:
        return _Name("http", parts[0], parts[1])
    if len(parts) == 3 and parts[0] in ("", "http", "https") and parts[1]:
        return _Name(parts[0] or "http", parts[1], parts[2])
    raise bad_request(f'invalid {call.kind.singular} request "{call.info.name}"')


async def locate(call: Call) -> Target:
    """Raises ApiError 400, 404, 503."""
    given = _split(call)
    call.info.name = given.name
    obj = (await find(call)).parsed()
    return _LOCATORS[call.kind.plural](call, given, obj)


def _node(call: Call, given: _Name, node: Obj) -> Target:
    """The kubelet's own port with our certificate; any other port plainly."""
    address = kubelet_address(call, given.name)
    if given.port in ("", str(address.port)):
        return Target(address, call.core.config.kubelet_tls, kubelet=True)
    return Target(Address(address.host, _number(given.port)), _tls(given.scheme))


def _pod(call: Call, given: _Name, pod: Obj) -> Target:
    ip = (pod.get("status") or {}).get("podIP", "")
    _require_allowed(call, ip)
    port = given.port
    if not port:
        declared = [p for c in pod["spec"]["containers"] for p in c.get("ports") or ()]
        port = str(declared[0]["containerPort"]) if declared else ""
    default = HTTPS_PORT if given.scheme == "https" else HTTP_PORT
    address = Address(ip, _number(port) if port else default)
    where = PodOnNode(pod["spec"].get("nodeName", ""), call.namespace, given.name)
    return Target(address, _tls(given.scheme), pod=behind_node(address, where))


def _service(call: Call, given: _Name, service: Obj) -> Target:
    name, wanted = given.name, given.port
    ports = (service.get("spec") or {}).get("ports") or []
    if not wanted and len(ports) == 1:
        wanted = ports[0].get("name") or ""
    elif wanted.isdigit():
        found = next((p for p in ports if p["port"] == int(wanted)), None)
        if found is None:
            raise _unavailable(f'no service port {wanted} found for service "{name}"')
        wanted = found.get("name") or ""
    found_at = ready_endpoints(call.core.mirror, call.namespace, name, wanted)
    if not found_at:
        raise _unavailable(f'no endpoints available for service "{name}"')
    address, where = call.core.host.rng.choice(found_at)
    if (name, call.namespace) != ("kubernetes", "default"):
        _require_allowed(call, address.host)
    return Target(address, _tls(given.scheme), pod=where)


def _unavailable(message: str) -> ApiError:
    return ApiError(503, "ServiceUnavailable", message, {})


def _require_allowed(call: Call, ip: str) -> None:
    """Pods must not lead the apiserver to itself. Raises ApiError 400."""
    try:
        address = ipaddress.ip_address(ip)
    except ValueError:
        raise bad_request("address not allowed") from None
    if address.is_loopback and call.core.config.allow_loopback_endpoints:
        return
    if address.is_loopback or address.is_link_local or address.is_multicast:
        raise bad_request("address not allowed")


def _number(text: str) -> int:
    if not (text.isascii() and text.isdigit() and len(text) <= 5 and 0 < int(text) < 65536):
        raise bad_request(f'invalid port "{text}"')
    return int(text)


def _tls(scheme: str) -> ssl.SSLContext | None:
    """Certificates of pods are not checked: nobody has told us whom to trust."""
    if scheme != "https":
        return None
    context = ssl.SSLContext(ssl.PROTOCOL_TLS_CLIENT)
    context.check_hostname = False
    context.verify_mode = ssl.CERT_NONE
    return context


_LOCATORS = {"nodes": _node, "pods": _pod, SERVICES.plural: _service}
