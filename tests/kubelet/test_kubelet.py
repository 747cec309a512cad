"""A whole kubelet on a fake runtime and virtual time: life cycles of pods as the API shows them."""

from __future__ import annotations

import base64
import itertools
import json
from functools import partial
from typing import Any

import pytest
import trio
from trio.testing import MockClock

from k8slite.api.kinds import LEASES, NODES, PODS, SECRETS
from k8slite.api.meta import Obj
from k8slite.kubelet.images.credentials import Credential
from k8slite.kubelet.runtime.fake import Life, open_fake_runtime
from netsim.world import World, run
from tests.kubelet.world import KubeletApi, Node, container, open_fake_node, open_node, pod


async def test_the_node_is_registered_and_its_lease_renewed(autojump_clock: MockClock) -> None:
    async with open_fake_node(pod_cidr="10.244.1.0/24", labels={"zone": "a"}) as (node, _):
        found = node.api.read(NODES, "node-1")
        assert found["metadata"]["labels"]["kubernetes.io/hostname"] == "node-1"
        assert found["metadata"]["labels"]["zone"] == "a"
        assert found["spec"]["podCIDR"] == "10.244.1.0/24"
        assert found["status"]["addresses"][0]["address"] == "127.100.0.1"
        ready = found["status"]["conditions"][-1]
        assert (ready["type"], ready["status"], ready["reason"]) == (
            "Ready",
            "True",
            "KubeletReady",
        )
        await trio.sleep(1)
        first = node.api.read(LEASES, "kube-node-lease/node-1")["spec"]["renewTime"]
        await trio.sleep(30)
        lease = node.api.read(LEASES, "kube-node-lease/node-1")
        assert lease["spec"]["renewTime"] > first
        assert lease["spec"]["leaseDurationSeconds"] == 40
        assert lease["metadata"]["ownerReferences"][0]["kind"] == "Node"


async def test_a_quiet_node_writes_its_status_rarely(autojump_clock: MockClock) -> None:
    async with open_fake_node() as (node, _):
        await trio.sleep(250)
        written = [entry for entry in node.api.log if entry[1] == "nodes"]
        assert len(written) == 2  # created, and its first status
        await trio.sleep(120)
        assert len([entry for entry in node.api.log if entry[1] == "nodes"]) == 3


async def test_a_pod_runs(autojump_clock: MockClock) -> None:
    async with open_fake_node() as (node, _):
        node.api.add(PODS, pod())
        await node.until(lambda: node.status()["phase"] == "Running")
        await trio.sleep(1)
        status = node.status()
        assert status["podIP"] == "127.244.1.1"
        assert status["podIPs"] == [{"ip": "127.244.1.1"}]
        assert status["hostIP"] == "127.100.0.1"
        assert status["qosClass"] == "BestEffort"
        assert {c["type"]: c["status"] for c in status["conditions"]} == {
            "PodReadyToStartContainers": "True",
            "Initialized": "True",
            "Ready": "True",
            "ContainersReady": "True",
            "PodScheduled": "True",
        }
        (shown,) = status["containerStatuses"]
        assert (shown["ready"], shown["started"], shown["restartCount"]) == (True, True, 0)
        assert shown["containerID"].startswith("fake://")
        reasons = [reason for reason, _ in node.api.events()]
        assert reasons == ["Pulled", "Created", "Started"]


async def test_status_is_written_only_when_it_changes(autojump_clock: MockClock) -> None:
    async with open_fake_node() as (node, _):
        node.api.add(PODS, pod())
        await node.until(lambda: node.condition("Ready") == "True")
        await trio.sleep(1)
        before = node.kubelet.statistics()["patches"]
        assert before <= 4
        await trio.sleep(600)
        assert node.kubelet.statistics()["patches"] == before


