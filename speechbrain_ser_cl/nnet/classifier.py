"""The model, from waveforms to logits."""

import inspect
from collections.abc import Sequence
from typing import Any

import torch
from torch import Tensor, nn


class UtteranceEncoder(nn.Module):
    """Maps speech to one vector per utterance: backbone, pooling, normalisation.

    Arguments
    ---------
    backbone : torch.nn.Module
        Waveforms to frames (B, T', D), with ``frame_lengths`` for the pooling; or,
        without pooling, to vectors (B, D).
    pooling : torch.nn.Module, optional
        Frames and relative lengths to vectors.
    norm : torch.nn.Module, optional
        Vectors to vectors.
    domain : int, optional
        Passed to ``norm`` if its ``forward`` has a ``domain`` argument.

    Attributes
    ----------
    output_size : int
        Size D of the vectors.
    reads : str
        Input of :meth:`forward`. ``"waveform"``: the default. In training with cached
        computations: ``"features"`` of the backbone's front end, for its ``encode``;
        ``"states"`` (B, T', K, D) of frozen layers, see ``training.keep_states``;
        ``"frames"`` (B, T', D) of a frozen backbone; ``"vectors"`` (B, D), pooled, of a
        frozen backbone and pooling; ``"pooled"`` (B, K, D), pooled per layer, see
        ``training.keep_pooled``. Not saved in checkpoints or exports.
    """

    def __init__(
        self,
        backbone: nn.Module,
        pooling: nn.Module | None = None,
        norm: nn.Module | None = None,
        domain: int | None = None,
    ) -> None:
        super().__init__()
        self.backbone: Any = backbone
        self.pooling = pooling
        self.norm = norm
        self.reads = "waveform"
        self._norm_options = _options(norm, domain)

    @property
    def output_size(self) -> int:
        """Size of the vectors: that of the last part with a known size."""
        parts = (self.norm, self.pooling, self.backbone)
        sizes = [getattr(part, "output_size", None) for part in parts]
        return next(int(size) for size in sizes if size is not None)

    def forward(
        self, speech: Tensor, lengths: Tensor | None = None, domain: Any = None
    ) -> Tensor:
        """Encodes a batch.

        Arguments
        ---------
        speech : torch.Tensor
            Waveforms (B, T), or the input that ``reads`` names.
        lengths : torch.Tensor, optional
            Relative lengths (B,), in (0, 1]. None: no padding.
        domain : int or torch.Tensor, optional
            Replaces the domain given at construction.

        Returns
        -------
        torch.Tensor
            Vectors (B, D).
        """
        h = self.pooled(speech, lengths)
        if self.norm is None:
            return h
        normalised: Tensor = self.norm(h, **_changed(self._norm_options, domain))
        return normalised

    def pooled(self, speech: Tensor, lengths: Tensor | None = None) -> Tensor:
        """Encodes and pools without normalisation; arguments as in :meth:`forward`."""
        h: Tensor = speech
        if self.reads == "waveform":
            h = self.backbone(speech, lengths)
            if lengths is not None and self.pooling is not None:
                lengths = self.backbone.frame_lengths(lengths, speech.shape[1])
        elif self.reads == "pooled":
            h = torch.einsum("l,bld->bd", self.backbone.weights, speech)
        elif self.reads == "states":
            h = self.backbone(speech.transpose(1, 2), lengths).float()
        elif self.reads == "features" and not hasattr(self.backbone, "encoded_lengths"):
            h = self.backbone.encode(speech)
        elif self.reads == "features":
            if lengths is None:
                lengths = torch.ones(len(speech), device=speech.device)
            h = self.backbone.encode(speech, lengths).float()
            lengths = self.backbone.encoded_lengths(lengths, speech.shape[-2])
        if self.pooling is None or self.reads in ("vectors", "pooled"):
            return h
        vectors: Tensor = self.pooling(h, lengths)
        return vectors


class HeadSum(nn.Module):
    """Sums the logits of one or more heads.

    Arguments
    ---------
    heads : sequence of torch.nn.Module
        Vectors (B, D) to logits (B, C).
    domain : int, optional
        Passed to heads whose ``forward`` has a ``domain`` argument.
    temperature : float
        Divisor of the sum, see :func:`~speechbrain_ser_cl.metrics.fit_temperature`.
    """

    def __init__(
        self,
        heads: Sequence[nn.Module],
        domain: int | None = None,
        temperature: float = 1.0,
    ) -> None:
        super().__init__()
        if not temperature > 0:
            raise ValueError(f"temperature is {temperature}, expected it above 0")
        self.temperature = temperature
        self.heads = nn.ModuleList(heads)
        self._options = [_options(head, domain) for head in heads]

    def forward(self, h: Tensor, domain: Any = None) -> Tensor:
        """Computes the logits of the classes.

        Arguments
        ---------
        h : torch.Tensor
            Vectors (B, D).
        domain : int or torch.Tensor, optional
            Replaces the domain given at construction.

        Returns
        -------
        torch.Tensor
            Logits (B, C).
        """
        pairs = zip(self.heads, self._options, strict=True)
        logits = [head(h, **_changed(options, domain)) for head, options in pairs]
        total: Tensor = sum(logits[1:], start=logits[0])
        return total if self.temperature == 1 else total / self.temperature


