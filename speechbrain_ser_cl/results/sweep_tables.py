"""The results of a sweep: table in Markdown and LaTeX, numbers as CSV."""

from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any
from unicodedata import name

import numpy as np

from speechbrain_ser_cl.metrics.kinds import KINDS
from speechbrain_ser_cl.metrics.significance import mean_interval
from speechbrain_ser_cl.metrics.without_labels import CRITERIA, rank_correlation
from speechbrain_ser_cl.results.crossval import (
    FILE,
    CrossValidation,
    parse_crossval,
    read_crossval,
    table_rows,
)
from speechbrain_ser_cl.results.measured import measured_records
from speechbrain_ser_cl.results.sweep_file import (
    Column,
    Row,
    Sweep,
    read_sweep,
)
from speechbrain_ser_cl.results.text import (
    NONE,
    NOT_RUN,
    markdown_table,
    mean_and_spread,
    p_value,
)
from speechbrain_ser_cl.utils.files import write_rows
from speechbrain_ser_cl.utils.records import check
from speechbrain_ser_cl.utils.schemas import CROSSVAL

_NUMBERS = ("mean", "std", "low", "high", "pooled", "pooled_low", "pooled_high")
_TESTS = ("t_test", "permutation")
_LATEX = {
    "\\": r"\textbackslash{}",
    "{": r"\{",
    "}": r"\}",
    "&": r"\&",
    "%": r"\%",
    "$": r"\$",
    "#": r"\#",
    "_": r"\_",
    "~": r"\textasciitilde{}",
    "^": r"\textasciicircum{}",
    "<": "$<$",
    ">": "$>$",
    "±": r"$\pm$",
    "×": r"$\times$",
    "→": r"$\rightarrow$",
    "≤": r"$\leq$",
    "≥": r"$\geq$",
    "≈": r"$\approx$",
    "≠": r"$\neq$",
    "∞": r"$\infty$",
    "−": "$-$",
    "·": r"$\cdot$",
    "–": "--",
    "…": r"\ldots{}",
    "“": "``",
    "”": "''",
}
# Greek letters with LaTeX names; Unicode has another spelling for λ.
for _letter in "αβγδεζηθικλμνξπρστυφχψωΓΔΘΛΞΠΣΥΦΨΩ":
    _spelt = "lambda" if _letter in "λΛ" else name(_letter).split()[-1].lower()
    _LATEX[_letter] = rf"$\{_spelt.title() if _letter.isupper() else _spelt}$"
# Shrinks wide tables to the width of the text.
_FITTED = r"\resizebox{\ifdim\width>\linewidth\linewidth\else\width\fi}{!}"


@dataclass(frozen=True)
class TextTable:
    r"""A table of text.

    Arguments
    ---------
    caption : str
        Title of the table.
    about : str
        Description of the data; may be empty.
    header : list of str
        Titles of the C columns.
    rows : list of list of str
        Rows of C cells.
    note : str
        Explanation; may be empty.

    Example
    -------
    >>> table = TextTable("Losses", "", ["row", "UAR %"], [["a|b", "50.0 ± 1.0"]], "")
    >>> print(table.markdown())
    **Losses**
    <BLANKLINE>
    | row | UAR % |
    | --- | --- |
    | a\|b | 50.0 ± 1.0 |
    <BLANKLINE>
    """

    caption: str
    about: str
    header: list[str]
    rows: list[list[str]]
    note: str

    def markdown(self) -> str:
        """Formats as Markdown, with the caption above and the note below."""
        lines = [f"**{self.caption}**{self.about and f' ({self.about})'}", ""]
        lines += markdown_table(self.header, self.rows)
        lines += ["", self.note] if self.note else []
        return "\n".join([*lines, ""])

    def latex(self, label: str) -> str:
        r"""Formats as a LaTeX table, which needs ``booktabs`` and ``graphicx``.

        Arguments
        ---------
        label : str
            Label for ``\ref``: ``tab:<label>``.

        Returns
        -------
        str
            Text for any LaTeX engine.
        """

        def line(cells: Sequence[str]) -> str:
            return "    " + " & ".join(map(to_latex, cells)) + r" \\"

        about = f" ({self.about})" if self.about else ""
        lines = [
            r"% \usepackage{booktabs, graphicx}",
            r"\begin{table}",
            r"  \centering",
            rf"  \caption{{{to_latex(self.caption + about)}}}",
            rf"  \label{{tab:{label}}}",
            rf"  {_FITTED}{{\begin{{tabular}}{{l{'r' * (len(self.header) - 1)}}}",
            r"    \toprule",
            line(self.header),
            r"    \midrule",
            *map(line, self.rows),
            r"    \bottomrule",
            r"  \end{tabular}}",
        ]
        if self.note:
            lines += ["", rf"  \footnotesize {to_latex(self.note)}"]
        return "\n".join([*lines, r"\end{table}", ""])