async def test_crash_loop_backs_off_and_starts_anew_after_a_good_run(
    autojump_clock: MockClock,
) -> None:
    async with open_fake_node({"c": Life(run_seconds=1, exit_code=3)}) as (node, _):
        node.api.add(PODS, pod())
        await node.until(lambda: "waiting" in node.state() and node.status()["phase"] == "Running")
        shown = node.status()["containerStatuses"][0]
        assert shown["state"]["waiting"]["reason"] == "CrashLoopBackOff"
        assert shown["state"]["waiting"]["message"].startswith(
            "back-off 10s restarting failed container=c pod=p_default("
        )
        assert shown["lastState"]["terminated"]["exitCode"] == 3
        assert shown["lastState"]["terminated"]["reason"] == "Error"
        assert node.condition("Ready") == "False"

        def restarted(count: int) -> bool:
            return bool(node.status()["containerStatuses"][0]["restartCount"] == count)

        starts = []
        began = trio.current_time()
        for count in range(shown["restartCount"] + 1, 9):
            await node.until(
                partial(restarted, count),
                400,
            )
            starts.append(trio.current_time() - began)
        gaps = [round(b - a) for a, b in itertools.pairwise(starts)]
        assert gaps == [21, 41, 81, 161, 301, 301]
        assert "BackOff" in [reason for reason, _ in node.api.events()]


def reached(node: Node, phase: str) -> bool:
    return bool(node.status()["phase"] == phase)


async def test_restart_policies_and_phases(autojump_clock: MockClock) -> None:
    cases = {
        ("Never", 0): "Succeeded",
        ("Never", 1): "Failed",
        ("OnFailure", 0): "Succeeded",
    }
    for (policy, code), phase in cases.items():
        async with open_fake_node({"c": Life(run_seconds=5, exit_code=code)}) as (node, runtime):
            node.api.add(PODS, pod(restartPolicy=policy))
            await node.until(partial(reached, node, phase))
            await trio.sleep(5)
            shown = node.status()["containerStatuses"][0]
            assert shown["restartCount"] == 0
            assert shown["state"]["terminated"]["reason"] == ("Error" if code else "Completed")
            ready = next(c for c in node.status()["conditions"] if c["type"] == "Ready")
            assert ready["reason"] == ("PodFailed" if code else "PodCompleted")
            assert all(not s.ready for s in await runtime.list_pod_sandbox())


async def test_init_containers_run_in_order_before_the_others(autojump_clock: MockClock) -> None:
    lives = {"a": Life(run_seconds=3), "b": Life(run_seconds=3)}
    async with open_fake_node(lives) as (node, _):
        node.api.add(PODS, pod(initContainers=[container("a"), container("b")]))
        await trio.sleep(1)
        status = node.status()
        assert status["phase"] == "Pending"
        assert "running" in status["initContainerStatuses"][0]["state"]
        waiting = status["initContainerStatuses"][1]["state"]["waiting"]
        assert waiting["reason"] == "PodInitializing"
        assert status["containerStatuses"][0]["state"]["waiting"]["reason"] == "PodInitializing"
        initialized = next(c for c in status["conditions"] if c["type"] == "Initialized")
        assert initialized["reason"] == "ContainersNotInitialized"
        assert initialized["message"] == "containers with incomplete status: [a b]"
        await trio.sleep(3)
        pending = next(c for c in node.status()["conditions"] if c["type"] == "Initialized")
        assert pending["message"] == "containers with incomplete status: [b]"
        await node.until(lambda: node.status()["phase"] == "Running")
        assert node.condition("Initialized") == "True"


async def test_a_failed_init_container_fails_a_pod_that_never_restarts(
    autojump_clock: MockClock,
) -> None:
    async with open_fake_node({"a": Life(run_seconds=1, exit_code=2)}) as (node, _):
        node.api.add(PODS, pod(initContainers=[container("a")], restartPolicy="Never"))
        await node.until(lambda: node.status()["phase"] == "Failed")
        assert node.status()["initContainerStatuses"][0]["state"]["terminated"]["exitCode"] == 2


async def test_a_sidecar_starts_first_stays_and_ends_last(autojump_clock: MockClock) -> None:
    lives = {"s": Life(stop_seconds=1), "c": Life(run_seconds=5)}
    async with open_fake_node(lives) as (node, runtime):
        sidecar = container("s", restartPolicy="Always")
        node.api.add(PODS, pod(initContainers=[sidecar], restartPolicy="Never"))
        await trio.sleep(2)
        assert node.status()["initContainerStatuses"][0]["started"]
        assert "running" in node.state()
        await node.until(lambda: node.status()["phase"] == "Succeeded")
        await node.until(
            lambda: "terminated" in node.status()["initContainerStatuses"][0]["state"], 5
        )
        assert all(not s.ready for s in await runtime.list_pod_sandbox())


