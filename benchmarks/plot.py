"""Plots of a table as SVG, by hand: bars for cases with names, lines for cases that are numbers, steps over time.

Rule of this file: a plot says what it shows without the page around it: title, labelled axis with its unit, every value
written out. It brings its own background and follows the reader's choice of light or dark. Ours has one colour and
all others another, so that nothing depends on telling many colours apart; lines are labelled where they end.
"""

import math
from collections.abc import Iterator, Sequence
from html import escape

from benchmarks.report import Measure, Table, median, number, spread

_STYLE = """\
.back{fill:#fff}.text{fill:#1f2328}.soft{fill:#59636e}.grid{stroke:#d1d9e0}.ours{fill:#0a7d6c}.other{fill:#8a94a3}
.line-ours{stroke:#0a7d6c}.line-other{stroke:#8a94a3}.whisker{stroke:#1f2328}
@media (prefers-color-scheme:dark){.back{fill:#0d1117}.text{fill:#e6edf3}.soft{fill:#9198a1}.grid{stroke:#30363d}
.ours{fill:#2fb8a2}.other{fill:#6b7787}.line-ours{stroke:#2fb8a2}.line-other{stroke:#6b7787}.whisker{stroke:#e6edf3}}
text{font:12px system-ui,-apple-system,"Segoe UI",Helvetica,Arial,sans-serif}
.title{font-size:14px;font-weight:600}.case{font-weight:600}
"""
WIDTH = 760
LEFT = 240
RIGHT = 90
ROW = 20
GAP = 12
DASHES = ("", "6 3", "2 3", "8 3 2 3", "1 5", "10 4")


def steps(highest: float, most: int = 6) -> list[float]:
    """Round numbers from 0 to the first that is not below `highest`: 0, 200, 400 ... At most `most` + 1 of them."""
    if highest <= 0 or not math.isfinite(highest):
        return [0.0, 1.0]
    power = 10.0 ** math.floor(math.log10(highest / most))
    step = next(power * factor for factor in (1, 2, 2.5, 5, 10, 20) if power * factor * most >= highest * (1 - 1e-9))
    return [step * index for index in range(math.ceil(highest / step - 1e-9) + 1)]


def is_ours(row: str) -> bool:
    return row.startswith("holdfast")


def _text(x: float, y: float, words: str, kind: str = "text", anchor: str = "start") -> str:
    return f'<text x="{x:.1f}" y="{y:.1f}" class="{kind}" text-anchor="{anchor}">{escape(words)}</text>'


def _document(height: float, title: str, parts: Sequence[str]) -> str:
    head = (
        f'<svg xmlns="http://www.w3.org/2000/svg" viewBox="0 0 {WIDTH} {height:.0f}" width="{WIDTH}" '
        f'height="{height:.0f}" role="img" aria-label="{escape(title)}">'
    )
    back = f'<rect class="back" width="{WIDTH}" height="{height:.0f}"/>'
    return "\n".join([head, f"<style>{_STYLE}</style>", back, *parts, "</svg>"]) + "\n"


def caption(table: Table, measure: Measure) -> str:
    better = "more is better" if measure.more_is_better else "less is better"
    return f"{table.title}: {measure.title}, {measure.unit} ({better})"


def bars(table: Table, measure: Measure) -> str | None:
    """Medians as bars with their spread, grouped by case; None if nothing was measured."""
    groups = [
        (
            case,
            [(row, samples, value) for row, samples in rows.items() if (value := median(samples, measure)) is not None],
        )
        for case, rows in table.samples.items()
    ]
    groups = [(case, rows) for case, rows in groups if rows]
    if not groups:
        return None
    tops = [between[1] for _, rows in groups for _, samples, _ in rows if (between := spread(samples, measure))]
    ticks = steps(max(tops))
    scale = (WIDTH - LEFT - RIGHT) / ticks[-1]
    title = caption(table, measure)
    body: list[str] = []
    y = 44.0
    for case, rows in groups:
        if case:
            body.append(_text(12, y + 12, case, "text case"))
            y += ROW
        for row, samples, value in rows:
            body.append(_text(LEFT - 8, y + 13, row, "text", "end"))
            kind = "ours" if is_ours(row) else "other"
            length = max(1.0, value * scale)
            body.append(f'<rect class="{kind}" x="{LEFT}" y="{y + 3:.1f}" width="{length:.1f}" height="{ROW - 6}"/>')
            low, high = spread(samples, measure) or (value, value)
            if high > low:
                middle = y + ROW / 2
                body.append(
                    f'<path class="whisker" d="M{LEFT + low * scale:.1f} {middle:.1f}H{LEFT + high * scale:.1f}"/>'
                )
            body.append(_text(LEFT + max(value, high) * scale + 6, y + 14, number(value), "text"))
            y += ROW
        y += GAP
    grid = [_grid(LEFT + tick * scale, 40, y - GAP / 2, f"{tick:,g}") for tick in ticks]
    axis = _text(LEFT + (WIDTH - LEFT - RIGHT) / 2, y + 28, f"{measure.title}, {measure.unit}", "soft", "middle")
    return _document(y + 40, title, [_text(12, 24, title, "text title"), *grid, *body, axis])


