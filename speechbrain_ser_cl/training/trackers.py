"""Experiment trackers in addition to the training log: ``loggers: [tensorboard]``.

Set ``loggers`` in the YAML of any recipe, or ``--loggers "[tensorboard, wandb]"``. All
folds and seeds of a cross-validation are runs in one place: TensorBoard in
``tensorboard/``, Weights & Biases in ``wandb/`` (offline unless ``WANDB_MODE`` is set;
``wandb sync`` uploads it), MLflow in ``mlruns/`` (or at ``MLFLOW_TRACKING_URI``) of the
output folder. At the end each run gets the measures of its test, and the path of its
report.
"""

import hashlib
import os
import re
from collections.abc import Mapping, Sequence
from importlib.util import find_spec
from pathlib import Path
from typing import Any, NamedTuple

from speechbrain.utils.distributed import if_main_process
from speechbrain.utils.train_logger import (
    FileTrainLogger,
    TensorboardLogger,
    TrainLogger,
    WandBLogger,
)

from speechbrain_ser_cl.utils.errors import SERError, did_you_mean


class Place(NamedTuple):
    """The place of a training within a cross-validation.

    Arguments
    ---------
    root : pathlib.Path
        Output folder of the cross-validation.
    group : str
        Name of the cross-validation.
    run : str
        Name of the training, such as ``fold-2/seed-0``.

    Example
    -------
    >>> place(Path("results/mine/fold-2/seed-0"))[1:]
    ('mine', 'fold-2/seed-0')
    """

    root: Path
    group: str
    run: str


def place(folder: str | Path, output: str | Path | None = None) -> Place:
    """Returns the place of a training from its folder.

    Arguments
    ---------
    folder : str or pathlib.Path
        Folder of the training, or of one of its stages.
    output : str or pathlib.Path, optional
        Output folder of the run that the stage belongs to. None: ``folder``.

    Returns
    -------
    Place
        Root, group and name.

    Example
    -------
    >>> place("results/mine/1986")
    Place(root=PosixPath('results/mine/1986'), group='1986', run='1986')
    >>> place("results/mine/1986/encoder", "results/mine/1986").run
    'encoder'
    """
    folder, output = Path(folder), Path(folder if output is None else output)
    cut = next(
        (k for k, p in enumerate(output.parts) if re.fullmatch(r"(fold|seed)-\d+", p)),
        None,
    )
    root = Path(*output.parts[:cut]) if cut else output
    below = folder.relative_to(root) if folder.is_relative_to(root) else folder
    run = below.as_posix() if below != folder and below.parts else folder.name
    return Place(root, root.name, run)


class Trackers(TrainLogger):
    """Several loggers as one.

    Arguments
    ---------
    loggers : sequence of TrainLogger
        Each gets the statistics of each epoch. TensorBoard gets numbers only, with the
        epoch as step, so that a resumed run continues its curves.
    """

    def __init__(self, loggers: Sequence[TrainLogger]) -> None:
        self.loggers = list(loggers)

    def log_stats(
        self,
        stats_meta: Mapping[str, Any],
        train_stats: Mapping[str, Any] | None = None,
        valid_stats: Mapping[str, Any] | None = None,
        test_stats: Mapping[str, Any] | None = None,
        verbose: bool = False,
    ) -> None:
        """Logs an epoch; see SpeechBrain's ``TrainLogger``."""
        stats = {"train": train_stats, "valid": valid_stats, "test": test_stats}
        for logger in self.loggers:
            meta = dict(stats_meta)
            if isinstance(logger, TensorboardLogger):
                if not if_main_process():
                    continue
                meta = {k: v for k, v in meta.items() if isinstance(v, int | float)}
                before = int(stats_meta["epoch"]) - 1
                logger.global_step = {
                    name: dict.fromkeys(some or (), before)
                    for name, some in stats.items()
                } | {"meta": before}
            logger.log_stats(meta, train_stats, valid_stats, test_stats, verbose)
            if isinstance(logger, TensorboardLogger):
                logger.writer.flush()


