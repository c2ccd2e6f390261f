"""Plans the runs of a cross-validation and finds finished ones."""

import json
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from speechbrain_ser_cl.data.experiment import look_up_folders, read_corpora
from speechbrain_ser_cl.data.protocols import (
    DRAWN,
    SEEDS,
    Split,
    make_folds,
    read_split,
    resolve_protocol,
    select_parts,
    write_split,
)
from speechbrain_ser_cl.sweeps.recipe import Recipe
from speechbrain_ser_cl.utils.files import BASELINE, free_name
from speechbrain_ser_cl.utils.records import finite, read, write
from speechbrain_ser_cl.utils.schemas import CROSSVAL_RUN, RESULTS
from speechbrain_ser_cl.utils.settings import OF_A_MACHINE

# Keys that the YAML of a recipe with folds must have.
FOLD_KEYS = ("corpora", "emotion_map", "protocol", "fold", "split_file")
# Options that this command passes to train.py.
OWN_KEYS = {"fold": "--folds", "split_file": "--splits"}


@dataclass(frozen=True)
class PlannedRun:
    """One fold of a recipe with one seed.

    Arguments
    ---------
    recipe : Recipe
        Recipe to run.
    folder : pathlib.Path
        Folder of its results.
    seed : int
        Seed of the training.
    split : Split or None
        The fold; None if the recipe splits by its seed.
    split_file : pathlib.Path or None
        File of the fold.
    row : str
        Name of the row, in a table with several recipes.

    Example
    -------
    >>> recipe = Recipe(Path("my.yaml"), Path("train.py"), ())
    >>> PlannedRun(recipe, Path("results/seed-1"), 1, None, None).name
    'seed 1'
    """

    recipe: Recipe
    folder: Path
    seed: int
    split: Split | None
    split_file: Path | None
    row: str = ""

    @property
    def name(self) -> str:
        """Name for messages."""
        row = f"{self.row}: " if self.row else ""
        fold = f"fold {self.split.fold}, " if self.split else ""
        return f"{row}{fold}seed {self.seed}"

    def arguments(self) -> list[str]:
        """Script and arguments."""
        given = [str(self.recipe.script), str(self.recipe.hparams_file)]
        if self.split:
            given += ["--split_file", str(self.split_file)]
            given += ["--fold", str(self.split.fold)]
        given += ["--seed", str(self.seed), "--output_folder", str(self.folder)]
        for key, text in self.overrides().items():
            given += [f"--{key}", text] if text else [f"--{key}"]
        return given

    def overrides(self) -> dict[str, str]:
        """The user's overrides with ``{fold}`` and ``{seed}`` replaced."""
        fold = str(self.split.fold) if self.split else ""
        return {
            key: text.replace("{fold}", fold).replace("{seed}", str(self.seed))
            for key, text in self.recipe.overridden.items()
            if key not in ("seed", "output_folder")
            # This command repeats seeds; the script splits by the YAML's protocol.
            and (key, text) != ("protocol", SEEDS)
        }

    def settings(self) -> dict[str, Any]:
        """Settings that a finished run must share with this one."""
        overrides = self.overrides()
        return {
            "script": self.recipe.script.name,
            "yaml": _lasting(self.recipe.resolve(overrides)),
            "overrides": _lasting(overrides),
            "seed": self.seed,
            "split": self.split.fingerprint if self.split else None,
        }

    def earlier(self) -> dict[str, Any] | None:
        """The note of an earlier start of this run, if there is one."""
        path = self.folder / CROSSVAL_RUN.name
        if not path.exists():
            return None
        return {**read(path, CROSSVAL_RUN)}

    def note(self, settings: Mapping[str, Any], results: Sequence[str] = ()) -> None:
        """Writes a note of this run, at the end with its results."""
        record = {"settings": settings, "results": list(results)}
        write(self.folder / CROSSVAL_RUN.name, CROSSVAL_RUN, record)

    def results(self) -> list[Path]:
        """The ``results.json`` of a finished run and of its baseline; else empty."""
        whole = self.folder / "results.json"
        if whole.exists():
            simple = self.folder / BASELINE / whole.name
            return [whole, simple] if simple.exists() else [whole]
        earlier = self.earlier()
        noted = [self.folder / name for name in earlier["results"]] if earlier else []
        return noted if all(path.exists() for path in noted) else []


