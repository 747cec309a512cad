"""pods/exec, pods/attach, pods/portforward: the client's connection becomes the kubelet's.

After the checks the bytes go through untouched: the protocols are spoken by the kubelet.
"""

from __future__ import annotations

from urllib.parse import quote, urlencode

from k8slite.api.meta import Obj
from k8slite.api.status import bad_request
from k8slite.apiserver.auth.authorize import attributes_of, refusal
from k8slite.apiserver.call import Call
from k8slite.apiserver.registry.reads import find
from k8slite.apiserver.streaming.kubelets import kubelet_address, open_kubelet
from k8slite.apiserver.streaming.passing import Answer, pass_on, upgrade_headers

__all__ = ["attach_pod", "exec_pod", "forward_ports"]

_TRUE = frozenset(("1", "t", "T", "true", "TRUE", "True"))
_FLAGS = {"stdin": "input", "stdout": "output", "stderr": "error", "tty": "tty"}
"""The API's parameters, as the kubelet names them."""


async def exec_pod(call: Call) -> Answer:
    """GET or POST pods/NAME/exec."""
    return await _to_container(call, "exec")


async def attach_pod(call: Call) -> Answer:
    """GET or POST pods/NAME/attach."""
    return await _to_container(call, "attach")


async def _to_container(call: Call, verb: str) -> Answer:
    await _require_create(call)
    pod = (await find(call)).parsed()
    container = _container(call, pod)
    flags = {name: call.param(name) in _TRUE for name in _FLAGS}
    query = [(_FLAGS[name], "1") for name, is_asked in flags.items() if is_asked]
    if verb == "exec":
        commands = call.request.query.get("command") or []
        if not commands:
            raise bad_request("you must specify at least one command for the container")
        query += [("command", word) for word in commands]
    if not (flags["stdin"] or flags["stdout"] or flags["stderr"]):
        raise bad_request("you must specify at least 1 of stdin, stdout, stderr")
    return await _to_kubelet(call, pod, verb, container, query)


async def forward_ports(call: Call) -> Answer:
    """GET or POST pods/NAME/portforward."""
    await _require_create(call)
    pod = (await find(call)).parsed()
    ports = ",".join(call.request.query.get("ports") or ())
    return await _to_kubelet(call, pod, "portForward", "", [("port", ports)] if ports else [])


async def _require_create(call: Call) -> None:
    """WebSockets begin with GET, but what is behind them is no reading. Raises ApiError 403."""
    asked = attributes_of(call.info)._replace(verb="create")
    authorizer, mirror = call.core.authorizer, call.core.mirror
    if call.info.verb == "create" or (await authorizer.decide(call.user, asked)).allowed:
        return
    await mirror.wait_fresh()
    if not (await authorizer.decide(call.user, asked)).allowed:
        raise refusal(call.user, asked)


async def _to_kubelet(
    call: Call, pod: Obj, verb: str, container: str, query: list[tuple[str, str]]
) -> Answer:
    name = pod["metadata"]["name"]
    node = (pod.get("spec") or {}).get("nodeName", "")
    if not node:
        raise bad_request(f"pod {name} does not have a host assigned")
    address = kubelet_address(call, node)
    parts = [verb, call.namespace, name]
    if container:
        parts.append(container)
    target = "/" + "/".join(quote(part, safe="") for part in parts)
    if query:
        target += "?" + urlencode(query)
    backend = await open_kubelet(call, address)
    headers = [(b"Host", str(address).encode())]
    headers += upgrade_headers(call.request.headers)
    return await pass_on(backend, call.request.method, target, headers)


def _container(call: Call, pod: Obj) -> str:
    """The container asked for, or the only one. Raises ApiError 400."""
    spec, name = pod.get("spec") or {}, pod["metadata"]["name"]
    groups = ("initContainers", "containers", "ephemeralContainers")
    known = [c["name"] for group in groups for c in spec.get(group) or ()]
    wanted = call.param("container")
    if wanted:
        if wanted not in known:
            raise bad_request(f"container {wanted} is not valid for pod {name}")
        return wanted
    containers = spec.get("containers") or []
    if len(containers) == 1:
        return str(containers[0]["name"])
    raise bad_request(
        f"a container name must be specified for pod {name}, choose one of: [{' '.join(known)}]"
    )
