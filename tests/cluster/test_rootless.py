"""A whole cluster without root: pods are processes, the proxy works in user space."""

from __future__ import annotations

import json
import os
import signal
from collections.abc import Iterator

import pytest

from tests.cluster.real import Cluster, cluster, eventually

pytestmark = pytest.mark.slow


@pytest.fixture(scope="module")
def whole(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Cluster]:
    """3 control planes and 2 nodes; tests leave all of it running."""
    with cluster(tmp_path_factory.mktemp("home"), "whole") as made:
        words = made.must("up", "--detach", "--fast", "--runtime", "process")
        assert f"export KUBECONFIG={made.layout.kubeconfig}" in words
        yield made


@pytest.fixture(autouse=True)
def healthy(whole: Cluster) -> None:
    assert eventually(whole.all_run), whole.logs()


def test_status_tells_who_leads_and_what_it_takes(whole: Cluster) -> None:
    status = json.loads(whole.must("status", "-o", "json"))
    assert len(status["components"]) == 16
    assert all(row["memory"] > 0 for row in status["components"].values())
    for role in ("raftkv", "scheduler", "controller-manager"):
        assert eventually(lambda role=role: whole.leader(role))  # type: ignore[misc]  # mypy can't infer it
    table = whole.must("status")
    assert "raftkv-3" in table
    assert "supervisor" in table
    nodes = whole.get("/api/v1/nodes")["items"]
    assert [node["metadata"]["name"] for node in nodes] == ["node-1", "node-2"]


def test_a_second_up_is_refused_and_harms_nothing(whole: Cluster) -> None:
    for flags in ([], ["--nodes", "5"], ["--dir", "/tmp/elsewhere"]):
        code, words = whole.run("up", "--detach", *flags)
        assert code in (1, 2)
        assert "is running already" in words or "leave --dir out" in words
    assert whole.run("start")[0] == 1
    assert whole.all_run()


def test_every_component_has_its_log(whole: Cluster) -> None:
    for component in [*whole.status()["components"], "supervisor"]:
        last = whole.layout.log(component).read_text().splitlines()[-1]
        assert json.loads(last)["level"] in ("info", "warning", "error")
    line = whole.must("logs", "controller-manager-1", "--tail", "1", "-o", "json")
    assert json.loads(line)["component"] == "controller-manager-1"


def test_a_log_can_be_followed(whole: Cluster) -> None:
    with whole.popen("logs", "-f", "apiserver-1", "--tail", "0") as following:
        try:
            whole.must("chaos", "kill", "apiserver-1", "--for", "0")
            assert following.stdout is not None
            assert following.stdout.readline()
        finally:
            following.send_signal(signal.SIGINT)
    assert following.returncode == 130


def test_another_leads_when_chaos_kills_the_leader(whole: Cluster) -> None:
    first = whole.leader("raftkv")
    words = whole.must("chaos", "kill", "raft-leader", "--for", "inf", "-o", "json")
    assert json.loads(words)["done"][0]["component"] == first
    assert whole.row(first)["state"] == "killed"
    assert whole.row(first)["starts_in_seconds"] is None
    assert "until it is resumed" in whole.must("status")
    assert eventually(lambda: whole.leader("raftkv") not in ("", first))
    whole.write("after-the-leader")
    whole.must("chaos", "resume", "raft-leader")
    assert eventually(lambda: whole.row(first)["state"] == "running")


def test_a_paused_node_is_missed_and_comes_back(whole: Cluster) -> None:
    def ready() -> bool:
        conditions = whole.get("/api/v1/nodes/node-2")["status"]["conditions"]
        return any(c["type"] == "Ready" and c["status"] == "True" for c in conditions)

    assert ready()
    whole.must("chaos", "pause", "node-2")
    assert whole.row("kubelet-2")["state"] == "paused"
    assert eventually(lambda: not ready())
    whole.must("chaos", "resume", "node-2")
    assert eventually(ready)


@pytest.mark.parametrize("target", ["", "node-9", "apiserver", "raftkv-4", "supervisor"])
def test_a_target_that_is_none_is_refused_with_those_there_are(whole: Cluster, target: str) -> None:
    code, words = whole.run("chaos", "kill", target)
    assert code == 1
    assert "raft-leader" in words
    assert "node-2" in words


def test_what_dies_by_itself_is_started_again_and_told(whole: Cluster) -> None:
    before = whole.row("scheduler-2")
    os.kill(before["pid"], signal.SIGKILL)
    assert eventually(lambda: whole.row("scheduler-2")["restarts"] == before["restarts"] + 1)
    assert eventually(lambda: whole.row("scheduler-2")["state"] == "running")
    assert whole.row("scheduler-2")["last_exit"] == "was killed by SIGKILL"
    assert "its last life was killed by SIGKILL" in whole.must("status")


def test_all_comes_back_when_the_zygote_dies(whole: Cluster) -> None:
    whole.write("before-the-zygote")
    os.kill(whole.status()["own"]["zygote"]["pid"], signal.SIGKILL)
    assert eventually(lambda: whole.all_run() and whole.answers())
    assert whole.has("before-the-zygote")


def test_a_kubeconfig_works_wherever_it_is(whole: Cluster) -> None:
    assert whole.must("kubeconfig") == whole.layout.kubeconfig.read_text()
    assert str(whole.home) not in whole.must("kubeconfig")
    assert whole.get("/version")["minor"]


def test_stop_and_start_keep_the_data(whole: Cluster) -> None:
    whole.write("before-the-stop")
    assert "its data is kept" in whole.must("stop")
    assert whole.run("status")[0] == 3
    assert "is ready" in whole.must("start")
    assert whole.has("before-the-stop")


def test_a_crash_of_everything_keeps_the_data(whole: Cluster) -> None:
    whole.write("before-the-crash")
    whole.kill_all()
    assert whole.run("status")[0] == 3
    assert "is ready" in whole.must("up", "--detach")
    assert whole.has("before-the-crash")


def test_another_cluster_lives_beside_it(whole: Cluster) -> None:
    with cluster(whole.home, "beside") as other:
        other.must("up", "--detach", "--fast", "--control-planes", "1", "--nodes", "0")
        other.write("here")
        assert not whole.has("here")
    assert whole.all_run()
