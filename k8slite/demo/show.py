"""What the person sees: steps with their times, and in the end a verdict."""

from __future__ import annotations

import contextlib
import sys
import time
from collections.abc import Iterator

import attrs

from k8slite.terminal import colour

__all__ = ["NotHeld", "Show"]


class NotHeld(Exception):
    """Something that the demo promises did not hold; the message is for the user."""


@attrs.define
class Show:
    """Prints; counts nothing but time."""

    started: float = attrs.field(factory=time.monotonic)

    def title(self, text: str) -> None:
        print(f"\n{colour(text, 'bold')}", flush=True)

    @contextlib.contextmanager
    def step(self, text: str) -> Iterator[list[str]]:
        """A step with its time; what is appended to the list is shown after it."""
        print(f"{self._now()}  {text} ...", end="", flush=True)
        began = time.monotonic()
        results: list[str] = []
        try:
            yield results
        except BaseException:
            print(colour(" failed", "red"), flush=True)
            raise
        took = f"{time.monotonic() - began:.1f} s"
        print(f" {colour(took, 'dim')}", flush=True)
        for result in results:
            self.lines(result)

    def lines(self, text: str) -> None:
        """Output of a program, or a result, set off from the steps."""
        for line in text.rstrip("\n").splitlines():
            print(f"           {line}", flush=True)

    def verdict(self, problem: str) -> None:
        if problem:
            words = colour(f"It did not hold: {problem}", "red", sys.stderr)
            sys.stderr.write(f"\n{words}\n")
        else:
            seconds = time.monotonic() - self.started
            print(f"\n{colour(f'All of it held. {seconds:.0f} s.', 'green')}", flush=True)

    def _now(self) -> str:
        return colour(f"[{time.monotonic() - self.started:6.1f} s]", "dim")
