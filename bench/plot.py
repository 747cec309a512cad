"""Line plots as SVG, made of text. Pure.

Panels side by side share the horizontal axis's categories; the vertical axes are logarithmic, as
what they compare are factors. The colours follow the reader's light or dark setting.
"""

from __future__ import annotations

import math
from collections.abc import Iterator, Mapping, Sequence
from xml.sax.saxutils import escape, quoteattr

import attrs

__all__ = ["Panel", "Series", "render"]

WIDTH, HEIGHT = 960, 480
TOP, BOTTOM = 96, 84
MARGIN = 16
LEFT, RIGHT, BETWEEN = 74, 76, 76
LABEL_HEIGHT = 13
LEGEND_WIDTH = 110

BASE = """
  svg { font: 12px system-ui, -apple-system, "Segoe UI", "DejaVu Sans", sans-serif }
  .title { font-size: 18px; font-weight: 600 } .heading { font-size: 13px; font-weight: 600 }
  .line { fill: none; stroke-width: 2.25; stroke-linejoin: round } .dot { stroke-width: 1.75 }
  .second .line { stroke-dasharray: 5 4; stroke-width: 1.75 }
"""
LIGHT = {"paper": "#ffffff", "ink": "#1f2328", "soft": "#59636e", "grid": "#d8dee4"}
DARK = {"paper": "#0d1117", "ink": "#e6edf3", "soft": "#9198a1", "grid": "#2a313c"}
LIGHT_LINES = ("#8a5a00", "#1a7f5a", "#0a69da", "#8250df", "#bf3989", "#57606a")
DARK_LINES = ("#e3a43b", "#4ac78f", "#6cb1ff", "#bb92ff", "#ff8cc6", "#9ea7b3")
COLOURS = len(LIGHT_LINES)
NEUTRAL = COLOURS - 1


def _colours(names: dict[str, str], lines: Sequence[str]) -> str:
    """Written out, as not every reader of SVG knows CSS variables."""
    rules = [f"  .{name} {{ fill: {names[name]} }}" for name in ("paper", "ink", "soft")]
    rules += [f"  .grid {{ stroke: {names['grid']} }} .axis {{ stroke: {names['soft']} }}"]
    for number, colour in enumerate(lines):
        mark = f".c{number}"
        rules.append(f"  {mark} .line, {mark} .dot {{ stroke: {colour} }}")
        rules.append(f"  {mark} .dot, text{mark} {{ fill: {colour} }}")
    rules.append(f"  .second .dot {{ fill: {names['paper']} }}")
    return "\n".join(rules)


STYLE = (
    f"{BASE}{_colours(LIGHT, LIGHT_LINES)}\n"
    f"  @media (prefers-color-scheme: dark) {{\n{_colours(DARK, DARK_LINES)}\n  }}\n"
)


@attrs.frozen
class Series:
    """One line. `values`: one for each category, None where there is none. `colour`: 0 to 5.
    `second`: drawn with dashes and open dots."""

    name: str
    values: Sequence[float | None]
    colour: int
    label: str = ""
    second: bool = False


@attrs.frozen
class Panel:
    """`heading` says what the vertical axis is, and in which unit."""

    heading: str
    series: Sequence[Series]


@attrs.frozen
class _Area:
    """Where a panel draws, and how its values become places."""

    left: float
    width: float
    low: float
    high: float
    categories: int

    def x(self, place: int) -> float:
        step = self.width / max(self.categories, 1)
        return self.left + step * (place + 0.5)

    def y(self, value: float) -> float:
        share = math.log(value / self.low) / math.log(self.high / self.low)
        return HEIGHT - BOTTOM - share * (HEIGHT - BOTTOM - TOP)


def render(
    title: str,
    subtitle: str,
    categories: Mapping[str, Sequence[str]],
    panels: Sequence[Panel],
    legend: Sequence[tuple[str, bool]] = (),
) -> str:
    """A whole SVG file. `categories`: what stands below each place of the horizontal axis, in lines
    with their names; `legend`: words, and whether they are for dashed lines."""
    width = (WIDTH - LEFT - RIGHT - (len(panels) - 1) * (BETWEEN + RIGHT)) / len(panels)
    places = max(map(len, categories.values()))
    parts = [
        f'<svg xmlns="http://www.w3.org/2000/svg" viewBox="0 0 {WIDTH} {HEIGHT}" role="img">',
        f"<title>{escape(title)}</title><desc>{escape(subtitle)}</desc>",
        f"<style>{STYLE}</style>",
        f'<rect class="paper" width="{WIDTH}" height="{HEIGHT}"/>',
        _text(MARGIN, 30, title, "ink title"),
        _text(MARGIN, 50, subtitle, "soft"),
        *_legend(legend),
    ]
    for number, panel in enumerate(panels):
        low, high = _range(panel)
        area = _Area(LEFT + number * (width + RIGHT + BETWEEN), width, low, high, places)
        parts += [*_frame(area, panel, categories), *_lines(area, panel)]
    return "\n".join([*parts, "</svg>"]) + "\n"


