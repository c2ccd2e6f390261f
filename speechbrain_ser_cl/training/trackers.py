"""Experiment trackers in addition to the training log: ``loggers: [tensorboard]``.

Set ``loggers`` in the YAML of any recipe, or ``--loggers "[tensorboard, wandb]"``. All
folds and seeds of a cross-validation are runs in one place: TensorBoard in
``tensorboard/``, Weights & Biases in ``wandb/`` (offline unless ``WANDB_MODE`` is set;
``wandb sync`` uploads it), MLflow in ``mlruns/`` (or at ``MLFLOW_TRACKING_URI``) of the
output folder.
"""

import hashlib
import os
import re
from collections.abc import Mapping, Sequence
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


def place(folder: str | Path) -> Place:
    """Returns the place of a training from its folder.

    Arguments
    ---------
    folder : str or pathlib.Path
        Folder of the training, or of one of its stages.

    Returns
    -------
    Place
        Root, group and name.

    Example
    -------
    >>> place("results/mine/1986")
    Place(root=PosixPath('results/mine/1986'), group='1986', run='1986')
    """
    parts = Path(folder).parts
    cut = next(
        (k for k, part in enumerate(parts) if re.fullmatch(r"(fold|seed)-\d+", part)),
        None,
    )
    if not cut:
        return Place(Path(folder), Path(folder).name, Path(folder).name)
    root = Path(*parts[:cut])
    return Place(root, root.name, "/".join(parts[cut:]))


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


class MLflowLogger(TrainLogger):
    """Logs epochs to MLflow, for which SpeechBrain has no logger.

    Arguments
    ---------
    at : Place
        The cross-validation is the experiment, and the training is one of its runs. An
        existing run with this name is continued.
    parameters : mapping
        Parameters to show with the run.

    Raises
    ------
    ImportError
        If the extra ``mlflow`` is not installed.
    """

    def __init__(self, at: Place, parameters: Mapping[str, Any]) -> None:
        try:
            from mlflow.tracking import MlflowClient
        except ImportError as error:
            raise _lacking("mlflow", error) from error
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
    names = hparams.get("loggers") or []
    names = [names] if isinstance(names, str) else list(names)
    for name in names:
        if name not in _MAKERS:
            raise SERError(
                f"loggers: found {name!r}, {did_you_mean(str(name), _MAKERS)}expected "
                f"some of {', '.join(_MAKERS)}"
            )
    if not names:
        return text
    at = place(folder)
    plain = {
        key: value
        for key, value in hparams.items()
        if isinstance(value, str | int | float) and not key.startswith("__")
    }
    return Trackers([text, *(_MAKERS[name](at, plain) for name in names)])


def _lacking(name: str, error: ImportError) -> ImportError:
    return ImportError(
        f"{error}; loggers: {name} needs: pip install 'speechbrain_ser_cl[{name}]'"
    )


def _tensorboard(at: Place, parameters: Mapping[str, Any]) -> TrainLogger:
    try:
        return TensorboardLogger(str(at.root / "tensorboard" / at.run))
    except ImportError as error:
        raise _lacking("tensorboard", error) from error


def _wandb(at: Place, parameters: Mapping[str, Any]) -> TrainLogger:
    try:
        import wandb
    except ImportError as error:
        raise _lacking("wandb", error) from error
    name = f"{at.root.absolute()}/{at.run}"
    at.root.mkdir(parents=True, exist_ok=True)
    return WandBLogger(
        wandb.init,
        project=os.environ.get("WANDB_PROJECT", "speechbrain_ser_cl"),
        group=at.group,
        name=at.run,
        id=hashlib.sha256(name.encode()).hexdigest()[:16],
        resume="allow",
        reinit="finish_previous",
        dir=str(at.root),
        mode=os.environ.get("WANDB_MODE", "offline"),
        config=dict(parameters),
    )


_MAKERS = {"tensorboard": _tensorboard, "wandb": _wandb, "mlflow": MLflowLogger}