async def test_deletion_waits_for_the_grace_period_then_the_object_goes(
    autojump_clock: MockClock,
) -> None:
    async with open_fake_node({"c": Life(stop_seconds=None)}) as (node, runtime):
        node.api.add(PODS, pod(terminationGracePeriodSeconds=20))
        await node.until(lambda: node.status()["phase"] == "Running")
        began = trio.current_time()
        node.api.end("default/p")
        await node.until(lambda: not node.api.all(PODS))
        assert 18 <= trio.current_time() - began <= 22
        assert ("Killing", "Stopping container c") in node.api.events()
        await trio.sleep(1)
        assert await runtime.list_containers() == []
        assert await runtime.list_pod_sandbox() == []
        assert node.kubelet.pods() == []


async def test_a_shorter_grace_period_cuts_a_long_one_short(autojump_clock: MockClock) -> None:
    async with open_fake_node({"c": Life(stop_seconds=None)}) as (node, _):
        node.api.add(PODS, pod(terminationGracePeriodSeconds=500))
        await node.until(lambda: node.status()["phase"] == "Running")
        node.api.end("default/p")
        await trio.sleep(5)
        assert node.api.all(PODS)
        node.api.end("default/p", grace=1)
        await node.until(lambda: not node.api.all(PODS), 5)


async def test_the_last_status_says_how_the_containers_ended(autojump_clock: MockClock) -> None:
    async with open_fake_node({"c": Life(stop_seconds=None)}) as (node, _):
        seen = []
        node.api.add(PODS, {**pod(), "metadata": {**pod()["metadata"], "finalizers": ["x/y"]}})
        await node.until(lambda: node.status()["phase"] == "Running")
        node.api.end("default/p", grace=2)
        await node.until(lambda: "terminated" in node.state())
        seen.append(node.status()["phase"])
        assert node.state()["terminated"]["exitCode"] == 137
        assert seen == ["Failed"]


async def test_a_pod_removed_by_force_is_ended_all_the_same(autojump_clock: MockClock) -> None:
    async with open_fake_node({"c": Life(stop_seconds=3)}) as (node, runtime):
        node.api.add(PODS, pod())
        await node.until(lambda: node.status()["phase"] == "Running")
        node.api.remove(PODS, "default/p")
        await trio.sleep(10)
        assert await runtime.list_pod_sandbox() == []
        assert node.kubelet.pods() == []


async def test_the_same_name_comes_again_at_once(autojump_clock: MockClock) -> None:
    async with open_fake_node({"c": Life(stop_seconds=3)}) as (node, runtime):
        node.api.add(PODS, pod(uid="one"))
        await node.until(lambda: node.status()["phase"] == "Running")
        node.api.remove(PODS, "default/p")
        node.api.add(PODS, pod(uid="two"))
        await node.until(lambda: node.status()["phase"] == "Running")
        await trio.sleep(10)
        assert [s.pod_uid for s in await runtime.list_pod_sandbox()] == ["two"]


async def test_probes_decide_readiness_and_restarts(autojump_clock: MockClock) -> None:
    probe = {"httpGet": {"port": 80}, "periodSeconds": 5}
    lives = {"c": Life(ready_seconds=12)}
    async with open_fake_node(lives) as (node, _):
        node.api.add(PODS, pod(containers=[container(readinessProbe=probe, livenessProbe=probe)]))
        await node.until(lambda: node.status()["phase"] == "Running")
        await trio.sleep(8)
        assert node.condition("Ready") == "False"
        unready = next(c for c in node.status()["conditions"] if c["type"] == "ContainersReady")
        assert unready["message"] == "containers with unready status: [c]"
        await node.until(lambda: node.condition("Ready") == "True")
        assert node.status()["containerStatuses"][0]["restartCount"] == 0
        assert "Unhealthy" in [reason for reason, _ in node.api.events()]


