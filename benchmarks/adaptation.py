#!/usr/bin/env python3
"""Few labels and speech without labels: which loss of multitask adaptation helps.

The third protocol of recipes/EmoDB_RAVDESS (tables/both.yaml) on a frozen encoder: 5 %
of the target corpus are labelled, 30 % are used without labels, the rest is tested. Of
each training utterance some augmented views are embedded once, with the recipe's five
mixtures; a small network (linear, ReLU, dropout) is trained on pairs of views with the
losses and weights of the recipe. Each corpus is standardised by its own training
utterances. The first two rows are logistic regressions on the very same labelled
utterances, without augmentation; their layer, pooling and C are chosen by inner folds,
and the network takes that layer. No choice looks at the test part.

To see why: a row trains on contrast alone and fits a logistic regression to the hidden
layer; and ``recognised`` is the fraction of views whose nearest other view (cosine,
standardised features, before any training) is of the same utterance.

Each result is a line of the results file; a run continues where it was stopped.

> python benchmarks/adaptation.py --encoders whisper-tiny.en whisper-base \
      --pairs emodb=EmoDB:ravdess=RAVDESS ravdess=RAVDESS:crema_d=CREMA-D

Authors
 * The speechbrain_ser_cl contributors 2026
"""

import argparse
import json
import logging
import time
import zlib
from datetime import datetime, timezone
from pathlib import Path
from typing import NamedTuple

import numpy as np
import torch
from hyperpyyaml import load_hyperpyyaml
from torch import nn
from torch.nn import functional as F
from tqdm import tqdm

from speechbrain_ser_cl import losses
from speechbrain_ser_cl.data.class_sets import with_classes
from speechbrain_ser_cl.data.experiment import prepare
from speechbrain_ser_cl.data.features.cache import FeatureCache, weights_hash
from speechbrain_ser_cl.data.features.place import features_folder
from speechbrain_ser_cl.metrics.classification import classification_metrics
from speechbrain_ser_cl.metrics.linear_probe import fit_classifier, standardiser
from speechbrain_ser_cl.training.probe import LinearProbe
from speechbrain_ser_cl.training.utterance_features import load_features
from speechbrain_ser_cl.utils.files import replacing

RESULTS = Path(__file__).parent / "results" / "adaptation.json"
YAML = Path(__file__).parents[1] / "recipes/EmoDB_RAVDESS/hparams/multitask_da.yaml"
COLUMNS = ("encoder", "source", "target", "row", "seed", "uar", "layer", "C", "seconds")
VIEWS, STEPS, BATCH, HIDDEN, PROJECTION = 4, 300, 64, 256, 128
WEIGHTS = {"augmentation": 0.1, "contrastive": 0.5, "information_maximization": 0.1}


class Setting(NamedTuple):
    """What a row trains on: letters of ``PART``, and weights of losses."""

    corpora: str
    weights: dict[str, float]
    labels: bool = True  # False: logistic regression on the last hidden layer


def only(*names):
    """Selects some of the losses."""
    return {name: WEIGHTS[name] for name in names}


# Beside cross-entropy.
ROWS = {
    "5 % alone": Setting("t", {}),
    "5 % and source": Setting("st", {}),
    "5 %, source, 30 % with contrast": Setting("stu", only("contrastive")),
    "5 %, source, 30 % with information maximisation": Setting(
        "stu", only("information_maximization")
    ),
    "5 %, source, 30 % with augmentation": Setting("stu", only("augmentation")),
    "5 %, source, 30 %, all losses": Setting("stu", WEIGHTS),
    "5 %, 30 %, all losses, no source": Setting("tu", WEIGHTS),
    "contrast on 35 % without labels, then logistic regression, 5 %": Setting(
        "tu", only("contrastive"), labels=False
    ),
}
PROBES = {
    "logistic regression, 5 % alone": "t",
    "logistic regression, 5 % and source": "st",
}
LAYER = "logistic regression, 5 % and source"  # whose layer the networks take
ABOUT = {"views": VIEWS, "steps": STEPS, "weights": WEIGHTS, "columns": COLUMNS}
PART = {"s": "source_train", "t": "target_train", "u": "target_unlabelled"}


