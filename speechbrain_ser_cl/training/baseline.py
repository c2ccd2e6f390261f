"""Tests a run's simple baseline, and starts a training from it.

The baseline is a linear probe of one layer of the frozen encoder on the same split: a
training starts from one layer, so that no scores of several are averaged. Kumar et al.
(2022), "Fine-tuning can distort pretrained features and underperform
out-of-distribution": a classifier that starts as the probe keeps the encoder's
features, which a random classifier changes first.
"""

from collections.abc import Mapping, Sequence
from typing import Any

import torch
from speechbrain.utils.distributed import if_main_process

from speechbrain_ser_cl.backbones import WeightedSSL
from speechbrain_ser_cl.corpora.utterance import PARTS
from speechbrain_ser_cl.data.experiment import Experiment
from speechbrain_ser_cl.data.splits import Labelled
from speechbrain_ser_cl.nnet import (
    ClassifierHead,
    EmotionClassifier,
    MeanPooling,
    StatisticsPooling,
)
from speechbrain_ser_cl.training.launch import Launch, check_choices
from speechbrain_ser_cl.training.probe import LinearProbe, Probed, fit_head
from speechbrain_ser_cl.training.record import write_run
from speechbrain_ser_cl.training.utterance_features import load_features
from speechbrain_ser_cl.utils.files import BASELINE

_POOLINGS = {MeanPooling: "mean", StatisticsPooling: "statistics"}


def names_weighted_ssl(values: Mapping[str, Any]) -> bool:
    """Returns whether a YAML's ``backbone`` is a ``WeightedSSL``.

    Arguments
    ---------
    values : mapping
        Values of the YAML, without building objects.

    Returns
    -------
    bool
        False for a user's own encoder, which a probe cannot load.
    """
    tag = getattr(values.get("backbone"), "tag", None)
    return str(getattr(tag, "value", tag)).endswith(f".{WeightedSSL.__name__}")


def run_probe(values: Mapping[str, Any], experiment: Experiment) -> Probed:
    """Tests a logistic regression on the best layer of the encoder that a YAML names.

    Arguments
    ---------
    values : mapping
        Values of the YAML: ``ssl_source``; optionally ``ssl_revision`` and
        ``features_folder``.
    experiment : Experiment
        Its parts train, valid and test; for domain adaptation those of the source, and
        the target's test part.

    Returns
    -------
    Probed
        Choice, fit and predictions of the probe.

    Raises
    ------
    ValueError
        If there is no encoder to load, and from ``LinearProbe.run``.
    """
    source = values.get("ssl_source")
    if source is None:
        raise ValueError("baseline: probe needs the key ssl_source, which is null")
    features = load_features(
        source, values.get("ssl_revision"), values.get("features_folder")
    )
    parts = _parts(experiment)
    features.fill([item.utterance for part in parts.values() for item in part])
    return LinearProbe().run(features, parts, experiment.class_names)


def write_baseline(
    launch: Launch, experiment: Experiment, found: Probed | None = None
) -> dict[str, Any] | None:
    """Writes the results of a run's simple baseline, if its YAML asks for one.

    They are written into ``baseline`` in the run's folder, as a separate run, so that
    reports and tables show them in their first row.

    Arguments
    ---------
    launch : Launch
        Launch whose YAML has ``baseline``: null or ``probe``.
    experiment : Experiment
        Data of the run.
    found : Probed, optional
        Result of the probe, if it exists already.

    Returns
    -------
    dict or None
        Contents of its ``results.json``, in the main process.

    Raises
    ------
    ValueError
        For another value of the key, and from :func:`run_probe`.
    """
    check_choices({"baseline": launch.values.get("baseline")}, baseline=(None, "probe"))
    if launch.values.get("baseline") is None or not if_main_process():
        return None
    found = found or run_probe(launch.values, experiment)
    about = {
        "recipe": launch.values.get("recipe", ""),
        "corpus": ", ".join(experiment.corpora),
        "seed": launch.values["seed"],
    }
    about |= LinearProbe().about(found.features) | found.record()
    folder = launch.folder / BASELINE
    folder.mkdir(parents=True, exist_ok=True)
    return write_run(
        folder,
        about | {"demo": launch.demo} | experiment.record(),
        predictions=found.predictions,
        parts=_parts(experiment),
        class_names=experiment.class_names,
        history=found.history(),
        figures=False,
    )


def begin_with(
    model: EmotionClassifier,
    found: Probed,
    items: Sequence[Labelled],
    class_names: Sequence[str],
) -> None:
    """Gives a classifier the head that a probe fits on some utterances.

    Arguments
    ---------
    model : EmotionClassifier
        Model with a ``WeightedSSL`` and one layer, mean or statistics pooling, and a
        linear head.
    found : Probed
        Probe whose features and regularisation are used.
    items : sequence of Labelled
        Utterances to fit on.
    class_names : sequence of str
        Names of the classes 0, 1, …

    Raises
    ------
    ValueError
        If the model is different.
    """
    encoder, heads = model.encoder, list[Any](model.head.heads)
    pooling, layers = type(encoder.pooling), encoder.backbone.layers
    if (
        len(layers) != 1
        or pooling not in _POOLINGS
        or [type(head) for head in heads] != [ClassifierHead]
        or encoder.norm is not None
    ):
        raise ValueError(
            f"start: probe: found {len(layers)} layers, {pooling.__name__} and "
            f"{len(heads)} heads; expected layers: best or one layer, MeanPooling or "
            "StatisticsPooling, and one linear classifier. Else set start: null"
        )
    at = (found.choice.C, layers[0], _POOLINGS[pooling])
    fitted = fit_head(found.features, items, class_names, *at)
    heads[0].begin(*(torch.from_numpy(one).float() for one in fitted))


def _parts(experiment: Experiment) -> dict[str, Sequence[Labelled]]:
    """Returns the parts train, valid and test."""
    domains = ("source_train", "source_valid", "target_test")
    parts = experiment.parts
    if all(name in parts for name in domains):
        return {n: parts[own] for n, own in zip(PARTS, domains, strict=True)}
    return {name: parts[name] for name in PARTS}
