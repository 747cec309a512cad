"""What others add: extenders over HTTP, plugins at Permit and Reserve, several scheduler names."""

from __future__ import annotations

from collections.abc import AsyncIterator, Callable
from contextlib import asynccontextmanager
from typing import Any
from unittest import mock

import orjson
import trio

from k8slite.api.kinds import EVENTS, NODES, PODS
from k8slite.api.meta import Obj, deleting, name
from k8slite.client.client import ClientConfig
from k8slite.scheduler import scheduler as scheduler_module
from k8slite.scheduler.config import read_configuration
from k8slite.scheduler.framework import Handle, Rejection, Wait
from k8slite.scheduler.plugins.table import PLUGINS
from k8slite.scheduler.scheduler import Scheduler, SchedulerConfig, run_scheduling
from raftkv.host import Address
from tests.client.fake_api import FakeApi
from tests.client.world import MemoryHost
from tests.scheduler.objects import node, pod
from tests.scheduler.test_config import HEAD
from tests.scheduler.test_scheduler import where

Answer = Callable[[str, Any], Any]


class Net:
    """One HTTP server behind every address."""

    def __init__(self, answer: Answer, nursery: trio.Nursery) -> None:
        self._answer = answer
        self._nursery = nursery
        self.asked: list[tuple[str, Any]] = []

    async def open_stream(self, address: Address) -> trio.abc.Stream:
        ours, theirs = trio.testing.memory_stream_pair()
        self._nursery.start_soon(self._serve, theirs)
        return ours

    async def listen(self, address: Address) -> Any:
        raise OSError("nobody listens here")

    async def _serve(self, stream: trio.abc.Stream) -> None:
        data = b""
        while True:
            while b"\r\n\r\n" not in data:
                chunk = await stream.receive_some()
                if not chunk:
                    return
                data += chunk
            head, _, data = data.partition(b"\r\n\r\n")
            [length] = [
                int(line.split(b":")[1])
                for line in head.split(b"\r\n")
                if line.lower().startswith(b"content-length")
            ]
            while len(data) < length:
                data += await stream.receive_some()
            body, data = data[:length], data[length:]
            verb = head.split(b" ")[1].decode().rpartition("/")[2]
            question = orjson.loads(body)
            self.asked.append((verb, question))
            answer = self._answer(verb, question)
            status = b"200 OK" if answer is not None else b"500 Broken"
            text = orjson.dumps(answer)
            await stream.send_all(
                b"HTTP/1.1 %s\r\nContent-Length: %d\r\n\r\n%s" % (status, len(text), text)
            )


@asynccontextmanager
async def open_world(
    body: Obj, answer: Answer | None = None, scheduler: Scheduler | None = None, **plugins: Any
) -> AsyncIterator[tuple[FakeApi, Net]]:
    api, host = FakeApi(), MemoryHost(0)
    configuration = read_configuration({**HEAD, **body})
    config = SchedulerConfig(
        client=ClientConfig(endpoints=(Address("x", 1),)),
        identity="s",
        configuration=configuration,
    )
    known = {**PLUGINS, **plugins}
    with mock.patch.object(scheduler_module, "find_plugin", known.get):
        async with trio.open_nursery() as nursery:
            net = Net(answer or (lambda verb, question: None), nursery)
            host.net = net
            nursery.start_soon(run_scheduling, api, config, host, scheduler)
            yield api, net
            nursery.cancel_scope.cancel()


def extender(**more: Any) -> Obj:
    return {"extenders": [{"urlPrefix": "http://extender:8888/api", **more}]}


async def test_an_extender_takes_nodes_away_and_rates_the_rest(
    autojump_clock: trio.testing.MockClock,
) -> None:
    def answer(verb: str, question: Any) -> Any:
        assert question["Pod"]["metadata"]["name"] == "p"
        if verb == "filter":
            names = [n for n in question["NodeNames"] if n != "a"]
            return {"NodeNames": names, "FailedNodes": {"a": "no licence"}}
        return [{"Host": "b", "Score": 1}, {"Host": "c", "Score": 10}]

    body = extender(filterVerb="filter", prioritizeVerb="rate", weight=5, nodeCacheCapable=True)
    async with open_world(body, answer) as (api, net):
        for own in "abc":
            api.add(NODES, node(own))
        api.add(PODS, pod("p"))
        await trio.sleep(1)
        assert where(api) == {"n/p": "c"}
        assert [verb for verb, _ in net.asked] == ["filter", "rate"]


