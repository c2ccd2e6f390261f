"""Charts as SVG text with colours from the page's style sheet.

Each chart has a title and a description for screen readers; the template adds a table
with the same numbers.
"""

import itertools
import math
import textwrap
from collections.abc import Mapping, Sequence
from html import escape
from typing import NamedTuple

SHAPES = ("circle", "square", "diamond", "up", "down", "cross", "plus", "star")
"""Names of the symbols, one per class."""
N_COLORS = 8
"""Number of colours in ``style.css``: ``c0``, ``c1``, …"""

_CHAR = 7.2  # mean width of a character of 13 px


class ChartRow(NamedTuple):
    """One line of an interval chart; values in [0, 1].

    Arguments
    ---------
    label : str
        Text on the left.
    value : float
        Position of the large dot.
    interval : tuple of float, optional
        Bounds of the bar.
    single : sequence of float
        Positions of small dots, such as one per run.

    Example
    -------
    >>> ChartRow("sad", 0.7, (0.6, 0.8)).single
    ()
    """

    label: str
    value: float
    interval: Sequence[float] | None = None
    single: Sequence[float] = ()


def _svg(width: float, height: float, title: str, description: str, body: str) -> str:
    return (
        f'<svg viewBox="0 0 {width:g} {height:g}" style="max-width:{width:g}px" '
        f'role="img"><title>{escape(title)}</title>'
        f"<desc>{escape(description)}</desc>{body}</svg>"
    )


def _text(x: float, y: float, text: str, kind: str = "", anchor: str = "start") -> str:
    cls = f' class="{kind}"' if kind else ""
    at = f'x="{x:.1f}" y="{y:.1f}" text-anchor="{anchor}"'
    return f"<text {at}{cls}>{escape(text)}</text>"


def _line(x1: float, y1: float, x2: float, y2: float, kind: str) -> str:
    ends = f'x1="{x1:.1f}" y1="{y1:.1f}" x2="{x2:.1f}" y2="{y2:.1f}"'
    return f'<line {ends} class="{kind}"/>'


def interval_chart(
    rows: Sequence[ChartRow], title: str, description: str, chance: float | None = None
) -> str:
    """Draws dots with intervals on a scale from 0 to 100 %.

    Arguments
    ---------
    rows : sequence of ChartRow
        Lines from top to bottom.
    title, description : str
        Text for screen readers.
    chance : float, optional
        Position of a dashed line, in [0, 1].

    Returns
    -------
    str
        ``<svg>`` element.

    Example
    -------
    >>> "<title" in interval_chart([ChartRow("sad", 0.7)], "Recall", "Recall per class")
    True
    """
    labels = [textwrap.wrap(row.label, 38) or [""] for row in rows]
    left = 14 + _CHAR * max(len(text) for lines in labels for text in lines)
    step = 9.0 + 17.0 * max(map(len, labels))
    width, top = left + 460.0, 8.0
    right, bottom = width - 62.0, top + step * len(rows)

    def x(value: float) -> float:
        return left + (right - left) * value

    body = []
    for tick in range(0, 101, 20):
        body.append(_line(x(tick / 100), top, x(tick / 100), bottom, "grid"))
        body.append(_text(x(tick / 100), bottom + 17, f"{tick} %", "tick", "middle"))
    if chance is not None:
        body.append(_line(x(chance), top, x(chance), bottom, "chance"))
        label = f"chance {100 * chance:.3g} %"
        body.append(_text(x(chance), bottom + 34, label, "tick", "middle"))
    for i, (row, lines) in enumerate(zip(rows, labels, strict=True)):
        y = top + step * (i + 0.5)
        first = y + 4.5 - 8.5 * (len(lines) - 1)
        body += [
            _text(left - 10, first + 17 * k, text, "", "end")
            for k, text in enumerate(lines)
        ]
        if row.interval is not None:
            low, high = row.interval
            body.append(_line(x(low), y, x(high), y, "whisker"))
        body += [
            f'<circle cx="{x(one):.1f}" cy="{y:.1f}" r="2.6" class="single"/>'
            for one in row.single
        ]
        shown = f"{row.label}: {100 * row.value:.1f} %"
        if row.interval is not None:
            shown += f", interval {100 * low:.1f} to {100 * high:.1f} %"
        body.append(
            f'<circle cx="{x(row.value):.1f}" cy="{y:.1f}" r="5" class="dot">'
            f"<title>{escape(shown)}</title></circle>"
        )
        body.append(_text(right + 10, y + 4.5, f"{100 * row.value:.1f}", "number"))
    height = bottom + (42 if chance is not None else 24)
    return _svg(width, height, title, description, "".join(body))


