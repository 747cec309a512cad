"""requirements.lock is what pyproject.toml asks for."""

from __future__ import annotations

import re
import tomllib
from pathlib import Path

from packaging.requirements import Requirement
from packaging.utils import canonicalize_name

ROOT = Path(__file__).parents[1]


def test_the_lock_holds_what_the_project_asks_for() -> None:
    pins = re.findall(r"^([\w.-]+)==([^\s;\\]+)", (ROOT / "requirements.lock").read_text(), re.M)
    locked = {canonicalize_name(name): version for name, version in pins}
    project = tomllib.loads((ROOT / "pyproject.toml").read_text())["project"]
    extras = project["optional-dependencies"]
    lines = project["dependencies"] + extras["dev"]
    for line in lines:
        wanted = Requirement(line)
        if wanted.name == project["name"]:  # extras of our own, which are asked for in turn
            lines += [each for extra in wanted.extras for each in extras[extra]]
            continue
        version = locked.get(canonicalize_name(wanted.name))
        assert version is not None, f"{wanted.name} is not locked: make lock"
        assert wanted.specifier.contains(version), f"{line}, but {version} is locked: make lock"
