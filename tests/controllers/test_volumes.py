"""Claims and volumes: which one suits, binding step by step, provisioning, protection."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest
import trio

from k8slite.api.kinds import (
    NODES,
    PERSISTENT_VOLUME_CLAIMS,
    PERSISTENT_VOLUMES,
    PODS,
    STORAGE_CLASSES,
)
from k8slite.api.meta import Obj, name
from k8slite.api.volume_match import best_volume
from k8slite.controllers.actions import Note, Patch, Update
from k8slite.controllers.storage.volume_binder import SELECTED_NODE, plan_claim, plan_volume
from k8slite.controllers.storage.volume_protection import claims_of
from k8slite.controllers.storage.volume_provisioner import NAME, plan_reclaim
from tests.client.fake_api import FakeApi
from tests.controllers.objects import meta_of, node, pod
from tests.controllers.storms import Scenario, run_scenario

BINDER = (
    "persistentvolume-binder-controller",
    "persistentvolumeclaim-protection-controller",
    "persistentvolume-protection-controller",
    "local-provisioner-controller",
)


def claim(own: str = "data", size: str = "1Gi", storage_class: str = "", **spec: Any) -> Obj:
    return {
        "metadata": meta_of(own),
        "spec": {
            "accessModes": ["ReadWriteOnce"],
            "resources": {"requests": {"storage": size}},
            "storageClassName": storage_class,
            **spec,
        },
        "status": {"phase": "Pending"},
    }


def volume(own: str, size: str = "1Gi", phase: str = "Available", **spec: Any) -> Obj:
    return {
        "metadata": {"name": own, "uid": f"uid-of-{own}", "resourceVersion": "1"},
        "spec": {
            "capacity": {"storage": size},
            "accessModes": ["ReadWriteOnce"],
            "hostPath": {"path": f"/data/{own}"},
            "persistentVolumeReclaimPolicy": "Retain",
            **spec,
        },
        "status": {"phase": phase},
    }


def reference(own: str = "data", uid: str = "") -> Obj:
    return {"namespace": "n", "name": own, **({"uid": uid} if uid else {})}


@pytest.mark.parametrize(
    ("volumes", "changes", "expected"),
    [
        ([volume("big", "9Gi"), volume("fits", "2Gi"), volume("small", "1Mi")], {}, "fits"),
        ([volume("used", claimRef=reference("other", "x")), volume("free", "5Gi")], {}, "free"),
        ([volume("kept", "5Gi", claimRef=reference()), volume("free", "1Gi")], {}, "kept"),
        ([volume("kept", "1Mi", claimRef=reference())], {}, None),
        ([volume("mine", claimRef=reference("data", "uid-of-data"))], {}, "mine"),
        ([volume("gone", phase="Released")], {}, None),
        ([volume("fast", storageClassName="fast")], {}, None),
        ([volume("fast", storageClassName="fast")], {"storageClassName": "fast"}, "fast"),
        ([volume("a")], {"accessModes": ["ReadWriteMany"]}, None),
        ([volume("a")], {"volumeMode": "Block"}, None),
        ([volume("a")], {"selector": {"matchLabels": {"disk": "ssd"}}}, None),
    ],
)
def test_the_best_volume(volumes: list[Obj], changes: Obj, expected: str | None) -> None:
    found = best_volume(claim(**changes), volumes)
    assert (found and name(found)) == expected


def told(actions: list[Any]) -> list[str]:
    return [
        a.reason if isinstance(a, Note) else f"{a.kind.plural}/{getattr(a, 'subresource', '')}"
        for a in actions
    ]


TAKEN = volume("v", claimRef=reference("x", "y"))
WAITING = {"provisioner": NAME, "volumeBindingMode": "WaitForFirstConsumer"}


def test_binding_is_finished_from_wherever_it_stopped() -> None:
    first = plan_claim(claim(), [volume("v")], None)
    assert told(first) == [
        "persistentvolumes/",
        "persistentvolumes/status",
        "persistentvolumeclaims/",
        "persistentvolumeclaims/status",
    ]
    update, phase, bound, status = first
    assert isinstance(update, Update)
    assert isinstance(phase, Patch)
    assert isinstance(bound, Update)
    assert update.obj["spec"]["claimRef"]["uid"] == "uid-of-data"
    taken = update.obj
    assert told(plan_claim(claim(), [taken], None)) == told(first)[1:]
    taken = {**taken, "status": {"phase": "Bound"}}
    assert told(plan_claim(claim(), [taken], None)) == told(first)[2:]
    assert told(plan_claim(bound.obj, [taken], None)) == told(first)[3:]
    assert isinstance(status, Patch)
    done = {**bound.obj, "status": status.patch["status"]}
    assert plan_claim(done, [taken], None) == []
    assert plan_volume(taken, done) == []


@pytest.mark.parametrize(
    ("claimed", "volumes", "storage_class", "expected"),
    [
        (claim(), [], None, ["FailedBinding"]),
        (claim(storage_class="no"), [], None, ["ProvisioningFailed"]),
        (claim(storage_class="s"), [], WAITING, ["WaitForFirstConsumer"]),
        (
            claim(storage_class="s"),
            [],
            {"provisioner": NAME},
            ["persistentvolumeclaims/", "ExternalProvisioning"],
        ),
        (claim(volumeName="v"), [volume("v", "1Mi")], None, ["VolumeMismatch"]),
        (
            claim(volumeName="v"),
            [volume("v", claimRef=reference("x", "y"))],
            None,
            ["FailedBinding"],
        ),
        (claim(volumeName="v"), [], None, []),
    ],
)
def test_a_claim_that_waits(
    claimed: Obj, volumes: list[Obj], storage_class: Obj | None, expected: list[str]
) -> None:
    assert told(plan_claim(claimed, volumes, storage_class)) == expected


def test_a_claim_that_lost_its_volume() -> None:
    lost = claim(volumeName="v")
    lost["metadata"]["annotations"] = {"pv.kubernetes.io/bind-completed": "yes"}
    assert told(plan_claim(lost, [], None)) == ["persistentvolumeclaims/status", "ClaimLost"]
    other = volume("v", claimRef=reference("x", "y"))
    assert told(plan_claim(lost, [other], None))[1] == "ClaimMisbound"


def phase_of(actions: list[Any]) -> str:
    [action] = actions
    phase: str = action.patch["status"]["phase"]
    return phase


def test_what_a_volume_says_of_itself() -> None:
    assert phase_of(plan_volume(volume("v", phase=""), None)) == "Available"
    bound = volume("v", phase="Bound", claimRef=reference("data", "uid-of-data"))
    assert phase_of(plan_volume(bound, None)) == "Released"
    assert plan_volume(bound, claim(volumeName="v")) == []
    [update] = plan_volume(bound, claim(volumeName="another"))
    assert isinstance(update, Update)
    assert update.obj["spec"]["claimRef"] == {"namespace": "n", "name": "data"}


def test_only_our_own_directories_are_removed() -> None:
    obj = volume("pvc-1", phase="Released", persistentVolumeReclaimPolicy="Delete")
    assert plan_reclaim(obj, "/data") == ("", [])
    obj["metadata"]["annotations"] = {"pv.kubernetes.io/provisioned-by": NAME}
    assert plan_reclaim(obj, "/data")[0] == "/data/pvc-1"
    assert plan_reclaim(obj, "/other")[0] == ""
    obj["spec"]["hostPath"]["path"] = "/data/../etc"
    assert plan_reclaim(obj, "/data")[0] == ""


def test_claims_of_a_pod() -> None:
    obj = pod("p")
    obj["spec"]["volumes"] = [
        {"name": "a", "persistentVolumeClaim": {"claimName": "data"}},
        {"name": "b", "ephemeral": {"volumeClaimTemplate": {"spec": {}}}},
        {"name": "c", "emptyDir": {}},
    ]
    assert claims_of(obj) == ["data", "p-b"]


# --- all together -------------------------------------------------------------------------------


def provisioned(api: FakeApi) -> None:
    api.add(NODES, node("node-1"))
    obj = claim(storage_class="standard")
    obj["metadata"]["annotations"] = {SELECTED_NODE: "node-1"}
    api.add(PERSISTENT_VOLUME_CLAIMS, obj)
    api.add(PERSISTENT_VOLUMES, volume("static", phase=""))
    api.add(PERSISTENT_VOLUME_CLAIMS, claim("plain"))


def release(api: FakeApi) -> None:
    """Somebody deletes the claim while a pod uses it; the pod goes later."""
    obj = pod("user")
    obj["spec"]["volumes"] = [{"name": "a", "persistentVolumeClaim": {"claimName": "plain"}}]
    api.add(PODS, obj)
    for own in ("data", "plain"):
        api.change(
            PERSISTENT_VOLUME_CLAIMS,
            f"n/{own}",
            lambda o: o["metadata"].update(deletionTimestamp=api.now()),
        )


def volumes_outcome(api: FakeApi) -> Any:
    return (
        sorted((name(v), v["status"]["phase"]) for v in api.all(PERSISTENT_VOLUMES)),
        sorted((name(c), c["status"]["phase"]) for c in api.all(PERSISTENT_VOLUME_CLAIMS)),
    )


def listed(directory: Path) -> list[str]:
    return sorted(path.name for path in directory.iterdir())


def scenario(directory: Path) -> Scenario:
    return Scenario(
        name="volumes",
        controllers=BINDER,
        arrange=provisioned,
        act=release,
        outcome=volumes_outcome,
        config={"local_volumes": str(directory)},
    )


async def test_claims_live_and_die(tmp_path: Path, autojump_clock: trio.testing.MockClock) -> None:
    quiet = scenario(tmp_path)
    before = await run_scenario(
        Scenario(
            name="before",
            controllers=BINDER,
            arrange=provisioned,
            outcome=lambda api: (
                volumes_outcome(api),
                [name(c) for c in api.all(STORAGE_CLASSES)],
                listed(tmp_path),
            ),
            config={"local_volumes": str(tmp_path)},
        )
    )
    (volumes, claims), classes, directories = before.outcome
    assert volumes == [("pvc-uid-of-data", "Bound"), ("static", "Bound")]
    assert [phase for _, phase in claims] == ["Bound", "Bound"]
    assert classes == ["standard"]
    assert directories == ["pvc-uid-of-data"]
    after = await run_scenario(quiet)
    assert after.outcome[0] == [("static", "Bound")]
    assert "plain" in dict(after.outcome[1]), "a pod uses it"
    assert "data" not in dict(after.outcome[1])
    assert listed(tmp_path) == []
