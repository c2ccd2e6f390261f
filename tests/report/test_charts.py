"""Charts: each mark is at the position of its value."""

import re
from xml.etree import ElementTree

import pytest

from speechbrain_ser_cl.report.charts import (
    ChartRow,
    bar_chart,
    interval_chart,
    line_chart,
    scatter,
)


def draw(chart):
    """Parses the chart as XML."""
    return ElementTree.fromstring(chart)


def of_kind(chart, kind):
    return [e for e in chart.iter() if kind in e.get("class", "").split()]


def ticks(chart, along):
    """Returns numbers on an axis with their positions: (value, position)."""
    found = []
    for text in of_kind(chart, "tick"):
        number = re.fullmatch(r"(-?[\d.e+-]+)( %)?", text.text)
        if number and (text.get("text-anchor") == "middle") == (along == "x"):
            found.append((float(number[1]), float(text.get(along))))
    return found


def place_of(value, marks):
    """Returns the position of a value between an axis' first and last tick."""
    (low, start), (high, end) = marks[0], marks[-1]
    return start + (end - start) * (value - low) / (high - low)


def test_dots_and_intervals_lie_at_their_percent():
    rows = [
        ChartRow("a", 0.25, (0.125, 0.5), [0.2, 0.3]),
        ChartRow("b" * 100, 1.0),
        ChartRow("c", 0.0),
    ]
    chart = draw(interval_chart(rows, "title", "words", chance=0.5))
    marks = ticks(chart, "x")
    assert [value for value, _ in marks] == [0, 20, 40, 60, 80, 100]
    dots = [float(dot.get("cx")) for dot in of_kind(chart, "dot")]
    assert dots == pytest.approx([place_of(v, marks) for v in (25, 100, 0)], abs=0.1)
    (bar,) = of_kind(chart, "whisker")
    assert float(bar.get("x1")) == pytest.approx(place_of(12.5, marks), abs=0.1)
    assert float(bar.get("x2")) == pytest.approx(place_of(50, marks), abs=0.1)
    singles = [float(dot.get("cx")) for dot in of_kind(chart, "single")]
    assert singles == pytest.approx([place_of(20, marks), place_of(30, marks)], abs=0.1)
    (chance,) = of_kind(chart, "chance")
    assert chance.get("x1") == chance.get("x2")
    assert float(chance.get("x1")) == pytest.approx(place_of(50, marks), abs=0.1)


@pytest.mark.parametrize(
    "values", [(0.1, -0.7, 0.35), (2.0, 2.0, 2.0), (1e-7, 3e6, 5.0)]
)
def test_curves_go_through_their_values(values):
    line = [(1, values[0]), (2, values[1]), (4, values[2])]
    chart = draw(line_chart({"loss": [line]}, "loss", "words", mark=2))
    (path,) = of_kind(chart, "curve")
    points = [tuple(map(float, p.split())) for p in path.get("d")[1:].split(" L")]
    # Ticks are read as printed, with four digits.
    marks, epochs = ticks(chart, "y"), ticks(chart, "x")
    marks = [(value, y - 4) for value, y in marks]
    for (x, y), (epoch, value) in zip(points, line, strict=True):
        assert x == pytest.approx(place_of(epoch, epochs), abs=0.1)
        assert y == pytest.approx(place_of(value, marks), abs=0.2)
    (mark,) = of_kind(chart, "mark")
    assert float(mark.get("x1")) == pytest.approx(points[1][0], abs=0.1)


def test_a_logarithmic_axis_has_whole_powers_of_ten():
    rates = [(1, 1e-3), (2, 1e-3), (3, 1e-4)]
    chart = draw(line_chart({"lr": [rates]}, "lr", "words", log=True))
    assert [value for value, _ in ticks(chart, "y")] == [0.0001, 0.001]


def test_one_epoch_is_a_dot_and_validation_is_dashed():
    curves = {"loss": [[(3, 0.5)]], "loss, validation": [[(3, 0.6)]]}
    chart = draw(line_chart(curves, "loss", "words"))
    dots = [e for e in chart.iter() if e.tag.endswith("circle")]
    assert len(dots) == 2 and dots[0].get("class") == dots[1].get("class") == "f0"
    assert len([e for e in of_kind(chart, "dashed") if e.tag.endswith("path")]) == 1


def test_bars_stand_on_the_ground_and_are_as_high_as_their_value():
    chart = draw(bar_chart(["0", "1"], [0.2, 0.8], "t", "d", [(0.1, 0.3), (0.8,)], 0.5))
    bars = of_kind(chart, "bar")
    feet = {round(float(b.get("y")) + float(b.get("height")), 1) for b in bars}
    assert len(feet) == 1
    heights = [float(bar.get("height")) for bar in bars]
    assert heights[1] == pytest.approx(4 * heights[0], abs=0.5)
    assert len(of_kind(chart, "single")) == 3


def test_a_map_keeps_the_proportions():
    chart = draw(scatter([(0, 0), (4, 0), (0, 2)], [0, 1, 9], "t", "d"))
    points = [(float(p.get("x")), float(p.get("y"))) for p in of_kind(chart, "point")]
    (x0, y0), (x1, y1), (x2, y2) = points
    assert (y0, x0) == (y1, x2)
    assert x1 - x0 == pytest.approx(2 * (y0 - y2), abs=0.2)
    shapes = [point.get("href") for point in of_kind(chart, "point")]
    assert shapes == ["#symbol-circle", "#symbol-square", "#symbol-square"]


def test_titles_are_text_even_if_they_look_like_markup():
    chart = draw(interval_chart([ChartRow("<b>&", 0.5)], "<i>", "a < b"))
    assert chart[0].text == "<i>" and chart[1].text == "a < b"
    assert "<b>&" in [e.text for e in chart.iter()]