def to_latex(text: str) -> str:
    r"""Escapes all characters that are special in LaTeX.

    Arguments
    ---------
    text : str
        Any text.

    Returns
    -------
    str
        Greek letters and signs become formulas. Other letters are kept; engines with
        UTF-8 know them.

    Example
    -------
    >>> to_latex("100 % of a_b, τ ± 1")
    '100 \\% of a\\_b, $\\tau$ $\\pm$ 1'
    """
    return "".join(_LATEX.get(letter, letter) for letter in text)


def build_sweep_table(
    sweep: Sweep, results: Mapping[str, CrossValidation | str]
) -> TextTable:
    """Builds the table of a sweep.

    Arguments
    ---------
    sweep : Sweep
        Its rows and columns.
    results : mapping
        Name of each row to its result, or to the reason for none, such as ``NOT_RUN``.

    Returns
    -------
    TextTable
        For each column the mean ± standard deviation over folds (or seeds) and the
        printed value, if any; for the first measure also the intervals of mean and
        pooled value, and p values against the baseline row.

    Raises
    ------
    ValueError
        If a row was tested on several corpora and does not name one.
    """
    done = {
        row.name: _Result(row, given)
        for row in sweep.rows
        if not isinstance(given := results[row.name], str)
    }
    tested, column = _against_baseline(sweep, done), sweep.tested
    units = {one.whole.unit for one in done.values()}
    unit = "seed" if units == {"seed"} else "fold"
    printed = [
        one.metric
        for one in sweep.columns
        if any(one.metric in row.printed for row in sweep.rows)
    ]
    header = ["row", *(["folds"] if unit == "fold" else []), "seeds"]
    n_counts = len(header) - 1
    for one in sweep.columns:
        header.append(one.heading)
        header += [f"printed {one.heading}"] if one.metric in printed else []
    if done:
        header += [f"95 % over {unit}s", f"pooled {column.heading}"]
        header += ["95 % over speakers"]
    if tested:
        header += [f"p, {unit}s", "p, speakers"]
    rows = []
    for row in sweep.rows:
        result = done.get(row.name)
        cells = [row.name, *[NONE] * n_counts]
        if result:
            whole = result.whole
            n_units = len(whole.per_unit(result.corpus))
            counts = [n_units, len(whole.seeds)]
            counts = counts if whole.unit == "fold" else [0, n_units]
            cells[1:] = [str(n or NONE) for n in counts[-n_counts:]]
        for i, one in enumerate(sweep.columns):
            missing = NONE if i else str(results[row.name])
            values = result.values(one) if result else []
            told = mean_and_spread(values, one.write) if values else NONE
            cells.append(told if result else missing)
            if one.metric in printed:
                cells.append(row.printed.get(one.metric, NONE))
        if result:
            pooled = result.pooled(column)
            cells += [
                column.bounds(mean_interval(result.values(column))),
                column.write(pooled.get("value")),
                column.bounds(pooled.get("interval")),
            ]
        if tested:
            against = tested.get(row.name) or {}
            cells += [p_value(against.get(f"{test}_holm")) for test in _TESTS]
        cells += [NONE] * (len(header) - len(cells))
        rows.append(cells)
    settings = [one.whole for one in done.values()]
    demo = any(one.about.get("demo") for one in settings)
    return TextTable(
        sweep.title + (", DEMO on synthetic speech" if demo else ""),
        _about(sweep, done.values()),
        header,
        rows,
        _note(sweep, settings, unit, bool(tested), bool(printed))
        + _chosen_without_labels(done.values()),
    )


class _Result:
    """Result of a row on its corpus; nothing is computed twice."""

    def __init__(self, row: Row, whole: CrossValidation) -> None:
        self.whole, self.corpus = whole, corpus_of(row, whole)
        self._summaries: dict[tuple[str, ...], dict[str, Any]] = {}

    def values(self, column: Column) -> list[float]:
        """Returns one number per fold or seed; none if the runs lack it."""
        if not column.is_measure:
            return self.whole.values(self.corpus, column.metric)
        view = self.whole.view(column.metric)
        return view[0].values(self.corpus, view[1]) if view else []

    def pooled(self, column: Column) -> Mapping[str, Any]:
        """Returns the pooled value and its interval; empty if the runs lack it."""
        view = self.whole.view(column.metric) if column.is_measure else None
        if not view:
            return {}
        key = (view[0].kind, *view[0].class_names)
        if key not in self._summaries:
            self._summaries[key] = view[0].summary(self.corpus)
        pooled: Mapping[str, Any] = self._summaries[key]["pooled"][view[1]]
        return pooled


