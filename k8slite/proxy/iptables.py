"""Writes a table as iptables rules, into the network namespace of this process.

Remembers what it wrote, and writes only the chains that changed. What an earlier life left is
read back once, at the first sync: its jumps are kept, its chains replaced or deleted.
"""

from __future__ import annotations

import logging
import shlex
from collections.abc import Sequence
from typing import Final

from k8slite.proxy.command import run_command
from k8slite.proxy.rules import CANARY, JUMPS, ChainBuilder, Chains, changes
from k8slite.proxy.table import Table
from k8slite.proxy.writer import WriteFailed

__all__ = ["IptablesWriter"]

log = logging.getLogger(__name__)

PREFIX: Final = "KUBE-"
LOCK_SECONDS: Final = 10


class IptablesWriter:
    """`command` comes before every program: a way into a namespace, for tests."""

    def __init__(self, cluster_cidr: str, *, command: Sequence[str] = ()) -> None:
        self._builder = ChainBuilder(cluster_cidr)
        self._command = list(command)
        self._written: Chains | None = None

    async def sync(self, table: Table) -> list[str]:
        """See `Writer`. Rules are all or nothing."""
        wanted = self._builder.build(table)
        jumps = ""
        written = self._written
        if written is None:
            written, present = await self._read()
            jumps = _jumps([jump for jump in JUMPS if jump not in present])
        text = changes(written, wanted)
        if text or jumps:
            self._written = None  # what is there is not known while, and if, this fails
        if text:
            await self._restore(text)
        if jumps:
            await self._restore(jumps)
        self._written = wanted
        if text:
            log.debug("rules written bytes=%d ports=%d", len(text), len(table))
        return []

    async def look(self) -> None:
        """See `Writer`. As with kube-proxy, a chain that leads nowhere stands for all."""
        if self._written is None:
            return
        for table in ("filter", "nat"):
            command = ["iptables", "-w", str(LOCK_SECONDS), "-t", table, "-S", CANARY]
            try:
                await run_command([*self._command, *command], "")
            except WriteFailed:
                log.warning("rules in table %s are gone, writing them again", table)
                self._written = None
                return

    async def cleanup(self) -> None:
        """Remove our jumps, then our chains, also those of an earlier life."""
        chains, present = await self._read()
        self._written = None
        if not chains and not present:
            return
        lines: list[str] = []
        for table in ("filter", "nat"):
            jumps = [f"-D {chain} {rule}" for where, chain, rule in present if where == table]
            names = [name for where, name in chains if where == table]
            lines.append(f"*{table}")
            lines += [f":{name} - [0:0]" for name in names]
            lines += jumps
            lines += [f"-X {name}" for name in names]
            lines.append("COMMIT")
        await self._restore("\n".join(lines) + "\n")

    async def _read(self) -> tuple[Chains, list[tuple[str, str, str]]]:
        """Our chains that exist (their contents are not believed), and our jumps."""
        chains: Chains = {}
        present: list[tuple[str, str, str]] = []
        for table in ("filter", "nat"):
            text = await run_command([*self._command, "iptables-save", "-t", table], "")
            for line in text.splitlines():
                words = shlex.split(line) if line.startswith((":", "-A")) else []
                if not words:
                    continue
                if line.startswith(f":{PREFIX}"):
                    chains[table, words[0][1:]] = ("unknown",)
                elif not words[1].startswith(PREFIX) and words[-1].startswith(PREFIX):
                    present += [
                        jump
                        for jump in JUMPS
                        if jump[:2] == (table, words[1])
                        and jump[2].endswith(f" {words[-1]}")
                        and jump not in present
                    ]
        return chains, present

    async def _restore(self, text: str) -> None:
        command = ["iptables-restore", "--noflush", "-w", str(LOCK_SECONDS)]
        await run_command([*self._command, *command], text)


def _jumps(missing: Sequence[tuple[str, str, str]]) -> str:
    lines: list[str] = []
    for table in ("filter", "nat"):
        own = [f"-I {chain} {rule}" for where, chain, rule in missing if where == table]
        if own:
            lines += [f"*{table}", *reversed(own), "COMMIT"]
    return "\n".join(lines) + "\n" if lines else ""
