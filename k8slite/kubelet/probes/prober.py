"""One probe of a container: over HTTP, by a connection, or by a command inside.

Thin: it asks and says what came back, in the kubelet's words; what that means is `machine`'s.
"""

from __future__ import annotations

import os
import ssl
from typing import NamedTuple

import trio

from k8slite.api.meta import Obj
from k8slite.client.http import Connection, ConnectionLost, encode_request
from k8slite.kubelet.pods import named_port
from k8slite.kubelet.runtime.interface import Runtime, RuntimeFailure
from raftkv.host import Address, Host

BODY_MAX = 10 * 1024
USER_AGENT = "kube-probe/1.36"


class Outcome(NamedTuple):
    success: bool
    text: str


async def probe(
    host: Host,
    runtime: Runtime,
    container: Obj,
    container_id: str,
    handler: Obj,
    *,
    pod_ip: str,
    timeout: float,
) -> Outcome:
    """Ask once. Never raises for what the container does."""
    if handler.get("exec"):
        return await _probe_exec(runtime, container_id, handler["exec"], timeout)
    if handler.get("httpGet"):
        action = handler["httpGet"]
        port = named_port(container, action["port"])
        if port is None:
            return Outcome(False, f"couldn't find port: {action['port']}")
        return await http_get(host, action, action.get("host") or pod_ip, port, timeout)
    if handler.get("tcpSocket"):
        action = handler["tcpSocket"]
        port = named_port(container, action["port"])
        if port is None:
            return Outcome(False, f"couldn't find port: {action['port']}")
        return await _probe_tcp(host, Address(action.get("host") or pod_ip, port), timeout)
    return Outcome(False, "gRPC probes are not supported by this kubelet")


async def _probe_exec(runtime: Runtime, container_id: str, action: Obj, seconds: float) -> Outcome:
    with trio.move_on_after(seconds):
        try:
            result = await runtime.exec_sync(container_id, tuple(action.get("command") or ()))
        except RuntimeFailure as failure:
            return Outcome(False, str(failure))
        text = (result.stdout + result.stderr)[:BODY_MAX].decode(errors="replace")
        return Outcome(result.exit_code == 0, text)
    words = " ".join(action.get("command") or ())
    return Outcome(False, f'command timed out: "{words}" timed out after {seconds:g}s')


async def _probe_tcp(host: Host, address: Address, seconds: float) -> Outcome:
    with trio.move_on_after(seconds):
        try:
            stream = await host.net.open_stream(address)
        except OSError as error:
            return Outcome(False, f"dial tcp {address}: connect: {_reason(error)}")
        await trio.aclose_forcefully(stream)
        return Outcome(True, "")
    return Outcome(False, f"dial tcp {address}: i/o timeout")


def _reason(error: OSError) -> str:
    """The operating system's words, also from the error trio wraps around several tries."""
    cause = error.__cause__
    if isinstance(cause, BaseExceptionGroup):
        cause = cause.exceptions[0]
    inner = cause if isinstance(cause, OSError) else error
    return os.strerror(inner.errno).lower() if inner.errno else str(inner)


async def http_get(host: Host, action: Obj, address: str, port: int, seconds: float) -> Outcome:
    """An HTTP probe: success is a status from 200 to 399; redirects are not followed."""
    scheme = (action.get("scheme") or "HTTP").lower()
    path = action.get("path") or "/"
    path = path if path.startswith("/") else f"/{path}"
    where = Address(address, port)
    url = f"{scheme}://{where}{path}"
    with trio.move_on_after(seconds):
        try:
            return await _exchange(host, scheme, where, path, action)
        except OSError as error:
            why = f"dial tcp {where}: connect: {_reason(error)}"
        except (ConnectionLost, trio.BrokenResourceError, ssl.SSLError) as error:
            why = str(error) or repr(error)
        return Outcome(False, f'Get "{url}": {why}')
    return Outcome(
        False,
        f'Get "{url}": context deadline exceeded (Client.Timeout exceeded while awaiting headers)',
    )


async def _exchange(host: Host, scheme: str, where: Address, path: str, action: Obj) -> Outcome:
    stream = await host.net.open_stream(where)
    if scheme == "https":
        context = ssl.create_default_context()
        context.check_hostname = False
        context.verify_mode = ssl.CERT_NONE  # a probe asks whether it lives, not who it is
        stream = trio.SSLStream(stream, context, server_hostname=where.host, https_compatible=True)
    connection = Connection(stream, where)
    try:
        given = {h["name"].lower(): h for h in action.get("httpHeaders") or ()}
        headers = [("Connection", "close")]
        if "user-agent" not in given:
            headers.append(("User-Agent", USER_AGENT))
        if "accept" not in given:
            headers.append(("Accept", "*/*"))
        headers += [(h["name"], h.get("value", "")) for n, h in given.items() if n != "host"]
        name = given["host"].get("value", "") if "host" in given else str(where)
        head = await connection.request(encode_request("GET", path, name, headers, None))
    finally:
        with trio.CancelScope(shield=True):
            await connection.aclose()
    if 200 <= head.status < 400:
        return Outcome(True, "")
    return Outcome(False, f"HTTP probe failed with statuscode: {head.status}")