async def test_a_failed_startup_probe_restarts_the_container(autojump_clock: MockClock) -> None:
    probe = {"httpGet": {"port": 80}, "periodSeconds": 2, "failureThreshold": 3}
    async with open_fake_node({"c": Life(ready_seconds=1e9)}) as (node, _):
        node.api.add(PODS, pod(containers=[container(startupProbe=probe)]))
        await node.until(lambda: node.status()["phase"] == "Running")
        await node.until(lambda: node.status()["containerStatuses"][0]["restartCount"] == 1)
        text = "Container c failed startup probe, will be restarted"
        assert ("Killing", text) in node.api.events()


async def test_missing_images_say_so(autojump_clock: MockClock) -> None:
    async with open_fake_node() as (node, runtime):
        runtime.missing_images.add("nothere")
        never = container("never", image="nothere", imagePullPolicy="Never")
        pull = container("pull", image="nothere")
        bad = container("bad", image="Not Here")
        node.api.add(PODS, pod(containers=[never, pull, bad, container()]))
        await trio.sleep(1.5)
        reasons = [
            (s["state"].get("waiting") or {}).get("reason")
            for s in node.status()["containerStatuses"]
        ]
        assert reasons == ["ErrImageNeverPull", "ErrImagePull", "InvalidImageName", None]
        await trio.sleep(4)
        waiting = node.state(number=1)["waiting"]
        assert waiting["reason"] == "ImagePullBackOff"
        assert waiting["message"].startswith('Back-off pulling image "nothere"')
        assert node.status()["phase"] == "Pending"
        runtime.missing_images.clear()
        await node.until(lambda: "running" in node.state(number=1), 60)


async def test_pull_secrets_and_policies(autojump_clock: MockClock) -> None:
    auths = {"quay.io/team": {"username": "ann", "password": "p"}, "other.io": {"username": "x"}}
    data = base64.b64encode(json.dumps({"auths": auths}).encode()).decode()
    secret = {
        "apiVersion": "v1",
        "kind": "Secret",
        "metadata": {"name": "mine", "namespace": "default"},
        "type": "kubernetes.io/dockerconfigjson",
        "data": {".dockerconfigjson": data},
    }
    async with open_fake_node() as (node, runtime):
        node.api.add(SECRETS, secret)
        always = container("a", image="quay.io/team/app", imagePullPolicy="Always")
        present = container("b", image="quay.io/team/other")
        secrets = [{"name": "mine"}, {"name": "absent"}]
        node.api.add(PODS, pod(containers=[always, present], imagePullSecrets=secrets))
        await node.until(lambda: node.status()["phase"] == "Running")
        assert runtime.pulls == [("quay.io/team/app", (Credential("ann", "p"),))]
        told = dict(node.api.events())
        assert "(absent)" in told["FailedToRetrieveImagePullSecret"]
        assert 'Successfully pulled image "quay.io/team/app"' in " ".join(
            message for reason, message in node.api.events() if reason == "Pulled"
        )


async def test_a_missing_config_map_is_waited_for(autojump_clock: MockClock) -> None:
    from k8slite.api.kinds import CONFIG_MAPS

    reference = {"valueFrom": {"configMapKeyRef": {"name": "cm", "key": "k"}}}
    async with open_fake_node() as (node, _):
        node.api.add(PODS, pod(containers=[container(env=[{"name": "A", **reference}])]))
        await trio.sleep(2)
        waiting = node.state()["waiting"]
        assert waiting["reason"] == "CreateContainerConfigError"
        assert waiting["message"] == 'configmap "cm" not found'
        node.api.add(
            CONFIG_MAPS,
            {
                "apiVersion": "v1",
                "kind": "ConfigMap",
                "metadata": {"name": "cm", "namespace": "default"},
                "data": {"k": "v"},
            },
        )
        await node.until(lambda: node.status()["phase"] == "Running")


async def test_an_active_deadline_fails_the_pod(autojump_clock: MockClock) -> None:
    async with open_fake_node() as (node, _):
        node.api.add(PODS, pod(activeDeadlineSeconds=30))
        await node.until(lambda: node.status()["phase"] == "Failed", 40)
        assert node.status()["reason"] == "DeadlineExceeded"
        assert 29 <= trio.current_time() <= 33


