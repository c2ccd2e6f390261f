"""A linear probe: selection, fit, test and export.

A linear classifier on statistics over time of one layer is the simplest use of a
pretrained encoder, and the baseline for every other method. The mean of several layers'
scores is that of a linear classifier on all these layers, so that it is one model too.
"""

import contextlib
import csv
from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass, replace
from operator import itemgetter
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np
import torch

from speechbrain_ser_cl.backbones import ConcatenatedLayers
from speechbrain_ser_cl.corpora.utterance import PARTS
from speechbrain_ser_cl.data.splits import Labelled
from speechbrain_ser_cl.metrics.classification import classification_metrics
from speechbrain_ser_cl.metrics.linear_probe import (
    CLASSIFIERS,
    NORMALISATIONS,
    Choice,
    Integers,
    fit_classifier,
    held_out_scores,
    inner_folds,
    ridge_scores,
    standardiser,
)
from speechbrain_ser_cl.metrics.logistic import Floats
from speechbrain_ser_cl.nnet import (
    ClassifierHead,
    EmotionClassifier,
    MeanPooling,
    StatisticsPooling,
)
from speechbrain_ser_cl.report.figures import plot_layer_curve
from speechbrain_ser_cl.training.history import History
from speechbrain_ser_cl.training.utterance_features import UtteranceFeatures
from speechbrain_ser_cl.utils.errors import did_you_mean
from speechbrain_ser_cl.utils.files import replacing

# Strengths of the ridge regression that compares layers.
_STRENGTHS = CLASSIFIERS["ridge"]


