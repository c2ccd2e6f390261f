"""Heads: layers between a pooled vector and a loss."""

from typing import Any

import torch
from torch import Tensor, nn
from torch.nn import functional

from speechbrain_ser_cl.registry import HEADS


@HEADS.register("projection")
class ProjectionHead(nn.Module):
    """Computes the embedding for a contrastive loss, z = V ReLU(U h).

    Equation 3 of Ahn et al., "Integrating contrastive learning into a multitask
    transformer model for effective domain adaptation" (2023), without biases, as in the
    paper. The embedding is not normalised, because the losses do that.

    Arguments
    ---------
    input_size : int
        Size of h.
    hidden_size : int
        Number of rows of U.
    output_size : int
        Number of rows of V, the size of z.
    batch_norm : bool
        Whether to standardise h first (batch normalisation without its affine part), as
        in :class:`ClassifierHead`.

    Example
    -------
    >>> import torch
    >>> ProjectionHead(input_size=768)(torch.randn(4, 768)).shape
    torch.Size([4, 128])
    """

    def __init__(
        self,
        input_size: int,
        hidden_size: int = 256,
        output_size: int = 128,
        batch_norm: bool = False,
    ) -> None:
        super().__init__()
        self.input_size = input_size
        self.hidden_size = hidden_size
        self.output_size = output_size
        self.batch_norm = batch_norm
        norm = [nn.BatchNorm1d(input_size, affine=False)] if batch_norm else []
        self.layers = nn.Sequential(
            *norm,
            nn.Linear(input_size, hidden_size, bias=False),
            nn.ReLU(),
            nn.Linear(hidden_size, output_size, bias=False),
        )

    def arguments(self) -> dict[str, Any]:
        """Returns keyword arguments that build a module like this one."""
        return {
            "input_size": self.input_size,
            "hidden_size": self.hidden_size,
            "output_size": self.output_size,
            "batch_norm": self.batch_norm,
        }

    def forward(self, h: Tensor) -> Tensor:
        """Projects vectors.

        Arguments
        ---------
        h : torch.Tensor
            Pooled vectors (B, input_size).

        Returns
        -------
        torch.Tensor
            Embeddings (B, output_size).
        """
        y: Tensor = self.layers(h)
        return y


