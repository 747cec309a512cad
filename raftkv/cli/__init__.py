"""The `raftkv` command."""

from raftkv.cli.main import main

__all__ = ["main"]
