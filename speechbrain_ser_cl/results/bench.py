"""Tables of ``ser-cl bench``: by corpus, across corpora, ranks and cost."""

import json
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np

from speechbrain_ser_cl.data.splits import Labelled
from speechbrain_ser_cl.metrics.significance import rank_methods
from speechbrain_ser_cl.results.crossval import CrossValidation
from speechbrain_ser_cl.results.sweep_tables import TextTable
from speechbrain_ser_cl.results.text import NONE, bounds, p_value, percent
from speechbrain_ser_cl.utils.files import replacing, write_rows

CROSS = "cross_corpus"
"""Name used as protocol: trained on one corpus, tested on another."""
CLASSIFIER_NAMES = {
    "logistic": "logistic regression",
    "svm": "linear SVM",
    "ridge": "ridge regression",
}


class Cell(NamedTuple):
    """A result, or a planned result.

    Arguments
    ---------
    features, classifier, protocol : str
        Names; the protocol may be ``CROSS``.
    train, test : str
        Names of the corpora; equal unless the protocol is ``CROSS``.
    result : CrossValidation or None
        None: not run yet.

    Example
    -------
    >>> Cell("tiny", "svm", CROSS, "emodb", "ravdess", None).setting
    'linear SVM, trained on emodb'
    """

    features: str
    classifier: str
    protocol: str
    train: str
    test: str
    result: CrossValidation | None

    @property
    def row(self) -> tuple[str, str]:
        """Values that identify a row."""
        return self.features, self.classifier

    @property
    def setting(self) -> str:
        """Describes the test in words."""
        name = CLASSIFIER_NAMES[self.classifier]
        return f"{name}, trained on {self.train}" if self.protocol == CROSS else name

    def pooled(self) -> dict[str, Any]:
        """Returns UAR over all test utterances, interval over speakers, and chance."""
        if self.result is None:
            return {"value": None, "interval": None, "chance": None}
        summary = self.result.summary(self.test)
        return {**summary["pooled"]["uar"], "chance": summary["chance"]}


def bench_rows(cells: Sequence[Cell]) -> list[dict[str, Any]]:
    """Returns each cell as plain values, for CSV and JSON.

    Arguments
    ---------
    cells : sequence of Cell
        Finished and planned cells.

    Returns
    -------
    list of dict
        With ``uar``, ``low`` and ``high`` in [0, 1]; None if not run.

    Example
    -------
    >>> bench_rows([Cell("mel", "svm", CROSS, "a", "b", None)])[0]["uar"] is None
    True
    """
    rows = []
    for cell in cells:
        found, one = cell.pooled(), cell.result
        low, high = found["interval"] or (None, None)
        rows.append(
            cell._asdict()
            | {
                "result": "done" if one else "not run",
                "classes": len(one.class_names) if one else None,
                "uar": found["value"],
                "low": low,
                "high": high,
                "chance": found["chance"],
                "seconds": one.cost["training_seconds"] if one else None,
            }
        )
    return rows


def _ranks(title: str, cells: Sequence[Cell]) -> TextTable | None:
    """Computes mean ranks over data sets of all complete rows."""
    places = list(dict.fromkeys((c.protocol, c.train, c.test) for c in cells))
    values: dict[tuple[str, str], list[float]] = {}
    for cell in cells:
        value = cell.pooled()["value"]
        if value is not None:
            values.setdefault(cell.row, []).append(value)
    whole = {row: uars for row, uars in values.items() if len(uars) == len(places)}
    if len(whole) < 2:
        return None
    found = rank_methods(list(whole.values()))
    rows = [
        [*row, f"{rank:.2f}", p_value(p)]
        for row, rank, p in zip(
            whole, found["mean_ranks"], found["against_best"], strict=True
        )
    ]
    rows.sort(key=lambda row: float(row[2]))
    left_out = len({cell.row for cell in cells}) - len(whole)
    note = (
        f"Ranks of the UAR over {len(places)} data sets, 1 is best. Rows whose mean "
        f"ranks differ by less than {found['critical_difference']:.2f} are not told "
        "apart (Nemenyi, 5 %). p: against the best row, corrected by Holm. Friedman's "
        f"test of all rows: p = {p_value(found['friedman'])}. With few data sets these "
        "tests find large differences only."
    )
    if left_out:
        note += f" {left_out} rows that are not complete are left out."
    header = ["features", "classifier", "mean rank", "p"]
    return TextTable(f"Ranks, {title}", "", header, rows, note)