def _text(x: float, y: float, words: str, classes: str, anchor: str = "start") -> str:
    return (
        f'<text x="{x:.1f}" y="{y:.1f}" class="{classes}" text-anchor="{anchor}">'
        f"{escape(words)}</text>"
    )


def _legend(legend: Sequence[tuple[str, bool]]) -> Iterator[str]:
    x = WIDTH - MARGIN - LEGEND_WIDTH * len(legend)
    for words, second in legend:
        yield f'<g class="c{NEUTRAL}{" second" if second else ""}">'
        yield f'<path class="line" d="M{x} 26h34"/>'
        yield f'<circle class="dot" cx="{x + 17}" cy="26" r="4"/>'
        yield _text(x + 42, 30, words, "ink") + "</g>"
        x += LEGEND_WIDTH


def _range(panel: Panel) -> tuple[float, float]:
    """The nearest 1, 2 or 5 of a power of ten around all values."""
    values = [value for series in panel.series for value in series.values if value]
    low, high = min(values, default=1.0), max(values, default=10.0)
    steps = list(_steps(low / 10, high * 10))
    low = max(each for each in steps if each <= low)
    high = min(each for each in steps if each >= high and each > low)
    return low, high


def _steps(low: float, high: float) -> Iterator[float]:
    for power in range(math.floor(math.log10(low)), math.ceil(math.log10(high)) + 1):
        yield from (digit * 10.0**power for digit in (1, 2, 5))


def _frame(area: _Area, panel: Panel, categories: Mapping[str, Sequence[str]]) -> Iterator[str]:
    right, base = area.left + area.width, HEIGHT - BOTTOM
    yield _text(area.left - LEFT + MARGIN, TOP - 18, panel.heading, "ink heading")
    for step in _steps(area.low, area.high):
        if area.low <= step <= area.high:
            y = area.y(step)
            yield f'<path class="grid" d="M{area.left:.1f} {y:.1f}H{right:.1f}"/>'
            yield _text(area.left - 8, y + 4, f"{step:,.10g}", "soft", "end")
    yield f'<path class="axis" d="M{area.left:.1f} {base}H{right:.1f}"/>'
    for line, (name, words) in enumerate(categories.items()):
        y = base + 22 + 18 * line
        yield _text(area.left - 8, y, name, "soft", "end")
        for place, each in enumerate(words):
            yield _text(area.x(place), y, each, "soft" if line else "ink heading", "middle")


def _lines(area: _Area, panel: Panel) -> Iterator[str]:
    labels: list[tuple[float, float, Series]] = []
    for series in panel.series:
        points = [
            (area.x(place), area.y(value), value)
            for place, value in enumerate(series.values)
            if value
        ]
        if not points:
            continue
        classes = f"c{series.colour % COLOURS}{' second' if series.second else ''}"
        path = "L".join(f"{x:.1f} {y:.1f}" for x, y, _ in points)
        yield f'<g class="series {classes}" data-series={quoteattr(series.name)}>'
        yield f'<path class="line" d="M{path}"/>'
        for x, y, value in points:
            tip = f"<title>{escape(series.name)}: {value:,.10g}</title>"
            yield f'<circle class="dot" cx="{x:.1f}" cy="{y:.1f}" r="3.5">{tip}</circle>'
        yield "</g>"
        if series.label:
            labels.append((points[-1][1], points[-1][0], series))
    for y, x, series in _apart(labels):
        yield _text(x + 10, y + 4, series.label, f"label c{series.colour % COLOURS}")


def _apart(labels: list[tuple[float, float, Series]]) -> list[tuple[float, float, Series]]:
    """Labels moved down where they would lie on one another."""
    placed: list[tuple[float, float, Series]] = []
    for y, x, series in sorted(labels, key=lambda label: label[0]):
        lowest = placed[-1][0] + LABEL_HEIGHT if placed else y
        placed.append((max(y, lowest), x, series))
    return placed
