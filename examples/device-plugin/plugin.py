"""A device plugin in its smallest form: pretended devices, and a real one behind each if wanted.

    python plugin.py --directory DIR --resource example.com/toy --count 4

DIR is /var/lib/kubelet/device-plugins in a container that mounts it by hostPath, on the machine a
node's own: `device-plugins` in its directory. It needs grpcio. Each container that asks for
`example.com/toy: N` gets N devices: their names in TOY_DEVICES and, with
--device /dev/zero, that device as /dev/toy. A device whose name stands in the file --broken is
unhealthy. When the kubelet starts anew, the plugin registers again.
"""

from __future__ import annotations

import argparse
import os
import time
from collections.abc import Iterator
from concurrent import futures
from pathlib import Path
from typing import Any

import grpc

from k8slite.kubelet.devices.messages import MESSAGES, REGISTER, VERSION

POLL_SECONDS = 0.5


class Plugin(grpc.GenericRpcHandler):
    def __init__(self, arguments: argparse.Namespace) -> None:
        self.arguments = arguments
        self.resource = arguments.resource
        self.names = [f"toy-{number}" for number in range(arguments.count)]

    def service(self, details: Any) -> Any:
        method = details.method.rpartition("/")[2]
        if method == "ListAndWatch":
            return grpc.unary_stream_rpc_method_handler(self.list_and_watch)
        unary = {
            "GetDevicePluginOptions": lambda request, context: b"",
            "Allocate": self.allocate,
            "PreStartContainer": lambda request, context: b"",
        }
        return grpc.unary_unary_rpc_method_handler(unary[method]) if method in unary else None

    def list_and_watch(self, request: bytes, context: Any) -> Iterator[bytes]:
        told: bytes | None = None
        while context.is_active():
            answer = MESSAGES["ListAndWatchResponse"]()
            broken = self.broken()
            for name in self.names:
                answer.devices.add(ID=name, health="Unhealthy" if name in broken else "Healthy")
            if answer.SerializeToString() != told:
                told = answer.SerializeToString()
                yield told
            time.sleep(POLL_SECONDS)

    def broken(self) -> list[str]:
        try:
            return Path(self.arguments.broken).read_text().split() if self.arguments.broken else []
        except FileNotFoundError:
            return []

    def allocate(self, request: bytes, context: Any) -> bytes:
        answer = MESSAGES["AllocateResponse"]()
        for each in MESSAGES["AllocateRequest"].FromString(request).container_requests:
            granted = answer.container_responses.add()
            granted.envs.add(key="TOY_DEVICES", value=",".join(each.devicesIDs))
            if self.arguments.device:
                granted.devices.add(
                    host_path=self.arguments.device, container_path="/dev/toy", permissions="rw"
                )
        return bytes(answer.SerializeToString())


def register(directory: str, endpoint: str, resource: str) -> None:
    request = MESSAGES["RegisterRequest"](
        version=VERSION, endpoint=endpoint, resource_name=resource
    )
    with grpc.insecure_channel(f"unix:{directory}/kubelet.sock") as channel:
        channel.unary_unary(REGISTER)(request.SerializeToString(), timeout=10)


def main() -> None:
    parser = argparse.ArgumentParser(description="Pretends to have devices.")
    parser.add_argument("--directory", default="/var/lib/kubelet/device-plugins")
    parser.add_argument("--resource", default="example.com/toy")
    parser.add_argument("--count", type=int, default=2)
    parser.add_argument("--device", default="", help="a device of the machine, for all of them")
    parser.add_argument("--broken", default="", help="a file with names of unhealthy ones")
    arguments = parser.parse_args()
    endpoint = f"toy-{os.getpid()}.sock"
    server = grpc.server(futures.ThreadPoolExecutor(max_workers=8))
    server.add_generic_rpc_handlers((Plugin(arguments),))
    server.add_insecure_port(f"unix:{arguments.directory}/{endpoint}")
    server.start()
    kubelet, registered = Path(arguments.directory, "kubelet.sock"), -1
    while True:
        try:
            inode = kubelet.stat().st_ino
            if inode != registered:
                register(arguments.directory, endpoint, arguments.resource)
                registered = inode
                print("registered", flush=True)
        except (FileNotFoundError, grpc.RpcError):
            pass  # no kubelet now
        time.sleep(POLL_SECONDS)


if __name__ == "__main__":
    main()
