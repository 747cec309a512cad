"""pods/log: the kubelet's answer, passed on as it comes."""

from __future__ import annotations

from urllib.parse import urlencode

from k8slite.api.meta import Obj
from k8slite.api.status import ApiError, bad_request
from k8slite.apiserver.call import Call
from k8slite.apiserver.http.message import Response, StreamResponse, UpgradeResponse
from k8slite.apiserver.registry.reads import find
from k8slite.apiserver.streaming.backend import unreachable
from k8slite.apiserver.streaming.kubelets import kubelet_address, open_kubelet
from k8slite.apiserver.streaming.log_socket import choose, log_socket
from k8slite.apiserver.streaming.passing import copying
from k8slite.streaming.bytes import BROKEN
from k8slite.streaming.upgrade import is_websocket

__all__ = ["pod_log"]

REFUSAL_BYTES_MAX = 64 * 1024
_PASSED_ON = (
    "follow",
    "previous",
    "sinceSeconds",
    "sinceTime",
    "timestamps",
    "tailLines",
    "limitBytes",
    "stream",
)


async def pod_log(call: Call) -> Response | StreamResponse | UpgradeResponse:
    """GET pods/NAME/log"""
    entry = await find(call)
    pod = entry.parsed()
    container = _container(call, pod)
    node = (pod.get("spec") or {}).get("nodeName", "")
    if not node:
        return Response(200, b"", b"text/plain")
    headers = call.request.headers
    agreed = choose(headers) if is_websocket(headers) else None
    address = kubelet_address(call, node)
    given = {name: call.param(name) for name in _PASSED_ON if call.param(name)}
    name = pod["metadata"]["name"]
    path = f"/containerLogs/{call.namespace}/{name}/{container}"
    if given:
        path += "?" + urlencode(given)
    backend = await open_kubelet(call, address)
    try:
        await backend.request("GET", path, [(b"Host", str(address).encode())])
        if backend.status != 200:
            raise _refusal(backend.status, await backend.read_rest(REFUSAL_BYTES_MAX))
    except BROKEN as error:
        await backend.aclose()
        raise unreachable(address, error) from None
    except BaseException:
        await backend.aclose()
        raise
    if agreed is not None:
        return log_socket(backend, *agreed)
    return StreamResponse(200, copying(backend), b"text/plain", abandon=backend.aclose)


def _container(call: Call, pod: Obj) -> str:
    """The container asked for, or the only one. Raises ApiError 400."""
    spec, name = pod.get("spec") or {}, pod["metadata"]["name"]
    containers = [c["name"] for c in spec.get("containers") or ()]
    inits = [c["name"] for c in spec.get("initContainers") or ()]
    ephemeral = [c["name"] for c in spec.get("ephemeralContainers") or ()]
    wanted = call.param("container")
    if wanted:
        if wanted not in (*containers, *inits, *ephemeral):
            raise bad_request(f"container {wanted} is not valid for pod {name}")
        return wanted
    if len(containers) == 1 and not inits and not ephemeral:
        return str(containers[0])
    default = (pod["metadata"].get("annotations") or {}).get(
        "kubectl.kubernetes.io/default-container"
    )
    if default in containers:
        return str(default)
    message = f"a container name must be specified for pod {name}, choose one of: {_go(containers)}"
    if inits:
        message += f" or one of the init containers: {_go(inits)}"
    raise bad_request(message)


def _go(names: list[str]) -> str:
    return f"[{' '.join(names)}]"


def _refusal(status: int, body: bytes) -> ApiError:
    text = body.decode(errors="replace").strip()
    if status == 404:
        return ApiError(404, "NotFound", text or "the server could not find the requested resource")
    if status == 400:
        return bad_request(text)
    return ApiError(500, "InternalError", f"Internal error occurred: {text}")
