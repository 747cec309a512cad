"""What the user asked for, and what follows from it: names, addresses, timings. Pure.

A `ClusterSpec` is what `up` is told and never changes in a cluster's life. A `Place` is where this
machine put it: ports and address ranges that no other cluster of the machine uses.
"""

from __future__ import annotations

import ipaddress
import re
from typing import Any, Final

import attrs

from raftkv.host import Address

__all__ = [
    "IPVS_SCHEDULERS",
    "NODE_ROLES",
    "PROXIES",
    "ROLES",
    "RUNTIMES",
    "STORES",
    "ClusterSpec",
    "Component",
    "InvalidSpec",
    "Place",
    "check_name",
    "components",
]

RUNTIMES: Final = ("oci", "process", "fake")
PROXIES: Final = ("iptables", "nftables", "ipvs", "userspace", "none")
IPVS_SCHEDULERS: Final = ("rr", "wrr", "lc", "wlc", "sh", "dh", "mh", "sed", "nq", "lblc", "lblcr")
STORES: Final = ("raftkv", "memory")
CONTROL_PLANES_MAX: Final = 9
NODES_MAX: Final = 100
NAME_LENGTH: Final = 32
PORTS_PER_CLUSTER: Final = 3 * CONTROL_PLANES_MAX + 1
"""The block of ports that a `Place` stands for: two a raftkv member, one an apiserver, and the last
one that is only held, as a sign that the block is taken."""
KUBELET_PORT: Final = 10250
BRIDGED: Final = ("iptables", "nftables", "ipvs")

CONTROL_ROLES: Final = ("raftkv", "apiserver", "scheduler", "controller-manager")
NODE_ROLES: Final = ("kubelet", "proxy")
ROLES: Final = (*CONTROL_ROLES, *NODE_ROLES)

_NAME: Final = re.compile(r"[a-z0-9]([-a-z0-9]*[a-z0-9])?")


class InvalidSpec(ValueError):
    """A cluster that cannot be; the message is for the user."""


def check_name(name: str) -> None:
    """Raises InvalidSpec for what cannot be a cluster's name."""
    if not _NAME.fullmatch(name) or len(name) > NAME_LENGTH:
        raise InvalidSpec(
            f"--name {name!r}: lower-case letters, digits and dashes between them, "
            f"at most {NAME_LENGTH}"
        )


def _at_most(value: int, low: int, high: int, flag: str) -> None:
    if not low <= value <= high:
        raise InvalidSpec(f"{flag} {value}: must be from {low} to {high}")


APISERVER_FILES: Final = {
    "audit_policy_file": "an audit Policy: what is told of which requests, in logs/*-audit.log",
    "encryption_provider_config": "an EncryptionConfiguration: what is stored encrypted, and how",
    "authentication_config": "an AuthenticationConfiguration: OpenID Connect, and who is nobody",
    "authentication_token_webhook_config_file": "a kubeconfig of a server that reviews tokens",
    "authorization_config": "an AuthorizationConfiguration: who decides, in which order",
}
"""Settings that are kube-apiserver's, by its names: paths of files."""


@attrs.frozen(kw_only=True)
class ClusterSpec:
    """`runtime` and `proxy` are decided ones, never "auto" (see `machine.choose`)."""

    name: str = "local"
    control_planes: int = 3
    nodes: int = 2
    runtime: str = "process"
    proxy: str = "userspace"
    store: str = "raftkv"
    fast: bool = False
    port: int = 0
    """Where kubectl finds the apiservers on loopback; 0: chosen when the cluster is made."""
    token_auth_file: str = ""
    audit_policy_file: str = ""
    """What apiservers tell of requests, each in logs/NAME-audit.log; "": nothing."""
    encryption_provider_config: str = ""
    authentication_config: str = ""
    authentication_token_webhook_config_file: str = ""
    authorization_config: str = ""
    ipvs_scheduler: str = "rr"
    """How --proxy ipvs chooses an endpoint: the kernel's name of the rule."""
    scheduler_config: str = ""
    """A KubeSchedulerConfiguration; "": the defaults."""
    controllers: str = ""
    """Which controllers run, as --controllers says; "": those that are on by default."""

    def __attrs_post_init__(self) -> None:
        check_name(self.name)
        _at_most(self.control_planes, 1, CONTROL_PLANES_MAX, "--control-planes")
        _at_most(self.nodes, 0, NODES_MAX, "--nodes")
        _at_most(self.port, 0, 65535, "--port")
        for value, known, flag in (
            (self.runtime, RUNTIMES, "--runtime"),
            (self.proxy, PROXIES, "--proxy"),
            (self.store, STORES, "--store"),
            (self.ipvs_scheduler, IPVS_SCHEDULERS, "--ipvs-scheduler"),
        ):
            if value not in known:
                raise InvalidSpec(f"{flag} {value!r}: there are {', '.join(known)}")
        if self.store == "memory" and self.control_planes > 1:
            raise InvalidSpec(
                f"--store memory lives in one apiserver: --control-planes {self.control_planes} "
                "needs --store raftkv"
            )
        if (self.runtime == "oci") != (self.proxy in BRIDGED) and self.proxy != "none":
            raise InvalidSpec(
                f"--runtime {self.runtime} and --proxy {self.proxy} do not go together: "
                "containers (oci) have addresses of their own and need iptables, nftables or ipvs, "
                "processes share the machine's network and need userspace"
            )

    @property
    def bridged(self) -> bool:
        """Whether nodes are network namespaces; else all share the machine's loopback."""
        return self.runtime == "oci"

    @property
    def relayed(self) -> bool:
        """Whether services are relayed in user space."""
        return self.proxy == "userspace" and self.nodes > 0

    @property
    def raft_members(self) -> int:
        return self.control_planes if self.store == "raftkv" else 0

    def to_json(self) -> dict[str, Any]:
        return attrs.asdict(self)

    @classmethod
    def from_json(cls, stored: dict[str, Any]) -> ClusterSpec:
        """Fields of a later version are left out."""
        known = {field.name for field in attrs.fields(cls)}
        return cls(**{key: value for key, value in stored.items() if key in known})


