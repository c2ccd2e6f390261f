"""Searches for the best settings of a recipe: ``ser-cl search SPACE.yaml``.

The file defines the search::

    recipe: recipes/own_corpus/hparams/finetune.yaml
    fixed: {folder: /data/calls}     # overrides of the recipe's YAML
    space:                           # any of its keys
        lr: {low: 0.00001, high: 0.001, log: True}
        batch_size: {low: 8, high: 64, step: 8}
        temperature: [0.05, 0.1, 0.2]
    metric: uar                      # or wa, macro_f1
    trials: 30                       # in all; each further process may add one
    folds: [0, 1, 2]                 # null: all
    seed: 0                          # of the search
    output_folder: results/search

The score is that of the validation part. Splits of the search do not contain the fold's
test utterances, so runs cannot use them.
"""

import hashlib
import json
import warnings
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import numpy as np
from filelock import FileLock

from speechbrain_ser_cl.data.protocols import DRAWN, Split, resolve_protocol
from speechbrain_ser_cl.data.splits import fingerprint
from speechbrain_ser_cl.metrics.classification import METRICS, classification_metrics
from speechbrain_ser_cl.report.figures import plot_importance
from speechbrain_ser_cl.results.predictions import read_predictions
from speechbrain_ser_cl.sweeps.crossval import report_failures
from speechbrain_ser_cl.sweeps.parallel import execute
from speechbrain_ser_cl.sweeps.recipe import Recipe, as_words, find_script
from speechbrain_ser_cl.sweeps.runs import (
    PlannedRun,
    differences,
    left_to_do,
    make_splits,
    save_splits,
)
from speechbrain_ser_cl.utils.errors import did_you_mean
from speechbrain_ser_cl.utils.files import replacing, write_rows
from speechbrain_ser_cl.utils.settings import (
    SettingsError,
    parse_overrides,
    read_plain_yaml,
    read_yaml,
    resolve,
)

# A model trained on both parts would be validated on its training data.
_ALONE: dict[str, Any] = {"refit": False, "baseline": None}
_KEYS: dict[str, Any] = {
    "recipe": None,
    "fixed": {},
    "space": None,
    "metric": "uar",
    "trials": 20,
    "folds": None,
    "seed": 0,
    "output_folder": None,
}
_RANGE = {"low", "high", "log", "step"}
# A trial whose process is silent for this many seconds is given to another process.
_BEAT, _PATIENCE = 60, 300


@dataclass(frozen=True)
class Space:
    """Definition of a search.

    Arguments
    ---------
    recipe : Recipe
        Recipe with the fixed overrides.
    space : mapping
        Key to a range, or to a list of values.
    metric : str
        Metric of the validation part; higher is better.
    trials : int
        Total number of trials.
    folds : list of int or None
        Numbers of the folds. None: all.
    seed : int
        Seed of the search.
    output : pathlib.Path
        Output folder.
    """

    recipe: Recipe
    space: Mapping[str, Any]
    metric: str
    trials: int
    folds: list[int] | None
    seed: int
    output: Path


