"""Stages of a recipe: one Brain each, with its own folder."""

import hashlib
import json
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from typing import Any, TypeVar

from speechbrain.utils.distributed import run_on_main
from speechbrain.utils.run_opts import RunOptions
from torch import nn

from speechbrain_ser_cl.data.samplers import EpochSampler
from speechbrain_ser_cl.training.brain import SERBrain
from speechbrain_ser_cl.training.checkpointer import AtomicCheckpointer
from speechbrain_ser_cl.training.epochs import RoundCounter
from speechbrain_ser_cl.training.history import History
from speechbrain_ser_cl.training.trackers import make_logger
from speechbrain_ser_cl.utils.disk import refuse_small_disk

AnyBrain = TypeVar("AnyBrain", bound=SERBrain)


def make_brain(
    brain_class: type[AnyBrain],
    hparams: Mapping[str, Any],
    run_opts: RunOptions,
    folder: str | Path,
    modules: Mapping[str, nn.Module],
    class_names: Sequence[str],
    *,
    epochs: int,
    learning_rates: Mapping[str, Any],
    lr_scheduler: Callable[..., Any],
    sampler: EpochSampler | None = None,
    phases: int = 1,
    patience: int | None = None,
    valid_metric: str | None = None,
    kept: Mapping[str, nn.Module] | None = None,
) -> AnyBrain:
    """Makes a Brain with a folder, checkpoints (``save``) and log (``train_log.txt``).

    Arguments
    ---------
    brain_class : type
        A recipe's subclass of ``SERBrain``.
    hparams : mapping
        Values of the YAML. Used keys: ``seed``, ``opt_class`` and, if present,
        ``valid_metric``.
    run_opts : RunOptions
        Options of the command line.
    folder : str or pathlib.Path
        Folder of this stage; created if needed.
    modules : mapping
        Name to module: the ``EmotionClassifier`` that is exported at the end, and
        modules of the losses.
    class_names : sequence of str
        Names of the classes 0, 1, …
    epochs : int
        Largest number of epochs; of rounds, if there are several phases.
    learning_rates : mapping
        See ``parameter_groups``: keys such as ``model.encoder.backbone``.
    lr_scheduler : callable
        Makes a scheduler for an optimiser.
    sampler : Sampler, optional
        Batch sampler of the training loader. None: set ``train_sampler`` before
        ``fit``.
    phases : int
        Number of phases per round.
    patience : int, optional
        Number of epochs (rounds) without a better score after which training ends.
        None: no early stopping.
    valid_metric : str, optional
        See ``SERBrain``. None: the YAML's, or else ``uar``.
    kept : mapping, optional
        Modules in checkpoints. None: all modules. A frozen encoder can be left out.

    Returns
    -------
    SERBrain
        Brain for ``brain.fit(brain.epoch_counter, train, valid)``.

    Example
    -------
    ::

        brain = make_brain(
            MyBrain, hparams, launch.run_opts, launch.folder / "encoder",
            {"model": model}, classes, epochs=hparams["epochs"],
            learning_rates=hparams["learning_rates"],
            lr_scheduler=hparams["schedule"], sampler=train.batch_sampler,
        )
    """
    folder = Path(folder)
    run_on_main(folder.mkdir, kwargs={"parents": True, "exist_ok": True})
    checkpointer = AtomicCheckpointer(
        folder / "save", dict(modules if kept is None else kept)
    )
    refuse_small_disk(folder / "save", checkpointer.size())
    return brain_class(
        modules=dict(modules),
        class_names=class_names,
        sampler=sampler,
        epoch_counter=RoundCounter(epochs, phases, patience),
        learning_rates=learning_rates,
        lr_scheduler=lr_scheduler,
        valid_metric=valid_metric or hparams.get("valid_metric", "uar"),
        train_logger=make_logger(hparams, folder),
        opt_class=hparams["opt_class"],
        hparams=hparams,
        run_opts=run_opts,
        checkpointer=checkpointer,
    )


def shared_folder(root: str | Path, name: str, *depends_on: object) -> Path:
    """Returns the folder of a stage that several runs may share.

    Arguments
    ---------
    root : str or pathlib.Path
        Folder of all such stages.
    name : str
        Name of the stage.
    *depends_on
        Everything that affects the result: values of the YAML, the split's fingerprint,
        the precision. Other values give another folder.

    Returns
    -------
    pathlib.Path
        ``root/name-<hash>``. Concurrent runs need a lock in it.

    Example
    -------
    >>> one, other = (shared_folder("stages", "ce", {"lr": lr}) for lr in (0.1, 0.2))
    >>> one == other, one.name
    (False, 'ce-1b20ace8951b')
    """
    text = json.dumps(_with_tags(depends_on), default=str)
    digest = hashlib.sha256(text.encode()).hexdigest()[:12]
    return Path(root) / f"{name}-{digest}"


def _with_tags(value: Any) -> Any:
    """Adds the tags of objects to values of a YAML: !name:torch.optim.Adam."""
    tag = getattr(getattr(value, "tag", None), "value", None)
    if isinstance(value, Mapping):
        value = {str(key): _with_tags(one) for key, one in value.items()}
    elif isinstance(value, list | tuple):
        value = [_with_tags(one) for one in value]
    return [tag, value] if tag else value


def cost_of(history: History) -> dict[str, float]:
    """Returns the cost of a stage, for ``stages`` in ``results.json``.

    Arguments
    ---------
    history : History
        History of its training.

    Returns
    -------
    dict
        ``epochs``, ``seconds``, ``seconds_per_epoch`` and, after an epoch was selected,
        ``best_epoch``.

    Example
    -------
    >>> history = History()
    >>> history.end_epoch(1)
    >>> cost_of(history)
    {'epochs': 1, 'seconds': 0.0, 'seconds_per_epoch': 0.0}
    """
    epochs = len(history.epochs)
    cost: dict[str, float] = {
        "epochs": epochs,
        "seconds": round(history.seconds, 1),
        "seconds_per_epoch": round(history.seconds / epochs, 2),
    }
    if history.tested is not None:
        cost["best_epoch"] = history.tested["epoch"]
    return cost


def title_of(part: Mapping[str, Any], values: Mapping[str, Any]) -> str:
    """Returns the name of a loss, an augmentation or a stage for tables.

    Its entry in the YAML has a ``title``, in which ``{…}`` stands for another value of
    the YAML::

        contrast_losses:
            supcon:
                title: SupCon τ = {temperature:g}
                make: !name:speechbrain_ser_cl.losses.SupConLoss
                    temperature: !ref <temperature>

    Arguments
    ---------
    part : mapping
        Entry of the YAML.
    values : mapping
        Values of the YAML.

    Returns
    -------
    str
        Title with values filled in.

    Raises
    ------
    ValueError
        The message names the missing value.

    Example
    -------
    >>> title_of({"title": "SupCon τ = {temperature:g}"}, {"temperature": 0.1})
    'SupCon τ = 0.1'
    """
    try:
        return str(part["title"]).format(**values)
    except (KeyError, ValueError) as error:
        raise ValueError(
            f"title: {part.get('title')!r}: found no value for {error}; in braces "
            "stand keys of the YAML"
        ) from error
