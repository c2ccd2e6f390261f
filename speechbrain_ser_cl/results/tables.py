"""Writes tables of results into a README, from ``results.json`` files of runs,
``crossval.json`` files of cross-validations, or measured files that contain them.

Marks in the README give the place and the folder, relative to the README::

    <!-- results: begin results/ravdess_crema_d metric=uar -->
    <!-- results: end -->

Instead of ``results`` a mark may have ``crossval`` or ``groups`` (also with a metric),
``costs``, ``few_labels`` or ``alignment``. The table of a sweep file has the folder of
its measured files::

    <!-- sweep: begin tables/losses.yaml metric=uar folder=measured/losses -->
    <!-- sweep: end -->

This command writes the tables, or checks that they are up to date (exit status 1 if
not)::

    python -m speechbrain_ser_cl.results.tables README.md
    python -m speechbrain_ser_cl.results.tables README.md --check

A file ``paper.json`` in that folder adds a column with values from a paper, in percent.
A row is added to each table for which its ``source``, ``target``, ``encoder`` and
``target_split``, or ``corpus``, ``encoder`` and ``protocol``, are equal or missing::

    {"rows": [{"setting": "full, 5 % labels", "uar": 69.25,
               "note": "Ahn et al. 2023", "source": "iemocap"}]}
"""

import argparse
import json
import re
import sys
from collections.abc import Iterator, Mapping, Sequence
from functools import partial
from pathlib import Path
from typing import Any

import numpy as np

from speechbrain_ser_cl.metrics.kinds import KINDS, MEASURES, look_up
from speechbrain_ser_cl.metrics.significance import mean_interval
from speechbrain_ser_cl.results.alignment import alignment_table
from speechbrain_ser_cl.results.costs import build_cost_table
from speechbrain_ser_cl.results.crossval import (
    FILE,
    CrossValidation,
    parse_crossval,
    table_rows,
)
from speechbrain_ser_cl.results.few_labels import (
    few_label_points,
    few_label_table,
    read_few_labels,
)
from speechbrain_ser_cl.results.measured import find_records
from speechbrain_ser_cl.results.sweep_tables import measured_table
from speechbrain_ser_cl.results.text import (
    NONE,
    NOT_RUN,
    TITLES,
    bounds,
    markdown_table,
    mean_and_spread,
    p_value,
    percent,
)
from speechbrain_ser_cl.utils.files import write_rows
from speechbrain_ser_cl.utils.records import RecordError, read
from speechbrain_ser_cl.utils.schemas import PAPER

_GROUP = ("source", "target", "encoder", "target_split")
_CROSSVAL_GROUP = ("corpus", "encoder", "protocol")
_REQUIRED = ("setting", "source", "target", "encoder", "seed", "demo", "test")
_KINDS = "results|crossval|groups|costs|few_labels|alignment|sweep"
_BLOCK = re.compile(
    rf"(?P<begin><!-- (?P<kind>{_KINDS}): begin (?P<folder>\S+)"
    r"(?: metric=(?P<metric>\S+))?(?: folder=(?P<measured>\S+))? -->\n)"
    r".*?(?P<end><!-- (?P=kind): end -->)",
    re.DOTALL,
)
_MARK = re.compile(rf"<!-- (?:{_KINDS}): (begin|end)")
_NOTE = (
    "± is the standard deviation over seeds. Over seeds: 95 % t-interval of the "
    "mean, from 3 seeds on; it says how far other seeds may move it. Over speakers: "
    "95 % bootstrap interval of one run over the test speakers, its bounds averaged "
    "over the seeds; it says how far other speakers may move it."
)
_CROSSVAL_NOTE = (
    "± is the standard deviation over {units}{averaged}. Pooled: over all test "
    "utterances together, with the 95 % bootstrap interval over speakers.{tests}"
)
_TESTS_NOTE = (
    " p: against the first row, two-sided, Holm-corrected over the rows. Over "
    "{units}: paired t-test. Over speakers: permutation test that exchanges the two "
    "settings' predictions, all of a speaker at once. No p where splits or seeds are "
    "not the same."
)


