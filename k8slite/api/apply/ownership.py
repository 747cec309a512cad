"""metadata.managedFields: who set which field, kept on every write, and server-side apply itself.

The rules are those of structured-merge-diff. An update takes over what it changes. An apply takes
over what its configuration says, gives up what it said before and no longer says (and what nobody
else owns of that is removed), and conflicts where it would change what another manager owns, unless
forced.
"""

from __future__ import annotations

from typing import Any, NamedTuple

from k8slite.api.apply.fields import (
    Path,
    Paths,
    compare,
    contains,
    fields_of_new,
    from_fields_v1,
    paths_of,
    show,
    to_fields_v1,
)
from k8slite.api.apply.shapes import GRANULAR, Shape, element_key, shape_of
from k8slite.api.kinds import Kind
from k8slite.api.meta import Obj, copy
from k8slite.api.schema import type_of
from k8slite.api.status import apply_conflict, bad_request

APPLY, UPDATE = "Apply", "Update"
BEFORE_FIRST_APPLY = "before-first-apply"
_STRIPPED = frozenset(
    [("f:apiVersion",), ("f:kind",), ("f:metadata",)]
    + [
        ("f:metadata", f"f:{name}")
        for name in (
            "name",
            "namespace",
            "creationTimestamp",
            "selfLink",
            "uid",
            "generation",
            "managedFields",
            "resourceVersion",
        )
    ]
)
"""Fields that nobody owns."""
_STRIPPED_METADATA = tuple(path[1] for path in sorted(_STRIPPED) if len(path) > 1)

_POD: Obj = {"containers": None}
_TEMPLATE: Obj = {"metadata": {}, "spec": _POD}
EMPTY: dict[str, Obj] = {
    "pods": {"spec": _POD},
    "podtemplates": {"template": _TEMPLATE},
    "deployments.apps": {"spec": {"template": _TEMPLATE, "strategy": {}}},
    "replicasets.apps": {"spec": {"template": _TEMPLATE}},
    "daemonsets.apps": {"spec": {"template": _TEMPLATE, "updateStrategy": {}}},
    "statefulsets.apps": {"spec": {"template": _TEMPLATE, "updateStrategy": {}}},
    "jobs.batch": {"spec": {"template": _TEMPLATE}},
    "cronjobs.batch": {"spec": {"jobTemplate": {"metadata": {}, "spec": {"template": _TEMPLATE}}}},
    "services": {"status": {"loadBalancer": {}}},
    "roles.rbac.authorization.k8s.io": {"rules": None},
    "clusterroles.rbac.authorization.k8s.io": {"rules": None},
    "rolebindings.rbac.authorization.k8s.io": {"roleRef": {}},
    "clusterrolebindings.rbac.authorization.k8s.io": {"roleRef": {}},
    "endpointslices.discovery.k8s.io": {"endpoints": None, "ports": None},
    "persistentvolumeclaims": {"spec": {"resources": {}}},
    "networkpolicies.networking.k8s.io": {"spec": {"podSelector": {}}},
    "flowschemas.flowcontrol.apiserver.k8s.io": {"spec": {"priorityLevelConfiguration": {}}},
    "customresourcedefinitions.apiextensions.k8s.io": {"spec": {"names": {}}},
    "events": {
        **dict.fromkeys(("firstTimestamp", "lastTimestamp", "eventTime")),
        "source": {},
        "reportingComponent": "",
        "reportingInstance": "",
    },
}
"""What an object of Go has before anybody writes to it: new in these places is what is inside."""


class Owner(NamedTuple):
    """One entry of managedFields without its fields."""

    manager: str
    operation: str
    api_version: str
    subresource: str

    def __str__(self) -> str:
        text = f'"{self.manager}"'
        if self.operation == APPLY:
            return text
        if self.subresource:
            text += f' with subresource "{self.subresource}"'
        return f"{text} using {self.api_version}"


_Owners = dict[Owner, tuple[Paths, str]]


def read_owners(o: Obj) -> _Owners:
    """owner -> (paths, time) of an object's managedFields."""
    found: _Owners = {}
    for entry in o["metadata"].get("managedFields") or ():
        found[_owner_of(entry)] = (
            from_fields_v1(entry.get("fieldsV1") or {}),
            entry.get("time", ""),
        )
    return found