def corpus_of(row: Row, one: CrossValidation) -> str:
    """Finds the corpus that a row shows.

    Arguments
    ---------
    row : Row
        Row of a sweep.
    one : CrossValidation
        Its result.

    Returns
    -------
    str
        A name in ``one.corpora``.

    Raises
    ------
    ValueError
        If there are several and the row names none of them.
    """
    if row.corpus is None and len(one.corpora) == 1:
        return one.corpora[0]
    if row.corpus not in one.corpora:
        raise ValueError(
            f"row {row.name!r} was tested on {', '.join(one.corpora)}; say which of "
            f"them it shows: its corpus is {row.corpus!r}"
        )
    return row.corpus


def _against_baseline(
    sweep: Sweep, done: Mapping[str, _Result]
) -> dict[str, dict[str, Any] | None]:
    """Tests each row against the baseline, corrected over the rows."""
    views = {name: one.whole.view(sweep.tested.metric) for name, one in done.items()}
    first = views.get(sweep.baseline)
    if first is None or len(done) < 2:
        return {}
    corpus = done[sweep.baseline].corpus
    same = {sweep.baseline: first[0]} | {
        name: view[0]
        for name, view in views.items()
        if view and done[name].corpus == corpus
    }
    rows = table_rows(list(same.values()), corpus, first[1])
    return {name: row["against_first"] for name, row in zip(same, rows, strict=True)}


def _about(sweep: Sweep, done: Iterable[_Result]) -> str:
    """Describes data, encoder, protocol, classes and chance level."""
    found: dict[str, list[Any]] = {
        key: [] for key in ("corpus", "encoder", "protocol", "what")
    }
    of_classes = any(c.metric in KINDS["classes"].titles for c in sweep.columns)
    for one in done:
        whole, corpus = one.whole, one.corpus
        found["corpus"].append(corpus)
        found["encoder"].append(whole.about.get("encoder"))
        found["protocol"].append(whole.protocol_of(corpus)["kind"])
        what = ", ".join(whole.class_names)
        if whole.kind == "classes" and of_classes:
            chance = whole.summary(corpus)["chance"]
            what = f"{round(1 / chance)} classes, chance: UAR {100 * chance:.1f} %"
        found["what"].append(what)
    parts = [" and ".join(sorted({v for v in same if v})) for same in found.values()]
    return ", ".join(part for part in parts if part)


def _note(
    sweep: Sweep,
    settings: Sequence[CrossValidation],
    unit: str,
    tested: bool,
    printed: bool,
) -> str:
    parts = []
    if settings:
        several = any(one.unit == "fold" and len(one.seeds) > 1 for one in settings)
        averaged = ", each averaged over seeds" if several else ""
        parts.append(
            f"± is the standard deviation over {unit}s{averaged}. 95 % over {unit}s: "
            f"t-interval of the mean, from 3 {unit}s on. Pooled: over all test "
            "utterances together, with the 95 % bootstrap interval over speakers."
        )
    if tested:
        parts.append(
            f"p: {sweep.tested.title} against “{sweep.baseline}”, two-sided, "
            f"Holm-corrected over the rows. Over {unit}s: paired t-test. Over "
            "speakers: permutation test that exchanges the two settings' predictions, "
            "all of a speaker at once. No p where splits or seeds are not the same."
        )
    if printed and sweep.printed_in:
        parts.append(f"Printed: {sweep.printed_in}.")
    return " ".join(parts)


def _chosen_without_labels(done: Iterable[_Result]) -> str:
    """Describes how well criteria without labels order the runs that have them."""
    names = {f"valid.{name}": title for name, title in CRITERIA.items()}
    names["valid.uar"] = "UAR on the source's validation part"
    rows = [
        [run.numbers[name] for name in names]
        + [one.whole.measured.measure(run.confusion(one.corpus))["uar"]]
        for one in done
        for run in one.whole.tested
        if names.keys() <= run.numbers.keys()
    ]
    if len(rows) < 3:
        return ""
    *columns, truth = np.array(rows, float).T
    told = []
    for title, column in zip(names.values(), columns, strict=True):
        rho = rank_correlation(column, truth)
        told.append(f"{title} {NONE if rho is None else f'{rho:.2f}'}")
    return (
        " Choosing without target labels: Spearman's ρ of a criterion with the tested "
        f"UAR over {len(rows)} runs: {', '.join(told)}."
    )


