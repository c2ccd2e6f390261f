"""Implements ``ser-cl table SWEEP.yaml``: runs missing rows and writes the table."""

import functools
import json
import sys
from collections import Counter
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, fields, replace
from pathlib import Path
from typing import Any

from speechbrain_ser_cl.data.protocols import DRAWN, SEEDS, Split, resolve_protocol
from speechbrain_ser_cl.report.figures import plot_sweep
from speechbrain_ser_cl.results.crossval import FILE, CrossValidation, read_crossval
from speechbrain_ser_cl.results.measured import add_measured
from speechbrain_ser_cl.results.sweep_file import Row, Sweep, read_sweep
from speechbrain_ser_cl.results.sweep_tables import (
    build_sweep_table,
    read_measured,
    sweep_points,
    write_sweep_csv,
)
from speechbrain_ser_cl.results.text import NOT_RUN
from speechbrain_ser_cl.sweeps.crossval import aggregate, report_failures
from speechbrain_ser_cl.sweeps.parallel import execute
from speechbrain_ser_cl.sweeps.recipe import Recipe, as_words, find_script
from speechbrain_ser_cl.sweeps.runs import (
    FOLD_KEYS,
    PlannedRun,
    left_to_do,
    make_splits,
    plan,
    save_splits,
)
from speechbrain_ser_cl.utils.errors import did_you_mean
from speechbrain_ser_cl.utils.files import replacing
from speechbrain_ser_cl.utils.records import read
from speechbrain_ser_cl.utils.schemas import CROSSVAL
from speechbrain_ser_cl.utils.settings import read_yaml


@dataclass
class PlannedRow:
    """A row and its runs.

    Arguments
    ---------
    row : Row
        Row of the sweep file.
    runs : list of PlannedRun
        All its runs; empty if a corpus is missing.
    todo : list of PlannedRun
        Unfinished runs.
    missing : str
        Description of the missing corpus; empty if none is missing.
    kept : bool
        Whether its ``crossval.json`` exists nevertheless.

    Example
    -------
    >>> row = Row("a", Path("my.yaml"), {}, frozenset(), (), ".", None, {}, None)
    >>> PlannedRow(row, [], [], "corpora: no folder is given").state
    'not run here (corpora: no folder is given)'
    """

    row: Row
    runs: list[PlannedRun]
    todo: list[PlannedRun]
    missing: str = ""
    kept: bool = False

    @property
    def state(self) -> str:
        """State for the terminal."""
        if self.missing:
            kept = f"; its {FILE} is there" if self.kept else ""
            return f"{NOT_RUN} ({self.missing}){kept}"
        begun = sum(run.earlier() is not None for run in self.todo)
        told = f"{len(self.runs) - len(self.todo)} of {len(self.runs)} runs there"
        return f"{told}, {begun} begun" if begun else told


def missing_corpus(recipe: Recipe, needs: Sequence[str]) -> str:
    """Finds the corpus that a recipe lacks.

    Arguments
    ---------
    recipe : Recipe
        Recipe with overrides.
    needs : sequence of str
        Keys of the YAML, dotted if nested: a folder each, or a mapping of names to
        folders, or to mappings with ``folder``, some of which may be null.

    Returns
    -------
    str
        Key and problem; empty if none is missing.

    Raises
    ------
    ValueError
        If the YAML has no such key.
    """
    raw, _ = _read_recipe(recipe.hparams_file)
    for key in needs:
        top = key.partition(".")[0]
        if top not in raw:
            raise ValueError(
                f"needs names {top!r}, which is no key of {recipe.hparams_file}; "
                f"{did_you_mean(top, raw)}expected one of the keys that take folders"
            )
        tag = getattr(getattr(raw[top], "tag", None), "value", None)
        if tag == "!PLACEHOLDER" and top not in recipe.overridden:
            return f"{key}: no folder is given"
    for key in needs:
        top, *rest = key.split(".")
        value = recipe.values[top]
        for name in rest:
            value = value.get(name) if isinstance(value, Mapping) else None
        found = list(_folders(value))
        if not found:
            return f"{key}: no folder is given"
        for folder in found:
            if not Path(folder).is_dir():
                return f"{key}: there is no folder {folder}"
    return ""