def plan(
    recipe: Recipe,
    output: Path,
    seeds: Sequence[int] | None,
    folds: Sequence[int] | None = None,
    splits: Path | Sequence[Split] | None = None,
    row: str = "",
) -> list[PlannedRun]:
    """Plans all runs of a cross-validation with their splits; saves nothing.

    Arguments
    ---------
    recipe : Recipe
        Recipe to cross-validate.
    output : pathlib.Path
        Output folder.
    seeds : sequence of int, optional
        Seeds of the trainings. Default: the YAML's.
    folds : sequence of int, optional
        Only these folds.
    splits : pathlib.Path or sequence of Split, optional
        Folder of ``fold-<k>.json``, or all folds, instead of splits made here.
    row : str
        Name of the row, for the runs' names.

    Returns
    -------
    list of PlannedRun
        Sorted by fold.

    Raises
    ------
    ValueError
        If the recipe cannot be cross-validated like this, or the folder contains other
        splits.
    """
    values = recipe.values
    for key in ("seed", "output_folder"):
        if key not in values:
            raise ValueError(f"{recipe.hparams_file}: no key {key}, which is needed")
    for key, option in OWN_KEYS.items():
        if key in recipe.overridden:
            raise ValueError(
                f"--{key} is set by this command; choose with {option} instead"
            )
    seeds = [values["seed"]] if seeds is None else list(seeds)
    if len(set(seeds)) < len(seeds):
        raise ValueError(f"--seeds: each once, found {' '.join(map(str, seeds))}")
    protocol = resolve_protocol(values.get("protocol") or SEEDS)
    if protocol.get("kind") in DRAWN and splits is None:
        if folds is not None:
            raise ValueError(f"--folds: protocol {protocol['kind']} has none")
        return [
            PlannedRun(recipe, output / f"seed-{seed}", seed, None, None, row)
            for seed in seeds
        ]
    missing = [key for key in FOLD_KEYS if key not in values]
    if missing:
        raise ValueError(
            f"{recipe.hparams_file}: no key {', '.join(missing)}, which a recipe with "
            f"folds needs; without them only --protocol {SEEDS} is possible"
        )
    if splits is None or isinstance(splits, Path):
        splits = make_splits(recipe, splits, folds)
    chosen = range(len(splits)) if folds is None else sorted(set(folds))
    wrong = [k for k in chosen if not 0 <= k < len(splits)]
    if wrong:
        raise ValueError(
            f"--folds {' '.join(map(str, wrong))}: the protocol makes {len(splits)} "
            f"folds: 0 to {len(splits) - 1}"
        )
    runs = []
    for k in chosen:
        path = output / "splits" / f"fold-{k}.json"
        if path.exists() and read_split(path).fingerprint != splits[k].fingerprint:
            raise ValueError(
                f"{path} is another split than the one made now: the protocol, the "
                "seed, the classes or the corpora are others. Choose another, such "
                f"as --output_folder {free_name(output)}"
            )
        folder = output / f"fold-{k}"
        runs += [
            PlannedRun(recipe, folder / f"seed-{seed}", seed, splits[k], path, row)
            for seed in seeds
        ]
    return runs


def save_splits(runs: Iterable[PlannedRun]) -> None:
    """Saves the folds of runs for ``train.py``.

    Arguments
    ---------
    runs : iterable of PlannedRun
        From ``plan``.
    """
    for run in runs:
        if run.split and run.split_file and not run.split_file.exists():
            write_split(run.split, run.split_file)


def make_splits(
    recipe: Recipe, folder: Path | None = None, folds: Sequence[int] | None = None
) -> list[Split]:
    """Makes all folds of a recipe.

    Arguments
    ---------
    recipe : Recipe
        Recipe with folds; its YAML's ``seed`` is the seed of the folds.
    folder : pathlib.Path, optional
        Folder of ``fold-<k>.json``, instead of the YAML's protocol.
    folds : sequence of int, optional
        Folds that will run, which must be valid. Default: all.

    Returns
    -------
    list of Split
        All folds in order.

    Raises
    ------
    ValueError
        If files are missing, a fold cannot be trained on, and from the corpora's
        readers and ``make_folds``.
    """
    if folder is not None:
        paths = sorted(folder.glob("fold-*.json"))
        splits = sorted(map(read_split, paths), key=lambda split: split.fold)
        if [split.fold for split in splits] != list(range(len(splits))) or not splits:
            raise ValueError(
                f"{folder}: expected fold-0.json, fold-1.json, … without a gap, found "
                f"{', '.join(path.name for path in paths) or 'none'}"
            )
        return splits
    values = recipe.values
    corpora = values["corpora"]
    if not isinstance(corpora, Mapping):
        raise ValueError(
            f"corpora is {json.dumps(corpora)}, expected the folder of each corpus, as "
            'in --corpora "{emodb: /data/EmoDB}"'
        )
    items = read_corpora(
        look_up_folders(corpora, recipe.hparams_file),
        values["emotion_map"],
        bool(values.get("allow_missing", False)),
        values.get("target"),
    )
    splits = make_folds(items, resolve_protocol(values["protocol"]), values["seed"])
    wrong = []
    for split in splits:
        try:
            if folds is None or split.fold in folds:
                select_parts(items, split)
        except ValueError as error:
            wrong.append(str(error))
    if wrong:
        raise ValueError(
            f"{len(wrong)} of {len(splits)} folds cannot work, nothing was started: "
            f"{'; '.join(wrong[:5])}{'; …' if wrong[5:] else ''}"
        )
    return splits


