"""Plays recorded creations against the pure part of an apiserver: decode, default, prepare,
validate.

The recordings (`data/`) were taken from a stock kube-apiserver 1.36. What its admission plugins and
its address allocator add is stood in for by a few lines here; the real ones live in the apiserver.
"""

from __future__ import annotations

import gzip
import re
from pathlib import Path
from typing import Any

import orjson

from k8slite.api import codec, defaults, kinds, strategies, validation
from k8slite.api.kinds import Kind
from k8slite.api.meta import Obj
from k8slite.api.patch import create_merge_patch
from k8slite.api.status import ApiError, invalid

_VOLATILE = frozenset(("managedFields", "uid", "resourceVersion", "creationTimestamp"))
_UID = re.compile(r"[0-9a-f]{8}-[0-9a-f]{4}-[0-9a-f]{4}-[0-9a-f]{4}-[0-9a-f]{12}")
_TIME = re.compile(r"\d{4}-\d\d-\d\dT\d\d:\d\d:\d\d(\.\d+)?Z")
_ACCOUNT_PATH = "/var/run/secrets/kubernetes.io/serviceaccount"


def load(name: str) -> Any:
    """A recording under data/, unpacked."""
    packed = (Path(__file__).parent / "data" / name).read_bytes()
    return orjson.loads(gzip.decompress(packed))


def kind_of(path: str) -> Kind:
    parts = path.partition("?")[0].strip("/").split("/")
    if parts[0] == "api":
        parts.insert(1, "")
    group, version, *rest = parts[1:]
    if rest[0] == "namespaces" and len(rest) > 2:
        rest = rest[2:]
    kind = kinds.by_path(group, version, rest[0])
    assert kind is not None, path
    return kind


def create(path: str, body: Any, content_type: str = "application/json") -> tuple[int, Obj]:
    """(status code, object or Status) as POST would answer."""
    kind = kind_of(path)
    raw = body.encode() if isinstance(body, str) else orjson.dumps(body)
    try:
        obj = codec.decode(raw, content_type, kind).obj
        metadata = obj["metadata"]
        metadata["creationTimestamp"] = "2026-01-01T00:00:00Z"
        metadata["uid"] = "00000000-0000-0000-0000-000000000000"
        if kind.namespaced:
            metadata["namespace"] = path.split("/namespaces/")[1].split("/")[0]
        if not metadata.get("name") and metadata.get("generateName"):
            metadata["name"] = metadata["generateName"] + "abcde"
        defaults.apply_defaults(kind, obj)
        if kind is kinds.PODS:
            _admit_pod(obj["spec"])
        strategies.prepare_for_create(kind, obj)
        errors = validation.validate_create(kind, obj)
        if errors:
            raise invalid(kind, metadata.get("name", ""), errors)
        if kind is kinds.SERVICES:
            _allocate(obj["spec"])
    except ApiError as error:
        return error.code, error.to_status()
    return 201, obj


def _admit_pod(spec: Obj) -> None:
    spec.setdefault("serviceAccountName", "default")
    spec["serviceAccount"] = spec["serviceAccountName"]
    if spec.get("automountServiceAccountToken") is not False:
        _mount_token(spec)
    tolerations = spec.setdefault("tolerations", [])
    for condition in ("not-ready", "unreachable"):
        key = f"node.kubernetes.io/{condition}"
        tolerations.append(
            {"key": key, "operator": "Exists", "effect": "NoExecute", "tolerationSeconds": 300}
        )
    spec.setdefault("priority", 0)
    spec.setdefault("preemptionPolicy", "PreemptLowerPriority")


def _mount_token(spec: Obj) -> None:
    name = "kube-api-access-abcde"
    field = {"apiVersion": "v1", "fieldPath": "metadata.namespace"}
    for containers in ("initContainers", "containers"):
        for container in spec.get(containers) or ():
            mount = {"name": name, "readOnly": True, "mountPath": _ACCOUNT_PATH}
            container.setdefault("volumeMounts", []).append(mount)
    if not spec.get("containers") and not spec.get("initContainers"):
        return
    sources = [
        {"serviceAccountToken": {"expirationSeconds": 3607, "path": "token"}},
        {"configMap": {"name": "kube-root-ca.crt", "items": [{"key": "ca.crt", "path": "ca.crt"}]}},
        {"downwardAPI": {"items": [{"path": "namespace", "fieldRef": field}]}},
    ]
    volume = {"name": name, "projected": {"sources": sources, "defaultMode": 420}}
    spec.setdefault("volumes", []).append(volume)


def _allocate(spec: Obj) -> None:
    if spec["type"] == "ExternalName":
        return
    spec.setdefault("clusterIP", "10.96.0.7")
    spec.setdefault("clusterIPs", [spec["clusterIP"]])
    if spec["type"] in ("NodePort", "LoadBalancer") and spec.get(
        "allocateLoadBalancerNodePorts", True
    ):
        for port in spec.get("ports") or ():
            port.setdefault("nodePort", 32000)
    free = spec["clusterIP"] == "None" and not spec.get("selector")
    spec.setdefault("ipFamilies", ["IPv4", "IPv6"] if free else ["IPv4"])
    spec.setdefault("ipFamilyPolicy", "RequireDualStack" if free else "SingleStack")


def normalise(value: Any, key: str = "") -> Any:
    """What differs from run to run is replaced by a word."""
    if isinstance(value, dict):
        return {k: normalise(v, k) for k, v in value.items() if k not in _VOLATILE}
    if isinstance(value, list):
        return [normalise(v, key) for v in value]
    if isinstance(value, str):
        if key in ("clusterIP", "clusterIPs") and re.fullmatch(r"10\.\d+\.\d+\.\d+", value):
            return "<ip>"
        value = _TIME.sub("<time>", _UID.sub("<uid>", value))
        return re.sub(r"\b(Bad_|kube-api-access-)[a-z0-9]{5}\b", r"\1<random>", value)
    if key in ("nodePort", "healthCheckNodePort") and value:
        return "<port>"
    return value


def difference(base: Obj, obj: Obj) -> Obj:
    """The merge patch from one answer to the other, without what differs in every run."""
    return create_merge_patch(normalise(base), normalise(obj))
