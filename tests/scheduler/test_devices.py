"""Claims for devices: which devices a node can give, a dumb twin of the search, and the loop."""

from __future__ import annotations

import itertools
import random
from typing import Any

import pytest
import trio
from hypothesis import given, settings
from hypothesis import strategies as st

from k8slite.api.kinds import KIND, NODES, PODS
from k8slite.api.meta import Obj, get_condition, key
from k8slite.scheduler.allocate import allocate, missing_class
from k8slite.scheduler.devices import Devices
from tests.client.fake_api import Flaky
from tests.scheduler.objects import node, pod
from tests.scheduler.test_scheduler import open_world, where

CLAIMS = KIND["resourceclaims.resource.k8s.io"]
CLASSES = KIND["deviceclasses.resource.k8s.io"]
SLICES = KIND["resourceslices.resource.k8s.io"]
DRIVER = "gpu.example.com"


def device(own: str, memory: str = "40Gi", model: str = "a", **more: Any) -> Obj:
    attributes = {"model": {"string": model}, "index": {"int": 1}, "driver": {"version": "1.2.3"}}
    return {
        "name": own,
        "attributes": attributes,
        "capacity": {"memory": {"value": memory}},
        **more,
    }


def slice_of(where: str, *devices: Obj, **more: Any) -> Obj:
    pool = {"name": where, "generation": 1, "resourceSliceCount": 1}
    spec = {"driver": DRIVER, "pool": pool, "nodeName": where, "devices": [*devices]}
    return {"metadata": {"name": f"slice-{where}"}, "spec": {**spec, **more}}


def class_of(*expressions: str, own: str = "gpu", **more: Any) -> Obj:
    selectors = [{"cel": {"expression": text}} for text in expressions]
    return {"metadata": {"name": own}, "spec": {"selectors": selectors, **more}}


def request(own: str = "r", *expressions: str, **more: Any) -> Obj:
    selectors = [{"cel": {"expression": text}} for text in expressions]
    exactly = {"deviceClassName": "gpu", "allocationMode": "ExactCount", "count": 1}
    return {"name": own, "exactly": {**exactly, "selectors": selectors, **more}}


def claim(own: str, *requests: Obj, **more: Any) -> Obj:
    metadata = {"name": own, "namespace": "n", "uid": f"uid-of-{own}"}
    return {"metadata": metadata, "spec": {"devices": {"requests": [*requests], **more}}}


def world(*slices: Obj, classes: tuple[Obj, ...] = (class_of(),)) -> Devices:
    devices = Devices()
    devices.slices = {each["metadata"]["name"]: each for each in slices}
    devices.classes = {each["metadata"]["name"]: each for each in classes}
    return devices


def given_to(devices: Devices, *claims: Obj, on: str = "a") -> list[list[str]] | None:
    devices.claims |= {key(each): each for each in claims}
    found = allocate(claims, devices, on, {})
    if found is None:
        return None
    return [[r["device"] for r in found[key(c)]["devices"]["results"]] for c in claims]


def test_expressions_choose_devices() -> None:
    big = f'device.capacity["{DRIVER}"].memory.compareTo(quantity("60Gi")) >= 0'
    newer = f'device.attributes["{DRIVER}"].driver.isGreaterThan(semver("1.0.0"))'
    model = f'device.attributes["{DRIVER}"].model == "b"'
    one = slice_of("a", device("g0"), device("g1", "80Gi"), device("g2", "80Gi", "b"))
    ours = class_of(f'device.driver == "{DRIVER}"', newer)
    assert given_to(world(one, classes=(ours,)), claim("c", request("r", big))) == [["g1"]]
    assert given_to(world(one, classes=(ours,)), claim("c", request("r", big, model))) == [["g2"]]
    other = class_of('device.driver == "other"')
    assert given_to(world(one, classes=(other,)), claim("c", request())) is None
    broken = class_of('device.attributes["nope"].x == 1')
    assert given_to(world(one, classes=(broken,)), claim("c", request())) is None


