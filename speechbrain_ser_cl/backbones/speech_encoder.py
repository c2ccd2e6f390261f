"""Base class of all pretrained encoders of transformers.

An encoder has ``stages``, ``embed`` and ``layers_above``. A stage is the list of
modules that one representation needs in addition to the previous one: stage 0 is the
front end, stage 1 the position embedding and the first transformer layer, stage i
transformer layer i. ``embed`` returns the input of the first layer; ``layers_above``
yields the output of each layer, so that they need not be in memory together.
Representations are the concatenated valid frames of all utterances, (N, D), which
:class:`~speechbrain_ser_cl.backbones.packing.Packing` converts to a batch.

Weights and modules come from transformers; the forward pass is implemented here. The
models' own ``forward`` also computes padding, returns all hidden states in a tuple, has
no fused attention for WavLM and needs 30 seconds for Whisper. LayerDrop in training is
not implemented.
"""

from abc import abstractmethod
from collections.abc import Callable, Iterator, Sequence
from typing import Any

import torch
from torch import Tensor, nn
from torch.utils.checkpoint import checkpoint

from speechbrain_ser_cl.backbones.packing import Packing, dropout, recomputed

# Bias of the attention scores of one group of utterances (n, H, t, t), from a value per
# query (n, t, H, …).
Bias = Callable[[Tensor], Tensor]


class SpeechEncoder(nn.Module):
    """A pretrained encoder that returns one representation at a time, without padding.

    Arguments
    ---------
    model : transformers.PreTrainedModel
        Weights and modules.
    normalize : bool
        Whether the model needs waveforms with zero mean and unit variance.

    Attributes
    ----------
    output_size : int
        Size D of a frame.
    hop : int
        Samples between frames.
    receptive_field : int
        Number of samples that one frame needs.
    max_seconds : float or None
        Longest utterance. None: no limit.
    padded_group_norm : bool
        Whether a GroupNorm in the front end includes padding, as in transformers.
    spec_augment : bool
        Whether the input of the layers is masked in training.
    """

    model: Any  # Modules of transformers, whose attributes have no types.
    output_size: int
    hop: int
    receptive_field: int
    max_seconds: float | None = None

    def __init__(self, model: nn.Module, normalize: bool = False) -> None:
        super().__init__()
        self.model = model
        self.normalize = normalize
        self.padded_group_norm = False
        self.spec_augment = False

    @property
    @abstractmethod
    def stages(self) -> list[list[nn.Module]]:
        """Modules of the front end, then of each transformer layer."""

    @property
    def layers(self) -> Sequence[Any]:
        """The transformer layers."""
        layers: Sequence[Any] = self.model.encoder.layers
        return layers

    @abstractmethod
    def n_frames(self, n_samples: Any) -> Any:
        """Counts the frames of waveforms of this length, at least 1.

        Arguments
        ---------
        n_samples : torch.Tensor or int
            Number of samples.

        Returns
        -------
        torch.Tensor or int
            Same type as ``n_samples``.
        """

    @abstractmethod
    def embed(self, wavs: Tensor, counts: Tensor) -> tuple[Tensor, Packing]:
        """Computes the input of the first transformer layer.

        Arguments
        ---------
        wavs : torch.Tensor
            Waveforms (B, T), T at least ``receptive_field``.
        counts : torch.Tensor
            Number of valid samples of each (B,), on the CPU.

        Returns
        -------
        torch.Tensor
            Frames (N, D).
        Packing
            Positions of the frames.

        Raises
        ------
        ValueError
            If the batch is longer than ``max_seconds``.
        """

    @abstractmethod
    def _layer(
        self, number: int, x: Tensor, packing: Packing, biases: Sequence[Bias] | None
    ) -> Tensor:
        """Runs a transformer layer (number from 0) on its input (N, D)."""

    def _position_biases(self, packing: Packing) -> Sequence[Bias] | None:
        """Computes the attention bias of each group, which all layers share."""
        return None

    def layers_above(
        self, number: int, x: Tensor, packing: Packing
    ) -> Iterator[Tensor]:
        """Yields the representations above a given one.

        Arguments
        ---------
        number : int
            Number of the given representation, from 0.
        x : torch.Tensor
            The representation (N, D).
        packing : Packing
            Positions of the frames.

        Yields
        ------
        torch.Tensor
            Frames (N, D) of representation ``number`` + 1 and all above: the
            ``hidden_states`` of transformers 5.
        """
        biases = self._position_biases(packing)
        for i in range(number, len(self.layers)):
            layer = self.layers[i]
            wanted = layer.gradient_checkpointing and layer.training
            if wanted and torch.is_grad_enabled():
                x = checkpoint(self._layer, i, x, packing, biases, use_reentrant=False)
            else:
                x = self._layer(i, x, packing, biases)
            yield x

    def _masked(self, x: Tensor, packing: Packing) -> Tensor:
        """Applies SpecAugment by the configuration, if the first layer is trained."""
        config = self.model.config
        if not (self.spec_augment and self.model.encoder.dropout.training):
            return x
        counts = [packing.counts[row] for row in packing.rows]
        if config.mask_time_prob > 0:
            mask = masked_spans(config, "time", counts)
            # Also without masked frames, because the embedding needs a gradient in
            # every batch.
            embedding = self.model.masked_spec_embed.to(x.dtype)
            steps = torch.cat([row[:n] for row, n in zip(mask, counts, strict=True)])
            x = torch.where(steps.to(x.device)[:, None], embedding, x)
        if config.mask_feature_prob > 0:
            mask = masked_spans(config, "feature", [x.shape[1]] * len(counts))
            channels = mask.repeat_interleave(torch.tensor(counts), dim=0)
            x = x.masked_fill(channels.to(x.device), 0)
        return x

    def _packing(
        self, wavs: Tensor, counts: Tensor, n_frames: Callable[[Any], Any]
    ) -> Packing:
        """Computes the positions of the frames of waveforms."""
        if torch.compiler.is_exporting():
            # An exported graph has one utterance, whose length must not become a
            # constant.
            n_steps = n_frames(wavs.shape[1])
            return Packing([n_steps], n_steps, wavs.device)
        counts = torch.cat([counts, torch.tensor([wavs.shape[1]])])
        *valid, n_steps = n_frames(counts).tolist()
        return Packing(valid, n_steps, wavs.device)


