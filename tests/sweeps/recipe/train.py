#!/usr/bin/env python3
"""A small recipe that learns the nearest mean duration, in slow epochs.

It takes the arguments that ``ser-cl crossval`` gives and leaves what recipes leave,
without the seconds that importing torch costs.

To run it:
> python train.py tiny.yaml --corpora "{synthetic: /path}"

Authors
 * The speechbrain_ser_cl contributors 2026
"""

import json
import os
import subprocess
import sys
import time
from pathlib import Path

import numpy as np
from hyperpyyaml import resolve_references
from ruamel.yaml import YAML

from speechbrain_ser_cl.data.experiment import fold_split, read_corpora
from speechbrain_ser_cl.data.protocols import select_parts
from speechbrain_ser_cl.results.predictions import write_predictions
from speechbrain_ser_cl.results.utterances import write_parts


def main(hparams_file, *words):
    """Trains and tests one fold."""
    overrides = {
        key.removeprefix("--"): YAML().load(value)
        for key, value in zip(words[::2], words[1::2], strict=True)
    }
    with open(hparams_file) as file:
        values = YAML().load(resolve_references(file, overrides))
    folder = Path(values["output_folder"])
    folder.mkdir(parents=True, exist_ok=True)
    with open(folder / "starts.txt", "a") as file:
        print(os.getpid(), os.environ.get("CUDA_VISIBLE_DEVICES"), file=file)
    if values["helper"]:  # like a loader's workers
        subprocess.Popen(
            [sys.executable, "-c", "import time; time.sleep(600)", str(folder)]
        )

    items = read_corpora(values["corpora"], values["emotion_map"])
    split = fold_split(
        items, values["protocol"], values["fold"], values["seed"], values["split_file"]
    )
    parts = select_parts(items, split)

    checkpoint = folder / "epochs.txt"
    done = len(checkpoint.read_text().split()) if checkpoint.exists() else 0
    for epoch in range(done, values["epochs"]):
        if values["wait_for"]:
            print(f"epoch {epoch} waits for {values['wait_for']}", flush=True)
            while not Path(values["wait_for"]).exists():
                time.sleep(0.02)
        with open(checkpoint, "a") as file:
            print(epoch, file=file)
    if values["fold"] == values["broken_fold"]:
        raise ValueError("this fold does not work")
    test(parts, split, values, folder)


def test(parts, split, values, folder):
    """Writes the files of a recipe."""
    names = list(values["emotion_map"])
    means = [
        np.mean([i.utterance.duration for i in parts["train"] if i.label == name])
        for name in names
    ]
    rng = np.random.default_rng(values["seed"])
    durations = np.array([i.utterance.duration for i in parts["test"]])
    durations += rng.normal(0, values["noise"], len(durations))
    distance = np.abs(durations[:, None] - np.array(means))
    write_predictions(
        folder / "predictions.csv",
        [i.utterance.id for i in parts["test"]],
        [names.index(i.label) for i in parts["test"]],
        distance.argmin(1),
        np.exp(-distance) / np.exp(-distance).sum(1, keepdims=True),
        names,
    )
    write_parts(folder / "utterances.csv", parts)
    results = {
        "recipe": "tiny",
        "setting": f"noise {values['noise']}",
        "order": values["noise"],
        "encoder": "duration",
        "demo": False,
        "seed": values["seed"],
        "data": {"fingerprint": split.fingerprint},
        "training_seconds": 1.5,
        "versions": {"python": sys.version.split()[0]},
    }
    (folder / "results.json").write_text(json.dumps(results))


if __name__ == "__main__":
    main(*sys.argv[1:])
