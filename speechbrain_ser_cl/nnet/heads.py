"""What stands between a pooled vector and a loss."""

from torch import Tensor, nn

from speechbrain_ser_cl.registry import HEADS


@HEADS.register("projection")
class ProjectionHead(nn.Module):
    """Embedding for a contrastive loss, z = V ReLU(U h).

    Equation 3 of Ahn et al., "Integrating contrastive learning into a multitask
    transformer model for effective domain adaptation" (2023); no biases, as
    printed. The embedding is not normalised: the losses do that.

    Arguments
    ---------
    input_size : int
        Size of h.
    hidden_size : int
        Rows of U.
    output_size : int
        Rows of V, the size of z.

    Example
    -------
    >>> import torch
    >>> ProjectionHead(input_size=768)(torch.randn(4, 768)).shape
    torch.Size([4, 128])
    """

    def __init__(
        self, input_size: int, hidden_size: int = 256, output_size: int = 128
    ) -> None:
        super().__init__()
        self.output_size = output_size
        self.layers = nn.Sequential(
            nn.Linear(input_size, hidden_size, bias=False),
            nn.ReLU(),
            nn.Linear(hidden_size, output_size, bias=False),
        )

    def forward(self, h: Tensor) -> Tensor:
        """Projects.

        Arguments
        ---------
        h : torch.Tensor
            Pooled vectors (B, input_size).

        Returns
        -------
        torch.Tensor
            Embeddings (B, output_size).
        """
        return self.layers(h)


@HEADS.register("classifier")
class ClassifierHead(nn.Module):
    """Logits of the classes: linear, or with one hidden ReLU layer.

    Arguments
    ---------
    input_size : int
        Size of the pooled vector.
    n_classes : int
        Number of classes.
    hidden_size : int, optional
        Size of the hidden layer. None: a linear classifier.
    dropout : float
        Probability, in [0, 1), of dropping a value before each linear layer.

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
    ) -> None:
        super().__init__()
        self.output_size = n_classes
        layers = [nn.Dropout(dropout)]
        if hidden_size is not None:
            layers += [nn.Linear(input_size, hidden_size), nn.ReLU()]
            layers += [nn.Dropout(dropout)]
        layers += [nn.Linear(hidden_size or input_size, n_classes)]
        self.layers = nn.Sequential(*layers)

    def forward(self, h: Tensor) -> Tensor:
        """Scores the classes.

        Arguments
        ---------
        h : torch.Tensor
            Pooled vectors (B, input_size).

        Returns
        -------
        torch.Tensor
            Logits (B, n_classes), before the softmax.
        """
        return self.layers(h)