def collect_results(folder: str | Path) -> list[dict[str, Any]]:
    """Reads every ``results.json`` below a folder.

    Arguments
    ---------
    folder : str or Path
        Folder, searched at any depth.

    Returns
    -------
    results : list of dict
        Contents of the files, sorted by path, each with its path as ``file``.

    Raises
    ------
    ValueError
        If a file is not a JSON object, lacks a key or is from a demo run.

    Example
    -------
    >>> import tempfile
    >>> collect_results(tempfile.mkdtemp())
    []
    """
    results = []
    for path, run in find_records(folder, "results.json"):
        missing = [key for key in _REQUIRED if key not in run]
        missing += [
            f"test.{name}.value"
            for name in TITLES
            if "value" not in run.get("test", {}).get(name, {})
        ]
        if "chance" not in run.get("test", {}):
            missing.append("test.chance")
        if missing:
            raise ValueError(f"{path}: missing {', '.join(missing)}")
        if run["demo"]:
            raise ValueError(
                f"{path} is from a demo run on synthetic speech, which says nothing "
                "about real speech; move its folder elsewhere"
            )
        results.append(run | {"file": str(path)})
    return results


def build_table(
    results: Sequence[Mapping[str, Any]],
    paper: Sequence[Mapping[str, Any]] = (),
    metric: str = "uar",
) -> str:
    """Returns Markdown tables: one per pair of corpora, encoder and target split.

    One row per setting, sorted by the runs' ``order``, then by name.

    Arguments
    ---------
    results : sequence of mapping
        From ``collect_results``.
    paper : sequence of mapping
        ``rows`` of a ``paper.json``.
    metric : str
        Metric with intervals: ``uar``, ``wa`` or ``macro_f1``.

    Returns
    -------
    table : str
        Tables; end in a newline.

    Raises
    ------
    ValueError
        If the metric is unknown, there is nothing to show, or two runs have the same
        setting and seed.

    Example
    -------
    >>> run = {"setting": "full", "source": "a", "target": "b", "encoder": "tiny"}
    >>> test = {"uar": {"value": 0.8}, "wa": {"value": 0.7}, "chance": 0.5}
    >>> test["macro_f1"] = {"value": 0.6}
    >>> runs = [run | {"seed": seed, "test": test} for seed in range(3)]
    >>> print(build_table(runs))  # doctest: +ELLIPSIS
    **a → b, tiny** (chance: UAR 50.0 %)
    <BLANKLINE>
    | setting | seeds | UAR % | 95 % over seeds | WA % | macro-F1 % |
    | --- | --- | --- | --- | --- | --- |
    | full | 3 | 80.0 ± 0.0 | 80.0 to 80.0 | 70.0 ± 0.0 | 60.0 ± 0.0 |
    <BLANKLINE>
    ± is the standard deviation over seeds. ...
    """
    if metric not in TITLES:
        raise ValueError(
            f"unknown metric {metric!r}, expected one of {', '.join(TITLES)}"
        )
    if not results and not paper:
        raise ValueError("neither results nor a paper's figures to show")
    runs_of: dict[tuple[Any, ...], list[Mapping[str, Any]]] = {}
    for run in results:
        key = tuple(run.get(name) for name in _GROUP)
        runs_of.setdefault(key, []).append(run)
    paper_of: dict[tuple[Any, ...], list[Mapping[str, Any]]] = {}
    for row in paper:
        own = tuple(row.get(name) for name in _GROUP)
        fitting = [
            key
            for key in runs_of
            if all(a is None or a == b for a, b in zip(own, key, strict=True))
        ]
        for key in fitting or [own]:
            paper_of.setdefault(key, []).append(row)
    tables = [
        _one_table(key, runs_of.get(key, []), paper_of.get(key, []), metric)
        for key in sorted(runs_of | paper_of, key=str)
    ]
    return "\n".join(tables + ([_NOTE + "\n"] if results else []))


