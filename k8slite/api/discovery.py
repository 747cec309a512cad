"""What the server serves: /api, /apis, /apis/GROUP, /apis/GROUP/VERSION, and both aggregated at
once.

All functions take the kinds to list (the built-in ones and those of custom resources), in the order
in which groups should appear; of several versions of a group the first is the preferred one.
"""

from __future__ import annotations

from collections.abc import Iterable, Sequence

from k8slite.api.kinds import Kind, Subresource
from k8slite.api.meta import Obj

AGGREGATED_V2 = "application/json;g=apidiscovery.k8s.io;v=v2;as=APIGroupDiscoveryList"
AGGREGATED_V2BETA1 = "application/json;g=apidiscovery.k8s.io;v=v2beta1;as=APIGroupDiscoveryList"


def api_versions(server_address: str) -> Obj:
    """The answer to GET /api."""
    return {
        "kind": "APIVersions",
        "versions": ["v1"],
        "serverAddressByClientCIDRs": [
            {"clientCIDR": "0.0.0.0/0", "serverAddress": server_address}
        ],
    }


def _by_group(kinds: Iterable[Kind]) -> dict[str, dict[str, list[Kind]]]:
    groups: dict[str, dict[str, list[Kind]]] = {}
    for kind in kinds:
        groups.setdefault(kind.group, {}).setdefault(kind.version, []).append(kind)
    return groups


def api_group_list(kinds: Iterable[Kind]) -> Obj:
    """The answer to GET /apis."""
    groups = [_group(name, list(v)) for name, v in _by_group(kinds).items() if name]
    return {"kind": "APIGroupList", "apiVersion": "v1", "groups": groups}


def api_group(kinds: Iterable[Kind], group: str) -> Obj | None:
    """The answer to GET /apis/GROUP; None where no such group is served."""
    versions = _by_group(kinds).get(group)
    if not group or versions is None:
        return None
    return {"kind": "APIGroup", "apiVersion": "v1", **_group(group, list(versions))}


def _group(name: str, versions: Sequence[str]) -> Obj:
    shown = [{"groupVersion": f"{name}/{v}", "version": v} for v in versions]
    return {"name": name, "versions": shown, "preferredVersion": shown[0]}


def api_resource_list(kinds: Iterable[Kind], group: str, version: str) -> Obj | None:
    """The answer to GET /api/v1 or /apis/GROUP/VERSION; None where it is not served."""
    found = [k for k in kinds if k.group == group and k.version == version]
    if not found:
        return None
    resources: list[Obj] = []
    for kind in found:
        resources.append(_resource(kind))
        resources.extend(_subresource(kind, sub) for sub in kind.subresources.values())
    answer: Obj = {"kind": "APIResourceList"}
    if group:
        answer["apiVersion"] = "v1"
    answer["groupVersion"] = f"{group}/{version}" if group else version
    answer["resources"] = resources
    return answer


def _resource(kind: Kind) -> Obj:
    resource: Obj = {
        "name": kind.plural,
        "singularName": kind.singular,
        "namespaced": kind.namespaced,
        "kind": kind.kind,
        "verbs": list(kind.verbs),
    }
    if kind.short_names:
        resource["shortNames"] = list(kind.short_names)
    if kind.categories:
        resource["categories"] = list(kind.categories)
    return resource


def _subresource(kind: Kind, sub: Subresource) -> Obj:
    resource: Obj = {
        "name": f"{kind.plural}/{sub.name}",
        "singularName": "",
        "namespaced": kind.namespaced,
    }
    if (sub.group, sub.version) != (kind.group, kind.version):
        resource["group"] = sub.group
        resource["version"] = sub.version
    resource["kind"] = sub.kind
    resource["verbs"] = list(sub.verbs)
    return resource


def aggregated(kinds: Iterable[Kind], *, core: bool, version: str = "v2") -> Obj:
    """All groups with all resources in one answer: of /api (core) or of /apis. v2 or v2beta1."""
    items: list[Obj] = []
    for group, versions in _by_group(kinds).items():
        if core is not (group == ""):
            continue
        metadata: Obj = {"creationTimestamp": None}
        if group:
            metadata["name"] = group
        items.append(
            {
                "metadata": metadata,
                "versions": [
                    {
                        "version": v,
                        "resources": [_aggregated_resource(k) for k in found],
                        "freshness": "Current",
                    }
                    for v, found in versions.items()
                ],
            }
        )
    return {
        "kind": "APIGroupDiscoveryList",
        "apiVersion": f"apidiscovery.k8s.io/{version}",
        "metadata": {},
        "items": items,
    }


def _aggregated_resource(kind: Kind) -> Obj:
    resource: Obj = {
        "resource": kind.plural,
        "responseKind": {"group": kind.group, "version": kind.version, "kind": kind.kind},
        "scope": "Namespaced" if kind.namespaced else "Cluster",
        "singularResource": kind.singular,
        "verbs": list(kind.verbs),
    }
    if kind.short_names:
        resource["shortNames"] = list(kind.short_names)
    if kind.categories:
        resource["categories"] = list(kind.categories)
    if kind.subresources:
        resource["subresources"] = [
            {
                "subresource": sub.name,
                "responseKind": {"group": sub.group, "version": sub.version, "kind": sub.kind},
                "verbs": list(sub.verbs),
            }
            for sub in kind.subresources.values()
        ]
    return resource
