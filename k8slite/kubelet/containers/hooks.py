"""Lifecycle hooks: `postStart` and `preStop`, by command, HTTP or sleep."""

from __future__ import annotations

import trio

from k8slite.api.meta import Obj
from k8slite.kubelet.pods import named_port
from k8slite.kubelet.probes.prober import http_get
from k8slite.kubelet.runtime.interface import Runtime, RuntimeFailure
from raftkv.host import Host

HTTP_SECONDS = 30.0


async def run_hook(
    host: Host, runtime: Runtime, container: Obj, container_id: str, hook: Obj, pod_ip: str
) -> str:
    """Run it to its end; "" on success, else what went wrong. The caller bounds its time."""
    if hook.get("exec"):
        command = tuple(hook["exec"].get("command") or ())
        try:
            result = await runtime.exec_sync(container_id, command)
        except RuntimeFailure as failure:
            return str(failure)
        if result.exit_code == 0:
            return ""
        output = (result.stdout + result.stderr)[:1024].decode(errors="replace").strip()
        return f"command {' '.join(command)!r} exited with {result.exit_code}: {output}"
    if hook.get("httpGet"):
        action = hook["httpGet"]
        port = named_port(container, action["port"])
        if port is None:
            return f"couldn't find port: {action['port']}"
        where = action.get("host") or pod_ip
        outcome = await http_get(host, action, where, port, HTTP_SECONDS)
        return "" if outcome.success else outcome.text
    if hook.get("sleep"):
        await trio.sleep(hook["sleep"]["seconds"])
        return ""
    return "the hook names no handler this kubelet knows"