def collect_crossvals(
    folders: Sequence[str | Path], demos: bool = False
) -> list[CrossValidation]:
    """Reads every ``crossval.json`` below some folders.

    Arguments
    ---------
    folders : sequence of str or Path
        Folders, searched at any depth; or the files themselves.
    demos : bool
        Whether demo runs on synthetic speech are allowed.

    Returns
    -------
    settings : list of CrossValidation
        Sorted by ``order``, then by name.

    Raises
    ------
    ValueError
        If a file cannot be read, two files have the same setting, or one is from a
        demo.

    Example
    -------
    >>> import tempfile
    >>> collect_crossvals([tempfile.mkdtemp()])
    []
    """
    settings: dict[str, tuple[CrossValidation, Path]] = {}
    for folder in map(Path, folders):
        for path, record in find_records(folder, FILE):
            one = parse_crossval(record)
            if one.about.get("demo") and not demos:
                raise ValueError(
                    f"{path} is from a demo run on synthetic speech, which says "
                    "nothing about real speech; move it elsewhere"
                )
            key = json.dumps(
                [one.about, one.protocol, one.corpora, one.class_names], sort_keys=True
            )
            if key in settings:
                raise ValueError(
                    f"{settings[key][1]} and {path} are of the same setting "
                    f"{one.about['setting']!r}; keep one of them"
                )
            settings[key] = (one, path)

    def place(one: CrossValidation) -> tuple[Any, ...]:
        return one.about.get("order", np.inf), one.about["setting"]

    return sorted((one for one, _ in settings.values()), key=place)


def build_crossval_table(
    settings: Sequence[CrossValidation],
    paper: Sequence[Mapping[str, Any]] = (),
    metric: str = "uar",
) -> str:
    """Returns Markdown tables: one per corpus, encoder, classes and protocol.

    Arguments
    ---------
    settings : sequence of CrossValidation
        Rows in order; each is compared with the first.
    paper : sequence of mapping
        ``rows`` of a ``paper.json``.
    metric : str
        Metric that is pooled and tested: ``uar``, ``wa`` or ``macro_f1`` for classes,
        or one of another kind's, ``ccc.arousal`` for one dimension; for a kind without
        it, the kind's default.

    Returns
    -------
    table : str
        Tables; end in a newline.

    Raises
    ------
    ValueError
        If the metric is unknown or there is nothing to show.

    Example
    -------
    >>> from speechbrain_ser_cl.results.crossval import Outcome
    >>> def fold(k):
    ...     return Outcome(k, 0, str(k), {"toy": {f"s{k}": np.array([[3, 1], [0, 4]])}})
    >>> one = CrossValidation(
    ...     {"setting": "probe", "encoder": "tiny"},
    ...     {"kind": "speaker_kfold", "n_folds": 3, "valid": "next"},
    ...     ["sad", "happy"],
    ...     [fold(k) for k in range(3)],
    ...     {},
    ... )
    >>> print(build_crossval_table([one]))  # doctest: +ELLIPSIS
    **toy, tiny, speaker_kfold** (2 classes, chance: UAR 50.0 %)
    <BLANKLINE>
    | setting | folds | seeds | UAR % | WA % | macro-F1 % | pooled UAR % | 95 % ... |
    | --- | --- | --- | --- | --- | --- | --- | --- |
    | probe | 3 | 1 | 87.5 ± 0.0 | 87.5 ± 0.0 | 87.3 ± 0.0 | 87.5 | – |
    <BLANKLINE>
    ± is the standard deviation over folds. ...
    """
    if not settings and not paper:
        raise ValueError(f"neither a {FILE} nor a paper's figures to show")
    settings, metric = _of_metric(settings, metric)
    groups = _groups(settings)
    if not groups:
        return _printed_only(paper, metric)
    tables = []
    for (corpus, encoder, protocol, _, _), same in groups:
        own = {"corpus": corpus, "encoder": encoder, "protocol": protocol}
        fitting = [
            row
            for row in paper
            if all(row.get(name) in (None, value) for name, value in own.items())
        ]
        caption = ", ".join(name for name in own.values() if name)
        tables.append(_one_crossval_table(caption, corpus, same, fitting, metric))
    units = " or ".join(sorted({f"{one.unit}s" for one in settings}))
    several = any(one.unit == "fold" and len(one.seeds) > 1 for one in settings)
    tests = any(len(same) > 1 for _, same in groups)
    note = _CROSSVAL_NOTE.format(
        units=units,
        averaged=", each averaged over seeds" if several else "",
        tests=_TESTS_NOTE.format(units=units) if tests else "",
    )
    gaps = [f"**{one.about['setting']}: {one.gap}**\n" for one in settings if one.gap]
    return "\n".join([*gaps, *tables, note + "\n"])