def read_space(path: str | Path, more: Mapping[str, str] | None = None) -> Space:
    """Reads and checks a file that defines a search.

    Arguments
    ---------
    path : str or pathlib.Path
        YAML file.
    more : mapping, optional
        Further fixed overrides, as text.

    Returns
    -------
    Space
        Definition of the search.

    Raises
    ------
    SettingsError
        For an unknown key, a key that the recipe lacks, or an invalid range.
    """
    path = Path(path)
    said = read_plain_yaml(path)
    if not isinstance(said, Mapping):
        raise SettingsError(f"{path}: expected keys: {', '.join(_KEYS)}")
    for key in said:
        if key not in _KEYS:
            raise SettingsError(
                f"{path}: unknown key {key!r}; {did_you_mean(key, _KEYS)}known are "
                f"{', '.join(_KEYS)}"
            )
    values = {**_KEYS, **said}
    missing = [key for key in ("recipe", "space", "output_folder") if not values[key]]
    if missing:
        raise SettingsError(f"{path}: no {' and no '.join(missing)}")
    hparams = Path(str(values["recipe"]))
    if not hparams.is_file() and (path.parent / hparams).is_file():
        hparams = path.parent / hparams
    known = read_yaml(hparams)
    for key, entry in values["space"].items():
        if key not in known or key in ("seed", "fold", "split_file", "output_folder"):
            raise SettingsError(
                f"{path}: space: {key} is no key of {hparams} that can be searched; "
                f"{did_you_mean(key, known)}".strip()
            )
        _check_entry(path, key, entry)
    metric = values["metric"]
    if metric not in METRICS:
        raise SettingsError.at(path, "metric", metric, f"one of {', '.join(METRICS)}")
    for key, least in (("trials", 1), ("seed", 0)):
        value = values[key]
        if not isinstance(value, int) or isinstance(value, bool) or value < least:
            raise SettingsError.at(path, key, value, f"a whole number from {least}")
    folds = values["folds"]
    if folds is not None and not (
        isinstance(folds, list) and folds and all(isinstance(k, int) for k in folds)
    ):
        raise SettingsError.at(path, "folds", folds, "a list of numbers, or null")
    fixed = {key: value for key, value in _ALONE.items() if key in known}
    fixed |= {**(values["fixed"] or {})}
    words = as_words(_words(fixed) | dict(more or {}))
    recipe = Recipe(hparams, find_script(hparams), words)
    protocol = resolve_protocol(recipe.values.get("protocol") or "seeds")
    if protocol.get("kind") in DRAWN:
        raise SettingsError(
            f"{path}: protocol {protocol['kind']} of {hparams} has no folds; expected "
            "one with a validation part, such as speaker_kfold"
        )
    return Space(
        recipe,
        values["space"],
        metric,
        values["trials"],
        folds,
        values["seed"],
        Path(values["output_folder"]),
    )


def _check_entry(path: Path, key: str, entry: Any) -> None:
    where = f"space.{key}"
    if isinstance(entry, list):
        if len(entry) < 2:
            raise SettingsError.at(path, where, entry, "two values or more")
        return
    wrong = not isinstance(entry, dict) or bool(set(entry) - _RANGE)
    low: Any = None if wrong else entry.get("low")
    high: Any = None if wrong else entry.get("high")
    if not (_is_number(low) and _is_number(high) and low < high):
        raise SettingsError.at(
            path, where, entry, "a list of values, or {low: …, high: …, log: True}"
        )
    if entry.get("log") and low <= 0:
        raise SettingsError.at(path, where, entry, "low above 0 where log is True")


def _is_number(value: Any) -> bool:
    return isinstance(value, int | float) and not isinstance(value, bool)


def _words(values: Mapping[str, Any]) -> dict[str, str]:
    """Returns values as words of a command line."""
    return {
        key: value if isinstance(value, str) else json.dumps(value)
        for key, value in values.items()
    }


def without_test(splits: Sequence[Split]) -> list[Split]:
    """Removes the test utterances from folds.

    Arguments
    ---------
    splits : sequence of Split
        Folds.

    Returns
    -------
    list of Split
        Folds with an empty test part; the validation part is tested instead.
    """
    return [
        replace(
            split,
            test=[],
            fingerprint=fingerprint({**split.parts(), "test": []}),
        )
        for split in splits
    ]


