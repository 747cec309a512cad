"""Pods: service account and its token volume, priority, tolerations, runtime class."""

from __future__ import annotations

from k8slite.api.kinds import KIND, PRIORITY_CLASSES, RUNTIME_CLASSES, SERVICE_ACCOUNTS
from k8slite.api.meta import Obj
from k8slite.api.status import ApiError, forbidden, plain_internal
from k8slite.apiserver.call import Call
from k8slite.apiserver.registry.identity import new_name
from k8slite.apiserver.watch_cache import Entry

__all__ = [
    "default_tolerations",
    "overhead_has_class",
    "priority",
    "runtime_class",
    "service_account",
]

TOKEN_PATH = "/var/run/secrets/kubernetes.io/serviceaccount"
TOKEN_SECONDS = 3607
MIRROR = "kubernetes.io/config.mirror"
_TAINTS = ("node.kubernetes.io/not-ready", "node.kubernetes.io/unreachable")


async def _look_up(call: Call, kind_name: str, namespace: str, name: str) -> Entry | None:
    """An object by name; not in the mirror means only perhaps not there."""
    cache = call.core.mirror.cache(KIND[kind_name])
    found = cache.get(namespace, name)
    if found is None:
        await call.core.mirror.wait_fresh()
        found = cache.get(namespace, name)
    return found


async def service_account(call: Call, new: Obj, old: Obj | None) -> None:
    """Every pod has a service account that exists, and a token of it. Raises ApiError 403."""
    if old is not None:
        return
    metadata, spec = new["metadata"], new.setdefault("spec", {})
    if MIRROR in (metadata.get("annotations") or {}):
        return
    name = spec.get("serviceAccountName") or spec.get("serviceAccount") or "default"
    spec["serviceAccountName"] = spec["serviceAccount"] = name
    entry = await _look_up(call, SERVICE_ACCOUNTS.resource, call.namespace, name)
    if entry is None:
        message = (
            f"error looking up service account {call.namespace}/{name}: "
            f'serviceaccount "{name}" not found'
        )
        raise forbidden(call.kind, metadata.get("name", ""), message)
    account = entry.parsed()
    wanted = spec.get("automountServiceAccountToken")
    if wanted is None:
        wanted = account.get("automountServiceAccountToken", True)
    if wanted:
        _mount_token(call, spec)
    if not spec.get("imagePullSecrets") and account.get("imagePullSecrets"):
        spec["imagePullSecrets"] = account["imagePullSecrets"]


def _mount_token(call: Call, spec: Obj) -> None:
    """Give each container that has nothing mounted there the token, CA and namespace."""
    volumes = spec.setdefault("volumes", [])
    volume = next((v["name"] for v in volumes if v["name"].startswith("kube-api-access-")), "")
    used = False
    name = volume or new_name("kube-api-access-", call.core.host.rng)
    for container in [*(spec.get("initContainers") or ()), *(spec.get("containers") or ())]:
        mounts = container.setdefault("volumeMounts", [])
        if any(mount.get("mountPath") == TOKEN_PATH for mount in mounts):
            continue
        mounts.append({"name": name, "readOnly": True, "mountPath": TOKEN_PATH})
        used = True
    if used and not volume:
        volumes.append({"name": name, "projected": _token_sources()})
    if not volumes:
        del spec["volumes"]


def _token_sources() -> Obj:
    namespace = {"apiVersion": "v1", "fieldPath": "metadata.namespace"}
    return {
        "sources": [
            {"serviceAccountToken": {"expirationSeconds": TOKEN_SECONDS, "path": "token"}},
            {
                "configMap": {
                    "name": "kube-root-ca.crt",
                    "items": [{"key": "ca.crt", "path": "ca.crt"}],
                }
            },
            {"downwardAPI": {"items": [{"path": "namespace", "fieldRef": namespace}]}},
        ],
        "defaultMode": 420,
    }


