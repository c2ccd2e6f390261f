"""Writes ``results.json``: a run's settings and results."""

import logging
import os
import platform
import resource
import sys
from collections.abc import Mapping, Sequence
from importlib.metadata import PackageNotFoundError, version
from pathlib import Path
from typing import Any

import numpy as np
import torch
from numpy.typing import ArrayLike

from speechbrain_ser_cl.data.experiment import Experiment
from speechbrain_ser_cl.data.splits import Labelled
from speechbrain_ser_cl.metrics import (
    calibration_summary,
    dimension_summary,
    multilabel_summary,
    vote_summary,
)
from speechbrain_ser_cl.metrics.classification import summary
from speechbrain_ser_cl.model_folder import write_model
from speechbrain_ser_cl.nnet.classifier import EmotionClassifier
from speechbrain_ser_cl.report.figures import (
    plot_confusion_matrix,
    plot_learning_curves,
)
from speechbrain_ser_cl.results.embeddings import write_embeddings
from speechbrain_ser_cl.results.numbers import write_numbers
from speechbrain_ser_cl.results.predictions import write_predictions
from speechbrain_ser_cl.results.sums import read_sums, summarise_groups
from speechbrain_ser_cl.results.utterances import write_parts
from speechbrain_ser_cl.training.brain import SERBrain
from speechbrain_ser_cl.training.history import History
from speechbrain_ser_cl.training.launch import Launch
from speechbrain_ser_cl.utils.records import checksum, read, write
from speechbrain_ser_cl.utils.schemas import FILES, HISTORY, RESULTS

logger = logging.getLogger(__name__)

_PACKAGES = (
    "speechbrain_ser_cl",
    "speechbrain",
    "torch",
    "transformers",
    "torch-audiomentations",
    "scikit-learn",
    "numpy",
)


def write_run(
    folder: str | Path,
    record: Mapping[str, Any],
    predictions: Mapping[str, Any],
    parts: Mapping[str, Sequence[Labelled]],
    class_names: Sequence[str],
    history: History,
    model: EmotionClassifier | None = None,
    figures: bool = True,
) -> dict[str, Any]:
    """Writes the files of a finished run.

    Writes ``model/`` and ``embeddings.npz`` (if there are any), ``predictions.csv``,
    ``utterances.csv``, ``history.json``, ``confusion_matrix.png``,
    ``learning_curves.png`` (figures only with matplotlib) and, last, ``results.json``,
    so that a folder with ``results.json`` is complete. The model gets the temperature
    of the tested epoch's history; predictions are without it, and ``calibration``
    contains its effect. If the model cannot be written, the results are written first
    and the error is raised afterwards.

    Arguments
    ---------
    folder : str or pathlib.Path
        Output folder of the run.
    record : mapping
        Entries of the recipe, first in ``results.json``.
    predictions : mapping
        ``"id"``, ``"label"``, ``"prediction"``, ``"probability"`` of the test set;
        optionally its ``"embeddings"``, and ``"votes"`` (N, C) of listeners for
        comparison, written as ``votes.csv`` and the key ``votes`` of ``results.json``.
    parts : mapping
        Name of each part of the data (training, test, …) to its utterances.
    class_names : sequence of str
        Names of the classes 0, 1, …
    history : History
        History of the training, with the tested epoch.
    model : EmotionClassifier, optional
        The trained and tested model. Needed for export, see ``model_folder.py``.
    figures : bool
        Whether to draw figures.

    Returns
    -------
    dict
        Contents of ``results.json``.
    """
    folder = Path(folder)
    item_of = {item.utterance.id: item for part in parts.values() for item in part}
    tested = [item_of[name].utterance for name in predictions["id"]]
    speakers = [utterance.speaker or "" for utterance in tested]
    temperature = (history.tested or {}).get("temperature")
    refused = None
    if model is not None:
        refused = _try_model(folder, model, class_names, temperature)
    write_predictions(
        folder / "predictions.csv",
        predictions["id"],
        predictions["label"],
        predictions["prediction"],
        predictions["probability"],
        class_names,
    )
    if "embeddings" in predictions:
        write_embeddings(
            folder / "embeddings.npz",
            predictions["embeddings"],
            predictions["id"],
            [class_names[label] for label in predictions["label"]],
            speakers,
            [utterance.corpus for utterance in tested],
        )
    test = summary(
        predictions["label"],
        predictions["prediction"],
        len(class_names),
        speakers if all(speakers) else None,
    )
    record = {**record, "class_names": list(class_names), "test": test}
    if "votes" in predictions:
        numbers = (predictions["votes"], predictions["probability"])
        votes = np.asarray(numbers[0]) / np.sum(numbers[0], axis=1, keepdims=True)
        path = folder / "votes.csv"
        write_numbers(path, predictions["id"], class_names, votes, numbers[1])
        record["votes"] = vote_summary(*numbers, speakers if all(speakers) else None)
    if temperature is not None:
        record["calibration"] = calibration_summary(
            predictions["probability"], predictions["label"], temperature
        )
    if figures:
        _draw(folder, history, test["confusion_matrix"], class_names)
    return _finish(folder, record, parts, history, refused)


