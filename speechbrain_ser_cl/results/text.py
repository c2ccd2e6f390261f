"""Write numbers for people."""

from collections.abc import Sequence

TITLES = {"uar": "UAR", "wa": "WA", "macro_f1": "macro-F1"}
NONE = "–"
"""What stands where there is no number."""
NOT_RUN = "not run here"
"""What stands in place of a result beside a paper's figure."""


def percent(value: float | None) -> str:
    """Write a share in percent with one decimal; None is a dash."""
    return NONE if value is None else f"{100 * value:.1f}"


def bounds(interval: Sequence[float] | None) -> str:
    """Write an interval of shares in percent; None is a dash."""
    if interval is None:
        return NONE
    return f"{percent(interval[0])} to {percent(interval[1])}"


def p_value(p: float | None) -> str:
    """Write a p value; None is a dash."""
    if p is None:
        return NONE
    return "< 0.001" if p < 0.001 else f"{p:.3f}"


def duration(seconds: float) -> str:
    """Write seconds as hours, minutes and seconds."""
    minutes, rest = divmod(round(seconds), 60)
    hours, minutes = divmod(minutes, 60)
    if hours:
        return f"{hours} h {minutes} min"
    return f"{minutes} min {rest} s" if minutes else f"{rest} s"