def build_groups_table(
    settings: Sequence[CrossValidation], metric: str | None = None
) -> str:
    """Returns Markdown tables of each setting's worst group and the groups' gap.

    Arguments
    ---------
    settings : sequence of CrossValidation
        Rows in order.
    metric : str, optional
        Only the kinds of results that have it.

    Returns
    -------
    str
        One table per kind of results; ends in a newline.

    Raises
    ------
    ValueError
        If no groups are known.

    Example
    -------
    >>> build_groups_table([])
    Traceback (most recent call last):
    ValueError: no crossval.json with groups of speakers: gender, language, … ; ...
    """
    tables: dict[str, list[list[str]]] = {}
    for view in (view for setting in settings for view in setting.views()):
        if metric and metric not in view.measured.titles:
            continue
        for corpus, columns in view.groups.get(view.kind, {}).items():
            for column, found in columns.items():
                tables.setdefault(view.kind, []).append(
                    [view.about["setting"], corpus, *_group_cells(view, column, found)]
                )
    if not tables:
        raise ValueError(
            f"no {FILE} with groups of speakers: gender, language, … ; ser-cl "
            "crossval --resume writes them where the corpus knows"
        )
    lines = []
    for kind, rows in tables.items():
        title = KINDS[kind].title(KINDS[kind].first)
        header = ["setting", "corpus", "by", f"worst group, {title}"]
        header += ["95 % over speakers", f"best group, {title}", "gap"]
        header += ["95 % over speakers"]
        lines += [*markdown_table(header, rows), ""]
    return "\n".join(lines)


def _group_cells(
    view: CrossValidation, column: str, found: Mapping[str, Any]
) -> list[str]:
    """Returns the cells for the column, its worst and best group, and their gap."""
    metric, groups, worst = found["metric"], found["groups"], found["worst"]
    sign = -1 if metric in view.measured.errors else 1
    best = max(groups, key=lambda name: sign * groups[name]["value"])
    write, bounds_of = view.measured.write, view.measured.bounds
    return [
        column,
        f"{worst}: {write(metric, groups[worst]['value'])}",
        bounds_of(metric, groups[worst]["interval"]),
        f"{best}: {write(metric, groups[best]['value'])}",
        write(metric, found["gap"]["value"]),
        bounds_of(metric, found["gap"]["interval"]),
    ]


def crossval_rows(
    settings: Sequence[CrossValidation], metric: str = "uar"
) -> list[dict[str, Any]]:
    """Returns the contents of ``build_crossval_table`` as plain values for JSON.

    Arguments
    ---------
    settings : sequence of CrossValidation
        Rows in order; each is compared with the first.
    metric : str
        Tested metric, see :func:`build_crossval_table`.

    Returns
    -------
    list of dict
        For each table ``corpus``, ``encoder``, ``protocol``, ``kind``, ``class_names``,
        ``metric`` and its ``settings``, see
        :func:`~speechbrain_ser_cl.results.crossval.table_rows`.
    """
    names = ("corpus", "encoder", "protocol", "kind", "class_names")
    settings, metric = _of_metric(settings, metric)
    found = []
    for key, same in _groups(settings):
        own = same[0].measured.choose(metric)
        rows = {"metric": own, "settings": table_rows(same, key[0], own)}
        found.append(dict(zip(names, key, strict=True)) | rows)
    return found