def bench_tables(cells: Sequence[Cell]) -> list[tuple[str, TextTable]]:
    """Makes all tables.

    Arguments
    ---------
    cells : sequence of Cell
        All planned cells.

    Returns
    -------
    list of (str, TextTable)
        Each with a short name.

    Example
    -------
    >>> cells = [Cell("mel", "svm", "speaker_kfold", "a", "a", None)]
    >>> [name for name, _ in bench_tables(cells)]
    ['speaker_kfold', 'cost']
    """
    missing = sum(cell.result is None for cell in cells)
    gap = f"INCOMPLETE: {missing} of {len(cells)} cells are not run" if missing else ""
    found: list[tuple[str, TextTable]] = []
    for protocol in dict.fromkeys(cell.protocol for cell in cells):
        own = [cell for cell in cells if cell.protocol == protocol]
        cross = protocol == CROSS
        tests = list(dict.fromkeys(cell.test for cell in own))
        lines: dict[tuple[str, ...], dict[str, str]] = {}
        for cell in own:
            pooled = cell.pooled()
            text = percent(pooled["value"])
            if pooled["interval"]:
                text += f" ({bounds(pooled['interval'])})"
            if cross and cell.result:
                text += f", {len(cell.result.class_names)} classes"
            key = (*cell.row, cell.train) if cross else cell.row
            lines.setdefault(key, {})[cell.test] = text
        header = ["features", "classifier", *(["trained on"] if cross else []), *tests]
        rows = [
            [*key, *(line.get(test, NONE) for test in tests)]
            for key, line in lines.items()
        ]
        title = "Trained on one corpus, tested on another" if cross else protocol
        note = (
            "UAR in % over all test utterances, in brackets the 95 % interval over "
            "speakers. Layer and strength are chosen by inner folds of the training "
            "data."
        )
        table = TextTable(title, gap, header, rows, note)
        found.append((protocol, table))
        ranks = _ranks("across corpora" if cross else protocol, own)
        if ranks:
            found.append((f"{protocol}_ranks", ranks))
    return [*found, ("cost", _cost(cells))]


def _cost(cells: Sequence[Cell]) -> TextTable:
    """Returns the seconds of a row: features per utterance, and all fits."""
    rows, machines = [], set()
    for row in dict.fromkeys(cell.row for cell in cells):
        costs = [c.result.cost for c in cells if c.row == row and c.result]
        stages = [c["stages"]["features"] for c in costs if c.get("stages")]
        per = stages[0]["seconds_per_utterance"] if stages else None
        seconds = sum(cost["training_seconds"] for cost in costs)
        runs = sum(cost["runs"] for cost in costs)
        machines |= {one["processor"] for cost in costs for one in cost["machines"]}
        per_run = f"{seconds / runs:.1f}" if runs else NONE
        rows.append([*row, NONE if per is None else f"{per:.3f}", str(runs), per_run])
    header = ["features", "classifier", "s per utterance", "fits", "s per fit"]
    note = (
        "Seconds of the processor. A fit chooses layer and strength, too. Per "
        f"utterance: of its features, {NONE} where they were there before. Measured on "
        f"{', '.join(sorted(machines)) or 'nothing yet'}."
    )
    return TextTable("Cost", "", header, rows, note)


def write_bench(cells: Sequence[Cell], folder: str | Path) -> str:
    """Writes tables as Markdown, LaTeX, CSV and JSON.

    Arguments
    ---------
    cells : sequence of Cell
        All planned cells.
    folder : str or pathlib.Path
        Output folder for ``bench.md``, ``bench.tex``, ``bench.csv`` and ``bench.json``.

    Returns
    -------
    str
        Text of the Markdown file.
    """
    folder = Path(folder)
    tables, rows = bench_tables(cells), bench_rows(cells)
    text = "\n".join(table.markdown() for _, table in tables)
    latex = "\n".join(table.latex(name) for name, table in tables)
    ranks = {name: table.rows for name, table in tables if name.endswith("_ranks")}
    contents = {
        "bench.md": text,
        "bench.tex": latex,
        "bench.json": json.dumps({"cells": rows, "ranks": ranks}, indent=1) + "\n",
    }
    for name, content in contents.items():
        with replacing(folder / name) as part:
            part.write_text(content, encoding="utf-8")
    write_rows(folder / "bench.csv", list(rows[0]), (row.values() for row in rows))
    return text


def speaker_counts(
    predictions: Mapping[str, Sequence[Any]], items: Sequence[Labelled], n_classes: int
) -> dict[str, np.ndarray]:
    """Computes the confusion counts of each speaker.

    Arguments
    ---------
    predictions : mapping
        ``id``, ``label`` and ``prediction`` of N utterances.
    items : sequence of Labelled
        At least these utterances.
    n_classes : int
        Number of classes C.

    Returns
    -------
    dict
        Speaker to counts (C, C), true class first.

    Example
    -------
    >>> speaker_counts({"id": [], "label": [], "prediction": []}, [], 2)
    {}
    """
    speaker_of = {i.utterance.id: i.utterance.speaker or "unknown" for i in items}
    counts: dict[str, np.ndarray] = {}
    columns = (predictions[key] for key in ("id", "label", "prediction"))
    for name, label, prediction in zip(*columns, strict=True):
        empty = np.zeros((n_classes, n_classes), np.int64)
        counts.setdefault(speaker_of[name], empty)[label, prediction] += 1
    return counts
