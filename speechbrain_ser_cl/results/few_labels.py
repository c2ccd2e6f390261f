"""Results of trainings with few labels: draws, intervals, tests.

A run of one fold writes a ``few_labels.json``::

    {"about": {"recipe": …, "encoder": …, "corpora": […], "protocol": …, "chance": 0.25,
               "baseline": "supervised", "demo": false},
     "fold": 0, "seed": 1986,
     "rows": [{"view": "mel", "method": "supervised", "fraction": 0.05, "draw": 0,
               "labelled": 30, "uar": 0.41, "wa": 0.43}, …]}

The result of a draw is its mean over the folds. Over draws the tables show the mean
with a t-interval, and a Mann–Whitney U test against the baseline with equally many
labels.

This command writes ``few_labels.csv`` and ``few_labels.png`` for all folds below a
folder::

    ser-cl few-labels results/pairwise_cl
"""

import json
from collections import defaultdict
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt
import scipy  # imports submodules when they are used

from speechbrain_ser_cl.metrics.significance import holm, mean_interval
from speechbrain_ser_cl.results.measured import find_records
from speechbrain_ser_cl.results.text import (
    NONE,
    bounds,
    markdown_table,
    p_value,
    percent,
)
from speechbrain_ser_cl.utils.files import write_rows
from speechbrain_ser_cl.utils.records import write
from speechbrain_ser_cl.utils.schemas import FEW_LABELS

FILE = "few_labels.json"
_Cell = tuple[str, float, str]  # view, fraction, method
_COLUMNS = (
    *("view", "method", "fraction", "labelled", "draws", "folds"),
    *("uar", "uar_low", "uar_high", "wa", "p", "p_holm"),
)


@dataclass(frozen=True)
class FewLabelPoint:
    """The result of one method on one view with a fraction of the labels.

    Arguments
    ---------
    view, method : str
        Names of view and method.
    fraction : float
        Fraction of the labels of each class, in (0, 1].
    labelled : float
        Mean number of labelled utterances over folds.
    draws, folds : int
        Numbers of draws and folds.
    uar, wa : float
        Means over draws and folds, in [0, 1].
    interval : tuple of float or None
        95 % t-interval of the UAR over draws; None with fewer than 3.
    p, p_holm : float or None
        p of the Mann–Whitney U test against the baseline, two-sided, uncorrected and
        Holm-corrected; None for the baseline, or with fewer than 3 draws of either.
    """

    view: str
    method: str
    fraction: float
    labelled: float
    draws: int
    folds: int
    uar: float
    wa: float
    interval: tuple[float, float] | None
    p: float | None = None
    p_holm: float | None = None


def few_label_points(
    rows: Sequence[Mapping[str, Any]], baseline: str
) -> list[FewLabelPoint]:
    """Summarises draws and compares methods.

    Arguments
    ---------
    rows : sequence of mapping
        Rows of all folds, each with its ``fold``, as in the module's docstring.
    baseline : str
        Method that others are compared with.

    Returns
    -------
    list of FewLabelPoint
        In the order of the rows' views, fractions and methods. P values are corrected
        over all of them by Holm's method.

    Raises
    ------
    ValueError
        If a draw is repeated, or missing on some folds.

    Example
    -------
    >>> rows = [
    ...     {"view": "mel", "method": method, "fraction": 0.1, "labelled": 9, "fold": 0,
    ...      "draw": draw, "uar": uar + draw / 100, "wa": uar}
    ...     for method, uar in (("supervised", 0.4), ("pre-trained", 0.5))
    ...     for draw in range(5)
    ... ]
    >>> one, other = few_label_points(rows, "supervised")
    >>> round(one.uar, 3), round(other.uar, 3), round(other.p, 4)
    (0.42, 0.52, 0.0079)
    """
    folds = sorted({row["fold"] for row in rows})
    cells: dict[_Cell, dict[int, dict[int, Mapping[str, Any]]]] = defaultdict(
        lambda: defaultdict(dict)
    )
    for row in rows:
        cell = cells[row["view"], row["fraction"], row["method"]]
        if row["fold"] in cell[row["draw"]]:
            raise ValueError(
                f"{row['view']}, {row['method']}, {row['fraction']:g} of the labels: "
                f"draw {row['draw']} of fold {row['fold']} is there twice"
            )
        cell[row["draw"]][row["fold"]] = row
    points: list[FewLabelPoint] = []
    values: dict[_Cell, npt.NDArray[np.float64]] = {}
    methods = list(dict.fromkeys(row["method"] for row in rows))
    methods.sort(key=lambda name: name != baseline)
    views = list(dict.fromkeys(row["view"] for row in rows))
    fractions = sorted({row["fraction"] for row in rows})
    for key in ((v, f, m) for v in views for f in fractions for m in methods):
        if key not in cells:
            continue
        view, fraction, method = key
        draws = cells[key]
        for draw, of_fold in draws.items():
            missing = sorted(set(folds) - set(of_fold))
            if missing:
                raise ValueError(
                    f"{view}, {method}, {fraction:g} of the labels: draw {draw} lacks "
                    f"the folds {', '.join(map(str, missing))}"
                )

        of_draws = [list(of_fold.values()) for of_fold in draws.values()]

        def means(
            name: str, of_draws: list[list[Mapping[str, Any]]] = of_draws
        ) -> npt.NDArray[np.float64]:
            of = np.array([[row[name] for row in rows] for rows in of_draws])
            return np.asarray(of.mean(axis=1))

        values[key] = means("uar")
        points.append(
            FewLabelPoint(
                view,
                method,
                fraction,
                float(means("labelled").mean()),
                len(draws),
                len(folds),
                float(values[key].mean()),
                float(means("wa").mean()),
                mean_interval(values[key]),
            )
        )
    tests = []
    for point in points:
        own = values[point.view, point.fraction, point.method]
        other = values.get((point.view, point.fraction, baseline), np.zeros(0))
        few = min(len(own), len(other)) < 3
        tests.append(
            None
            if point.method == baseline or few
            else float(scipy.stats.mannwhitneyu(own, other).pvalue)
        )
    return [
        FewLabelPoint(**{**vars(point), "p": p, "p_holm": corrected})
        for point, p, corrected in zip(points, tests, holm(tests), strict=True)
    ]


