#!/usr/bin/env python3
"""Tests whether criteria without labels select the best model for another corpus.

Networks of benchmarks/loss_zoo.py, with losses that have a head, are trained on one
corpus for 5, 20 and 100 steps. Each is scored without labels on another corpus
(speechbrain_ser_cl.metrics.without_labels), by its UAR on held-out speakers of its own
corpus, and with the labels. The rank correlation (Spearman) tells whether a score
orders the models like the true UAR; the regret is the difference in UAR between the
best model and the one with the highest score. Each corpus is standardised by itself,
and probabilities are those of the shared classes.

> python benchmarks/without_labels.py --encoder whisper-tiny.en \
      --folders emodb=EmoDB ravdess=RAVDESS crema_d=CREMA-D

Authors
 * The speechbrain_ser_cl contributors 2026
"""

import argparse
import json
from datetime import datetime, timezone
from pathlib import Path

import loss_zoo
import numpy as np
import torch
from scipy.special import softmax
from scipy.stats import spearmanr
from tqdm import tqdm

from speechbrain_ser_cl.metrics.without_labels import (
    mutual_information,
    neighborhood_density,
    weighted_risk,
)
from speechbrain_ser_cl.training.utterance_features import load_features

RESULTS = Path(__file__).parent / "results" / "without_labels.json"
STEPS = (5, 20, 100)
LOSSES = [*loss_zoo.LOGITS, *loss_zoo.BOTH]


@torch.no_grad()
def outputs(network, x):
    """Returns embeddings and logits."""
    h = network.body(torch.from_numpy(x))
    return h.numpy(), network.head(h).numpy()


def scores(fold, name, steps, seed):
    """Scores one network: source UAR, and per target the criteria and the true UAR."""
    loss_zoo.STEPS = steps
    value = loss_zoo.ZOO[name][0][1 if len(loss_zoo.ZOO[name][0]) > 1 else 0]
    network = fold.network(name, value, fold.inner, seed)
    y = fold.corpus.y[fold.valid]
    h_source, logits = outputs(network, fold.x[fold.valid])
    losses = -np.log(softmax(logits, 1)[np.arange(len(y)), y].clip(1e-9))
    source = loss_zoo.uar(y, logits)
    found = {}
    for target, (x, truth, columns) in fold.others.items():
        h, logits = outputs(network, x)
        p = softmax(logits[:, columns], 1)
        found[target] = {
            "mutual information": mutual_information(p),
            "neighbourhood density": neighborhood_density(p),
            "weighted source risk": weighted_risk(losses, h_source, h),
            "UAR on the source": source,
            "target": loss_zoo.uar(truth, logits[:, columns]),
        }
    return found


def main():
    """Trains, scores and writes the results."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--encoder", required=True)
    parser.add_argument("--folders", nargs="+", required=True, metavar="CORPUS=FOLDER")
    parser.add_argument("--features", metavar="FOLDER", help="where features are kept")
    parser.add_argument("--seeds", type=int, default=3, help="how many")
    options = parser.parse_args()
    corpora = [loss_zoo.Corpus(*entry.split("=", 1)) for entry in options.folders]
    features = load_features(options.encoder, folder=options.features)
    features.fill([item.utterance for corpus in corpora for item in corpus.items])
    results = []
    for corpus in corpora:
        fold = loss_zoo.Fold(corpora, corpus, features, 0)
        models = [
            scores(fold, name, steps, seed)
            for name in tqdm(LOSSES, corpus.name)
            for steps in STEPS
            for seed in range(options.seeds)
        ]
        for target in fold.others:
            rows = [model[target] for model in models]
            truth = np.array([row.pop("target") for row in rows])
            about = {"source": corpus.name, "target": target, "models": len(rows)}
            about |= {"best": truth.max(), "mean": truth.mean()}
            for name in rows[0]:
                told = np.array([row[name] for row in rows])
                regret = truth.max() - truth[told == told.max()].mean()
                rho = spearmanr(told, truth).statistic
                one = {"criterion": name, "rho": rho, "regret": regret}
                results.append({**about, **one})
    found = {
        "date": datetime.now(timezone.utc).date().isoformat(),
        "encoder": Path(options.encoder).name,
        "versions": {"torch": torch.__version__},
        "results": [
            {
                k: round(float(v), 4) if isinstance(v, float) else v
                for k, v in row.items()
            }
            for row in results
        ],
    }
    RESULTS.write_text(json.dumps(found, indent=1) + "\n", encoding="utf-8")


if __name__ == "__main__":
    main()
