"""Features of whole utterances for a linear probe, computed once and kept.

Of a pretrained encoder: mean and standard deviation over time of every layer. Without
one: statistics of a log-mel spectrogram, eGeMAPS and ComParE by openSMILE.
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

# Of a batch on the CPU, where a longer one is no faster, and on a GPU.
_BATCH_SECONDS = {"cpu": 30.0, "cuda": 480.0}


class UtteranceFeatures:
    """Vectors of utterances, one for each layer, from a cache.

    Arguments
    ---------
    name : str
        ``log_mel``, ``egemaps`` or ``compare``; or anything, with a backbone.
    backbone : WeightedSSL, optional
        Its encoder's layers are taken, whether they are trained or not, in evaluation
        mode, at its device. Of what is longer than it takes the middle is used.
    folder : str or pathlib.Path, optional
        Of all caches; see
        :func:`~speechbrain_ser_cl.data.features.place.features_folder`.

    Attributes
    ----------
    n_layers : int
        How many layers there are: the encoder's and its input; else 1.
    poolings : tuple of str
        ``("mean", "statistics")``, the second being mean and standard deviation; the
        one there is for functionals.

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
            self._extract: Callable[[list[Tensor]], list[Tensor]] = self._layers
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

    def fill(self, utterances: Sequence[Utterance]) -> int:
        """Compute missing features; see ``FeatureCache.fill``.

        Arguments
        ---------
        utterances : sequence of Utterance
            All that will be asked for.

        Returns
        -------
        int
            How many were computed.

        Raises
        ------
        ValueError
            As ``FeatureCache.fill`` does.
        """
        seconds = _BATCH_SECONDS.get(self._device.type, _BATCH_SECONDS["cuda"])
        return self.cache.fill(utterances, self._extract, batch_seconds=seconds)

    def matrix(self, ids: Sequence[str], layer: int, pooling: str) -> np.ndarray:
        """Give the vectors of some utterances.

        Arguments
        ---------
        ids : sequence of str
            N ids, all of them given to :meth:`fill`.
        layer : int
            From 0, the input of the lowest transformer layer, on.
        pooling : str
            One of ``poolings``.

        Returns
        -------
        numpy.ndarray
            Float32, (N, D); (N, 2 D) for ``statistics``.
        """
        rows = slice(0, 1) if pooling == "mean" else slice(None)
        first = self.cache[ids[0]][layer, rows].numel()
        matrix = np.empty((len(ids), first), np.float32)
        for row, name in zip(matrix, ids, strict=True):
            row[:] = self.cache[name][layer, rows].flatten().numpy()
        return matrix

    def _layers(self, wavs: list[Tensor]) -> list[Tensor]:
        """Statistics (L + 1, 2, D) of each waveform."""
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
    """Load an encoder, or a front end without one, for a probe.

    Arguments
    ---------
    encoder : str
        Hub id or folder; or one of ``BASELINES``.
    revision : str, optional
        On the hub.
    folder : str or pathlib.Path, optional
        Where features are kept.

    Returns
    -------
    UtteranceFeatures
        On a GPU, if there is one.

    Raises
    ------
    ValueError
        For an encoder that cannot be loaded.

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
    r"""Compute once what a frozen encoder and a pooling without weights give.

    The weighted sum of layers and the mean over time commute,

    .. math::
        \frac{1}{T} \sum_t \sum_l w_l h_{l,t} = \sum_l w_l \frac{1}{T} \sum_t h_{l,t}

    so that the layer weights are trained as ever. With mean and standard deviation the
    same is so for one layer. Features are those of :class:`UtteranceFeatures`: a probe
    shares them.

    Arguments
    ---------
    encoder : UtteranceEncoder
        Of a ``WeightedSSL``. Is told to read what is computed here.
    utterances : sequence of Utterance
        All that will be read.
    folder : str or pathlib.Path, optional
        Where features are kept.

    Returns
    -------
    callable or None
        ``read(utterance)``: (K, D), each of the backbone's ``layers``. None where that
        is not enough: the encoder is trained, or the pooling is another one.
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
    """One row each; a functional that openSMILE finds no number for is 0."""
    tables = [smile.process_signal(wav.numpy(), SAMPLE_RATE) for wav in wavs]
    rows = [
        torch.from_numpy(table.to_numpy(dtype="float32").copy()) for table in tables
    ]
    return [row.nan_to_num(0.0, 0.0, 0.0).view(1, 1, -1) for row in rows]
