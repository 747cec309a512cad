"""Metadata of an object: names, labels, owners, conditions, times.

Owns the shape of `metadata` and the three time formats of the API. Assumes that `metadata` is there
(every decoded object has one). Never validates: that is `validation.objectmeta`.
"""

import calendar
import re
from datetime import UTC, datetime
from typing import TYPE_CHECKING, Any, TypeVar

if TYPE_CHECKING:
    from k8slite.api.kinds import Kind

Obj = dict[str, Any]
T = TypeVar("T")

_TIME = re.compile(
    r"(\d{4})-(\d\d)-(\d\d)T(\d\d):(\d\d):(\d\d)(?:\.(\d+))?(?:Z|([+-])(\d\d):(\d\d))",
    re.IGNORECASE,
)


def name(o: Obj) -> str:
    return o["metadata"].get("name", "")  # type: ignore[no-any-return]  # the shape is the API's


def namespace(o: Obj) -> str:
    return o["metadata"].get("namespace", "")  # type: ignore[no-any-return]  # the shape is the API's


def uid(o: Obj) -> str:
    return o["metadata"].get("uid", "")  # type: ignore[no-any-return]  # the shape is the API's


def resource_version(o: Obj) -> str:
    return o["metadata"].get("resourceVersion", "")  # type: ignore[no-any-return]  # the shape is the API's


def labels(o: Obj) -> dict[str, str]:
    return o["metadata"].get("labels") or {}


def annotations(o: Obj) -> dict[str, str]:
    return o["metadata"].get("annotations") or {}


def generation(o: Obj) -> int:
    return o["metadata"].get("generation", 0)  # type: ignore[no-any-return]  # the shape is the API's


def deleting(o: Obj) -> bool:
    """True once somebody asked for its deletion: finalizers or a grace period keep it alive."""
    return bool(o["metadata"].get("deletionTimestamp"))


def key(o: Obj) -> str:
    """The key of informers and work queues: "namespace/name", or "name" for what belongs to no
    namespace.
    """
    metadata = o["metadata"]
    space = metadata.get("namespace")
    return f"{space}/{metadata['name']}" if space else metadata["name"]


def make_key(namespace: str | None, name: str) -> str:
    return f"{namespace}/{name}" if namespace else name


def split_key(key: str) -> tuple[str, str]:
    """The (namespace, name) of a key; namespace is "" for what belongs to none."""
    space, _, own = key.rpartition("/")
    return space, own


def owner_references(o: Obj) -> list[Obj]:
    return o["metadata"].get("ownerReferences") or []


def controller_of(o: Obj) -> Obj | None:
    """The owner reference of the controller that manages o, or None. An object has at most one."""
    for reference in owner_references(o):
        if reference.get("controller"):
            return reference
    return None


def is_controlled_by(o: Obj, owner: Obj) -> bool:
    reference = controller_of(o)
    return reference is not None and reference["uid"] == uid(owner)


def owner_reference(
    kind: "Kind", owner: Obj, *, controller: bool = True, block: bool = True
) -> Obj:
    """The reference to put into metadata.ownerReferences of what `owner` (of this kind) owns."""
    reference: Obj = {
        "apiVersion": kind.api_version,
        "kind": kind.kind,
        "name": name(owner),
        "uid": uid(owner),
    }
    if controller:
        reference["controller"] = True
    if block:
        reference["blockOwnerDeletion"] = True
    return reference


def copy(value: T) -> T:
    """A deep copy of JSON-shaped data (dicts, lists, scalars): much faster than copy.deepcopy."""
    return _copy(value)  # type: ignore[no-any-return]  # the copy has the shape of the original


def _copy(value: Any) -> Any:
    if type(value) is dict:
        return {k: _copy(v) if type(v) in _CONTAINERS else v for k, v in value.items()}
    if type(value) is list:
        return [_copy(v) if type(v) in _CONTAINERS else v for v in value]
    return value


_CONTAINERS = (dict, list)


def format_time(epoch: float) -> str:
    """Seconds since 1970 as metav1.Time: "2026-01-02T03:04:05Z" (whole seconds, rounded down)."""
    return datetime.fromtimestamp(int(epoch // 1), UTC).strftime("%Y-%m-%dT%H:%M:%SZ")


def format_micro_time(epoch: float) -> str:
    """Seconds since 1970 as metav1.MicroTime: "2026-01-02T03:04:05.000000Z"."""
    micros = round(epoch * 1_000_000)
    seconds, micros = divmod(micros, 1_000_000)
    return datetime.fromtimestamp(seconds, UTC).strftime("%Y-%m-%dT%H:%M:%S") + f".{micros:06d}Z"


def parse_time(text: str) -> float:
    """RFC 3339 text as seconds since 1970. Raises ValueError where it is none."""
    if len(text) == 20 and text[19] == "Z" and text[7] + text[10] == "-T":  # as most do
        return datetime.fromisoformat(text).timestamp()
    match = _TIME.fullmatch(text)
    if match is None:
        raise ValueError(f"not an RFC 3339 time: {text!r}")
    year, month, day, hour, minute, second = (int(g) for g in match.groups()[:6])
    datetime(year, month, day, hour, minute, min(second, 59))  # refuses the 31st of February
    seconds = float(calendar.timegm((year, month, day, hour, minute, second)))
    if match[7]:
        seconds += int(match[7][:6].ljust(6, "0")) / 1_000_000
    if match[8]:
        offset = int(match[9]) * 3600 + int(match[10]) * 60
        seconds -= offset if match[8] == "+" else -offset
    return seconds


def get_condition(o: Obj, type_: str) -> Obj | None:
    """The entry of status.conditions with this type, or None."""
    for condition in (o.get("status") or {}).get("conditions") or ():
        if condition.get("type") == type_:
            return condition  # type: ignore[no-any-return]  # the shape is the API's
    return None


def condition_is(o: Obj, type_: str, status: str = "True") -> bool:
    condition = get_condition(o, type_)
    return condition is not None and condition.get("status") == status


def set_condition(status: Obj, condition: Obj, now: str) -> bool:
    """Puts condition into status["conditions"] (`status` is the object's status dict); True when
    something changed.

    lastTransitionTime moves to `now` (formatted) only when the condition's status changes, as the
    API conventions ask.
    """
    conditions = status.setdefault("conditions", [])
    for i, old in enumerate(conditions):
        if old.get("type") != condition["type"]:
            continue
        moved = old.get("status") != condition["status"]
        new = {
            **condition,
            "lastTransitionTime": now if moved else old.get("lastTransitionTime", now),
        }
        if {k: v for k, v in old.items() if k in new} == new:
            return False
        conditions[i] = {**old, **new}
        return True
    conditions.append({**condition, "lastTransitionTime": now})
    return True