def mixtures():
    """Returns the recipe's augmentation."""
    text = YAML.read_text(encoding="utf-8")
    rest = text[text.index("\naugmentation: !new") :]
    return load_hyperpyyaml(rest[: rest.index("\n# ------")])["augmentation"]


class Views:
    """Embeddings of augmented views (layers, mean and deviation), computed once."""

    def __init__(self, features, folder):
        backbone, augment = features.backbone, mixtures()

        def extract(wavs):
            views = [
                augment(wav, seed=zlib.crc32(wav.numpy().tobytes()) + number)
                for wav in wavs
                for number in range(VIEWS)
            ]
            found = features.layers([view for view, _ in views])
            kinds = torch.tensor([float(kind) for _, kind in views])
            marked = [
                torch.cat([one.flatten(), kind[None]])
                for one, kind in zip(found, kinds, strict=True)
            ]
            return list(torch.stack(marked).view(len(wavs), VIEWS, -1).unbind())

        key = {
            "features": f"layers of {VIEWS} views, five mixtures",
            "weights": weights_hash(backbone.encoder),
        }
        self.cache = FeatureCache(features_folder(folder), key, "float32")
        self.extract, self.layers = extract, features.n_layers

    def fill(self, utterances):
        """Computes what is missing."""
        self.cache.fill(utterances, self.extract, batch_seconds=8.0)

    def matrix(self, items, layer):
        """Returns embeddings (N, VIEWS, 2 D) of a layer, and numbers of mixtures."""
        rows = torch.stack([self.cache[item.utterance.id] for item in items])
        x = rows[..., :-1].unflatten(-1, (self.layers, -1))[:, :, layer]
        return x.float(), rows[..., -1].long()


class Network(nn.Module):
    """A network with one head per loss."""

    def __init__(self, size, classes, kinds=5):
        super().__init__()
        self.body = nn.Sequential(nn.Linear(size, HIDDEN), nn.ReLU())
        self.head = nn.Linear(HIDDEN, classes)
        self.projection = nn.Linear(HIDDEN, PROJECTION)
        self.kind = nn.Linear(HIDDEN, kinds)

    def forward(self, x):
        """Returns the last hidden layer."""
        return F.dropout(self.body(x), 0.3, self.training)


def objective(network, x, kinds, labels, weights):
    """Computes the weighted losses of two views (2 N rows) of a batch."""
    h = network(x)
    logits, total = network.head(h), 0.0
    if labels is not None:  # eq. 2
        total = F.cross_entropy(logits, labels.repeat(2))
    if weights.get("contrastive"):  # eq. 4
        z = network.projection(h).chunk(2)
        total = total + weights["contrastive"] * losses.InfoNCELoss(0.1)(*z)
    if weights.get("information_maximization"):  # eq. 5
        entropy = losses.InformationMaximizationLoss()(logits)
        total = total + weights["information_maximization"] * entropy
    if weights.get("augmentation"):  # eq. 6
        kind = F.cross_entropy(network.kind(h), kinds)
        total = total + weights["augmentation"] * kind
    return total


def train(parts, weights, classes, seed):
    """Trains on each corpus' (views, mixtures, labels or None), a batch of each."""
    torch.manual_seed(seed)
    network = Network(parts[0][0].shape[-1], classes)
    optimizer = torch.optim.AdamW(network.parameters(), lr=1e-3, weight_decay=0.01)
    schedule = torch.optim.lr_scheduler.CosineAnnealingLR(optimizer, STEPS)
    for _ in range(STEPS):
        total = 0.0
        for x, kinds, labels in parts:
            if labels is None and not any(weights.values()):
                continue
            rows = torch.randperm(len(x))[:BATCH]
            pair = torch.rand(len(rows), VIEWS).argsort(1)[:, :2].T
            two = torch.cat([x[rows, view] for view in pair])
            kind = torch.cat([kinds[rows, view] for view in pair])
            own = None if labels is None else labels[rows]
            total = total + objective(network, two, kind, own, weights)
        optimizer.zero_grad()
        total.backward()
        optimizer.step()
        schedule.step()
    return network.eval()