@dataclass(frozen=True)
class LinearProbe:
    """Options of a linear probe, and its test.

    Arguments
    ---------
    classifier : str
        ``logistic``, ``svm`` or ``ridge``.
    layers : sequence of int, optional
        Layers to try. None: all.
    most_layers : int, optional
        Largest number of layers whose scores are averaged. The number is selected as C
        is: the best layer, the best two, …. None: 2 for ``logistic``, else 1.
    poolings : sequence of str, optional
        ``mean`` or ``statistics`` (mean and standard deviation). None: ``statistics``.
    normalisations : sequence of str
        ``none``; ``corpus``: by mean and standard deviation of the corpus' training
        utterances, or of all training utterances for a corpus without training
        utterances; ``own_corpus``: by those of all utterances of the corpus;
        ``speaker``: by those of all utterances of the speaker. The last two are
        transductive: they use tested utterances, need more than one utterance of the
        same origin, and are not comparable with other methods.
    strengths : sequence of float, optional
        Values of C. None: those of ``CLASSIFIERS``.
    balance : bool
        Whether to weigh classes equally.

    Raises
    ------
    ValueError
        For another name or number.

    Example
    -------
    >>> LinearProbe("svm").normalisations
    ('corpus',)
    >>> LinearProbe("svn")
    Traceback (most recent call last):
    ValueError: classifier: found 'svn', expected one of logistic, svm, ridge
    """

    classifier: str = "logistic"
    layers: Sequence[int] | None = None
    most_layers: int | None = 1
    poolings: Sequence[str] | None = None
    normalisations: Sequence[str] = ("corpus",)
    strengths: Sequence[float] | None = None
    balance: bool = True

    def __post_init__(self) -> None:
        _known("classifier", [self.classifier], CLASSIFIERS)
        _known("normalisations", self.normalisations, NORMALISATIONS)
        if self.strengths is not None and not all(C > 0 for C in self.strengths):
            raise ValueError(
                f"strengths: found {list(self.strengths)}, expected numbers above 0"
            )
        if self.most_layers is not None and self.most_layers < 1:
            raise ValueError(
                f"most_layers: found {self.most_layers}, expected at least 1"
            )

    def about(self, features: UtteranceFeatures) -> dict[str, Any]:
        """Describes the method for ``results.json``.

        Arguments
        ---------
        features : UtteranceFeatures
            Features of the probe.

        Returns
        -------
        dict
            ``setting``, ``order``, ``encoder`` and ``demo``.
        """
        name = {"logistic": "logistic regression", "svm": "linear SVM"}
        title = name.get(self.classifier, self.classifier)
        more = ", by speaker" if "speaker" in self.normalisations else ""
        setting = f"simple baseline: {title}{more}"
        return {
            "setting": setting,
            "order": -1,
            "encoder": features.name,
            "demo": False,
        }

    def run(
        self,
        features: UtteranceFeatures,
        parts: Mapping[str, Sequence[Labelled]],
        class_names: Sequence[str],
    ) -> "Probed":
        """Selects on training and validation parts, fits on both, predicts the test.

        The validation part is not used if it shares speakers or texts with the test
        part that training does not (``speaker_text_kfold``), because that would be a
        leak.

        Arguments
        ---------
        features : UtteranceFeatures
            Features, filled with the utterances of all parts.
        parts : mapping
            ``train`` and ``test``, optionally ``valid``, to utterances.
        class_names : sequence of str
            Names of the classes 0, 1, …

        Returns
        -------
        Probed
            Choice, fit and predictions.

        Raises
        ------
        ValueError
            For layers or poolings that the features do not have, and for a class
            without training utterances.
        """
        if leaks_by_validation(parts):
            parts = {name: part for name, part in parts.items() if name != "valid"}
        table = _Table(features, parts, class_names)
        poolings = features.poolings[-1:] if self.poolings is None else self.poolings
        _known("poolings", poolings, features.poolings)
        layers = range(features.n_layers) if self.layers is None else self.layers
        _known("layers", layers, range(features.n_layers))
        fitted = table.speakers[: table.n_fit]
        grouped = fitted if all(table.speakers) and len(set(fitted)) > 1 else None
        if not all(table.speakers) and "speaker" in self.normalisations:
            raise ValueError(
                "normalisations: speaker needs to know who speaks, and there are "
                "utterances without a speaker"
            )
        folds = inner_folds(table.labels, grouped)
        counts = np.bincount(table.labels, minlength=len(class_names))
        if not counts.all():
            raise ValueError(
                f"no training utterance of class {class_names[int(counts.argmin())]}"
            )
        found = []
        for layer in layers:
            for pooling in poolings:
                for kind in self.normalisations:
                    x = table.vectors(layer, pooling, kind)[0][: table.n_fit]
                    told = ridge_scores(x, table.labels, folds, _STRENGTHS)
                    for C, scores in zip(_STRENGTHS, told, strict=True):
                        uar = _uar(table.labels, scores.argmax(1), len(class_names))
                        found.append(Choice((layer,), kind, pooling, C, uar))
        best = self._select(table, found, folds)
        fits = [self._fit(table, best, layer) for layer in best.layers]
        scores = np.mean([fit.test_scores for fit in fits], axis=0)
        probabilities = torch.from_numpy(scores).softmax(1)
        curve = {
            layer: max(one.uar for one in found if one.layers == (layer,))
            for layer in layers
        }
        return Probed(
            features,
            best,
            curve,
            fits,
            {
                "id": [item.utterance.id for item in parts["test"]],
                "label": table.test_labels.tolist(),
                "prediction": probabilities.argmax(1).tolist(),
                "probability": probabilities.tolist(),
            },
        )

    def _select(
        self, table: "_Table", found: Sequence[Choice], folds: Integers
    ) -> Choice:
        """Selects C and the number of layers with the final classifier."""
        ordered = sorted(found, key=lambda one: -one.uar)
        best, strengths = ordered[0], self.strengths or CLASSIFIERS[self.classifier]
        kinds = best.pooling, best.normalisation
        alike = [one for one in ordered if (one.pooling, one.normalisation) == kinds]
        most = self.most_layers or (2 if self.classifier == "logistic" else 1)
        layers = tuple(dict.fromkeys(one.layers[0] for one in alike))[:most]
        if len(layers) == len(strengths) == 1:
            return replace(best, C=strengths[0])
        options = (table.labels, folds, strengths, self.balance)
        total, tried = None, []
        for k, layer in enumerate(layers, start=1):
            x = table.vectors(layer, *kinds, np.float64)[0][: table.n_fit]
            scores = held_out_scores(self.classifier, x.astype(np.float32), *options)
            total = scores if total is None else total + scores
            for C, some in zip(strengths, total, strict=True):
                uar = _uar(table.labels, some.argmax(1), some.shape[1])
                tried.append(replace(best, layers=layers[:k], C=C, uar=uar))
        return max(tried, key=lambda one: one.uar)

    def _fit(self, table: "_Table", choice: Choice, layer: int) -> "LayerFit":
        """Fits the final classifier of one layer."""
        x, mean, std = table.vectors(
            layer, choice.pooling, choice.normalisation, np.float64
        )
        ((weights, bias),) = fit_classifier(
            self.classifier, x[: table.n_fit], table.labels, [choice.C], self.balance
        )
        return LayerFit(weights, bias, mean, std, x[table.n_fit :] @ weights.T + bias)


class LayerFit(NamedTuple):
    """The classifier of one layer.

    Arguments
    ---------
    weights, bias : numpy.ndarray
        (K, D) and (K,), for standardised vectors.
    mean, std : numpy.ndarray or None
        Standardisation (D,), if it is the same for all vectors.
    test_scores : numpy.ndarray
        Scores of the test part (N, K).
    """

    weights: Floats
    bias: Floats
    mean: Floats | None
    std: Floats | None
    test_scores: Floats


