"""What the scheduler needs to know of a pod, worked out once (pure).

Amounts are integers: `cpu` in thousandths, everything else in whole units (bytes, devices).
"""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Mapping

import orjson
from attrs import define, field

from k8slite.api import quantity
from k8slite.api.meta import Obj, controller_of, deleting, key, make_key, name, namespace, uid
from k8slite.scheduler.terms import Term, read_terms

__all__ = ["HostPort", "PodInfo", "amounts", "pod_info", "pod_requests"]

HostPort = tuple[str, str, int]
"""(address, protocol, port); address "0.0.0.0" is all of them."""
SCORE_CPU_MIN = 100
SCORE_MEMORY_MIN = 200 * 1024 * 1024
"""What a container without requests counts as when nodes are compared."""


def amounts(resources: Mapping[str, str] | None) -> dict[str, int]:
    """A ResourceList as integers."""
    return {
        resource: quantity.milli_value(text) if resource == "cpu" else quantity.value(text)
        for resource, text in (resources or {}).items()
    }


def add_to(total: dict[str, int], more: Mapping[str, int]) -> None:
    for resource, amount in more.items():
        total[resource] = total.get(resource, 0) + amount


def raise_to(total: dict[str, int], least: Mapping[str, int]) -> None:
    for resource, amount in least.items():
        if amount > total.get(resource, 0):
            total[resource] = amount


def pod_requests(spec: Obj, *, cpu_min: int = 0, memory_min: int = 0) -> dict[str, int]:
    """What the pod takes of a node: its containers and sidecars together, or its largest init
    container (with the sidecars started before it), and the overhead of its runtime class."""

    def requests(container: Obj) -> dict[str, int]:
        wanted = amounts((container.get("resources") or {}).get("requests"))
        if cpu_min or memory_min:
            wanted.setdefault("cpu", cpu_min)
            wanted.setdefault("memory", memory_min)
        return wanted

    total: dict[str, int] = {}
    for container in spec.get("containers") or ():
        add_to(total, requests(container))
    sidecars: dict[str, int] = {}
    peak: dict[str, int] = {}
    for container in spec.get("initContainers") or ():
        wanted = requests(container)
        if container.get("restartPolicy") == "Always":
            add_to(sidecars, wanted)
            raise_to(peak, sidecars)
        else:
            add_to(wanted, sidecars)
            raise_to(peak, wanted)
    add_to(total, sidecars)
    raise_to(total, peak)
    whole_pod = (spec.get("resources") or {}).get("requests")
    if whole_pod:
        total.update(amounts(whole_pod))
    add_to(total, amounts(spec.get("overhead")))
    return total


def host_ports(spec: Obj) -> tuple[HostPort, ...]:
    sidecars = [c for c in spec.get("initContainers") or () if c.get("restartPolicy") == "Always"]
    return tuple(
        (port.get("hostIP") or "0.0.0.0", port.get("protocol") or "TCP", port["hostPort"])
        for container in [*(spec.get("containers") or ()), *sidecars]
        for port in container.get("ports") or ()
        if port.get("hostPort")
    )


def claim_keys(pod: Obj) -> Iterator[str]:
    """The claims that its volumes are, by name or made for it."""
    for volume in pod["spec"].get("volumes") or ():
        if volume.get("persistentVolumeClaim"):
            yield make_key(namespace(pod), volume["persistentVolumeClaim"]["claimName"])
        elif "ephemeral" in volume:
            yield make_key(namespace(pod), f"{name(pod)}-{volume['name']}")


@define(eq=False)
class PodInfo:
    """A pod and what follows from its spec. `node` is "" until it is bound or assumed."""

    pod: Obj
    key: str
    uid: str
    node: str
    namespace: str
    labels: Mapping[str, str]
    priority: int
    requests: dict[str, int]
    score_cpu: int
    score_memory: int
    ports: tuple[HostPort, ...]
    owner: str
    """The uid of its controller, "" for none: pods of one controller are spread."""
    owner_kind: str = ""
    claims: tuple[str, ...] = ()
    """Keys of its PersistentVolumeClaims."""
    resource_claims: bool = False
    affinity: Obj = field(factory=dict)
    tolerations: Iterable[Obj] = ()
    node_selector: Mapping[str, str] = field(factory=dict)
    spread: tuple[Obj, ...] = ()
    terms: tuple[Term, ...] = ()
    scheduler_name: str = "default-scheduler"
    stopping: bool = False
    nominated: str = ""
    """The node that is promised to it, see `Snapshot.nominate`."""
    _shape: bytes = b""

    @property
    def shape(self) -> bytes:
        """Equal for pods that a node takes or refuses alike, as far as other pods' labels do not
        matter."""
        if not self._shape:
            spec = self.pod["spec"]
            said = [
                self.requests,
                [self.score_cpu, self.score_memory, self.ports],
                self.tolerations,
                self.node_selector,
                self.affinity.get("nodeAffinity"),
                spec.get("nodeName"),
                [c.get("image") for c in spec.get("containers") or ()],
            ]
            self._shape = orjson.dumps(said, option=orjson.OPT_SORT_KEYS)
        return self._shape


def pod_info(pod: Obj) -> PodInfo:
    spec = pod["spec"]
    for_score = pod_requests(spec, cpu_min=SCORE_CPU_MIN, memory_min=SCORE_MEMORY_MIN)
    owner = controller_of(pod)
    info = PodInfo(
        pod=pod,
        key=key(pod),
        uid=uid(pod),
        node=spec.get("nodeName") or "",
        namespace=namespace(pod),
        labels=pod["metadata"].get("labels") or {},
        priority=spec.get("priority") or 0,
        requests={r: n for r, n in pod_requests(spec).items() if n},
        score_cpu=for_score.get("cpu", 0),
        score_memory=for_score.get("memory", 0),
        ports=host_ports(spec),
        owner=owner["uid"] if owner else "",
        owner_kind=owner["kind"] if owner else "",
        affinity=spec.get("affinity") or {},
        tolerations=tuple(spec.get("tolerations") or ()),
        node_selector=spec.get("nodeSelector") or {},
        spread=tuple(spec.get("topologySpreadConstraints") or ()),
        claims=tuple(claim_keys(pod)) if spec.get("volumes") else (),
        resource_claims=bool(spec.get("resourceClaims")),
        scheduler_name=spec.get("schedulerName") or "default-scheduler",
        stopping=deleting(pod),
    )
    if info.affinity:
        info.terms = read_terms(info)
    return info
