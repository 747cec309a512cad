"""A campaign against real processes: load, faults, and the checkers of the simulation.

    python -m tests.campaign                    two minutes, in rounds of a fresh cluster each
    python -m tests.campaign --seconds 0        until stopped
    python -m tests.campaign --seed 7           the same faults as in a round that failed

Members run behind relays; as root each has a small file system of its own that can be filled up. A
round: clients write, read, watch and hold leases while members are killed, stopped, cut off and
starved of disk; then everything is healed, and there must be progress, equal states on all members,
and a history that one store could have. A failure leaves the members' logs and prints the seed; the
faults are then the same again, what becomes of them depends on time.
"""

from __future__ import annotations

import argparse
import contextlib
import shutil
import sys
import tempfile
import time
from collections import Counter
from pathlib import Path

import trio

from tests.campaign.round import play

__all__ = ["main"]

ROUND_SECONDS = 20.0


def main() -> int:
    parser = argparse.ArgumentParser(
        prog="python -m tests.campaign",
        description=__doc__,
        formatter_class=argparse.RawDescriptionHelpFormatter,
    )
    parser.add_argument("--seconds", type=float, default=120.0, help="0: until stopped")
    parser.add_argument("--round", type=float, default=ROUND_SECONDS, help="seconds of faults")
    parser.add_argument("--members", type=int, default=0, help="default: 3, every third round 5")
    parser.add_argument("--seed", type=int, default=0, help="one round with this seed")
    arguments = parser.parse_args()
    started = time.monotonic()
    seed = arguments.seed or int(time.time())
    reached: Counter[str] = Counter()
    rounds = 0
    with contextlib.suppress(KeyboardInterrupt):
        while True:
            directory = Path(tempfile.mkdtemp(prefix="raftkv-campaign-"))
            members = arguments.members or (5 if seed % 3 == 0 else 3)
            print(f"seed {seed}, {members} members, logs in {directory}", flush=True)
            told = trio.run(play, seed, members, arguments.round, directory)
            reached += told
            rounds += 1
            shutil.rmtree(directory)
            print("  " + ", ".join(f"{name} {count}" for name, count in sorted(told.items())))
            seed += 1
            over = 0 < arguments.seconds <= time.monotonic() - started
            if arguments.seed or over:
                break
    print(f"{rounds} rounds: " + ", ".join(f"{name} {n}" for name, n in sorted(reached.items())))
    return 0


if __name__ == "__main__":
    sys.exit(main())