def _of_metric(
    settings: Sequence[CrossValidation], metric: str
) -> tuple[Sequence[CrossValidation], str]:
    """Checks a metric; with that of one dimension, the settings are reduced to it."""
    if look_up(metric) is None:
        raise ValueError(
            f"unknown metric {metric!r}, expected one of {', '.join(MEASURES)}, or "
            "with the name of a dimension, such as ccc.arousal"
        )
    name, _, dimension = metric.partition(".")
    if not dimension or not settings:
        return settings, name
    found = [view[0] for view in (one.view(metric) for one in settings) if view]
    if not found:
        of = (one.class_names for one in settings if one.kind == "dimensions")
        known = ", ".join(sorted({each for names in of for each in names}))
        raise ValueError(
            f"metric {metric!r}: no result has a dimension {dimension!r}; "
            f"their dimensions: {known or 'none'}"
        )
    return found, name


def _groups(
    settings: Sequence[CrossValidation],
) -> list[tuple[tuple[Any, ...], list[CrossValidation]]]:
    """Groups settings by corpus, encoder, protocol, kind of results and classes."""
    groups: dict[tuple[Any, ...], list[CrossValidation]] = {}
    for one in (view for setting in settings for view in setting.views()):
        for corpus in one.corpora:
            key: tuple[Any, ...]
            key = (corpus, one.about.get("encoder"), _protocol_name(one, corpus))
            key = (*key, one.kind, tuple(one.class_names))
            groups.setdefault(key, []).append(one)
    return sorted(groups.items(), key=lambda group: str(group[0]))


def write_csv(settings: Sequence[CrossValidation], path: str | Path) -> None:
    """Writes results of cross-validations as CSV in long form.

    Columns: ``setting``, ``corpus``, ``encoder``, ``protocol``, ``of`` and the metrics,
    fractions in [0, 1]; metrics of other kinds of results are empty. ``of`` is
    ``missing: …`` for each run without a result, ``fold 0`` …, ``mean``, ``std``,
    ``pooled``, ``pooled_low`` and ``pooled_high`` (bounds of the interval over
    speakers).

    Arguments
    ---------
    settings : sequence of CrossValidation
        In any order.
    path : str or Path
        Output file, written whole or not at all.
    """
    every = [view for setting in settings for view in setting.views()]
    metrics = list(dict.fromkeys(n for one in every for n in one.measured.titles))
    rows = (
        [*about, *map(values.get, metrics)]
        for one in every
        for about, values in _csv_lines(one)
    )
    header = ["setting", "corpus", "encoder", "protocol", "of", *metrics]
    write_rows(path, header, rows)


def _csv_lines(
    one: CrossValidation,
) -> Iterator[tuple[list[str | None], Mapping[str, Any]]]:
    """Yields the first cells of each row, and its metrics."""
    titles = one.measured.titles
    for corpus in one.corpora:
        summary = one.summary(corpus)
        about = [one.about["setting"], corpus, one.about.get("encoder")]
        about.append(_protocol_name(one, corpus))
        lines = {
            f"missing: fold {fold}, seed {seed}": dict.fromkeys(titles)
            for fold, seed in one.missing
        }
        lines |= {f"{one.unit} {u[one.unit]}": u for u in summary[f"{one.unit}s"]}
        lines |= {"mean": summary["mean"], "std": summary["std"]}
        pooled = summary["pooled"]
        lines["pooled"] = {name: pooled[name]["value"] for name in titles}
        for i, bound in enumerate(("low", "high")):
            lines[f"pooled_{bound}"] = {
                name: (pooled[name]["interval"] or (None, None))[i] for name in titles
            }
        for of, values in lines.items():
            yield [*about, of], values


