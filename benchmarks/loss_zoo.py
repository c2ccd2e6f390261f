#!/usr/bin/env python3
"""Compares all losses on class labels, with one small network and one budget.

The input of the network is mean and deviation over time of one layer of a frozen
encoder (the layer for which ridge regression is best over inner speaker folds),
standardised; then linear, ReLU, dropout. Losses on logits have a linear head above it,
losses on embeddings a linear projection; the layer below is evaluated, as usual. Each
loss has three values of its temperature, margin or weight. This value and C of the
logistic regression are selected together on inner validation speakers, with the first
seed, and used for all seeds.

Results of each fold over speakers: UAR by logistic regression on the embeddings; UAR by
the nearest training utterance (cosine; from other speakers, so that other takes of a
speaker's sentence do not count); UAR of a training with 5 and with 10 utterances of
each class; and UAR on the other corpora, over the shared classes, each corpus
standardised by itself.

A stopped run can be continued: each cell is a line of the journal. --write converts the
journal to the results file, and ``python benchmarks/tables.py`` writes the page.

> python benchmarks/loss_zoo.py --encoders whisper-tiny.en whisper-base \
      --folders emodb=EmoDB ravdess=RAVDESS crema_d=CREMA-D --journal zoo.jsonl
> python benchmarks/loss_zoo.py --journal zoo.jsonl --write

Authors
 * The speechbrain_ser_cl contributors 2026
"""

import argparse
import itertools
import json
import math
import time
from datetime import datetime, timezone
from pathlib import Path

import numpy as np
import torch
from torch import nn
from torch.nn import functional as F
from tqdm import tqdm

from speechbrain_ser_cl import losses
from speechbrain_ser_cl.data.experiment import map_corpora, read_corpus
from speechbrain_ser_cl.data.protocols import make_folds
from speechbrain_ser_cl.data.splits import random_rank
from speechbrain_ser_cl.metrics.classification import classification_metrics
from speechbrain_ser_cl.metrics.linear_probe import (
    fit_classifier,
    inner_folds,
    standardiser,
)
from speechbrain_ser_cl.training.probe import LinearProbe
from speechbrain_ser_cl.training.utterance_features import load_features

RESULTS = Path(__file__).parent / "results" / "loss_zoo.json"
STEPS, BATCH, HIDDEN, PROJECTION = 100, 128, 256, 128
STRENGTHS = (0.001, 0.01, 0.1)
FEW = (5, 10)
TEMPERATURES, MARGINS = (0.05, 0.1, 0.5), (0.1, 0.2, 0.5)
PLAIN = "plain features"

# Name to the values tried, and a function from a value and the class counts to the
# loss. On logits:
LOGITS = {
    "cross_entropy": (
        (0.0, 0.05, 0.1),
        lambda v, n: nn.CrossEntropyLoss(None, label_smoothing=v),
    ),
    "focal": ((0.5, 1.0, 2.0), lambda v, n: losses.FocalLoss(v)),
    "class_balanced": ((0.9, 0.99, 0.999), lambda v, n: losses.ClassBalancedLoss(n, v)),
    "logit_adjusted": ((0.5, 1.0, 1.5), lambda v, n: losses.LogitAdjustedLoss(n, v)),
    "binary_emotions": ((0.0,), lambda v, n: losses.BinaryEmotionsLoss()),
}
# On embeddings:
PAIRS = {
    "supcon": (TEMPERATURES, losses.SupConLoss),
    "supcon_in": (TEMPERATURES, losses.SupConInLoss),
    "supervised_ntxent": (TEMPERATURES, losses.SupervisedNTXentLoss),
    "soft_nearest_neighbor": (TEMPERATURES, losses.SoftNearestNeighborLoss),
    "npair": ((0.0,), lambda v: losses.NPairLoss()),
    "siamese": ((0.3, 0.5, 1.0), losses.SiameseLoss),
    "triplet": (MARGINS, losses.TripletLoss),
    "triplet_semihard": (MARGINS, lambda v: losses.TripletLoss(v, mining="semihard")),
    "smooth_triplet": (TEMPERATURES, losses.SmoothTripletLoss),
}
# Cross-entropy and a contrastive loss, whose weight is tried:
BOTH = {
    "cross_entropy+supcon": ((0.1, 0.3, 1.0), losses.SupConLoss),
    "cross_entropy+triplet": ((0.3, 1.0, 3.0), losses.TripletLoss),
}
ZOO = {**LOGITS, **PAIRS, **BOTH}