def write_numbers_test(
    launch: Launch,
    experiment: Experiment,
    brain: SERBrain,
    about: Mapping[str, Any],
    names: Sequence[str],
    predictions: Mapping[str, Any],
    model: EmotionClassifier,
) -> dict[str, Any]:
    """Writes the files of a run that predicts dimensions or several emotions.

    Like :func:`write_test`, without figures of classes. ``results.json`` has ``kind``
    and, as ``test``, the result of
    :func:`~speechbrain_ser_cl.metrics.dimension_summary` or
    :func:`~speechbrain_ser_cl.metrics.multilabel_summary`; ``dimensions.csv`` or
    ``emotions.csv`` has one line per utterance, see ``results.numbers``.

    Arguments
    ---------
    launch, experiment, brain, about
        As for :func:`write_test`.
    names : sequence of str
        Names of the K dimensions or emotions.
    predictions : mapping
        ``"id"`` of the N test utterances, ``"label"`` and ``"prediction"`` (N, K): on
        the corpus' own scale; or 0 or 1, and probabilities.
    model : EmotionClassifier
        The tested model; its ``kind`` is ``"dimensions"`` or ``"emotions"``.

    Returns
    -------
    dict
        Contents of ``results.json``.
    """
    kind = model.kind
    refused = _try_model(launch.folder, model, names)
    ids, labels, x = (predictions[key] for key in ("id", "label", "prediction"))
    write_numbers(launch.folder / f"{kind}.csv", ids, names, labels, x)
    item_of = {item.utterance.id: item for item in experiment.parts["test"]}
    speakers = [item_of[name].utterance.speaker or "" for name in ids]
    known = speakers if all(speakers) else None
    if kind == "dimensions":
        test = dimension_summary(labels, x, names, known)
    else:
        test = multilabel_summary(labels, np.asarray(x) > 0.5, known)
    record = {
        **_about(launch, experiment, brain, about, experiment.parts),
        "kind": kind,
        "class_names": list(names),
        "test": test,
    }
    _draw(launch.folder, brain.history)
    return _finish(launch.folder, record, experiment.parts, brain.history, refused)


def _try_model(
    folder: Path,
    model: EmotionClassifier,
    names: Sequence[str],
    temperature: float | None = None,
) -> Exception | None:
    """Writes the model, or returns the error, which is raised after the results."""
    try:
        write_model(folder / "model", model, names, temperature)
    except (ValueError, OSError) as error:
        return error
    return None


def _draw(
    folder: Path,
    history: History,
    confusion: ArrayLike | None = None,
    class_names: Sequence[str] = (),
) -> None:
    """Draws the figures, if matplotlib is installed."""
    try:
        if history.epochs:  # a model without training has no curves
            plot_learning_curves(history.epochs, folder / "learning_curves.png")
        if confusion is not None:
            path = folder / "confusion_matrix.png"
            plot_confusion_matrix(confusion, class_names, path)
    except ImportError as error:
        logger.warning("No figures: %s", error)