def at_least_one(n_steps: Any) -> Any:
    """Raises counts to at least 1; an int, a length in an exported graph, is kept."""
    return n_steps.clamp(min=1) if isinstance(n_steps, Tensor) else n_steps


def self_attention(
    attention: Any,
    x: Tensor,
    packing: Packing,
    gates: Tensor | None = None,
    biases: Sequence[Bias] | None = None,
) -> Tensor:
    """Runs an attention module of transformers, (N, D) to (N, D)."""
    queries, keys, values = (
        projection(x).unflatten(-1, (attention.num_heads, -1))
        for projection in (attention.q_proj, attention.k_proj, attention.v_proj)
    )
    p = attention.dropout if attention.training else 0.0
    y: Tensor = attention.out_proj(
        packing.attention(queries, keys, values, p, gates, biases)
    )
    return y


def feed_forward(module: Any, x: Tensor) -> Tensor:
    """Runs a feed-forward module; stores only one of its wide tensors."""

    def second(x: Tensor) -> Tensor:
        x = run_dropout(module.intermediate_dropout, module.intermediate_act_fn(x))
        y: Tensor = module.output_dense(x)
        return y

    x = recomputed(second, module.intermediate_dense(x))
    return run_dropout(module.output_dropout, x)


def run_dropout(module: Any, x: Tensor) -> Tensor:
    """Runs a dropout module by the faster function in ``packing``."""
    return dropout(x, module.p, module.training)


def masked_spans(config: Any, axis: str, counts: Sequence[int]) -> Tensor:
    """Draws the frames or features that SpecAugment masks.

    Spans of ``mask_time_length`` frames start at different, uniformly drawn frames of
    the utterance and may overlap. Their number is ``mask_time_prob`` × frames /
    ``mask_time_length``, rounded up or down at random with this mean, and at least
    ``mask_time_min_masks`` if they fit. For features likewise. Park et al.,
    "SpecAugment", Interspeech 2019; Baevski et al., "wav2vec 2.0", 2020, section 3.1.

    Arguments
    ---------
    config : transformers.PretrainedConfig
        Configuration with these options.
    axis : str
        ``"time"`` or ``"feature"``.
    counts : sequence of int
        Number of valid frames, or of features, of each utterance.

    Returns
    -------
    torch.Tensor
        Booleans (B, longest count), False in the padding, on the CPU.

    Example
    -------
    >>> from types import SimpleNamespace
    >>> config = SimpleNamespace(mask_time_prob=0.5, mask_time_length=10)
    >>> masked_spans(config, "time", [100, 4]).sum(dim=1) > 0
    tensor([ True, False])
    """
    share = getattr(config, f"mask_{axis}_prob")
    length = getattr(config, f"mask_{axis}_length")
    fewest = getattr(config, f"mask_{axis}_min_masks", 0)
    mask = torch.zeros(len(counts), max(counts), dtype=torch.bool)
    for row, count in zip(mask, counts, strict=True):
        n_starts = max(count - length + 1, 0)
        n_spans = int(share * count / length + torch.rand(()).item())
        starts = torch.randperm(n_starts)[: max(n_spans, fewest)]
        row[starts[:, None] + torch.arange(length)] = True
    return mask
