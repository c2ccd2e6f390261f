"""Pretrained speech encoder whose layers are mixed by learned weights."""

import warnings
from collections.abc import Iterator, Mapping
from pathlib import Path

import torch
from torch import Tensor, nn
from torch.nn import functional as F

from speechbrain_ser_cl.backbones.encoders import load_encoder
from speechbrain_ser_cl.nnet.lengths import valid_counts
from speechbrain_ser_cl.registry import BACKBONES


@BACKBONES.register("weighted_ssl")
class WeightedSSL(nn.Module):
    r"""wav2vec 2.0, HuBERT, WavLM or Whisper encoder with a learned sum of layers.

    .. math::
        h = \sum_{l=0}^{L} \mathrm{softmax}(w)_l \, h_l

    h_0 is the input of the first of L transformer layers and h_l the output of
    layer l, exactly the ``hidden_states`` of transformers (13 for a base model);
    w starts at 0, the plain mean. Yang et al., "SUPERB", Interspeech 2021. The sum
    runs along with the layers, so that without gradients one layer at a time is in
    memory. With gradients autograd keeps each h_l once, for the weights.

    Padding does not change the frames of an utterance in Whisper and in models with
    ``feat_extract_norm: layer`` (wav2vec2-large-lv60, XLS-R, hubert-large,
    wavlm-large). In models with ``feat_extract_norm: group`` (wav2vec2-base,
    hubert-base, wavlm-base, wavlm-base-plus) it does: their first GroupNorm takes
    its statistics over the padding as well. In base models with random weights the
    frames of a spoken second changed by 4 % in a batch 1.1 times as long, 17 % at
    1.5 times, 28 % at 2 times and 50 % at 4 times: batch utterances of like length.

    What is frozen stays in evaluation mode, whatever ``train()`` is called with, and
    keeps no gradients: no dropout, the same output at every call. The layer weights
    are trained even so. SpecAugment and LayerDrop are off.

    Arguments
    ---------
    source : str or pathlib.Path or dict
        Hub id, local folder, or the configuration of a model to be initialised at
        random: ``model_type`` (wav2vec2, hubert, wavlm, whisper) and whatever differs
        from that type's defaults.
    revision : str, optional
        Commit, tag or branch on the hub; pin it for runs to be repeatable.
    save_path : str or pathlib.Path, optional
        Folder for downloads. None: the hub's own cache.
    freeze : str or int
        ``"none"``; ``"frontend"``: the convolutions and, but for Whisper, the feature
        projection; an int n: the front end and the n lowest transformer layers (with
        n of at least 1 the position embedding too), so that 0 is ``"frontend"``;
        ``"all"``.

    Attributes
    ----------
    output_size : int
        Size D of a frame.
    hop : int
        Samples from one frame to the next, 320 for all published models.
    n_layers : int
        Number L of transformer layers.
    layer_weights : torch.nn.Parameter
        w (L + 1,), before the softmax.

    Raises
    ------
    ValueError
        If the source cannot be loaded, see
        :func:`~speechbrain_ser_cl.backbones.encoders.load_encoder`, or ``freeze`` is
        none of the above.

    Example
    -------
    >>> config = {"model_type": "whisper", "d_model": 16, "encoder_layers": 2,
    ...     "encoder_attention_heads": 2, "encoder_ffn_dim": 32}
    >>> backbone = WeightedSSL(config, freeze="frontend")
    >>> wavs, lengths = torch.randn(2, 16000), torch.tensor([1.0, 0.5])
    >>> backbone(wavs, lengths).shape
    torch.Size([2, 50, 16])
    >>> backbone.frame_lengths(lengths, n_samples=16000)
    tensor([1.0000, 0.5000])
    >>> backbone.weights
    tensor([0.3333, 0.3333, 0.3333], grad_fn=<SoftmaxBackward0>)
    """

    def __init__(
        self,
        source: str | Path | Mapping,
        revision: str | None = None,
        save_path: str | Path | None = None,
        freeze: str | int = "none",
    ) -> None:
        super().__init__()
        self.encoder = load_encoder(source, revision, save_path)
        self.output_size = self.encoder.output_size
        self.hop = self.encoder.hop
        self.n_layers = len(self.encoder.stages) - 1
        self.layer_weights = nn.Parameter(torch.zeros(self.n_layers + 1))

        self._n_frozen_stages = self._frozen_stages(freeze)
        # Trained is what a stage says; parameters that no hidden state needs (such as
        # SpecAugment's mask vector) would make DistributedDataParallel fail.
        self.encoder.requires_grad_(False)
        for module in self._trained_modules():
            module.requires_grad_(True)
        self.train()
        self._warned = False

    @property
    def weights(self) -> Tensor:
        """Share of each representation in the sum (n_layers + 1,), adding up to 1."""
        return self.layer_weights.softmax(dim=0)

    def forward(self, wavs: Tensor, lengths: Tensor | None = None) -> Tensor:
        """Encodes a batch.

        Arguments
        ---------
        wavs : torch.Tensor
            Waveforms (B, T), 16 kHz. Shorter than the receptive field (400 samples),
            they are padded with zeros, with a warning the first time.
        lengths : torch.Tensor, optional
            Relative lengths in samples (B,), in (0, 1]. None: no padding.

        Returns
        -------
        torch.Tensor
            Frames (B, T', D). How many belong to each utterance says
            :meth:`frame_lengths`; those after are of no meaning.

        Raises
        ------
        ValueError
            If a shape is not as above, or a Whisper model is given more than 30 s.
        """
        layers = zip(self.weights, self.hidden_states(wavs, lengths), strict=True)
        return sum(weight * hidden for weight, hidden in layers)

    def hidden_states(
        self, wavs: Tensor, lengths: Tensor | None = None
    ) -> Iterator[Tensor]:
        """Yields the representations one by one, for instance to probe each layer.

        Arguments
        ---------
        wavs : torch.Tensor
            Waveforms (B, T), 16 kHz.
        lengths : torch.Tensor, optional
            Relative lengths in samples (B,), in (0, 1]. None: no padding.

        Yields
        ------
        torch.Tensor
            Frames (B, T', D), n_layers + 1 times.

        Raises
        ------
        ValueError
            If a shape is not as above, or a Whisper model is given more than 30 s.

        Example
        -------
        >>> config = {"model_type": "whisper", "d_model": 16, "encoder_layers": 2,
        ...     "encoder_attention_heads": 2, "encoder_ffn_dim": 32}
        >>> backbone = WeightedSSL(config, freeze="all")
        >>> [h.mean(dim=1).shape for h in backbone.hidden_states(torch.randn(4, 8000))]
        [torch.Size([4, 16]), torch.Size([4, 16]), torch.Size([4, 16])]
        """
        if wavs.dim() != 2 or (lengths is not None and lengths.shape != wavs.shape[:1]):
            found = None if lengths is None else tuple(lengths.shape)
            raise ValueError(
                "WeightedSSL expects waveforms (B, T) and relative lengths (B,), "
                f"found {tuple(wavs.shape)} and {found}"
            )
        if lengths is None:
            lengths = torch.ones(len(wavs), device=wavs.device)
        counts = valid_counts(lengths, wavs.shape[1])
        needed = self.encoder.receptive_field
        if not self._warned and counts.min() < needed:
            self._warned = True
            warnings.warn(
                f"an utterance of {counts.min()} samples is shorter than the {needed} "
                "that the encoder needs for one frame; such are padded with zeros",
                stacklevel=2,
            )
        wavs = F.pad(wavs, (0, max(0, needed - wavs.shape[1])))
        if self._n_frozen_stages > 0:
            # Only a waveform that wants a gradient could still make frozen stages
            # build a graph.
            wavs = wavs.detach()
        yield from self.encoder.hidden_states(wavs, counts)

    def frame_lengths(self, lengths: Tensor, n_samples: int) -> Tensor:
        """Relative lengths in frames, for a pooling over the output.

        The relative lengths of the waveforms say exactly how many samples are valid,
        but not how many frames: samples at the end of an utterance and of the batch
        that fill no frame are counted in them.

        Arguments
        ---------
        lengths : torch.Tensor
            Relative lengths in samples (B,), in (0, 1].
        n_samples : int
            Padded length T of the waveforms.

        Returns
        -------
        torch.Tensor
            Valid frames of each utterance, as the encoder's attention counts them,
            divided by the number of frames T' (B,).
        """
        counts = valid_counts(lengths, n_samples)
        frames = self.encoder.n_frames(counts)
        return frames / self.encoder.n_frames(torch.full_like(counts, n_samples))

    def train(self, mode: bool = True) -> "WeightedSSL":
        """Sets training mode for what is trained; what is frozen stays in eval mode.

        Arguments
        ---------
        mode : bool
            True for training, False for evaluation.

        Returns
        -------
        WeightedSSL
            The backbone itself.
        """
        super().train(mode)
        self.encoder.eval()
        for module in self._trained_modules():
            module.train(mode)
        return self

    def _trained_modules(self) -> Iterator[nn.Module]:
        for stage in self.encoder.stages[self._n_frozen_stages :]:
            yield from stage

    def _frozen_stages(self, freeze: str | int) -> int:
        """How many of the encoder's stages are frozen, from the lowest on."""
        named = {"none": 0, "frontend": 1, "all": self.n_layers + 1}
        if isinstance(freeze, str) and freeze in named:
            return named[freeze]
        is_int = isinstance(freeze, int) and not isinstance(freeze, bool)
        if is_int and 0 <= freeze <= self.n_layers:
            return freeze + 1
        raise ValueError(
            f"freeze must be 'none', 'frontend', 'all' or the number of lowest layers "
            f"to freeze, from 0 to {self.n_layers}; found {freeze!r}"
        )
