"""Play one seed again: `python -m tests.sim.replay SEED [--story cluster] [--shrink] [--trace]`.

Prints the fault plan, then what the checkers say. `--shrink` leaves out fault after fault as long
as the run still fails, and prints the command for the smallest plan found.
"""

from __future__ import annotations

import argparse
import contextlib
import logging
import sys
import traceback
from typing import Any

from tests.sim import cluster_story, reshaping, scenario

STORIES: dict[str, Any] = {"kv": scenario, "reshaping": reshaping, "cluster": cluster_story}


def _failure(story: Any, seed: int, without: list[int]) -> BaseException | None:
    try:
        story.play(seed, without=without)
    except (Exception, BaseExceptionGroup) as error:
        return error
    return None


def _shrink(story: Any, seed: int, without: list[int]) -> list[int]:
    for number in reversed(range(len(story.plan_of(seed)))):
        if number not in without and _failure(story, seed, [*without, number]) is not None:
            without = [*without, number]
            sys.stderr.write(f"still fails without {sorted(without)}\n")
    return sorted(without)


def traced(story: Any, seed: int, without: list[int]) -> list[str]:
    """Every line of the run's trace, failed or not."""
    lines: list[str] = []
    with contextlib.suppress(Exception, BaseExceptionGroup):
        story.play(seed, without=without, trace_to=lines)
    return lines


def main() -> int:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("seed", type=int)
    parser.add_argument("--story", choices=sorted(STORIES), default="kv")
    parser.add_argument("--without", default="", help="numbers of faults to leave out")
    parser.add_argument("--trace", action="store_true", help="print every line of the trace")
    parser.add_argument("--shrink", action="store_true", help="find a smaller plan that fails")
    parser.add_argument("--log", default="WARNING", help="level of the components' log")
    arguments = parser.parse_args()
    logging.basicConfig(level=arguments.log.upper(), format="%(name)s %(message)s")
    story = STORIES[arguments.story]
    without = [int(number) for number in arguments.without.split(",") if number]
    if arguments.shrink:
        without = _shrink(story, arguments.seed, without)
        command = f"python -m tests.sim.replay {arguments.seed} --story {arguments.story}"
        sys.stdout.write(f"{command} --without {','.join(map(str, without))}\n")
    for number, fault in enumerate(story.plan_of(arguments.seed)):
        mark = "left out" if number in without else ""
        sys.stdout.write(f"{number:3} {fault} {mark}\n")
    if arguments.trace:
        sys.stdout.write("\n".join(traced(story, arguments.seed, without)) + "\n")
    error = _failure(story, arguments.seed, without)
    if error is not None:
        traceback.print_exception(error)
        return 1
    outcome = story.play(arguments.seed, without=without)
    sys.stdout.write(f"{outcome.trace_hash} {outcome.result.summary()}\n")
    return 0


if __name__ == "__main__":
    sys.exit(main())