def test_counts_all_and_other_nodes() -> None:
    devices = world(slice_of("a", device("g0"), device("g1")), slice_of("b", device("h0")))
    assert given_to(devices, claim("c", request(count=2))) == [["g0", "g1"]]
    assert given_to(devices, claim("c", request(count=3))) is None
    assert given_to(devices, claim("c", request(allocationMode="All"))) == [["g0", "g1"]]
    assert given_to(devices, claim("c", request()), on="b") == [["h0"]]
    assert given_to(devices, claim("c", request()), on="c") is None


def test_what_is_taken_is_taken_except_for_administrators() -> None:
    devices = world(slice_of("a", device("g0")))
    taken = claim("other", request())
    result = {"request": "r", "driver": DRIVER, "pool": "a", "device": "g0"}
    taken["status"] = {"allocation": {"devices": {"results": [result]}}}
    devices.claims["n/other"] = taken
    assert given_to(devices, claim("c", request())) is None
    assert given_to(devices, claim("c", request(adminAccess=True))) == [["g0"]]
    devices = world(slice_of("a", device("g0"), device("g1")))
    assert given_to(devices, claim("c", request()), claim("d", request())) == [["g0"], ["g1"]]
    assert given_to(devices, *(claim(own, request()) for own in "cde")) is None


def test_the_first_alternative_that_works() -> None:
    devices = world(slice_of("a", device("g0", model="b"), device("g1", model="b")))
    model = f'device.attributes["{DRIVER}"].model == '
    options = [
        {**request("one", f'{model}"a"')["exactly"], "name": "one"},
        {**request("two", f'{model}"b"', count=2)["exactly"], "name": "two"},
    ]
    c = claim("c", {"name": "r", "firstAvailable": options})
    found = allocate([c], devices, "a", {})
    assert found is not None
    results = found["n/c"]["devices"]["results"]
    assert [(r["request"], r["device"]) for r in results] == [("r/two", "g0"), ("r/two", "g1")]


def test_devices_that_must_be_alike_or_not() -> None:
    devices = world(
        slice_of("a", device("g0", model="a"), device("g1", model="b"), device("g2", model="b"))
    )
    both = (request("x"), request("y"))
    attribute = f"{DRIVER}/model"
    alike = [{"requests": ["x", "y"], "matchAttribute": attribute}]
    assert given_to(devices, claim("c", *both, constraints=alike)) == [["g1", "g2"]]
    unlike = [{"distinctAttribute": attribute}]
    assert given_to(devices, claim("c", *both, constraints=unlike)) == [["g0", "g1"]]
    unknown = [{"matchAttribute": f"{DRIVER}/nothing"}]
    assert given_to(devices, claim("c", *both, constraints=unknown)) is None


def test_partitions_share_what_is_there() -> None:
    def part(own: str, amount: str) -> Obj:
        consumed = {"counterSet": "gpu-0", "counters": {"memory": {"value": amount}}}
        return device(own, consumesCounters=[consumed])

    shared = [{"name": "gpu-0", "counters": {"memory": {"value": "80Gi"}}}]
    parts = part("big", "80Gi"), part("s1", "40Gi"), part("s2", "40Gi")
    one = slice_of("a", *parts, sharedCounters=shared)
    assert given_to(world(one), claim("c", request(count=2))) == [["s1", "s2"]]
    assert given_to(world(one), claim("c", request(count=3))) is None


def test_tainted_devices_and_pools_that_are_not_whole_are_left_alone() -> None:
    taint = {"key": "sick", "effect": "NoSchedule"}
    devices = world(slice_of("a", device("g0", taints=[taint]), device("g1")))
    assert given_to(devices, claim("c", request())) == [["g1"]]
    tolerated = request(tolerations=[{"key": "sick", "operator": "Exists"}])
    assert given_to(devices, claim("c", tolerated)) == [["g0"]]
    part = slice_of("a", device("g0"))
    part["spec"]["pool"]["resourceSliceCount"] = 2
    assert given_to(world(part), claim("c", request())) is None