@attrs.frozen
class Component:
    """One process: `raftkv-1`, `apiserver-2`, `kubelet-1`. `node` is empty off the nodes."""

    role: str
    number: int

    @property
    def name(self) -> str:
        return f"{self.role}-{self.number}"

    @property
    def node(self) -> str:
        return f"node-{self.number}" if self.role in NODE_ROLES else ""


def components(spec: ClusterSpec) -> list[Component]:
    """All of a cluster's processes, in the order in which they are started."""
    counts = {
        "raftkv": spec.raft_members,
        "apiserver": spec.control_planes,
        "controller-manager": spec.control_planes,
        "kubelet": spec.nodes,
        "scheduler": spec.control_planes,
        "proxy": spec.nodes if spec.proxy != "none" else 0,
    }
    return [
        Component(role, number) for role, count in counts.items() for number in range(1, count + 1)
    ]


@attrs.frozen(kw_only=True)
class Place:
    """Where a cluster is on this machine. `slot` numbers its block of ports and, where nodes share
    the loopback, its range 127.(16+slot).0.0/16; `bridge` is the host's address on the switch.
    `relayed`: services are relayed in user space, so their addresses must be loopback ones."""

    port: int
    slot: int
    first_port: int
    relayed: bool = True
    bridge: str = ""
    subnet: str = ""
    service_slot: int | None = None
    """The slot of relayed services, where it is another: services keep the addresses that they
    have when the cluster has to move."""

    def to_json(self) -> dict[str, Any]:
        return attrs.asdict(self)

    @classmethod
    def from_json(cls, stored: dict[str, Any]) -> Place:
        return cls(**stored)

    @property
    def host(self) -> str:
        """The address of the host that components and pods reach."""
        return self.bridge or "127.0.0.1"

    @property
    def api(self) -> Address:
        """The address that all apiservers share; kubectl's."""
        return Address("127.0.0.1", self.port)

    def shared_addresses(self) -> list[Address]:
        """Where any apiserver answers: on loopback, and for nodes on the switch."""
        return [self.api, *([Address(self.bridge, self.port)] if self.bridge else [])]

    def raft_client(self, number: int) -> Address:
        return Address("127.0.0.1", self.first_port + 2 * number - 2)

    def raft_peer(self, number: int) -> Address:
        return Address("127.0.0.1", self.first_port + 2 * number - 1)

    def apiserver(self, number: int) -> Address:
        """The address of one apiserver."""
        return Address(self.host, self.first_port + 2 * CONTROL_PLANES_MAX + number - 1)

    @property
    def _octet(self) -> int:
        return 16 + self.slot

    @property
    def service_cidr(self) -> str:
        if not self.relayed:
            return "10.96.0.0/16"
        slot = self.slot if self.service_slot is None else self.service_slot
        return f"127.{16 + slot}.0.0/17"

    def moved(self, slot: int, first_port: int) -> Place:
        """Where nobody else is."""
        service_slot = self.slot if self.service_slot is None else self.service_slot
        return attrs.evolve(self, slot=slot, first_port=first_port, service_slot=service_slot)

    @property
    def dns_address(self) -> str:
        """The address of the service kube-dns: the tenth of the range, as usual."""
        return str(ipaddress.IPv4Network(self.service_cidr)[10])

    @property
    def balancer_pool(self) -> str:
        """Where load balancers' addresses come from: the upper half of the switch, on which no
        node is; else loopback addresses beside the nodes'."""
        if self.bridge:
            return str(list(ipaddress.IPv4Network(self.subnet).subnets())[1])
        return f"127.{self._octet}.240.0/24"

    def node_address(self, number: int) -> str:
        if self.bridge:
            return str(ipaddress.IPv4Network(self.subnet)[10 + number])
        return f"127.{self._octet}.128.{number}"

    def kubelet(self, number: int) -> Address:
        return Address(self.node_address(number), KUBELET_PORT)

    def pod_cidr(self, number: int) -> str:
        if self.bridge:
            return f"10.244.{number}.0/24"
        return f"127.{self._octet}.{128 + number}.0/24"

    @property
    def cluster_cidr(self) -> str:
        return "10.244.0.0/16" if self.bridge else f"127.{self._octet}.128.0/17"