@dataclass(frozen=True)
class Probed:
    """The choice, fit and predictions of a probe.

    Arguments
    ---------
    features : UtteranceFeatures
        Features that it was fitted on.
    choice : Choice
        The choice, and its UAR over the inner folds.
    curve : dict
        Layer to its best UAR over the inner folds, by ridge regression.
    fits : list of LayerFit
        The classifier of each chosen layer. Their mean scores are the probe's.
    predictions : dict
        ``id``, ``label``, ``prediction`` and ``probability`` of the test part. Unknown
        classes have the label -1.
    """

    features: UtteranceFeatures
    choice: Choice
    curve: dict[int, float]
    fits: list[LayerFit]
    predictions: dict[str, list[Any]]

    @property
    def uar(self) -> float:
        """UAR of the test part."""
        labels, told = self.predictions["label"], self.predictions["prediction"]
        return _uar(np.array(labels), np.array(told), len(self.fits[0].bias))

    def model(self) -> EmotionClassifier | None:
        """Converts the probe to a model with the standardisation in its weights.

        Returns
        -------
        EmotionClassifier or None
            Encoder with the chosen layers, pooling and linear head. None without an
            encoder, or if vectors are standardised by speaker or by several corpora.
        """
        backbone, layers = self.features.backbone, self.choice.layers
        folded = []
        for _, fit in sorted(zip(layers, self.fits, strict=True), key=itemgetter(0)):
            if backbone is None or fit.mean is None or fit.std is None:
                return None
            weights = fit.weights / fit.std
            folded.append((weights, fit.bias - weights @ fit.mean))
        assert backbone is not None
        arguments = backbone.arguments() | {"layers": list(layers)}
        del arguments["freeze"]
        encoder = ConcatenatedLayers.from_arguments(arguments)
        encoder.ssl.encoder.load_state_dict(backbone.encoder.state_dict())
        pooling = MeanPooling if self.choice.pooling == "mean" else StatisticsPooling
        shape = (len(folded[0][1]), -1, backbone.output_size)
        # Pooling puts the means of all layers before their deviations.
        weights = np.concatenate([one.reshape(shape) for one, _ in folded], axis=2)
        weights = weights.reshape(len(weights), -1) / len(folded)
        bias = np.mean([bias for _, bias in folded], axis=0)
        head = ClassifierHead(weights.shape[1], len(bias))
        linear = head.layers[-1]
        linear.weight.data = torch.from_numpy(weights).float()
        linear.bias.data = torch.from_numpy(bias).float()
        return EmotionClassifier(encoder, [head], pooling(encoder.output_size)).eval()

    def history(self) -> History:
        """Returns the choice as the history of a training with one epoch."""
        history = History()
        history.end_epoch(1, valid={"uar": self.choice.uar})
        history.tested = history.epochs[-1]
        return history

    def record(self) -> dict[str, Any]:
        """Returns the choice for ``results.json``."""
        return {"probe": {k: v for k, v in asdict(self.choice).items() if k != "uar"}}


def fit_head(
    features: UtteranceFeatures,
    items: Sequence[Labelled],
    class_names: Sequence[str],
    C: float,
    layer: int,
    pooling: str,
) -> tuple[Floats, Floats, Floats, Floats]:
    """Fits the logistic regression from which a neural classifier can start.

    Arguments
    ---------
    features : UtteranceFeatures
        Features, filled with the utterances.
    items : sequence of Labelled
        Utterances to fit on.
    class_names : sequence of str
        Names of the classes 0, 1, …
    C : float
        Inverse strength of the regularisation.
    layer : int
        Layer of the encoder.
    pooling : str
        ``mean`` or ``statistics``.

    Returns
    -------
    weights, bias : numpy.ndarray
        (K, D) and (K,), for standardised vectors. A class without utterances is never
        predicted.
    mean, std : numpy.ndarray
        Mean and standard deviation of the vectors (D,).
    """
    items = sorted(items, key=lambda item: item.utterance.id)
    x = features.matrix([i.utterance.id for i in items], layer, pooling)
    mean, std = standardiser(x.astype(np.float64))
    number = {name: k for k, name in enumerate(class_names)}
    there, labels = np.unique([number[i.label] for i in items], return_inverse=True)
    ((some, some_bias),) = fit_classifier("logistic", (x - mean) / std, labels, [C])
    weights = np.zeros((len(class_names), x.shape[1]))
    bias = np.full(len(class_names), some_bias.min() - 10.0)
    weights[there], bias[there] = some, some_bias
    return weights, bias, mean, std