def test_an_allocation_says_where_and_how_it_is_used() -> None:
    opaque = {"opaque": {"driver": DRIVER, "parameters": {"mode": "fast"}}}
    devices = world(slice_of("a", device("g0")), classes=(class_of(config=[opaque]),))
    c = claim("c", request(), config=[{"requests": ["r"], **opaque}])
    devices.claims["n/c"] = c
    found = allocate([c], devices, "a", {})
    assert found is not None
    allocation = found["n/c"]
    here = {"key": "metadata.name", "operator": "In", "values": ["a"]}
    assert allocation["nodeSelector"] == {"nodeSelectorTerms": [{"matchFields": [here]}]}
    assert [each["source"] for each in allocation["devices"]["config"]] == [
        "FromClass",
        "FromClaim",
    ]
    everywhere = world(slice_of("a", device("g0"), nodeName=None, allNodes=True))
    found = allocate([c], everywhere, "z", {})
    assert found is not None
    assert "nodeSelector" not in found["n/c"]


def test_a_class_that_is_not_there_is_named() -> None:
    told = "request r: device class gpu does not exist"
    assert missing_class(claim("c", request()), Devices()) == told


@settings(max_examples=150)
@given(
    st.lists(st.sampled_from("abc"), min_size=1, max_size=5),
    st.lists(st.tuples(st.sampled_from(["", "a", "b"]), st.integers(1, 2)), min_size=1, max_size=3),
    st.booleans(),
)
def test_the_search_agrees_with_a_dumb_twin(
    models: list[str], wishes: list[tuple[str, int]], alike: bool
) -> None:
    """The twin tries every way to hand out the devices."""
    devices = world(slice_of("a", *(device(f"g{i}", model=m) for i, m in enumerate(models))))
    requests = [
        request(f"r{i}", *([f'device.attributes["{DRIVER}"].model == "{m}"'] if m else []), count=n)
        for i, (m, n) in enumerate(wishes)
    ]
    constraints = [{"matchAttribute": f"{DRIVER}/model"}] if alike else []
    found = given_to(devices, claim("c", *requests, constraints=constraints))
    slots = [m for m, n in wishes for _ in range(n)]
    possible = any(
        all(m in ("", models[i]) for m, i in zip(slots, way, strict=True))
        and (not alike or len({models[i] for i in way}) == 1)
        for way in itertools.permutations(range(len(models)), len(slots))
    )
    assert (found is not None) == possible
    if found is not None:
        [chosen] = found
        assert len({*chosen}) == len(slots)
        numbers = [int(own[1:]) for own in chosen]
        assert all(m in ("", models[i]) for m, i in zip(slots, numbers, strict=True))


# --- the whole scheduler -------------------------------------------------------------------------


def using(own: str, *claims: str) -> Obj:
    return pod(own, resourceClaims=[{"name": c, "resourceClaimName": c} for c in claims])


async def test_claims_are_allocated_before_their_pods_are_bound(
    autojump_clock: trio.testing.MockClock,
) -> None:
    async with open_world() as api:
        for own in ("a", "b"):
            api.add(NODES, node(own))
        api.add(CLASSES, class_of())
        api.add(SLICES, slice_of("b", device("g0")))
        api.add(CLAIMS, claim("c", request()))
        api.add(PODS, using("p", "c"))
        await trio.sleep(1)
        assert where(api) == {"n/p": "b"}
        status = api.read(CLAIMS, "n/c")["status"]
        assert status["allocation"]["devices"]["results"][0]["device"] == "g0"
        assert status["reservedFor"] == [{"resource": "pods", "name": "p", "uid": "uid-of-p"}]
        assert api.read(CLAIMS, "n/c")["metadata"]["finalizers"] == [
            "resource.kubernetes.io/delete-protection"
        ]
        api.add(PODS, using("q", "c"))
        await trio.sleep(1)
        assert where(api)["n/q"] == "b", "a claim can be shared"
        assert len(api.read(CLAIMS, "n/c")["status"]["reservedFor"]) == 2


