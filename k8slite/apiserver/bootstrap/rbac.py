"""Roles and bindings of a stock server as objects."""

from __future__ import annotations

from collections.abc import Iterator

from k8slite.api.kinds import CLUSTER_ROLE_BINDINGS, CLUSTER_ROLES, ROLE_BINDINGS, ROLES, Kind
from k8slite.api.meta import Obj
from k8slite.apiserver.bootstrap import roles

__all__ = ["rbac_objects"]

_GROUP = "rbac.authorization.k8s.io"
_LABELS = {"kubernetes.io/bootstrapping": "rbac-defaults"}
_ANNOTATIONS = {"rbac.authorization.kubernetes.io/autoupdate": "true"}
_AUTHENTICATED = "Group system:authenticated"

BINDINGS: dict[str, tuple[str, ...]] = {
    "cluster-admin": ("Group system:masters",),
    "system:discovery": (_AUTHENTICATED,),
    "system:basic-user": (_AUTHENTICATED,),
    "system:public-info-viewer": (_AUTHENTICATED, "Group system:unauthenticated"),
    "system:monitoring": ("Group system:monitoring",),
    "system:node-proxier": ("User system:kube-proxy",),
    "system:kube-controller-manager": ("User system:kube-controller-manager",),
    "system:kube-dns": ("ServiceAccount kube-system/kube-dns",),
    "system:kube-scheduler": ("User system:kube-scheduler",),
    "system:volume-scheduler": ("User system:kube-scheduler",),
    "system:node": (),
    "system:service-account-issuer-discovery": ("Group system:serviceaccounts",),
}
"""Cluster role to its subjects; the binding has the role's name."""

_EXTRA_BINDINGS: dict[str, tuple[str, tuple[str, ...]]] = {
    # Upstream's controllers each act under a service account of their own. Ours share one
    # client, so that its user holds what all of them hold together.
    "k8slite:kube-controller-manager": ("cluster-admin", ("User system:kube-controller-manager",)),
    "k8slite:node-network": ("k8slite:node-network", ("User system:kube-proxy",)),
}

_EXTRA_ROLES: dict[str, tuple[roles.RuleRow, ...]] = {
    # Of names and network policies, which a node's proxy takes care of as well.
    "k8slite:node-network": (
        ("list watch", "-", "namespaces pods"),
        ("list watch", "networking.k8s.io", "networkpolicies"),
    ),
}

_NAMESPACED: tuple[tuple[str, str, tuple[roles.RuleRow, ...], tuple[str, ...]], ...] = (
    (
        "kube-system",
        "extension-apiserver-authentication-reader",
        (("get list watch", "-", "configmaps", "extension-apiserver-authentication"),),
        ("User system:kube-controller-manager", "User system:kube-scheduler"),
    ),
    (
        "kube-system",
        "system::leader-locking-kube-controller-manager",
        (
            ("watch", "-", "configmaps"),
            ("get update", "-", "configmaps", "kube-controller-manager"),
        ),
        ("User system:kube-controller-manager",),
    ),
    (
        "kube-system",
        "system::leader-locking-kube-scheduler",
        (("watch", "-", "configmaps"), ("get update", "-", "configmaps", "kube-scheduler")),
        ("User system:kube-scheduler",),
    ),
    (
        # A node's proxy also serves names, and keeps the service by which they are found.
        "kube-system",
        "k8slite:dns",
        (
            ("create", "-", "services"),
            ("get update", "-", "services", "kube-dns"),
            ("create delete get update", "discovery.k8s.io", "endpointslices"),
        ),
        ("User system:kube-proxy",),
    ),
    (
        "kube-public",
        "system:controller:bootstrap-signer",
        (
            ("get list watch", "-", "configmaps"),
            ("update", "-", "configmaps", "cluster-info"),
            roles.EVENTS,
        ),
        ("ServiceAccount kube-system/bootstrap-signer",),
    ),
)