class _TensorBoard(TensorboardLogger):
    def log_end(self, numbers: Mapping[str, float], texts: Mapping[str, str]) -> None:
        """Logs the test of a finished run."""
        for name, value in numbers.items():
            self.writer.add_scalar(name, value)
        for name, text in texts.items():
            self.writer.add_text(name, text)
        self.writer.close()


class _WandB(WandBLogger):
    def log_end(self, numbers: Mapping[str, float], texts: Mapping[str, str]) -> None:
        """Logs the test of a finished run."""
        self.run.summary.update({**numbers, **texts})
        self.run.finish()
        _OPEN.pop(self.run.id, None)


# Open runs of Weights & Biases by id. A run stays open between the stages of its
# training: offline, each start would make another folder.
_OPEN: dict[str, Any] = {}


class MLflowLogger(TrainLogger):
    """Logs epochs to MLflow, for which SpeechBrain has no logger.

    Arguments
    ---------
    at : Place
        The cross-validation is the experiment, and the training is one of its runs. An
        existing run with this name is continued.
    parameters : mapping
        Parameters to show with the run.
    """

    def __init__(self, at: Place, parameters: Mapping[str, Any]) -> None:
        from mlflow.tracking import MlflowClient

        self._client: Any = None
        if not if_main_process():
            return
        where = (at.root / "mlruns").absolute().as_uri()
        uri = os.environ.get("MLFLOW_TRACKING_URI", where)
        # Newer versions refuse folders unless this is set.
        os.environ.setdefault("MLFLOW_ALLOW_FILE_STORE", "true")
        self._client = client = MlflowClient(tracking_uri=uri)
        experiment = client.get_experiment_by_name(at.group)
        number = (
            experiment.experiment_id
            if experiment is not None
            else client.create_experiment(at.group)
        )
        name = at.run.replace("'", "")
        same = client.search_runs([number], f"attributes.run_name = '{name}'")
        if same:
            self._run = same[0].info.run_id
            return
        self._run = client.create_run(number, run_name=name).info.run_id
        for key, value in parameters.items():
            client.log_param(self._run, key, value)

    def log_stats(
        self,
        stats_meta: Mapping[str, Any],
        train_stats: Mapping[str, Any] | None = None,
        valid_stats: Mapping[str, Any] | None = None,
        test_stats: Mapping[str, Any] | None = None,
        verbose: bool = False,
    ) -> None:
        """Logs an epoch; see SpeechBrain's ``TrainLogger``."""
        if self._client is None:
            return
        stats = {"train": train_stats, "valid": valid_stats, "test": test_stats}
        found = {
            f"{name}/{part}": value
            for part, some in stats.items()
            for name, value in (some or {}).items()
        } | dict(stats_meta)
        for name, value in found.items():
            if isinstance(value, int | float):
                self._client.log_metric(
                    self._run, name, float(value), step=int(stats_meta["epoch"])
                )

    def log_end(self, numbers: Mapping[str, float], texts: Mapping[str, str]) -> None:
        """Logs the test of a finished run.

        Arguments
        ---------
        numbers : mapping of str to float
            Its measures.
        texts : mapping of str to str
            Texts to store with the run, each as a file.
        """
        for name, value in numbers.items():
            self._client.log_metric(self._run, name, value)
        for name, text in texts.items():
            self._client.log_text(self._run, text, f"{name}.txt")
        self._client.set_terminated(self._run)


def make_logger(hparams: Mapping[str, Any], folder: str | Path) -> TrainLogger:
    """Makes the logger of a training: ``train_log.txt``, and the trackers of the YAML.

    Arguments
    ---------
    hparams : mapping
        Values of the YAML; ``loggers``, if present, lists trackers.
    folder : str or pathlib.Path
        Folder of the training.

    Returns
    -------
    TrainLogger
        Logger for the Brain.

    Raises
    ------
    SERError
        For an unknown tracker.
    ImportError
        If a tracker is not installed; the message names the extra.
    """
    text = FileTrainLogger(Path(folder) / "train_log.txt")
    trackers = _trackers(hparams, folder)
    return Trackers([text, *trackers]) if trackers else text