def write_layer_curve(path: str | Path, curves: Sequence[Mapping[int, float]]) -> None:
    """Writes the score of each layer in the inner folds as CSV and a figure.

    Arguments
    ---------
    path : str or pathlib.Path
        A ``.csv``; the figure is a ``.png``, if matplotlib is installed.
    curves : sequence of mapping
        For each fold, layer to UAR in [0, 1].

    Example
    -------
    >>> path = getfixture("tmp_path") / "layers.csv"
    >>> write_layer_curve(path, [{0: 0.5, 1: 0.75}])
    >>> path.read_text().splitlines()
    ['layer,fold_0,mean', '0,0.5000,0.5000', '1,0.7500,0.7500']
    """
    path = Path(path)
    layers = list(curves[0])
    table = np.array([[curve[layer] for curve in curves] for layer in layers])
    with (
        replacing(path) as part,
        open(part, "w", encoding="utf-8", newline="") as file,
    ):
        writer = csv.writer(file, lineterminator="\n")
        writer.writerow(["layer", *(f"fold_{k}" for k in range(len(curves))), "mean"])
        for layer, row in zip(layers, table, strict=True):
            writer.writerow([layer, *(f"{uar:.4f}" for uar in (*row, row.mean()))])
    with contextlib.suppress(ImportError):
        plot_layer_curve(layers, table, path.with_suffix(".png"))


class _Table:
    """Vectors and classes of the training and validation part, then the test part."""

    def __init__(
        self,
        features: UtteranceFeatures,
        parts: Mapping[str, Sequence[Labelled]],
        class_names: Sequence[str],
    ) -> None:
        items = [item for name in ("train", "valid") for item in parts.get(name, ())]
        items.sort(key=lambda item: item.utterance.id)
        self.n_fit = len(items)
        number = {name: k for k, name in enumerate(class_names)}
        self.labels = np.array([number[item.label] for item in items])
        self.test_labels = np.array([number[item.label] for item in parts["test"]])
        utterances = [item.utterance for item in (*items, *parts["test"])]
        self._ids = [utterance.id for utterance in utterances]
        self._corpora = np.array([utterance.corpus for utterance in utterances])
        self.speakers = [utterance.speaker or "" for utterance in utterances]
        self._features = features

    def vectors(
        self, layer: int, pooling: str, kind: str, dtype: type = np.float32
    ) -> tuple[Floats, Floats | None, Floats | None]:
        """Returns standardised vectors; mean and deviation if all share them."""
        x: Floats = self._features.matrix(self._ids, layer, pooling)
        x = x.astype(dtype, copy=False)
        if kind == "none":
            return x, np.zeros(x.shape[1]), np.ones(x.shape[1])
        if kind == "corpus":
            trained = set(self._corpora[: self.n_fit])
            groups = np.where(
                [name in trained for name in self._corpora], self._corpora, "others"
            )
            seen = np.arange(len(x)) < self.n_fit
        else:
            own_corpus = kind == "own_corpus"
            groups = self._corpora if own_corpus else np.array(self.speakers)
            seen = np.ones(len(x), bool)
        if len(set(groups)) == 1:  # in place
            mean, std = standardiser(x[: np.count_nonzero(seen)])
            x -= mean
            x /= std
            return (x, mean, std) if kind == "corpus" else (x, None, None)
        for name in set(groups):
            own = groups == name
            mean, std = standardiser(x[own & seen if (own & seen).any() else seen])
            x[own] = (x[own] - mean) / std
        return x, None, None


def leaks_by_validation(parts: Mapping[str, Sequence[Labelled]]) -> bool:
    """Returns whether validation shares with the test part what training does not.

    Arguments
    ---------
    parts : mapping
        ``train``, ``valid`` and ``test`` to utterances.

    Returns
    -------
    bool
        True: fitting on the validation part would be a leak of speakers or texts.
    """
    for key in ("speaker", "text_id"):
        train, valid, test = (
            {getattr(item.utterance, key) for item in parts.get(name, ())} - {None}
            for name in PARTS
        )
        if test & valid and not test & train:
            return True
    return False


def _uar(labels: Integers, predictions: Integers, n_classes: int) -> float:
    return float(classification_metrics(labels, predictions, n_classes)["uar"])


def _known(what: str, found: Sequence[Any], known: Any) -> None:
    for one in found:
        if one not in known:
            raise ValueError(
                f"{what}: found {one!r}, {did_you_mean(one, map(str, known))}expected "
                f"one of {', '.join(map(str, known))}"
            )
    if not found:
        raise ValueError(f"{what}: found none, expected one or more")
