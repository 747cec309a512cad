"""One seed, one run: trio made deterministic.

Owns: every private name of trio that this project touches. `tests/netsim/test_determinism.py` fails
loudly when a new trio lacks one of them, and `require_hooks` says so at run time.
Assumes: the code that runs keeps the rules of `raftkv.host`: time from `trio.current_time`,
randomness from its host, no threads, no order taken from a set.
Never does: touch real time. The clock starts at 0 and jumps when every task waits.

What trio leaves open even so: scopes whose deadlines are equal expire in the order of their
addresses. That is harmless, because the tasks they wake are sorted before the seeded shuffle.
The collector of cyclic garbage is off during a run: finalisers would run at moments that depend on
what the process did before.
"""

from __future__ import annotations

import collections
import contextlib
import gc
import random
from collections.abc import Awaitable, Callable, Iterator
from typing import Any, TypeVar, cast

import trio
import trio._core._run as trio_run
import trio.testing

__all__ = ["deterministic_run", "require_hooks", "run_queue", "seeded_scheduler"]

T = TypeVar("T")

# Reached by name, so that a type checker does not vouch for what trio does not promise.
_FLAG = "_ALLOW_DETERMINISTIC_SCHEDULING"
_RANDOM = "_r"
_CONTEXT = "GLOBAL_RUN_CONTEXT"


def require_hooks() -> None:
    """Raise RuntimeError, naming what is missing, if this trio cannot be made deterministic."""
    missing = [name for name in (_FLAG, _RANDOM, _CONTEXT) if not hasattr(trio_run, name)]
    if not missing and not isinstance(getattr(trio_run, _RANDOM), random.Random):
        missing.append(f"{_RANDOM} as a random.Random")
    if missing:
        raise RuntimeError(
            f"trio {trio.__version__} has no {', '.join(missing)} in trio._core._run; "
            "simulations need them: install a trio of the range in pyproject.toml"
        )


@contextlib.contextmanager
def seeded_scheduler(seed: int) -> Iterator[None]:
    """While inside, a `trio.run` orders its tasks by the seed alone."""
    require_hooks()
    shuffler = cast(random.Random, getattr(trio_run, _RANDOM))
    flag, state = getattr(trio_run, _FLAG), shuffler.getstate()
    setattr(trio_run, _FLAG, True)
    shuffler.seed(seed)
    try:
        yield
    finally:
        setattr(trio_run, _FLAG, flag)
        shuffler.setstate(state)


def deterministic_run(
    seed: int, main: Callable[..., Awaitable[T]], *args: Any, instruments: Any = ()
) -> T:
    """`trio.run(main, *args)` under virtual time, its every choice drawn from `seed`."""
    collecting = gc.isenabled()
    gc.disable()
    try:
        with seeded_scheduler(seed):
            clock = trio.testing.MockClock(autojump_threshold=0)
            return trio.run(main, *args, clock=clock, instruments=instruments)
    finally:
        if collecting:
            gc.enable()


def run_queue() -> collections.deque[trio.lowlevel.Task]:
    """The tasks that the current run will step next. Taking one out stops it until it is put back.

    That is how a paused host stands still, as a process does under SIGSTOP.
    """
    runner = getattr(trio_run, _CONTEXT).runner
    return cast("collections.deque[trio.lowlevel.Task]", runner.runq)