def write_owners(o: Obj, owners: _Owners) -> None:
    """Puts the entries into managedFields: appliers first, then by time; empty ones are left
    out.
    """
    entries: list[Obj] = []
    ordered = sorted(owners.items(), key=lambda e: (e[0].operation, e[1][1], e[0].manager))
    for owner, (paths, time) in ordered:
        if not paths:
            continue
        entry: Obj = {
            "manager": owner.manager,
            "operation": owner.operation,
            "apiVersion": owner.api_version,
            **({"time": time} if time else {}),
            "fieldsType": "FieldsV1",
            "fieldsV1": to_fields_v1(paths),
        }
        if owner.subresource:
            entry["subresource"] = owner.subresource
        entries.append(entry)
    write_entries(o, entries)


def write_entries(o: Obj, entries: list[Obj]) -> None:
    if entries:
        o["metadata"]["managedFields"] = entries
    else:
        o["metadata"].pop("managedFields", None)


def _without_owners(o: Obj) -> Obj:
    metadata = {k: v for k, v in o["metadata"].items() if k != "managedFields"}
    return {**o, "metadata": metadata}


def _empty(kind: Kind, o: Obj) -> Obj:
    base: Obj = {"metadata": {}}
    if type_of(kind) is None:
        return base
    for field in ("spec", "status"):
        if field in o:
            base[field] = {}
    given = copy(EMPTY.get(kind.resource, {}))
    return {**base, **{k: v for k, v in given.items() if k in o or v is None}}


def track_update(
    kind: Kind,
    old: Obj | None,
    new: Obj,
    manager: str,
    now: str,
    *,
    subresource: str = "",
    schema: Obj | None = None,
) -> None:
    """Notes in new's managedFields what this create (old None), update or patch has changed.

    To be called after decoding, defaults and patching, before admission. `now` is formatted.
    """
    shape = shape_of(kind, schema)
    if old is None and subresource != "status":
        _own_all(shape, kind, new, manager, now, subresource)
        return
    was = _without_owners(old) if old is not None else _empty(kind, new)
    changed = compare(shape, was, _without_owners(new))
    taken = (changed.added | changed.modified) - _ignored(
        kind, subresource, changed.added | changed.modified
    )
    owner = Owner(manager, UPDATE, kind.api_version, subresource)
    if old is not None and not changed.removed and (not taken or _own_already(old, owner, taken)):
        write_entries(new, old["metadata"].get("managedFields") or [])
        return
    owners = read_owners(old) if old is not None else {}
    mine, time = owners.pop(owner, (set(), now))
    owners = _lose(owners, taken, changed.removed)
    gained = (mine | taken) - changed.removed
    owners[owner] = (gained, now if gained != mine else time)
    write_owners(new, owners)


def _own_all(shape: Shape, kind: Kind, new: Obj, manager: str, now: str, subresource: str) -> None:
    """A creator owns all that is not the server's."""
    fields = fields_of_new(shape, _without_owners(new), _empty(kind, new)) or {}
    for name in ("f:apiVersion", "f:kind"):
        fields.pop(name, None)
    if "status" in kind.subresources and not subresource:
        fields.pop("f:status", None)
    metadata = fields.get("f:metadata")
    if metadata is not None:
        for name in _STRIPPED_METADATA:
            metadata.pop(name, None)
        if not metadata:
            del fields["f:metadata"]
    if not fields:
        write_entries(new, [])
        return
    entry: Obj = {
        "manager": manager,
        "operation": UPDATE,
        "apiVersion": kind.api_version,
        "time": now,
        "fieldsType": "FieldsV1",
        "fieldsV1": fields,
    }
    if subresource:
        entry["subresource"] = subresource
    write_entries(new, [entry])


def _own_already(old: Obj, owner: Owner, taken: Paths) -> bool:
    """True where all that was taken is this owner's and nobody else's: a lease renewed, a
    status.
    """
    found = False
    for entry in old["metadata"].get("managedFields") or ():
        fields = entry.get("fieldsV1") or {}
        held = [contains(fields, path) for path in taken]
        if _owner_of(entry) == owner:
            found = True
            if not all(held):
                return False
        elif any(held):
            return False
    return found


def _owner_of(entry: Obj) -> Owner:
    return Owner(
        entry.get("manager", ""),
        entry.get("operation", UPDATE),
        entry.get("apiVersion", ""),
        entry.get("subresource", ""),
    )