def _grid(x: float, top: float, bottom: float, words: str) -> str:
    line = f'<path class="grid" d="M{x:.1f} {top:.1f}V{bottom:.1f}"/>'
    return line + _text(x, bottom + 14, words, "soft", "middle")


def lines(table: Table, measure: Measure) -> str | None:
    """Medians over the numbers that the cases stand for, in equal steps; None if nothing was measured."""
    cases = sorted(table.places, key=lambda case: table.places[case])
    rows = list(dict.fromkeys(row for by_row in table.samples.values() for row in by_row))
    curves: dict[str, list[tuple[int, float]]] = {}
    for row in rows:
        for index, case in enumerate(cases):
            value = median(table.samples.get(case, {}).get(row, ()), measure)
            if value is not None:
                curves.setdefault(row, []).append((index, value))
    if not curves:
        return None
    left, right, top, bottom = 70.0, 190.0, 44.0, 344.0
    ticks = steps(max(value for curve in curves.values() for _, value in curve))
    wide = (WIDTH - left - right) / max(1, len(cases) - 1)

    def at(index: int, value: float) -> tuple[float, float]:
        return left + index * wide, bottom - value / ticks[-1] * (bottom - top)

    title = caption(table, measure)
    body = [_text(12, 24, title, "text title"), _text(12, (top + bottom) / 2, measure.unit, "soft")]
    for tick in ticks:
        y = at(0, tick)[1]
        body.append(f'<path class="grid" d="M{left:.1f} {y:.1f}H{WIDTH - right:.1f}"/>')
        body.append(_text(left - 8, y + 4, f"{tick:,g}", "soft", "end"))
    body += [_text(at(index, 0)[0], bottom + 18, case, "soft", "middle") for index, case in enumerate(cases)]
    body.append(_text(left + (WIDTH - left - right) / 2, bottom + 38, table.axis, "soft", "middle"))
    labels = _apart([(at(*curve[-1])[1], row) for row, curve in curves.items()])
    for index, (row, curve) in enumerate(curves.items()):
        kind = "ours" if is_ours(row) else "other"
        points = [at(*point) for point in curve]
        path = "L".join(f"{x:.1f} {y:.1f}" for x, y in points)
        dash = f' stroke-dasharray="{DASHES[index % len(DASHES)]}"' if index % len(DASHES) else ""
        body.append(f'<path class="line-{kind}" fill="none" stroke-width="2"{dash} d="M{path}"/>')
        body += [f'<circle class="{kind}" cx="{x:.1f}" cy="{y:.1f}" r="3"/>' for x, y in points]
        body.append(_text(points[-1][0] + 10, labels[row] + 4, f"{row}: {number(curve[-1][1])}", "text"))
    return _document(bottom + 50, title, body)


def _apart(wanted: Sequence[tuple[float, str]], least: float = 15.0) -> dict[str, float]:
    """Heights of labels near where they are wanted, none over another."""
    found: dict[str, float] = {}
    last = -math.inf
    for y, row in sorted(wanted):
        last = max(y, last + least)
        found[row] = last
    return found


def plots(table: Table) -> Iterator[tuple[str, str, str]]:
    """The plots of a table: the end of a file name, words that say what is shown, and the SVG."""
    for index, measure in enumerate(each for each in table.measures if each.plotted):
        drawn = lines(table, measure) if table.places else bars(table, measure)
        if drawn is not None:
            yield f"{table.name}-{index + 1}", caption(table, measure), drawn
    yield from table.drawings


def timeline(title: str, panels: Sequence[tuple[str, str, Sequence[tuple[float, float]]]]) -> str:
    """Steps over seconds, a panel for each figure: its name, its unit, and its values as (second, value)."""
    left, right, high, gap = 70.0, 30.0, 90.0, 34.0
    last = max((points[-1][0] for _, _, points in panels if points), default=1.0)
    seconds = steps(last)
    wide = (WIDTH - left - right) / seconds[-1]
    body = [_text(12, 24, title, "text title")]
    top = 60.0
    for name, unit, points in panels:
        bottom = top + high
        ticks = steps(max((value for _, value in points), default=1.0), 3)
        body.append(_text(left, top - 8, f"{name}, {unit}" if unit else name, "text case"))
        for tick in ticks:
            y = bottom - tick / ticks[-1] * high
            body.append(f'<path class="grid" d="M{left:.1f} {y:.1f}H{WIDTH - right:.1f}"/>')
            body.append(_text(left - 8, y + 4, f"{tick:,g}", "soft", "end"))
        path = ""
        for second, value in points:
            x, y = left + second * wide, bottom - value / ticks[-1] * high
            path += f"H{x:.1f}V{y:.1f}" if path else f"M{x:.1f} {y:.1f}"
        body.append(f'<path class="line-ours" fill="none" stroke-width="2" d="{path}"/>' if path else "")
        top = bottom + gap
    body += [_text(left + second * wide, top - gap + 16, f"{second:,g}", "soft", "middle") for second in seconds]
    body.append(_text(left + (WIDTH - left - right) / 2, top, "seconds", "soft", "middle"))
    return _document(top + 14, title, body)