def _rule(row: roles.RuleRow) -> Obj:
    if row[1].startswith("/"):
        return {"verbs": row[0].split(), "nonResourceURLs": row[1].split()}
    rule: Obj = {
        "verbs": row[0].split(),
        "apiGroups": ["" if group == "-" else group for group in row[1].split()],
        "resources": row[2].split(),
    }
    if len(row) > 3:
        rule["resourceNames"] = row[3].split()
    return rule


def _metadata(name: str, namespace: str = "", **labels: str) -> Obj:
    metadata: Obj = {
        "name": name,
        "labels": {**_LABELS, **labels},
        "annotations": dict(_ANNOTATIONS),
    }
    if namespace:
        metadata["namespace"] = namespace
    return metadata


def _subject(text: str) -> Obj:
    kind, _, name = text.partition(" ")
    if kind == "ServiceAccount":
        namespace, _, name = name.partition("/")
        return {"kind": kind, "name": name, "namespace": namespace}
    return {"kind": kind, "apiGroup": _GROUP, "name": name}


def _binding(
    name: str, role_kind: str, role: str, subjects: tuple[str, ...], namespace: str = ""
) -> Obj:
    binding: Obj = {
        "metadata": _metadata(name, namespace),
        "roleRef": {"apiGroup": _GROUP, "kind": role_kind, "name": role},
    }
    if subjects:
        binding["subjects"] = [_subject(text) for text in subjects]
    return binding


def rbac_objects() -> Iterator[tuple[Kind, Obj]]:
    """Every role and binding, without apiVersion and kind."""
    for name, rows in roles.ROLES.items():
        labels = {}
        aggregate = name.removeprefix("system:aggregate-to-")
        if aggregate != name:
            labels[f"{_GROUP}/aggregate-to-{aggregate}"] = "true"
        yield (
            CLUSTER_ROLES,
            {"metadata": _metadata(name, **labels), "rules": [_rule(row) for row in rows]},
        )
    for name, rows in _EXTRA_ROLES.items():
        rules = [_rule(row) for row in rows]
        yield CLUSTER_ROLES, {"metadata": _metadata(name), "rules": rules}
    labels = {f"{_GROUP}/aggregate-to-{up}": "true" for up in ("admin", "edit", "view")}
    yield (
        CLUSTER_ROLES,
        {
            "metadata": _metadata("system:aggregated-metrics-reader", **labels),
            "rules": [_rule(("get list watch", "metrics.k8s.io", "nodes pods"))],
        },
    )
    for name, up in (("admin", ""), ("edit", "admin"), ("view", "edit")):
        labels = {f"{_GROUP}/aggregate-to-{up}": "true"} if up else {}
        selector = {"matchLabels": {f"{_GROUP}/aggregate-to-{name}": "true"}}
        yield (
            CLUSTER_ROLES,
            {
                "metadata": _metadata(name, **labels),
                "rules": None,
                "aggregationRule": {"clusterRoleSelectors": [selector]},
            },
        )
    for name, rows in roles.CONTROLLERS.items():
        full = f"system:controller:{name}"
        rules = [_rule(row) for row in rows]
        yield CLUSTER_ROLES, {"metadata": _metadata(full), "rules": rules}
        subject = f"ServiceAccount kube-system/{name}"
        yield CLUSTER_ROLE_BINDINGS, _binding(full, "ClusterRole", full, (subject,))
    for name, subjects in BINDINGS.items():
        yield CLUSTER_ROLE_BINDINGS, _binding(name, "ClusterRole", name, subjects)
    for name, (role, subjects) in _EXTRA_BINDINGS.items():
        yield CLUSTER_ROLE_BINDINGS, _binding(name, "ClusterRole", role, subjects)
    for namespace, name, rows, subjects in _NAMESPACED:
        rules = [_rule(row) for row in rows]
        yield ROLES, {"metadata": _metadata(name, namespace), "rules": rules}
        yield ROLE_BINDINGS, _binding(name, "Role", name, subjects, namespace)
