"""What the server serves: /api, /apis, /apis/GROUP, /apis/GROUP/VERSION, and both aggregated at
once.

All functions take the kinds to list (the built-in ones and those of custom resources), in the order
in which groups should appear, and what other servers serve (`Remote`), which has its place among
them by priority; of several versions of a group the first is the preferred one.
"""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from typing import NamedTuple

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


class Remote(NamedTuple):
    """A group and version that another server serves; `resources` in the aggregated form."""

    group: str
    version: str
    group_priority: int
    version_priority: int
    resources: list[Obj]
    is_fresh: bool = True


class Priority(NamedTuple):
    """Of a group among groups, of a version among those of its group: more is earlier."""

    group: int
    version: int


_GROUPS = {
    "": 18000,
    "apiregistration.k8s.io": 17900,
    "apps": 17800,
    "events.k8s.io": 17750,
    "authentication.k8s.io": 17700,
    "authorization.k8s.io": 17600,
    "autoscaling": 17500,
    "batch": 17400,
    "certificates.k8s.io": 17300,
    "networking.k8s.io": 17200,
    "policy": 17100,
    "rbac.authorization.k8s.io": 17000,
    "storage.k8s.io": 16800,
    "admissionregistration.k8s.io": 16700,
    "apiextensions.k8s.io": 16700,
    "scheduling.k8s.io": 16600,
    "coordination.k8s.io": 16500,
    "node.k8s.io": 16300,
    "discovery.k8s.io": 16200,
    "flowcontrol.apiserver.k8s.io": 16100,
    "resource.k8s.io": 15900,
}
_VERSIONS = {
    ("", "v1"): 1,
    ("autoscaling", "v2"): 30,
    ("flowcontrol.apiserver.k8s.io", "v1"): 21,
}
BUILT_IN, CUSTOM = 15, Priority(1000, 100)


def priority_of(group: str, version: str) -> Priority:
    """Of what is served here: kube-apiserver's own table, and the same for all definitions."""
    if group not in _GROUPS:
        return CUSTOM
    return Priority(_GROUPS[group], _VERSIONS.get((group, version), BUILT_IN))


_Versions = dict[str, list[Kind] | Remote]


def _by_group(kinds: Iterable[Kind], remotes: Iterable[Remote]) -> dict[str, _Versions]:
    groups: dict[str, _Versions] = {}
    local: dict[str, dict[str, list[Kind]]] = {}
    for kind in kinds:
        local.setdefault(kind.group, {}).setdefault(kind.version, []).append(kind)
    for group, versions in local.items():
        groups[group] = {**versions}
    remotes = list(remotes)
    if not remotes:
        return groups
    heights = {g: max(priority_of(g, v).group for v in versions) for g, versions in groups.items()}
    for remote in remotes:
        versions_of = groups.setdefault(remote.group, {})
        versions_of[remote.version] = remote
        heights[remote.group] = max(heights.get(remote.group, 0), remote.group_priority)
        ordered = sorted(versions_of.items(), key=lambda v: -_height(remote.group, *v))
        groups[remote.group] = dict(ordered)
    return dict(sorted(groups.items(), key=lambda each: -heights[each[0]]))


def _height(group: str, version: str, found: list[Kind] | Remote) -> int:
    if isinstance(found, Remote):
        return found.version_priority
    return priority_of(group, version).version


def api_group_list(kinds: Iterable[Kind], remotes: Iterable[Remote] = ()) -> Obj:
    """The answer to GET /apis."""
    groups = [_group(name, list(v)) for name, v in _by_group(kinds, remotes).items() if name]
    return {"kind": "APIGroupList", "apiVersion": "v1", "groups": groups}


def api_group(kinds: Iterable[Kind], group: str, remotes: Iterable[Remote] = ()) -> Obj | None:
    """The answer to GET /apis/GROUP; None where no such group is served."""
    versions = _by_group(kinds, remotes).get(group)
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


def aggregated(
    kinds: Iterable[Kind], *, core: bool, version: str = "v2", remotes: Iterable[Remote] = ()
) -> Obj:
    """All groups with all resources in one answer: of /api (core) or of /apis. v2 or v2beta1."""
    items: list[Obj] = []
    for group, versions in _by_group(kinds, remotes).items():
        if core is not (group == ""):
            continue
        metadata: Obj = {"creationTimestamp": None}
        if group:
            metadata["name"] = group
        items.append(
            {
                "metadata": metadata,
                "versions": [_aggregated_version(v, found) for v, found in versions.items()],
            }
        )
    return {
        "kind": "APIGroupDiscoveryList",
        "apiVersion": f"apidiscovery.k8s.io/{version}",
        "metadata": {},
        "items": items,
    }


def _aggregated_version(version: str, found: list[Kind] | Remote) -> Obj:
    if isinstance(found, Remote):
        fresh = "Current" if found.is_fresh else "Stale"
        return {"version": version, "resources": found.resources, "freshness": fresh}
    resources = [_aggregated_resource(kind) for kind in found]
    return {"version": version, "resources": resources, "freshness": "Current"}


def from_resource_list(answer: Obj, group: str, version: str) -> list[Obj]:
    """An APIResourceList in the aggregated form."""
    found: dict[str, Obj] = {}
    subresources: list[Obj] = []
    for resource in answer.get("resources") or ():
        kind = {
            "group": resource.get("group") or group,
            "version": resource.get("version") or version,
            "kind": resource.get("kind", ""),
        }
        name, verbs = resource.get("name", ""), list(resource.get("verbs") or ())
        if "/" in name:
            subresources.append({"subresource": name, "responseKind": kind, "verbs": verbs})
            continue
        found[name] = {
            "resource": name,
            "responseKind": kind,
            "scope": "Namespaced" if resource.get("namespaced") else "Cluster",
            "singularResource": resource.get("singularName", ""),
            "verbs": verbs,
        }
        for key in ("shortNames", "categories"):
            if resource.get(key):
                found[name][key] = list(resource[key])
    for each in subresources:
        name, _, part = each["subresource"].partition("/")
        if name in found:
            found[name].setdefault("subresources", []).append({**each, "subresource": part})
    return list(found.values())


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
