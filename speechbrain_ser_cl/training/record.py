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

import torch

from speechbrain_ser_cl.data.experiment import Experiment
from speechbrain_ser_cl.data.splits import Labelled
from speechbrain_ser_cl.metrics.classification import summary
from speechbrain_ser_cl.model_folder import write_model
from speechbrain_ser_cl.nnet.classifier import EmotionClassifier
from speechbrain_ser_cl.report.figures import (
    plot_confusion_matrix,
    plot_learning_curves,
)
from speechbrain_ser_cl.results.embeddings import write_embeddings
from speechbrain_ser_cl.results.predictions import write_predictions
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
) -> dict[str, Any]:
    """Writes the files of a finished run.

    ``model/`` and ``embeddings.npz`` (if there are any), ``predictions.csv``,
    ``utterances.csv``, ``history.json``, ``confusion_matrix.png``,
    ``learning_curves.png`` (the figures where matplotlib is installed) and, last,
    ``results.json``, so that a folder with ``results.json`` is complete. Should the
    model be refused, the results are written all the same, and the error comes then.

    Arguments
    ---------
    folder : str or pathlib.Path
        The run's output folder.
    record : mapping
        What the recipe has to say, first in ``results.json``.
    predictions : mapping
        ``"id"``, ``"label"``, ``"prediction"``, ``"probability"`` of the test set;
        perhaps its ``"embeddings"``.
    parts : mapping
        Name of each part of the data (training, test, …) to its utterances.
    class_names : sequence of str
        Names of the classes 0, 1, …
    history : History
        The training and which epoch was tested.
    model : EmotionClassifier, optional
        What was trained and tested. With it the run can be exported, see
        ``model_folder.py``.

    Returns
    -------
    dict
        The contents of ``results.json``.
    """
    folder = Path(folder)
    item_of = {item.utterance.id: item for part in parts.values() for item in part}
    tested = [item_of[name].utterance for name in predictions["id"]]
    speakers = [utterance.speaker or "" for utterance in tested]
    refused = None
    if model is not None:
        try:
            write_model(folder / "model", model, class_names)
        except (ValueError, OSError) as error:
            refused = error
    write_predictions(
        folder / "predictions.csv",
        predictions["id"],
        predictions["label"],
        predictions["prediction"],
        predictions["probability"],
        class_names,
    )
    write_parts(folder / "utterances.csv", parts)
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
    if history.tested is None:
        raise ValueError(f"{folder}: no epoch of this training was tested")
    write(folder / "history.json", HISTORY, history.epochs)
    results = {
        **record,
        "class_names": list(class_names),
        "test": test,
        "valid": history.tested["valid"],
        "tested_epoch": history.tested["epoch"],
        "epochs": len(history.epochs),
        "nonfinite_batches": history.nonfinite_batches,
        "training_seconds": round(history.seconds, 1),
        "versions": package_versions(),
        "machine": machine(),
        "peak_memory_mb": peak_memory_mb(),
    }
    try:
        plot_confusion_matrix(
            test["confusion_matrix"], class_names, folder / "confusion_matrix.png"
        )
        plot_learning_curves(history.epochs, folder / "learning_curves.png")
    except ImportError as error:
        logger.warning("No figures: %s", error)
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
    source = launch.values["ssl_source"]
    record = {
        **about,
        "encoder": about["encoder"] if source is None else Path(source).name,
        "seed": launch.values["seed"],
        "precision": brain.precision,
        "demo": launch.demo,
        **experiment.record(parts),
    }
    return write_run(
        launch.folder if folder is None else folder,
        record,
        predictions=brain.collected_outputs() if predictions is None else predictions,
        parts=parts,
        class_names=brain.class_names,
        history=brain.history,
        model=model,
    )


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