def _folders(value: object) -> list[str]:
    if isinstance(value, Mapping):
        if isinstance(value.get("folder"), str):
            return [value["folder"]]
        return [folder for entry in value.values() for folder in _folders(entry)]
    return [value] if isinstance(value, str) else []


@functools.lru_cache
def _read_recipe(hparams_file: Path) -> tuple[Mapping[str, Any], Path]:
    """Reads a YAML's raw entries and finds its script, once for many rows."""
    return read_yaml(hparams_file), find_script(hparams_file).absolute()


def row_recipe(sweep: Sweep, row: Row, output: Path, more: Mapping[str, str]) -> Recipe:
    """Makes the recipe of a row with all overrides.

    Arguments
    ---------
    sweep : Sweep
        Sweep of the row.
    row : Row
        Row of the sweep.
    output : pathlib.Path
        Output folder, ``{output}`` in the sweep file.
    more : mapping
        Overrides of the command line.

    Returns
    -------
    Recipe
        Recipe with absolute paths.

    Raises
    ------
    ValueError
        For a key that the recipe does not have, or that both the row and the command
        line set.
    """
    from speechbrain.utils.run_opts import RunOptions

    hparams_file = Path(row.hparams_file.parent.resolve(), row.hparams_file.name)
    raw, script = _read_recipe(hparams_file)
    known = set(raw) | {field.name for field in fields(RunOptions)}
    for key in more:
        if key in row.own:
            raise ValueError(
                f"--{key}: the row {row.name!r} of {sweep.path} sets it; expected a "
                "key that no row sets"
            )
    given = {**row.overrides, **more}
    if "protocol" not in known and given.get("protocol") == SEEDS:
        del given["protocol"]  # without a protocol seeds are repeated
    for key in given:
        if key not in known:
            place = f"--{key}" if key in more else f"{sweep.path}: {key}"
            raise ValueError(
                f"{place}, of the row {row.name!r}, is no key of {row.hparams_file}; "
                f"{did_you_mean(key, known)}expected one of its keys, or an option of "
                "SpeechBrain such as device"
            )
    given = {k: text.replace("{output}", str(output)) for k, text in given.items()}
    return Recipe(hparams_file, script, as_words(given))


def plan_sweep(
    sweep: Sweep,
    output: Path,
    more: Mapping[str, str],
    folds: Sequence[int] | None = None,
) -> list[PlannedRow]:
    """Finds finished and missing runs of a sweep; writes nothing.

    Arguments
    ---------
    sweep : Sweep
        Sweep to plan.
    output : pathlib.Path
        Output folder.
    more : mapping
        Overrides of the command line.
    folds : sequence of int, optional
        Only these folds.

    Returns
    -------
    list of PlannedRow
        One per row.

    Raises
    ------
    ValueError
        If a row is invalid, or its folder contains other results.
    """
    planned: list[PlannedRow] = []
    splits: dict[str, list[Split]] = {}
    for row in sweep.rows:
        recipe = row_recipe(sweep, row, output, more)
        _check_dimensions(sweep, recipe, row)
        try:
            missing = missing_corpus(recipe, row.needs)
            if missing:
                kept = (output / row.record).exists()
                planned.append(PlannedRow(row, [], [], missing, kept))
                continue
            runs = plan(
                recipe,
                output / row.folder,
                sweep.seeds,
                folds,
                splits=_shared_splits(recipe, splits),
                row=row.name,
            )
            todo = left_to_do(runs, resume=True)
        except ValueError as error:
            raise ValueError(f"{sweep.path}: row {row.name!r}: {error}") from error
        planned.append(PlannedRow(row, runs, todo))
    return planned


def _check_dimensions(sweep: Sweep, recipe: Recipe, row: Row) -> None:
    """Refuses a column such as ``ccc.arousal`` of a dimension that is not learned."""
    known = recipe.values.get("dimensions")
    for column in sweep.columns:
        name = column.metric.partition(".")[2]
        if column.is_measure and name and known and name not in known:
            raise ValueError(
                f"{sweep.path}: columns: {column.metric}, but dimensions of the row "
                f"{row.name!r} are {', '.join(known)}; expected one of them"
            )