def _finish(
    folder: Path,
    record: Mapping[str, Any],
    parts: Mapping[str, Sequence[Labelled]],
    history: History,
    refused: Exception | None,
) -> dict[str, Any]:
    """Writes the files of all kinds, ``results.json`` last; then raises the error."""
    if history.tested is None:
        raise ValueError(f"{folder}: no epoch of this training was tested")
    write_parts(folder / "utterances.csv", parts)
    write(folder / "history.json", HISTORY, history.epochs)
    groups = summarise_groups([read_sums(folder, record)])
    if groups:
        record = {**record, "groups": groups}
    results: dict[str, Any] = {
        **record,
        "valid": history.tested["valid"],
        "tested_epoch": history.tested["epoch"],
        "epochs": sum(row["epoch"] > 0 for row in history.epochs),
        "nonfinite_batches": history.nonfinite_batches,
        "training_seconds": round(history.seconds, 1),
        "versions": package_versions(),
        "machine": machine(),
        "peak_memory_mb": peak_memory_mb(),
    }
    results["files"] = {
        name: checksum(folder / name) for name in FILES if (folder / name).is_file()
    }
    write(folder / "results.json", RESULTS, results)
    if refused is not None:
        raise refused
    return results


def write_test(
    launch: Launch,
    experiment: Experiment,
    brain: SERBrain,
    model: EmotionClassifier | None,
    about: Mapping[str, Any],
    *,
    folder: Path | None = None,
    parts: Mapping[str, Sequence[Labelled]] | None = None,
    predictions: Mapping[str, Any] | None = None,
) -> dict[str, Any]:
    """Writes the files of a run whose Brain was just tested.

    Arguments
    ---------
    launch : Launch
        What was asked for.
    experiment : Experiment
        Data of the run.
    brain : SERBrain
        Brain after its test.
    model : EmotionClassifier or None
        The tested model.
    about : mapping
        Entries of the recipe, first in ``results.json``: ``recipe``, ``setting`` and
        ``order`` (for tables) and others; ``encoder``, if the YAML's ``ssl_source`` is
        null.
    folder : pathlib.Path, optional
        Replaces the run's output folder.
    parts : mapping, optional
        The parts that were used, in place of the experiment's.
    predictions : mapping, optional
        See :func:`write_run`. None: those of the Brain.

    Returns
    -------
    dict
        Contents of ``results.json``.
    """
    parts = experiment.parts if parts is None else parts
    return write_run(
        launch.folder if folder is None else folder,
        _about(launch, experiment, brain, about, parts),
        predictions=brain.collected_outputs() if predictions is None else predictions,
        parts=parts,
        class_names=brain.class_names,
        history=brain.history,
        model=model,
    )


def _about(
    launch: Launch,
    experiment: Experiment,
    brain: SERBrain,
    about: Mapping[str, Any],
    parts: Mapping[str, Sequence[Labelled]],
) -> dict[str, Any]:
    source = launch.values["ssl_source"]
    return {
        **about,
        "encoder": about["encoder"] if source is None else Path(source).name,
        "seed": launch.values["seed"],
        "precision": brain.precision,
        "demo": launch.demo,
        **experiment.record(parts),
    }


def read_results(path: str | Path) -> dict[str, Any]:
    """Reads the ``results.json`` of a finished run."""
    return {**read(path, RESULTS)}


def machine() -> dict[str, Any]:
    """Describes the machine: processor, cores, threads in use and GPU."""
    return {
        "processor": _processor(),
        "cores": os.cpu_count(),
        "threads": torch.get_num_threads(),
        "gpu": torch.cuda.get_device_name() if torch.cuda.is_available() else None,
    }


def package_versions() -> dict[str, str]:
    """Lists the versions of Python and of the packages that affect results."""
    versions = {"python": platform.python_version()}
    for package in _PACKAGES:
        try:
            versions[package] = version(package)
        except PackageNotFoundError:
            versions[package] = "not installed"
    return versions


def peak_memory_mb() -> dict[str, float]:
    """Measures this process's peak memory: resident, and on the GPU if there is one.

    Returns
    -------
    dict
        ``{"resident": MB}``, and ``"gpu"`` if CUDA was used.
    """
    # Kilobytes on Linux, bytes on macOS.
    unit = 2**20 if sys.platform == "darwin" else 2**10
    peak = {
        "resident": round(resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / unit, 1)
    }
    if torch.cuda.is_available():
        peak["gpu"] = round(torch.cuda.max_memory_allocated() / 2**20, 1)
    return peak


def _processor() -> str:
    try:
        lines = Path("/proc/cpuinfo").read_text(encoding="utf-8").splitlines()
    except OSError:
        return platform.processor()
    names = [line.split(":", 1)[1].strip() for line in lines if "model name" in line]
    return names[0] if names else platform.processor()