async def priority(call: Call, new: Obj, old: Obj | None) -> None:
    """From a priority class's name to its number. Raises ApiError 403."""
    spec = new.setdefault("spec", {})
    if old is not None:
        for key in ("priority", "preemptionPolicy"):
            if spec.get(key) is None and (old.get("spec") or {}).get(key) is not None:
                spec[key] = old["spec"][key]
        return
    name = spec.get("priorityClassName", "")
    chosen: Obj | None = None
    if name:
        entry = await _look_up(call, PRIORITY_CLASSES.resource, "", name)
        if entry is None:
            message = f"no PriorityClass with name {name} was found"
            raise forbidden(call.kind, new["metadata"].get("name", ""), message)
        chosen = entry.parsed()
    else:
        for entry in call.core.mirror.cache(PRIORITY_CLASSES).entries.values():
            given = entry.parsed()
            if given.get("globalDefault") and (chosen is None or given["value"] < chosen["value"]):
                chosen = given
                spec["priorityClassName"] = entry.name
    value = chosen["value"] if chosen else 0
    policy = (chosen or {}).get("preemptionPolicy", "PreemptLowerPriority")
    if spec.get("priority") is not None and spec["priority"] != value:
        raise forbidden(
            call.kind,
            new["metadata"].get("name", ""),
            f"the integer value of priority ({spec['priority']}) must not be provided in pod "
            f"spec; priority admission controller computed {value} from the given PriorityClass "
            "name",
        )
    spec["priority"] = value
    if spec.get("preemptionPolicy") not in (None, policy):
        raise forbidden(
            call.kind,
            new["metadata"].get("name", ""),
            f"the string value of PreemptionPolicy ({spec['preemptionPolicy']}) must not be "
            f"provided in pod spec; priority admission controller computed {policy} from the "
            "given PriorityClass name",
        )
    spec["preemptionPolicy"] = policy


async def default_tolerations(call: Call, new: Obj, old: Obj | None) -> None:
    """DefaultTolerationSeconds: how long a pod stays on a node that is gone."""
    spec = new.setdefault("spec", {})
    given = spec.get("tolerations") or []
    for taint in _TAINTS:
        tolerated = any(
            t.get("key") in (taint, None, "") and t.get("effect") in ("NoExecute", None, "")
            for t in given
        )
        if not tolerated:
            given = [
                *given,
                {
                    "key": taint,
                    "operator": "Exists",
                    "effect": "NoExecute",
                    "tolerationSeconds": call.core.config.toleration_seconds,
                },
            ]
    if given:
        spec["tolerations"] = given


async def runtime_class(call: Call, new: Obj, old: Obj | None) -> None:
    """Overhead and scheduling of the runtime class. Raises ApiError 403."""
    spec = new.setdefault("spec", {})
    name = spec.get("runtimeClassName")
    pod = new["metadata"].get("name", "")
    if old is not None:
        return
    if name is None:
        return
    if not name:
        raise plain_internal("resource name may not be empty")
    entry = await _look_up(call, RUNTIME_CLASSES.resource, "", name)
    if entry is None:
        raise forbidden(call.kind, pod, f'pod rejected: RuntimeClass "{name}" not found')
    chosen = entry.parsed()
    overhead = (chosen.get("overhead") or {}).get("podFixed")
    if overhead:
        if spec.get("overhead") not in (None, overhead):
            raise forbidden(
                call.kind, pod, "pod rejected: Pod's Overhead doesn't match RuntimeClass's"
            )
        spec["overhead"] = overhead
    scheduling = chosen.get("scheduling") or {}
    selector = scheduling.get("nodeSelector") or {}
    for key, value in selector.items():
        if (spec.get("nodeSelector") or {}).get(key, value) != value:
            raise ApiError(
                409,
                "Conflict",
                f"conflict: runtimeClass.scheduling.nodeSelector[{key}] = {value}",
                {},
            )
    if selector:
        spec["nodeSelector"] = {**(spec.get("nodeSelector") or {}), **selector}
    for toleration in scheduling.get("tolerations") or ():
        if toleration not in (spec.get("tolerations") or ()):
            spec["tolerations"] = [*(spec.get("tolerations") or ()), toleration]


async def overhead_has_class(call: Call, new: Obj, old: Obj | None) -> None:
    """Overhead is a runtime class's to say. Raises ApiError 403."""
    spec = new.get("spec") or {}
    if old is None and spec.get("overhead") and not spec.get("runtimeClassName"):
        raise forbidden(
            call.kind,
            new["metadata"].get("name", ""),
            "pod rejected: Pod Overhead set without corresponding RuntimeClass defined Overhead",
        )
