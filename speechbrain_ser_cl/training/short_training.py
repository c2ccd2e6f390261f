"""Trains for a few seconds, in memory and without checkpoints.

A study with few labels has hundreds of trainings per fold, of small models on stored
features. The checkpoints of ``SERBrain`` would take longer than the training. A killed
training is repeated from its start.
"""

import copy
import math
import time
from collections.abc import Callable
from typing import Any

import torch
from torch.nn.functional import cross_entropy

from speechbrain_ser_cl.data.dataset import SpeechDataset
from speechbrain_ser_cl.data.loaders import make_phase
from speechbrain_ser_cl.data.samplers import LengthSortedBatches
from speechbrain_ser_cl.metrics.classification import classification_metrics
from speechbrain_ser_cl.nnet import EmotionClassifier
from speechbrain_ser_cl.training.history import History
from speechbrain_ser_cl.training.views import Read


def train_short(
    model: EmotionClassifier,
    read: Read,
    train: SpeechDataset,
    valid: SpeechDataset,
    *,
    opt_class: Callable[..., torch.optim.Optimizer],
    schedule: Callable[..., Any],
    lr: float,
    epochs: int,
    patience: int,
    batch_size: int,
    seed: int,
    least_batches: int = 1,
    bucketing: bool = False,
) -> History:
    """Trains a classifier with cross-entropy, in place.

    Selects the epoch with the best validation UAR; the last one in case of a tie.

    Arguments
    ---------
    model : EmotionClassifier
        Model; parameters that require gradients are trained.
    read : callable
        Returns the model's input for utterances.
    train, valid : SpeechDataset
        Labelled utterances; the data sets read nothing.
    opt_class, schedule : callable
        ``opt_class(parameters, lr=lr)``; ``schedule(optimizer)``, whose ``step`` gets
        the validation UAR after each epoch.
    lr : float
        Learning rate.
    epochs : int
        Largest number of epochs.
    patience : int
        Number of epochs without a better UAR after which training ends.
    batch_size : int
        Utterances per batch.
    seed : int
        Seed of the order of the batches.
    least_batches : int
        Smallest number of batches per epoch; utterances are repeated if necessary.
    bucketing : bool
        Whether batches have utterances of similar length.

    Returns
    -------
    History
        One row per epoch; ``tested`` is the selected one.

    Raises
    ------
    ValueError
        If the loss is not finite.
    """
    device = next(model.parameters()).device
    trained = [p for p in model.parameters() if p.requires_grad]
    optimizer = opt_class(trained, lr=lr)
    scheduler = schedule(optimizer)
    history, start = History(), time.time()
    stream = make_phase(train, batch_size, seed, bucketing=bucketing).stream
    n_batches = max(stream.batches_per_pass, least_batches)
    labels = torch.tensor(train.labels)
    best, waited, state = -math.inf, 0, {}
    for epoch in range(1, epochs + 1):
        model.train()
        for k in range(n_batches):
            rows = stream.batch((epoch - 1) * n_batches + k)
            logits = model(*read([train.items[row].utterance.id for row in rows]))
            loss = cross_entropy(logits, labels[rows].to(device))
            if not torch.isfinite(loss):
                raise ValueError(
                    f"the loss of epoch {epoch} is {loss}: lower the learning rate, "
                    f"which is {lr}"
                )
            optimizer.zero_grad(set_to_none=True)
            loss.backward()
            optimizer.step()
            history.add_batch({"emotion": loss.detach()})
        seen = evaluate_short(model, read, valid)
        scores = classification_metrics(
            seen["label"], seen["prediction"], len(valid.class_names)
        )
        rate = optimizer.param_groups[0]["lr"]
        history.end_epoch(epoch, phase="fine-tuning", valid=scores, lr=rate)
        scheduler.step(scores["uar"])
        waited = 0 if scores["uar"] > best else waited + 1
        if scores["uar"] >= best:  # a tie selects the later epoch
            best, history.tested = scores["uar"], history.epochs[-1]
            state = copy.deepcopy(model.state_dict())
        if waited >= patience:
            break
    model.load_state_dict(state)
    history.seconds = time.time() - start
    return history


@torch.no_grad()
def evaluate_short(
    model: EmotionClassifier, read: Read, data: SpeechDataset, batch_size: int = 64
) -> dict[str, Any]:
    """Classifies utterances.

    Arguments
    ---------
    model : EmotionClassifier
        Model; set to evaluation mode.
    read : callable
        Returns the model's input for utterances.
    data : SpeechDataset
        Labelled utterances.
    batch_size : int
        Utterances per batch.

    Returns
    -------
    dict
        As ``SERBrain.collected_outputs`` returns, with the embeddings.
    """
    model.eval()
    rows, logits, embeddings = [], [], []
    for batch in LengthSortedBatches(data.durations, batch_size):
        ids = [data.items[row].utterance.id for row in batch]
        scores, h = model(*read(ids), embeddings=True)
        rows += batch
        logits.append(scores.float().cpu())
        embeddings.append(h.float().cpu())
    whole = torch.cat(logits)
    return {
        "id": [data.items[row].utterance.id for row in rows],
        "label": torch.tensor(data.labels)[rows].numpy(),
        "prediction": whole.argmax(dim=1).numpy(),
        "probability": whole.softmax(dim=1).numpy(),
        "embeddings": torch.cat(embeddings).numpy(),
    }
