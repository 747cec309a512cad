"""Quotas: exact with many creates at once, also on several servers; scopes; the refusals' words."""

from __future__ import annotations

from typing import Any

import trio

from k8slite.apiserver.store.memory import MemoryStore
from tests.apiserver.support import Session, open_session, open_test_apiserver, pod

SPACE = "/api/v1/namespaces/default"


async def set_quota(session: Session, hard: dict[str, str], **spec: Any) -> None:
    """A quota as it is once its controller has looked at the empty namespace."""
    body = {"metadata": {"name": "q"}, "spec": {"hard": hard, **spec}}
    status, made = await session.call("POST", f"{SPACE}/resourcequotas", body)
    assert status == 201
    made["status"] = {"hard": hard, "used": dict.fromkeys(hard, "0")}
    status, _ = await session.call("PUT", f"{SPACE}/resourcequotas/q/status", made)
    assert status == 200


async def used(session: Session) -> dict[str, str]:
    _, quota = await session.call("GET", f"{SPACE}/resourcequotas/q")
    found: dict[str, str] = quota["status"]["used"]
    return found


def asking(name: str, **resources: dict[str, str]) -> dict[str, Any]:
    body = pod(name)
    body["spec"]["containers"][0]["resources"] = resources
    return body


async def test_a_hundred_creates_at_once_on_two_servers_never_exceed_it() -> None:
    store = MemoryStore()
    answers: list[int] = []

    async def create(server: Any, i: int) -> None:
        async with open_session(server) as own:
            status, _ = await own.call("POST", f"{SPACE}/pods", pod(f"p{i}"))
            answers.append(status)

    async with open_test_apiserver(store) as one, open_test_apiserver(store) as two:
        async with open_session(one) as session:
            await set_quota(session, {"pods": "17"})
            await trio.sleep(0.2)
            async with trio.open_nursery() as nursery:
                for i in range(100):
                    nursery.start_soon(create, (one, two)[i % 2], i)
            assert sorted(answers) == [201] * 17 + [403] * 83
            assert await used(session) == {"pods": "17"}
            _, listed = await session.call("GET", f"{SPACE}/pods")
            assert len(listed["items"]) == 17


async def test_the_refusal_is_told_as_kubernetes_does(session: Session) -> None:
    await set_quota(session, {"requests.cpu": "1", "pods": "9"})
    status, _ = await session.call("POST", f"{SPACE}/pods", asking("a", requests={"cpu": "700m"}))
    assert status == 201
    status, told = await session.call("POST", f"{SPACE}/pods", asking("b", requests={"cpu": "1"}))
    assert status == 403
    assert told["message"] == (
        'pods "b" is forbidden: exceeded quota: q, requested: requests.cpu=1, '
        "used: requests.cpu=700m, limited: requests.cpu=1"
    )
    status, told = await session.call("POST", f"{SPACE}/pods", pod("c"))
    assert status == 403
    assert told["message"] == (
        'pods "c" is forbidden: failed quota: q: must specify requests.cpu for: c'
    )
    assert await used(session) == {"requests.cpu": "700m", "pods": "1"}


async def test_what_is_not_written_is_not_charged(session: Session) -> None:
    await set_quota(session, {"count/configmaps": "2"})
    body = {"metadata": {"name": "c"}}
    assert (await session.call("POST", f"{SPACE}/configmaps?dryRun=All", body))[0] == 201
    assert (await session.call("POST", f"{SPACE}/configmaps", body))[0] == 201
    assert (await session.call("POST", f"{SPACE}/configmaps", body))[0] == 409
    assert await used(session) == {"count/configmaps": "1"}


async def test_scopes_choose_the_pods_that_count(session: Session) -> None:
    await set_quota(session, {"pods": "1"}, scopes=["BestEffort"])
    path = f"{SPACE}/pods"
    for i in range(2):
        body = asking(f"burstable-{i}", requests={"cpu": "1"})
        assert (await session.call("POST", path, body))[0] == 201
    assert (await session.call("POST", path, pod("one")))[0] == 201
    assert (await session.call("POST", path, pod("two")))[0] == 403
