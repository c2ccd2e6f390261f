"""Frozen speaker embeddings of ECAPA-TDNN as an utterance encoder."""

from collections.abc import Mapping
from pathlib import Path
from typing import Any

import torch
from speechbrain.lobes.features import Fbank
from speechbrain.lobes.models.ECAPA_TDNN import ECAPA_TDNN
from torch import Tensor, nn
from transformers.utils.hub import cached_file

from speechbrain_ser_cl.nnet.lengths import valid_counts
from speechbrain_ser_cl.registry import BACKBONES

WEIGHTS = "embedding_model.ckpt"
_PUBLISHED = {
    "n_mels": 80,
    "channels": [1024, 1024, 1024, 1024, 3072],
    "kernel_sizes": [5, 3, 3, 3, 1],
    "attention_channels": 128,
    "size": 192,
}
_DILATIONS = [1, 2, 3, 4, 1]
_LARGEST_SIZE = 8192


@BACKBONES.register("ecapa")
class ECAPAEncoder(nn.Module):
    """Encodes utterances by SpeechBrain's ECAPA-TDNN (Desplanques et al. 2020).

    Speaker embeddings describe the voice, and so in part the emotion. As a baseline
    they show how much of a result depends on the speaker. The encoder is frozen and in
    evaluation mode; each utterance is encoded alone, so padding has no influence. The
    output has no time dimension: use it without a pooling.

    Arguments
    ---------
    source : str or pathlib.Path or dict
        Hub id, such as ``speechbrain/spkrec-ecapa-voxceleb``, or local folder with
        ``embedding_model.ckpt``; or sizes of a random model where they differ from the
        published ones: ``n_mels``, ``channels``, ``kernel_sizes``,
        ``attention_channels``, ``size``.
    revision : str, optional
        Commit, tag or branch on the hub.
    save_path : str or pathlib.Path, optional
        Folder for downloads. None: the hub's cache.

    Attributes
    ----------
    output_size : int
        Size of the embedding; 192 in the published model.
    hop : None
        None, because there is one vector per utterance.

    Raises
    ------
    ValueError
        If the weights do not exist, or are not those of an ECAPA-TDNN.

    Example
    -------
    >>> encoder = ECAPAEncoder({"n_mels": 8, "channels": [8] * 4 + [24], "size": 6})
    >>> encoder(torch.randn(2, 8000), torch.tensor([1.0, 0.5])).shape
    torch.Size([2, 6])
    """

    hop = None

    def __init__(
        self,
        source: str | Path | Mapping[str, Any],
        revision: str | None = None,
        save_path: str | Path | None = None,
    ) -> None:
        super().__init__()
        weights = None
        if isinstance(source, Mapping):
            sizes = {**_PUBLISHED, **source}
        else:
            weights = _read(source, revision, save_path)
            sizes = _sizes(source, weights)
        _check_sizes(sizes)
        self.sizes = sizes
        self.features = Fbank(n_mels=sizes["n_mels"])
        self.model = ECAPA_TDNN(
            sizes["n_mels"],
            channels=sizes["channels"],
            kernel_sizes=sizes["kernel_sizes"],
            dilations=_DILATIONS,
            attention_channels=sizes["attention_channels"],
            lin_neurons=sizes["size"],
            res2net_scale=min(8, *sizes["channels"][1:-1]),
        )
        if weights is not None:
            try:
                self.model.load_state_dict(weights)
            except RuntimeError as error:
                why = " ".join(str(error).split())
                raise ValueError(f"{source}: no ECAPA-TDNN: {why:.300}") from error
        self.requires_grad_(False)
        self.train(False)
        self.output_size = int(sizes["size"])

    @classmethod
    def from_arguments(cls, arguments: Mapping[str, Any]) -> "ECAPAEncoder":
        """Builds an untrained encoder from what :meth:`arguments` returned."""
        source = arguments.get("source")
        if set(arguments) != {"source"} or not isinstance(source, Mapping):
            raise ValueError("expected a 'source' with the sizes of an ECAPA-TDNN")
        return cls(source)

    def arguments(self) -> dict[str, Any]:
        """Returns keyword arguments that build a module like this one."""
        return {"source": self.sizes}

    def train(self, mode: bool = True) -> "ECAPAEncoder":
        """Stays in evaluation mode, because the encoder is frozen."""
        super().train(False)
        return self

    @torch.no_grad()
    def forward(self, wavs: Tensor, lengths: Tensor | None = None) -> Tensor:
        """Encodes waveforms.

        Arguments
        ---------
        wavs : torch.Tensor
            Waveforms (B, T), 16 kHz.
        lengths : torch.Tensor, optional
            Relative lengths (B,), in (0, 1]. None: no padding.

        Returns
        -------
        torch.Tensor
            One vector per utterance (B, output_size).
        """
        counts = [wavs.shape[1]] * len(wavs)
        if lengths is not None:
            counts = valid_counts(lengths, wavs.shape[1]).tolist()
        rows = []
        for wav, count in zip(wavs.float(), counts, strict=True):
            x = self.features(wav[None, : int(count)])
            # SpeechBrain's sentence normalisation, without division by the deviation.
            rows.append(self.model(x - x.mean(dim=1, keepdim=True))[:, 0])
        return torch.cat(rows)


