"""A container's resources, security and mounts as the runtime takes them. Pure."""

from __future__ import annotations

from collections.abc import Mapping

from k8slite.api.meta import Obj
from k8slite.api.quantity import milli_value, value
from k8slite.kubelet.containers.fields import cpu_shares
from k8slite.kubelet.runtime.interface import Resources, Security

PERIOD_US = 100_000
QUOTA_US_MIN = 1000
OOM_BY_CLASS = {"Guaranteed": -997, "BestEffort": 1000}


def resources_of(pod: Obj, container: Obj, *, pids_max: int, memory_total: int) -> Resources:
    """Limits of the kernel from requests and limits, as the kubelet computes them."""
    given = container.get("resources") or {}
    requests, limits = given.get("requests") or {}, given.get("limits") or {}
    request = requests.get("cpu", limits.get("cpu"))
    quota = 0
    if limits.get("cpu"):
        quota = max(QUOTA_US_MIN, milli_value(str(limits["cpu"])) * PERIOD_US // 1000)
    memory = value(str(limits["memory"])) if limits.get("memory") else 0
    wanted = requests.get("memory", limits.get("memory"))
    quality = (pod.get("status") or {}).get("qosClass", "")
    return Resources(
        cpu_shares=cpu_shares(milli_value(str(request)) if request else 0),
        cpu_quota_us=quota,
        cpu_period_us=PERIOD_US,
        memory_bytes=memory,
        pids_max=pids_max,
        oom_score_adj=OOM_BY_CLASS.get(
            quality, _burstable(value(str(wanted)) if wanted else 0, memory_total)
        ),
    )


def memory_of(capacity: Mapping[str, str]) -> int:
    """A node's memory in bytes."""
    return value(str(capacity["memory"]))


def _burstable(memory: int, total: int) -> int:
    """The more of the node's memory was asked for, the later the pod is killed for memory."""
    share = 1000 - 1000 * memory // max(total, 1)
    return max(3, min(999, share))


def security_of(pod: Obj, container: Obj) -> Security:
    """The container's security context over the pod's."""
    of_pod = pod["spec"].get("securityContext") or {}
    own = container.get("securityContext") or {}
    capabilities = own.get("capabilities") or {}
    groups = list(of_pod.get("supplementalGroups") or ())
    if of_pod.get("fsGroup") is not None:
        groups.append(of_pod["fsGroup"])
    return Security(
        user=own.get("runAsUser", of_pod.get("runAsUser")),
        group=own.get("runAsGroup", of_pod.get("runAsGroup")),
        supplemental_groups=tuple(groups),
        run_as_non_root=bool(own.get("runAsNonRoot", of_pod.get("runAsNonRoot"))),
        privileged=bool(own.get("privileged")),
        read_only_root=bool(own.get("readOnlyRootFilesystem")),
        no_new_privileges=own.get("allowPrivilegeEscalation") is False,
        add_capabilities=tuple(capabilities.get("add") or ()),
        drop_capabilities=tuple(capabilities.get("drop") or ()),
    )
