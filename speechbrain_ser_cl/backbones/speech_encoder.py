"""What all pretrained encoders of transformers have in common here.

An encoder has ``stages``, ``embed`` and ``layers_above``. A stage is the list of
modules that one representation needs beyond the one before it: stage 0 is the front
end, stage 1 the position embedding and the first transformer layer, stage i
transformer layer i. ``embed`` gives the input of the first layer, ``layers_above``
yields the output of each, one at a time, so that nobody has to hold all.
Representations are the valid frames of all utterances one after the other, (N, D),
which a :class:`~speechbrain_ser_cl.backbones.packing.Packing` makes a batch of.

Weights and modules are those of transformers; what runs them is here. The models' own
``forward`` computes the padding too, returns all hidden states in a tuple, has no fused
attention for WavLM and wants 30 seconds for Whisper. LayerDrop, which it brings along
in training, is left out.
"""

from abc import abstractmethod
from collections.abc import Callable, Iterator, Sequence
from typing import Any

import torch
from torch import Tensor, nn
from torch.utils.checkpoint import checkpoint

from speechbrain_ser_cl.backbones.packing import Packing, dropout, recomputed

# What is added to the attention scores of one group of utterances (n, H, t, t), from
# what its queries bring along (n, t, H, …).
Bias = Callable[[Tensor], Tensor]


class SpeechEncoder(nn.Module):
    """A pretrained encoder, one representation at a time, with padding made invisible.

    Arguments
    ---------
    model : transformers.PreTrainedModel
        Its weights and modules.
    normalize : bool
        Whether the model wants waveforms of zero mean and unit variance.

    Attributes
    ----------
    output_size : int
        Size D of a frame.
    hop : int
        Samples from one frame to the next.
    receptive_field : int
        Samples that one frame needs.
    max_seconds : float or None
        The longest utterance; None: there is no limit.
    padded_group_norm : bool
        Whether a GroupNorm in the front end counts padding, as in transformers.
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
    @abstractmethod
    def layers(self) -> Sequence[Any]:
        """The transformer layers."""

    @abstractmethod
    def n_frames(self, n_samples: Any) -> Any:
        """Counts the frames, at least 1, of waveforms of so many samples.

        Arguments
        ---------
        n_samples : torch.Tensor or int
            Number of samples.

        Returns
        -------
        torch.Tensor or int
            As the samples were given.
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
            Whose frames they are.

        Raises
        ------
        ValueError
            If the batch is longer than ``max_seconds``.
        """

    @abstractmethod
    def _layer(
        self, number: int, x: Tensor, packing: Packing, biases: Sequence[Bias] | None
    ) -> Tensor:
        """Runs a transformer layer (from 0) on its input (N, D)."""

    def _position_biases(self, packing: Packing) -> Sequence[Bias] | None:
        """Computes what all layers add to the scores of each group."""
        return None

    def layers_above(
        self, number: int, x: Tensor, packing: Packing
    ) -> Iterator[Tensor]:
        """Yields the representations that come after one.

        Arguments
        ---------
        number : int
            Number of that representation, from 0.
        x : torch.Tensor
            The representation (N, D).
        packing : Packing
            Whose frames they are.

        Yields
        ------
        torch.Tensor
            Frames (N, D) of representation ``number`` + 1 and all others above: the
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
        """Applies SpecAugment by the configuration, where the first layer is trained.

        Of channels (``mask_feature_prob``) each utterance has its own masked.
        """
        config = self.model.config
        if not (self.spec_augment and self.model.encoder.dropout.training):
            return x
        counts = [packing.counts[row] for row in packing.rows]
        if config.mask_time_prob > 0:
            mask = masked_spans(
                counts,
                config.mask_time_prob,
                config.mask_time_length,
                config.mask_time_min_masks,
            )
            # Also where nothing was drawn: its gradient must be there in any batch.
            embedding = self.model.masked_spec_embed.to(x.dtype)
            steps = torch.cat([row[:n] for row, n in zip(mask, counts, strict=True)])
            x = torch.where(steps.to(x.device)[:, None], embedding, x)
        if config.mask_feature_prob > 0:
            mask = masked_spans(
                [x.shape[1]] * len(counts),
                config.mask_feature_prob,
                config.mask_feature_length,
                getattr(config, "mask_feature_min_masks", 0),
            )
            channels = mask.repeat_interleave(torch.tensor(counts), dim=0)
            x = x.masked_fill(channels.to(x.device), 0)
        return x

    def _packing(
        self, wavs: Tensor, counts: Tensor, n_frames: Callable[[Any], Any]
    ) -> Packing:
        """Finds where the frames of the waveforms are."""
        if torch.compiler.is_exporting():
            # A graph is of one utterance, whose length it must not take for a constant.
            n_steps = n_frames(wavs.shape[1])
            return Packing([n_steps], n_steps, wavs.device)
        counts = torch.cat([counts, torch.tensor([wavs.shape[1]])])
        *valid, n_steps = n_frames(counts).tolist()
        return Packing(valid, n_steps, wavs.device)


def at_least_one(n_steps: Any) -> Any:
    """Raises counts to at least 1; an int is a length in an exported graph."""
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
    """Runs a feed-forward module; of what is wide only one tensor is kept."""

    def second(x: Tensor) -> Tensor:
        x = run_dropout(module.intermediate_dropout, module.intermediate_act_fn(x))
        y: Tensor = module.output_dense(x)
        return y

    x = recomputed(second, module.intermediate_dense(x))
    return run_dropout(module.output_dropout, x)


def run_dropout(module: Any, x: Tensor) -> Tensor:
    """Runs a dropout module by the faster kernel of ``packing``."""
    return dropout(x, module.p, module.training)


def masked_spans(
    counts: Sequence[int], share: float, length: int, fewest: int
) -> Tensor:
    """Draws which frames SpecAugment masks.

    Spans of ``length`` frames begin at different frames of the utterance, all equally
    likely, and may overlap. There are share × frames / length of them, rounded up or
    down at random so that this is the mean, and at least ``fewest``, as far as they
    fit. Park et al., "SpecAugment", Interspeech 2019; Baevski et al., "wav2vec 2.0",
    2020, section 3.1.

    Arguments
    ---------
    counts : sequence of int
        Valid frames of each utterance.
    share : float
        Of the frames, if no spans overlapped.
    length : int
        Frames of a span.
    fewest : int
        Spans of an utterance.

    Returns
    -------
    torch.Tensor
        Booleans (B, longest count), False in the padding, on the CPU.

    Example
    -------
    >>> masked_spans([100, 4], share=0.5, length=10, fewest=1).sum(dim=1) > 0
    tensor([ True, False])
    """
    mask = torch.zeros(len(counts), max(counts), dtype=torch.bool)
    for row, count in zip(mask, counts, strict=True):
        n_starts = max(count - length + 1, 0)
        n_spans = int(share * count / length + torch.rand(()).item())
        starts = torch.randperm(n_starts)[: max(n_spans, fewest)]
        row[starts[:, None] + torch.arange(length)] = True
    return mask
