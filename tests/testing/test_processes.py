"""Clusters of real processes from a test, and from other people's tests through the plugin."""

from __future__ import annotations

import os
import signal
import subprocess
import sys
import textwrap
from collections.abc import Iterator
from pathlib import Path

import pytest

from k8slite.cluster import control
from k8slite.cluster.cleanup import leftovers
from k8slite.cluster.layout import Layout, known
from k8slite.cluster.starting import CannotStart
from k8slite.testing.processes import open_processes
from tests.cluster.real import eventually


@pytest.fixture(autouse=True)
def home(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[Path]:
    path = tmp_path / "home"
    monkeypatch.setenv("K8SLITE_HOME", str(path))
    yield path
    assert known() == []


def test_a_cluster_works_is_hurt_and_is_gone() -> None:
    with open_processes(nodes=0, runtime="fake") as cluster:
        cluster.kubectl("create", "configmap", "before", "--from-literal=is=there")
        (killed,) = cluster.kill("raft-leader", seconds=None)
        assert cluster.kubectl("get", "configmap", "before", "-o", "jsonpath={.data.is}") == "there"
        assert cluster.status()["components"][killed]["state"] == "killed"
        assert cluster.resume(killed) == [killed]
        with pytest.raises(subprocess.CalledProcessError) as refused:
            cluster.kubectl("get", "nonsense")
        assert "the server doesn't have a resource type" in refused.value.stderr
        with pytest.raises(control.Refused, match="there are raft-leader"):
            cluster.kill("nobody")
        assert "--- apiserver-1.log" in cluster.logs()
        assert cluster.kubectl("apply", "-f", "-", stdin=NAMESPACE) == "namespace/mine created\n"
    assert not cluster.layout.root.exists()
    assert not leftovers(cluster.name, cluster.layout)


NAMESPACE = '{"apiVersion": "v1", "kind": "Namespace", "metadata": {"name": "mine"}}'


def test_it_is_gone_also_when_the_test_fails() -> None:
    with (
        pytest.raises(ZeroDivisionError),
        open_processes(control_planes=1, nodes=0, runtime="fake") as cluster,
    ):
        raise ZeroDivisionError
    assert not cluster.layout.root.exists()
    assert not leftovers(cluster.name, cluster.layout)


def test_a_name_that_is_taken_is_refused_and_stays() -> None:
    with (
        open_processes(name="one", control_planes=1, nodes=0, runtime="fake") as cluster,
        pytest.raises(CannotStart, match="already"),
        open_processes(name="one", control_planes=1, nodes=0, runtime="fake"),
    ):
        pass
    assert not cluster.layout.root.exists()


def test_it_stops_when_who_holds_it_is_killed(home: Path) -> None:
    code = """\
    import time
    from k8slite.testing.processes import open_processes
    with open_processes(name="held", control_planes=1, nodes=0, runtime="fake"):
        print("ready", flush=True)
        time.sleep(600)
    """
    command = [sys.executable, "-c", textwrap.dedent(code)]
    with subprocess.Popen(command, stdout=subprocess.PIPE, text=True) as holder:
        assert holder.stdout is not None
        assert holder.stdout.readline() == "ready\n"
        holder.send_signal(signal.SIGKILL)
    layout = Layout((home / "held").resolve())
    assert eventually(lambda: not layout.is_running() and not leftovers("held", layout))
    subprocess.run(
        [sys.executable, "-m", "k8slite.cli.main", "down", "--name", "held"],
        check=True,
        stdout=subprocess.DEVNULL,
    )


def test_the_plugin_gives_all_tests_of_a_run_one_cluster(tmp_path: Path) -> None:
    (tmp_path / "test_theirs.py").write_text(
        textwrap.dedent("""\
        def test_one(k8slite_cluster):
            k8slite_cluster.kubectl("create", "namespace", "mine")

        def test_two(k8slite_cluster):
            assert k8slite_cluster.kubectl("get", "namespace", "mine", "-o", "name")
            assert k8slite_cluster.spec.control_planes == 1
        """)
    )
    done = subprocess.run(
        [sys.executable, "-m", "pytest", "-q", "-p", "k8slite.testing.plugin",
         "--k8slite-nodes", "0", "--k8slite-runtime", "fake", "test_theirs.py"],
        cwd=tmp_path,
        env={**os.environ, "PYTEST_DISABLE_PLUGIN_AUTOLOAD": "1"},
        capture_output=True,
        text=True,
        check=False,
    )  # fmt: skip
    assert done.returncode == 0, done.stdout
    assert "2 passed" in done.stdout
