"""Writes a finished run as recipes do, without training."""

import sys
from unittest.mock import patch

import numpy as np

from speechbrain_ser_cl.data.splits import fingerprint
from speechbrain_ser_cl.training import History, write_run

LAYERS = [0.2, 0.5, 0.3]


def write_trained(folder, parts, class_names, seed=0, skill=1.5, **record):
    """Writes the files of a model that is right more often for a higher skill.

    Probabilities and embeddings are made of the labels and noise.
    """
    rng = np.random.default_rng([seed, len(parts["test"])])
    items = parts["test"]
    labels = np.array([class_names.index(item.label) for item in items])
    logits = skill * np.eye(len(class_names))[labels]
    logits += rng.normal(size=logits.shape)
    probabilities = np.exp(logits) / np.exp(logits).sum(1, keepdims=True)
    history = History()
    for epoch in (1, 2, 3):
        history.add_batch({"emotion": 1 / epoch, "contrastive": 2 - 0.1 * epoch})
        valid = {"uar": 0.4 + 0.1 * epoch, "wa": 0.5, "macro_f1": 0.4, "loss": 1.0}
        history.end_epoch(epoch, valid=valid, lr=10.0**-epoch, temperature=1.25)
    history.tested = history.epochs[-1]
    history.seconds = 75.0
    predictions = {
        "id": [item.utterance.id for item in items],
        "label": labels,
        "prediction": logits.argmax(1),
        "probability": probabilities,
        "embeddings": np.hstack([logits, rng.normal(size=(len(items), 4))]),
    }
    about = {
        "recipe": "toy",
        "setting": "all losses",
        "encoder": "toy-encoder",
        "seed": seed,
        "demo": False,
        "data": {"fingerprint": fingerprint(parts)},
        "layer_weights": LAYERS,
    }
    about |= record
    # As without matplotlib, because tests do not use these figures.
    with patch.dict(sys.modules, {"matplotlib.figure": None}):
        write_run(folder, about, predictions, parts, class_names, history)
    (folder / "hyperparams.yaml").write_text(f"seed: {seed}\n")
    return folder
