"""Every kind that a stock Kubernetes 1.36 serves: its names, its verbs, its subresources, its table
columns.

The table is `data/kinds.json`, one line a resource as a stock server lists it. Custom resources are
`Kind`s too, made by whoever reads the definitions; the table here never changes.
"""

from __future__ import annotations

from typing import Any, NamedTuple

import orjson
from attrs import field, frozen


class Column(NamedTuple):
    """One column of `kubectl get`; priority 1 shows with -o wide only."""

    name: str
    type: str
    format: str
    priority: int


@frozen
class Subresource:
    """pods/log, deployments/scale...: `kind` is the body's kind; group and version are the body's
    own.
    """

    name: str
    kind: str
    group: str
    version: str
    verbs: tuple[str, ...]

    @property
    def api_version(self) -> str:
        return f"{self.group}/{self.version}" if self.group else self.version


@frozen
class Kind:
    group: str
    version: str
    kind: str
    plural: str
    singular: str = ""
    namespaced: bool = True
    short_names: tuple[str, ...] = ()
    categories: tuple[str, ...] = ()
    verbs: tuple[str, ...] = ()
    subresources: dict[str, Subresource] = field(factory=dict, eq=False)
    columns: tuple[Column, ...] = field(default=(), eq=False)
    list_kind: str = field(default="", eq=False)
    stored_as: str = field(default="", eq=False)
    """Of custom kinds whose versions a webhook converts: the apiVersion of what is stored."""
    selectable: tuple[str, ...] = field(default=(), eq=False)
    """Of custom kinds: fields that field selectors may name, as dotted paths."""
    api_version: str = field(init=False, eq=False)
    resource: str = field(init=False, eq=False)
    qualified_kind: str = field(init=False, eq=False)

    def __attrs_post_init__(self) -> None:
        set_ = object.__setattr__
        set_(self, "api_version", f"{self.group}/{self.version}" if self.group else self.version)
        set_(self, "resource", f"{self.plural}.{self.group}" if self.group else self.plural)
        set_(self, "qualified_kind", f"{self.kind}.{self.group}" if self.group else self.kind)
        if not self.list_kind:
            set_(self, "list_kind", self.kind + "List")

    def __hash__(self) -> int:
        return hash((self.plural, self.group, self.version))

    def __str__(self) -> str:
        return self.resource

    @property
    def persisted(self) -> bool:
        """False for reviews and bindings, which are asked, answered and forgotten."""
        return "list" in self.verbs and self.plural != "componentstatuses"

    def path(self, namespace: str | None = None, name: str = "", subresource: str = "") -> str:
        """The URL path of the collection, of one object, or of its subresource."""
        root = f"/apis/{self.group}/{self.version}" if self.group else f"/api/{self.version}"
        if self.namespaced and namespace:
            root += f"/namespaces/{namespace}"
        root += f"/{self.plural}"
        if name:
            root += f"/{name}"
        return f"{root}/{subresource}" if subresource else root


def read_data(name: str) -> bytes:
    """The bytes of a file under k8slite/api/data."""
    # importlib.resources would do the same, and cost every process 30 ms at its start
    folder = __file__.removesuffix("kinds.py")
    loader: Any = __spec__.loader
    data: bytes = loader.get_data(f"{folder}data/{name}")
    return data


def _load() -> tuple[Kind, ...]:
    rows: list[dict[str, Any]] = orjson.loads(read_data("kinds.json"))
    subresources: dict[tuple[str, str, str], dict[str, Subresource]] = {}
    for row in rows:
        plural, slash, sub = row["name"].partition("/")
        if slash:
            subresources.setdefault((row["group"], row["version"], plural), {})[sub] = Subresource(
                name=sub,
                kind=row["kind"],
                group=row.get("responseGroup", row["group"]),
                version=row.get("responseVersion", row["version"]),
                verbs=tuple(row["verbs"]),
            )
    return tuple(
        Kind(
            group=row["group"],
            version=row["version"],
            kind=row["kind"],
            plural=row["name"],
            singular=row["singularName"],
            namespaced=row["namespaced"],
            short_names=tuple(row.get("shortNames", ())),
            categories=tuple(row.get("categories", ())),
            verbs=tuple(row["verbs"]),
            subresources=subresources.get((row["group"], row["version"], row["name"]), {}),
            columns=tuple(Column(*c) for c in row.get("columns", ())),
        )
        for row in rows
        if "/" not in row["name"]
    )


KINDS: tuple[Kind, ...] = _load()
"""In the order in which discovery lists groups and resources."""

KIND: dict[str, Kind] = {}
"""By resource ("pods", "deployments.apps": the preferred version) and by "plural.version.group"."""
_BY_PATH: dict[tuple[str, str, str], Kind] = {}
_BY_GVK: dict[tuple[str, str], Kind] = {}
for _kind in KINDS:
    KIND.setdefault(_kind.resource, _kind)
    KIND[f"{_kind.plural}.{_kind.version}.{_kind.group}"] = _kind
    _BY_PATH[_kind.group, _kind.version, _kind.plural] = _kind
    _BY_GVK[_kind.api_version, _kind.kind] = _kind