def _read(
    source: str | Path, revision: str | None, save_path: str | Path | None
) -> dict[str, Tensor]:
    """Returns the state of the model; only tensors are read from a pickle."""
    try:
        path = cached_file(
            str(source), WEIGHTS, revision=revision or "main", cache_dir=save_path
        )
        state = torch.load(str(path), map_location="cpu", weights_only=True)
        return {str(name): tensor.float() for name, tensor in state.items()}
    except Exception as error:  # damaged files may raise anything
        why = " ".join(str(error).split())
        raise ValueError(
            f"could not load {WEIGHTS} of {source}: {why:.300}. Expected a folder with "
            "that file, or a hub id such as speechbrain/spkrec-ecapa-voxceleb"
        ) from error


def _sizes(source: object, weights: Mapping[str, Tensor]) -> dict[str, Any]:
    """Returns the sizes of a model from the shapes of its weights."""
    try:
        first, last = (
            weights[f"{name}.conv.conv.weight"].shape for name in ("blocks.0", "mfa")
        )
        inner = [
            (
                weights[f"blocks.{k}.tdnn1.conv.conv.weight"].shape[0],
                weights[f"blocks.{k}.res2net_block.blocks.0.conv.conv.weight"].shape[2],
            )
            for k in (1, 2, 3)
        ]
        return {
            "n_mels": first[1],
            "channels": [first[0], *(n for n, _ in inner), last[0]],
            "kernel_sizes": [first[2], *(k for _, k in inner), last[2]],
            "attention_channels": weights["asp.tdnn.conv.conv.weight"].shape[0],
            "size": weights["fc.conv.weight"].shape[0],
        }
    except (KeyError, IndexError) as error:
        raise ValueError(
            f"{source}: {WEIGHTS} contains no ECAPA-TDNN (no {error})"
        ) from error


def _check_sizes(sizes: Mapping[str, Any]) -> None:
    """Raises a ValueError for unknown names, wrong types and sizes out of range."""
    unknown = sorted(set(sizes) - set(_PUBLISHED))
    if unknown:
        raise ValueError(f"unknown sizes {unknown}; known are {', '.join(_PUBLISHED)}")
    for key, published in _PUBLISHED.items():
        found = sizes[key]
        if isinstance(published, list):
            right = isinstance(found, list) and len(found) == len(published)
            numbers = found if right else []
        else:
            right, numbers = True, [found]
        if not right or not all(
            isinstance(n, int) and 0 < n <= _LARGEST_SIZE for n in numbers
        ):
            raise ValueError(
                f"{key} is {found!r:.60}, expected a value such as {published}"
            )