def bar_chart(
    labels: Sequence[str],
    values: Sequence[float],
    title: str,
    description: str,
    single: Sequence[Sequence[float]] = (),
    reference: float | None = None,
) -> str:
    """Draws vertical bars; dots show the values whose mean is the bar.

    Arguments
    ---------
    labels : sequence of str
        Text below the bars.
    values : sequence of float
        Heights, at least 0.
    title, description : str
        Text for screen readers.
    single : sequence of sequence of float
        Values of each bar. Default: none.
    reference : float, optional
        Position of a dashed line.

    Returns
    -------
    str
        ``<svg>`` element.

    Example
    -------
    >>> bar_chart(["0", "1"], [0.4, 0.6], "Weights", "Of layers").count("<rect")
    2
    """
    step = max(26.0, min(64.0, 560.0 / len(values)))
    left, top, bottom = 52.0, 10.0, 190.0
    width = left + step * len(values) + 10
    highest = max([*values, *itertools.chain(*single), reference or 0, 1e-9])
    ticks = _ticks(0, highest, 4)
    highest = ticks[-1]

    def y(value: float) -> float:
        return bottom - (bottom - top) * value / highest

    body = []
    for tick in ticks:
        body.append(_line(left, y(tick), width - 10, y(tick), "grid"))
        body.append(_text(left - 8, y(tick) + 4, f"{tick:g}", "tick", "end"))
    for i, (label, value) in enumerate(zip(labels, values, strict=True)):
        middle = left + step * (i + 0.5)
        body.append(
            f'<rect x="{middle - 0.36 * step:.1f}" y="{y(value):.1f}" '
            f'width="{0.72 * step:.1f}" height="{bottom - y(value):.1f}" class="bar">'
            f"<title>{escape(label)}: {value:.4f}</title></rect>"
        )
        if single:
            body += [
                f'<circle cx="{middle:.1f}" cy="{y(one):.1f}" r="2.6" class="single"/>'
                for one in single[i]
            ]
        body.append(_text(middle, bottom + 17, label, "tick", "middle"))
    if reference is not None:
        body.append(_line(left, y(reference), width - 10, y(reference), "chance"))
    return _svg(width, bottom + 26, title, description, "".join(body))


