"""Real kubectl, of every version on PATH: what is typed in `kubectl/*.txt` says what is there."""

from __future__ import annotations

import base64
import json
import os
import re
import shutil
import subprocess
import uuid
from pathlib import Path
from typing import Any

import pytest
import yaml

from tests.clients.transcript import matches, parse, run
from tests.cluster.real import Cluster, eventually

pytestmark = pytest.mark.slow

STORIES = Path(__file__).parent / "kubectl"


def kubectls() -> dict[str, str]:
    """version -> executable, of every kubectl on PATH."""
    found: dict[str, str] = {}
    for directory in os.get_exec_path():
        path = shutil.which("kubectl", path=directory)
        if path is not None:
            said = subprocess.run(
                [path, "version", "--client", "-o", "json"], capture_output=True, text=True
            )
            version = json.loads(said.stdout)["clientVersion"]["gitVersion"]
            found.setdefault(version.partition("-")[0], path)
    return found


KUBECTLS = kubectls()


@pytest.fixture(params=sorted(KUBECTLS) or ["kubectl"])
def shell(request: pytest.FixtureRequest, running: Cluster, tmp_path: Path) -> dict[str, str]:
    """The environment of a shell: one kubectl, and a context with a namespace of its own."""
    if request.param not in KUBECTLS:
        pytest.skip("needs kubectl on PATH")
    namespace = f"t-{uuid.uuid4().hex[:8]}"
    running.get("/api/v1/namespaces", {"metadata": {"name": namespace}})
    accounts = f"/api/v1/namespaces/{namespace}/serviceaccounts"
    assert eventually(lambda: running.get(accounts)["items"])
    config: dict[str, Any] = yaml.safe_load(running.layout.kubeconfig.read_text())
    config["contexts"][0]["context"]["namespace"] = namespace
    (tmp_path / "config").write_text(yaml.safe_dump(config))
    server = config["clusters"][0]["cluster"]
    ca = base64.b64decode(server["certificate-authority-data"])
    (tmp_path / "ca.crt").write_bytes(ca)
    (tmp_path / "bin").mkdir()
    (tmp_path / "bin/kubectl").symlink_to(KUBECTLS[request.param])
    return {
        "PATH": f"{tmp_path / 'bin'}:{os.environ['PATH']}",
        "HOME": str(tmp_path),
        "KUBECONFIG": str(tmp_path / "config"),
        "NAMESPACE": namespace,
        "SERVER": server["server"],
        "CA": str(tmp_path / "ca.crt"),
    }


@pytest.mark.parametrize("story", sorted(path.stem for path in STORIES.glob("*.txt")))
def test_kubectl_says_what_is_there(story: str, shell: dict[str, str]) -> None:
    path = STORIES / f"{story}.txt"
    for step in parse(path.read_text()):
        said = run(step, shell, STORIES / "files")
        assert matches(step.wanted, said), f"{path.name}:{step.line}: {step.command}\n" + "\n".join(
            said
        )


def test_the_table_is_long() -> None:
    commands = [s.command for p in STORIES.glob("*.txt") for s in parse(p.read_text())]
    verbs = {verb for each in commands for verb in re.findall(r"kubectl ([a-z-]+)", each)}
    assert len(commands) > 300
    assert len(verbs) > 35