KINDS = ("classes", "emotions", "dimensions")
"""Kinds of output of an ``EmotionClassifier``."""


class EmotionClassifier(nn.Module):
    """Classifies utterances: the model that recipes train, test and export.

    With another ``kind``, predicts several emotions per utterance, or dimensions such
    as arousal.

    Arguments
    ---------
    backbone, pooling, norm : torch.nn.Module
        See :class:`UtteranceEncoder`. ``norm`` and ``pooling`` may be None.
    heads : sequence of torch.nn.Module
        See :class:`HeadSum`.
    domain : int, optional
        Domain (corpus) whose statistics and head are used.
    temperature : float
        Divisor of the logits of a calibrated model.
    kind : str
        How :meth:`answers` converts the heads' outputs z: ``"classes"``: softmax(z);
        ``"emotions"``: sigmoid(z), per class; ``"dimensions"``: mean + scale z.
    mean, scale : sequence of float, optional
        Mean and scale of the dimensions, on the corpus' own scale.

    Raises
    ------
    ValueError
        For another kind, or dimensions without mean and scale.

    Example
    -------
    >>> import torch
    >>> from speechbrain_ser_cl.backbones import WeightedSSL
    >>> from speechbrain_ser_cl.nnet import ClassifierHead, MeanPooling
    >>> config = {"model_type": "whisper", "d_model": 16, "encoder_layers": 2,
    ...     "encoder_attention_heads": 2, "encoder_ffn_dim": 32}
    >>> model = EmotionClassifier(
    ...     WeightedSSL(config), [ClassifierHead(16, n_classes=4)], MeanPooling()
    ... )
    >>> model(torch.randn(2, 16000), torch.tensor([1.0, 0.5])).shape
    torch.Size([2, 4])
    """

    def __init__(
        self,
        backbone: nn.Module,
        heads: Sequence[nn.Module],
        pooling: nn.Module | None = None,
        norm: nn.Module | None = None,
        domain: int | None = None,
        temperature: float = 1.0,
        kind: str = "classes",
        mean: Sequence[float] | None = None,
        scale: Sequence[float] | None = None,
    ) -> None:
        super().__init__()
        self.domain = domain
        self.answer_as(kind, mean, scale)
        self.encoder = UtteranceEncoder(backbone, pooling, norm, domain)
        self.head = HeadSum(heads, domain, temperature)

    def forward(
        self,
        speech: Tensor,
        lengths: Tensor | None = None,
        domain: Any = None,
        embeddings: bool = False,
    ) -> Tensor | tuple[Tensor, Tensor]:
        """Computes the logits of the classes.

        Arguments
        ---------
        speech : torch.Tensor
            Waveforms (B, T), 16 kHz, or the input that ``encoder.reads`` names.
        lengths : torch.Tensor, optional
            Relative lengths (B,), in (0, 1]. None: no padding.
        domain : int or torch.Tensor, optional
            Replaces the domain given at construction.
        embeddings : bool
            Whether to return the vectors too.

        Returns
        -------
        torch.Tensor, or two
            Logits (B, C); with ``embeddings`` also the vectors (B, D).
        """
        h = self.encoder(speech, lengths, domain)
        logits = self.head(h, domain)
        return (logits, h) if embeddings else logits

    def answer_as(
        self,
        kind: str,
        mean: Sequence[float] | None = None,
        scale: Sequence[float] | None = None,
    ) -> None:
        """Sets how :meth:`answers` converts the heads' outputs; see the class."""
        if kind not in KINDS:
            raise ValueError(f"kind is {kind!r}, expected one of {', '.join(KINDS)}")
        if kind == "dimensions" and not (mean and scale and len(mean) == len(scale)):
            raise ValueError(
                f"dimensions: mean is {mean} and scale is {scale}, expected a number "
                "for each dimension"
            )
        self.kind, self.mean, self.scale = kind, mean, scale

    def answers(self, logits: Tensor) -> Tensor:
        """Converts the heads' outputs to predictions.

        Arguments
        ---------
        logits : torch.Tensor
            From :meth:`forward`, (B, C).

        Returns
        -------
        torch.Tensor
            Probabilities, or values of dimensions, (B, C).
        """
        if self.kind == "classes":
            return logits.softmax(dim=1)
        if self.kind == "emotions":
            return logits.sigmoid()
        mean, scale = logits.new_tensor(self.mean), logits.new_tensor(self.scale)
        return mean + scale * logits


def _changed(options: dict[str, Any], domain: Any) -> dict[str, Any]:
    """Returns the options of a part for another domain."""
    return options if domain is None or not options else {"domain": domain}


def _options(part: nn.Module | None, domain: int | None) -> dict[str, int]:
    """Returns the domain as an option, for a part that has this argument."""
    if part is None or "domain" not in inspect.signature(part.forward).parameters:
        return {}
    if domain is None:
        raise ValueError(
            f"{type(part).__name__} treats each domain differently: set the "
            "classifier's domain to that of the speech"
        )
    return {"domain": domain}
