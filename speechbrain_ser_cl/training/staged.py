"""Recipes whose settings consist of stages that the YAML defines.

``setting`` is a key of ``settings``, which lists its stages. An entry of ``stages``
defines what a stage trains and how::

    combined:
        title: "cross-entropy + {lambda_contrast:g} {contrast} (multi-{augmentation})"
        weights: {emotion: 1.0, contrast: 0.5, self_supervised: 0.1}  # or some of these
        views: 2
        augmented: True
        monitor: uar  # or wa, macro_f1, loss, recall_at_1, svm_uar
        batch_size: 32
        epochs: 50
        lr: 0.001
        frozen_epochs: 0

``contrast``, ``self_supervised`` and ``augmentation`` are keys of ``contrast_losses``,
``self_supervised_losses`` and ``augmentations``, whose entries have a ``title``, see
:func:`~speechbrain_ser_cl.training.title_of`, and ``make``; those of augmentations also
``of``: features or waveforms.
"""

from collections.abc import Mapping, Sequence
from contextlib import nullcontext
from pathlib import Path
from typing import Any

from filelock import FileLock
from speechbrain.utils.distributed import if_main_process
from torch.utils.data import DataLoader

from speechbrain_ser_cl.training.brain import MONITORS, SERBrain
from speechbrain_ser_cl.training.launch import Launch, check_choices, check_entries
from speechbrain_ser_cl.training.stages import shared_folder, title_of

CHOICES = {
    "contrast": "contrast_losses",
    "self_supervised": "self_supervised_losses",
    "augmentation": "augmentations",
}
"""Key of the choice to the key of the options."""
_OF_EMBEDDINGS = {"recall_at_1": "Recall@1", "svm_uar": "the SVM's UAR"}

_STAGE = (
    *("title", "weights", "views", "augmented", "monitor", "batch_size", "epochs"),
    *("lr", "frozen_epochs"),
)
# Keys that affect no trained stage, or that the stage's own entry repeats.
_OF_NO_STAGE = {"setting", "settings", "stages", "demo", "corpora", "protocol", "fold"}
_OF_NO_STAGE |= {"split_file", "output_folder", "data_folder", "stage_folder"}
_OF_NO_STAGE |= {"allow_missing", "test_batch_size", "loader_options", "tsne"}
_OF_NO_STAGE |= {"epochs", "contrast_epochs", "fine_tune_epochs", "frozen_epochs", "lr"}
_OF_NO_STAGE |= {"low_lr", "batch_size", "contrast_batch_size", "contrast_monitor"}
_OF_NO_STAGE |= {"lambda_contrast", "beta"}
_OF_A_LOSS = {
    "contrast": {"contrast", "contrast_losses", "margin", "mining", "temperature"},
    "self_supervised": {
        *("self_supervised", "self_supervised_losses", "self_temperature"),
        *("queue_size", "projection_size"),
    },
}


def check_stages(values: Mapping[str, Any]) -> None:
    """Refuses invalid stages before anything is loaded.

    Arguments
    ---------
    values : mapping
        Values of the YAML.

    Raises
    ------
    ValueError
        The message names the keys and what to do.

    Example
    -------
    >>> check_stages({"setting": "ce", "settings": {"svm": ["scl"]}})
    Traceback (most recent call last):
    ValueError: setting is 'ce', expected one of svm.
    """
    check_choices(values, setting=values["settings"])
    check_choices(values, **{key: values[group] for key, group in CHOICES.items()})
    check_entries(values, **dict.fromkeys(CHOICES.values(), ("title", "make")))
    check_entries(values, augmentations=("of",), stages=_STAGE)
    augmentation = values["augmentations"][values["augmentation"]]
    check_choices(augmentation, of=("features", "waveforms"))
    names = values["settings"][values["setting"]]
    unknown = [name for name in names if name not in values["stages"]]
    if unknown:
        raise ValueError(
            f"settings: {values['setting']} has the stage {', '.join(unknown)}, which "
            f"stages does not have; it has {', '.join(values['stages'])}."
        )
    setting_title(values)
    stages = {name: values["stages"][name] for name in names}
    masked = augmentation["of"] == "features" and any(
        stage["augmented"] for stage in stages.values()
    )
    reads_waveforms = values["freeze"] in ("none", "frontend")
    if masked and values["ssl_source"] is not None and reads_waveforms:
        raise ValueError(
            f"augmentation is {values['augmentation']}, which is for spectrograms and "
            f"for frames of frozen layers, and freeze is {values['freeze']}, so that "
            "ssl_source reads waveforms. Set augmentation: waveform, or freeze: all."
        )
    for name, stage in stages.items():
        monitor, weights = stage["monitor"], stage["weights"]
        wrong = None
        if "self_supervised" in weights and stage["views"] != 2:
            wrong = f"views is {stage['views']}, but a self-supervised loss compares 2."
        elif monitor not in MONITORS:
            wrong = f"monitor is {monitor!r}, expected one of {', '.join(MONITORS)}."
        elif monitor in _OF_EMBEDDINGS and "contrast" not in weights:
            wrong = (
                f"monitor is {monitor}, which needs a contrastive loss that knows the "
                f"labels; weights has {', '.join(weights)}. Set monitor: loss, or uar "
                "where a classifier is trained."
            )
        elif monitor not in ("loss", *_OF_EMBEDDINGS) and "emotion" not in weights:
            wrong = (
                f"monitor is {monitor}, but no classifier is trained. Set monitor: "
                f"loss, or {' or '.join(_OF_EMBEDDINGS)}."
            )
        if wrong is not None:
            raise ValueError(f"stages: {name}: {wrong}")