def check_trackers(values: Mapping[str, Any]) -> list[str]:
    """Refuses trackers that are unknown or not installed.

    Arguments
    ---------
    values : mapping
        The YAML's values.

    Returns
    -------
    list of str
        The names in ``loggers``.

    Raises
    ------
    SERError
        For an unknown tracker.
    ImportError
        If a tracker is not installed; the message names the extra.

    Example
    -------
    >>> check_trackers({"loggers": ["tensorbord"]})
    Traceback (most recent call last):
    speechbrain_ser_cl.utils.errors.SERError: loggers: found 'tensorbord', did you ...
    """
    found = values.get("loggers") or []
    names = [found] if isinstance(found, str) else list(found)
    for name in names:
        if name not in _MAKERS:
            raise SERError(
                f"loggers: found {name!r}, {did_you_mean(str(name), _MAKERS)}expected "
                f"some of {', '.join(_MAKERS)}"
            )
        if find_spec(name) is None:
            raise ImportError(
                f"loggers: {name} needs: pip install 'speechbrain_ser_cl[{name}]'"
            )
    return names


def log_results(
    values: Mapping[str, Any],
    folder: str | Path,
    numbers: Mapping[str, float],
    texts: Mapping[str, str],
) -> None:
    """Logs the results of a finished run to the trackers of the YAML.

    Arguments
    ---------
    values : mapping
        The YAML's values; ``loggers`` lists trackers.
    folder : str or pathlib.Path
        Output folder of the run.
    numbers : mapping of str to float
        Measures of the test.
    texts : mapping of str to str
        Texts to store with the run.
    """
    if if_main_process():
        for tracker in _trackers(values, folder):
            tracker.log_end(numbers, texts)


def measures_of(results: Sequence[Mapping[str, Any]]) -> dict[str, float]:
    """Returns the measures of tests under names for trackers.

    Arguments
    ---------
    results : sequence of mapping
        Contents of each ``results.json`` of a run.

    Returns
    -------
    dict of str to float
        ``test/uar`` and others; with several results, setting and corpus are named.

    Example
    -------
    >>> one = {"setting": "probe", "test": {"uar": {"value": 0.5}, "chance": 0.25}}
    >>> measures_of([one])
    {'test/uar': 0.5}
    >>> measures_of([one, one | {"corpus": "emodb"}])
    {'test/probe/uar': 0.5, 'test/probe emodb/uar': 0.5}
    """
    numbers: dict[str, float] = {}
    for one in results:
        names = [one.get("setting"), one.get("target") or one.get("corpus")]
        about = "" if len(results) == 1 else " ".join(filter(None, names)) + "/"
        numbers |= {
            f"test/{about}{key}": float(measure["value"])
            for key, measure in one.get("test", {}).items()
            if isinstance(measure, Mapping) and "value" in measure
        }
    return numbers


def _trackers(values: Mapping[str, Any], folder: str | Path) -> list[Any]:
    names = check_trackers(values)
    at = place(folder, values.get("output_folder"))
    plain = {
        key: value
        for key, value in values.items()
        if isinstance(value, str | int | float) and not key.startswith("__")
    }
    return [_MAKERS[name](at, plain) for name in names]


def _tensorboard(at: Place, parameters: Mapping[str, Any]) -> TrainLogger:
    return _TensorBoard(str(at.root / "tensorboard" / at.run))


def _wandb(at: Place, parameters: Mapping[str, Any]) -> TrainLogger:
    import wandb

    name = f"{at.root.absolute()}/{at.run}"
    own = hashlib.sha256(name.encode()).hexdigest()[:16]
    if own in _OPEN:
        return _WandB(lambda: _OPEN[own])
    at.root.mkdir(parents=True, exist_ok=True)
    tracker = _WandB(
        wandb.init,
        project=os.environ.get("WANDB_PROJECT", "speechbrain_ser_cl"),
        group=at.group,
        name=at.run,
        id=own,
        resume="allow",
        reinit="create_new",
        dir=str(at.root),
        mode=os.environ.get("WANDB_MODE", "offline"),
        config=dict(parameters),
    )
    if tracker.run is not None:  # other processes have none
        _OPEN[own] = tracker.run
    return tracker


_MAKERS = {"tensorboard": _tensorboard, "wandb": _wandb, "mlflow": MLflowLogger}
