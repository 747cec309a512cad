"""When a cron schedule is due (pure): the five fields, names, ranges, steps, and "@" words.

Times are read in a time zone. A time that the clocks skip is left out; one that they show twice
is due twice. Day of month and day of week: if neither is "*", either will do.
"""

from __future__ import annotations

import re
from collections.abc import Iterator
from datetime import UTC, date, datetime, timedelta, tzinfo

from attrs import frozen

__all__ = ["Cron", "CronError", "Every", "Schedule", "latest_due", "parse_schedule"]

DAYS_MAX = 5 * 366
"""How far ahead is looked: the 29th of February comes within that."""
MISSED_MANY = 100
MONTHS = ["jan", "feb", "mar", "apr", "may", "jun", "jul", "aug", "sep", "oct", "nov", "dec"]
WEEKDAYS = ["sun", "mon", "tue", "wed", "thu", "fri", "sat"]
WORDS = {
    "@yearly": "0 0 1 1 *",
    "@annually": "0 0 1 1 *",
    "@monthly": "0 0 1 * *",
    "@weekly": "0 0 * * 0",
    "@daily": "0 0 * * *",
    "@midnight": "0 0 * * *",
    "@hourly": "0 * * * *",
}
_UNITS = {"h": 3600.0, "m": 60.0, "s": 1.0, "ms": 0.001, "us": 0.000001, "ns": 0.000000001}


class CronError(ValueError):
    """The text is no schedule."""


@frozen
class Cron:
    """Sorted values of each field; `any_day` and `any_weekday`: the field is "*" or "?"."""

    minutes: tuple[int, ...]
    hours: tuple[int, ...]
    days: tuple[int, ...]
    months: tuple[int, ...]
    weekdays: tuple[int, ...]
    any_day: bool
    any_weekday: bool

    def next_after(self, now: float, zone: tzinfo) -> float | None:
        """The first due time after `now` (both in seconds since 1970); None if there is none."""
        day = datetime.fromtimestamp(now, zone).date()
        for _ in range(DAYS_MAX):
            if self._on(day):
                due = min((t for t in self._times(day, zone) if t > now), default=None)
                if due is not None:
                    return due
            day += timedelta(days=1)
        return None

    def _on(self, day: date) -> bool:
        if day.month not in self.months:
            return False
        by_day = day.day in self.days
        by_weekday = (day.weekday() + 1) % 7 in self.weekdays
        if self.any_day or self.any_weekday:
            return by_day and by_weekday
        return by_day or by_weekday

    def _times(self, day: date, zone: tzinfo) -> Iterator[float]:
        for hour in self.hours:
            for minute in self.minutes:
                local = datetime(day.year, day.month, day.day, hour, minute, tzinfo=zone)
                first = local.timestamp()
                if datetime.fromtimestamp(first, zone).replace(fold=0) != local:
                    continue  # the clocks skip it
                yield first
                second = local.replace(fold=1).timestamp()
                if second != first:
                    yield second


@frozen
class Every:
    """Each `seconds`, counted from the time before."""

    seconds: int

    def next_after(self, now: float, zone: tzinfo) -> float | None:
        return float(int(now) + self.seconds)


Schedule = Cron | Every


def parse_schedule(text: str) -> Schedule:
    """Raises CronError."""
    text = WORDS.get(text, text).strip()
    if text.startswith("@every "):
        return Every(max(1, int(_duration(text.removeprefix("@every ")))))
    fields = text.split()
    if len(fields) != 5:
        raise CronError(f"expected exactly 5 fields, found {len(fields)}: {text}")
    minutes, hours, days, months, weekdays = fields
    return Cron(
        _field(minutes, 0, 59),
        _field(hours, 0, 23),
        _field(days, 1, 31),
        _field(months, 1, 12, MONTHS, 1),
        tuple(sorted({day % 7 for day in _field(weekdays, 0, 6, WEEKDAYS, 0)})),
        _is_any(days),
        _is_any(weekdays),
    )


def _is_any(field: str) -> bool:
    return any(part.split("/")[0] in ("*", "?") for part in field.split(","))


def _field(
    text: str, low: int, high: int, names: list[str] | None = None, first: int = 0
) -> tuple[int, ...]:
    values: dict[int, None] = {}
    for part in text.split(","):
        span, _, step_text = part.partition("/")
        step = _number(step_text) if step_text else 1
        if not step:
            raise CronError(f"step of range should be a positive number: {part}")
        if span in ("*", "?"):
            start, end = low, high
        else:
            start_text, dash, end_text = span.partition("-")
            start = _number(start_text, names, first)
            end = _number(end_text, names, first) if dash else (high if step_text else start)
        if start < low or end > high or start > end:
            raise CronError(f"{part} is not within {low} and {high}")
        values.update(dict.fromkeys(range(start, end + 1, step)))
    return tuple(sorted(values))


def _number(text: str, names: list[str] | None = None, first: int = 0) -> int:
    if names is not None and text.lower() in names:
        return names.index(text.lower()) + first
    if not text.isdigit():
        raise CronError(f"failed to parse int from {text}")
    return int(text)


def _duration(text: str) -> float:
    """A duration of Go's, as "1h30m"."""
    parts = re.findall(r"([0-9.]+)(h|ms|us|ns|m|s)", text)
    if not parts or "".join(number + unit for number, unit in parts) != text:
        raise CronError(f"failed to parse duration @every {text}")
    return sum(float(number) * _UNITS[unit] for number, unit in parts)


def latest_due(
    schedule: Schedule, since: float, now: float, zone: tzinfo = UTC
) -> tuple[float | None, int]:
    """The last due time after `since` up to `now`, and about how many there were."""
    first = schedule.next_after(since, zone)
    if first is None or first > now:
        return None, 0
    second = schedule.next_after(first, zone)
    if second is None or second > now:
        return first, 1
    between = second - first
    missed = int((now - first) // between) + 1
    # From a time shortly before now, and further back until one is due after it.
    window, latest = between, first
    if isinstance(schedule, Every):
        return first + (missed - 1) * between, missed
    while window < now - first:
        start = schedule.next_after(now - window, zone)
        if start is not None and start <= now:
            latest = start
            break
        window *= 2
    while (following := schedule.next_after(latest, zone)) is not None and following <= now:
        latest = following
    return latest, missed
