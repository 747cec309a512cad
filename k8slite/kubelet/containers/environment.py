"""The environment of a container. Pure: ConfigMaps and Secrets are handed in.

Order as in the kubelet: service variables, then `envFrom`, then `env`, later ones winning;
`$(NAME)` sees what stands before it and the service variables.
"""

from __future__ import annotations

import base64
import binascii
from collections.abc import Iterable, Mapping

import attrs

from k8slite.api.meta import Obj
from k8slite.kubelet.containers.expansion import expand
from k8slite.kubelet.containers.fields import NodeFacts, field_value, resource_value
from k8slite.kubelet.runtime.interface import ConfigFailure

KINDS = {"configMap": "configmap", "secret": "secret"}
WORDS = {"configMap": "ConfigMap", "secret": "Secret"}


@attrs.frozen
class Sources:
    """The objects a pod refers to, by (kind, name) with kind `configMap` or `secret`."""

    objects: Mapping[tuple[str, str], Obj]

    def find(self, kind: str, name: str, *, optional: bool) -> Obj | None:
        """Raises ConfigFailure when it is not there and not optional."""
        found = self.objects.get((kind, name))
        if found is None and not optional:
            raise ConfigFailure(f'{KINDS[kind]} "{name}" not found')
        return found


def references(container: Obj) -> list[tuple[str, str]]:
    """The (kind, name) of all objects the container's environment is made from."""
    found = []
    for source in container.get("envFrom") or ():
        for kind in KINDS:
            if source.get(f"{kind}Ref"):
                found.append((kind, source[f"{kind}Ref"]["name"]))
    for entry in container.get("env") or ():
        for kind in KINDS:
            reference = (entry.get("valueFrom") or {}).get(f"{kind}KeyRef")
            if reference:
                found.append((kind, reference["name"]))
    return list(dict.fromkeys(found))


def data_of(kind: str, obj: Obj) -> dict[str, bytes]:
    """The content of a ConfigMap or Secret."""
    if kind == "configMap":
        plain = {key: text.encode() for key, text in (obj.get("data") or {}).items()}
        coded = obj.get("binaryData") or {}
    else:
        plain, coded = {}, obj.get("data") or {}
    for key, text in coded.items():
        try:
            plain[key] = base64.b64decode(text or "")
        except binascii.Error as error:
            name = obj["metadata"]["name"]
            raise ConfigFailure(f"{KINDS[kind]} {name}: key {key} is not base64: {error}") from None
    return plain


def service_variables(services: Iterable[Obj], namespace: str, *, links: bool) -> dict[str, str]:
    """The variables of the default/kubernetes Service, and with `links` of the namespace's."""
    env: dict[str, str] = {}
    for service in services:
        meta = service["metadata"]
        master = (meta["namespace"], meta["name"]) == ("default", "kubernetes")
        if not master and not (links and meta["namespace"] == namespace):
            continue
        spec = service["spec"]
        address = spec.get("clusterIP")
        ports = spec.get("ports") or []
        if not address or address == "None" or not ports:
            continue
        env.update(_links(meta["name"].upper().replace("-", "_"), address, ports))
    return env


def _links(prefix: str, address: str, ports: list[Obj]) -> dict[str, str]:
    env = {f"{prefix}_SERVICE_HOST": address, f"{prefix}_SERVICE_PORT": str(ports[0]["port"])}
    for port in ports:
        if port.get("name"):
            name = port["name"].upper().replace("-", "_")
            env[f"{prefix}_SERVICE_PORT_{name}"] = str(port["port"])
    for number, port in enumerate(ports):
        protocol = port.get("protocol", "TCP")
        url = f"{protocol.lower()}://{address}:{port['port']}"
        stem = f"{prefix}_PORT_{port['port']}_{protocol}"
        if number == 0:
            env[f"{prefix}_PORT"] = url
        env[stem] = url
        env[f"{stem}_PROTO"] = protocol.lower()
        env[f"{stem}_PORT"] = str(port["port"])
        env[f"{stem}_ADDR"] = address
    return env


def make_environment(
    pod: Obj,
    container: Obj,
    *,
    sources: Sources,
    services: Mapping[str, str],
    node: NodeFacts,
    pod_ip: str,
) -> dict[str, str]:
    """All variables, in order. Raises ConfigFailure in the kubelet's words."""
    namespace = pod["metadata"]["namespace"]
    env: dict[str, str] = {}
    for source in container.get("envFrom") or ():
        env.update(_from_object(source, sources))
    known = {**services, **env}
    for entry in container.get("env") or ():
        name = entry["name"]
        if entry.get("valueFrom"):
            found = _from_reference(
                pod, container, entry["valueFrom"], namespace, sources, node, pod_ip
            )
            if found is None:
                continue
            text = found
        else:
            text = expand(entry.get("value") or "", known)
        env[name] = known[name] = text
    return {**services, **env}


def _from_object(source: Obj, sources: Sources) -> dict[str, str]:
    prefix = source.get("prefix") or ""
    for kind in KINDS:
        reference = source.get(f"{kind}Ref")
        if reference:
            obj = sources.find(kind, reference["name"], optional=bool(reference.get("optional")))
            if obj is None:
                return {}
            return {prefix + key: _text(data) for key, data in sorted(data_of(kind, obj).items())}
    return {}


def _from_reference(
    pod: Obj,
    container: Obj,
    source: Obj,
    namespace: str,
    sources: Sources,
    node: NodeFacts,
    pod_ip: str,
) -> str | None:
    if source.get("fieldRef"):
        return field_value(pod, source["fieldRef"]["fieldPath"], node, pod_ip)
    if source.get("resourceFieldRef"):
        return resource_value(pod, container["name"], source["resourceFieldRef"], node)
    for kind in KINDS:
        reference = source.get(f"{kind}KeyRef")
        if not reference:
            continue
        optional = bool(reference.get("optional"))
        obj = sources.find(kind, reference["name"], optional=optional)
        if obj is None:
            return None
        data = data_of(kind, obj)
        if reference["key"] in data:
            return _text(data[reference["key"]])
        if optional:
            return None
        raise ConfigFailure(
            f"couldn't find key {reference['key']} in {WORDS[kind]} {namespace}/{reference['name']}"
        )
    raise ConfigFailure("an environment variable's valueFrom names no source this kubelet knows")


def _text(data: bytes) -> str:
    return data.decode("utf-8", "surrogateescape")
