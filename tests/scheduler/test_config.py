"""Configurations: which plugins run where, and what is told of what cannot be."""

from __future__ import annotations

import importlib.util
import random
from importlib.metadata import EntryPoint
from pathlib import Path
from typing import Any
from unittest import mock

import pytest

from k8slite.scheduler import loader
from k8slite.scheduler.config import (
    InvalidConfiguration,
    build_profiles,
    default_profile,
    read_configuration,
)
from k8slite.scheduler.decide import decide
from k8slite.scheduler.framework import Handle
from k8slite.scheduler.loader import find_plugin, load_configuration
from k8slite.scheduler.plugins.table import PLUGINS
from k8slite.scheduler.pod_info import pod_info
from k8slite.scheduler.profile import Profile
from k8slite.scheduler.snapshot import Snapshot
from tests.scheduler.objects import node, pod

HEAD = {"apiVersion": "kubescheduler.config.k8s.io/v1", "kind": "KubeSchedulerConfiguration"}
EXAMPLE = Path(__file__).parents[2] / "examples" / "scheduler-plugin"


def profiles(*given: Any, **more: Any) -> dict[str, Profile]:
    configuration = read_configuration({**HEAD, "profiles": [*given], **more})
    return build_profiles(configuration, PLUGINS.get, lambda own: Handle(Snapshot(), own))


def one(**plugins: Any) -> Profile:
    return profiles({"plugins": plugins})["default-scheduler"]


def scores(profile: Profile) -> dict[str, int]:
    return {entry.name: entry.weight for entry in profile.scores}


def filters(profile: Profile) -> list[str]:
    return [entry.name for entry in profile.filters if entry.filters]


def test_the_defaults_are_kube_schedulers() -> None:
    profile = default_profile()
    assert scores(profile) == {
        "TaintToleration": 3,
        "NodeAffinity": 2,
        "PodTopologySpread": 2,
        "InterPodAffinity": 2,
        "NodeResourcesFit": 1,
        "NodeResourcesBalancedAllocation": 1,
        "ImageLocality": 1,
    }
    assert filters(profile)[:4] == [
        "NodeUnschedulable",
        "NodeName",
        "TaintToleration",
        "NodeAffinity",
    ]
    assert [p.name for p in profile.pre_enqueue] == [
        "SchedulingGates", "DynamicResources", "DefaultPreemption",
    ]  # fmt: skip
    assert [p.name for p in profile.post_filters] == ["DynamicResources", "DefaultPreemption"]
    assert [p.name for p in profile.binds] == ["DefaultBinder"]


def test_an_empty_file_changes_nothing() -> None:
    configuration = read_configuration(HEAD)
    [profile] = build_profiles(configuration, PLUGINS.get, lambda _: Handle()).values()
    assert scores(profile) == scores(default_profile())
    assert (configuration.backoff_seconds_min, configuration.backoff_seconds_max) == (1, 10)


def test_plugins_are_turned_off_at_one_point_or_at_all() -> None:
    without_score = one(score={"disabled": [{"name": "ImageLocality"}, {"name": "NodeAffinity"}]})
    assert "ImageLocality" not in scores(without_score)
    assert "NodeAffinity" not in scores(without_score)
    assert "NodeAffinity" in filters(without_score)
    nowhere = one(multiPoint={"disabled": [{"name": "NodeAffinity"}]})
    assert "NodeAffinity" not in [*scores(nowhere), *filters(nowhere)]
    alone = one(score={"disabled": [{"name": "*"}], "enabled": [{"name": "NodeResourcesFit"}]})
    assert scores(alone) == {"NodeResourcesFit": 1}
    assert filters(alone) == filters(default_profile())


def test_weights_are_said_at_a_point_or_for_all() -> None:
    assert scores(one(score={"enabled": [{"name": "ImageLocality", "weight": 7}]}))[
        "ImageLocality"
    ] == 7  # fmt: skip
    everywhere = one(multiPoint={"enabled": [{"name": "ImageLocality", "weight": 9}]})
    assert scores(everywhere)["ImageLocality"] == 9
    first = one(score={"enabled": [{"name": "ImageLocality", "weight": 7}]})
    assert next(iter(scores(first))) == "ImageLocality", "what a point names itself goes first"


def test_several_profiles_share_one_queue() -> None:
    both = profiles({"schedulerName": "a"}, {"schedulerName": "b", "percentageOfNodesToScore": 30})
    assert [(p.scheduler_name, p.percentage) for p in both.values()] == [("a", 0), ("b", 30)]
    inherited = profiles({"schedulerName": "a"}, percentageOfNodesToScore=70)
    assert inherited["a"].percentage == 70


