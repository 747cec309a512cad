"""CONNECT: admission of who wants to be led on to a pod, a service or a node.

The query parameters are an object (PodExecOptions...), which webhooks may refuse or change.
"""

from __future__ import annotations

from collections.abc import Awaitable, Callable
from urllib.parse import urlencode

from k8slite.api.codec import Expected
from k8slite.api.meta import Obj, copy
from k8slite.apiserver.admission.chain import admit_part
from k8slite.apiserver.admission.dynamic.attributes import CONNECT
from k8slite.apiserver.call import Call
from k8slite.apiserver.http.message import Response, StreamResponse, UpgradeResponse

__all__ = ["connecting"]

Answer = Response | StreamResponse | UpgradeResponse
Handler = Callable[[Call], Awaitable[Answer]]
_TRUE = frozenset(("1", "t", "T", "true", "TRUE", "True"))
_FLAGS = ("stdin", "stdout", "stderr", "tty")
_PROXY = "proxy"


def connecting(handler: Handler) -> Handler:
    """A handler that is asked only after admission."""

    async def admitted(call: Call) -> Answer:
        options = _options(call)
        before = copy(options)
        body = Expected("", "v1", options["kind"])
        await admit_part(call, body, options, operation=CONNECT)
        if options != before and call.info.subresource != _PROXY:
            _take(call, options)
        return await handler(call)

    return admitted


def _options(call: Call) -> Obj:
    """What is asked for, as an object."""
    query = call.request.query
    kind = call.kind.subresources[call.info.subresource].kind
    options: Obj = {"kind": kind, "apiVersion": "v1"}
    if call.info.subresource == _PROXY:
        options["path"] = "/" + call.info.rest if call.info.rest else ""
        return options
    for flag in _FLAGS:
        if query.get(flag, [""])[0] in _TRUE:
            options[flag] = True
    if query.get("container"):
        options["container"] = query["container"][0]
    if query.get("command"):
        options["command"] = list(query["command"])
    ports = [int(p) for each in query.get("ports", ()) for p in each.split(",") if p.isdigit()]
    if ports:
        options["ports"] = ports
    return options


def _take(call: Call, options: Obj) -> None:
    """Ask for what admission has made of it."""
    query: dict[str, list[str]] = {flag: ["true"] for flag in _FLAGS if options.get(flag)}
    if options.get("container"):
        query["container"] = [str(options["container"])]
    if options.get("command"):
        query["command"] = [str(word) for word in options["command"]]
    if options.get("ports"):
        query["ports"] = [str(port) for port in options["ports"]]
    call.request.query.clear()
    call.request.query.update(query)
    call.request.query_string = urlencode(query, doseq=True)