def left_to_do(runs: Sequence[PlannedRun], resume: bool) -> list[PlannedRun]:
    """Finds the unfinished runs.

    Arguments
    ---------
    runs : sequence of PlannedRun
        All runs.
    resume : bool
        Whether earlier runs are allowed.

    Returns
    -------
    list of PlannedRun
        In the given order.

    Raises
    ------
    ValueError
        If there are earlier runs and ``resume`` is False, or their settings differ.
    """
    todo = []
    for run in runs:
        earlier = run.earlier()
        found = earlier or run.results()
        if found and not resume:
            raise ValueError(
                f"{run.folder} already contains a run. --resume continues it. "
                "Or choose another --output_folder"
            )
        if not earlier:
            todo.append(run)
            continue
        # Both are compared as JSON, which converts tuples to lists.
        now = json.loads(json.dumps(finite(run.settings())))
        there = {  # an earlier version may have stored more keys
            part: _lasting(of) if isinstance(of, Mapping) else of
            for part, of in earlier["settings"].items()
        }
        if there != now:
            differ = "; ".join(differences(there, now))
            # Runs are in the output folder or in subfolders for folds.
            output = run.folder.parent.parent if run.split else run.folder.parent
            raise ValueError(
                f"{run.folder} holds a run with other settings ({differ}). Choose "
                f"another, such as --output_folder {free_name(output)}, or delete that "
                "one"
            )
        results = run.results()
        if results:
            check_split(run, results)
        else:
            todo.append(run)
    return todo


def _lasting(values: Mapping[str, Any]) -> dict[str, Any]:
    """Returns the values without those that a resumed run may change."""
    return {key: value for key, value in values.items() if key not in OF_A_MACHINE}


def differences(
    there: Mapping[str, Any], now: Mapping[str, Any], prefix: str = ""
) -> list[str]:
    """Describes the settings that differ.

    Arguments
    ---------
    there, now : mapping
        Earlier and present settings, possibly nested.
    prefix : str
        Text before each key.

    Returns
    -------
    list of str
        Key and both values of each.

    Example
    -------
    >>> differences({"yaml": {"lr": 1}}, {"yaml": {"lr": 2}})
    ['yaml: lr: 1 there, 2 now']
    """
    found = []
    for key in sorted(there.keys() | now.keys(), key=str):
        one, other = there.get(key), now.get(key)
        if isinstance(one, Mapping) and isinstance(other, Mapping):
            found += differences(one, other, f"{prefix}{key}: ")
        elif one != other:
            found.append(f"{prefix}{key}: {one} there, {other} now")
    return found


def check_split(run: PlannedRun, results: Iterable[Path]) -> None:
    """Refuses results with another split than the run's.

    Arguments
    ---------
    run : PlannedRun
        The run.
    results : iterable of pathlib.Path
        ``results.json`` files of the run.

    Raises
    ------
    ValueError
        If ``data.fingerprint`` in a file differs or is missing.
    """
    if run.split is None:
        return
    for path in results:
        found = read(path, RESULTS).get("data", {}).get("fingerprint")
        if found != run.split.fingerprint:
            raise ValueError(
                f"{path}: data.fingerprint is {found}, expected the split's "
                f"{run.split.fingerprint}: the script did not use --split_file"
            )


def check_finished(run: PlannedRun) -> str | None:
    """Checks the results of a successful run and writes a note.

    Arguments
    ---------
    run : PlannedRun
        The run.

    Returns
    -------
    str or None
        Why the run does not count; None if it is finished.
    """
    found = [run.folder / "results.json"]
    if not found[0].exists():
        found = sorted(run.folder.rglob("results.json"))
    if not found:
        return f"ended, but left no results.json in {run.folder}"
    try:
        check_split(run, found)
    except ValueError as error:
        return str(error)
    names = [path.relative_to(run.folder).as_posix() for path in found]
    run.note(run.settings(), names)
    return None