def _protocol_name(one: CrossValidation, corpus: str) -> str:
    protocol = one.protocol_of(corpus)
    name: str = protocol["kind"]
    swapped = protocol.get("valid") == "swap" and name != "session_speaker_swap"
    return f"{name} with swap" if swapped else name


def _printed_only(paper: Sequence[Mapping[str, Any]], metric: str) -> str:
    known = [name for name in _CROSSVAL_GROUP if any(name in row for row in paper)]
    titles = ["setting", *known, _title(metric), "printed"]
    rows = [
        [
            row["setting"],
            *(str(row.get(name, NONE)) for name in known),
            *(NOT_RUN, _figure(row, metric)),
        ]
        for row in paper
    ]
    return "\n".join(["**As printed**", "", *markdown_table(titles, rows), ""])


def _figure(row: Mapping[str, Any], metric: str) -> str:
    return f"{row[metric]} ({row['note']})"


def _title(metric: str) -> str:
    """Returns the title of a measure with its unit."""
    title, in_percent = look_up(metric) or (metric, False)
    return f"{title} %" if in_percent else title


def _one_crossval_table(
    caption: str,
    corpus: str,
    settings: Sequence[CrossValidation],
    paper: Sequence[Mapping[str, Any]],
    metric: str,
) -> str:
    """Returns caption, empty line and table of one group."""
    kind = settings[0].measured
    metric = kind.choose(metric)
    found = table_rows(settings, corpus, metric)
    first = found[0]["summary"]
    about = ", ".join(settings[0].class_names)
    if "chance" in first:
        about = f"{round(1 / first['chance'])} classes, chance: UAR "
        about += f"{100 * first['chance']:.1f} %"
    demo = any(one.about.get("demo") for one in settings)
    units = settings[0].unit + "s"
    # The tested metric is first, as in the other tables.
    names = [metric, *(name for name in kind.titles if name != metric)]
    if kind.name == "dimensions" and len(settings[0].class_names) > 1:
        names += [f"{metric}.{name}" for name in settings[0].class_names]
    titles = ["setting", *(["folds"] if units == "folds" else []), "seeds"]
    titles += [_title(name) for name in names]
    titles += [f"pooled {kind.title(metric)}", "95 % over speakers"]
    titles += [f"p, {units}", "p, speakers"] if len(found) > 1 else []
    titles += ["printed"] if paper else []
    printed = {row["setting"]: _figure(row, metric) for row in paper}
    rows = []
    for one, row in zip(settings, found, strict=True):
        summary, against = row["summary"], row["against_first"] or {}
        n_units = len(summary[units])
        name = f"{row['setting']} (INCOMPLETE)" if one.gap else row["setting"]
        cells = [name, *([str(n_units)] if units == "folds" else [])]
        cells += [str(len(one.seeds))]
        for name in names:
            view, own = one.view(name) or (one, name)
            values = view.values(corpus, own)
            cells.append(mean_and_spread(values, partial(kind.write, own)))
        pooled = summary["pooled"][metric]
        cells += [kind.write(metric, pooled["value"])]
        cells += [kind.bounds(metric, pooled["interval"])]
        if len(found) > 1:
            tests = ("t_test_holm", "permutation_holm")
            cells += [p_value(against.get(test)) for test in tests]
        if paper:
            cells.append(printed.pop(row["setting"], NONE))
        rows.append(cells)
    for setting, figure in printed.items():
        cells = [setting, *[NONE] * (len(titles) - 2), figure]
        cells[titles.index(kind.title(metric))] = NOT_RUN
        rows.append(cells)
    caption += ", DEMO on synthetic speech" if demo else ""
    lines = markdown_table(titles, rows)
    return "\n".join([f"**{caption}** ({about})", "", *lines, ""])


