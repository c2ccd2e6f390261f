"""Normalisation of embeddings by the statistics of their own domain."""

from typing import Any

import torch
from torch import Tensor, nn

from speechbrain_ser_cl.registry import HEADS


@HEADS.register("domain_norm")
class DomainNorm(nn.Module):
    r"""Standardises each embedding dimension within its domain.

    .. math:: \hat h = (h - \mu_d) / \sqrt{\sigma_d^2 + \epsilon}

    It takes out what differs between two corpora in level (channel, room, speakers)
    and has no trained part, so a classifier behind it sees all domains centred alike.
    Domain-specific batch normalisation without its affine part: Chang et al.,
    "Domain-specific batch normalization for unsupervised domain adaptation", CVPR 2019.

    In training, mean and variance are those of the batch, whose utterances are all of
    domain d. For evaluation they come from :meth:`calibrate`, not from running
    averages: those would be averages over *augmented* views, whose embeddings lie
    elsewhere than those of whole, clean utterances. With ``batch_statistics=False``
    they come from there in training too: for batches whose classes are not drawn
    alike, from which statistics would take out what is to be learned.

    Arguments
    ---------
    size : int
        Dimension D of the embeddings.
    n_domains : int
        Number of domains.
    eps : float
        Added to the variance.
    batch_statistics : bool
        Whether training takes the statistics of the batch.

    Example
    -------
    >>> norm = DomainNorm(4).eval()
    >>> h = 3 + 5 * torch.randn(1000, 4)
    >>> norm.calibrate(h, domain=1)
    >>> norm(h, domain=1).mean().abs() < 1e-5
    tensor(True)
    """

    def __init__(
        self,
        size: int,
        n_domains: int = 2,
        eps: float = 1e-5,
        batch_statistics: bool = True,
    ):
        super().__init__()
        self.eps = eps
        self.batch_statistics = batch_statistics
        self.mean: Tensor
        self.var: Tensor
        self.register_buffer("mean", torch.zeros(n_domains, size))
        self.register_buffer("var", torch.ones(n_domains, size))

    def arguments(self) -> dict[str, Any]:
        """Keyword arguments that build another one like this."""
        n_domains, size = self.mean.shape
        return {
            "size": size,
            "n_domains": n_domains,
            "eps": self.eps,
            "batch_statistics": self.batch_statistics,
        }

    def forward(self, h: Tensor, domain: int | Tensor) -> Tensor:
        """Normalises embeddings.

        Arguments
        ---------
        h : Tensor
            Embeddings (N, D); N of at least 2 where they give the statistics.
        domain : int or Tensor
            Their domain, from 0; or, where they do not give the statistics, that of
            each (N,).

        Returns
        -------
        Tensor
            Normalised embeddings (N, D), float32.

        Raises
        ------
        ValueError
            If there is one utterance only, or they are of several domains, to take
            statistics of.
        """
        h = h.float()
        if self.training and self.batch_statistics:
            if isinstance(domain, Tensor):
                raise ValueError(
                    "DomainNorm takes statistics of batches of one domain; found a "
                    "domain for each utterance. Set batch_statistics=False."
                )
            if len(h) < 2:
                raise ValueError("DomainNorm needs at least 2 utterances in training.")
            var, mean = torch.var_mean(h, dim=0, correction=0)
        else:
            mean, var = self.mean[domain], self.var[domain]
        return (h - mean) / (var + self.eps).sqrt()

    @torch.no_grad()
    def calibrate(self, h: Tensor, domain: int) -> None:
        """Sets a domain's statistics for evaluation.

        Arguments
        ---------
        h : Tensor
            Embeddings (N, D) of utterances of the domain, N of at least 2.
        domain : int
            The domain, from 0.

        Raises
        ------
        ValueError
            If there is one utterance only.
        """
        if len(h) < 2:
            raise ValueError("DomainNorm needs at least 2 utterances to calibrate.")
        var, mean = torch.var_mean(h.float(), dim=0, correction=0)
        self.mean[domain] = mean
        self.var[domain] = var