def by_path(group: str, version: str, plural: str) -> Kind | None:
    """The built-in kind served at /apis/GROUP/VERSION/.../PLURAL; group is "" for /api/v1."""
    return _BY_PATH.get((group, version, plural))


def by_gvk(api_version: str, kind: str) -> Kind | None:
    """The built-in kind of an object that says this apiVersion and kind."""
    return _BY_GVK.get((api_version, kind))


def by_name(word: str) -> Kind | None:
    """The built-in kind a person means: resource, plural, singular, short name or kind, in any
    case.
    """
    word = word.lower()
    if word in KIND:
        return KIND[word]
    for kind in KINDS:
        if word in (kind.plural, kind.singular, kind.kind.lower(), *kind.short_names):
            return kind
    return None


PODS = KIND["pods"]
NODES = KIND["nodes"]
SERVICES = KIND["services"]
ENDPOINTS = KIND["endpoints"]
NAMESPACES = KIND["namespaces"]
CONFIG_MAPS = KIND["configmaps"]
SECRETS = KIND["secrets"]
SERVICE_ACCOUNTS = KIND["serviceaccounts"]
EVENTS = KIND["events"]
POD_TEMPLATES = KIND["podtemplates"]
REPLICATION_CONTROLLERS = KIND["replicationcontrollers"]
RESOURCE_QUOTAS = KIND["resourcequotas"]
LIMIT_RANGES = KIND["limitranges"]
PERSISTENT_VOLUMES = KIND["persistentvolumes"]
PERSISTENT_VOLUME_CLAIMS = KIND["persistentvolumeclaims"]
DEPLOYMENTS = KIND["deployments.apps"]
REPLICA_SETS = KIND["replicasets.apps"]
STATEFUL_SETS = KIND["statefulsets.apps"]
DAEMON_SETS = KIND["daemonsets.apps"]
CONTROLLER_REVISIONS = KIND["controllerrevisions.apps"]
JOBS = KIND["jobs.batch"]
CRON_JOBS = KIND["cronjobs.batch"]
LEASES = KIND["leases.coordination.k8s.io"]
ENDPOINT_SLICES = KIND["endpointslices.discovery.k8s.io"]
EVENTS_V1 = KIND["events.events.k8s.io"]
ROLES = KIND["roles.rbac.authorization.k8s.io"]
ROLE_BINDINGS = KIND["rolebindings.rbac.authorization.k8s.io"]
CLUSTER_ROLES = KIND["clusterroles.rbac.authorization.k8s.io"]
CLUSTER_ROLE_BINDINGS = KIND["clusterrolebindings.rbac.authorization.k8s.io"]
HORIZONTAL_POD_AUTOSCALERS = KIND["horizontalpodautoscalers.autoscaling"]
POD_DISRUPTION_BUDGETS = KIND["poddisruptionbudgets.policy"]
PRIORITY_CLASSES = KIND["priorityclasses.scheduling.k8s.io"]
STORAGE_CLASSES = KIND["storageclasses.storage.k8s.io"]
INGRESSES = KIND["ingresses.networking.k8s.io"]
INGRESS_CLASSES = KIND["ingressclasses.networking.k8s.io"]
NETWORK_POLICIES = KIND["networkpolicies.networking.k8s.io"]
CUSTOM_RESOURCE_DEFINITIONS = KIND["customresourcedefinitions.apiextensions.k8s.io"]
API_SERVICES = KIND["apiservices.apiregistration.k8s.io"]
CERTIFICATE_SIGNING_REQUESTS = KIND["certificatesigningrequests.certificates.k8s.io"]
RUNTIME_CLASSES = KIND["runtimeclasses.node.k8s.io"]
VALIDATING_WEBHOOKS = KIND["validatingwebhookconfigurations.admissionregistration.k8s.io"]
MUTATING_WEBHOOKS = KIND["mutatingwebhookconfigurations.admissionregistration.k8s.io"]
TOKEN_REVIEWS = KIND["tokenreviews.authentication.k8s.io"]
SUBJECT_ACCESS_REVIEWS = KIND["subjectaccessreviews.authorization.k8s.io"]
SELF_SUBJECT_ACCESS_REVIEWS = KIND["selfsubjectaccessreviews.authorization.k8s.io"]
SELF_SUBJECT_RULES_REVIEWS = KIND["selfsubjectrulesreviews.authorization.k8s.io"]
LOCAL_SUBJECT_ACCESS_REVIEWS = KIND["localsubjectaccessreviews.authorization.k8s.io"]
SELF_SUBJECT_REVIEWS = KIND["selfsubjectreviews.authentication.k8s.io"]