def _one_table(
    key: tuple[Any, ...],
    runs: list[Mapping[str, Any]],
    paper: list[Mapping[str, Any]],
    metric: str,
) -> str:
    """Returns caption, empty line and table of one group."""
    source, target, encoder, split = key
    caption = [f"{source} → {target}"] if source or target else ["As printed"]
    caption += [encoder] if encoder else []
    caption += [f"{split} target split"] if split else []
    chances = sorted({run["test"]["chance"] for run in runs})
    if len(chances) > 1:
        raise ValueError(
            f"{', '.join(caption)}: runs with different chance levels {chances}, so "
            f"with different classes, do not fit one table: {_files(runs)}"
        )
    settings: dict[str, list[Mapping[str, Any]]] = {}
    for run in sorted(runs, key=lambda run: (run.get("order", np.inf), run["setting"])):
        settings.setdefault(run["setting"], []).append(run)
    printed = {row["setting"]: _figure(row, metric) for row in paper}
    over_speakers = any(run["test"][metric].get("interval_speakers") for run in runs)
    others = [name for name in TITLES if name != metric]
    titles = ["setting", "seeds", f"{TITLES[metric]} %", "95 % over seeds"]
    titles += ["95 % over speakers"] if over_speakers else []
    titles += [f"{TITLES[name]} %" for name in others]
    titles += ["printed"] if paper else []
    rows = []
    for setting in settings | printed:
        cells = [setting]
        if setting in settings:
            same = settings[setting]
            seeds = [run["seed"] for run in same]
            if len(set(seeds)) < len(seeds):
                raise ValueError(
                    f"{setting!r}: one seed has several runs: {_files(same)}; "
                    "keep one of them"
                )
            interval = mean_interval(_values(same, metric))
            cells += [str(len(seeds)), _mean(same, metric), bounds(interval)]
            cells += [_over_speakers(same, metric)] if over_speakers else []
            cells += [_mean(same, name) for name in others]
        else:
            cells += [NONE, NOT_RUN] + [NONE] * (len(titles) - 4)
        cells += [printed.get(setting, NONE)] if paper else []
        rows.append(cells)
    title = f"**{', '.join(caption)}**"
    title += "".join(f" (chance: UAR {100 * chance:.1f} %)" for chance in chances)
    return "\n".join([title, "", *markdown_table(titles, rows), ""])


def _files(runs: Sequence[Mapping[str, Any]]) -> str:
    return ", ".join(str(run.get("file", run["setting"])) for run in runs)


def _values(runs: Sequence[Mapping[str, Any]], name: str) -> list[float]:
    return [run["test"][name]["value"] for run in runs]


def _mean(runs: Sequence[Mapping[str, Any]], name: str) -> str:
    return mean_and_spread(_values(runs, name), percent)


def _over_speakers(runs: Sequence[Mapping[str, Any]], name: str) -> str:
    intervals = [run["test"][name].get("interval_speakers") for run in runs]
    return NONE if None in intervals else bounds(np.mean(intervals, axis=0))


def _read_paper(folder: Path, metric: str) -> Sequence[Mapping[str, Any]]:
    path = folder / "paper.json"
    if not path.exists():
        return []
    rows = read(path, PAPER).get("rows", [])
    for row in rows:
        if not isinstance(row.get(metric), float | int):
            raise RecordError.at(path, f"rows: {metric}", row.get(metric), "a number")
    return rows


