"""Implements ``ser-cl crossval``: cross-validates a recipe and writes its table."""

import contextlib
import sys
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

from speechbrain_ser_cl.data.protocols import SEEDS
from speechbrain_ser_cl.report.figures import plot_confusion_matrix
from speechbrain_ser_cl.results.crossval import FILE, CrossValidation, collect
from speechbrain_ser_cl.results.measured import add_measured, find_records
from speechbrain_ser_cl.results.tables import (
    build_crossval_table,
    build_groups_table,
    write_csv,
)
from speechbrain_ser_cl.sweeps.parallel import execute
from speechbrain_ser_cl.sweeps.process import tail
from speechbrain_ser_cl.sweeps.recipe import Recipe
from speechbrain_ser_cl.sweeps.runs import PlannedRun, left_to_do, plan, save_splits
from speechbrain_ser_cl.utils.files import replacing


def report_failures(failed: Mapping[str, str], runs: Sequence[PlannedRun]) -> str:
    """Describes failed runs, each with the end of its log.

    Arguments
    ---------
    failed : mapping
        From ``execute``.
    runs : sequence of PlannedRun
        At least the failed runs.

    Returns
    -------
    str
        Text for the terminal.

    Example
    -------
    >>> report_failures({}, [])
    '0 of 0 runs failed:'
    """
    folder_of = {run.name: run.folder for run in runs}
    lines = [f"{len(failed)} of {len(runs)} runs failed:"]
    for name, problem in failed.items():
        log = folder_of[name] / "crossval.log"
        lines.append(f"{name}: {problem}; the end of {log}:")
        lines += [f"    {line}" for line in tail(log)]
    return "\n".join(lines)


def aggregate(runs: Sequence[PlannedRun], output: Path) -> str:
    """Combines the results of finished runs: JSON, CSV, Markdown and figures.

    If runs are missing, each file says so and nothing is pooled. ``crossval.json`` is
    written into the folder; if runs have several results (a demo that compares
    settings), into a subfolder for each. ``crossval.csv`` and ``crossval.md`` cover all
    of them.

    Arguments
    ---------
    runs : sequence of PlannedRun
        All planned runs, of which at least one is finished.
    output : pathlib.Path
        Output folder.

    Returns
    -------
    str
        The table.

    Raises
    ------
    ValueError
        If the runs' results do not belong together.
    """
    found: dict[str, list[Any]] = {}
    missing = []
    for run in runs:
        fold = run.split.fold if run.split else None
        fingerprint = run.split.fingerprint if run.split else None
        results = run.results()
        if not results:
            missing.append((fold, run.seed))
        for path in results:
            name = path.parent.relative_to(run.folder).as_posix()
            found.setdefault(name, []).append((fold, run.seed, fingerprint, path))
    split = runs[0].split
    settings = []
    for name, of_name in found.items():
        if len(of_name) != len(runs) - len(missing):
            raise ValueError(f"{output}: not all runs have results in {name}")
        protocol = split.protocol if split else {"kind": SEEDS}
        one = collect(of_name, protocol, missing)
        one.write(output / name / FILE)
        if not missing and one.kind == "classes":
            _plot(one, output / name)
        settings.append(one)
    settings.sort(key=lambda one: one.about.get("order", 0))
    write_csv(settings, output / "crossval.csv")
    table = build_crossval_table(settings)
    if any(one.groups for one in settings):
        table += f"\n{build_groups_table(settings)}"
    with replacing(output / "crossval.md") as part:
        part.write_text(table, encoding="utf-8")
    return table


def _plot(one: CrossValidation, folder: Path) -> None:
    for corpus in one.corpora:
        confusion = sum(one.per_speaker(corpus).values())
        path = folder / f"confusion_matrix_{corpus}.png"
        # Without matplotlib only the numbers are written.
        with contextlib.suppress(ImportError):
            plot_confusion_matrix(confusion, one.class_names, path)


def describe_splits(runs: Sequence[PlannedRun]) -> list[str]:
    """Describes each fold in one line: its size, and what its parts share.

    Arguments
    ---------
    runs : sequence of PlannedRun
        All runs.

    Returns
    -------
    list of str
        Text for the terminal; empty if there are no folds.

    Example
    -------
    >>> recipe = Recipe(Path("my.yaml"), Path("train.py"), ())
    >>> describe_splits([PlannedRun(recipe, Path("results/seed-1"), 1, None, None)])
    []
    """
    lines = []
    for split in {run.split.fold: run.split for run in runs if run.split}.values():
        sizes = ", ".join(f"{len(part)} {name}" for name, part in split.parts().items())
        shared = ", ".join(
            f"{pairs['train/test']} {key}s"
            for key, pairs in split.shared.items()
            if pairs["train/test"]
        )
        leak = f"; train and test share {shared}" if shared else ""
        lines.append(f"fold {split.fold}: {sizes}{leak}")
    return lines


def crossval(
    recipe: Recipe,
    *,
    seeds: Sequence[int] | None = None,
    folds: Sequence[int] | None = None,
    splits: Path | None = None,
    resume: bool = False,
    measured: Path | None = None,
    **engine: Any,
) -> int:
    """Cross-validates a recipe.

    Arguments
    ---------
    recipe : Recipe
        The recipe with its overrides.
    seeds, folds, splits
        See ``plan``.
    resume : bool
        Whether to continue existing runs.
    measured : pathlib.Path, optional
        File to which each ``crossval.json`` is added, for READMEs.
    **engine
        ``jobs``, ``backend``, ``cluster`` and ``runs_per_gpu``, see ``execute``.

    Returns
    -------
    int
        0 if all runs are finished, 1 if some failed, 130 after Ctrl-C.

    Raises
    ------
    ValueError
        If the request is invalid, before anything runs.
    """
    with_trackers = bool(recipe.values.get("loggers"))
    if with_trackers:  # which import PyTorch; nothing else here does
        from speechbrain_ser_cl.training.trackers import check_trackers, log_results

        check_trackers(recipe.values)
    output = Path(recipe.values.get("output_folder", ""))
    if "output_folder" not in recipe.overridden:
        output = output / "crossval"
    runs = plan(recipe, output, seeds, folds, splits)
    todo = left_to_do(runs, resume)
    save_splits(runs)
    for line in describe_splits(runs):
        print(line)
    n_done = len(runs) - len(todo)
    print(f"{len(runs)} runs, {n_done} of them finished before; results in {output}")
    try:
        failed = execute(todo, output, n_done, **engine) if todo else {}
    except KeyboardInterrupt:
        print("Interrupted; the same command with --resume continues", file=sys.stderr)
        return 130
    if failed:
        if any(run.results() for run in runs):
            print(f"\n{aggregate(runs, output)}")
        print(report_failures(failed, runs), file=sys.stderr)
        print(
            "The same command with --resume runs only what is not finished",
            file=sys.stderr,
        )
        return 1
    table = aggregate(runs, output)
    print(f"\n{table}")
    if with_trackers:
        told = {"table": table, "report": f"ser-cl report {output}"}
        at = {"output_folder": str(output)}
        log_results(recipe.values | at, output, {}, told)
    if measured is not None:
        found = find_records(output, FILE)
        add_measured(
            measured,
            {p.relative_to(output.parent).as_posix(): record for p, record in found},
        )
    print(f"{FILE}, crossval.csv, crossval.md and figures: {output}")
    return 0