async def test_a_pod_without_devices_says_so_and_gets_those_that_come(
    autojump_clock: trio.testing.MockClock,
) -> None:
    async with open_world() as api:
        api.add(NODES, node("a"))
        api.add(CLASSES, class_of())
        api.add(CLAIMS, claim("c", request()))
        api.add(PODS, using("p", "c"))
        api.add(PODS, using("early", "later"))
        await trio.sleep(1)
        condition = get_condition(api.read(PODS, "n/p"), "PodScheduled")
        assert condition is not None
        assert condition["message"].startswith(
            "0/1 nodes are available: 1 cannot allocate all claims. still not schedulable, "
            "preemption: 0/1 nodes are available: 1 Preemption is not helpful"
        )
        api.add(SLICES, slice_of("a", device("g0"), device("g1")))
        await trio.sleep(2)
        assert where(api) == {"n/p": "a", "n/early": ""}
        api.add(CLAIMS, claim("later", request()))
        await trio.sleep(2)
        assert where(api)["n/early"] == "a"


async def test_no_device_is_given_twice(autojump_clock: trio.testing.MockClock) -> None:
    async with open_world() as api:
        for own in ("a", "b"):
            api.add(NODES, node(own))
            api.add(SLICES, slice_of(own, device("g0"), device("g1")))
        api.add(CLASSES, class_of())
        for i in range(6):
            api.add(CLAIMS, claim(f"c{i}", request()))
            api.add(PODS, using(f"p{i}", f"c{i}"))
        await trio.sleep(5)
        assert sum(bool(bound) for bound in where(api).values()) == 4
        given_out = devices_given(api)
        assert len(given_out) == len({*given_out}) == 4
        [waiting, *_] = [k for k, bound in where(api).items() if not bound]
        [held, *_] = [k for k, bound in where(api).items() if bound]
        api.remove(PODS, held)
        done = api.read(CLAIMS, held.replace("/p", "/c"))
        api.remove(CLAIMS, key(done))
        await trio.sleep(5)
        assert sum(bool(bound) for bound in where(api).values()) == 4, waiting


def devices_given(api: Any) -> list[tuple[str, str]]:
    allocations = [(c.get("status") or {}).get("allocation") or {} for c in api.all(CLAIMS)]
    results = [r for a in allocations for r in a.get("devices", {}).get("results", ())]
    return [(result["pool"], result["device"]) for result in results]


@pytest.mark.parametrize("seed", range(5))
async def test_faults_never_give_a_device_twice(
    seed: int, autojump_clock: trio.testing.MockClock
) -> None:
    rng = random.Random(seed)
    async with open_world(seed) as api:
        flaky = Flaky(rng.randrange(3, 6))
        api.fault, api.lose_answers = flaky.before, flaky.after
        api.event_delay = lambda: rng.random()
        for own in "ab":
            api.add(NODES, node(own))
            api.add(SLICES, slice_of(own, device("g0"), device("g1")))
        api.add(CLASSES, class_of())
        for i in range(7):
            api.add(CLAIMS, claim(f"c{i}", request()))
            api.add(PODS, using(f"p{i}", f"c{i}"))
            await trio.sleep(rng.random())
            if rng.random() < 0.4:
                api.break_watches(compact=rng.random() < 0.5)
            given_out = devices_given(api)
            assert len(given_out) == len({*given_out})
        await trio.sleep(400)
        given_out = devices_given(api)
        assert len(given_out) == len({*given_out}) == 4
        assert sum(bool(bound) for bound in where(api).values()) == 4
