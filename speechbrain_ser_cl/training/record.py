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

    ``model/`` and ``embeddings.npz`` (if there are any), ``predictions.csv``,
    ``utterances.csv``, ``history.json``, ``confusion_matrix.png``,
    ``learning_curves.png`` (the figures where matplotlib is installed) and, last,
    ``results.json``, so that a folder with ``results.json`` is complete. The model gets
    the temperature that the history has of the tested epoch; predictions are without
    it, and ``calibration`` tells what it changes. Should the model be refused, the
    results are written all the same, and the error comes then.

    Arguments
    ---------
    folder : str or pathlib.Path
        The run's output folder.
    record : mapping
        What the recipe has to say, first in ``results.json``.
    predictions : mapping
        ``"id"``, ``"label"``, ``"prediction"``, ``"probability"`` of the test set;
        perhaps its ``"embeddings"``, and ``"votes"`` (N, C) of listeners to compare
        with: ``votes.csv`` and the key ``votes`` of ``results.json``.
    parts : mapping
        Name of each part of the data (training, test, …) to its utterances.
    class_names : sequence of str
        Names of the classes 0, 1, …
    history : History
        The training and which epoch was tested.
    model : EmotionClassifier, optional
        What was trained and tested. With it the run can be exported, see
        ``model_folder.py``.
    figures : bool
        Whether figures are drawn.

    Returns
    -------
    dict
        The contents of ``results.json``.
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
    """Writes what a run leaves behind whose Brain was tested on numbers, not classes.

    As :func:`write_test`, without figures of classes; ``results.json`` has ``kind``
    and, as ``test``, what :func:`~speechbrain_ser_cl.metrics.dimension_summary` or
    :func:`~speechbrain_ser_cl.metrics.multilabel_summary` returns; ``dimensions.csv``
    or ``emotions.csv`` has a line per utterance, see ``results.numbers``.

    Arguments
    ---------
    launch, experiment, brain, about
        As for :func:`write_test`.
    names : sequence of str
        Of the K dimensions or emotions.
    predictions : mapping
        ``"id"`` of the N utterances tested, ``"label"`` and ``"prediction"`` (N, K): on
        the corpus' own scale; or 0 or 1, and probabilities.
    model : EmotionClassifier
        What was tested; its ``kind`` is ``"dimensions"`` or ``"emotions"``.

    Returns
    -------
    dict
        The contents of ``results.json``.
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
    """Writes the model, or gives the error, which is to come after the results."""
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
    """Draws the figures, where matplotlib is installed."""
    try:
        if history.epochs:  # a model that is only tested has none
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
    """Writes what runs of all kinds leave, ``results.json`` last; then raises."""
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
        What it was trained and tested on.
    brain : SERBrain
        After its test.
    model : EmotionClassifier or None
        What was tested.
    about : mapping
        What the recipe has to say, first in ``results.json``: ``recipe``, ``setting``
        and ``order`` (for tables) and more; ``encoder``, where the YAML's
        ``ssl_source`` is null.
    folder : pathlib.Path, optional
        In place of the run's output folder.
    parts : mapping, optional
        The parts as they were used, in place of the experiment's.
    predictions : mapping, optional
        See :func:`write_run`. None: the Brain's own.

    Returns
    -------
    dict
        The contents of ``results.json``.
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
    """Read the ``results.json`` of a finished run."""
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
    """Lists the versions of Python and of the packages that results depend on."""
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
        ``{"resident": MB}``, and ``"gpu"`` where CUDA was used.
    """
    # Linux counts in kilobytes, macOS in bytes.
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