def search(space: Space) -> str:
    """Runs trials until the requested number is reached.

    Several processes can share a folder; the next process continues the trials of a
    killed one. A trial ends after a fold if the median of the others was better on it.

    Arguments
    ---------
    space : Space
        Definition of the search.

    Returns
    -------
    str
        Result, for the terminal.

    Raises
    ------
    ImportError
        If the extra ``search`` is not installed.
    ValueError
        If all trials fail.
    """
    try:
        import optuna
    except ImportError as error:
        raise ImportError(
            f"{error}; a search needs: pip install 'speechbrain_ser_cl[search]'"
        ) from error
    optuna.logging.set_verbosity(optuna.logging.WARNING)
    space.output.mkdir(parents=True, exist_ok=True)
    splits = without_test(make_splits(space.recipe, folds=space.folds))
    chosen = [s for s in splits if space.folds is None or s.fold in space.folds]
    if not chosen:
        raise SettingsError(f"folds: found {space.folds}, there are {len(splits)}")
    with FileLock(space.output / "search.lock"):  # the first of several creates it
        study = _open(space)
    over = (optuna.trial.TrialState.COMPLETE, optuna.trial.TrialState.PRUNED)
    stop = optuna.study.MaxTrialsCallback(space.trials, states=over)

    def objective(trial: Any) -> float:
        try:
            return _trial(trial, space, chosen)
        except KeyboardInterrupt:
            study.enqueue_trial(trial.params)  # for the next process
            raise

    if len(study.get_trials(states=over)) < space.trials:
        study.optimize(objective, callbacks=[stop])
    return _told(study, space)


def _open(space: Space) -> Any:
    """Creates or opens the study; each process draws other trials."""
    import optuna

    with warnings.catch_warnings():  # of experimental parts
        warnings.simplefilter("ignore")
        storage = optuna.storages.RDBStorage(
            f"sqlite:///{space.output.absolute() / 'search.db'}",
            heartbeat_interval=_BEAT,
            grace_period=_PATIENCE,
            heartbeat_stale_trial_callback=optuna.storages.RetryHeartbeatStaleTrialCallback(),
            engine_kwargs={"connect_args": {"timeout": 60}},
        )
    study = optuna.create_study(
        storage=storage,
        study_name="search",
        direction="maximize",
        load_if_exists=True,
        pruner=optuna.pruners.MedianPruner(n_startup_trials=5, n_warmup_steps=0),
    )
    _same_search(study, space)
    # Processes with the same draws would try the same values.
    starts = study.user_attrs.get("starts", 0)
    study.set_user_attr("starts", starts + 1)
    drawn = int(np.random.SeedSequence([space.seed, starts]).generate_state(1)[0])
    study.sampler = optuna.samplers.TPESampler(seed=drawn, constant_liar=True)
    return study


def _same_search(study: Any, space: Space) -> None:
    """Refuses a folder with another search."""
    now = {
        "recipe": space.recipe.hparams_file.name,
        "fixed": space.recipe.overridden,
        "space": dict(space.space),
        "metric": space.metric,
        "folds": space.folds,
    }
    there = study.user_attrs.get("search")
    if there is None:
        study.set_user_attr("search", now)
        return
    now = json.loads(json.dumps(now))  # as it was stored
    if there != now:
        raise SettingsError(
            f"{space.output} holds another search "
            f"({'; '.join(differences(there, now))}); choose another output_folder"
        )


def _suggest(trial: Any, space: Mapping[str, Any]) -> dict[str, Any]:
    values = {}
    for key, entry in space.items():
        if isinstance(entry, list):
            # Optuna accepts plain values only.
            number = trial.suggest_categorical(key, [json.dumps(v) for v in entry])
            values[key] = json.loads(number)
            continue
        whole = all(isinstance(entry[end], int) for end in ("low", "high"))
        options = {"log": bool(entry.get("log")), "step": entry.get("step")}
        if whole:
            options["step"] = options["step"] or 1
            values[key] = trial.suggest_int(key, entry["low"], entry["high"], **options)
        else:
            values[key] = trial.suggest_float(
                key, entry["low"], entry["high"], **options
            )
    return values


