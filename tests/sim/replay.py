"""Play one seed again: `python -m tests.sim.replay SEED [--without 1,4] [--trace] [--shrink]`.

Prints the fault plan, then what the checkers say. `--shrink` leaves out fault after fault as long
as the run still fails, and prints the command for the smallest plan found.
"""

from __future__ import annotations

import argparse
import logging
import sys
import traceback

from tests.sim.scenario import plan_of, play


def _failure(seed: int, without: list[int]) -> BaseException | None:
    try:
        play(seed, without=without)
    except (Exception, BaseExceptionGroup) as error:
        return error
    return None


def _shrink(seed: int, without: list[int]) -> list[int]:
    for number in reversed(range(len(plan_of(seed)))):
        if number not in without and _failure(seed, [*without, number]) is not None:
            without = [*without, number]
            sys.stderr.write(f"still fails without {sorted(without)}\n")
    return sorted(without)


def main() -> int:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("seed", type=int)
    parser.add_argument("--without", default="", help="numbers of faults to leave out")
    parser.add_argument("--trace", action="store_true", help="print every line of the trace")
    parser.add_argument("--shrink", action="store_true", help="find a smaller plan that fails")
    parser.add_argument("--log", default="WARNING", help="level of the components' log")
    arguments = parser.parse_args()
    logging.basicConfig(level=arguments.log.upper(), format="%(name)s %(message)s")
    without = [int(number) for number in arguments.without.split(",") if number]
    if arguments.shrink:
        without = _shrink(arguments.seed, without)
        numbers = ",".join(map(str, without))
        sys.stdout.write(f"python -m tests.sim.replay {arguments.seed} --without {numbers}\n")
    for number, fault in enumerate(plan_of(arguments.seed)):
        mark = "left out" if number in without else ""
        sys.stdout.write(f"{number:3} {fault} {mark}\n")
    error = _failure(arguments.seed, without)
    if error is not None:
        traceback.print_exception(error)
        return 1
    outcome = play(arguments.seed, without=without, keep_trace=arguments.trace)
    sys.stdout.write(f"{outcome.trace_hash} {dict(outcome.result.reached)}\n")
    return 0


if __name__ == "__main__":
    sys.exit(main())
