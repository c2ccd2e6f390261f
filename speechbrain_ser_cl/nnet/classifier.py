"""Waveforms to logits: the parts of a trained model in the order they run in."""

import inspect
from collections.abc import Sequence

from torch import Tensor, nn


class UtteranceEncoder(nn.Module):
    """One vector per utterance: backbone, pooling, normalisation.

    Arguments
    ---------
    backbone : torch.nn.Module
        Waveforms to frames (B, T', D), with ``frame_lengths`` to tell the pooling
        how many are valid; or, without pooling, to vectors (B, D).
    pooling : torch.nn.Module, optional
        Frames and relative lengths to vectors.
    norm : torch.nn.Module, optional
        Vectors to vectors.
    domain : int, optional
        Given to a ``norm`` whose ``forward`` takes a ``domain``.
    """

    def __init__(
        self,
        backbone: nn.Module,
        pooling: nn.Module | None = None,
        norm: nn.Module | None = None,
        domain: int | None = None,
    ) -> None:
        super().__init__()
        self.backbone = backbone
        self.pooling = pooling
        self.norm = norm
        self._norm_options = _options(norm, domain)

    def forward(self, wavs: Tensor, lengths: Tensor | None = None) -> Tensor:
        """Encodes a batch.

        Arguments
        ---------
        wavs : torch.Tensor
            Waveforms (B, T).
        lengths : torch.Tensor, optional
            Relative lengths (B,), in (0, 1]. None: no padding.

        Returns
        -------
        torch.Tensor
            Vectors (B, D).
        """
        h = self.backbone(wavs, lengths)
        if self.pooling is not None:
            if lengths is not None:
                lengths = self.backbone.frame_lengths(lengths, wavs.shape[1])
            h = self.pooling(h, lengths)
        return h if self.norm is None else self.norm(h, **self._norm_options)


class HeadSum(nn.Module):
    """The sum of the logits of one head or several.

    Arguments
    ---------
    heads : sequence of torch.nn.Module
        Vectors (B, D) to logits (B, C).
    domain : int, optional
        Given to the heads whose ``forward`` takes a ``domain``.
    """

    def __init__(self, heads: Sequence[nn.Module], domain: int | None = None) -> None:
        super().__init__()
        self.heads = nn.ModuleList(heads)
        self._options = [_options(head, domain) for head in heads]

    def forward(self, h: Tensor) -> Tensor:
        """Scores the classes.

        Arguments
        ---------
        h : torch.Tensor
            Vectors (B, D).

        Returns
        -------
        torch.Tensor
            Logits (B, C).
        """
        pairs = zip(self.heads, self._options, strict=True)
        return sum(head(h, **options) for head, options in pairs)


class EmotionClassifier(nn.Module):
    """What a recipe says its run tested, and hands to ``write_run`` to be exported.

    Arguments
    ---------
    backbone, pooling, norm : torch.nn.Module
        See :class:`UtteranceEncoder`; without norm or pooling, None.
    heads : sequence of torch.nn.Module
        See :class:`HeadSum`.
    domain : int, optional
        The domain (corpus) whose statistics and head are used.

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
    ) -> None:
        super().__init__()
        self.domain = domain
        self.encoder = UtteranceEncoder(backbone, pooling, norm, domain)
        self.head = HeadSum(heads, domain)

    def forward(self, wavs: Tensor, lengths: Tensor | None = None) -> Tensor:
        """Scores the classes.

        Arguments
        ---------
        wavs : torch.Tensor
            Waveforms (B, T), 16 kHz.
        lengths : torch.Tensor, optional
            Relative lengths (B,), in (0, 1]. None: no padding.

        Returns
        -------
        torch.Tensor
            Logits (B, C).
        """
        return self.head(self.encoder(wavs, lengths))


def _options(part: nn.Module | None, domain: int | None) -> dict[str, int]:
    """The domain, for a part that wants to know it."""
    if part is None or "domain" not in inspect.signature(part.forward).parameters:
        return {}
    if domain is None:
        raise ValueError(
            f"{type(part).__name__} treats each domain in its own way: give the "
            "classifier the domain of the speech it is to classify"
        )
    return {"domain": domain}
