"""Audit: what a policy has told of requests, and the files it is told to."""

from __future__ import annotations

import re
from pathlib import Path
from typing import Any

import orjson
import pytest
import trio
import yaml

from k8slite.apiserver.audit.files import LogFile, Rotation, old_name, too_many
from k8slite.apiserver.audit.policy import read_policy
from k8slite.apiserver.call import User
from k8slite.apiserver.http.message import Peer, Request
from k8slite.apiserver.requestinfo import request_info
from tests.apiserver.support import Watcher, encode_request, open_session, open_test_apiserver

POLICY = """
apiVersion: audit.k8s.io/v1
kind: Policy
omitStages: [RequestReceived]
rules:
- {level: None, users: [nobody]}
- {level: None, userGroups: [quiet], nonResourceURLs: ["/healthz*"]}
- {level: Metadata, resources: [{group: "", resources: [secrets, pods/status]}]}
- level: RequestResponse
  namespaces: [default]
  verbs: [create, update, patch]
  resources: [{group: "", resources: [configmaps], resourceNames: []}]
  omitManagedFields: true
- {level: Request, resources: [{group: apps}], omitStages: [ResponseStarted]}
- {level: Request, resources: [{group: batch, resources: ["*/status", "cronjobs/*"]}]}
- {level: Metadata, resources: [{group: "", resources: [nodes], resourceNames: [n1]}]}
- {level: Metadata, nonResourceURLs: ["/version", "/metrics*"]}
- {level: Metadata, verbs: [watch]}
"""


def level(method: str, path: str, user: User) -> str:
    path, _, query = path.partition("?")
    request = Request(method, path, query, {}, b"", Peer(None, None))
    return read_policy(POLICY).decide(user, request_info(request)).level


@pytest.mark.parametrize(
    ("method", "path", "user", "expected"),
    [
        ("GET", "/api/v1/namespaces/x/secrets", User("nobody"), "None"),
        ("GET", "/api/v1/namespaces/x/secrets", User("a"), "Metadata"),
        ("GET", "/healthz/ping", User("a", "", ("quiet",)), "None"),
        ("GET", "/api/v1/namespaces/x/pods/p/status", User("a"), "Metadata"),
        ("GET", "/api/v1/namespaces/x/pods/p", User("a"), "None"),
        ("POST", "/api/v1/namespaces/default/configmaps", User("a"), "RequestResponse"),
        ("POST", "/api/v1/namespaces/other/configmaps", User("a"), "None"),
        ("GET", "/api/v1/namespaces/default/configmaps", User("a"), "None"),
        ("GET", "/apis/apps/v1/deployments", User("a"), "Request"),
        ("GET", "/apis/batch/v1/namespaces/x/jobs/j/status", User("a"), "Request"),
        ("GET", "/apis/batch/v1/namespaces/x/jobs/j", User("a"), "None"),
        ("GET", "/apis/batch/v1/namespaces/x/cronjobs/j", User("a"), "Request"),
        ("GET", "/api/v1/nodes/n1", User("a"), "Metadata"),
        ("GET", "/api/v1/nodes/n2", User("a"), "None"),
        ("GET", "/version", User("a"), "Metadata"),
        ("GET", "/metrics/slis", User("a"), "Metadata"),
        ("GET", "/version/x", User("a"), "None"),
        ("GET", "/api/v1/services?watch=1", User("a"), "Metadata"),
    ],
)
def test_the_first_rule_that_fits_decides(
    method: str, path: str, user: User, expected: str
) -> None:
    assert level(method, path, user) == expected


@pytest.mark.parametrize(
    ("rule", "words"),
    [
        ("level: Loud", 'rules[0].level: Unsupported value: "Loud"'),
        ("{level: None, nonResourceURLs: [version]}", "rules[0].nonResourceURLs"),
        ("{level: None, nonResourceURLs: ['/a*b']}", "rules[0].nonResourceURLs"),
        ("{level: None, nonResourceURLs: [/a], namespaces: [x]}", "cannot apply to both"),
        ("{level: None, omitStages: [Late]}", 'rules[0].omitStages: Unsupported value: "Late"'),
        ("{level: None, users: [1]}", "rules[0].users: must be a list of texts"),
    ],
)
def test_what_is_wrong_with_a_policy(rule: str, words: str) -> None:
    head = {"apiVersion": "audit.k8s.io/v1", "kind": "Policy"}
    with pytest.raises(ValueError) as refused:
        read_policy(yaml.safe_dump({**head, "rules": [yaml.safe_load(rule)]}))
    assert words in str(refused.value)
    for text in ("[]", "kind: Policy", yaml.safe_dump(head)):
        with pytest.raises(ValueError):
            read_policy(text)