def setting_title(values: Mapping[str, Any]) -> str:
    """Returns the name of the setting for tables: its stages in order.

    Arguments
    ---------
    values : mapping
        Values of the YAML. In titles, ``{contrast}``, ``{self_supervised}`` and
        ``{augmentation}`` stand for the titles of the choices.

    Returns
    -------
    str
        Ends with ``SVM`` if the last stage trains no classifier.

    Example
    -------
    >>> stage = {"title": "{contrast}", "weights": {"contrast": 1}, "monitor": "loss"}
    >>> values = dict.fromkeys(CHOICES, "it") | {
    ...     name: {"it": {"title": "SupCon"}} for name in CHOICES.values()
    ... } | {"setting": "svm", "settings": {"svm": ["scl"]}, "stages": {"scl": stage}}
    >>> setting_title(values)
    'SupCon → SVM'
    """
    told = {**values, "mining": str(values.get("mining")).replace("_", ", ")}
    titles = {k: title_of(values[g][values[k]], told) for k, g in CHOICES.items()}
    stages = [values["stages"][name] for name in values["settings"][values["setting"]]]
    told_stages = [
        title_of(stage, {**values, **titles})
        + (f", epoch by {_OF_EMBEDDINGS[by]}" if by in _OF_EMBEDDINGS else "")
        for stage, by in ((stage, stage["monitor"]) for stage in stages)
    ]
    return " → ".join(told_stages + ["SVM"] * ("emotion" not in stages[-1]["weights"]))


def stage_folder(launch: Launch, names: Sequence[str], fingerprint: str) -> Path:
    """Returns the folder of a trained stage, named by all that affects the stage.

    Arguments
    ---------
    launch : Launch
        What was asked for.
    names : sequence of str
        Names of the stages up to this one.
    fingerprint : str
        Fingerprint of the split.

    Returns
    -------
    pathlib.Path
        Folder below ``stage_folder``.

    Example
    -------
    ``stage_folder(launch, ["scl", "ft"], experiment.split.fingerprint)``
    """
    values, leave_out = launch.values, set(_OF_NO_STAGE)
    stages = [values["stages"][name] for name in names]
    for loss, keys in _OF_A_LOSS.items():
        if not any(loss in stage["weights"] for stage in stages):
            leave_out |= keys
    if not any(stage["monitor"] == "svm_uar" for stage in stages):
        leave_out |= {"svm_C"}
    if not any(stage["augmented"] for stage in stages):
        leave_out |= {"augmentation", "augmentations"}
    used = {key: value for key, value in values.items() if key not in leave_out}
    how = (stages, used, fingerprint, launch.run_opts.precision)
    return shared_folder(values["stage_folder"], "+".join(names), *how)


def fit_once(
    brain: SERBrain, folder: Path, train: DataLoader[Any], valid: DataLoader[Any]
) -> None:
    """Trains a stage unless it is trained, and loads its best epoch.

    Concurrent runs may share the stage: one trains it, the others wait.

    Arguments
    ---------
    brain : SERBrain
        Brain with checkpoints in the folder.
    folder : pathlib.Path
        Folder of the stage.
    train, valid : DataLoader
        Arguments of ``brain.fit``.

    Example
    -------
    ``fit_once(brain, folder, train, valid)``
    """
    with FileLock(folder / "lock") if if_main_process() else nullcontext():
        brain.fit(brain.epoch_counter, train, valid)
        brain.on_evaluate_start(max_key="score")