async def test_requests_that_fail_are_repeated(autojump_clock: MockClock) -> None:
    from tests.client.fake_api import unavailable

    async with open_fake_node() as (node, _):
        node.api.fault = unavailable
        node.api.add(PODS, pod())
        await trio.sleep(60)
        node.api.fault = None
        await node.until(lambda: node.status()["phase"] == "Running")
        assert len(node.api.events()) >= 0


async def test_a_finished_pod_is_not_run_again_by_a_new_kubelet(autojump_clock: MockClock) -> None:
    async with open_fake_node() as (node, runtime):
        done = pod()
        done["status"] = {"phase": "Succeeded", "podIP": "127.244.1.9"}
        node.api.add(PODS, done)
        await trio.sleep(100)
        assert await runtime.list_containers() == []
        assert node.status()["phase"] == "Succeeded"


async def test_a_pod_that_others_called_unready_is_ready_again(autojump_clock: MockClock) -> None:
    """The node controller does so when it takes the node for dead (found by cluster seed 6)."""

    def unready(pod: Obj) -> None:
        for condition in pod["status"]["conditions"]:
            if condition["type"] == "Ready":
                condition["status"] = "False"

    async with open_fake_node() as (node, _):
        node.api.add(PODS, pod())
        await node.until(lambda: node.condition("Ready") == "True")
        await trio.sleep(10)
        node.api.change(PODS, "default/p", unready)
        await node.until(lambda: node.condition("Ready") == "True")


async def test_a_pod_whose_containers_are_lost_fails_if_it_never_restarts(
    autojump_clock: MockClock,
) -> None:
    async with open_fake_node() as (node, runtime):
        lost = pod(restartPolicy="Never")
        state = {"running": {"startedAt": "2026-01-01T00:00:00Z"}}
        lost["status"] = {
            "phase": "Running",
            "containerStatuses": [{"name": "c", "state": state, "restartCount": 0}],
        }
        node.api.add(PODS, lost)
        await node.until(lambda: node.status()["phase"] == "Failed")
        ended = node.state()["terminated"]
        assert (ended["exitCode"], ended["reason"]) == (137, "ContainerStatusUnknown")
        assert await runtime.list_containers() == []


async def test_what_a_pod_cannot_have_is_told(autojump_clock: MockClock) -> None:
    async with open_fake_node() as (node, _):
        one = container(ports=[{"containerPort": 80, "hostPort": 8080}])
        node.api.add(PODS, pod(containers=[one], shareProcessNamespace=True))
        await node.until(lambda: node.condition("Ready") == "True")
        await trio.sleep(1)
        texts = [text for reason, text in node.api.events() if reason == "Unsupported"]
        assert len(texts) == 2
        assert "hostPort 8080" in texts[1]


@pytest.mark.parametrize("seed", [1, 2])
def test_one_seed_gives_one_trace(seed: int) -> None:
    """The kubelet under netsim: crashing pods, probes and deletions, twice the same."""

    async def scenario(world: World) -> tuple[Any, ...]:
        host = world.host("node-1")
        api = KubeletApi()
        probe = {"httpGet": {"port": 80}, "periodSeconds": 3}
        async with open_fake_runtime(host) as runtime:
            async with open_node(runtime, api=api, host=host):
                for number in range(6):
                    command = ("sh", "-c", f"sleep {number}; exit {number % 3}")
                    one = container("c", *command, readinessProbe=probe)
                    api.add(PODS, pod(f"p{number}", uid=f"u{number}", containers=[one]))
                await trio.sleep(90)
                api.end("default/p3", 5)
                api.remove(PODS, "default/p4")
                await trio.sleep(60)
        statuses = [(p["metadata"]["name"], p["status"]) for p in api.all(PODS)]
        return api.log, statuses

    first, second = run(seed, scenario), run(seed, scenario)
    assert first.trace_hash == second.trace_hash
    assert first.result == second.result
    assert len(first.result[0]) > 50