class Draw:
    """The parts of one pair of corpora and one seed."""

    def __init__(self, pair, seed, data_folder, shared_emotions=False):
        source, target = (one.split("=", 1) for one in pair.split(":"))
        self.names, self.seed = (source[0], target[0]), seed
        if shared_emotions:
            self.names = (source[0], f"{target[0]} (shared emotions)")
        values = {
            "corpora": {
                "source": {"reader": source[0], "folder": source[1]},
                "target": {"reader": target[0], "folder": target[1]},
            },
            "emotion_map": "polarity",
            "allow_missing": True,
            # The same recording as ravdess_03-01-03-01-02-01-07.
            "exclude": ["ravdess_03-01-03-01-02-02-07"],
            "protocol": {
                "kind": "domain_adaptation",
                "source_valid": 0.10,
                "target_train": 0.05,
                "target_train_unlabelled": 0.30,
                "by": "utterance",
                "labels": True,
                "both": True,
                "shared_emotions": shared_emotions,
            },
            "seed": seed,
            "data_folder": str(data_folder),
        }
        values |= with_classes(values, {}, __file__)
        self.experiment = prepare(values)
        self.parts, self.classes = self.experiment.parts, self.experiment.class_names

    def utterances(self):
        """All of them."""
        return [item.utterance for part in self.parts.values() for item in part]

    def labels(self, part):
        """Classes of a part's utterances."""
        return torch.tensor([self.classes.index(i.label) for i in self.parts[part]])

    def clean(self, part, features, layer):
        """Embeddings (N, 2 D) of a part's utterances as they are."""
        ids = [item.utterance.id for item in self.parts[part]]
        return features.matrix(ids, layer, "statistics")

    def probe(self, features, which):
        """Fits a logistic regression on labelled utterances."""
        trained = [item for key in which for item in self.parts[PART[key]]]
        parts = {"train": trained, "test": self.parts["target_test"]}
        return LinearProbe().run(features, parts, self.classes)

    def network(self, setting, features, views, layer):
        """Trains a network; returns it, and its standardised input of a part."""

        def clean(part):
            return self.clean(part, features, layer)

        trained = []
        target = [clean(PART[key]) for key in setting.corpora if key in "tu"]
        by = {"s": standardiser(clean("source_train"))}
        own = standardiser(np.concatenate(target)) if target else by["s"]
        by |= dict.fromkeys("tu", own)
        for key in setting.corpora:
            x, kinds = views.matrix(self.parts[PART[key]], layer)
            mean, std = map(torch.from_numpy, by[key])
            labelled = setting.labels and key != "u"
            labels = self.labels(PART[key]) if labelled else None
            trained.append(((x - mean) / std, kinds, labels))

        def given(part):
            mean, std = by[part[0]]
            return torch.from_numpy((clean(part) - mean) / std)

        return train(trained, setting.weights, len(self.classes), self.seed), given

    @torch.no_grad()
    def measure(self, setting, features, views, layer, C):
        """Returns the UAR on the test part."""
        with torch.enable_grad():
            network, given = self.network(setting, features, views, layer)
        h = {part: network(given(part)) for part in ("target_train", "target_test")}
        logits = network.head(h["target_test"]).numpy()
        if not setting.labels:
            mean, std = standardiser(h["target_train"].numpy())
            known = self.labels("target_train").numpy()
            x = (h["target_train"].numpy() - mean) / std
            ((weights, bias),) = fit_classifier("logistic", x, known, [C])
            logits = ((h["target_test"].numpy() - mean) / std) @ weights.T + bias
        truth = self.labels("target_test").numpy()
        found = classification_metrics(truth, logits.argmax(1), len(self.classes))
        return float(found["uar"])

    def recognised(self, views, layer):
        """Returns how many views are nearest to another view of their utterance."""
        x, _ = views.matrix(self.parts["target_unlabelled"], layer)
        x = x.flatten(0, 1)
        x = F.normalize((x - x.mean(0)) / x.std(0).clip(1e-6), dim=1)
        nearest = (x @ x.T).fill_diagonal_(-2.0).argmax(1)
        owner = torch.arange(len(x)) // VIEWS
        return float((owner[nearest] == owner).float().mean())


