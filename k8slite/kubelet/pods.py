"""Questions about a pod's specification that several parts of the kubelet ask. Pure."""

from __future__ import annotations

import hashlib
from collections.abc import Iterator, Sequence
from typing import Any

import attrs
import orjson

from k8slite.api.meta import Obj
from k8slite.kubelet.runtime.interface import ContainerState, ContainerStatus, SandboxStatus

TERMINAL = ("Succeeded", "Failed")
MIRROR = "kubernetes.io/config.mirror"
SOURCE = "kubernetes.io/config.source"


@attrs.frozen
class Observed:
    """What the runtime has of one pod: sandboxes newest first, containers oldest first."""

    sandboxes: tuple[SandboxStatus, ...] = ()
    containers: tuple[ContainerStatus, ...] = ()

    def latest(self, name: str) -> ContainerStatus | None:
        """The newest container of that name."""
        return next((c for c in reversed(self.containers) if c.name == name), None)

    def before(self, status: ContainerStatus) -> ContainerStatus | None:
        """The container of the same name that ran before this one."""
        older = [c for c in self.containers if c.name == status.name and c.id != status.id]
        return older[-1] if older else None

    def running(self) -> list[ContainerStatus]:
        return [c for c in self.containers if c.state is ContainerState.RUNNING]

    @property
    def sandbox(self) -> SandboxStatus | None:
        """The newest sandbox, if it is ready."""
        if self.sandboxes and self.sandboxes[0].ready:
            return self.sandboxes[0]
        return None


def containers(pod: Obj) -> list[Obj]:
    found: list[Obj] = pod["spec"]["containers"]
    return found


def init_containers(pod: Obj) -> list[Obj]:
    return pod["spec"].get("initContainers") or []


def ephemeral_containers(pod: Obj) -> list[Obj]:
    """Those that somebody has added to a running pod, to look around in it."""
    return pod["spec"].get("ephemeralContainers") or []


def all_containers(pod: Obj) -> Iterator[Obj]:
    yield from init_containers(pod)
    yield from containers(pod)
    yield from ephemeral_containers(pod)


def find_container(pod: Obj, name: str) -> Obj | None:
    return next((c for c in all_containers(pod) if c["name"] == name), None)


def is_sidecar(container: Obj) -> bool:
    """An init container that stays: `restartPolicy: Always`."""
    return container.get("restartPolicy") == "Always"


def restart_policy(pod: Obj, container: Obj | None = None) -> str:
    own = (container or {}).get("restartPolicy")
    policy: str = own or pod["spec"].get("restartPolicy", "Always")
    return policy


def should_restart(policy: str, exit_code: int) -> bool:
    return policy == "Always" or (policy == "OnFailure" and exit_code != 0)


def grace_seconds(pod: Obj) -> int:
    """How long the pod may take to end: as its deletion says, else as its specification."""
    asked = pod["metadata"].get("deletionGracePeriodSeconds")
    if asked is None:
        asked = pod["spec"].get("terminationGracePeriodSeconds")
    return 30 if asked is None else int(asked)


def phase(pod: Obj) -> str:
    found: str = (pod.get("status") or {}).get("phase", "Pending")
    return found


def spec_hash(container: Obj) -> str:
    """Changes when a running container no longer is what the pod asks for (its image, mostly)."""
    fixed = {k: v for k, v in container.items() if k in ("name", "image")}
    return hashlib.sha256(orjson.dumps(fixed, option=orjson.OPT_SORT_KEYS)).hexdigest()[:16]


def unsupported(pod: Obj) -> list[str]:
    """What the pod asks for and no runtime of ours gives, in words for events."""
    found = []
    if pod["spec"].get("shareProcessNamespace"):
        found.append("shareProcessNamespace: each container has its own process namespace")
    if not pod["spec"].get("hostNetwork"):
        for container in all_containers(pod):
            for port in container.get("ports") or ():
                if port.get("hostPort"):
                    text = (
                        f"hostPort {port['hostPort']} of container {container['name']} is not bound"
                    )
                    found.append(text)
    return found


def is_mirror(pod: Obj) -> bool:
    """Whether it is the object that shows a static pod in the API."""
    return MIRROR in (pod["metadata"].get("annotations") or {})


def is_static(pod: Obj) -> bool:
    """Whether the pod is from a file of its node, not from the API."""
    notes = pod["metadata"].get("annotations") or {}
    return notes.get(SOURCE, "api") != "api" and not is_mirror(pod)


def full_name(pod: Obj) -> str:
    """`NAME_NAMESPACE(UID)`, as the kubelet's messages call a pod."""
    meta = pod["metadata"]
    return f"{meta['name']}_{meta['namespace']}({meta['uid']})"


def named_port(container: Obj, port: Any, protocol: str = "TCP") -> int | None:
    """The number of a port given by number or name; None when no such port is declared."""
    if isinstance(port, int):
        return port
    if str(port).isdigit():
        return int(port)
    declared: Sequence[Obj] = container.get("ports") or ()
    for entry in declared:
        if entry.get("name") == port and entry.get("protocol", "TCP") == protocol:
            return int(entry["containerPort"])
    return None
