"""Computes and caches features of whole utterances for a linear probe.

They are mean and standard deviation over time of each layer of a pretrained encoder, or
of a log-mel spectrogram; or eGeMAPS or ComParE by openSMILE.
"""

from collections.abc import Callable, Sequence
from functools import partial
from pathlib import Path
from typing import Any

import numpy as np
import torch
from torch import Tensor

from speechbrain_ser_cl.backbones import LogMel, WeightedSSL
from speechbrain_ser_cl.corpora.utterance import Utterance
from speechbrain_ser_cl.data.dataset import Read, middle, steps_of
from speechbrain_ser_cl.data.features.cache import FeatureCache, weights_hash
from speechbrain_ser_cl.data.features.place import features_folder
from speechbrain_ser_cl.nnet import (
    MeanPooling,
    StatisticsPooling,
    UtteranceEncoder,
)
from speechbrain_ser_cl.utils.audio import SAMPLE_RATE

BASELINES = ("log_mel", "egemaps", "compare")
"""Features that need no encoder."""

# Seconds per batch, on a CPU (where longer batches are not faster) and on a GPU.
_BATCH_SECONDS = {"cpu": 30.0, "cuda": 480.0}


class UtteranceFeatures:
    """Computes and caches vectors of utterances, one per layer.

    Arguments
    ---------
    name : str
        ``log_mel``, ``egemaps`` or ``compare``; or any name, with a backbone.
    backbone : WeightedSSL, optional
        Encoder whose layers are used, trained or not, in evaluation mode, on its
        device. If an utterance is longer than it accepts, the middle part is used.
    folder : str or pathlib.Path, optional
        Folder of all caches; see
        :func:`~speechbrain_ser_cl.data.features.place.features_folder`.

    Attributes
    ----------
    n_layers : int
        Number of layers: the encoder's and its input; else 1.
    poolings : tuple of str
        ``("mean", "statistics")``, where ``statistics`` is mean and standard deviation;
        for functionals only one.

    Raises
    ------
    ValueError
        For an unknown name without a backbone.

    Example
    -------
    >>> from speechbrain_ser_cl.corpora import read_synthetic, write_synthetic
    >>> folder = getfixture("tmp_path")
    >>> utterances = read_synthetic(write_synthetic(
    ...     folder / "demo", "synthetic_source", n_speakers=1, utterances_per_speaker=4
    ... ))
    >>> features = UtteranceFeatures("log_mel", folder=folder / "features")
    >>> features.fill(utterances)
    4
    >>> ids = [utterance.id for utterance in utterances]
    >>> features.matrix(ids, layer=0, pooling="statistics").shape
    (4, 128)
    """

    def __init__(
        self,
        name: str,
        backbone: WeightedSSL | None = None,
        folder: str | Path | None = None,
    ) -> None:
        self.name, self.backbone = name, backbone
        self.n_layers = 1
        self.poolings: tuple[str, ...] = ("mean", "statistics")
        self._device = torch.device("cpu")
        key: dict[str, Any]
        if backbone is not None:
            self.n_layers = backbone.n_layers + 1
            self._device = backbone.layer_weights.device
            key = {
                "features": "mean and standard deviation over time, per layer",
                "weights": weights_hash(backbone.encoder),
                "architecture": backbone.arguments()["source"],
                "padded_group_norm": backbone.encoder.padded_group_norm,
            }
            self._extract: Callable[[list[Tensor]], list[Tensor]] = self.layers
        elif name == "log_mel":
            key = {"features": "mean and standard deviation of LogMel, 64 bands"}
            self._extract = _log_mel
        elif name in BASELINES:
            self.poolings = ("functionals",)
            smile = _open_smile(name)
            key = {"features": f"openSMILE {smile.feature_set.value}"}
            self._extract = partial(_functionals, smile)
        else:
            raise ValueError(
                f"features: found {name!r}, expected an encoder or one of "
                f"{', '.join(BASELINES)}"
            )
        self.cache = FeatureCache(features_folder(folder), key, "float32")
        self._views: dict[str, np.ndarray] = {}

    def fill(self, utterances: Sequence[Utterance]) -> int:
        """Computes missing features; see ``FeatureCache.fill``.

        Arguments
        ---------
        utterances : sequence of Utterance
            All utterances that will be read.

        Returns
        -------
        int
            Number of computed utterances.

        Raises
        ------
        ValueError
            From ``FeatureCache.fill``.
        """
        self._views.clear()
        seconds = _BATCH_SECONDS.get(self._device.type, _BATCH_SECONDS["cuda"])
        return self.cache.fill(utterances, self._extract, batch_seconds=seconds)

    def matrix(self, ids: Sequence[str], layer: int, pooling: str) -> np.ndarray:
        """Returns the vectors of some utterances.

        Arguments
        ---------
        ids : sequence of str
            N ids that were given to :meth:`fill`.
        layer : int
            Number of the layer, from 0, the input of the lowest transformer layer.
        pooling : str
            One of ``poolings``.

        Returns
        -------
        numpy.ndarray
            Float32, (N, D); (N, 2 D) for ``statistics``.
        """
        rows = slice(0, 1) if pooling == "mean" else slice(None)
        for name in ids:
            if name not in self._views:
                self._views[name] = self.cache[name].numpy()
        found = np.stack([self._views[name][layer, rows] for name in ids])
        return found.reshape(len(ids), -1)

    def layers(self, wavs: list[Tensor]) -> list[Tensor]:
        """Computes the statistics (L + 1, 2, D) of each waveform."""
        backbone, pool = self.backbone, StatisticsPooling()
        assert backbone is not None
        backbone.eval()
        wavs = [middle(wav, steps_of(backbone.max_seconds)) for wav in wavs]
        counts = torch.tensor([len(wav) for wav in wavs])
        batch = torch.nn.utils.rnn.pad_sequence(wavs, batch_first=True)
        batch, n_samples = batch.to(self._device), batch.shape[1]
        lengths = (counts / n_samples).to(self._device)
        frames = backbone.frame_lengths(lengths, n_samples)
        layers = [
            pool(states.float(), frames)
            for states in backbone.hidden_states(batch, lengths)
        ]
        stacked = torch.stack(layers, 1)
        return list(stacked.view(len(wavs), len(layers), 2, -1).unbind())