def sweep_points(
    sweep: Sweep, results: Mapping[str, CrossValidation | str]
) -> list[dict[str, Any]]:
    """Collects the numbers of a sweep, one entry per row and column.

    Arguments
    ---------
    sweep : Sweep
        Its rows and columns.
    results : mapping
        As for ``build_sweep_table``.

    Returns
    -------
    list of dict
        ``row``; ``curve``, ``key`` and ``value`` (None outside of sweeps); ``metric``;
        ``units``, the number of folds (or seeds); ``mean`` and ``std`` over them;
        ``low`` and ``high``, bounds of the mean's 95 % t-interval; ``pooled``,
        ``pooled_low`` and ``pooled_high``, with bounds of its interval over speakers.
        Values are not in percent. None if undefined.
    """
    points = []
    for row in sweep.rows:
        one = results[row.name]
        if isinstance(one, str):
            continue
        result = _Result(row, one)
        for column in sweep.columns:
            values = result.values(column)
            if not values:
                continue
            low, high = mean_interval(values) or (None, None)
            pooled = result.pooled(column)
            bounds = pooled.get("interval") or (None, None)
            numbers = [
                float(np.mean(values)),
                float(np.std(values, ddof=1)) if len(values) > 1 else None,
                low,
                high,
                pooled.get("value"),
                *bounds,
            ]
            point = row.point
            points.append(
                {
                    "row": row.name,
                    "curve": point and point.curve,
                    "key": point and point.key,
                    "value": point and point.value,
                    "metric": column.metric,
                    "units": len(values),
                }
                | dict(zip(_NUMBERS, numbers, strict=True))
            )
    return points


def write_sweep_csv(points: Sequence[Mapping[str, Any]], path: str | Path) -> None:
    """Writes the numbers of a sweep as CSV.

    Arguments
    ---------
    points : sequence of mapping
        From ``sweep_points``.
    path : str or pathlib.Path
        Output file, written whole or not at all.
    """
    columns = ["row", "curve", "key", "value", "metric", "units", *_NUMBERS]
    write_rows(path, columns, ([point[name] for name in columns] for point in points))


def read_measured(sweep: Sweep, folder: str | Path) -> dict[str, CrossValidation | str]:
    """Reads each row's result from the ``crossval.json`` files of its runs.

    Arguments
    ---------
    sweep : Sweep
        Its rows.
    folder : str or pathlib.Path
        Folder with ``<folder of the row>/<result>/crossval.json`` or measured files; or
        a measured file.

    Returns
    -------
    dict
        Name of each row to its result, or to ``NOT_RUN``.

    Raises
    ------
    ValueError
        If a file is invalid.
    """
    kept = measured_records(folder)
    results: dict[str, CrossValidation | str] = {}
    for row in sweep.rows:
        path = Path(folder, row.record)
        if path.exists():
            results[row.name] = read_crossval(path)
        elif row.record in kept:
            results[row.name] = parse_crossval(check(kept[row.record], CROSSVAL, path))
        else:
            results[row.name] = NOT_RUN
    return {
        name: one if isinstance(one, str) else one.gap or one
        for name, one in results.items()
    }


def measured_table(
    path: str | Path, folder: str | Path, metric: str | None = None
) -> str:
    """Returns the Markdown table of a sweep file; runs nothing.

    Arguments
    ---------
    path : str or pathlib.Path
        Sweep file.
    folder : str or pathlib.Path
        See ``read_measured``.
    metric : str, optional
        One of the columns: it comes first, and is pooled and tested.

    Returns
    -------
    str
        Table; ends in a newline.

    Raises
    ------
    ValueError
        If a file cannot be read, no column has that metric, or results of a demo are
        among them.
    """
    sweep = read_sweep(path)
    if metric:
        if metric not in [column.metric for column in sweep.columns]:
            raise ValueError(f"{path}: columns have no {metric}, which the mark names")
        columns = sorted(sweep.columns, key=lambda column: column.metric != metric)
        sweep = replace(sweep, columns=tuple(columns))
    results = read_measured(sweep, folder)
    for row in sweep.rows:
        one = results[row.name]
        if not isinstance(one, str) and one.about.get("demo"):
            raise ValueError(
                f"{Path(folder) / row.folder}: {FILE} is from a demo run on synthetic "
                "speech, which says nothing about real speech; move it elsewhere"
            )
    return build_sweep_table(sweep, results).markdown()