class Network(nn.Module):
    """A network with the evaluated layer, and the input of the loss above it."""

    def __init__(self, size, classes):
        super().__init__()
        self.body = nn.Sequential(nn.Linear(size, HIDDEN), nn.ReLU())
        self.head = nn.Linear(HIDDEN, classes)
        self.projection = nn.Linear(HIDDEN, PROJECTION)

    def forward(self, x):
        """Returns logits and projections."""
        h = F.dropout(self.body(x), 0.3, self.training)
        return self.head(h), self.projection(h)


def objective(name, value, counts):
    """Returns the loss as a function of logits, projections and labels."""
    if name in PAIRS:
        pair = PAIRS[name][1](value)
        return lambda logits, z, y: pair(z, y)
    if name in BOTH:
        pair = BOTH[name][1]()
        return lambda logits, z, y: F.cross_entropy(logits, y) + value * pair(z, y)
    loss = LOGITS[name][1](value, counts)
    if name == "binary_emotions":
        return lambda logits, z, y: loss(logits, F.one_hot(y, logits.shape[1]))
    return lambda logits, z, y: loss(logits, y)


def train(name, value, x, y, n_classes, seed):
    """Returns the network after the budget of steps."""
    torch.manual_seed(seed)
    x, y = torch.from_numpy(x), torch.from_numpy(y)
    network = Network(x.shape[1], n_classes)
    loss = objective(name, value, torch.bincount(y, minlength=n_classes).tolist())
    optimizer = torch.optim.AdamW(
        network.parameters(), lr=2e-3, weight_decay=0.01, fused=True
    )
    schedule = torch.optim.lr_scheduler.CosineAnnealingLR(optimizer, STEPS)
    orders = (part for _ in itertools.count() for part in batches(len(y)))
    for rows in itertools.islice(orders, STEPS):
        value_of = loss(*network(x[rows]), y[rows])
        optimizer.zero_grad()
        value_of.backward()
        optimizer.step()
        schedule.step()
    return network.eval()


def batches(count):
    """Yields the rows of an epoch, in batches of nearly equal size."""
    return torch.randperm(count).chunk(math.ceil(count / BATCH))


@torch.no_grad()
def embed(network, x):
    """Returns the evaluated layer; without a network the standardised features."""
    return x if network is None else network.body(torch.from_numpy(x)).numpy()


def classify(h, y, others, strengths):
    """Returns logits of a logistic regression for several matrices, by strength."""
    mean, std = standardiser(h)
    for weights, bias in fit_classifier(
        "logistic", (h - mean) / std, y, strengths, tolerance=1e-3
    ):
        yield [((other - mean) / std) @ weights.T + bias for other in others]


def unit(h):
    """Scales rows to length 1."""
    return h / np.linalg.norm(h, axis=1, keepdims=True).clip(1e-9)


def uar(y, logits):
    """Computes the UAR of the classes with the largest logits."""
    return float(classification_metrics(y, logits.argmax(1), logits.shape[1])["uar"])


class Corpus:
    """Utterances, classes and folds of one corpus."""

    def __init__(self, name, folder):
        self.name = name
        utterances = read_corpus(name, folder, allow_missing=True)
        self.classes = sorted({utterance.emotion for utterance in utterances})
        self.items, _ = map_corpora({name: utterances}, {e: [e] for e in self.classes})
        self.ids = [item.utterance.id for item in self.items]
        self.y = np.array([self.classes.index(item.label) for item in self.items])
        self.speakers = np.array([item.utterance.speaker for item in self.items])
        protocol = {"kind": "speaker_kfold", "n_folds": 5, "valid": "none"}
        place = {one: row for row, one in enumerate(self.ids)}
        self.folds = [
            np.array(sorted(place[one] for one in split.test))
            for split in make_folds(self.items, protocol, 0)
        ]

    def few(self, rows, count, seed):
        """Selects this many utterances of each class."""
        rows = sorted(rows, key=lambda row: random_rank(seed, self.ids[row]))
        return np.array(
            [
                r
                for c in range(len(self.classes))
                for r in [q for q in rows if self.y[q] == c][:count]
            ]
        )


