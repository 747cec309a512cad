"""Real namespaces for a test: a switch, nodes, pods, processes in them; all gone afterwards."""

from __future__ import annotations

import contextlib
import subprocess
import time
from collections.abc import Iterator, Sequence

from k8slite.network import namespaces
from k8slite.network.addresses import namespace_name
from k8slite.network.pods import attach_pod
from k8slite.network.topology import (
    NodeNetwork,
    Switch,
    create_node,
    create_switch,
    delete_cluster,
    list_leftovers,
)

SERVER = """
import socket, sys
listener = socket.create_server(("0.0.0.0", int(sys.argv[1])))
print("ready", flush=True)
while True:
    connection, peer = listener.accept()
    connection.sendall(f"{sys.argv[2]} {peer[0]}".encode())
    connection.close()
"""
CLIENT = """
import socket, sys
for _ in range(int(sys.argv[3])):
    try:
        with socket.create_connection((sys.argv[1], int(sys.argv[2])), timeout=2) as connection:
            connection.settimeout(5)
            print(connection.recv(200).decode())
    except OSError as error:
        print("error", error.errno or "timeout")
"""


class Lab:
    def __init__(self, cluster: str) -> None:
        self.cluster = cluster
        self.switch: Switch
        self.nodes: list[NodeNetwork] = []
        self._processes: list[subprocess.Popen[str]] = []

    def open(self, nodes: int) -> None:
        delete_cluster(self.cluster)
        self.switch = create_switch(self.cluster)
        for index in range(1, nodes + 1):
            node = create_node(self.switch, index, f"10.244.{index}.0/24", others=self.nodes)
            self.nodes.append(node)

    def close(self) -> None:
        for process in self._processes:
            process.kill()
            process.communicate()
        delete_cluster(self.cluster)

    def pod(self, name: str, node: int, number: int) -> str:
        """The namespace of a new pod with the address 10.244.NODE.NUMBER."""
        netns = namespaces.create(namespace_name(self.cluster, f"pod-{name}"))
        there = self.nodes[node - 1]
        attach_pod(there.netns, netns, name, f"10.244.{node}.{number}", f"10.244.{node}.1")
        return netns

    @contextlib.contextmanager
    def open_sandbox(self) -> Iterator[str]:
        """The namespace of a process, as a container runtime makes one."""
        sandbox = subprocess.Popen(
            ["unshare", "--net", "sh", "-c", "echo ready; exec sleep 60"],
            stdout=subprocess.PIPE,
            text=True,
        )
        try:
            assert sandbox.stdout is not None
            assert sandbox.stdout.readline() == "ready\n"
            yield f"/proc/{sandbox.pid}/ns/net"
        finally:
            sandbox.kill()
            sandbox.communicate()

    def run(self, netns: str, command: Sequence[str]) -> subprocess.CompletedProcess[str]:
        return subprocess.run(
            namespaces.command_inside(netns, command), capture_output=True, text=True, check=False
        )

    def serve(self, netns: str, port: int, name: str) -> None:
        """A server that tells everyone its name and from where they seem to come."""
        process = subprocess.Popen(
            namespaces.command_inside(netns, ["python3", "-c", SERVER, str(port), name]),
            stdout=subprocess.PIPE,
            text=True,
        )
        self._processes.append(process)
        assert process.stdout is not None
        assert process.stdout.readline() == "ready\n"

    def ask(self, netns: str, address: str, port: int) -> str:
        return self.ask_often(netns, address, port, 1)[0]

    def ask_often(self, netns: str, address: str, port: int, times: int) -> list[str]:
        """The answers to so many connections one after the other, or "error ERRNO"."""
        done = self.run(netns, ["python3", "-c", CLIENT, address, str(port), str(times)])
        assert done.returncode == 0, done.stderr
        return done.stdout.splitlines()

    def pings(self, netns: str, address: str) -> bool:
        return self.run(netns, ["busybox", "ping", "-c1", "-W2", address]).returncode == 0


@contextlib.contextmanager
def open_lab(cluster: str, nodes: int = 2) -> Iterator[Lab]:
    lab = Lab(cluster)
    try:
        lab.open(nodes)
        yield lab
    finally:
        lab.close()
        deadline = time.monotonic() + 2
        while list_leftovers(cluster) and time.monotonic() < deadline:
            delete_cluster(cluster)
        assert list_leftovers(cluster) == []