@HEADS.register("classifier")
class ClassifierHead(nn.Module):
    """Computes the logits of the classes: linear, or with one hidden ReLU layer.

    The last layer starts at 0, so that a random classifier does not change a pretrained
    encoder in the first steps.

    Arguments
    ---------
    input_size : int
        Size of the pooled vector.
    n_classes : int
        Number of classes.
    hidden_size : int, optional
        Size of the hidden layer. None: a linear classifier.
    dropout : float
        Dropout probability before each linear layer, in [0, 1).
    batch_norm : bool
        Whether to standardise the vectors first (batch normalisation without its affine
        part). Vectors of pretrained encoders are nearly equal for all utterances: their
        mean is much larger than their differences.

    Attributes
    ----------
    output_size : int
        ``n_classes``.

    Example
    -------
    >>> import torch
    >>> ClassifierHead(768, n_classes=2)(torch.randn(4, 768)).shape
    torch.Size([4, 2])
    """

    def __init__(
        self,
        input_size: int,
        n_classes: int,
        hidden_size: int | None = None,
        dropout: float = 0.0,
        batch_norm: bool = False,
    ) -> None:
        super().__init__()
        self.input_size = input_size
        self.output_size = n_classes
        self.hidden_size = hidden_size
        self.dropout = dropout
        self.batch_norm = batch_norm
        layers: list[nn.Module] = []
        if batch_norm:
            layers += [nn.BatchNorm1d(input_size, affine=False)]
        layers += [nn.Dropout(dropout)]
        if hidden_size is not None:
            layers += [nn.Linear(input_size, hidden_size), nn.ReLU()]
            layers += [nn.Dropout(dropout)]
        last = nn.Linear(hidden_size or input_size, n_classes)
        nn.init.zeros_(last.weight)
        nn.init.zeros_(last.bias)
        self.layers = nn.Sequential(*layers, last)
        self._fixed = False

    @torch.no_grad()
    def begin(self, weight: Tensor, bias: Tensor, mean: Tensor, std: Tensor) -> None:
        """Sets the weights to those of a linear classifier of standardised vectors.

        With ``batch_norm``, vectors are then always standardised by ``mean`` and
        ``std``, in training too.

        Arguments
        ---------
        weight, bias : torch.Tensor
            Shapes (C, D) and (C,).
        mean, std : torch.Tensor
            Mean and standard deviation of the vectors (D,); std above 0.

        Raises
        ------
        ValueError
            If the head has a hidden layer.

        Example
        -------
        >>> head = ClassifierHead(2, n_classes=2, batch_norm=True)
        >>> mean, std = torch.tensor([1.0, 2.0]), torch.tensor([0.5, 4.0])
        >>> head.begin(torch.eye(2), torch.zeros(2), mean, std)
        >>> head.train()(torch.tensor([[2.0, 2.0]]))
        tensor([[2., 0.]], grad_fn=<AddmmBackward0>)
        """
        if self.hidden_size is not None:
            raise ValueError(
                f"hidden_size: found {self.hidden_size}, expected null: only a "
                "linear head can start from a linear classifier"
            )
        norm: Any = self.layers[0]
        last: Any = self.layers[-1]
        if isinstance(norm, nn.BatchNorm1d):
            assert norm.running_mean is not None and norm.running_var is not None
            norm.running_mean.copy_(mean)
            norm.running_var.copy_(std**2)
            weight = weight * (1 + norm.eps / std**2).sqrt()
            self._fixed = True
            self.train(self.training)
        else:
            weight = weight / std
            bias = bias - weight @ mean
        last.weight.copy_(weight)
        last.bias.copy_(bias)

    def train(self, mode: bool = True) -> "ClassifierHead":
        """Sets the training mode; a fixed standardisation stays in evaluation mode."""
        super().train(mode)
        if self._fixed:
            self.layers[0].eval()
        return self

    def arguments(self) -> dict[str, Any]:
        """Returns keyword arguments that build a module like this one."""
        return {
            "input_size": self.input_size,
            "n_classes": self.output_size,
            "hidden_size": self.hidden_size,
            "dropout": self.dropout,
            "batch_norm": self.batch_norm,
        }

    def forward(self, h: Tensor) -> Tensor:
        """Computes the logits of the classes.

        Arguments
        ---------
        h : torch.Tensor
            Pooled vectors (B, input_size).

        Returns
        -------
        torch.Tensor
            Logits (B, n_classes), before the softmax.
        """
        y: Tensor = self.layers(h)
        return y


@HEADS.register("domain_classifier")
class DomainClassifierHead(nn.Module):
    """Computes the logits of a linear classifier per domain, added to a shared one's.

    logits = (W h + b) + (W_d h + b_d): the classifiers of two corpora agree unless
    their labels have different meanings. Linear heads over a shared and a domain copy
    of the features are the feature augmentation of Daumé III, "Frustratingly easy
    domain adaptation", ACL 2007. The weights start at 0, so a domain without training
    data uses the shared classifier only.

    Arguments
    ---------
    input_size : int
        Size of h.
    n_classes : int
        Number of classes C.
    n_domains : int
        Number of domains.

    Example
    -------
    >>> import torch
    >>> head = DomainClassifierHead(input_size=8, n_classes=2)
    >>> head(torch.randn(4, 8), domain=1).shape
    torch.Size([4, 2])
    """

    def __init__(self, input_size: int, n_classes: int, n_domains: int = 2) -> None:
        super().__init__()
        # One tensor for all domains, so that each step gives every part a gradient
        # (possibly zeros), as DistributedDataParallel expects.
        self.weight = nn.Parameter(torch.zeros(n_domains, n_classes, input_size))
        self.bias = nn.Parameter(torch.zeros(n_domains, n_classes))

    def arguments(self) -> dict[str, Any]:
        """Returns keyword arguments that build a module like this one."""
        n_domains, n_classes, input_size = self.weight.shape
        return {
            "input_size": input_size,
            "n_classes": n_classes,
            "n_domains": n_domains,
        }

    def forward(self, h: Tensor, domain: int) -> Tensor:
        """Computes the domain's part of the logits.

        Arguments
        ---------
        h : torch.Tensor
            Pooled vectors (B, input_size) of one domain.
        domain : int
            Their domain, from 0.

        Returns
        -------
        torch.Tensor
            Logits (B, n_classes).
        """
        return functional.linear(h, self.weight[domain], self.bias[domain])
