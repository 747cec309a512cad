"""The picture is XML, holds every series and every point, and says what it shows."""

from __future__ import annotations

from xml.etree import ElementTree

import pytest

from bench.plot import Panel, Series, render
from bench.quorum_plot import draw

SVG = "{http://www.w3.org/2000/svg}"


def row(store: str, members: int, clients: int) -> dict[str, object]:
    found = {"store": store, "members": members, "clients": clients, "value_bytes": 256}
    return {**found, "per_second": 9000.0 * clients / members, "p50_ms": 0.3 * members}


def results(rows: list[dict[str, object]], **changed: object) -> dict[str, object]:
    return {"results": rows, "fsync": True, "latency_ms": 0.0, "jitter_ms": 0.0, **changed}


def words(root: ElementTree.Element) -> list[str]:
    return [each.text or "" for each in root.iter(f"{SVG}text")]


def test_every_series_is_there_twice_with_all_its_points() -> None:
    rows = [row(s, m, c) for s in ("raftkv", "etcd") for m in (1, 3, 5) for c in (1, 64)]
    root = ElementTree.fromstring(draw(results(rows)))
    drawn = [each for each in root.iter(f"{SVG}g") if "data-series" in each.attrib]
    names = [each.attrib["data-series"] for each in drawn]
    assert sorted(set(names)) == [
        "etcd, 1 client",
        "etcd, 64 clients",
        "raftkv, 1 client",
        "raftkv, 64 clients",
    ]
    assert all(names.count(name) == 2 for name in names)
    assert all(len(each.findall(f"{SVG}circle")) == 3 for each in drawn)
    assert {"raftkv", "etcd", "64 clients", "majority", "may fail"} <= set(words(root))


def test_what_was_not_durable_or_near_is_said() -> None:
    told = results([row("raftkv", 3, 64)], fsync=False, latency_ms=25.0, jitter_ms=5.0)
    said = " ".join(words(ElementTree.fromstring(draw(told))))
    assert "WITHOUT fsync" in said
    assert "25 to 30 ms one way" in said


def test_points_lie_where_their_values_are() -> None:
    series = [Series("a", [1.0, 10.0, 100.0], 0), Series("b<&", [None, 10.0, None], 1)]
    root = ElementTree.fromstring(render("t", "s", {"n": ["1", "2", "3"]}, [Panel("p", series)]))
    first, second = (each for each in root.iter(f"{SVG}g") if "data-series" in each.attrib)
    heights = [float(each.attrib["cy"]) for each in first.iter(f"{SVG}circle")]
    assert heights[0] - heights[1] == pytest.approx(heights[1] - heights[2], abs=0.11)
    (circle,) = second.iter(f"{SVG}circle")
    assert float(circle.attrib["cy"]) == heights[1]
    assert second.attrib["data-series"] == "b<&"


def test_nothing_to_draw_is_still_a_picture() -> None:
    panel = Panel("p", [Series("a", [None], 0)])
    ElementTree.fromstring(render("t", "s", {"n": ["1"]}, [panel]))
