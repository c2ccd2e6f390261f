#!/usr/bin/env python3
"""Measures the gain from hearing the speaker, the sentence, or both, in training.

The folds of ``speaker_text_kfold``, 5 x 2, test each utterance once. For each fold a
frozen encoder with a linear classifier tests the same utterances after training on
utterances

- of other speakers and other sentences (by both),
- of other speakers (by speaker): sentences leak,
- of other sentences (by text): speakers leak,
- any that are not tested (random): both leak,

once with as many utterances of each class as there are by both, so that only the leak
differs, and once with all. Intervals (95 %) are over speakers; those of differences use
the same resamples for both.

> python benchmarks/leaks.py --encoder whisper-tiny.en \
      --folders emodb=EmoDB ravdess=RAVDESS crema_d=CREMA-D

Authors
 * The speechbrain_ser_cl contributors 2026
"""

import argparse
import json
from collections import Counter
from datetime import datetime, timezone
from pathlib import Path

import numpy as np
import torch
from tqdm import tqdm

from speechbrain_ser_cl.data.experiment import map_corpora, read_corpus
from speechbrain_ser_cl.data.protocols import make_folds
from speechbrain_ser_cl.data.splits import random_rank
from speechbrain_ser_cl.metrics.classification import classification_metrics
from speechbrain_ser_cl.metrics.resampling import intervals
from speechbrain_ser_cl.training.probe import LinearProbe
from speechbrain_ser_cl.training.utterance_features import load_features

RESULTS = Path(__file__).parent / "results" / "leaks.json"
PROTOCOL = {"kind": "speaker_text_kfold", "n_folds": 5, "text_folds": 2}
KEPT_APART = {
    "by both": ("speaker", "text_id"),
    "by speaker": ("speaker",),
    "by text": ("text_id",),
    "random": (),
}


def pool(items, tested, keys):
    """Selects untested utterances that share none of the keys with tested ones."""
    ids = {item.utterance.id for item in tested}
    held = {key: {getattr(i.utterance, key) for i in tested} for key in keys}
    return [
        item
        for item in items
        if item.utterance.id not in ids
        and all(getattr(item.utterance, key) not in some for key, some in held.items())
    ]


def drawn(items, counts, seed):
    """Draws as many utterances of each class as ``counts`` gives."""
    taken, kept = Counter(), []
    for item in sorted(items, key=lambda i: random_rank(seed, i.utterance.id)):
        if taken[item.label] < counts[item.label]:
            taken[item.label] += 1
            kept.append(item)
    return kept


def measure(name, folder, features, seed):
    """Measures the eight settings of one corpus."""
    utterances = read_corpus(name, folder, allow_missing=True)
    classes = sorted({utterance.emotion for utterance in utterances})
    items, _ = map_corpora(
        {name: utterances}, {emotion: [emotion] for emotion in classes}
    )
    items.sort(key=lambda item: item.utterance.id)
    by_id = {item.utterance.id: place for place, item in enumerate(items)}
    features.fill([item.utterance for item in items])
    labels = np.array([classes.index(item.label) for item in items])
    speakers = [item.utterance.speaker for item in items]
    probe = LinearProbe()
    told = {
        (size, kind): np.full(len(items), -1)
        for size in ("same", "all")
        for kind in KEPT_APART
    }
    sizes = {key: [] for key in told}
    for split in tqdm(make_folds(items, PROTOCOL | {"valid": "none"}, seed), name):
        test = [items[by_id[one]] for one in split.test]
        counts = Counter(i.label for i in pool(items, test, KEPT_APART["by both"]))
        for kind, keys in KEPT_APART.items():
            everything = pool(items, test, keys)
            for size in ("same", "all"):
                key = size, kind
                train = everything if size == "all" else drawn(everything, counts, seed)
                sizes[key].append(len(train))
                if key == ("all", "by both"):
                    told[key] = told["same", kind]
                    continue
                found = probe.run(features, {"train": train, "test": test}, classes)
                places = [by_id[one] for one in found.predictions["id"]]
                told[key][places] = found.predictions["prediction"]
    results = []
    for (size, kind), predictions in told.items():
        base = told[size, "by both"]

        def measured(chosen, predictions=predictions, base=base):
            if len(np.unique(labels[chosen])) < len(classes):
                return {"uar": np.nan, "gain": np.nan}
            one, other = (
                float(
                    classification_metrics(labels[chosen], p[chosen], len(classes))[
                        "uar"
                    ]
                )
                for p in (predictions, base)
            )
            return {"uar": one, "gain": one - other}

        assert (predictions >= 0).all()
        results.append(
            {
                "corpus": name,
                "kept apart": kind,
                "training": size,
                "utterances": int(np.mean(sizes[size, kind])),
                **measured(np.arange(len(labels))),
                "intervals": intervals(measured, len(labels), speakers),
            }
        )
    texts = {item.utterance.text_id for item in items}
    about = {
        "utterances": len(items),
        "speakers": len(set(speakers)),
        "texts": len(texts),
        "classes": len(classes),
    }
    return about, results


def main():
    """Measures and writes the results."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--encoder", required=True)
    parser.add_argument("--folders", nargs="+", required=True, metavar="CORPUS=FOLDER")
    parser.add_argument("--features", metavar="FOLDER", help="where features are kept")
    parser.add_argument("--seed", type=int, default=0, help="of the folds")
    parser.add_argument("--output", type=Path, default=RESULTS)
    options = parser.parse_args()
    features = load_features(options.encoder, folder=options.features)
    corpora, results = {}, []
    for entry in options.folders:
        name, folder = entry.split("=", 1)
        corpora[name], rows = measure(name, folder, features, options.seed)
        results += rows
        found = {
            "date": datetime.now(timezone.utc).date().isoformat(),
            "encoder": Path(options.encoder).name,
            "seed": options.seed,
            "versions": {"torch": torch.__version__},
            "corpora": corpora,
            "results": results,
        }
        text = json.dumps(found, indent=1) + "\n"
        options.output.write_text(text, encoding="utf-8")


if __name__ == "__main__":
    main()
