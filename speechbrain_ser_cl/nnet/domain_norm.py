"""Normalises embeddings by the statistics of their domain."""

from typing import Any

import torch
from torch import Tensor, nn

from speechbrain_ser_cl.registry import HEADS


@HEADS.register("domain_norm")
class DomainNorm(nn.Module):
    r"""Standardises each embedding dimension within its domain.

    .. math:: \hat h = (h - \mu_d) / \sqrt{\sigma_d^2 + \epsilon}

    This removes level differences between two corpora (channel, room, speakers). It has
    no trained parameters, so the classifier behind it gets centred embeddings of each
    domain. Domain-specific batch normalisation without its affine part: Chang et al.,
    "Domain-specific batch normalization for unsupervised domain adaptation", CVPR 2019.

    In training, mean and variance are those of the batch, whose utterances all have
    domain d. In evaluation they come from :meth:`calibrate`, not from running averages:
    those would be averages over *augmented* views, whose embeddings differ from those
    of whole, clean utterances. With ``batch_statistics=False`` training uses them too:
    for batches with unequal class frequencies, whose own statistics would remove class
    information.

    Arguments
    ---------
    size : int
        Dimension D of the embeddings.
    n_domains : int
        Number of domains.
    eps : float
        Added to the variance.
    batch_statistics : bool
        Whether training uses the statistics of the batch.

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
        """Returns keyword arguments that build a module like this one."""
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
            Embeddings (N, D); N >= 2 if batch statistics are used.
        domain : int or Tensor
            Domain of the batch, from 0; without batch statistics also the domains (N,)
            of the utterances.

        Returns
        -------
        Tensor
            Normalised embeddings (N, D), float32.

        Raises
        ------
        ValueError
            If batch statistics are needed and there is only one utterance, or several
            domains.
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
            Embeddings (N, D) of utterances of the domain, N >= 2.
        domain : int
            The domain, from 0.

        Raises
        ------
        ValueError
            If there is only one utterance.
        """
        if len(h) < 2:
            raise ValueError("DomainNorm needs at least 2 utterances to calibrate.")
        var, mean = torch.var_mean(h.float(), dim=0, correction=0)
        self.mean[domain] = mean
        self.var[domain] = var
