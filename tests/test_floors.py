"""Who may import whom: the contracts of pyproject.toml hold, and what calls itself pure is."""

from __future__ import annotations

import ast
import re
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path

import pytest

ROOT = Path(__file__).parents[1]
IMPURE = frozenset(
    {"asyncio", "logging", "os", "socket", "ssl", "subprocess", "threading", "time", "trio"}
)
SAYS_PURE = re.compile(r"\(pure\)|\bPure[.:;]")


def pure_modules() -> list[Path]:
    """Modules whose first paragraph says that they are pure."""
    found = []
    for package in ("raftkv", "netsim", "k8slite"):
        for path in sorted((ROOT / package).rglob("*.py")):
            said = ast.get_docstring(ast.parse(path.read_bytes())) or ""
            if SAYS_PURE.search(said.split("\n\n")[0]):
                found.append(path)
    return found


def impurities(source: str) -> Iterator[str]:
    """What a module has of clocks, disks, sockets, threads and global randomness."""
    for node in ast.walk(ast.parse(source)):
        match node:
            case ast.Import(names=names):
                modules = [name.name for name in names]
            case ast.ImportFrom(module=str(module)):
                modules = [module]
            case ast.Attribute(value=ast.Name(id="random"), attr=name) if name != "Random":
                yield f"line {node.lineno}: random.{name}"
                continue
            case _:
                continue
        for module in modules:
            if module.split(".")[0] in IMPURE:
                yield f"line {node.lineno}: {module}"


def test_files_import_only_from_floors_below() -> None:
    command = "from importlinter.cli import lint_imports_command as main; main()"
    ran = subprocess.run(
        [sys.executable, "-c", command, "--no-cache", "--no-logo"],
        cwd=ROOT,
        capture_output=True,
        text=True,
        check=False,
    )
    assert ran.returncode == 0, ran.stdout + ran.stderr


@pytest.mark.parametrize("path", pure_modules(), ids=lambda path: str(path.relative_to(ROOT)))
def test_what_says_pure_is_pure(path: Path) -> None:
    assert list(impurities(path.read_text())) == []


def test_impurities_are_found() -> None:
    source = "import os.path\nfrom trio import sleep\nrandom.random()\nrandom.Random(1)"
    assert list(impurities(source)) == ["line 1: os.path", "line 2: trio", "line 3: random.random"]
