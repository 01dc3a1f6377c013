"""Plots are well-formed SVG, show every row and every value, and draw lengths in proportion."""

import xml.etree.ElementTree as ET

import pytest
from benchmarks import plot
from benchmarks.report import MEMORY, Measure, Sample, Table, rate
from benchmarks.units import MIB
from hypothesis import given
from hypothesis import strategies as st

SVG = "{http://www.w3.org/2000/svg}"
ROWS = {"holdfast (os)": 4.0, "tusd & <others>": 1.0}


def rate_table() -> Table:
    table = Table("ingest", "Bytes in & out", (rate(),), base="")
    for case in ("1 stream", "8 streams"):
        for row, speed in ROWS.items():
            table.of(case, row).extend([Sample(1 / speed, 100 * MIB), Sample(1 / speed, 100 * MIB)])
    table.of("8 streams", "absent")
    return table


def words(root: ET.Element) -> list[str]:
    return [element.text or "" for element in root.iter(f"{SVG}text")]


def test_bars_show_every_row_with_its_value_in_proportion() -> None:
    drawn = plot.bars(rate_table(), rate())
    assert drawn is not None
    root = ET.fromstring(drawn)
    told = words(root)
    assert told[0] == "Bytes in & out: speed, MiB/s (more is better)"
    assert told.count("speed, MiB/s") == 1
    assert "absent" not in told
    assert [told.count(word) for word in ("1 stream", "8 streams", *ROWS)] == [1, 1, 2, 2]
    assert told.count("400") >= 2
    ours = [float(bar.get("width", "0")) for bar in root.iter(f"{SVG}rect") if bar.get("class") == "ours"]
    others = [float(bar.get("width", "0")) for bar in root.iter(f"{SVG}rect") if bar.get("class") == "other"]
    assert len(ours) == len(others) == 2
    assert ours[0] / others[0] == pytest.approx(4, rel=0.01)


def test_lines_show_every_case_and_label_rows_where_they_end() -> None:
    peak = Measure("peak memory", "MiB", MEMORY.of, plotted=True)
    table = Table("memory", "Servers", (peak,), base="", axis="file size", places={"1 MiB": 1, "16 MiB": 16})
    for case, memory in (("1 MiB", 30), ("16 MiB", 60)):
        for row in ROWS:
            table.of(case, row).append(Sample(1.0, memory=memory * MIB))
    [(name, caption, drawn)] = plot.plots(table)
    assert (name, caption) == ("memory-1", "Servers: peak memory, MiB (less is better)")
    root = ET.fromstring(drawn)
    told = words(root)
    assert {"file size", "1 MiB", "16 MiB", *(f"{row}: 60.0" for row in ROWS)} <= set(told)
    labels = [float(t.get("y", "0")) for t in root.iter(f"{SVG}text") if (t.text or "").endswith(": 60.0")]
    assert abs(labels[0] - labels[1]) >= 15


def test_both_schemes_have_a_background_and_every_class_is_defined() -> None:
    drawn = plot.bars(rate_table(), rate())
    assert drawn is not None
    light, _, dark = plot._STYLE.partition("@media (prefers-color-scheme:dark)")
    for kind in ("back", "text", "soft", "grid", "ours", "other"):
        assert f".{kind}{{" in light
        assert f".{kind}{{" in dark
    rect = next(ET.fromstring(drawn).iter(f"{SVG}rect"))
    assert rect.get("class") == "back"


def test_nothing_measured_is_no_plot() -> None:
    table = Table("ingest", "Bytes in", (rate(),), base="")
    table.of("1 stream", "tusd")
    assert list(plot.plots(table)) == []


@given(st.floats(1e-6, 1e12))
def test_an_axis_has_few_round_steps_and_holds_the_highest_value(highest: float) -> None:
    ticks = plot.steps(highest)
    assert ticks[0] == 0
    assert ticks[-1] >= highest * (1 - 1e-6)
    assert 2 <= len(ticks) <= 8
    assert ticks[-1] <= 3 * highest


def test_a_timeline_draws_each_figure_as_steps() -> None:
    """A value holds until the next one: across, then up or down."""
    root = ET.fromstring(
        plot.timeline("a & b", [("size", "MiB", [(0.0, 2.0), (5.0, 4.0), (10.0, 4.0)]), ("none", "", [])])
    )
    assert {"a & b", "size, MiB", "none", "seconds"} <= set(words(root))
    (line,) = [each for each in root.iter(f"{SVG}path") if each.get("class") == "line-ours"]
    drawn = line.get("d") or ""
    assert drawn.startswith("M")
    assert drawn.count("H") == drawn.count("V") == 2
