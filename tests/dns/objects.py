"""Services and slices for zones."""

from __future__ import annotations

from typing import Any

Obj = dict[str, Any]
HTTP = {"name": "http", "port": 80, "protocol": "TCP"}


def service(
    name: str = "web", ip: str = "10.96.0.50", namespace: str = "default", **spec: Any
) -> Obj:
    return {
        "metadata": {"name": name, "namespace": namespace},
        "spec": {"clusterIP": ip, "clusterIPs": [ip], "ports": [HTTP], **spec},
    }


def headless(name: str = "db", **spec: Any) -> Obj:
    return service(name, "None", **spec)


def external(name: str, target: str) -> Obj:
    return {
        "metadata": {"name": name, "namespace": "default"},
        "spec": {"type": "ExternalName", "externalName": target},
    }


def endpoint(ip: str, hostname: str = "", ready: bool = True) -> Obj:
    end: Obj = {"addresses": [ip], "conditions": {"ready": ready}}
    return {**end, "hostname": hostname} if hostname else end


def slice_of(service: str, *endpoints: Obj, suffix: str = "1", port: int = 8080) -> Obj:
    return {
        "metadata": {
            "name": f"{service}-{suffix}",
            "namespace": "default",
            "labels": {"kubernetes.io/service-name": service},
        },
        "addressType": "IPv6" if endpoints and ":" in endpoints[0]["addresses"][0] else "IPv4",
        "ports": [{"name": "http", "port": port, "protocol": "TCP"}],
        "endpoints": list(endpoints),
    }