class Fold:
    """Standardised features of one fold, from the chosen layer."""

    def __init__(self, corpora, corpus, features, fold):
        self.corpus, self.test = corpus, corpus.folds[fold]
        self.rows = np.setdiff1d(np.arange(len(corpus.y)), self.test)
        parts = {
            "train": [corpus.items[r] for r in self.rows],
            "test": [corpus.items[self.test[0]]],
        }
        ridge = LinearProbe("ridge").run(features, parts, corpus.classes)
        (self.layer,) = ridge.choice.layers
        self.x = features.matrix(corpus.ids, self.layer, "statistics")
        mean, std = standardiser(self.x[self.rows])
        self.x = (self.x - mean) / std
        folds = inner_folds(corpus.y[self.rows], corpus.speakers[self.rows].tolist(), 4)
        self.inner, self.valid = self.rows[folds != 0], self.rows[folds == 0]
        self.others = {}
        for other in corpora:
            shared = [e for e in corpus.classes if e in other.classes]
            if other is not corpus and len(shared) > 1:
                x = features.matrix(other.ids, self.layer, "statistics")
                mean, std = standardiser(x)
                kept = np.flatnonzero(
                    np.isin(other.y, [other.classes.index(e) for e in shared])
                )
                y = np.array([shared.index(other.classes[c]) for c in other.y[kept]])
                columns = [corpus.classes.index(e) for e in shared]
                self.others[other.name] = (((x - mean) / std)[kept], y, columns)

    def network(self, name, value, rows, seed):
        """Returns a trained network, or None for the plain features."""
        if name == PLAIN:
            return None
        return train(
            name,
            value,
            self.x[rows],
            self.corpus.y[rows],
            len(self.corpus.classes),
            seed,
        )

    def choose(self, name):
        """Selects the loss's value and C by UAR on inner validation speakers."""
        y, found = self.corpus.y, []
        for value in (0.0,) if name == PLAIN else ZOO[name][0]:
            network = self.network(name, value, self.inner, 0)
            h, held = (
                embed(network, self.x[self.inner]),
                embed(network, self.x[self.valid]),
            )
            told = classify(h, y[self.inner], [held], STRENGTHS)
            for C, (logits,) in zip(STRENGTHS, told, strict=True):
                found.append((uar(y[self.valid], logits), value, C))
        return max(found, key=lambda one: one[0])[1:]

    def measure(self, name, value, C, seed):
        """Measures all results of one cell."""
        y, test = self.corpus.y, self.test
        network = self.network(name, value, self.rows, seed)
        h, held = embed(network, self.x[self.rows]), embed(network, self.x[test])
        others = [embed(network, x) for x, _, _ in self.others.values()]
        (told,) = classify(h, y[self.rows], [held, *others], [C])
        found = {"uar": uar(y[test], told[0])}
        nearest = (unit(held) @ unit(h).T).argmax(1)
        told_by_it = y[self.rows][nearest]
        n_classes = len(self.corpus.classes)
        found["nearest"] = float(
            classification_metrics(y[test], told_by_it, n_classes)["uar"]
        )
        if name in LOGITS or name in BOTH:
            with torch.no_grad():
                logits = network.head(torch.from_numpy(held)).numpy()
            found["head"] = uar(y[test], logits)
        for count in FEW:
            rows = self.corpus.few(self.rows, count, seed)
            network = self.network(name, value, rows, seed)
            h, held = embed(network, self.x[rows]), embed(network, self.x[test])
            ((logits,),) = classify(h, y[rows], [held], [C])
            found[f"few_{count}"] = uar(y[test], logits)
        for (other, (_, truth, columns)), logits in zip(
            self.others.items(), told[1:], strict=True
        ):
            found[other] = uar(truth, logits[:, columns])
        return found