async def test_an_extender_is_told_whole_nodes_and_its_reasons_are_told(
    autojump_clock: trio.testing.MockClock,
) -> None:
    def answer(verb: str, question: Any) -> Any:
        assert [name(n) for n in question["Nodes"]["items"]] == ["a"]
        return {"nodes": {"items": []}, "failedAndUnresolvableNodes": {"a": "not for you"}}

    async with open_world(extender(filterVerb="filter"), answer) as (api, _):
        api.add(NODES, node("a"))
        api.add(PODS, pod("p"))
        await trio.sleep(1)
        [event] = [e for e in api.all(EVENTS) if e["reason"] == "FailedScheduling"]
        assert event["message"].startswith("0/1 nodes are available: 1 not for you.")


async def test_an_extender_that_fails_holds_pods_up_unless_it_can_be_ignored(
    autojump_clock: trio.testing.MockClock,
) -> None:
    for ignorable in (False, True):
        works = False

        def answer(verb: str, question: Any) -> Any:
            return {"NodeNames": question["NodeNames"]} if works else None  # noqa: B023

        body = extender(filterVerb="filter", nodeCacheCapable=True, ignorable=ignorable)
        async with open_world(body, answer) as (api, _):
            api.add(NODES, node("a"))
            api.add(PODS, pod("p"))
            await trio.sleep(5)
            assert bool(where(api)["n/p"]) is ignorable
            works = True
            await trio.sleep(20)
            assert where(api)["n/p"] == "a"


async def test_an_extender_binds_and_looks_after_its_own_resources(
    autojump_clock: trio.testing.MockClock,
) -> None:
    def answer(verb: str, question: Any) -> Any:
        assert (verb, question["PodName"], question["Node"]) == ("bind", "p", "a")
        api.change(PODS, "n/p", lambda o: o["spec"].update(nodeName=question["Node"]))
        return {"Error": ""}

    managed = [{"name": "example.com/fpga", "ignoredByScheduler": True}]
    async with open_world(extender(bindVerb="bind", managedResources=managed), answer) as (
        api,
        net,
    ):
        api.add(NODES, node("a"))
        api.add(PODS, pod("p", requests={"example.com/fpga": "1"}))
        api.add(PODS, pod("q"))
        await trio.sleep(1)
        assert where(api) == {"n/p": "a", "n/q": "a"}
        assert len(net.asked) == 1, "it is not asked about pods that use nothing of it"


async def test_an_extender_chooses_among_victims(autojump_clock: trio.testing.MockClock) -> None:
    def answer(verb: str, question: Any) -> Any:
        if verb == "filter":
            return {"NodeNames": question["NodeNames"]}
        victims = question["NodeNameToMetaVictims"]
        return {"NodeNameToMetaVictims": {"b": victims["b"]}}

    body = extender(filterVerb="filter", preemptVerb="preempt", nodeCacheCapable=True)
    async with open_world(body, answer) as (api, _):
        for i, own in enumerate("ab"):
            api.add(NODES, node(own, "1"))
            api.add(PODS, pod(f"low-{own}", "1", on=own, priority=i))
        api.add(PODS, pod("high", "1", priority=100))
        await trio.sleep(3)
        assert [k for k, p in api.objects[PODS].items() if deleting(p)] == ["n/low-b"]


# --- plugins -------------------------------------------------------------------------------------