def read_few_labels(folder: str | Path) -> tuple[dict[str, Any], list[dict[str, Any]]]:
    """Reads the ``few_labels.json`` of all folds below a folder.

    Arguments
    ---------
    folder : str or pathlib.Path
        Folder, searched at any depth; or a measured file.

    Returns
    -------
    about : dict
        Description of the runs.
    rows : list of dict
        Rows, each with its ``fold``.

    Raises
    ------
    ValueError
        If there is no file, a file is invalid, or experiments differ.
    """
    abouts: dict[str, Path] = {}
    rows: list[dict[str, Any]] = []
    for path, found in find_records(folder, FILE):
        abouts.setdefault(json.dumps(found["about"], sort_keys=True), path)
        rows += [row | {"fold": found["fold"]} for row in found["rows"]]
    if not abouts:
        raise ValueError(f"{folder}: no {FILE} in it or below it")
    if len(abouts) > 1:
        one, other = list(abouts.values())[:2]
        raise ValueError(f"{one} and {other} are of different experiments")
    return json.loads(next(iter(abouts))), rows


def write_few_labels(
    path: str | Path,
    about: Mapping[str, Any],
    fold: int,
    seed: int,
    rows: Sequence[Mapping[str, Any]],
) -> None:
    """Writes the results of one fold, one line per row.

    Arguments
    ---------
    path : str or pathlib.Path
        Output file, written whole or not at all.
    about, fold, seed, rows
        See the module's docstring.
    """
    record = {"about": about, "fold": fold, "seed": seed, "rows": rows}
    write(path, FEW_LABELS, record, rows="rows")


def write_few_label_points(path: str | Path, points: Sequence[FewLabelPoint]) -> None:
    """Writes points as CSV; None becomes an empty cell.

    Arguments
    ---------
    path : str or pathlib.Path
        Output file, written whole or not at all.
    points : sequence of FewLabelPoint
        From :func:`few_label_points`.
    """
    rows = []
    for point in points:
        low, high = point.interval or (None, None)
        row = {**vars(point), "uar_low": low, "uar_high": high}
        rows.append([row[name] for name in _COLUMNS])
    write_rows(path, _COLUMNS, rows)


def few_label_table(about: Mapping[str, Any], points: Sequence[FewLabelPoint]) -> str:
    """Returns a Markdown table with a row per view and fraction, a column per method.

    Arguments
    ---------
    about : mapping
        See the module's docstring.
    points : sequence of FewLabelPoint
        From :func:`few_label_points`.

    Returns
    -------
    str
        Table; ends in a newline.
    """
    methods = list(dict.fromkeys(point.method for point in points))
    titles = ["view", "labels", "utterances", "draws"]
    for method in methods:
        titles += [f"{method}: UAR %", "95 %"]
        titles += [] if method == about["baseline"] else ["p"]
    groups: dict[tuple[str, float], dict[str, FewLabelPoint]] = defaultdict(dict)
    for point in points:
        groups[point.view, point.fraction][point.method] = point
    demo = ", DEMO on synthetic speech" if about["demo"] else ""
    n_folds = points[0].folds
    caption = (
        f"**{' + '.join(about['corpora'])}, {about['encoder']}{demo}** "
        f"({n_folds} fold{'s' * (n_folds != 1)}, chance: UAR "
        f"{100 * about['chance']:.1f} %)"
    )
    rows = []
    for (view, fraction), of_method in groups.items():
        any_one = next(iter(of_method.values()))
        cells = [view, f"{100 * fraction:g} %", f"{any_one.labelled:.0f}"]
        cells.append(" / ".join(sorted({str(p.draws) for p in of_method.values()})))
        for method in methods:
            baseline = method == about["baseline"]
            if method not in of_method:
                cells += [NONE] * (2 if baseline else 3)
                continue
            point = of_method[method]
            cells += [percent(point.uar), bounds(point.interval)]
            if not baseline:
                cells.append(p_value(point.p_holm))
        rows.append(cells)
    note = (
        "Means over draws of the labels, each over all folds, with the 95 % t-interval "
        "over draws: it says how far other labels and other starts may move it, not "
        f"other speakers. p: Mann–Whitney U test against {about['baseline']}, "
        "two-sided, Holm-corrected over the table."
    )
    return "\n".join([caption, "", *markdown_table(titles, rows), "", note, ""])
