"""Places: no two clusters share one, whoever started them."""

from __future__ import annotations

import socket
from collections.abc import Iterator
from contextlib import closing, contextmanager
from pathlib import Path

import pytest

from k8slite.cluster.layout import find
from k8slite.cluster.placing import Held, PortTaken, make_place, refresh_place
from k8slite.cluster.spec import ClusterSpec


@pytest.fixture(autouse=True)
def own_home(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("K8SLITE_HOME", str(tmp_path / "home"))


@contextmanager
def placed(name: str, **flags: int) -> Iterator[Held]:
    layout = find(name)
    layout.claim(name)
    with closing(make_place(layout, ClusterSpec(name=name, **flags))) as held:  # type: ignore[arg-type]  # only numbers are asked for
        yield held


def test_two_clusters_of_one_home_have_their_own_ports_running_or_not() -> None:
    with placed("a") as a:
        pass
    with placed("b") as b:
        assert a.place.slot != b.place.slot
        assert a.place.port != b.place.port
    assert find("a").read()[1] == a.place


def test_clusters_of_two_homes_meet_only_while_both_run(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    with placed("a") as a:
        monkeypatch.setenv("K8SLITE_HOME", str(tmp_path / "other"))
        with placed("a") as b:
            assert a.place.slot != b.place.slot
            assert a.place.port != b.place.port


def test_a_stopped_cluster_keeps_its_place_when_it_can() -> None:
    with placed("a") as a:
        pass
    layout = find("a")
    with closing(refresh_place(layout, *layout.read())) as again:
        assert again.place == a.place


def test_a_stopped_cluster_whose_inner_ports_were_taken_gets_others_and_keeps_its_port() -> None:
    with placed("a") as a:
        pass
    layout = find("a")
    with listening(a.place.first_port + 5), closing(refresh_place(layout, *layout.read())) as again:
        assert again.place.slot != a.place.slot
        assert again.place.port == a.place.port
        assert again.place.service_cidr == a.place.service_cidr
        assert again.place.cluster_cidr != a.place.cluster_cidr
    assert layout.read()[1] == again.place


def test_a_port_in_use_is_told_with_what_to_do() -> None:
    with placed("a") as a:
        with pytest.raises(PortTaken, match="by cluster 'a'"), placed("b", port=a.place.port):
            pass
    layout = find("a")
    with listening(a.place.port):
        with pytest.raises(PortTaken, match="kubeconfigs name that port"):
            refresh_place(layout, *layout.read())
        with pytest.raises(PortTaken, match="ss -ltnp"), placed("c", port=a.place.port):
            pass


@pytest.mark.root
def test_a_cluster_of_namespaces_gets_a_range_that_nobody_has() -> None:
    specs = [ClusterSpec(name=name, runtime="oci", proxy="iptables") for name in ("a", "b")]
    subnets = []
    for spec in specs:
        layout = find(spec.name)
        layout.claim(spec.name)
        with closing(make_place(layout, spec)) as held:
            subnets.append(held.place.subnet)
            assert held.place.bridge
        with closing(refresh_place(layout, *layout.read())) as again:
            assert again.place == held.place
    assert subnets[0] != subnets[1]


@contextmanager
def listening(port: int) -> Iterator[None]:
    with socket.create_server(("127.0.0.1", port)):
        yield