def _trial(trial: Any, space: Space, splits: Sequence[Split]) -> float:
    import optuna

    values = _suggest(trial, space.space)
    words = space.recipe.overridden | _words(values)
    mark = hashlib.sha256(json.dumps(values, sort_keys=True).encode()).hexdigest()[:12]
    trial.set_user_attr("values", values)
    trial.set_user_attr("folder", f"trials/{mark}")
    recipe = replace(space.recipe, overrides=as_words(words))
    folder = space.output / "trials" / mark
    scores: list[float] = []
    for split in splits:
        run = PlannedRun(
            recipe,
            folder / f"fold-{split.fold}",
            recipe.values["seed"],
            split,
            space.output / "splits" / f"fold-{split.fold}.json",
        )
        save_splits([run])
        folder.mkdir(parents=True, exist_ok=True)
        with FileLock(folder / "lock"):  # another process may try the same
            failed = {}
            if left_to_do([run], resume=True):
                failed = execute([run], folder, jobs=1)
        if failed:
            raise ValueError(
                f"trial {trial.number} with {values}: {report_failures(failed, [run])}"
            )
        scores.append(_score(run, space.metric))
        trial.report(float(np.mean(scores)), step=len(scores))
        if len(scores) < len(splits) and trial.should_prune():
            raise optuna.TrialPruned
    return float(np.mean(scores))


def _score(run: PlannedRun, metric: str) -> float:
    """Reads the score of the validation part, which the run tested."""
    results = run.results()
    if len(results) != 1:
        raise SettingsError(
            f"{run.folder}: {len(results)} results of a run, expected one: settings of "
            "a recipe that trains several models cannot be searched"
        )
    found = read_predictions(results[0].with_name("predictions.csv"))
    n_classes = len(found.class_names)
    scores = classification_metrics(found.labels, found.predictions, n_classes)
    return scores[metric]


def _told(study: Any, space: Space) -> str:
    """Writes trials, the best YAML and importances."""
    import optuna

    finished = study.get_trials(states=(optuna.trial.TrialState.COMPLETE,))
    best = study.best_trial
    rows = []
    for trial in study.trials:
        values = trial.user_attrs.get("values", {})
        last = max(trial.intermediate_values, default=0)
        score = trial.intermediate_values.get(last)
        cells = [trial.number, trial.state.name.lower(), last, score]
        rows.append([*cells, *map(values.get, space.space)])
    header = ["trial", "state", "folds", space.metric, *space.space]
    write_rows(space.output / "trials.csv", header, rows)
    values = best.user_attrs["values"]
    words = {**space.recipe.overridden, **_words(values)}
    for key in _ALONE:
        words.pop(key, None)
    hparams = space.recipe.hparams_file
    text, _ = resolve(hparams, parse_overrides(words, read_yaml(hparams)))
    target = space.output / "best.yaml"
    with replacing(target) as part:
        head = f"# Best of {len(finished)} trials of {hparams.name}: validation "
        part.write_text(f"{head}{space.metric} {best.value:.4f}\n{text}", "utf-8")
    lines = [
        f"{len(study.trials)} trials, {len(finished)} of them on all folds",
        f"best validation {space.metric}: {100 * best.value:.1f} % with "
        + ", ".join(f"{key} = {value}" for key, value in values.items()),
    ]
    varied = [
        key for key in space.space if len({t.params.get(key) for t in finished}) > 1
    ]
    if len(finished) > 3 and varied:
        shares = optuna.importance.get_param_importances(study, params=varied)
        with replacing(space.output / "importance.json") as part:
            part.write_text(json.dumps(shares, indent=1) + "\n", "utf-8")
        told = ", ".join(f"{key} {100 * v:.0f} %" for key, v in shares.items())
        lines.append(f"importance: {told}")
        try:
            plot_importance(shares, space.output / "importance.png")
        except ImportError as error:
            lines.append(f"no figure: {error}")
    lines.append(f"{target}: test it once, with ser-cl crossval {target}")
    return "\n".join(lines)