def _filled(readme_path: Path) -> str:
    """Returns the README's text with current tables."""
    text = readme_path.read_text(encoding="utf-8")
    n_blocks = len(_BLOCK.findall(text))
    marks = _MARK.findall(text)
    n_marks = (marks.count("begin"), marks.count("end"))
    if n_blocks == 0 or n_marks != (n_blocks, n_blocks):
        raise ValueError(
            f"{readme_path}: {n_marks[0]} begin and {n_marks[1]} end markers make "
            f"{n_blocks} blocks; expected pairs of '<!-- results: begin FOLDER "
            "[metric=uar] -->' and '<!-- results: end -->', or one of "
            f"{_KINDS.replace('|', ', ')} instead of 'results', or '<!-- sweep: begin "
            "FILE folder=FOLDER -->', each on its own line"
        )

    def fill(block: re.Match[str]) -> str:
        try:
            table = _table_of(block, readme_path.parent)
        except ValueError as error:
            raise ValueError(f"{readme_path}, {block['folder']}: {error}") from error
        return f"{block['begin']}\n{table}\n{block['end']}"

    return _BLOCK.sub(fill, text)


def _table_of(block: re.Match[str], home: Path) -> str:
    """Returns the table between two marks."""
    folder, kind, metric = home / block["folder"], block["kind"], block["metric"]
    if kind == "sweep":
        return measured_table(folder, home / (block["measured"] or "measured"), metric)
    if kind == "alignment":
        return alignment_table(folder)
    if kind == "few_labels":
        about, rows = read_few_labels(folder)
        return few_label_table(about, few_label_points(rows, about["baseline"]))
    if kind == "groups":
        return build_groups_table(collect_crossvals([folder]), metric)
    if kind == "costs":
        return build_cost_table(collect_crossvals([folder]))
    metric = metric or "uar"
    paper = _read_paper(folder, metric)
    if kind == "crossval":
        return build_crossval_table(collect_crossvals([folder]), paper, metric)
    return build_table(collect_results(folder), paper, metric)


def fill_readme(readme_path: str | Path) -> bool:
    r"""Writes the tables between a README's markers.

    Arguments
    ---------
    readme_path : str or Path
        Markdown file with at least one pair of markers.

    Returns
    -------
    changed : bool
        False if the tables were up to date and the file was not changed.

    Raises
    ------
    ValueError
        If markers do not form pairs, or a folder's results cannot be shown.

    Example
    -------
    >>> import tempfile
    >>> readme = Path(tempfile.mkdtemp(), "README.md")
    >>> _ = readme.write_text("<!-- results: begin runs -->\n<!-- results: end -->")
    >>> fill_readme(readme)
    Traceback (most recent call last):
    ...
    ValueError: ...README.md, runs: neither results nor a paper's figures to show
    """
    readme_path = Path(readme_path)
    text = _filled(readme_path)
    if text == readme_path.read_text(encoding="utf-8"):
        return False
    readme_path.write_text(text, encoding="utf-8")
    return True


def main(arguments: Sequence[str] | None = None) -> int:
    """Runs the command line of the module's docstring.

    Arguments
    ---------
    arguments : sequence of str, optional
        Arguments without the program's name. Default: those of the process.

    Returns
    -------
    status : int
        0; 1 if ``--check`` found an outdated README; 2 if the tables cannot be written.

    Example
    -------
    >>> main(["no_such_folder/README.md"])
    2
    """
    parser = argparse.ArgumentParser(
        prog="python -m speechbrain_ser_cl.results.tables",
        description="Write the results tables of a README from results.json files.",
    )
    parser.add_argument("readme", type=Path)
    parser.add_argument(
        "--check", action="store_true", help="write nothing; exit 1 if out of date"
    )
    options = parser.parse_args(arguments)
    try:
        if not options.check:
            changed = fill_readme(options.readme)
            print(f"{options.readme}: {'written' if changed else 'was up to date'}")
            return 0
        if _filled(options.readme) == options.readme.read_text(encoding="utf-8"):
            return 0
    except (OSError, ValueError) as error:
        print(error, file=sys.stderr)
        return 2
    print(
        f"{options.readme}: the tables are not those of the results.json files; run "
        f"python -m speechbrain_ser_cl.results.tables {options.readme}",
        file=sys.stderr,
    )
    return 1


if __name__ == "__main__":
    sys.exit(main())
