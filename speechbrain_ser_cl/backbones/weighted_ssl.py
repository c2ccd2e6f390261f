"""Pretrained speech encoder with a learned weighted sum of its layers."""

import warnings
from collections.abc import Iterator, Mapping, Sequence
from itertools import chain, islice
from pathlib import Path
from typing import Any

import torch
from torch import Tensor, nn
from torch.nn import functional as F

from speechbrain_ser_cl.backbones.loading import (
    architecture,
    check_arguments,
    load_encoder,
)
from speechbrain_ser_cl.backbones.lora import add_lora, merge_lora
from speechbrain_ser_cl.backbones.packing import Packing
from speechbrain_ser_cl.nnet.lengths import valid_counts
from speechbrain_ser_cl.registry import BACKBONES


@BACKBONES.register("weighted_ssl")
class WeightedSSL(nn.Module):
    r"""Encodes speech by a pretrained encoder with a learned sum of its layers.

    Supports wav2vec 2.0 (also MMS and XLS-R), HuBERT, WavLM, Whisper, data2vec-audio,
    UniSpeech, UniSpeech-SAT, SEW and wav2vec2-BERT.

    .. math::
        h = \sum_{l=0}^{L} \mathrm{softmax}(w)_l \, h_l

    h_0 is the input of the first of L transformer layers and h_l the output of layer l.
    They equal the ``hidden_states`` of transformers (13 for a base model). w starts at
    0, so h starts as the mean. Yang et al., "SUPERB", Interspeech 2021. ``layers``
    selects some of the representations; layers above the highest selected one do not
    run.

    The sum is updated layer by layer, so that without gradients one layer is in memory
    at a time; with gradients autograd stores each h_l once, for the weights.

    Padding does not change the frames of an utterance. Normalisations over time use its
    own samples only: that of the waveform, and that of the first layer in models with
    ``feat_extract_norm: group``, such as wav2vec2-base, hubert-base and wavlm-base.

    Frozen parts stay in evaluation mode for any ``train()`` call and store no
    gradients: no dropout, the same output in every call. The layer weights are always
    trained. LayerDrop is not used, SpecAugment only if requested.

    The output of frozen layers need not be computed in every epoch:
    :meth:`frozen_states` computes it, and ``forward`` accepts it as input.

    Arguments
    ---------
    source : str or pathlib.Path or dict
        Hub id, local folder, or the configuration of a randomly initialised model:
        ``model_type`` (wav2vec2, hubert, wavlm, whisper, data2vec-audio, unispeech,
        unispeech-sat, sew, wav2vec2-bert) and options that differ from that type's
        defaults.
    revision : str, optional
        Commit, tag or branch on the hub; set it to make runs repeatable.
    save_path : str or pathlib.Path, optional
        Folder for downloads. None: the hub's cache.
    freeze : str or int
        ``"none"``; ``"frontend"``: the convolutions and, except for Whisper, the
        feature projection; an int n: the front end and the n lowest transformer layers
        (for n of at least 1 the position embedding too), so 0 is ``"frontend"``;
        ``"all"``.
    layers : sequence of int, optional
        Numbers of the representations in the sum: 0 to L, negative ones from the end.
        [-1] is the last layer alone. None: all.
    lora : mapping, optional
        Trains low-rank updates instead of the weights, in the layers that are not
        frozen: keyword arguments of ``peft.LoraConfig`` such as ``{"r": 8}``. Default
        ``target_modules``: q_proj and v_proj; see
        :func:`~speechbrain_ser_cl.backbones.lora.add_lora`. Needs the extra ``peft``.
    padded_group_norm : bool
        True: in models with ``feat_extract_norm: group`` the normalisation of the first
        layer includes the padding, as in transformers, so an utterance's frames depend
        on the batch. No effect on other models.
    gradient_checkpointing : bool
        True: only the input of each trained transformer layer is stored for the
        backward pass, and the rest is computed again. Less memory, about a third more
        time. Same as ``encoder.model.gradient_checkpointing_enable()``.
    spec_augment : bool
        True: in training, spans of the input of the lowest transformer layer (for
        Whisper: of the spectrogram) are masked by the options ``mask_time_prob``,
        ``mask_feature_prob`` etc. of the encoder's configuration. No effect if that
        layer (that front end) is frozen.

    Attributes
    ----------
    output_size : int
        Size D of a frame.
    hop : int
        Samples between frames, 320 for all published models.
    n_layers : int
        Number L of transformer layers.
    layers : list of int
        Numbers of the representations that are summed, sorted.
    kept : list of int
        Numbers of the representations in :meth:`frozen_states`; empty if no transformer
        layer is frozen.
    max_seconds : float or None
        Longest utterance that the encoder accepts. None: no limit.
    stages : list of list of torch.nn.Module
        Modules of the front end, then those that each transformer layer adds.
    layer_weights : torch.nn.Parameter
        w (L + 1,), or one per entry of ``layers``, before the softmax.

    Raises
    ------
    ValueError
        If the source cannot be loaded, see
        :func:`~speechbrain_ser_cl.backbones.loading.load_encoder`; if ``freeze``,
        ``layers`` or ``lora`` is not as above; or if ``spec_augment`` is True and the
        configuration masks nothing.
    ImportError
        If ``lora`` is given and peft is not installed.

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
        source: str | Path | Mapping[str, Any],
        revision: str | None = None,
        save_path: str | Path | None = None,
        freeze: str | int = "none",
        layers: Sequence[int] | None = None,
        lora: Mapping[str, Any] | None = None,
        padded_group_norm: bool = False,
        gradient_checkpointing: bool = False,
        spec_augment: bool = False,
    ) -> None:
        super().__init__()
        self.encoder = load_encoder(source, revision, save_path)
        self.encoder.padded_group_norm = padded_group_norm
        if gradient_checkpointing:
            self.encoder.model.gradient_checkpointing_enable()
        config = self.encoder.model.config
        self.encoder.spec_augment = spec_augment
        if spec_augment and not (config.mask_time_prob or config.mask_feature_prob):
            raise ValueError(
                "spec_augment: mask_time_prob and mask_feature_prob of the encoder's "
                "configuration are 0, so nothing would be masked"
            )
        self.output_size = self.encoder.output_size
        self.hop = self.encoder.hop
        self.n_layers = len(self.encoder.stages) - 1
        self.layers = self._summed_layers(layers)
        self.layer_weights = nn.Parameter(torch.zeros(len(self.layers)))
        self.max_seconds = self.encoder.max_seconds

        self.freeze, self.lora = freeze, lora
        self._n_frozen_stages = self._frozen_stages(freeze)
        if lora is not None:  # the front end has no updates
            self._n_frozen_stages = max(1, self._n_frozen_stages)
        top = self.layers[-1]
        self.kept = []
        # The position embedding, which is part of representation 0, is in stage 1.
        if self._n_frozen_stages > 1:
            frozen = range(self._n_frozen_stages)
            self.kept = [n for n in self.layers if n in frozen]
            if top not in frozen and frozen[-1] not in self.kept:
                self.kept.append(frozen[-1])
        # Stages define what is trained; parameters that no hidden state needs (such as
        # SpecAugment's mask vector) would make DistributedDataParallel fail.
        self.encoder.requires_grad_(False)
        if lora is not None:
            add_lora(self.encoder.model, self._trained_modules(), lora)
        else:
            for module in self._trained_modules():
                module.requires_grad_(True)
            mask = getattr(self.encoder.model, "masked_spec_embed", None)
            if spec_augment and mask is not None and config.mask_time_prob > 0:
                mask.requires_grad_(self._n_frozen_stages <= 1 and top > 0)
        self.train()
        self._warned = False

    @property
    def stages(self) -> list[list[nn.Module]]:
        """Modules of the encoder: front end, then those of each transformer layer."""
        return self.encoder.stages

    @property
    def weights(self) -> Tensor:
        """Weights of the ``layers`` in the sum, with sum 1."""
        return self.layer_weights.softmax(dim=0)

    def arguments(self) -> dict[str, Any]:
        """Returns keyword arguments that build such a module with random weights.

        Returns
        -------
        dict
            Plain JSON values. ``source`` is the encoder's architecture, so that neither
            the hub nor the original folder is needed. With LoRA they build the result
            of :meth:`merge_lora`.
        """
        return {
            "source": architecture(self.encoder),
            "freeze": self.freeze,
            "layers": self.layers,
            "padded_group_norm": self.encoder.padded_group_norm,
        }

    @classmethod
    def from_arguments(cls, arguments: Mapping[str, Any]) -> "WeightedSSL":
        """Builds a module only from what :meth:`arguments` returned.

        Arguments
        ---------
        arguments : mapping
            Not trusted: may come with a model from elsewhere.

        Returns
        -------
        WeightedSSL
            Module with random weights.

        Raises
        ------
        ValueError
            If ``source`` is a model to load instead of an architecture, or there are
            other keys than :meth:`arguments` returns.
        """
        check_arguments(arguments, {"source", "freeze", "layers", "padded_group_norm"})
        return cls(**arguments)

    def forward(self, speech: Tensor, lengths: Tensor | None = None) -> Tensor:
        """Encodes a batch.

        Arguments
        ---------
        speech : torch.Tensor
            Waveforms (B, T), 16 kHz. Waveforms shorter than the receptive field (400
            samples) are padded with zeros, with a warning the first time. Or the result
            of :meth:`frozen_states` (B, K, T', D).
        lengths : torch.Tensor, optional
            Relative lengths (B,), in (0, 1]: in samples for waveforms, in frames for
            states. None: no padding.

        Returns
        -------
        torch.Tensor
            Frames (B, T', D). :meth:`frame_lengths` gives the number of valid frames of
            waveforms; the others are meaningless.

        Raises
        ------
        ValueError
            If a shape is wrong, or a Whisper model gets more than 30 s.
        """
        if speech.dim() == 4:
            packing, states = self._from_kept(speech, lengths)
        else:
            packing, states = self._from_waveforms(speech, lengths)
        weight_of = dict(zip(self.layers, self.weights, strict=True))
        frames = None
        for number, state in states:
            if number in weight_of:
                weight = weight_of[number].to(state.dtype)
                frames = (
                    weight * state
                    if frames is None
                    else torch.addcmul(frames, state, weight)
                )
            if number == self.layers[-1]:
                break
        assert frames is not None  # at least one of the layers exists
        return packing.unpack(frames)

    @torch.no_grad()
    def frozen_states(self, wavs: Tensor, lengths: Tensor | None = None) -> Tensor:
        """Computes the output of the frozen layers that ``forward`` needs, for storage.

        Arguments
        ---------
        wavs : torch.Tensor
            Waveforms (B, T), 16 kHz.
        lengths : torch.Tensor, optional
            Relative lengths in samples (B,), in (0, 1]. None: no padding.

        Returns
        -------
        torch.Tensor
            Representations ``kept`` (B, K, T', D): the frozen ones in the sum, and the
            input of the lowest trained layer.

        Raises
        ------
        ValueError
            If no transformer layer is frozen, or a shape is wrong.

        Example
        -------
        >>> config = {"model_type": "whisper", "d_model": 16, "encoder_layers": 3,
        ...     "encoder_attention_heads": 2, "encoder_ffn_dim": 32}
        >>> backbone = WeightedSSL(config, freeze=2, layers=[-1])
        >>> wavs = torch.randn(4, 8000)
        >>> states = backbone.frozen_states(wavs)
        >>> states.shape
        torch.Size([4, 1, 25, 16])
        >>> torch.equal(backbone(states), backbone(wavs))
        True
        """
        if not self.kept:
            raise ValueError(
                "no frozen states to keep: freeze is below 1. Freeze at least the "
                "lowest transformer layer, or train on waveforms"
            )
        states = islice(self.hidden_states(wavs, lengths), self.kept[-1] + 1)
        return torch.stack(
            [state for number, state in enumerate(states) if number in self.kept], 1
        )

    def hidden_states(
        self, wavs: Tensor, lengths: Tensor | None = None
    ) -> Iterator[Tensor]:
        """Yields the representations one at a time, for example to probe each layer.

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
            If a shape is wrong, or a Whisper model gets more than 30 s.

        Example
        -------
        >>> config = {"model_type": "whisper", "d_model": 16, "encoder_layers": 2,
        ...     "encoder_attention_heads": 2, "encoder_ffn_dim": 32}
        >>> backbone = WeightedSSL(config, freeze="all")
        >>> [h.mean(dim=1).shape for h in backbone.hidden_states(torch.randn(4, 8000))]
        [torch.Size([4, 16]), torch.Size([4, 16]), torch.Size([4, 16])]
        """
        packing, states = self._from_waveforms(wavs, lengths)
        for _, state in states:
            yield packing.unpack(state)

    def merge_lora(self) -> None:
        """Adds LoRA's updates to the weights, for example for export.

        Afterwards the encoder is an ordinary one of transformers with other weights,
        all of them frozen, and its state dict is that of a model without ``lora``.

        Example
        -------
        >>> config = {"model_type": "whisper", "d_model": 16, "encoder_layers": 2,
        ...     "encoder_attention_heads": 2, "encoder_ffn_dim": 32}
        >>> backbone = WeightedSSL(config, lora={"r": 4})
        >>> sum(p.numel() for p in backbone.parameters() if p.requires_grad)
        515
        >>> backbone.merge_lora()
        >>> folder = getfixture("tmp_path")
        >>> backbone.encoder.model.save_pretrained(folder)
        >>> WeightedSSL(folder).n_layers
        2
        """
        merge_lora(self.encoder.model)
        self.lora = None

    def frame_lengths(self, lengths: Tensor, n_samples: int) -> Tensor:
        """Converts relative lengths from samples to frames of the output.

        Relative lengths of waveforms give the exact number of valid samples, but not of
        frames, because samples at the end that fill no frame are included.

        Arguments
        ---------
        lengths : torch.Tensor
            Relative lengths in samples (B,), in (0, 1].
        n_samples : int
            Padded length T of the waveforms.

        Returns
        -------
        torch.Tensor
            Number of valid frames of each utterance, as in the encoder's attention,
            divided by the number of frames T' (B,).
        """
        counts = valid_counts(lengths, n_samples)
        frames: Tensor = self.encoder.n_frames(counts)
        longest: Tensor = self.encoder.n_frames(torch.full_like(counts, n_samples))
        return frames / longest

    def _from_waveforms(
        self, wavs: Tensor, lengths: Tensor | None
    ) -> tuple[Packing, Iterator[tuple[int, Tensor]]]:
        """Returns numbers, frames (N, D) and positions of all representations."""
        if wavs.dim() != 2 or (lengths is not None and lengths.shape != wavs.shape[:1]):
            found = None if lengths is None else tuple(lengths.shape)
            raise ValueError(
                "WeightedSSL expects waveforms (B, T) and relative lengths (B,), "
                f"found {tuple(wavs.shape)} and {found}"
            )
        if lengths is None:
            lengths = torch.ones(len(wavs))
        # On the CPU, because the padding determines what is computed.
        counts = valid_counts(lengths.cpu(), wavs.shape[1])
        needed = self.encoder.receptive_field
        warned = self._warned or torch.compiler.is_exporting()
        if not warned and counts.min() < needed:
            self._warned = True
            warnings.warn(
                f"an utterance of {counts.min()} samples is shorter than the {needed} "
                "that the encoder needs for one frame; it is padded with zeros",
                stacklevel=2,
            )
        wavs = F.pad(wavs, (0, max(0, needed - wavs.shape[1])))
        if self._n_frozen_stages > 0:
            # Frozen stages build no graph, unless the waveform needs a gradient.
            wavs = wavs.detach()
        x, packing = self.encoder.embed(wavs, counts)
        above = self.encoder.layers_above(0, x, packing)
        return packing, enumerate(chain([x], above))

    def _from_kept(
        self, kept: Tensor, lengths: Tensor | None
    ) -> tuple[Packing, Iterator[tuple[int, Tensor]]]:
        """Returns the same from stored representations and the layers above them."""
        if kept.shape[1] != len(self.kept):
            raise ValueError(
                f"states (B, K, T', D) must be of the representations {self.kept}, "
                f"found shape {tuple(kept.shape)}"
            )
        n_steps = kept.shape[2]
        if lengths is None:
            lengths = torch.ones(len(kept))
        packing = Packing(valid_counts(lengths, n_steps).tolist(), n_steps, kept.device)
        kept = kept.to(self.layer_weights.dtype)
        states = [packing.pack(state) for state in kept.unbind(1)]
        last = self.kept[-1]
        above = self.encoder.layers_above(last, states[-1], packing)
        return packing, chain(
            zip(self.kept, states, strict=True), enumerate(above, start=last + 1)
        )

    def train(self, mode: bool = True) -> "WeightedSSL":
        """Sets the mode of the trained parts; frozen parts stay in evaluation mode.

        Arguments
        ---------
        mode : bool
            True for training, False for evaluation.

        Returns
        -------
        WeightedSSL
            This module.
        """
        super().train(mode)
        self.encoder.eval()
        for module in self._trained_modules():
            module.train(mode)
        return self

    def _trained_modules(self) -> Iterator[nn.Module]:
        for stage in self.encoder.stages[self._n_frozen_stages : self.layers[-1] + 1]:
            yield from stage

    def _summed_layers(self, layers: Sequence[int] | None) -> list[int]:
        """Returns the numbers of the representations in the sum, from 0, sorted."""
        count = self.n_layers + 1
        if layers is None:
            return list(range(count))
        numbers = sorted({n % count for n in layers if -count <= n < count})
        if not numbers or len(numbers) < len(layers):
            raise ValueError(
                f"layers must be different numbers from 0 to {self.n_layers}, or "
                f"negative ones from the end; found {list(layers)}"
            )
        return numbers

    def _frozen_stages(self, freeze: str | int) -> int:
        """Counts the frozen stages of the encoder, from the lowest."""
        named = {"none": 0, "frontend": 1, "all": self.n_layers + 1}
        if isinstance(freeze, str) and freeze in named:
            return named[freeze]
        is_number = isinstance(freeze, int) and not isinstance(freeze, bool)
        if is_number and freeze in range(self.n_layers + 1):
            return int(freeze) + 1
        raise ValueError(
            f"freeze must be 'none', 'frontend', 'all' or the number of lowest layers "
            f"to freeze, from 0 to {self.n_layers}; found {freeze!r}"
        )


def write_untrained_encoder(config: Mapping[str, Any], folder: str | Path) -> None:
    """Writes a randomly initialised encoder as a folder that ``WeightedSSL`` loads.

    Arguments
    ---------
    config : mapping
        ``source`` of ``WeightedSSL``.
    folder : str or pathlib.Path
        Output folder, written whole or not at all. An existing folder is not changed.

    Example
    -------
    >>> config = {"model_type": "whisper", "d_model": 16, "encoder_layers": 2,
    ...     "encoder_attention_heads": 2, "encoder_ffn_dim": 32}
    >>> folder = getfixture("tmp_path") / "encoder"
    >>> write_untrained_encoder(config, folder)
    >>> WeightedSSL(folder).n_layers
    2
    """
    folder = Path(folder)
    if folder.exists():
        return
    unfinished = folder.with_name(folder.name + ".part")
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(0)
        WeightedSSL(config).encoder.model.save_pretrained(unfinished)
    unfinished.rename(folder)
