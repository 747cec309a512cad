"""Priority and fairness: whose request is of which flow, who waits, and who never does."""

from __future__ import annotations

import pytest
import trio
import trio.testing

from k8slite.api.status import ApiError
from k8slite.apiserver.bootstrap.flow import flow_objects
from k8slite.apiserver.call import User
from k8slite.apiserver.flow.classify import Classifier
from k8slite.apiserver.flow.control import FLOW_SCHEMAS
from k8slite.apiserver.flow.levels import Level
from k8slite.apiserver.requestinfo import RequestInfo
from tests.apiserver.support import open_session, open_test_apiserver

NODE = User("system:node:n", "", ("system:nodes", "system:authenticated"))
MANAGER = User("system:kube-controller-manager", "", ("system:authenticated",))
ACCOUNT = User(
    "system:serviceaccount:shop:web", "", ("system:serviceaccounts", "system:authenticated")
)
OPERATOR = User(
    "system:serviceaccount:kube-system:op", "", ("system:serviceaccounts", "system:authenticated")
)
ALICE = User("alice", "", ("system:authenticated",))
ADMIN = User("admin", "", ("system:masters", "system:authenticated"))
NOBODY = User("system:anonymous", "", ("system:unauthenticated",))
LEASES = RequestInfo("", "update", "coordination.k8s.io", "v1", "kube-system", "leases", "l")
PODS = RequestInfo("", "list", "", "v1", "shop", "pods")
NODE_STATUS = RequestInfo("", "patch", "", "v1", "", "nodes", "n", "status")
HEALTH = RequestInfo("/readyz", "get")
METRICS = RequestInfo("/metrics", "get")


@pytest.mark.parametrize(
    ("user", "info", "level", "flow"),
    [
        (ADMIN, PODS, "exempt", ("exempt", "")),
        (NOBODY, HEALTH, "exempt", ("probes", "")),
        (NOBODY, METRICS, "global-default", ("global-default", "system:anonymous")),
        (MANAGER, LEASES, "leader-election", ("system-leader-election", MANAGER.name)),
        (OPERATOR, LEASES, "leader-election", ("workload-leader-election", OPERATOR.name)),
        (NODE, LEASES, "node-high", ("system-node-high", NODE.name)),
        (NODE, NODE_STATUS, "node-high", ("system-node-high", NODE.name)),
        (NODE, PODS, "system", ("system-nodes", NODE.name)),
        (MANAGER, PODS, "workload-high", ("kube-controller-manager", "shop")),
        (OPERATOR, PODS, "workload-high", ("kube-system-service-accounts", "shop")),
        (ACCOUNT, PODS, "workload-low", ("service-accounts", ACCOUNT.name)),
        (ACCOUNT, LEASES, "workload-low", ("service-accounts", ACCOUNT.name)),
        (ALICE, PODS, "global-default", ("global-default", "alice")),
        (User("x"), PODS, "catch-all", ("catch-all", "")),
    ],
)
def test_flows_of_a_stock_server(
    user: User, info: RequestInfo, level: str, flow: tuple[str, str]
) -> None:
    classifier = Classifier(obj for kind, obj in flow_objects() if kind is FLOW_SCHEMAS)
    for _ in range(2):
        assert classifier.classify(user, info) == (level, flow)


async def test_flows_take_turns() -> None:
    level = Level("l", 1, 10)
    order: list[str] = []

    async def request(who: str) -> None:
        if not level.try_enter(1):
            await level.enter((who, ""), 1)
        order.append(who)
        await trio.testing.wait_all_tasks_blocked()
        level.leave(1)

    async with trio.open_nursery() as nursery:
        assert level.try_enter(1)
        for who in ("noisy", "noisy", "noisy", "noisy", "quiet"):
            nursery.start_soon(request, who)
            await trio.testing.wait_all_tasks_blocked()
        level.leave(1)
    assert order == ["noisy", "quiet", "noisy", "noisy", "noisy"]
    assert (level.at_work, level.waiting, level.dispatched) == (0, 0, 6)


async def test_a_full_line_and_a_long_wait(autojump_clock: trio.testing.MockClock) -> None:
    level = Level("l", 1, 1)
    assert level.try_enter(1)
    async with trio.open_nursery() as nursery:

        async def wait() -> None:
            with pytest.raises(ApiError) as refused:
                await level.enter(("a", ""), 1)
            assert (refused.value.code, refused.value.retry_after) == (429, 1)

        nursery.start_soon(wait)
        await trio.testing.wait_all_tasks_blocked()
        await wait()  # the line is full: at once
    with trio.move_on_after(1):
        await level.enter(("b", ""), 1)
    assert level.waiting == 0
    level.leave(1)
    assert level.at_work == 0


async def test_one_noisy_user_does_not_keep_others_out() -> None:
    """Seats of one level are all taken, and hang; other levels answer."""
    async with open_test_apiserver(requests_max=10) as server, open_session(server) as session:
        flow = server.core.flow
        taken = []
        for _ in range(100):
            with trio.move_on_after(0):
                taken.append(await flow.take_seat(ALICE, PODS))
            if len(taken) > 5:
                break
        levels = {level.name: level for level in flow.levels()}
        assert levels["global-default"].at_work == levels["global-default"].seats == len(taken)
        for user, info in ((MANAGER, LEASES), (NODE, NODE_STATUS), (ACCOUNT, PODS), (ADMIN, PODS)):
            seat = await flow.take_seat(user, info)
            assert seat is not None
            seat.leave()
        for seat in taken:
            assert seat is not None
            seat.leave()
        assert (await session.call("GET", "/api/v1/nodes"))[0] == 200
        path = "/apis/flowcontrol.apiserver.k8s.io/v1/flowschemas/system-nodes"
        status, schema = await session.call("GET", path)
        assert status == 200
        assert schema["status"]["conditions"][0]["reason"] == "Found"
        status, text = await session.call("GET", "/metrics")
        assert 'dispatched_requests_total{priority_level="leader-election"} 1' in text


async def test_names_of_clients_do_not_grow_the_metrics() -> None:
    async with open_test_apiserver() as server, open_session(server) as session:
        for i in range(5):
            await session.call("GET", f"/apis/example.org/v{i}/things{i}")
            await session.call("GET", f"/api/v1/namespaces/default/pods/p/sub{i}")
        status, text = await session.call("GET", "/metrics")
        assert status == 200
        assert "things" not in text
        assert "sub1" not in text
        assert text.count('code="404"') == 2
