"""JSON patch (RFC 6902), refused in kube-apiserver's words.

A failed `test` or a path that is not there is a 422 without a cause; a body that is no list of
operations is a 400.
"""

from __future__ import annotations

from typing import Any

import orjson

from k8slite.api.meta import Obj, copy
from k8slite.api.status import ApiError, bad_request, rejected_patch

OPERATIONS_MAX = 10_000
COPIED_BYTES_MAX = 3 * 1024 * 1024
"""Of all that operations copy: each could double what is there."""
_ROOT = object()


class TestFailed(ApiError):
    """An operation `test` found something else."""

    __test__ = False  # whatever its name says to pytest


def json_patch(obj: Obj, operations: Any) -> Obj:
    """The patched copy. Raises ApiError (400 malformed, 413 too long, 422 does not apply)."""
    _check(operations)
    holder: dict[str, Any] = {"": copy(obj)}
    copied = 0
    for operation in operations:
        if operation["op"] == "copy":
            copied += _size(_get(holder, operation.get("from")))
            if copied > COPIED_BYTES_MAX:
                raise rejected_patch()
        _OPERATIONS[operation["op"]](holder, operation)
    result = holder[""]
    if not isinstance(result, dict):
        raise rejected_patch()
    return result


def _size(value: Any) -> int:
    try:
        return len(orjson.dumps(value))
    except TypeError:  # nested too deeply
        raise rejected_patch() from None


def _check(operations: Any) -> None:
    if not isinstance(operations, list):
        what = "object" if isinstance(operations, dict) else _what(operations)
        raise bad_request(
            f"error decoding patch: json: cannot unmarshal {what} into Go value of type"
            " []handlers.jsonPatchOp"
        )
    if len(operations) > OPERATIONS_MAX:
        raise bad_request(
            f"The allowed maximum operations in a JSON patch is {OPERATIONS_MAX},"
            f" got {len(operations)}"
        )
    for operation in operations:
        if not isinstance(operation, dict):
            raise bad_request(
                f"error decoding patch: json: cannot unmarshal {_what(operation)} into Go value of"
                " type handlers.jsonPatchOp"
            )
        if operation.get("op") not in _OPERATIONS or not isinstance(operation.get("path"), str):
            raise rejected_patch()


def _what(value: Any) -> str:
    if isinstance(value, bool):
        return "bool"
    if isinstance(value, str):
        return "string"
    return "array" if isinstance(value, list) else "number"


def _steps(pointer: Any) -> list[str]:
    if not isinstance(pointer, str) or (pointer and not pointer.startswith("/")):
        raise rejected_patch()
    return [s.replace("~1", "/").replace("~0", "~") for s in pointer.split("/")]


def _find(holder: Any, pointer: Any) -> tuple[Any, str]:
    """The container that holds the pointed-at value, and the last step."""
    *way, last = _steps(pointer)
    node = holder
    for step in way:
        if isinstance(node, dict) and step in node:
            node = node[step]
        elif isinstance(node, list):
            node = node[_index(node, step, len(node) - 1)]
        else:
            raise rejected_patch()
    if not isinstance(node, (dict, list)):
        raise rejected_patch()
    return node, last


def _index(node: list[Any], step: str, maximum: int) -> int:
    negative = step[1:].isdigit() and step.startswith("-")
    if not (step.isascii() and (step.isdigit() or negative)):
        raise rejected_patch()
    index = int(step)
    if index < 0:
        index += len(node)
    if not 0 <= index <= maximum:
        raise rejected_patch()
    return index


def _get(holder: Any, pointer: Any) -> Any:
    node, last = _find(holder, pointer)
    if isinstance(node, list):
        return node[_index(node, last, len(node) - 1)]
    if last not in node:
        raise rejected_patch()
    return node[last]


def _put(holder: Any, pointer: Any, value: Any) -> None:
    node, last = _find(holder, pointer)
    if isinstance(node, dict):
        node[last] = value
    elif last == "-":
        node.append(value)
    else:
        node.insert(_index(node, last, len(node)), value)


def _drop(holder: Any, pointer: Any) -> Any:
    node, last = _find(holder, pointer)
    if isinstance(node, list):
        return node.pop(_index(node, last, len(node) - 1))
    if last not in node:
        raise rejected_patch()
    return node.pop(last)


def _value(operation: Obj) -> Any:
    return copy(operation.get("value"))


def _add(holder: Any, operation: Obj) -> None:
    _put(holder, operation["path"], _value(operation))


def _remove(holder: Any, operation: Obj) -> None:
    _drop(holder, operation["path"])


def _replace(holder: Any, operation: Obj) -> None:
    node, last = _find(holder, operation["path"])
    if isinstance(node, list):
        node[_index(node, last, len(node) - 1)] = _value(operation)
    elif last in node:
        node[last] = _value(operation)
    else:
        raise rejected_patch()


def _move(holder: Any, operation: Obj) -> None:
    _put(holder, operation["path"], _drop(holder, operation.get("from")))


def _copy(holder: Any, operation: Obj) -> None:
    _put(holder, operation["path"], copy(_get(holder, operation.get("from"))))


def _test(holder: Any, operation: Obj) -> None:
    wanted = operation.get("value")
    node, last = _find(holder, operation["path"])
    if isinstance(node, dict) and last not in node:
        found: Any = _ROOT if wanted is not None else None
    else:
        found = _get(holder, operation["path"])
    if not _same(found, wanted):
        refused = rejected_patch()
        raise TestFailed(refused.code, refused.reason, refused.message, refused.details)


def _same(a: Any, b: Any) -> bool:
    """JSON equality: 1 and 1.0 are equal, 1 and true are not."""
    if isinstance(a, bool) or isinstance(b, bool):
        return a is b
    if isinstance(a, dict) and isinstance(b, dict):
        return a.keys() == b.keys() and all(_same(v, b[k]) for k, v in a.items())
    if isinstance(a, list) and isinstance(b, list):
        return len(a) == len(b) and all(_same(x, y) for x, y in zip(a, b, strict=True))
    return bool(a == b)


_OPERATIONS = {
    "add": _add,
    "remove": _remove,
    "replace": _replace,
    "move": _move,
    "copy": _copy,
    "test": _test,
}
