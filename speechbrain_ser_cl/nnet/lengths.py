"""Converts relative lengths to counts and masks, by one rule for the whole package."""

import torch
from torch import Tensor


def valid_counts(lengths: Tensor, n_steps: int) -> Tensor:
    """Counts the valid steps of each utterance.

    Relative length times number of steps, rounded to the nearest integer, at least 1. A
    relative length is a count divided by a padded length, so rounding recovers the
    count exactly (in float32 up to about 4 million steps: four minutes of samples).

    Arguments
    ---------
    lengths : torch.Tensor
        Relative lengths (B,) in (0, 1].
    n_steps : int
        Padded length in steps (samples or frames).

    Returns
    -------
    torch.Tensor
        Counts (B,), int64, from 1 to ``n_steps``.

    Raises
    ------
    ValueError
        If a length is not in (0, 1], for example a length in samples.

    Example
    -------
    >>> valid_counts(torch.tensor([1.0, 2 / 3]), 3)
    tensor([3, 2])
    """
    # A traced graph has no values. Rounding may give a length slightly above 1.
    if not torch.compiler.is_compiling():
        outside = lengths[~((lengths > 0) & (lengths <= 1 + 1e-3))]
        if outside.numel():
            raise ValueError(
                f"relative lengths must be in (0, 1], found {outside[0].item():g}: "
                "divide the number of valid samples or frames by that of the padded "
                "batch"
            )
    return (lengths * n_steps).round().long().clamp(1, n_steps)


def steps_mask(counts: Tensor, n_steps: int) -> Tensor:
    """Makes a mask that is True for the first ``counts`` steps of each row.

    Arguments
    ---------
    counts : torch.Tensor
        Valid steps of each utterance (B,).
    n_steps : int
        Padded length in steps.

    Returns
    -------
    torch.Tensor
        Boolean mask (B, n_steps).

    Example
    -------
    >>> steps_mask(torch.tensor([2, 1]), 3)
    tensor([[ True,  True, False],
            [ True, False, False]])
    """
    return torch.arange(n_steps, device=counts.device) < counts[:, None]


def length_mask(lengths: Tensor, n_steps: int) -> Tensor:
    """Makes a mask that is True for an utterance's steps and False for its padding.

    Steps are counted by :func:`valid_counts`. Relative lengths must be measured in the
    same steps. Relative lengths of a *waveform* give one frame too many or too few for
    four in ten utterances with wav2vec 2.0, because they count samples that fill no
    frame; use the backbone's ``frame_lengths`` instead.

    Arguments
    ---------
    lengths : torch.Tensor
        Relative lengths (B,) in (0, 1].
    n_steps : int
        Padded length in steps (samples or frames).

    Returns
    -------
    torch.Tensor
        Boolean mask (B, n_steps).

    Example
    -------
    >>> length_mask(torch.tensor([1.0, 2 / 3]), 3)
    tensor([[ True,  True,  True],
            [ True,  True, False]])
    """
    return steps_mask(valid_counts(lengths, n_steps), n_steps)
