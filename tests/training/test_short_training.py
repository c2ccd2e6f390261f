"""Trainings in memory, against a loop in this file."""

import copy
from functools import partial

import numpy as np
import pytest
import torch
from sklearn.metrics import balanced_accuracy_score

from speechbrain_ser_cl.corpora import Utterance
from speechbrain_ser_cl.data.dataset import SpeechDataset
from speechbrain_ser_cl.data.splits import Labelled
from speechbrain_ser_cl.nnet import ClassifierHead, EmotionClassifier
from speechbrain_ser_cl.training.short_training import evaluate_short, train_short

ABOUT = {"session": None, "gender": None, "language": "en", "text_id": None}
CLASSES = ["angry", "sad"]


@pytest.fixture
def world():
    """Makes vectors of two overlapping classes, a model on them, and two parts."""
    rng = np.random.default_rng(0)
    items, vectors = [], {}
    for k in range(40):
        name, label = f"u{k:02}", CLASSES[k % 2]
        utterance = Utterance(
            name, "x.wav", 1 + k % 7, "c", "s", emotion=label, **ABOUT
        )
        items.append(Labelled(utterance, label))
        vectors[name] = torch.tensor(rng.normal(k % 2, 1, 5), dtype=torch.float32)
    torch.manual_seed(0)
    model = EmotionClassifier(torch.nn.Identity(), [ClassifierHead(5, n_classes=2)])
    model.encoder.reads = "vectors"
    parts = (SpeechDataset(some, CLASSES, None) for some in (items[:24], items[24:]))
    return model, lambda ids: (torch.stack([vectors[i] for i in ids]), None), *parts


OPTIONS = {"opt_class": torch.optim.SGD, "lr": 0.1, "batch_size": 100, "seed": 0}
CONSTANT = partial(torch.optim.lr_scheduler.ReduceLROnPlateau, mode="max", patience=99)


def test_it_is_gradient_descent_and_the_best_epoch_counts(world):
    model, read, train, valid = world
    head = copy.deepcopy(model.head)
    history = train_short(
        model, read, train, valid, schedule=CONSTANT, epochs=9, patience=9, **OPTIONS
    )
    x, y = read([i.utterance.id for i in train.items])[0], torch.tensor(train.labels)
    uars, states = [], []
    for epoch in range(9):  # one batch of all
        loss = torch.nn.functional.cross_entropy(head(x), y)
        head.zero_grad()
        loss.backward()
        for p in head.parameters():
            p.data -= 0.1 * p.grad
        assert history.epochs[epoch]["train"]["emotion"] == pytest.approx(loss.item())
        guess = head(read([i.utterance.id for i in valid.items])[0]).argmax(dim=1)
        uars.append(balanced_accuracy_score(valid.labels, guess))
        states.append(copy.deepcopy(head.state_dict()))
    found = [row["valid"]["uar"] for row in history.epochs]
    assert found == pytest.approx(uars)
    best = max(range(9), key=lambda k: (uars[k], k))  # the last of several
    assert history.tested["epoch"] == best + 1
    for name, value in states[best].items():
        torch.testing.assert_close(model.head.state_dict()[name], value)
    seen = evaluate_short(model, read, valid, batch_size=5)
    assert sorted(seen["id"]) == [i.utterance.id for i in valid.items]
    label = {i.utterance.id: i.label for i in valid.items}
    assert [CLASSES[k] for k in seen["label"]] == [label[name] for name in seen["id"]]
    uar = balanced_accuracy_score(seen["label"], seen["prediction"])
    assert uar == pytest.approx(uars[best])


def test_it_stops_when_patience_is_used_up_and_repeats_few_utterances(world):
    model, read, train, valid = world
    calls = []

    def counted(ids):
        calls.append(len(ids))
        return read(ids)

    options = OPTIONS | {"lr": 0.0, "batch_size": 8, "least_batches": 7}
    history = train_short(
        model, counted, train, valid, schedule=CONSTANT, epochs=9, patience=2, **options
    )
    # No epoch is better than the first: two more, of seven batches and a validation.
    assert len(history.epochs) == 3 and len(calls) == 3 * (7 + 1)
    assert history.tested["epoch"] == 3


def test_a_loss_that_is_not_finite_is_an_error(world):
    model, read, train, valid = world
    with pytest.raises(ValueError, match="epoch 1 is nan: lower the learning rate"):
        train_short(
            model,
            lambda ids: (read(ids)[0] * torch.nan, None),
            train,
            valid,
            schedule=CONSTANT,
            epochs=1,
            patience=1,
            **OPTIONS,
        )