@pytest.mark.parametrize(
    ("body", "told"),
    [
        ([], "the file: must be an object"),
        ({"kind": "Pod"}, "kind: 'Pod' is not KubeSchedulerConfiguration"),
        ({**HEAD, "apiVersion": "v1"}, "apiVersion: 'v1' is not"),
        ({**HEAD, "profile": []}, "profile: unknown field"),
        ({**HEAD, "percentageOfNodesToScore": 101}, "101 is not from 0 to 100"),
        ({**HEAD, "podInitialBackoffSeconds": 0}, "0 is not a number of at least 1"),
        ({**HEAD, "podInitialBackoffSeconds": 20}, "podMaxBackoffSeconds: 10 is less than"),
        ({**HEAD, "profiles": [{}, {}]}, r"profiles\[1\].schedulerName: .* is there twice"),
        ({**HEAD, "profiles": [{"plugins": {"sort": {}}}]}, "no such extension point"),
        (
            {**HEAD, "profiles": [{"pluginConfig": [{"name": "A"}, {"name": "A"}]}]},
            "repeated config for plugin A",
        ),
        ({**HEAD, "extenders": [{"urlPrefix": "x"}]}, "'x' is no URL"),
        (
            {**HEAD, "extenders": [{"urlPrefix": "http://x", "prioritizeVerb": "p", "weight": 0}]},
            r"extenders\[0\].weight: must be positive",
        ),
        ({**HEAD, "leaderElection": {"leaseDuration": "soon"}}, "'soon' is no duration"),
    ],
)
def test_what_a_file_cannot_say(body: Any, told: str) -> None:
    with pytest.raises(InvalidConfiguration, match=told):
        read_configuration(body)


@pytest.mark.parametrize(
    ("profile", "told"),
    [
        ({"plugins": {"score": {"enabled": [{"name": "Nope"}]}}}, 'plugin "Nope" does not exist'),
        (
            {"plugins": {"filter": {"enabled": [{"name": "ImageLocality"}]}}},
            'plugin "ImageLocality" does not extend filter',
        ),
        ({"plugins": {"queueSort": {"disabled": [{"name": "*"}]}}}, "one queue sort plugin"),
        ({"plugins": {"bind": {"disabled": [{"name": "*"}]}}}, "at least one bind plugin"),
        (
            {
                "pluginConfig": [
                    {"name": "NodeResourcesFit", "args": {"scoringStrategy": {"type": "X"}}}
                ]
            },
            r"profiles\[0\].pluginConfig\[NodeResourcesFit\].args.scoringStrategy.type",
        ),
        ({"pluginConfig": [{"name": "Nope", "args": {}}]}, 'plugin "Nope" does not exist'),
    ],
)
def test_what_a_profile_cannot_be(profile: Any, told: str) -> None:
    with pytest.raises(InvalidConfiguration, match=told):
        profiles(profile)


def test_a_file_that_is_not_there_or_no_yaml_is_named(tmp_path: Path) -> None:
    with pytest.raises(InvalidConfiguration, match=r"nothing\.yaml: No such file"):
        load_configuration(str(tmp_path / "nothing.yaml"))
    (tmp_path / "bad.yaml").write_text("a: [")
    with pytest.raises(InvalidConfiguration, match=r"bad\.yaml: "):
        load_configuration(str(tmp_path / "bad.yaml"))


# --- a plugin that somebody has installed --------------------------------------------------------


def example() -> Any:
    spec = importlib.util.spec_from_file_location("gpu_locality", EXAMPLE / "gpu_locality.py")
    assert spec is not None
    assert spec.loader is not None
    module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    return module.GpuLocality


def test_plugins_come_from_entry_points() -> None:
    point = EntryPoint("GpuLocality", "gpu_locality:GpuLocality", loader.GROUP)
    broken = EntryPoint("Broken", "no_such_module:Thing", loader.GROUP)
    known = {"GpuLocality": point, "Broken": broken}

    def installed(*, group: str, name: str) -> list[EntryPoint]:
        return [known[name]] if group == loader.GROUP and name in known else []

    plugin = example()
    with (
        mock.patch.object(loader, "entry_points", installed),
        mock.patch.dict("sys.modules", {"gpu_locality": mock.Mock(GpuLocality=plugin)}),
    ):
        assert find_plugin("GpuLocality") is plugin
        assert find_plugin("NodeName") is PLUGINS["NodeName"]
        assert find_plugin("Unknown") is None
        with pytest.raises(InvalidConfiguration, match="no_such_module"):
            find_plugin("Broken")
        configuration = load_configuration(str(EXAMPLE / "scheduler.yaml"))
        made = build_profiles(configuration, find_plugin, lambda own: Handle(Snapshot(), own))
    assert [*made] == ["default-scheduler", "gpu-scheduler"]
    assert scores(made["gpu-scheduler"])["GpuLocality"] == 10
    assert "GpuLocality" not in scores(made["default-scheduler"])


def test_the_example_keeps_a_group_in_one_block() -> None:
    snapshot = Snapshot()
    gpus = {"nvidia.com/gpu": "4"}
    for i in range(8):
        block = {"example.com/gpu-block": f"block-{i % 2}"}
        snapshot.put_node(node(f"n{i}", "64", "256Gi", labels=block, more=gpus))
    busy = pod("busy", on="n0", requests={"nvidia.com/gpu": "1"})
    snapshot.put_pod(pod_info(busy))
    plugin = example()
    configuration = load_configuration(str(EXAMPLE / "scheduler.yaml"))
    made = build_profiles(
        configuration, lambda own: {**PLUGINS, "GpuLocality": plugin}.get(own),
        lambda own: Handle(snapshot, own),
    )  # fmt: skip
    rng, blocks = random.Random(1), []
    for i in range(4):
        info = pod_info(
            pod(f"p{i}", requests={"nvidia.com/gpu": "4"}, labels={"example.com/gpu-group": "g"})
        )
        decision = decide(info, snapshot, 0, rng, made["gpu-scheduler"])
        chosen = snapshot.node(decision.node)
        assert chosen is not None
        blocks.append(chosen.labels["example.com/gpu-block"])
        snapshot.assume(info, decision.node)
    assert blocks == ["block-1"] * 4, "the block with the most free GPUs, and the rest beside it"