def _shared_splits(recipe: Recipe, made: dict[str, list[Split]]) -> list[Split] | None:
    """Makes the folds once for rows with the same corpora, classes, protocol."""
    values = recipe.values
    protocol = resolve_protocol(values.get("protocol") or SEEDS)
    if protocol.get("kind") in DRAWN or any(key not in values for key in FOLD_KEYS):
        return None  # plan reports what is missing
    names = ("corpora", "emotion_map", "allow_missing", "seed")
    key = json.dumps([protocol, *(values.get(name) for name in names)], sort_keys=True)
    if key not in made:
        made[key] = make_splits(recipe)
    return made[key]


def describe_plan(planned: Sequence[PlannedRow]) -> str:
    """Describes finished and missing runs of each row in a line.

    Arguments
    ---------
    planned : sequence of PlannedRow
        From ``plan_sweep``.

    Returns
    -------
    str
        Text for the terminal.

    Example
    -------
    >>> row = Row("a", Path("my.yaml"), {}, frozenset(), (), ".", None, {}, None)
    >>> print(describe_plan([PlannedRow(row, [], [], "corpora: no folder is given")]))
    a  not run here (corpora: no folder is given)
    0 runs, 0 of them there, 0 to do; 1 of 1 rows not run here
    """
    width = max(len(one.row.name) for one in planned)
    lines = [f"{one.row.name:<{width}}  {one.state}" for one in planned]
    runs = {run.folder for one in planned for run in one.runs}
    todo = {run.folder for one in planned for run in one.todo}
    absent = sum(bool(one.missing) for one in planned)
    lines.append(
        f"{len(runs)} runs, {len(runs) - len(todo)} of them there, {len(todo)} to do"
        + (f"; {absent} of {len(planned)} rows {NOT_RUN}" if absent else "")
    )
    return "\n".join(lines)


def run_sweep(
    path: Path,
    *,
    output: Path | None = None,
    seeds: Sequence[int] | None = None,
    folds: Sequence[int] | None = None,
    more: Mapping[str, str] | None = None,
    dry_run: bool = False,
    resume: bool = False,
    measured: Path | None = None,
    **engine: Any,
) -> int:
    """Runs missing runs of a sweep and writes its table and curves.

    Arguments
    ---------
    path : pathlib.Path
        Sweep file.
    output : pathlib.Path, optional
        Replaces the file's ``output_folder``.
    seeds : sequence of int, optional
        Replaces the file's seeds.
    folds : sequence of int, optional
        Only these folds.
    more : mapping, optional
        Key to value, as text, for all rows.
    dry_run : bool
        Whether to only print what would run.
    resume : bool
        Whether to continue unfinished runs.
    measured : pathlib.Path, optional
        File to which each row's ``crossval.json`` is added, for READMEs.
    **engine
        ``jobs``, ``backend``, ``cluster`` and ``runs_per_gpu``, see ``execute``.

    Returns
    -------
    int
        0 if all rows with corpora are finished; 1 if runs failed; 130 after Ctrl-C.

    Raises
    ------
    ValueError
        If the request is invalid, before anything runs.
    """
    sweep = read_sweep(path)
    if seeds is not None:
        sweep = replace(sweep, seeds=tuple(seeds))
    output = output or sweep.output_folder
    planned = plan_sweep(sweep, output, more or {}, folds)
    print(describe_plan(planned))
    if dry_run:
        return 0
    # Rows with the same overrides share runs.
    todo = list({run.folder: run for one in planned for run in one.todo}.values())
    begun = Counter(run.row for run in todo if run.earlier() is not None)
    if begun and not resume:
        raise ValueError(
            f"{output}: {sum(begun.values())} runs were begun and are not finished, "
            f"such as those of the row {next(iter(begun))!r}. --resume goes on with "
            "them. Or choose another --output_folder"
        )
    n_done = len({run.folder for one in planned for run in one.runs}) - len(todo)
    failed: dict[str, str] = {}
    if todo:
        save_splits(run for one in planned for run in one.runs)
        try:
            failed = execute(todo, output, n_done, **engine)
        except KeyboardInterrupt:
            print(
                "Interrupted; the same command with --resume continues", file=sys.stderr
            )
            return 130
    if failed:
        print(report_failures(failed, todo), file=sys.stderr)
        print(
            "The same command with --resume runs only what is not finished; the table "
            "has the other rows",
            file=sys.stderr,
        )
    unfinished = {run.folder for run in todo if run.name in failed}
    results = _results(sweep, planned, output, unfinished)
    _write(sweep, results, output)
    if measured is not None:
        add_measured(
            measured,
            {
                row.record: {**read(output / row.record, CROSSVAL)}
                for row in sweep.rows
                if not isinstance(results[row.name], str)
            },
        )
    return 1 if failed else 0


