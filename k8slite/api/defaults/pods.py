"""Defaults of pods and pod templates, as k8s.io/kubernetes/pkg/apis/core/v1/defaults.go sets them.

Everything is filled in place. A zero that Go would take for "not set" is absent here already
(normalise dropped it), so `setdefault` is enough.
"""

from __future__ import annotations

import re

from k8slite.api.meta import Obj

SERVICE_ACCOUNT_TOKEN_SECONDS = 3600
_DOMAIN = r"(?:[a-zA-Z0-9-]+(?:\.[a-zA-Z0-9-]+)*|\[[a-fA-F0-9:]+\])(?::[0-9]+)?"
_PART = r"[a-z0-9]+(?:(?:[._]|__|-+)[a-z0-9]+)*"
_REFERENCE = re.compile(
    rf"((?:{_DOMAIN}/)?{_PART}(?:/{_PART})*)(?::([\w][\w.-]{{0,127}}))?(@[A-Za-z0-9+._-]+:[0-9a-fA-F]{{32,}})?"
)
FILE_MODE = 0o644


def default_pod(pod: Obj) -> None:
    spec = pod.setdefault("spec", {})
    for field in ("containers", "initContainers"):
        for container in spec.get(field) or ():
            _requests_from_limits(container)
    spec.setdefault("enableServiceLinks", True)
    default_pod_spec(spec)
    if spec.get("resources"):
        _default_pod_level_requests(spec)
    pod.setdefault("status", {})


def default_pod_template(template: Obj) -> None:
    template.setdefault("metadata", {})
    default_pod_spec(template.setdefault("spec", {}))


def default_pod_spec(spec: Obj) -> None:
    spec.setdefault("dnsPolicy", "ClusterFirst")
    spec.setdefault("restartPolicy", "Always")
    spec.setdefault("securityContext", {})
    spec.setdefault("terminationGracePeriodSeconds", 30)
    spec.setdefault("schedulerName", "default-scheduler")
    host_network = spec.get("hostNetwork", False)
    for container in spec.get("containers") or ():
        default_container(container, host_network)
    for container in spec.get("initContainers") or ():
        default_container(container, host_network)
    for container in spec.get("ephemeralContainers") or ():
        default_container(container, False)
    for volume in spec.get("volumes") or ():
        default_volume(volume)
    account = spec.get("serviceAccountName") or spec.get("serviceAccount")
    if account:
        spec["serviceAccountName"] = spec["serviceAccount"] = account


def default_container(container: Obj, host_network: bool) -> None:
    container.setdefault("resources", {})
    container.setdefault("terminationMessagePath", "/dev/termination-log")
    container.setdefault("terminationMessagePolicy", "File")
    if "imagePullPolicy" not in container:
        latest = image_tag(container.get("image", "")) == "latest"
        container["imagePullPolicy"] = "Always" if latest else "IfNotPresent"
    for port in container.get("ports") or ():
        port.setdefault("protocol", "TCP")
        if host_network and "containerPort" in port:
            port.setdefault("hostPort", port["containerPort"])
    for field in ("livenessProbe", "readinessProbe", "startupProbe"):
        if field in container:
            default_probe(container[field])
    for handler in (container.get("lifecycle") or {}).values():
        if isinstance(handler, dict) and "httpGet" in handler:
            _default_http_get(handler["httpGet"])
    for variable in container.get("env") or ():
        source = variable.get("valueFrom")
        if source:
            _default_field_reference(source)
            if "fileKeyRef" in source:
                source["fileKeyRef"].setdefault("optional", False)


def image_tag(image: str) -> str:
    """The tag of an image reference: "latest" where it names neither a tag nor a digest."""
    match = _REFERENCE.fullmatch(image)
    if match is None or len(match[1]) > 255 or match[3]:
        return ""
    return match[2] or "latest"


def _requests_from_limits(container: Obj) -> None:
    resources = container.get("resources")
    if resources and resources.get("limits"):
        requests = resources.setdefault("requests", {})
        for name, amount in resources["limits"].items():
            requests.setdefault(name, amount)


def _default_pod_level_requests(spec: Obj) -> None:
    resources = spec["resources"]
    limits = resources.get("limits")
    if not limits:
        return
    requests = resources.setdefault("requests", {})
    for name, amount in limits.items():
        if name not in requests and not _any_container_requests(spec, name):
            requests[name] = amount


def _any_container_requests(spec: Obj, name: str) -> bool:
    return any(
        name in ((c.get("resources") or {}).get("requests") or {})
        for c in spec.get("containers") or ()
    )


def default_probe(probe: Obj) -> None:
    probe.setdefault("timeoutSeconds", 1)
    probe.setdefault("periodSeconds", 10)
    probe.setdefault("successThreshold", 1)
    probe.setdefault("failureThreshold", 3)
    if "httpGet" in probe:
        _default_http_get(probe["httpGet"])
    if "grpc" in probe:
        probe["grpc"].setdefault("service", "")


def _default_http_get(action: Obj) -> None:
    action.setdefault("path", "/")
    action.setdefault("scheme", "HTTP")


def _default_field_reference(source: Obj) -> None:
    if "fieldRef" in source:
        source["fieldRef"].setdefault("apiVersion", "v1")
    if "resourceFieldRef" in source:
        source["resourceFieldRef"].setdefault("divisor", "0")


def default_volume(volume: Obj) -> None:
    if volume.keys() <= {"name"}:
        volume["emptyDir"] = {}
        return
    for field in ("secret", "configMap", "downwardAPI"):
        if field in volume:
            volume[field].setdefault("defaultMode", FILE_MODE)
            for item in volume[field].get("items") or ():
                _default_field_reference(item)
    if "projected" in volume:
        _default_projected(volume["projected"])
    if "hostPath" in volume:
        volume["hostPath"].setdefault("type", "")
    if "ephemeral" in volume:
        template = volume["ephemeral"].get("volumeClaimTemplate")
        if template is not None:
            template.setdefault("metadata", {})
            template.setdefault("spec", {}).setdefault("volumeMode", "Filesystem")
            template["spec"].setdefault("resources", {})
    default_legacy_volume(volume)


def _default_projected(projected: Obj) -> None:
    projected.setdefault("defaultMode", FILE_MODE)
    projected.setdefault("sources", None)
    for source in projected.get("sources") or ():
        for gated in ("clusterTrustBundle", "podCertificate"):  # beta, off in a stock server
            source.pop(gated, None)
        if "serviceAccountToken" in source:
            source["serviceAccountToken"].setdefault(
                "expirationSeconds", SERVICE_ACCOUNT_TOKEN_SECONDS
            )
        for item in (source.get("downwardAPI") or {}).get("items") or ():
            _default_field_reference(item)


def default_legacy_volume(volume: Obj) -> None:
    """Volume plugins of old that a persistent volume shares with pods."""
    if "iscsi" in volume:
        volume["iscsi"].setdefault("iscsiInterface", "default")
    if "rbd" in volume:
        rbd = volume["rbd"]
        rbd.setdefault("pool", "rbd")
        rbd.setdefault("user", "admin")
        rbd.setdefault("keyring", "/etc/ceph/keyring")
    if "azureDisk" in volume:
        disk = volume["azureDisk"]
        disk.setdefault("cachingMode", "ReadWrite")
        disk.setdefault("kind", "Shared")
        disk.setdefault("fsType", "ext4")
        disk.setdefault("readOnly", False)
    if "scaleIO" in volume:
        volume["scaleIO"].setdefault("storageMode", "ThinProvisioned")
        volume["scaleIO"].setdefault("fsType", "xfs")
