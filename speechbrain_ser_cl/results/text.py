"""Formats numbers for tables."""

from collections.abc import Callable, Iterable, Sequence

import numpy as np

TITLES = {"uar": "UAR", "wa": "WA", "macro_f1": "macro-F1"}
NONE = "–"
"""Cell without a number."""
NOT_RUN = "not run here"
"""Cell without a result, beside a value from a paper."""


def percent(value: float | None) -> str:
    """Formats a fraction in percent with one decimal; None is a dash."""
    return NONE if value is None else f"{100 * value:.1f}"


def bounds(interval: Sequence[float] | None) -> str:
    """Formats an interval of fractions in percent; None is a dash."""
    if interval is None:
        return NONE
    return f"{percent(interval[0])} to {percent(interval[1])}"


def p_value(p: float | None) -> str:
    """Formats a p value; None is a dash."""
    if p is None:
        return NONE
    return "< 0.001" if p < 0.001 else f"{p:.3f}"


def mean_and_spread(values: Sequence[float], write: Callable[[float], str]) -> str:
    """Formats mean ± standard deviation; for one value the mean alone."""
    mean = write(float(np.mean(values)))
    if len(values) < 2:
        return mean
    return f"{mean} ± {write(float(np.std(values, ddof=1)))}"


def markdown_table(header: Sequence[str], rows: Iterable[Sequence[str]]) -> list[str]:
    """Formats a Markdown table; returns its lines."""
    return [
        "| " + " | ".join(cell.replace("|", r"\|") for cell in cells) + " |"
        for cells in (header, ["---"] * len(header), *rows)
    ]


def duration(seconds: float) -> str:
    """Formats seconds as hours, minutes and seconds."""
    minutes, rest = divmod(round(seconds), 60)
    hours, minutes = divmod(minutes, 60)
    if hours:
        return f"{hours} h {minutes} min"
    return f"{minutes} min {rest} s" if minutes else f"{rest} s"