def _results(
    sweep: Sweep, planned: Sequence[PlannedRow], output: Path, unfinished: set[Path]
) -> dict[str, CrossValidation | str]:
    """Collects the result of each row."""
    results = read_measured(sweep, output)
    for one in planned:
        failed = sum(run.folder in unfinished for run in one.runs)
        if failed:
            results[one.row.name] = f"{failed} of {len(one.runs)} runs failed"
        elif one.runs:
            folder = output / one.row.folder
            aggregate(one.runs, folder)
            path = folder / one.row.result / FILE
            if not path.exists():
                there = sorted(
                    found.parent.relative_to(folder).as_posix()
                    for found in folder.rglob(FILE)
                )
                raise ValueError(
                    f"{sweep.path}: row {one.row.name!r}: result is "
                    f"{one.row.result!r}, but its runs left {', '.join(there)}"
                )
            results[one.row.name] = read_crossval(path)
    return results


def _write(
    sweep: Sweep, results: Mapping[str, CrossValidation | str], output: Path
) -> None:
    """Writes the table, its numbers and curves; prints the table."""
    table = build_sweep_table(sweep, results)
    points = sweep_points(sweep, results)
    output.mkdir(parents=True, exist_ok=True)
    stem = output / sweep.path.stem
    texts = {".md": table.markdown(), ".tex": table.latex(sweep.path.stem)}
    for suffix, text in texts.items():
        with replacing(stem.with_name(stem.name + suffix)) as part:
            part.write_text(text, encoding="utf-8")
    write_sweep_csv(points, stem.with_name(stem.name + ".csv"))
    written = write_curves(sweep, points, output)
    print(f"\n{texts['.md']}")
    for column in sweep.columns:
        told = {p["row"] for p in points if p["metric"] == column.metric}
        lacking = [
            row.name
            for row in sweep.rows
            if not isinstance(results[row.name], str) and row.name not in told
        ]
        if lacking:
            print(
                f"{column.metric} is not in results.json of {', '.join(lacking)}",
                file=sys.stderr,
            )
    names = [f"{sweep.path.stem}.md, .tex and .csv", *(path.name for path in written)]
    print(f"{', '.join(names)}: {output}")


def write_curves(
    sweep: Sweep, points: Sequence[Mapping[str, Any]], folder: str | Path
) -> list[Path]:
    """Writes, for each swept key, its curves as CSV and PNG.

    Arguments
    ---------
    sweep : Sweep
        Its rows and columns.
    points : sequence of mapping
        From ``sweep_points``.
    folder : str or pathlib.Path
        Output folder of ``<name of the sweep file>_<key>.csv`` and ``.png``.

    Returns
    -------
    list of pathlib.Path
        Written files; without matplotlib no figures.
    """
    written = []
    symbols = {row.point.key: row.point.symbol for row in sweep.rows if row.point}
    for key, symbol in symbols.items():
        own = [point for point in points if point["key"] == key]
        if not own:
            continue
        path = Path(folder) / f"{sweep.path.stem}_{key}.csv"
        write_sweep_csv(own, path)
        written.append(path)
        panels, baseline = {}, {}
        for column in sweep.columns:
            curves: dict[str, list[Any]] = {}
            for point in points:
                if point["metric"] != column.metric:
                    continue
                place = [
                    point[name] if point[name] is None else column.scale * point[name]
                    for name in ("mean", "low", "high")
                ]
                if point["key"] == key:
                    curves.setdefault(point["curve"], []).append(
                        (point["value"], *place)
                    )
                elif point["row"] == sweep.baseline:
                    baseline[column.heading] = (sweep.baseline, *place)
            if curves:
                panels[column.heading] = curves
        try:
            plot_sweep(panels, path.with_suffix(".png"), symbol, baseline)
        except ImportError:  # without matplotlib only the numbers are written
            continue
        written.append(path.with_suffix(".png"))
    return written
