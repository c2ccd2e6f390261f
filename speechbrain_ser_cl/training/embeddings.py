"""Tests of the embeddings at the end of a training."""

import logging
import time
from collections.abc import Mapping
from typing import Any

import numpy as np
import torch
from torch.nn.functional import normalize, one_hot
from torch.utils.data import DataLoader

from speechbrain_ser_cl.data.dataset import Read, SpeechDataset, waveform
from speechbrain_ser_cl.data.experiment import Experiment
from speechbrain_ser_cl.data.loaders import whole_loader
from speechbrain_ser_cl.metrics import (
    classification_metrics,
    clustering_scores,
    linear_svm,
    recall_at_1,
)
from speechbrain_ser_cl.nnet import EmotionClassifier
from speechbrain_ser_cl.report.figures import plot_tsne
from speechbrain_ser_cl.training.brain import SERBrain
from speechbrain_ser_cl.training.launch import Launch
from speechbrain_ser_cl.training.record import write_test

logger = logging.getLogger(__name__)


def write_embedding_test(
    launch: Launch,
    experiment: Experiment,
    brain: SERBrain,
    model: EmotionClassifier | None,
    about: Mapping[str, Any],
    read: Read = waveform,
) -> dict[str, Any]:
    """Tests embeddings after the last stage and writes the run's files.

    Classification by the classifier, if there is one, and by a linear SVM, retrieval
    and clustering: NTUA thesis, section 4.3.2.2. With ``tsne`` in the YAML also a
    figure.

    Arguments
    ---------
    launch : Launch
        The launch. Of its values ``svm_C``, ``tsne``, ``seed``, ``test_batch_size`` and
        ``loader_options`` are used.
    experiment : Experiment
        Experiment with the parts ``train``, ``valid`` and ``test``.
    brain : SERBrain
        Brain with its best epoch. Its ``history`` gets the seconds of all stages.
    model : EmotionClassifier or None
        Model to export. None: no classifier was trained, and the SVM is tested.
    about : mapping
        See ``write_test``; with ``stages``, the cost of each stage.
    read : callable
        Returns the encoder's input for an utterance.

    Returns
    -------
    dict
        Contents of ``results.json``.

    Example
    -------
    ``write_embedding_test(launch, experiment, brain, model, about, read)``
    """
    start, values = time.time(), launch.values
    loaders = {
        name: whole_loader(
            SpeechDataset(part, brain.class_names, read),
            values["test_batch_size"],
            values["loader_options"],
        )
        for name, part in experiment.parts.items()
    }
    found, predictions = probe_embeddings(brain, loaders, values["svm_C"])
    tested, x = experiment.parts["test"], predictions["embeddings"]
    if values["tsne"] and len(tested) >= 4:
        colourings = {
            "emotion": [item.label for item in tested],
            "speaker": [item.utterance.speaker or "unknown" for item in tested],
        }
        path = launch.folder / "tsne.png"
        try:
            plot_tsne(x, colourings, path, about["setting"], values["seed"])
        except ImportError as error:
            logger.warning("No figure: %s", error)
    seconds = {"seconds": round(time.time() - start, 1)}
    stages = {**about["stages"], "evaluation": seconds}
    by, history = "svm" if model is None else "classifier", brain.history
    epoch: dict[str, Any] = history.tested or {}
    history.tested = epoch | {"valid": epoch["valid"] | found["valid"][by]}
    history.seconds = sum(stage["seconds"] for stage in stages.values())
    about = {**about, "classifier": by, "stages": stages, "probes": found}
    return write_test(launch, experiment, brain, model, about, predictions=predictions)


def probe_embeddings(
    brain: SERBrain, loaders: Mapping[str, DataLoader[Any]], C: float = 1.0
) -> tuple[dict[str, Any], dict[str, Any]]:
    """Tests embeddings by classification, retrieval and clustering.

    NTUA thesis, section 4.3.2.2. A linear SVM is fitted on the training part. Without a
    trained classifier, embeddings are scaled to length 1.

    Arguments
    ---------
    brain : SERBrain
        Brain after its training; it returns ``"embeddings"`` and, with a classifier,
        ``"logits"``.
    loaders : mapping
        ``train``, ``valid`` and ``test`` to loaders of whole utterances.
    C : float
        Penalty of the SVM.

    Returns
    -------
    found : dict
        For ``valid`` and ``test``: ``svm`` and, if there is one, ``classifier`` with
        UAR, WA and macro-F1; ``recall_at_1``; ``kmeans`` with F1 and NMI.
    predictions : dict
        Test predictions for ``write_run``: of the classifier, or else of the SVM, whose
        predicted class has probability 1.

    Example
    -------
    ``found, predictions = probe_embeddings(brain, loaders, hparams["svm_C"])``
    """
    n_classes, found = len(brain.class_names), {}
    outputs = {name: brain.outputs_of(loader) for name, loader in loaders.items()}
    labels = {name: loader.dataset.labels for name, loader in loaders.items()}  # type: ignore[attr-defined]
    vectors = {name: out["embeddings"] for name, out in outputs.items()}
    if "logits" not in outputs["test"]:
        vectors = {name: normalize(x) for name, x in vectors.items()}
    guesses: dict[str, Any] = {}
    for part in ("valid", "test"):
        x, y = vectors[part].numpy(), np.array(labels[part])
        guesses = {"svm": linear_svm(vectors["train"].numpy(), labels["train"], x, C)}
        if "logits" in outputs[part]:
            guesses["classifier"] = outputs[part]["logits"].argmax(dim=1).numpy()
        found[part] = {
            **{k: classification_metrics(y, g, n_classes) for k, g in guesses.items()},
            "recall_at_1": recall_at_1(x, y),
            "kmeans": clustering_scores(x, y, brain.hparams.seed),
        }
    prediction = guesses.get("classifier", guesses["svm"])
    probability = one_hot(torch.tensor(prediction), n_classes).double()
    if "classifier" in guesses:
        probability = outputs["test"]["logits"].double().softmax(dim=1)
    return found, {
        "id": [item.utterance.id for item in loaders["test"].dataset.items],  # type: ignore[attr-defined]
        "label": np.array(labels["test"]),
        "prediction": prediction,
        "probability": probability.numpy(),
        "embeddings": vectors["test"].numpy(),
    }
