"""Writes a table as nftables rules, into the network namespace of this process.

All rules are in one table of ours: the first sync replaces whatever an earlier life left in it,
the later ones write only what changed, each in one transaction.
"""

from __future__ import annotations

import logging
from collections.abc import Sequence

from k8slite.proxy.command import run_command
from k8slite.proxy.nft_rules import TABLE, Ruleset, RulesetBuilder, changes
from k8slite.proxy.table import Table
from k8slite.proxy.writer import WriteFailed

__all__ = ["NftablesWriter"]

log = logging.getLogger(__name__)


class NftablesWriter:
    """`command` comes before every program: a way into a namespace, for tests."""

    def __init__(self, cluster_cidr: str, *, command: Sequence[str] = ()) -> None:
        self._builder = RulesetBuilder(cluster_cidr)
        self._command = list(command)
        self._written: Ruleset | None = None

    async def sync(self, table: Table) -> list[str]:
        """See `Writer`. Rules are all or nothing."""
        wanted = self._builder.build(table)
        text = changes(self._written, wanted)
        if text:
            self._written = None  # what is there is not known while, and if, this fails
            await run_command([*self._command, "nft", "-f", "-"], text)
            log.debug("rules written bytes=%d ports=%d", len(text), len(table))
        self._written = wanted
        return []

    async def look(self) -> None:
        """See `Writer`."""
        if self._written is None:
            return
        command = ["nft", "list", "chain", *TABLE.split(), "services"]
        try:
            there = await run_command([*self._command, *command], "")
        except WriteFailed:
            there = ""
        if "@service-ips" not in there:
            log.warning("rules are gone, writing them again")
            self._written = None

    async def cleanup(self) -> None:
        """Remove our table, also that of an earlier life."""
        self._written = None
        text = f"add table {TABLE}\ndelete table {TABLE}\n"
        await run_command([*self._command, "nft", "-f", "-"], text)
