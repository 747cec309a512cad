"""Directories: whose they are, what of them is deleted, and how a cluster is found by its name."""

from __future__ import annotations

from pathlib import Path

import pytest

from k8slite.cluster.layout import (
    Layout,
    NoSuchCluster,
    find,
    home,
    known,
    locate,
    register,
    unregister,
)
from k8slite.cluster.spec import ClusterSpec, InvalidSpec, Place

PLACE = Place(port=6443, slot=0, first_port=20_000)


@pytest.fixture(autouse=True)
def own_home(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    monkeypatch.setenv("K8SLITE_HOME", str(tmp_path / "home"))
    return tmp_path / "home"


def made(layout: Layout, name: str) -> Layout:
    layout.claim(name)
    layout.write(ClusterSpec(name=name), PLACE)
    register(name, layout)
    return layout


def test_a_cluster_is_found_by_its_name_and_gone_after_delete(own_home: Path) -> None:
    layout = made(find("a"), "a")
    assert [name for name, _ in known()] == ["a"]
    assert find("a").read() == (ClusterSpec(name="a"), PLACE)
    layout.log("raftkv-1").write_text("x")
    layout.delete()
    unregister("a")
    assert not own_home.exists()


def test_a_cluster_elsewhere_is_found_through_a_link(tmp_path: Path, own_home: Path) -> None:
    elsewhere = tmp_path / "else where" / ("x" * 120)
    layout = made(locate("a", elsewhere), "a")
    assert layout.root == elsewhere
    assert find("a") == layout
    assert locate("a", None) == layout
    with pytest.raises(InvalidSpec, match="leave --dir out"):
        locate("a", tmp_path / "third")
    layout.delete()
    unregister("a")
    assert not elsewhere.exists()
    assert not own_home.exists()


def test_what_is_not_ours_is_neither_taken_nor_deleted(tmp_path: Path) -> None:
    (tmp_path / "data").mkdir()
    (tmp_path / "data" / "precious").write_text("x")
    layout = Layout(tmp_path)
    with pytest.raises(InvalidSpec, match="not empty"):
        layout.claim("a")
    with pytest.raises(AssertionError):
        layout.delete()
    assert (tmp_path / "data" / "precious").exists()


def test_the_directory_of_another_cluster_is_refused(tmp_path: Path) -> None:
    made(Layout(tmp_path / "d"), "a")
    with pytest.raises(InvalidSpec, match="of cluster 'a'"):
        Layout(tmp_path / "d").claim("b")


def test_what_others_put_beside_ours_stays(tmp_path: Path) -> None:
    layout = made(Layout(tmp_path / "d"), "a")
    (layout.root / "notes").write_text("mine")
    layout.delete()
    assert [path.name for path in layout.root.iterdir()] == ["notes"]


def test_logs_of_a_failed_start_stay_and_the_directory_can_be_used_again(tmp_path: Path) -> None:
    layout = made(Layout(tmp_path / "d"), "a")
    layout.log("supervisor").write_text("why")
    layout.delete(keep_logs=True)
    assert layout.is_ours()
    assert not layout.exists()
    assert layout.log("supervisor").read_text() == "why"
    layout.claim("a")


def test_a_file_in_the_way_is_refused(tmp_path: Path) -> None:
    (tmp_path / "file").write_text("x")
    with pytest.raises(InvalidSpec, match="not a directory"):
        Layout(tmp_path / "file").claim("a")


def test_a_vanished_directory_is_told(tmp_path: Path) -> None:
    layout = made(locate("a", tmp_path / "d"), "a")
    layout.root.rename(tmp_path / "unmounted")
    with pytest.raises(InvalidSpec, match="not there now"):
        locate("a", None)


@pytest.mark.parametrize("text", ["", "{", "[]", "{}", '{"spec": {}, "place": {}}', '{"spec": 1}'])
def test_a_broken_file_is_told_with_what_to_do(text: str) -> None:
    layout = made(find("a"), "a")
    layout.config.write_text(text)
    with pytest.raises(NoSuchCluster, match="k8slite down --name a"):
        layout.read()
    assert [name for name, _ in known()] == ["a"]


def test_one_directory_by_two_names_is_one_layout(
    tmp_path: Path, own_home: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    layout = made(find("a"), "a")
    (tmp_path / "link").symlink_to(own_home)
    monkeypatch.setenv("K8SLITE_HOME", str(tmp_path / "link"))
    assert find("a") == layout


def test_clusters_of_one_name_have_networks_of_their_own(tmp_path: Path) -> None:
    names = {Layout(tmp_path / home).network("local") for home in ("a", "b")}
    assert len(names) == 2
    assert all(name.startswith("local-") for name in names)


def test_who_has_no_home_is_told_what_to_set(monkeypatch: pytest.MonkeyPatch) -> None:
    def no_home() -> Path:
        raise RuntimeError("Could not determine home directory.")

    for name in ("K8SLITE_HOME", "XDG_DATA_HOME"):
        monkeypatch.delenv(name, raising=False)
    monkeypatch.setattr(Path, "home", no_home)
    with pytest.raises(InvalidSpec, match="K8SLITE_HOME"):
        home()
