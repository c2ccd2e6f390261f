"""Cross-entropy over the labelled utterances."""

from collections.abc import Sequence

import torch
from torch import Tensor
from torch.nn.functional import cross_entropy

from speechbrain_ser_cl.data.dataset import UNLABELLED


def labelled_cross_entropy(
    logits: Tensor, labels: Tensor, weight: Tensor | None = None
) -> Tensor | None:
    """Computes the cross-entropy over the labelled utterances.

    Arguments
    ---------
    logits : torch.Tensor
        (N, C).
    labels : torch.Tensor
        (N,); −1: no label.
    weight : torch.Tensor, optional
        Weights of the classes (C,).

    Returns
    -------
    torch.Tensor or None
        Scalar; None if no utterance has a label, as ``MultitaskLoss`` accepts.

    Example
    -------
    >>> logits = torch.zeros(2, 4)
    >>> labelled_cross_entropy(logits, torch.tensor([1, -1]))
    tensor(1.3863)
    """
    if bool((labels == UNLABELLED).all()):
        return None
    return cross_entropy(logits, labels, weight, ignore_index=UNLABELLED)


def class_weights(labels: Sequence[int], n_classes: int) -> Tensor:
    """Computes class weights with which rare classes count as much as frequent ones.

    Arguments
    ---------
    labels : sequence of int
        Labels of the training utterances; −1 does not count.
    n_classes : int
        Number C of classes.

    Returns
    -------
    torch.Tensor
        (C,): N / (C n_c), whose mean over the utterances is 1.

    Example
    -------
    >>> class_weights([0, 0, 0, 1], 2)
    tensor([0.6667, 2.0000])
    """
    known = torch.tensor([label for label in labels if label != UNLABELLED])
    counts = torch.bincount(known, minlength=n_classes).double()
    return (len(known) / (n_classes * counts)).float()
