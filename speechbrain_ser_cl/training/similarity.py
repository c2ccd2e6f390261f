"""Similarity of utterances in the layers of an encoder, before and after a training."""

import logging
from collections.abc import Iterator, Sequence
from contextlib import AbstractContextManager, contextmanager, nullcontext
from pathlib import Path
from typing import Any

import numpy as np
import torch
from speechbrain.utils.distributed import if_main_process

from speechbrain_ser_cl.backbones import WeightedSSL
from speechbrain_ser_cl.data.dataset import waveform
from speechbrain_ser_cl.data.splits import Labelled
from speechbrain_ser_cl.metrics import pair_similarities, write_similarities
from speechbrain_ser_cl.report.figures import plot_similarities

logger = logging.getLogger(__name__)

_NO_CONTEXT = nullcontext()


@contextmanager
def layer_similarities(
    path: Path,
    backbone: WeightedSSL,
    items: Sequence[Labelled],
    most: int,
    context: AbstractContextManager[Any] = _NO_CONTEXT,
) -> Iterator[None]:
    """Compares pairs of utterances in each layer, before and after a ``with`` block.

    Writes mean cosine similarities of pairs with equal and with different classes, per
    layer (Xiang 2024, figure 4), as ``path.csv`` and ``path.png``. Does nothing if the
    CSV exists, or outside the main process.

    Arguments
    ---------
    path : pathlib.Path
        Path of the files, without suffix.
    backbone : WeightedSSL
        Encoder that the block trains.
    items : sequence of Labelled
        Utterances; at most ``most`` evenly spaced ones are used.
    most : int
        0: no comparison.
    context : context manager
        Context of the computation, such as the ``evaluation_ctx`` of a Brain.

    Yields
    ------
    None

    Example
    -------
    ::

        with layer_similarities(folder / "similarity", backbone, test, most=200):
            brain.fit(brain.epoch_counter, train, valid)
    """
    if not most or not if_main_process() or path.with_suffix(".csv").exists():
        yield
        return
    items = items[:: -(-len(items) // most)]
    found = {"pretrained": _similarities(backbone, items, context)}
    yield
    found["after stage 1"] = _similarities(backbone, items, context)
    try:
        plot_similarities(found, path.with_suffix(".png"))
    except ImportError as error:
        logger.warning("No figure: %s", error)
    write_similarities(path.with_suffix(".csv"), found)


@torch.no_grad()
def _similarities(
    backbone: WeightedSSL,
    items: Sequence[Labelled],
    context: AbstractContextManager[Any],
) -> tuple[np.ndarray, np.ndarray]:
    backbone.eval()
    device = backbone.layer_weights.device
    layers = []
    for item in items:
        wav = waveform(item.utterance)[None].to(device)
        with context:
            states = [h.float().mean(dim=1) for h in backbone.hidden_states(wav)]
        layers.append(torch.cat(states).cpu())
    return pair_similarities(torch.stack(layers, 1), [item.label for item in items])
