"""Named augmentation pipelines, of which one is drawn per utterance."""

import random
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from typing import Any

import torch

_SHORTEST = 0.1  # seconds; shorter utterances are repeated and their view is cut


@contextmanager
def _seeded(seed: int) -> Iterator[None]:
    """Seeds the generators of torch-audiomentations, then restores them."""
    # Not by torch.manual_seed: it would also reset the CUDA generators, and so the
    # model's dropout. Compositions and file pickers use Python's ``random``.
    python_state = random.getstate()
    with torch.random.fork_rng(devices=[]):
        torch.default_generator.manual_seed(seed)
        random.seed(seed)
        try:
            yield
        finally:
            random.setstate(python_state)


class AugmentationPipelines:
    """Augments one utterance with one of several named pipelines.

    A pipeline is a list of torch-audiomentations transforms that are applied in order,
    each with its own probability ``p``. The number of the pipeline is the label of the
    augmentation classification loss in Ahn and Rajapakse 2023, "Integrating contrastive
    learning into a multitask transformer model for effective domain adaptation",
    section 3.4 and eq. 6.

    For single utterances without padding: in a padded batch ``TimeInversion`` and
    ``Shift`` would move the padding to the front. Samples may leave [-1, 1] (``Gain``,
    ``AddColoredNoise``); nothing is clipped. An utterance shorter than 0.1 s, which
    ``PitchShift`` cannot process, is repeated up to that length and its view is cut.

    Arguments
    ---------
    pipelines : mapping of str to sequence of transforms
        Name to transforms, in the order of the labels. Transforms are instances of
        ``torch_audiomentations`` classes; an empty sequence changes nothing.
    sample_rate : int
        In Hz.

    Raises
    ------
    ValueError
        If there is no pipeline, a member is not a transform, or the band of a band
        filter can reach above half the sampling rate.

    Example
    -------
    >>> import torch
    >>> from torch_audiomentations import Gain, PolarityInversion
    >>> pipelines = AugmentationPipelines(
    ...     {
    ...         "flip": [PolarityInversion(p=1.0, output_type="dict")],
    ...         "level": [Gain(-6.0, -3.0, p=1.0, output_type="dict")],
    ...     }
    ... )
    >>> view, label = pipelines(torch.ones(16000), seed=1)
    >>> view.shape, pipelines.names[label]
    (torch.Size([16000]), 'level')
    """

    def __init__(
        self,
        pipelines: Mapping[str, Sequence[torch.nn.Module]],
        sample_rate: int = 16000,
    ) -> None:
        # Imported here, because it takes a second.
        from torch_audiomentations.core.composition import BaseCompose
        from torch_audiomentations.core.transforms_interface import (
            BaseWaveformTransform,
        )

        if not pipelines:
            raise ValueError(
                "pipelines is empty, expected at least one, "
                "as {name: [transform, ...]}; or use no augmentation"
            )
        self.sample_rate = sample_rate
        self._pipelines = {name: tuple(pipelines[name]) for name in pipelines}
        for name, transforms in self._pipelines.items():
            for transform in transforms:
                if not isinstance(transform, (BaseWaveformTransform, BaseCompose)):
                    raise ValueError(
                        f"pipeline {name!r}: {transform!r} is not a transform; "
                        "expected an instance of a torch_audiomentations class "
                        "(in YAML: !new:torch_audiomentations.Gain)"
                    )
                # Else it returns a tensor or an object, depending on its arguments.
                transform.output_type = "dict"
                for part in transform.modules():
                    self._check_band(name, part)

    def _check_band(self, name: str, transform: Any) -> None:
        """Refuses a band that would fail only rarely, in the middle of a training."""
        if not hasattr(transform, "max_bandwidth_fraction"):
            return
        center = transform.max_center_frequency
        edge = center * (1 + transform.max_bandwidth_fraction / 2)
        if edge > self.sample_rate / 2:
            raise ValueError(
                f"pipeline {name!r}: the band of {type(transform).__name__} can "
                f"reach {edge:.0f} Hz, more than half the sampling rate of "
                f"{self.sample_rate} Hz; lower max_center_frequency ({center}) or "
                f"max_bandwidth_fraction ({transform.max_bandwidth_fraction})"
            )

    @property
    def names(self) -> tuple[str, ...]:
        """Names of the pipelines; a label is an index into them."""
        return tuple(self._pipelines)

    def __len__(self) -> int:
        return len(self._pipelines)

    def __call__(self, wav: torch.Tensor, seed: int) -> tuple[torch.Tensor, int]:
        """Draws one pipeline uniformly and applies it.

        The result depends only on ``wav`` and ``seed``; the global random generators
        are not changed.

        Arguments
        ---------
        wav : torch.Tensor
            One utterance without padding, on the CPU, shape (T,), T >= 1. Not modified.
        seed : int
            Torch uses only its lowest 32 bits.

        Returns
        -------
        view : torch.Tensor
            Shape (T,), finite. Shares memory with ``wav`` if no transform was applied.
        label : int
            Number of the pipeline, in [0, len(self)).

        Raises
        ------
        ValueError
            If ``wav`` is not one non-empty utterance, or the view has another length or
            samples that are not finite.
        """
        if wav.dim() != 1 or wav.numel() == 0 or wav.device.type != "cpu":
            raise ValueError(
                "expected one non-empty utterance of shape (T,) on the CPU, found "
                f"shape {tuple(wav.shape)} on {wav.device}"
            )
        with _seeded(seed):
            label = int(torch.randint(len(self), ()))
            times = max(1, -(-round(_SHORTEST * self.sample_rate) // len(wav)))
            given = wav.repeat(times) if times > 1 else wav
            view = given[None, None]
            for transform in self._pipelines[self.names[label]]:
                view = transform(view, sample_rate=self.sample_rate).samples
        view = view[0, 0]
        if not view.isfinite().all():
            raise ValueError(
                f"pipeline {self.names[label]!r} gave NaN or infinite samples from "
                f"samples between {wav.min():g} and {wav.max():g}; check the audio"
            )
        if view.shape != given.shape:
            raise ValueError(
                f"pipeline {self.names[label]!r} changed the length from "
                f"{len(given)} to {len(view)} samples; use transforms that keep it"
            )
        return view[: len(wav)], label