def load_features(
    encoder: str, revision: str | None = None, folder: str | Path | None = None
) -> UtteranceFeatures:
    """Loads an encoder, or a front end without one, for a probe.

    Arguments
    ---------
    encoder : str
        Hub id or folder; or one of ``BASELINES``.
    revision : str, optional
        Revision on the hub.
    folder : str or pathlib.Path, optional
        Folder of the features.

    Returns
    -------
    UtteranceFeatures
        On a GPU, if there is one.

    Raises
    ------
    ValueError
        If the encoder cannot be loaded.

    Example
    -------
    >>> load_features("log_mel", folder=getfixture("tmp_path")).n_layers
    1
    """
    if encoder in BASELINES:
        return UtteranceFeatures(encoder, folder=folder)
    device = "cuda" if torch.cuda.is_available() else "cpu"
    backbone = WeightedSSL(encoder, revision, freeze="all").to(device)
    return UtteranceFeatures(Path(encoder).name, backbone, folder)


def keep_pooled(
    encoder: UtteranceEncoder,
    utterances: Sequence[Utterance],
    folder: str | Path | None = None,
) -> Read | None:
    r"""Computes the pooled output of a frozen encoder once.

    The weighted sum of layers and the mean over time commute,

    .. math::
        \frac{1}{T} \sum_t \sum_l w_l h_{l,t} = \sum_l w_l \frac{1}{T} \sum_t h_{l,t}

    so the layer weights can be trained as usual. With mean and standard deviation this
    holds for a single layer. The features are those of :class:`UtteranceFeatures` and
    shared with a probe.

    Arguments
    ---------
    encoder : UtteranceEncoder
        Encoder with a ``WeightedSSL``. Its ``reads`` is set.
    utterances : sequence of Utterance
        All utterances that will be read.
    folder : str or pathlib.Path, optional
        Folder of the features.

    Returns
    -------
    callable or None
        ``read(utterance)``: (K, D), one row per layer of the backbone's ``layers``.
        None if this is not possible: the encoder is trained, or the pooling has
        weights.
    """
    backbone, pooling = encoder.backbone, type(encoder.pooling)
    mean, one = pooling is MeanPooling, len(backbone.layers) == 1
    trained = any(part.requires_grad for part in backbone.encoder.parameters())
    if trained or not (mean or (pooling is StatisticsPooling and one)):
        return None
    features = UtteranceFeatures("encoder", backbone, folder)
    features.fill(utterances)
    encoder.reads = "pooled"
    return partial(_pooled, features.cache, backbone.layers, 1 if mean else 2)


def _pooled(
    cache: FeatureCache, layers: list[int], rows: int, utterance: Utterance
) -> Tensor:
    return cache[utterance.id][layers, :rows].flatten(1)


def _log_mel(wavs: list[Tensor]) -> list[Tensor]:
    mel, pool = LogMel(), StatisticsPooling()
    return [pool(mel(wav[None])).view(1, 2, -1) for wav in wavs]


def _open_smile(name: str) -> Any:
    try:
        from opensmile import FeatureLevel, FeatureSet, Smile
    except ImportError as error:
        raise ImportError(
            f"{name} needs openSMILE, which is free for research only: "
            "pip install 'speechbrain_ser_cl[egemaps]'"
        ) from error
    sets = {"egemaps": FeatureSet.eGeMAPSv02, "compare": FeatureSet.ComParE_2016}
    return Smile(sets[name], FeatureLevel.Functionals)


def _functionals(smile: Any, wavs: list[Tensor]) -> list[Tensor]:
    """Computes one row per waveform; a functional that is not a number becomes 0."""
    tables = [smile.process_signal(wav.numpy(), SAMPLE_RATE) for wav in wavs]
    rows = [
        torch.from_numpy(table.to_numpy(dtype="float32").copy()) for table in tables
    ]
    return [row.nan_to_num(0.0, 0.0, 0.0).view(1, 1, -1) for row in rows]