class Pairs:
    """Binds pods two at a time."""

    name = "Pairs"

    def __init__(self, args: Any, handle: Handle) -> None:
        self._handle = handle
        self.reserved: list[str] = []

    def reserve(self, pod: Any, node: Any) -> Rejection | None:
        self.reserved.append(pod.uid)
        return None

    def unreserve(self, pod: Any, node_name: str) -> None:
        if pod.uid in self.reserved:
            self.reserved.remove(pod.uid)

    def permit(self, pod: Any, node_name: str) -> Rejection | Wait | None:
        services = self._handle.services
        assert services is not None
        waiting = services.waiting.all()
        if not waiting:
            return Wait(10.0)
        waiting[0].allow("Pairs")
        return None


PAIRS = {"profiles": [{"plugins": {"multiPoint": {"enabled": [{"name": "Pairs"}]}}}]}


async def test_a_plugin_lets_a_pod_wait_until_another_one_comes(
    autojump_clock: trio.testing.MockClock,
) -> None:
    async with open_world(PAIRS, Pairs=Pairs) as (api, _):
        api.add(NODES, node("a"))
        api.add(PODS, pod("p1"))
        await trio.sleep(5)
        assert where(api) == {"n/p1": ""}
        api.add(PODS, pod("p2"))
        await trio.sleep(1)
        assert where(api) == {"n/p1": "a", "n/p2": "a"}


async def test_who_waits_too_long_gives_its_place_back(
    autojump_clock: trio.testing.MockClock,
) -> None:
    async with open_world(PAIRS, Pairs=Pairs) as (api, _):
        api.add(NODES, node("a", "1"))
        api.add(PODS, pod("p1", "1"))
        await trio.sleep(10.5)
        told = [e["message"] for e in api.all(EVENTS) if e["reason"] == "FailedScheduling"]
        assert any("timed out waiting for plugin Pairs" in message for message in told)
        await trio.sleep(1)
        api.add(PODS, pod("p2"))
        await trio.sleep(12)
        assert where(api) == {"n/p1": "a", "n/p2": "a"}


class Refuses:
    name = "Refuses"
    tries = 0

    def __init__(self, args: Any, handle: Handle) -> None:
        pass

    def permit(self, pod: Any, node_name: str) -> Rejection | None:
        Refuses.tries += 1
        return Rejection(("not today",)) if Refuses.tries == 1 else None


async def test_a_plugin_that_names_no_changes_is_asked_again_after_any(
    autojump_clock: trio.testing.MockClock,
) -> None:
    Refuses.tries = 0
    body = {"profiles": [{"plugins": {"permit": {"enabled": [{"name": "Refuses"}]}}}]}
    async with open_world(body, Refuses=Refuses) as (api, _):
        api.add(NODES, node("a"))
        api.add(PODS, pod("p"))
        await trio.sleep(100)
        assert where(api) == {"n/p": ""}
        api.add(NODES, node("b"))
        await trio.sleep(1)
        assert where(api)["n/p"]


async def test_each_profile_schedules_pods_of_its_name(
    autojump_clock: trio.testing.MockClock,
) -> None:
    most = {"scoringStrategy": {"type": "MostAllocated"}}
    packing = {
        "schedulerName": "packing",
        "pluginConfig": [{"name": "NodeResourcesFit", "args": most}],
    }
    scheduler = Scheduler()
    async with open_world({"profiles": [{}, packing]}, scheduler=scheduler) as (api, _):
        for own in "ab":
            api.add(NODES, node(own))
        api.add(PODS, pod("first", "1", on="a"))
        for i in range(2):
            api.add(PODS, pod(f"spread{i}", "500m", "1Gi"))
        api.add(PODS, pod("other", "1", schedulerName="somebody-else"))
        await trio.sleep(1)
        api.add(PODS, pod("packed", "500m", "1Gi", schedulerName="packing"))
        await trio.sleep(1)
        bound = where(api)
        assert (bound["n/spread0"], bound["n/other"]) == ("b", "")
        assert bound["n/packed"] in ("a", "b")
        text = scheduler.metrics.text()
        assert 'scheduler_schedule_attempts_total{profile="packing",result="scheduled"} 1' in text
        assert 'scheduler_pending_pods{queue="active"} 0' in text