def line_chart(
    curves: Mapping[str, Sequence[Sequence[tuple[float, float]]]],
    title: str,
    description: str,
    mark: float | None = None,
    reference: float | None = None,
    log: bool = False,
) -> str:
    """Draws curves over epochs: one colour per name, one line per run.

    Arguments
    ---------
    curves : mapping
        Name to its lines, one per run, each (epoch, value) in order. Names that end in
        ", validation" are dashed.
    title, description : str
        Text for screen readers; the title is also drawn.
    mark : float, optional
        Epoch with a vertical line.
    reference : float, optional
        Value with a dashed line.
    log : bool
        Whether the scale is logarithmic; values must then be above 0.

    Returns
    -------
    str
        ``<svg>`` element.

    Example
    -------
    >>> line_chart({"loss": [[(1, 0.9), (2, 0.7)]]}, "loss", "By epoch").count("<path")
    1
    """
    lines = [line for runs in curves.values() for line in runs]
    epochs = [epoch for line in lines for epoch, _ in line]
    values = [value for line in lines for _, value in line]
    values += [] if reference is None else [reference]
    first, last = min(epochs), max(epochs)
    left, top, right, bottom = 52.0, 30.0, 322.0, 180.0
    if log:
        values = [math.log10(value) for value in values]
        ticks = _ticks(min(values), max(values), 3, whole=True)
    else:
        ticks = _ticks(min(values), max(values), 4)
    low, high = ticks[0], ticks[-1]

    def x(epoch: float) -> float:
        return left + (right - left) * (epoch - first) / max(last - first, 1)

    def y(value: float) -> float:
        value = math.log10(value) if log else value
        return bottom - (bottom - top) * (value - low) / (high - low)

    body = [_text(left, 17, title, "name")]
    for tick in ticks:
        real = 10**tick if log else tick
        body.append(_line(left, y(real), right, y(real), "grid"))
        body.append(_text(left - 8, y(real) + 4, f"{real:.4g}", "tick", "end"))
    for epoch in _ticks(first, last, 4, whole=True):
        if not first <= epoch <= last:
            continue
        body.append(_text(x(epoch), bottom + 17, str(epoch), "tick", "middle"))
    if reference is not None:
        body.append(_line(left, y(reference), right, y(reference), "chance"))
    if mark is not None:
        body.append(_line(x(mark), top, x(mark), bottom, "mark"))
    colors: dict[str, int] = {}
    for name, runs in curves.items():
        term = name.removesuffix(", validation")
        color = colors.setdefault(term, len(colors) % N_COLORS)
        dashed = " dashed" if name != term else ""
        for line in runs:
            points = " L".join(f"{x(e):.1f} {y(v):.1f}" for e, v in line)
            body.append(
                f'<path d="M{points}" class="curve k{color}{dashed}">'
                f"<title>{escape(name)}</title></path>"
            )
            if len(line) == 1:
                ((e, v),) = line
                body.append(
                    f'<circle cx="{x(e):.1f}" cy="{y(v):.1f}" r="3" class="f{color}"/>'
                )
    height = bottom + 24
    if len(curves) > 1:
        for i, name in enumerate(curves):
            term = name.removesuffix(", validation")
            dashed = " dashed" if name != term else ""
            at = height + 12 + 18 * i
            kind = f"curve k{colors[term]}{dashed}"
            body.append(_line(left, at - 4, left + 26, at - 4, kind))
            body.append(_text(left + 34, at, name, "tick"))
        height += 18 * len(curves) + 4
    return _svg(right + 14, height, title, description, "".join(body))


def scatter(
    points: Sequence[tuple[float, float]],
    shapes: Sequence[int],
    title: str,
    description: str,
) -> str:
    """Draws the points of a map, each with a number for the page's script.

    Arguments
    ---------
    points : sequence of (float, float)
        N positions, in any unit.
    shapes : sequence of int
        Index into ``SHAPES``, and initial colour, of each point.
    title, description : str
        Text for screen readers.

    Returns
    -------
    str
        ``<svg>`` element with N ``<use>`` elements of class ``point``.

    Example
    -------
    >>> scatter([(0, 0), (1, 2)], [0, 1], "Map", "Two points").count("<use")
    2
    """
    across, up = zip(*points, strict=True)
    low = (min(across), min(up))
    span = max(max(across) - low[0], max(up) - low[1]) or 1.0
    side, margin = 640.0, 14.0
    scale = (side - 2 * margin) / span
    height = (max(up) - low[1]) * scale + 2 * margin
    body = [
        f'<use href="#symbol-{SHAPES[shape % len(SHAPES)]}" '
        f'x="{margin + (px - low[0]) * scale:.1f}" '
        f'y="{height - margin - (py - low[1]) * scale:.1f}" '
        f'class="point f{shape % N_COLORS}"/>'
        for (px, py), shape in zip(points, shapes, strict=True)
    ]
    return _svg(side, height, title, description, "".join(body))


def _ticks(low: float, high: float, about: int, whole: bool = False) -> list[float]:
    """Returns round numbers from at most ``low`` to at least ``high``."""
    if high - low < 1e-12 * max(1.0, abs(high)):
        low, high = low - 0.5, high + 0.5
    raw = (high - low) / about
    power = 10.0 ** math.floor(math.log10(raw))
    step = next(m * power for m in (1, 2, 2.5, 5, 10) if m * power >= raw * 0.999)
    step = math.ceil(step) if whole else step
    start = math.floor(low / step + 1e-9)
    end = math.ceil(high / step - 1e-9)
    return [round(k * step, 12) for k in range(start, max(end, start + 1) + 1)]