def read_journal(path):
    """Reads lines by cell, without an incomplete last line."""
    found = {}
    for line in path.read_text(encoding="utf-8").splitlines() if path.exists() else ():
        try:
            row = json.loads(line)
        except ValueError:
            continue
        found[tuple(row[k] for k in ("encoder", "corpus", "loss", "fold", "seed"))] = (
            row
        )
    return found


def run(options):
    """Measures cells that are missing in the journal."""
    corpora = [Corpus(*entry.split("=", 1)) for entry in options.folders]
    done, folds, told = read_journal(options.journal), {}, {}
    for path in options.encoders:
        features = load_features(path, folder=options.features)
        features.fill([item.utterance for corpus in corpora for item in corpus.items])
        told[path] = features
    cells = itertools.product(
        options.encoders,
        range(options.seeds),
        options.folds,
        corpora,
        [PLAIN, *options.losses],
    )
    with open(options.journal, "a", encoding="utf-8") as journal:
        for path, seed, fold, corpus, name in tqdm(list(cells)):
            key = told[path].name, corpus.name, name, fold
            if (*key, seed) in done:
                continue
            if (*key[:2], fold) not in folds:
                folds[(*key[:2], fold)] = Fold(corpora, corpus, told[path], fold)
            one = folds[(*key[:2], fold)]
            start = time.process_time()
            first = done.get((*key, 0))
            value, C = (first["value"], first["C"]) if first else one.choose(name)
            found = one.measure(name, value, C, seed)
            row = dict(zip(("encoder", "corpus", "loss", "fold"), key, strict=True))
            row |= {"seed": seed, "value": value, "C": C, "layer": one.layer, **found}
            row["seconds"] = time.process_time() - start
            done[(*key, seed)] = row
            journal.write(
                json.dumps(
                    {
                        k: round(v, 5) if isinstance(v, float) else v
                        for k, v in row.items()
                    }
                )
                + "\n"
            )
            journal.flush()


def results(journal):
    """Converts the journal to columns and rows."""
    found = sorted(read_journal(journal).values(), key=lambda row: str(row))
    columns = ["encoder", "corpus", "loss", "fold", "seed", "value", "C", "layer"]
    measures = ["uar", "head", "nearest", *(f"few_{count}" for count in FEW)]
    corpora = sorted({row["corpus"] for row in found})
    columns += [*measures, *corpora, "seconds"]
    rows = [
        [round(v, 4) if isinstance(v := row.get(k), float) else v for k in columns]
        for row in found
    ]
    about = {
        "date": datetime.now(timezone.utc).date().isoformat(),
        "versions": {"torch": torch.__version__},
        "steps": STEPS,
        "batch": BATCH,
        "measures": measures,
        "corpora": corpora,
        "columns": columns,
    }
    lines = ",\n".join(json.dumps(row) for row in rows)
    return f'{json.dumps(about)[:-1]},\n"rows": [\n{lines}\n]}}\n'


def main():
    """Runs missing cells."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--encoders", nargs="+", default=[])
    parser.add_argument("--folders", nargs="+", default=[], metavar="CORPUS=FOLDER")
    parser.add_argument("--features", metavar="FOLDER", help="where features are kept")
    parser.add_argument("--losses", nargs="+", choices=ZOO, default=list(ZOO))
    parser.add_argument("--seeds", type=int, default=3, help="how many")
    parser.add_argument("--folds", type=int, nargs="+", default=list(range(5)))
    parser.add_argument("--journal", type=Path, required=True)
    parser.add_argument("--write", action="store_true", help="the results file, only")
    options = parser.parse_args()
    if options.write:
        RESULTS.write_text(results(options.journal), encoding="utf-8")
    else:
        run(options)


if __name__ == "__main__":
    main()
