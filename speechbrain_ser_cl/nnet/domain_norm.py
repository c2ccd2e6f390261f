"""Normalisation of embeddings by the statistics of their own domain."""

import torch
from torch import Tensor, nn


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
    elsewhere than those of whole, clean utterances.

    Arguments
    ---------
    size : int
        Dimension D of the embeddings.
    n_domains : int
        Number of domains.
    eps : float
        Added to the variance.

    Example
    -------
    >>> norm = DomainNorm(4).eval()
    >>> h = 3 + 5 * torch.randn(1000, 4)
    >>> norm.calibrate(h, domain=1)
    >>> norm(h, domain=1).mean().abs() < 1e-5
    tensor(True)
    """

    def __init__(self, size: int, n_domains: int = 2, eps: float = 1e-5):
        super().__init__()
        self.eps = eps
        self.register_buffer("mean", torch.zeros(n_domains, size))
        self.register_buffer("var", torch.ones(n_domains, size))

    def forward(self, h: Tensor, domain: int) -> Tensor:
        """Normalises embeddings of one domain.

        Arguments
        ---------
        h : Tensor
            Embeddings (N, D); N of at least 2 in training.
        domain : int
            Their domain, from 0.

        Returns
        -------
        Tensor
            Normalised embeddings (N, D), float32.

        Raises
        ------
        ValueError
            In training, if there is one utterance only.
        """
        h = h.float()
        if self.training:
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