def _ignored(kind: Kind, subresource: str, paths: Paths) -> Paths:
    """Status is written by its own subresource only, and that writes nothing else."""
    found: Paths = {p for p in paths if p in _STRIPPED or not p}
    if "status" in kind.subresources:
        if subresource == "status":
            found |= {p for p in paths if p[:1] not in (("f:status",), ("f:metadata",))}
        elif not subresource:
            found |= {p for p in paths if p[:1] == ("f:status",)}
    return found


def _lose(owners: _Owners, taken: Paths, removed: Paths) -> _Owners:
    gone = taken | removed
    return {owner: (paths - gone, time) for owner, (paths, time) in owners.items()}


def server_side_apply(
    kind: Kind,
    live: Obj | None,
    configuration: Obj,
    manager: str,
    now: str,
    *,
    force: bool = False,
    subresource: str = "",
    schema: Obj | None = None,
    sent: Obj | None = None,
) -> Obj:
    """The object after this apply (of the live object, or a new one), managedFields included.

    The configuration is what the client sent, normalised but not defaulted; `sent` is the same
    before it was normalised, so that empty maps and zeros that were sent have an owner too. The
    caller defaults, admits and validates the result. Raises ApiError (400 managedFields set, 409
    conflicts).
    """
    said = configuration if sent is None else sent
    if (said.get("metadata") or {}).get("managedFields") is not None:
        raise bad_request("metadata.managedFields must be nil")
    shape = shape_of(kind, schema)
    owners = _owners_before(shape, kind, live)
    owner = Owner(manager, APPLY, kind.api_version, subresource)
    applied = paths_of(shape, said)
    applied -= _ignored(kind, subresource, applied)
    last, time = owners.pop(owner, (set(), ""))
    base = _without_owners(live) if live is not None else {"metadata": {}}
    merged: Obj = merge(shape, base, configuration)
    kept = set(applied).union(*(paths for paths, _ in owners.values()))
    for path in sorted(last - kept, key=len):  # an item goes before its keys do
        if not any(other[: len(path)] == path for other in kept):
            _remove(shape, merged, path)
    changed = compare(shape, base, merged)
    touched = changed.added | changed.modified
    conflicts = [
        (str(other), show(path))
        for other, (paths, _) in owners.items()
        for path in sorted(paths & touched)
    ]
    if conflicts and not force:
        raise apply_conflict(conflicts)
    owners = _lose(owners, touched if force else set(), changed.removed)
    owners[owner] = (applied, time if merged == base else now)
    write_owners(merged, owners)
    return merged


def _owners_before(shape: Shape, kind: Kind, live: Obj | None) -> _Owners:
    if live is None:
        return {}
    owners = read_owners(live)
    if not owners:
        paths = paths_of(shape, _without_owners(live))
        paths -= _ignored(kind, "", paths)
        entry = Owner(BEFORE_FIRST_APPLY, UPDATE, kind.api_version, "")
        owners[entry] = (paths, live["metadata"].get("creationTimestamp", ""))
    return owners


def merge(shape: Shape, old: Any, new: Any) -> Any:
    """`new` laid over `old`; neither is changed. List items keep old's order, new ones follow."""
    if shape.is_leaf(old) or shape.is_leaf(new):
        return copy(new)
    if shape.kind == GRANULAR:
        out = {k: copy(v) for k, v in old.items() if k not in new}
        for name, value in new.items():
            child = shape.child(name)
            out[name] = merge(child, old[name], value) if name in old else copy(value)
        return out
    given = {element_key(shape, v): v for v in new}
    items: list[Any] = []
    for item in old:
        key = element_key(shape, item)
        items.append(merge(shape.item(), item, given.pop(key)) if key in given else copy(item))
    return items + [copy(v) for v in given.values()]


def _remove(shape: Shape, value: Any, path: Path) -> None:
    """Drops the thing at a path, in place, where it is there."""
    *way, last = path
    for element in way:
        if element.startswith("f:") and isinstance(value, dict) and element[2:] in value:
            shape, value = shape.child(element[2:]), value[element[2:]]
            continue
        found = None
        if isinstance(value, list):
            found = next((v for v in value if element_key(shape, v) == element), None)
        if found is None:
            return
        shape, value = shape.item(), found
    if last.startswith("f:"):
        if isinstance(value, dict):
            value.pop(last[2:], None)
    elif isinstance(value, list):
        value[:] = [v for v in value if element_key(shape, v) != last]


__all__ = [
    "APPLY",
    "UPDATE",
    "merge",
    "read_owners",
    "server_side_apply",
    "track_update",
    "write_owners",
]
