"""Many seeds at once: a process for each core, which plays one story after the other.

    python -m tests.sim.pool 0:20 [--story kv]      the trace hash of each seed, in order; at the
                                                    end, on stderr, what was reached how often

A story is one process's work from beginning to end, so the seeds cost as many cores as there are.
"""

from __future__ import annotations

import argparse
import logging
import multiprocessing
import os
import sys
import threading
import traceback
import warnings
from collections import Counter
from collections.abc import Iterable, Iterator
from concurrent.futures import ProcessPoolExecutor
from typing import Any, NamedTuple

from tests.sim import reshaping, scenario

__all__ = ["STORIES", "Played", "Pool", "play_one", "seeds_of"]

STORIES: dict[str, Any] = {"kv": scenario, "reshaping": reshaping}


class Played(NamedTuple):
    """What became of a seed; `failure` is empty where all was well."""

    seed: int
    reached: Counter[str]
    trace_hash: str
    failure: str


def seeds_of(variable: str, default: str) -> range:
    """`FIRST:LAST` from the environment."""
    first, _, last = os.environ.get(variable, default).partition(":")
    return range(int(first), int(last))


def play_one(story: str, seed: int) -> Played:
    """The story of one seed, here and now. Its failure is told, not raised."""
    try:
        outcome = STORIES[story].play(seed)
    except (Exception, BaseExceptionGroup) as error:
        told = "".join(traceback.format_exception(error))
        replay = f"replay: python -m tests.sim.replay {seed} --story {story}"
        return Played(seed, Counter(), "", f"{told}\n{replay}\n")
    return Played(seed, outcome.result.reached, outcome.trace_hash, "")


def _begin() -> None:
    """In each worker: as strict as the tests, silent about what members say, and gone with who
    started it, also if that one was killed."""
    warnings.simplefilter("error")
    logging.disable(logging.CRITICAL)
    threading.Thread(target=_end_with_parent, daemon=True).start()


def _end_with_parent() -> None:
    parent = multiprocessing.parent_process()
    if parent is not None:
        parent.join()
        os._exit(1)


class Pool:
    """`with Pool() as pool`: the workers are gone at the end."""

    def __init__(self) -> None:
        spawn = multiprocessing.get_context("spawn")  # trio's and pytest's state stays here
        self._workers = ProcessPoolExecutor(os.cpu_count(), spawn, _begin)

    def __enter__(self) -> Pool:
        return self

    def __exit__(self, *error: object) -> None:
        self._workers.shutdown(cancel_futures=True)

    def play(self, story: str, seeds: Iterable[int]) -> Iterator[Played]:
        """In the order of the seeds."""
        futures = [self._workers.submit(play_one, story, seed) for seed in seeds]
        for future in futures:
            yield future.result()


def main() -> int:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("seeds", help="FIRST:LAST")
    parser.add_argument("--story", choices=sorted(STORIES), default="kv")
    arguments = parser.parse_args()
    first, _, last = arguments.seeds.partition(":")
    failed = 0
    reached: Counter[str] = Counter()
    with Pool() as pool:
        for played in pool.play(arguments.story, range(int(first), int(last))):
            sys.stdout.write(f"{played.seed} {played.trace_hash}\n")
            sys.stderr.write(played.failure)
            failed += bool(played.failure)
            reached.update(played.reached)
    sys.stderr.write(", ".join(f"{name} {n}" for name, n in sorted(reached.items())) + "\n")
    return 1 if failed else 0


if __name__ == "__main__":
    sys.exit(main())