def write(path, name, rows, **about):
    """Writes all results, one per line, after what is told about them."""
    about = {
        "date": datetime.now(timezone.utc).date().isoformat(),
        "versions": {"torch": torch.__version__},
        **about,
    }
    lines = ",\n".join(json.dumps(row) for row in sorted(rows))
    with replacing(path) as part:
        part.write_text(
            f'{json.dumps(about)[:-1]},\n"{name}": [\n{lines}\n]}}\n', encoding="utf-8"
        )


def draws(description):
    """Reads the command line; yields features, views and parts of each draw."""
    parser = argparse.ArgumentParser(description=description.splitlines()[0])
    parser.add_argument("--encoders", nargs="+", required=True)
    parser.add_argument("--pairs", nargs="+", required=True, help="source:target")
    parser.add_argument(
        "--shared_emotions",
        action="store_true",
        help="of the source only the emotions that the target has, too",
    )
    parser.add_argument("--seeds", type=int, nargs="+", default=range(5))
    parser.add_argument("--features", help="where features are kept")
    parser.add_argument("--data", type=Path, default=Path("results/adaptation"))
    options = parser.parse_args()
    logging.disable(logging.INFO)
    for path in options.encoders:
        features = load_features(path, folder=options.features)
        views = Views(features, options.features)
        for pair in options.pairs:
            for seed in options.seeds:
                draw = Draw(pair, seed, options.data, options.shared_emotions)
                features.fill(draw.utterances())
                views.fill(draw.utterances())
                yield features, views, draw


def read():
    """Reads the results by encoder, corpora, row and seed."""
    rows = json.loads(RESULTS.read_text("utf-8"))["rows"] if RESULTS.exists() else []
    return {tuple(row[:5]): row for row in rows}


def layer_of(known, features, draw):
    """Returns the layer of a draw's networks, and C, from stored results."""
    key = (features.name, *draw.names, LAYER, draw.seed)
    if key not in known:
        raise SystemExit(f"run adaptation.py first: it has no result for {key}")
    return known[key][6:8]


def main():
    """Measures what is missing."""
    found = read()
    for features, views, draw in draws(__doc__):
        layer, C = None, None
        rows = [*PROBES, *ROWS, "recognised"]
        for row in tqdm(rows, f"{draw.names}, seed {draw.seed}", leave=False):
            key = (features.name, *draw.names, row, draw.seed)
            if key in found:
                if row in PROBES:
                    layer, C = found[key][6:8]
                continue
            begin = time.process_time()
            if row in PROBES:
                probe = draw.probe(features, PROBES[row])
                (layer,), C = probe.choice.layers, probe.choice.C
                value = probe.uar
            elif row == "recognised":
                value = draw.recognised(views, layer)
            else:
                value = draw.measure(ROWS[row], features, views, layer, C)
            seconds = round(time.process_time() - begin, 1)
            found[key] = [*key, round(value, 4), layer, C, seconds]
            write(RESULTS, "rows", found.values(), **ABOUT)
            print(json.dumps(found[key]), flush=True)


if __name__ == "__main__":
    main()
