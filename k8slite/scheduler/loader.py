"""Plugins by name: those that come with the scheduler, and those that others have installed.

A distribution offers a plugin by an entry point of the group `k8slite.scheduler.plugins`:

    [project.entry-points."k8slite.scheduler.plugins"]
    GpuLocality = "gpu_locality:GpuLocality"

Its name is the one that configurations use; what it points to is called as `factory(args, handle)`.
Entry points are looked up only for names that are not known otherwise.
"""

from __future__ import annotations

from importlib.metadata import entry_points
from pathlib import Path
from typing import Any

from k8slite.scheduler.config import (
    Configuration,
    InvalidConfiguration,
    build_profiles,
    read_configuration,
)
from k8slite.scheduler.framework import Factory, Handle
from k8slite.scheduler.plugins.table import PLUGINS

__all__ = ["GROUP", "check_configuration", "find_plugin", "load_configuration"]

GROUP = "k8slite.scheduler.plugins"


def find_plugin(name: str) -> Factory | None:
    """The factory of a plugin. Raises InvalidConfiguration if its module cannot be imported."""
    known = PLUGINS.get(name)
    if known is not None:
        return known
    for point in entry_points(group=GROUP, name=name):
        try:
            factory: Factory = point.load()
        except (ImportError, AttributeError) as error:
            raise InvalidConfiguration(f"plugin {name!r} ({point.value}): {error}") from error
        return factory
    return None


def load_configuration(path: str) -> Configuration:
    """The configuration in a file (YAML or JSON). Raises InvalidConfiguration, which names it."""
    from k8slite.api.yaml_codec import load

    try:
        body: Any = load(Path(path).read_bytes())
        return read_configuration(body)
    except OSError as error:
        raise InvalidConfiguration(f"{path}: {error.strerror}") from error
    except ValueError as error:
        raise InvalidConfiguration(f"{path}: {error}") from error


def check_configuration(path: str) -> None:
    """Could a scheduler run with this file? Raises InvalidConfiguration, which names it."""
    configuration = load_configuration(path)
    try:
        build_profiles(configuration, find_plugin, lambda own: Handle(scheduler_name=own))
    except InvalidConfiguration as error:
        raise InvalidConfiguration(f"{path}: {error}") from error
