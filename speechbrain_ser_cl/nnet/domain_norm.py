"""Normalisation of embeddings by the statistics of their own domain."""

import torch
from torch import Tensor, nn


class DomainNorm(nn.Module):
    r"""Standardises each embedding dimension within its domain.

    .. math:: \hat h = (h - \mu_d) / \sqrt{\sigma_d^2 + \epsilon}

    In training, mean and variance are those of the batch, whose utterances are all of
    domain d; running averages of them serve at evaluation. It takes out what differs
    between two corpora in level (channel, room, speakers) and has no trained part, so
    the classifier behind it sees both domains centred alike. Domain-specific batch
    normalisation without its affine part: Chang et al., "Domain-specific batch
    normalization for unsupervised domain adaptation", CVPR 2019.

    A domain that was never trained on is evaluated with the statistics of domain 0.

    Arguments
    ---------
    size : int
        Dimension D of the embeddings.
    n_domains : int
        Number of domains.
    momentum : float
        Weight of a batch in the running averages, in (0, 1].
    eps : float
        Added to the variance.

    Example
    -------
    >>> norm = DomainNorm(4)
    >>> h = 3 + 5 * torch.randn(1000, 4)
    >>> norm(h, domain=1).mean().abs() < 1e-5
    tensor(True)
    """

    def __init__(
        self, size: int, n_domains: int = 2, momentum: float = 0.05, eps: float = 1e-5
    ):
        super().__init__()
        self.momentum = momentum
        self.eps = eps
        self.register_buffer("mean", torch.zeros(n_domains, size))
        self.register_buffer("var", torch.ones(n_domains, size))
        self.register_buffer("n_batches", torch.zeros(n_domains, dtype=torch.long))

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
        """
        h = h.float()
        if self.training:
            if len(h) < 2:
                raise ValueError("DomainNorm needs at least 2 utterances in training.")
            var, mean = torch.var_mean(h, dim=0, correction=0)
            self._average(mean.detach(), var.detach(), domain)
        else:
            seen = domain if self.n_batches[domain] else 0
            mean, var = self.mean[seen], self.var[seen]
        return (h - mean) / (var + self.eps).sqrt()

    @torch.no_grad()
    def _average(self, mean: Tensor, var: Tensor, domain: int) -> None:
        self.n_batches[domain] += 1
        # The first batches weigh as in a plain mean: no bias towards the start values.
        weight = (1 / self.n_batches[domain]).clamp(min=self.momentum)
        for average, new in ((self.mean[domain], mean), (self.var[domain], var)):
            # A batch that is not finite is skipped by the optimiser, and here.
            average.lerp_(torch.where(new.isfinite(), new, average), weight)
