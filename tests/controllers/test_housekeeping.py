"""Old tokens, ranges of service addresses, and the status of policies."""

from __future__ import annotations

from typing import Any

import pytest
import trio

from k8slite.api.kinds import CONFIG_MAPS, SECRETS, SERVICE_ACCOUNTS
from k8slite.api.meta import Obj, format_time, get_condition, parse_time
from k8slite.controllers.access.legacy_tokens import (
    ACCOUNT,
    ACCOUNT_UID,
    INVALID_SINCE,
    LAST_USED,
    TRACKING,
    TYPE,
    plan,
)
from k8slite.controllers.access.policy_status import POLICIES
from k8slite.controllers.services.service_cidrs import ADDRESSES, FINALIZER, SERVICE_CIDRS
from tests.client.fake_api import FakeApi
from tests.controllers.objects import meta_of
from tests.controllers.storms import Scenario
from tests.controllers.world import open_cluster

DAY = 24 * 3600.0
NOW = parse_time("2026-06-15T12:00:00Z")


def secret(**labels: str) -> Obj:
    notes = {ACCOUNT: "robot", ACCOUNT_UID: "uid-of-robot"}
    metadata = {**meta_of("token"), "labels": labels, "annotations": notes}
    return {"metadata": metadata, "type": TYPE, "data": {"token": "eA=="}}


def account(*secrets: str) -> Obj:
    return {"metadata": meta_of("robot"), "secrets": [{"name": own} for own in secrets]}


def day(ago: float) -> str:
    return format_time(NOW - ago * DAY)[:10]


@pytest.mark.parametrize(
    ("labels", "mounted", "listed", "expected"),
    [
        ({}, False, True, "Patch"),
        ({LAST_USED: day(10)}, False, True, ""),
        ({LAST_USED: day(400)}, False, True, "Patch"),
        ({LAST_USED: day(800), INVALID_SINCE: day(100)}, False, True, ""),
        ({LAST_USED: day(800), INVALID_SINCE: day(370)}, False, True, "Delete"),
        ({LAST_USED: day(10), INVALID_SINCE: day(370)}, False, True, ""),
        ({LAST_USED: day(400)}, True, True, ""),
        ({LAST_USED: day(400)}, False, False, ""),
        ({LAST_USED: "some day"}, False, True, "Patch"),
    ],
)
def test_what_becomes_of_a_token(
    labels: dict[str, str], mounted: bool, listed: bool, expected: str
) -> None:
    owner = account("token") if listed else account()
    actions = plan(secret(**labels), owner, mounted, NOW - 500 * DAY, NOW, 365 * DAY)
    assert [type(action).__name__ for action in actions] == ([expected] if expected else [])
    assert plan(secret(**labels), owner, mounted, NOW - 5 * DAY, NOW, 365 * DAY) == []
    assert plan(secret(**labels), None, mounted, NOW - 500 * DAY, NOW, 365 * DAY) == []


def _old_token(api: FakeApi) -> None:
    api.add(SERVICE_ACCOUNTS, account("token"))
    tracking = {"metadata": {"name": TRACKING, "namespace": "kube-system"}}
    api.add(CONFIG_MAPS, {**tracking, "data": {"since": "2020-01-01"}})
    api.add(SECRETS, secret(**{LAST_USED: "2021-01-01"}))


async def test_an_old_token_is_marked_and_goes_later(
    autojump_clock: trio.testing.MockClock,
) -> None:
    own = "legacy-serviceaccount-token-cleaner-controller"
    async with open_cluster(own, pods=False) as cluster:
        _old_token(cluster.api)
        await trio.sleep(5)
        [marked] = cluster.api.all(SECRETS)
        assert INVALID_SINCE in marked["metadata"]["labels"]
        assert marked["data"] == {"token": "eA=="}
        await trio.sleep(367 * DAY)
        assert cluster.api.all(SECRETS) == []


def cidr(own: str, text: str) -> Obj:
    return {"metadata": {"name": own, "uid": f"uid-of-{own}"}, "spec": {"cidrs": [text]}}


async def test_a_range_stays_while_addresses_need_it(
    autojump_clock: trio.testing.MockClock,
) -> None:
    async with open_cluster("service-cidr-controller", pods=False) as cluster:
        api = cluster.api
        api.add(SERVICE_CIDRS, cidr("first", "10.0.0.0/24"))
        await trio.sleep(2)
        first = api.read(SERVICE_CIDRS, "first")
        assert first["metadata"]["finalizers"] == [FINALIZER]
        ready = get_condition(first, "Ready")
        assert ready is not None
        assert (ready["status"], ready["message"]) == ("True", "Kubernetes Service CIDR is ready")
        api.add(ADDRESSES, {"metadata": {"name": "10.0.0.7"}, "spec": {}})
        await api.delete(SERVICE_CIDRS, "first")
        await trio.sleep(2)
        ready = get_condition(api.read(SERVICE_CIDRS, "first"), "Ready")
        assert ready is not None
        assert (ready["status"], ready["reason"]) == ("False", "Terminating")
        api.add(SERVICE_CIDRS, cidr("wider", "10.0.0.0/16"))
        await trio.sleep(2)
        assert "first" not in api.objects[SERVICE_CIDRS]


def policy(*expressions: str) -> Obj:
    validations = [{"expression": text} for text in expressions]
    rule = {"apiGroups": ["apps"], "apiVersions": ["v1"], "resources": ["deployments"]}
    spec = {"validations": validations, "matchConstraints": {"resourceRules": [rule]}}
    return {"metadata": {"name": "p", "generation": 3}, "spec": spec}


async def test_a_policy_is_told_that_it_was_looked_at(
    autojump_clock: trio.testing.MockClock,
) -> None:
    own = "validatingadmissionpolicy-status-controller"
    async with open_cluster(own, pods=False) as cluster:
        cluster.api.add(POLICIES, policy("object.spec.replicas < 5", "object.spec.nope"))
        await trio.sleep(2)
        status = cluster.api.read(POLICIES, "p")["status"]
        assert status["observedGeneration"] == 3
        [warning] = status["typeChecking"]["expressionWarnings"]
        assert warning["fieldRef"] == "spec.validations[1].expression"


def _ranges(api: FakeApi) -> None:
    api.add(SERVICE_CIDRS, cidr("first", "10.0.0.0/24"))
    api.add(SERVICE_CIDRS, cidr("second", "10.1.0.0/24"))
    api.add(POLICIES, policy("true"))
    _old_token(api)


def _outcome(api: FakeApi) -> Any:
    conditions = [[c["status"] for c in o["status"]["conditions"]] for o in api.all(SERVICE_CIDRS)]
    marked = [INVALID_SINCE in o["metadata"]["labels"] for o in api.all(SECRETS)]
    return conditions, [o["status"] for o in api.all(POLICIES)], marked


SCENARIO = Scenario(
    name="housekeeping",
    controllers=(
        "service-cidr-controller",
        "validatingadmissionpolicy-status-controller",
        "legacy-serviceaccount-token-cleaner-controller",
    ),
    arrange=_ranges,
    outcome=_outcome,
)
