"""One priority level: seats, and flows that wait for them in turn.

Owns: how many requests are at work in the level, and a bounded line for each flow. A seat that
becomes free goes to the next flow, so a flow of one request waits behind one of each other flow,
never behind all that a noisy one has sent.
"""

from __future__ import annotations

from collections import deque

import trio

from k8slite.api.status import ApiError, too_many_requests

__all__ = ["Level"]

WAIT_SECONDS = 15.0
FLOWS_MAX = 1_024
TOO_MANY = "Too many requests, please try again later."


class Level:
    """`seats` None: nobody waits. `waiting_max` is the length of one flow's line, 0: refuse."""

    def __init__(self, name: str, seats: int | None, waiting_max: int) -> None:
        self.name = name
        self.seats = seats
        self.waiting_max = waiting_max
        self.at_work = 0
        self.waiting = 0
        self.dispatched = 0
        self.refused = 0
        self._lines: dict[tuple[str, str], deque[tuple[trio.Event, int]]] = {}

    def try_enter(self, width: int) -> bool:
        """Take seats at once if there are any and nobody waits for them."""
        if self.seats is None or (not self.waiting and self._has_room(width)):
            self.at_work += width
            self.dispatched += 1
            return True
        return False

    def _has_room(self, width: int) -> bool:
        """Whoever is alone always fits."""
        assert self.seats is not None
        return not self.at_work or self.at_work + width <= self.seats

    async def enter(self, flow: tuple[str, str], width: int) -> None:
        """Wait for seats. Raises ApiError 429 when the line is full or does not move."""
        line = self._lines.get(flow)
        length = len(line) if line is not None else 0
        if length >= self.waiting_max or (line is None and len(self._lines) >= FLOWS_MAX):
            raise self._refusal()
        if line is None:
            line = self._lines[flow] = deque()
        place = (trio.Event(), width)
        line.append(place)
        self.waiting += 1
        turn = place[0]
        try:
            with trio.move_on_after(WAIT_SECONDS):
                await turn.wait()
        except BaseException:
            if turn.is_set():
                self.leave(width)
            else:
                self._give_up(flow, place)
            raise
        if not turn.is_set():
            self._give_up(flow, place)
            raise self._refusal()
        self.dispatched += 1

    def leave(self, width: int) -> None:
        """Give seats back, and let in who is next."""
        self.at_work -= width
        while self._lines:
            flow = next(iter(self._lines))
            line = self._lines[flow]
            turn, next_width = line[0]
            if not (self.seats is None or self._has_room(next_width)):
                return
            line.popleft()
            del self._lines[flow]
            if line:
                self._lines[flow] = line  # now the last in turn
            self.waiting -= 1
            self.at_work += next_width
            turn.set()

    def _give_up(self, flow: tuple[str, str], place: tuple[trio.Event, int]) -> None:
        line = self._lines[flow]
        line.remove(place)
        self.waiting -= 1
        if not line:
            del self._lines[flow]

    def _refusal(self) -> ApiError:
        self.refused += 1
        return too_many_requests(TOO_MANY, 1)
