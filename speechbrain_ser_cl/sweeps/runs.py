"""Plan the runs of a cross-validation and find those that are finished."""

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
        What runs.
    folder : pathlib.Path
        Where its results go.
    seed : int
        Of the training.
    split : Split or None
        The fold; None where the recipe splits by its seed.
    split_file : pathlib.Path or None
        Where the fold is saved.
    row : str
        Of a table with several recipes, for people.

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
        """For people."""
        row = f"{self.row}: " if self.row else ""
        fold = f"fold {self.split.fold}, " if self.split else ""
        return f"{row}{fold}seed {self.seed}"

    def arguments(self) -> list[str]:
        """The script and its arguments."""
        given = [str(self.recipe.script), str(self.recipe.hparams_file)]
        if self.split:
            given += ["--split_file", str(self.split_file)]
            given += ["--fold", str(self.split.fold)]
        given += ["--seed", str(self.seed), "--output_folder", str(self.folder)]
        for key, text in self.overrides().items():
            given += [f"--{key}", text] if text else [f"--{key}"]
        return given

    def overrides(self) -> dict[str, str]:
        """The user's overrides, ``{fold}`` and ``{seed}`` replaced."""
        fold = str(self.split.fold) if self.split else ""
        return {
            key: text.replace("{fold}", fold).replace("{seed}", str(self.seed))
            for key, text in self.recipe.overridden.items()
            if key not in ("seed", "output_folder")
            # That seeds are repeated is this command's business: the script splits by
            # the YAML's own protocol.
            and (key, text) != ("protocol", SEEDS)
        }

    def settings(self) -> dict[str, Any]:
        """The settings that a finished run must have in common with this one."""
        overrides = self.overrides()
        return {
            "script": self.recipe.script.name,
            "yaml": _lasting(self.recipe.resolve(overrides)),
            "overrides": _lasting(overrides),
            "seed": self.seed,
            "split": self.split.fingerprint if self.split else None,
        }

    def earlier(self) -> dict[str, Any] | None:
        """The note of an earlier start of this run, if there was one."""
        path = self.folder / CROSSVAL_RUN.name
        if not path.exists():
            return None
        return {**read(path, CROSSVAL_RUN)}

    def note(self, settings: Mapping[str, Any], results: Sequence[str] = ()) -> None:
        """Note what runs here, and at the end which results it has."""
        record = {"settings": settings, "results": list(results)}
        write(self.folder / CROSSVAL_RUN.name, CROSSVAL_RUN, record)

    def results(self) -> list[Path]:
        """The ``results.json`` of a finished run, and of its simple baseline; none if
        it is not finished.
        """
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
    """Plan all runs of a cross-validation; make their splits, save nothing.

    Arguments
    ---------
    recipe : Recipe
        What is cross-validated.
    output : pathlib.Path
        Where everything goes.
    seeds : sequence of int, optional
        Of the trainings; by default the YAML's one.
    folds : sequence of int, optional
        Only these.
    splits : pathlib.Path or sequence of Split, optional
        A folder of ``fold-<k>.json``, or all folds, instead of splits made here.
    row : str
        Of a table, for the runs' names.

    Returns
    -------
    list of PlannedRun
        Fold by fold.

    Raises
    ------
    ValueError
        For a recipe that cannot be cross-validated so, or if there are other splits
        in the folder.
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
    """Save the folds of runs where ``train.py`` will read them.

    Arguments
    ---------
    runs : iterable of PlannedRun
        As ``plan`` makes them.
    """
    for run in runs:
        if run.split and run.split_file and not run.split_file.exists():
            write_split(run.split, run.split_file)


def make_splits(
    recipe: Recipe, folder: Path | None = None, folds: Sequence[int] | None = None
) -> list[Split]:
    """Make all folds of a recipe.

    Arguments
    ---------
    recipe : Recipe
        One with folds; its YAML's ``seed`` is that of the folds.
    folder : pathlib.Path, optional
        Of ``fold-<k>.json``, instead of the YAML's protocol.
    folds : sequence of int, optional
        Those that will run, each of which has to work; by default all.

    Returns
    -------
    list of Split
        All of them, by their number.

    Raises
    ------
    ValueError
        If files are missing, a fold cannot be trained on, or as the corpora's readers
        and ``make_folds`` do.
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
    """Find the runs that are not finished.

    Arguments
    ---------
    runs : sequence of PlannedRun
        All runs.
    resume : bool
        Whether there may be earlier ones.

    Returns
    -------
    list of PlannedRun
        In the same order.

    Raises
    ------
    ValueError
        If there are earlier runs and ``resume`` is False, or if they are not the same.
    """
    todo = []
    for run in runs:
        earlier = run.earlier()
        found = earlier or run.results()
        if found and not resume:
            raise ValueError(
                f"{run.folder} holds a run already. --resume goes on: it does what is "
                "not finished. Or choose another --output_folder"
            )
        if not earlier:
            todo.append(run)
            continue
        # Compare both as JSON, which turns tuples into lists.
        now = json.loads(json.dumps(finite(run.settings())))
        if earlier["settings"] != now:
            differ = "; ".join(_differences(earlier["settings"], now))
            # Runs are in the output folder or in its folders of folds.
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
    """Values without those that a resumed run may change."""
    return {key: value for key, value in values.items() if key not in OF_A_MACHINE}


def _differences(
    there: Mapping[str, Any], now: Mapping[str, Any], prefix: str = ""
) -> list[str]:
    """Name the values that differ."""
    differences = []
    for key in sorted(there.keys() | now.keys(), key=str):
        one, other = there.get(key), now.get(key)
        if isinstance(one, Mapping) and isinstance(other, Mapping):
            differences += _differences(one, other, f"{prefix}{key}: ")
        elif one != other:
            differences.append(f"{prefix}{key}: {one} there, {other} now")
    return differences


def check_split(run: PlannedRun, results: Iterable[Path]) -> None:
    """Refuse results of another split than the run's.

    Arguments
    ---------
    run : PlannedRun
        The run.
    results : iterable of pathlib.Path
        Its ``results.json``.

    Raises
    ------
    ValueError
        If a ``data.fingerprint`` there is another one, or is missing.
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
    """Check the results of a run that ended well, and note them.

    Arguments
    ---------
    run : PlannedRun
        The run.

    Returns
    -------
    str or None
        Why it does not count; None if it is finished.
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
