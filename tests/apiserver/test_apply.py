"""Server-side apply over HTTP: creation, conflicts, force, giving up."""

from __future__ import annotations

from typing import Any

import yaml

from tests.apiserver.support import Session, config_map

MAPS = "/api/v1/namespaces/default/configmaps"
APPLY = "application/apply-patch+yaml"


async def apply(
    session: Session, manager: str, data: dict[str, str], force: bool = False
) -> tuple[int, Any]:
    body = yaml.safe_dump(config_map("a", **data))
    query = f"fieldManager={manager}" + ("&force=true" if force else "")
    return await session.call("PATCH", f"{MAPS}/a?{query}", body, content_type=APPLY)


async def test_appliers_share_conflict_and_give_up(session: Session) -> None:
    status, made = await apply(session, "one", {"k": "1", "j": "1"})
    assert (status, made["data"]) == (201, {"k": "1", "j": "1"})
    status, same = await apply(session, "two", {"k": "1"})
    assert status == 200
    assert {e["manager"] for e in same["metadata"]["managedFields"]} == {"one", "two"}
    status, refused = await apply(session, "two", {"k": "2"})
    assert (status, refused["message"]) == (
        409,
        'Apply failed with 1 conflict: conflict with "one": .data.k',
    )
    status, forced = await apply(session, "two", {"k": "2"}, force=True)
    assert (status, forced["data"]) == (200, {"k": "2", "j": "1"})
    status, dropped = await apply(session, "one", {})
    assert (status, dropped["data"]) == (200, {"k": "2"})


async def test_an_apply_needs_a_manager(session: Session) -> None:
    body = yaml.safe_dump(config_map("a"))
    status, refused = await session.call("PATCH", f"{MAPS}/a", body, content_type=APPLY)
    assert (status, refused["message"]) == (
        422,
        'PatchOptions.meta.k8s.io "" is invalid: fieldManager: Required value: '
        "is required for apply patch",
    )


async def test_writers_are_told_apart_by_their_program(session: Session) -> None:
    await session.call("POST", f"{MAPS}?fieldManager=maker", config_map("a", k="1"))
    path = f"{MAPS}/a?fieldManager=changer"
    merge = "application/merge-patch+json"
    _, changed = await session.call("PATCH", path, {"data": {"n": "1"}}, content_type=merge)
    owners = {entry["manager"]: entry["fieldsV1"] for entry in changed["metadata"]["managedFields"]}
    assert owners == {
        "maker": {"f:data": {".": {}, "f:k": {}}},
        "changer": {"f:data": {"f:n": {}}},
    }