async def test_what_is_told(tmp_path: Path) -> None:
    log, policy = tmp_path / "audit" / "audit.log", tmp_path / "policy.yaml"
    policy.write_text(POLICY.replace("omitStages: [RequestReceived]\n", "", 1))
    maps = "/api/v1/namespaces/default/configmaps"

    def told() -> list[dict[str, Any]]:
        lines = log.read_bytes().splitlines()
        log.write_bytes(b"")
        return [orjson.loads(line) for line in lines]

    async with (
        open_test_apiserver(audit_policy=str(policy), audit_log=str(log)) as server,
        open_session(server) as session,
    ):
        await session.call("POST", maps, {"metadata": {"name": "m"}, "data": {"a": "b"}})
        ident = session.headers["audit-id"]
        received, complete = told()
        assert [each["stage"] for each in (received, complete)] == [
            "RequestReceived", "ResponseComplete",
        ]  # fmt: skip
        assert "requestObject" not in received
        assert complete["kind"] == "Event"
        assert complete["auditID"] == received["auditID"] == ident
        assert (complete["level"], complete["verb"]) == ("RequestResponse", "create")
        assert complete["requestURI"] == maps
        assert complete["user"]["username"] == "admin"
        assert complete["sourceIPs"] == ["127.0.0.1"]
        assert complete["objectRef"] == {
            "resource": "configmaps", "namespace": "default", "apiVersion": "v1",
        }  # fmt: skip
        assert complete["requestObject"]["data"] == {"a": "b"}
        assert complete["responseObject"]["data"] == {"a": "b"}
        assert "managedFields" not in complete["responseObject"]["metadata"]
        assert complete["responseStatus"] == {"metadata": {}, "code": 201}
        assert complete["annotations"]["authorization.k8s.io/decision"] == "allow"
        assert re.fullmatch(r".*T.*\.\d{6}Z", complete["requestReceivedTimestamp"])

        await session.call("POST", maps, {"metadata": {"name": "x"}}, token="alice-token")
        _, refused = told()
        assert refused["annotations"]["authorization.k8s.io/decision"] == "forbid"
        assert refused["responseStatus"]["code"] == 403
        assert refused["responseStatus"]["reason"] == "Forbidden"

        await session.call("GET", "/version", token="nonsense")
        (unknown,) = told()
        assert (unknown["stage"], unknown["user"]) == ("ResponseStarted", {})
        assert unknown["responseStatus"]["code"] == 401

        await session.call("GET", maps)
        assert told() == []

        async with open_session(server) as watching:
            watch = "/api/v1/services?watch=1&timeoutSeconds=1"
            await watching.stream.send_all(
                encode_request("GET", watch, None, "", "", watching.token)
            )
            watcher = Watcher(watching.stream)
            await watcher.start()
            assert [each["stage"] for each in told()] == ["RequestReceived", "ResponseStarted"]
        with trio.fail_after(10):
            while not (lines := told()):
                await trio.sleep(0.01)
        assert [each["stage"] for each in lines] == ["ResponseComplete"]


def test_which_old_files_go(tmp_path: Path) -> None:
    path, day = tmp_path / "audit.log", 86_400.0
    names = [old_name(path, 1_000_000.5 + i * day) for i in range(5)]
    assert names[0] == "audit-1970-01-12T13-46-40.500.log"
    others = ["audit.log", "other-1970-01-12T13-46-40.500.log", "audit-x.log"]
    now = 1_000_000.5 + 4 * day
    assert too_many(path, names + others, Rotation(backups=3), now) == names[1::-1]
    assert set(too_many(path, names + others, Rotation(age_days=2), now)) == set(names[:2])
    assert too_many(path, names + others, Rotation(), now) == []
    assert set(too_many(path, names, Rotation(1, 4), now)) == set(names[:3])


def test_a_large_file_is_put_aside(tmp_path: Path) -> None:
    path = tmp_path / "audit.log"
    file = LogFile(str(path), Rotation(backups=2, size_megabytes=1))
    line = b"x" * 600_000 + b"\n"
    for i in range(6):
        file.write(line, 1_000_000 + i)
    file.close()
    assert path.stat().st_size == len(line)
    old = sorted(each.name for each in tmp_path.iterdir())
    assert old == [
        "audit-1970-01-12T13-46-44.000.log", "audit-1970-01-12T13-46-45.000.log", "audit.log",
    ]  # fmt: skip
