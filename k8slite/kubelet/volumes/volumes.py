"""What the volumes of a pod hold. Pure: objects and tokens are handed in.

A volume becomes a path of the machine (`hostPath`, a bound claim, also one made for the pod), an
empty directory, files with content and mode, or the root of an image. `volume_files` keeps them on
disk.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping

import attrs

from k8slite.api.meta import Obj
from k8slite.api.quantity import value
from k8slite.kubelet.containers.environment import Sources, data_of
from k8slite.kubelet.containers.fields import NodeFacts, field_value, resource_value
from k8slite.kubelet.runtime.interface import ConfigFailure

DEFAULT_MODE = 0o644


@attrs.frozen
class Files:
    """Relative paths with content and mode."""

    entries: Mapping[str, tuple[bytes, int]]


@attrs.frozen
class EmptyDirectory:
    """`memory`: on a tmpfs of `size_bytes` (0: no limit)."""

    memory: bool = False
    size_bytes: int = 0


@attrs.frozen
class HostPath:
    """A path of the machine; `type` as in HostPathVolumeSource."""

    path: str
    type: str = ""


@attrs.frozen
class ImageRoot:
    """The root of an image, read-only."""

    reference: str
    pull_policy: str


@attrs.frozen
class TokenRequest:
    """A service account token wanted: for whom, and for how long."""

    audience: str
    expiration_seconds: int


Content = Files | EmptyDirectory | HostPath | ImageRoot
Tokens = Callable[[TokenRequest], str]


def claim_name(pod: Obj, volume: Obj) -> str:
    """The claim that the volume is: named, or made for this pod; "" for other volumes."""
    if volume.get("ephemeral"):
        return f"{pod['metadata']['name']}-{volume['name']}"
    name: str = (volume.get("persistentVolumeClaim") or {}).get("claimName") or ""
    return name


def object_references(volume: Obj) -> list[tuple[str, str]]:
    """The (kind, name) of ConfigMaps and Secrets the volume is made from."""
    found = []
    if volume.get("configMap"):
        found.append(("configMap", volume["configMap"]["name"]))
    if volume.get("secret"):
        found.append(("secret", volume["secret"]["secretName"]))
    for source in (volume.get("projected") or {}).get("sources") or ():
        for kind in ("configMap", "secret"):
            if source.get(kind):
                found.append((kind, source[kind]["name"]))
    return found


def token_requests(volume: Obj) -> list[TokenRequest]:
    return [
        _token_request(source["serviceAccountToken"])
        for source in (volume.get("projected") or {}).get("sources") or ()
        if source.get("serviceAccountToken")
    ]


def _token_request(source: Obj) -> TokenRequest:
    return TokenRequest(source.get("audience") or "", source.get("expirationSeconds") or 3600)


def content_of(
    pod: Obj,
    volume: Obj,
    *,
    sources: Sources,
    tokens: Mapping[TokenRequest, str],
    claims: Mapping[str, str],
    node: NodeFacts,
    pod_ip: str,
) -> Content:
    """The volume's content. `claims` gives the path of each bound claim.

    Raises ConfigFailure in the kubelet's words when something is missing or not supported.
    """
    if "emptyDir" in volume:
        source = volume["emptyDir"] or {}
        limit = source.get("sizeLimit")
        return EmptyDirectory(source.get("medium") == "Memory", value(str(limit)) if limit else 0)
    if volume.get("hostPath"):
        return HostPath(volume["hostPath"]["path"], volume["hostPath"].get("type") or "")
    if volume.get("image"):
        source = volume["image"]
        policy = source.get("pullPolicy") or "IfNotPresent"
        return ImageRoot(source.get("reference") or "", policy)
    name = claim_name(pod, volume)
    if name:
        if name not in claims:
            raise ConfigFailure(f'persistentvolumeclaim "{name}" is not bound to a local volume')
        return HostPath(claims[name])
    if volume.get("configMap"):
        return _object_files("configMap", volume["configMap"]["name"], volume["configMap"], sources)
    if volume.get("secret"):
        return _object_files("secret", volume["secret"]["secretName"], volume["secret"], sources)
    if volume.get("downwardAPI"):
        return _downward(pod, volume["downwardAPI"], DEFAULT_MODE, node, pod_ip)
    if volume.get("projected"):
        return _projected(pod, volume["projected"], sources, tokens, node, pod_ip)
    kinds = ", ".join(sorted(key for key in volume if key != "name"))
    raise ConfigFailure(f"volume {volume['name']}: {kinds or 'its kind'} is not supported here")


def _object_files(
    kind: str, name: str, source: Obj, sources: Sources, mode: int = DEFAULT_MODE
) -> Files:
    optional = bool(source.get("optional"))
    mode = source.get("defaultMode") or mode
    obj = sources.find(kind, name, optional=optional)
    if obj is None:
        return Files({})
    data = data_of(kind, obj)
    items = source.get("items")
    if not items:
        return Files({key: (content, mode) for key, content in sorted(data.items())})
    entries = {}
    for item in items:
        if item["key"] not in data:
            if optional:
                continue
            raise ConfigFailure(f"references non-existent {kind.lower()} key: {item['key']}")
        entries[_checked(item["path"])] = (data[item["key"]], item.get("mode") or mode)
    return Files(entries)


def _checked(path: str) -> str:
    """A relative path that stays inside. The API refuses others; here nothing is trusted."""
    if path.startswith("/") or ".." in path.split("/") or not path:
        raise ConfigFailure(f"invalid path {path!r} in a volume")
    return path


def _downward(pod: Obj, source: Obj, mode: int, node: NodeFacts, pod_ip: str) -> Files:
    mode = source.get("defaultMode") or mode
    entries = {}
    for item in source.get("items") or ():
        if item.get("fieldRef"):
            text = field_value(pod, item["fieldRef"]["fieldPath"], node, pod_ip)
        else:
            text = resource_value(pod, "", item["resourceFieldRef"], node)
        entries[_checked(item["path"])] = (text.encode(), item.get("mode") or mode)
    return Files(entries)


def _projected(
    pod: Obj,
    source: Obj,
    sources: Sources,
    tokens: Mapping[TokenRequest, str],
    node: NodeFacts,
    pod_ip: str,
) -> Files:
    mode = source.get("defaultMode") or DEFAULT_MODE
    entries: dict[str, tuple[bytes, int]] = {}
    for part in source.get("sources") or ():
        if part.get("serviceAccountToken"):
            wanted = part["serviceAccountToken"]
            token = tokens[_token_request(wanted)]
            entries[_checked(wanted["path"])] = (token.encode(), mode)
        elif part.get("downwardAPI"):
            entries.update(_downward(pod, part["downwardAPI"], mode, node, pod_ip).entries)
        elif part.get("configMap") or part.get("secret"):
            kind = "configMap" if part.get("configMap") else "secret"
            files = _object_files(kind, part[kind]["name"], part[kind], sources, mode)
            entries.update(files.entries)
        else:
            kinds = ", ".join(sorted(part))
            raise ConfigFailure(f"projected volume: source {kinds} is not supported here")
    return Files(entries)
