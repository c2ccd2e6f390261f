#!/usr/bin/env python3
"""Pairwise-CL: contrastive pre-training on several views of speech, for few labels.

Each utterance is seen in several ways: frames of a frozen speech encoder, a mel
spectrogram, functionals of the whole. Stage 1 trains a small encoder for each view,
without labels, so that the views of one utterance agree. Stage 2 fine-tunes each of
them with a classifier, on all labels or a few. Khaertdinov, Jeuris, Sousa and Hortal,
"Exploring self-supervised multi-view contrastive learning for speech emotion
recognition with limited annotations", 2024; equation and section numbers are of that
paper.

To run the demo on a built-in synthetic corpus:
> python train.py hparams/pairwise_cl.yaml

To run one fold of the paper's experiment:
> python train.py hparams/pairwise_cl.yaml --fold 0 \
      --corpora "{iemocap: /path/to/IEMOCAP_full_release}"

Authors
 * The speechbrain_ser_cl contributors 2026
"""

import copy
import fnmatch
import importlib.util
import json
import os
import sys
import time
from collections import Counter
from pathlib import Path

import numpy as np
import speechbrain as sb
import torch
import yaml
from safetensors.torch import load_file, save_file
from speechbrain.utils.train_logger import FileTrainLogger
from torch import nn
from torch.nn.functional import cross_entropy
from torch.utils.data import DataLoader
from tqdm import tqdm

from speechbrain_ser_cl.backbones import AllLayers, write_untrained_encoder
from speechbrain_ser_cl.corpora import write_synthetic
from speechbrain_ser_cl.data.conversion import convert_to_16k_mono
from speechbrain_ser_cl.data.experiment import (
    fold_split,
    map_corpora,
    read_corpus,
    used_corpora,
)
from speechbrain_ser_cl.data.few_labels import add_unlabelled, draw_labels
from speechbrain_ser_cl.data.protocols import PARTS, select_parts
from speechbrain_ser_cl.data.samplers import (
    AlternatingBatchSampler,
    LengthBucketedStream,
    LengthSortedBatches,
    Phase,
)
from speechbrain_ser_cl.data.splits import Labelled, describe_part, random_rank
from speechbrain_ser_cl.metrics import classification_metrics
from speechbrain_ser_cl.nnet import EmotionClassifier
from speechbrain_ser_cl.report.figures import plot_few_labels, plot_tsne
from speechbrain_ser_cl.results import (
    few_label_points,
    few_label_table,
    view_alignment,
    write_alignment,
    write_few_labels,
    write_points,
)
from speechbrain_ser_cl.training import (
    AtomicCheckpointer,
    History,
    RoundCounter,
    SERBrain,
    View,
    ViewFeatures,
    find_hparams,
    plain_values,
    start_run,
    take_unusable,
    write_run,
)
from speechbrain_ser_cl.utils.files import replacing

# Name in tables, and place there.
METHODS = {
    "supervised": ("supervised", 0),
    "fine_tuned": ("Pairwise-CL", 1),
    "frozen": ("Pairwise-CL, frozen", 2),
}
# What stage 1 may be trained on, section 4.2, and what tables say of it.
PRETRAIN_ON = {"all": "", "target": ", target emotions", "others": ", other emotions"}


class PretrainBrain(SERBrain):
    """Stage 1: an encoder and a projection for each view, no labels."""

    def compute_forward(self, batch, stage):
        """Encodes and projects each view, section 2.1."""
        return {
            name: self.modules[f"{name}_projection"](
                self.modules[name](*(x.to(self.device) for x in batch[name]))
            )
            for name in self.views
        }

    def compute_objectives(self, projections, batch, stage):
        """NT-Xent between each pair of views, eqs. 1 to 3."""
        loss = self.hparams.loss(projections)
        self.log_terms({"contrast": loss.detach()})
        return loss

    def evaluate_batch(self, batch, stage):
        """The loss of a validation batch: there is no classifier."""
        return sb.Brain.evaluate_batch(self, batch, stage)

    def validated(self, loss):
        """The loss is all there is, and lower is better."""
        return {"loss": loss}, -loss


class ViewClassifier(nn.Module):
    """Stage 2: a view's encoder with a classifier in place of the projection."""

    def __init__(self, view, head, features, device):
        super().__init__()
        self.view, self.head = view, head
        self.features, self.device = features, device
        self.kept = None

    def freeze(self, ids):
        """The encoder is as it is: what it gives is computed once."""
        self.view.eval().requires_grad_(False)
        kept = dict(zip(ids, embed(self.view, self.features, ids), strict=True))
        self.kept = {name: x.to(self.device) for name, x in kept.items()}

    def train(self, mode=True):
        """A frozen encoder stays in evaluation mode."""
        super().train(mode)
        if self.kept is not None:
            self.view.eval()
        return self

    def forward(self, ids):
        """Logits of utterances, by their ids, and what the encoder gives."""
        if self.kept is None:
            h = self.view(*self.features.batch(ids, self.device))
        else:
            h = torch.stack([self.kept[name] for name in ids])
        return self.head(h), h


# ---------------------------------------------------------------- data


def prepare_data(hparams):
    """Reads the corpora and takes the parts of the fold.

    Arguments
    ---------
    hparams : dict
        The YAML's values.

    Returns
    -------
    parts : dict
        ``train``, ``valid`` and ``test``, lists of Labelled.
    unlabelled : dict
        The same of all emotions, lists of Utterance, for stage 1.
    split : Split
        The fold, of the labelled ones.
    left_out : dict
        Id to why it is in none of them.
    """
    corpora = {
        name: read_corpus(name, entry, hparams["allow_missing"])
        for name, entry in used_corpora(hparams["corpora"]).items()
    }
    items, _ = map_corpora(corpora, hparams["emotion_map"])
    split = fold_split(
        items,
        hparams["protocol"],
        hparams["fold"],
        hparams["seed"],
        hparams["split_file"],
    )
    utterances = [utterance for corpus in corpora.values() for utterance in corpus]
    folder = Path(hparams["data_folder"]) / "converted"
    by_id = {u.id: u for u in convert_to_16k_mono(utterances, folder)}
    items = [Labelled(by_id[i.utterance.id], i.label) for i in items]
    parts = select_parts(items, split)
    unlabelled = add_unlabelled(split, items, list(by_id.values()))
    left_out = {
        name: "exclude"
        for name in by_id
        if any(fnmatch.fnmatchcase(name, pattern) for pattern in hparams["exclude"])
    }
    return (*without(left_out, parts, unlabelled), split, left_out)


def without(left_out, parts, unlabelled):
    """The parts less some utterances."""
    return (
        {k: [i for i in v if i.utterance.id not in left_out] for k, v in parts.items()},
        {k: [u for u in v if u.id not in left_out] for k, v in unlabelled.items()},
    )


def pretraining_part(hparams, parts, unlabelled, name):
    """Ids of a part that stage 1 is trained on: section 4.2, pre-training data."""
    target = {item.utterance.id for item in parts[name]}
    everything = [utterance.id for utterance in unlabelled[name]]
    chosen = {
        "all": everything,
        "target": [i for i in everything if i in target],
        "others": [i for i in everything if i not in target],
    }[hparams["pretrain_on"]]
    if len(chosen) < 2:
        raise ValueError(
            f"pretrain_on is {hparams['pretrain_on']!r}, which leaves {len(chosen)} of "
            f"{len(everything)} utterances of the {name} part: emotion_map has "
            "classes for the others. Take other classes, or pretrain_on: all."
        )
    return chosen


def choose_views(hparams):
    """Names of the views, with what stands in for those that cannot be used here.

    Arguments
    ---------
    hparams : dict
        The YAML's values.

    Returns
    -------
    names : list of str
        Keys of ``encoders``.
    replaced : dict
        Name of a view that is not used to why.
    """
    names, replaced = [], {}
    for name in hparams["views"]:
        needs = hparams["needs"].get(name)
        if needs and importlib.util.find_spec(needs["module"]) is None:
            replaced[name] = f"{needs['else']} in its place: no {needs['module']} here"
            print(f"View {name}: {replaced[name]}.", file=sys.stderr)
            name = needs["else"]
        names.append(name)
    if len(set(names)) < len(names):
        raise ValueError(f"views: each once, found {', '.join(names)}")
    return names, replaced


def make_views(hparams, names):
    """Encoders with random weights, and the features that they read.

    Arguments
    ---------
    hparams : dict
        The YAML's values.
    names : list of str
        Which views.

    Returns
    -------
    views : dict
        Name to View.
    features : dict
        Name to ViewFeatures, nothing computed yet.
    """
    views, features = {}, {}
    for name in names:
        encoder = hparams["encoders"][name]()
        features[name] = ViewFeatures(
            encoder.features,
            hparams["feature_folder"],
            hparams["max_seconds"],
            hparams["feature_dtype"],
        )
        views[name] = View(encoder)
    return views, features


# ---------------------------------------------------------------- stage 1


def pretrain(hparams, run_opts, views, features, train, valid, durations):
    """Stage 1: trains the views in place; the best epoch on validation data counts.

    Arguments
    ---------
    hparams : dict
        The YAML's values.
    run_opts : RunOptions
        Of the command line.
    views, features : dict
        By name of the view.
    train, valid : list of str
        Ids of utterances.
    durations : dict
        Id to seconds.

    Returns
    -------
    PretrainBrain
        After training.
    """
    folder = Path(hparams["output_folder"]) / "pretraining"
    folder.mkdir(exist_ok=True)
    modules = dict(views)
    for name, view in views.items():
        modules[f"{name}_projection"] = hparams["projection"](view.output_size)

    def collate(ids):
        return {name: features[name].batch(ids) for name in views}

    def loader(batches, ids):
        options = hparams["loader_options"] | {"collate_fn": collate}
        return DataLoader(_Ids(ids), batch_sampler=batches, **options)

    size = hparams["pretrain_batch_size"]
    seconds = [durations[name] for name in train]
    stream = stream_of(hparams, seconds, size, hparams["seed"])
    phase = Phase("pretraining", range(len(train)), stream, stream.batches_per_pass)
    sampler = AlternatingBatchSampler([phase])
    # The same batches in each epoch, of nearly the same size: losses depend on it.
    order = sorted(range(len(valid)), key=lambda i: random_rank(0, valid[i]))
    if hparams["bucketing"]:
        order.sort(key=lambda i: durations[valid[i]])
    fixed = np.array_split(order, -(-len(valid) // size))
    brain = PretrainBrain(
        modules=modules,
        class_names=[],
        sampler=sampler,
        epoch_counter=RoundCounter(
            hparams["pretrain_epochs"], phases=1, patience=hparams["pretrain_patience"]
        ),
        learning_rates=dict.fromkeys(modules, hparams["pretrain_lr"]),
        lr_scheduler=hparams["pretrain_schedule"],
        valid_metric="uar",  # of no use here
        train_logger=FileTrainLogger(folder / "train_log.txt"),
        opt_class=hparams["opt_class"],
        hparams=hparams,
        run_opts=run_opts,
        checkpointer=AtomicCheckpointer(folder / "save", modules),
    )
    brain.views = list(views)
    valid_loader = loader([batch.tolist() for batch in fixed], valid)
    brain.fit(brain.epoch_counter, loader(sampler, train), valid_loader)
    brain.on_evaluate_start(max_key="score")
    return brain


def stream_of(hparams, seconds, size, seed):
    """Batches of similar length, or at random: all are alike in length, as it were."""
    if not hparams["bucketing"]:
        seconds = [1.0] * len(seconds)
    return LengthBucketedStream(seconds, size, seed)


class _Ids(torch.utils.data.Dataset):
    """Ids of utterances, by index or draw."""

    def __init__(self, ids):
        self.ids = ids

    def __len__(self):
        return len(self.ids)

    def __getitem__(self, where):
        return self.ids[getattr(where, "index", where)]


# ---------------------------------------------------------------- stage 2


def fine_tune(hparams, model, parts, classes, seed):
    """Stage 2, section 3.3: the best epoch on validation data counts.

    Arguments
    ---------
    hparams : dict
        The YAML's values.
    model : ViewClassifier
        Trained in place.
    parts : dict
        ``train`` and ``valid``, lists of Labelled.
    classes : list of str
        Names of the classes 0, 1, …
    seed : int
        Of the order of the training data.

    Returns
    -------
    History
        A row per epoch; ``tested`` is the one that counts.
    """
    trained = [p for p in model.parameters() if p.requires_grad]
    optimizer = hparams["opt_class"](trained, lr=hparams["tune_lr"])
    schedule = hparams["tune_schedule"](optimizer)
    history, start = History(), time.time()
    seconds = [item.utterance.duration for item in parts["train"]]
    stream = stream_of(hparams, seconds, hparams["tune_batch_size"], seed)
    n_batches = max(stream.batches_per_pass, hparams["tune_least_batches"])
    ids = [item.utterance.id for item in parts["train"]]
    labels = torch.tensor([classes.index(item.label) for item in parts["train"]])
    best, waited = -1.0, 0
    for epoch in range(1, hparams["tune_epochs"] + 1):
        model.train()
        for k in range(n_batches):
            rows = stream.batch((epoch - 1) * n_batches + k)
            logits, _ = model([ids[row] for row in rows])
            loss = cross_entropy(logits, labels[rows].to(model.device))
            if not torch.isfinite(loss):
                raise ValueError(f"the loss of epoch {epoch} is {loss}; lower tune_lr")
            optimizer.zero_grad(set_to_none=True)
            loss.backward()
            optimizer.step()
            history.add_batch({"emotion": loss.detach()})
        seen = predict(model, parts["valid"], classes)
        valid = classification_metrics(seen["label"], seen["prediction"], len(classes))
        rate = optimizer.param_groups[0]["lr"]
        history.end_epoch(epoch, phase="fine-tuning", valid=valid, lr=rate)
        schedule.step(valid["uar"])
        waited = 0 if valid["uar"] > best else waited + 1
        if valid["uar"] >= best:  # a tie goes to the later one, which has seen more
            best, history.tested = valid["uar"], history.epochs[-1]
            state = copy.deepcopy(model.state_dict())
        if waited >= hparams["tune_patience"]:
            break
    model.load_state_dict(state)
    history.seconds = time.time() - start
    return history


@torch.no_grad()
def predict(model, items, classes):
    """What ``write_run`` wants to know of utterances."""
    model.eval()
    durations = [item.utterance.duration for item in items]
    rows, logits, embeddings = [], [], []
    for batch in LengthSortedBatches(durations, 64):
        out, h = model([items[row].utterance.id for row in batch])
        rows += batch
        logits.append(out.float().cpu())
        embeddings.append(h.float().cpu())
    logits, embeddings = torch.cat(logits), torch.cat(embeddings)
    return {
        "id": [items[row].utterance.id for row in rows],
        "label": np.array([classes.index(items[row].label) for row in rows]),
        "prediction": logits.argmax(dim=1).numpy(),
        "probability": logits.softmax(dim=1).numpy(),
        "embeddings": embeddings.numpy(),
    }


@torch.no_grad()
def embed(view, features, ids):
    """What an encoder makes of utterances (N, D), before projection and classifier."""
    view.eval()
    device = next(view.parameters()).device
    batches = [ids[i : i + 64] for i in range(0, len(ids), 64)]
    found = [view(*features.batch(batch, device)).float().cpu() for batch in batches]
    return torch.cat(found)


@torch.no_grad()
def calibrate(view, features, ids):
    """Statistics of normalisation layers for an encoder that is not trained."""
    view.train()
    device = next(view.parameters()).device
    for start in range(0, len(ids) - 1, 64):
        view(*features.batch(ids[start : start + 64], device))


def from_scratch(view):
    """A copy of a view with new random weights."""
    view = copy.deepcopy(view)
    for module in view.modules():
        if hasattr(module, "reset_parameters"):
            module.reset_parameters()
    return view


class Study:
    """Stage 2 of one fold: each view with each method, number of labels and draw.

    Arguments
    ---------
    hparams : dict
        The YAML's values.
    untrained, pretrained : dict
        Name of a view to View.
    features : dict
        Name of a view to ViewFeatures.
    parts : dict
        ``train``, ``valid`` and ``test``, lists of Labelled.
    device : torch.device
        Where to train.
    """

    def __init__(self, hparams, untrained, pretrained, features, parts, device):
        self.hparams, self.parts, self.device = hparams, parts, device
        self.untrained, self.pretrained = untrained, pretrained
        self.features = features
        self.classes = sorted({item.label for item in parts["train"]})

    def train(self, view_name, method, fraction, draw):
        """One training with some of the labels.

        Arguments
        ---------
        view_name, method : str
            Which view, and one of ``METHODS``.
        fraction : float
            Of the labels of each class.
        draw : int
            Which draw.

        Returns
        -------
        model : ViewClassifier
            The best one on validation data.
        history : History
            Its training.
        labelled : list of Labelled
            What it was trained on.
        """
        entropy = [self.hparams["seed"], draw]
        seed = int(np.random.SeedSequence(entropy).generate_state(1)[0])
        torch.manual_seed(seed)
        if method == "supervised":
            view = from_scratch(self.untrained[view_name])
        else:
            view = copy.deepcopy(self.pretrained[view_name])
        head = self.hparams["classifier"](
            view.output_size,
            len(self.classes),
            hidden_size=self.hparams["head_sizes"].get(view_name),
        )
        features = self.features[view_name]
        model = ViewClassifier(view, head, features, self.device).to(self.device)
        labelled = draw_labels(
            self.parts["train"], fraction, draw, self.hparams["seed"]
        )
        parts = self.parts | {"train": labelled}
        if method == "frozen":
            items = [item for part in parts.values() for item in part]
            model.freeze([item.utterance.id for item in items])
        history = fine_tune(self.hparams, model, parts, self.classes, seed)
        return model, history, labelled

    def row(self, view_name, method, fraction, draw):
        """One training as a row of ``few_labels.json``."""
        model, _, labelled = self.train(view_name, method, fraction, draw)
        seen = predict(model, self.parts["test"], self.classes)
        return self.as_row(view_name, method, fraction, draw, seen, labelled)

    def as_row(self, view_name, method, fraction, draw, seen, labelled):
        """A row of ``few_labels.json`` of what was seen on the test part."""
        n_classes = len(self.classes)
        metrics = classification_metrics(seen["label"], seen["prediction"], n_classes)
        return {
            "view": view_name,
            "method": title(self.hparams, method),
            "fraction": fraction,
            "draw": draw,
            "labelled": len(labelled),
            "uar": round(metrics["uar"], 6),
            "wa": round(metrics["wa"], 6),
        }


def title(hparams, method):
    """A method's name in tables."""
    name, place = METHODS[method]
    return name + (PRETRAIN_ON[hparams["pretrain_on"]] if place else "")


# ---------------------------------------------------------------- runs


def check_switches(hparams):
    """Refuses, before anything is loaded, switches that cannot mean anything.

    Arguments
    ---------
    hparams : dict
        The YAML's plain values.

    Raises
    ------
    ValueError
        Names the keys and what to do.
    """
    if hparams["pretrain_on"] not in PRETRAIN_ON:
        raise ValueError(
            f"pretrain_on is {hparams['pretrain_on']!r}, expected one of "
            f"{', '.join(PRETRAIN_ON)}."
        )
    for key, known in (("views", hparams["encoders"]), ("methods", METHODS)):
        unknown = [name for name in hparams[key] if name not in known]
        if unknown or not hparams[key]:
            raise ValueError(
                f"{key}: found {', '.join(unknown) or 'none'}, expected some of "
                f"{', '.join(known)}."
            )
    if len(hparams["views"]) < 2:
        raise ValueError(
            f"views is {hparams['views']}: two or more are needed, to compare."
        )
    wrong = [f for f in hparams["fractions"] if not 0 < f <= 1]
    if wrong:
        raise ValueError(f"fractions: found {wrong}, expected above 0 and at most 1.")
    used_corpora(hparams["corpora"])
    if int(os.environ.get("WORLD_SIZE", 1)) > 1:
        raise ValueError(
            "one fold takes one process, which trains small encoders in seconds; run "
            "the folds side by side: ser-cl crossval --jobs N."
        )


def run(hparams_file, run_opts, overrides):
    """Trains and tests on one fold.

    Arguments
    ---------
    hparams_file : pathlib.Path
        The YAML.
    run_opts : RunOptions
        Of the command line.
    overrides : dict
        Values that replace those of the YAML.

    Returns
    -------
    dict
        ``rows`` of ``few_labels.json``, ``about`` and ``alignment``.
    """
    hparams = start_run(hparams_file, overrides, check_switches)
    folder = Path(hparams["output_folder"])
    names, replaced = choose_views(hparams)
    parts, unlabelled, split, left_out = prepare_data(hparams)
    untrained, features = make_views(hparams, names)
    everybody = [utterance for part in unlabelled.values() for utterance in part]
    device = torch.device(getattr(run_opts, "device", None) or "cpu")
    start = time.time()
    for one in features.values():
        one.fill(everybody, hparams["extraction_processes"], device)
    seconds = round(time.time() - start, 1)
    left_out |= take_unusable(features, everybody)
    parts, unlabelled = without(left_out, parts, unlabelled)

    pretrained = copy.deepcopy(untrained)
    train, valid = (
        pretraining_part(hparams, parts, unlabelled, name) for name in PARTS[:2]
    )
    durations = {utterance.id: utterance.duration for utterance in everybody}
    brain = pretrain(hparams, run_opts, pretrained, features, train, valid, durations)
    torch.manual_seed(hparams["seed"])
    untrained = {
        name: from_scratch(view).to(device) for name, view in untrained.items()
    }
    for name, view in untrained.items():
        calibrate(view, features[name], train)
    study = Study(hparams, untrained, pretrained, features, parts, device)
    classes = study.classes
    about = {
        "recipe": "Pairwise-CL",
        "encoder": Path(hparams["ssl_source"]).name,
        "corpora": sorted(used_corpora(hparams["corpora"])),
        "classes": classes,
        "views": names,
        "replaced_views": replaced,
        "protocol": split.protocol,
        "chance": 1 / len(classes),
        "baseline": METHODS["supervised"][0],
        "demo": any(i.utterance.corpus.startswith("synthetic") for i in parts["test"]),
    }
    record = about | {
        "seed": hparams["seed"],
        "fold": split.fold,
        "n_folds": split.n_folds,
        "pretrained_on": {"emotions": hparams["pretrain_on"], "utterances": len(train)},
        "data": {
            "parts": {name: describe_part(part) for name, part in parts.items()},
            "left_out": dict(sorted(Counter(left_out.values()).items())),
            "shared_between_parts": split.shared,
            "fingerprint": split.fingerprint,
        },
        "stages": {
            "features": {"seconds": seconds},
            "pretraining": cost_of(brain.history),
        },
    }
    held_out = [u.id for name in PARTS[1:] for u in unlabelled[name]]
    rows = full_runs(study, record, held_out)
    rows += few_label_runs(study, rows)
    write_few_labels(
        folder / "few_labels.json", about, split.fold, hparams["seed"], rows
    )
    points = few_label_points(rows_with(split.fold, rows), about["baseline"])
    write_points(folder / "few_labels.csv", points)
    alignment = align(study, about, split.fold, held_out)
    try:
        plot_few_labels(points, folder / "few_labels.png", about["chance"])
        plot_representations(study, folder, held_out)
    except ImportError as error:
        print(f"No figures: {error}", file=sys.stderr)
    return {"about": about, "points": points, "alignment": alignment}


def rows_with(fold, rows):
    """Rows of one fold as those of several are read."""
    return [row | {"fold": fold} for row in rows]


def cost_of(history):
    """Epochs, seconds, and seconds of an epoch."""
    epochs = len(history.epochs)
    return {
        "epochs": epochs,
        "seconds": round(history.seconds, 1),
        "seconds_per_epoch": round(history.seconds / epochs, 2),
    }


def full_runs(study, record, held_out):
    """Each view with each method and all labels: a folder with ``results.json``.

    Arguments
    ---------
    study : Study
        Of the fold.
    record : dict
        What all results say.
    held_out : list of str
        Ids of utterances to embed for the comparison of views.

    Returns
    -------
    list of dict
        Rows for ``few_labels.json``, draw 0.
    """
    hparams, rows = study.hparams, []
    folder = Path(hparams["output_folder"])
    for name, views in (("random", study.untrained), ("pretrained", study.pretrained)):
        for view_name, view in views.items():
            keep_embeddings(folder, name, view_name, view, study, held_out)
    for method in hparams["methods"]:
        for view_name in study.features:
            own = folder / method / view_name
            row_file = own / "row.json"
            if not (own / "results.json").exists():
                model, history, labelled = study.train(view_name, method, 1.0, 0)
                if method != "frozen":
                    keep_embeddings(
                        folder, method, view_name, model.view, study, held_out
                    )
                seen = predict(model, study.parts["test"], study.classes)
                row = study.as_row(view_name, method, 1.0, 0, seen, labelled)
                own.mkdir(parents=True, exist_ok=True)
                with replacing(row_file) as part:
                    part.write_text(json.dumps(row), encoding="utf-8")
                write_results(
                    study, record, own, view_name, method, model, history, seen
                )
            rows.append(json.loads(row_file.read_text(encoding="utf-8")))
    return rows


def write_results(study, record, folder, view_name, method, model, history, seen):
    """Writes what one full run leaves behind.

    Arguments
    ---------
    study : Study
        Of the fold.
    record : dict
        What all results say.
    folder : pathlib.Path
        Where to.
    view_name, method : str
        Which run.
    model : ViewClassifier
        What was tested; is of no use afterwards.
    history : History
        Its training.
    seen : dict
        What it predicts.
    """
    corpora = " + ".join(record["corpora"])
    front_end = study.features[view_name].front_end
    encoder = f" ({record['encoder']})" if isinstance(front_end, AllLayers) else ""
    parameters = {
        "encoder": sum(p.numel() for p in model.view.parameters()),
        "head": sum(p.numel() for p in model.head.parameters()),
    }
    stages = record["stages"] | {"fine_tuning": cost_of(history)}
    if method == "supervised":
        del stages["pretraining"]
    backbone, pooling = model.view.whole(front_end)
    write_run(
        folder,
        record
        | {
            "setting": title(study.hparams, method),
            "order": METHODS[method][1],
            "source": corpora,
            "target": corpora,
            "encoder": f"{view_name} view{encoder}",
            "view": view_name,
            "parameters": parameters,
            "stages": stages,
        },
        predictions=seen,
        parts=study.parts,
        class_names=study.classes,
        history=history,
        model=EmotionClassifier(backbone, [model.head], pooling=pooling),
    )


def few_label_runs(study, done):
    """All other trainings, one after the other; a killed run goes on with the next.

    Arguments
    ---------
    study : Study
        Of the fold.
    done : list of dict
        Rows that are there already.

    Returns
    -------
    list of dict
        The other rows.
    """
    hparams, names = study.hparams, ("view", "method", "fraction", "draw")
    notes = Path(hparams["output_folder"]) / "few_labels.jsonl"
    known = {tuple(row[name] for name in names): None for row in done}
    for line in notes.read_text("utf-8").splitlines() if notes.exists() else ():
        try:
            row = json.loads(line)
        except ValueError:  # of a killed run
            continue
        known[tuple(row[name] for name in names)] = row
    tasks = [
        (view_name, method, fraction, draw)
        for draw in range(max(hparams["draws"], hparams["full_draws"]))
        for fraction in hparams["fractions"]
        if draw < hparams["draws" if fraction < 1 else "full_draws"]
        for view_name in study.features
        for method in hparams["methods"]
    ]
    with open(notes, "a", encoding="utf-8") as file:
        file.write("\n")  # after a line that a killed run did not finish
        for view_name, method, fraction, draw in tqdm(tasks, "few labels"):
            key = (view_name, title(hparams, method), fraction, draw)
            if key not in known:
                known[key] = study.row(view_name, method, fraction, draw)
                file.write(json.dumps(known[key]) + "\n")
                file.flush()
    return [row for row in known.values() if row is not None]


# ---------------------------------------------------------------- representations


def keep_embeddings(folder, name, view_name, view, study, ids):
    """Computes embeddings (N, D) once, and keeps them for the comparison of views."""
    path = folder / "embeddings" / f"{name}-{view_name}.safetensors"
    if not path.exists() and study.hparams["alignment"]:
        path.parent.mkdir(exist_ok=True)
        found = embed(view, study.features[view_name], ids)
        with replacing(path) as part:
            save_file({"embeddings": found}, part)


def kept_embeddings(study):
    """Model to view to embeddings (N, D)."""
    names = {"random": "random", "pretrained": title(study.hparams, "fine_tuned")}
    names |= {"supervised": "supervised", "fine_tuned": names["pretrained"] + ", tuned"}
    found = {}
    for name, told in names.items():
        folder = Path(study.hparams["output_folder"]) / "embeddings"
        files = {v: folder / f"{name}-{v}.safetensors" for v in study.features}
        if all(file.exists() for file in files.values()):
            found[told] = {
                view: load_file(file)["embeddings"].numpy()
                for view, file in files.items()
            }
    return found


def align(study, about, fold, held_out):
    """Table 3: how much the views agree, on utterances that were not trained on.

    Arguments
    ---------
    study : Study
        Of the fold.
    about : dict
        What ``alignment.json`` says of the experiment.
    fold : int
        Which one.
    held_out : list of str
        Ids of the utterances.

    Returns
    -------
    dict
        As ``view_alignment`` returns it; empty where it is switched off.
    """
    if not study.hparams["alignment"]:
        return {}
    found = view_alignment(kept_embeddings(study))
    path = Path(study.hparams["output_folder"]) / "alignment.json"
    write_alignment(path, about, fold, len(held_out), found)
    return found


def plot_representations(study, folder, held_out):
    """Figures 5 and 6: test utterances, before and after training."""
    if not (study.hparams["tsne"] and study.hparams["alignment"]):
        return
    rows = {name: row for row, name in enumerate(held_out)}
    items = study.parts["test"]
    chosen = [rows[item.utterance.id] for item in items]
    colourings = {
        "emotion": [item.label for item in items],
        "speaker": [item.utterance.speaker or "unknown" for item in items],
    }
    for model, views in kept_embeddings(study).items():
        for view_name, embeddings in views.items():
            name = model.replace(", ", "_").replace(" ", "_").lower()
            path = folder / "tsne" / f"{view_name}-{name}.png"
            if not path.exists():
                head = f"{view_name} view, {model}"
                plot_tsne(embeddings[chosen], colourings, path, head)


# ---------------------------------------------------------------- demo and main


def run_demo(hparams_file, run_opts, overrides):
    """Trains on synthetic speech and shows what comes out.

    Arguments
    ---------
    hparams_file : pathlib.Path
        The YAML; its ``demo`` holds the values that make it small.
    run_opts : RunOptions
        Of the command line.
    overrides : dict
        Values of the command line, which go before those of the demo.
    """
    print(
        "DEMO: no folder is given in corpora, so this runs on synthetic speech with a "
        "small untrained encoder. Its numbers are not results of any paper.",
        flush=True,
    )
    settings = plain_values(hparams_file)["demo"]
    folder = Path(overrides.get("output_folder", settings["output_folder"]))
    folder.mkdir(parents=True, exist_ok=True)
    encoder = folder / "untrained_encoder"
    write_untrained_encoder(settings.pop("encoder"), encoder)
    corpora = {name: str(folder / name) for name in settings.pop("synthetic")}
    for name, path in corpora.items():
        write_synthetic(path, name)
    settings |= {"corpora": corpora, "ssl_source": str(encoder)}
    found = run(hparams_file, run_opts, settings | overrides)
    print(f"\n{few_label_table(found['about'], found['points'])}")
    for view, reason in found["about"]["replaced_views"].items():
        print(f"View {view}: {reason}.")
    for model, pairs in found["alignment"].items():
        values = ", ".join(
            f"{pair} " + ("–, too few utterances" if v is None else f"{v:.3f}")
            for pair, v in pairs.items()
        )
        print(f"PWCCA, {model}: {values}")
    print(f"\nFigures, predictions and results.json: {folder}")
    needed = ", ".join(
        f"{name}: FOLDER" for name in plain_values(hparams_file)["corpora"]
    )
    print(
        "Next, on real speech:\n"
        f'python {sys.argv[0]} hparams/{hparams_file.name} --corpora "{{{needed}}}"'
    )


def main(argv):
    """Runs what the command line asks for.

    Arguments
    ---------
    argv : list of str
        Arguments after the script's name.
    """
    hparams_file, run_opts, overrides = sb.parse_arguments(argv)
    hparams_file = find_hparams(hparams_file, __file__)
    overrides = yaml.safe_load(overrides) or {}
    values = plain_values(hparams_file) | overrides
    if "demo" in values and not any(values["corpora"].values()):
        run_demo(hparams_file, run_opts, overrides)
    else:
        run(hparams_file, run_opts, overrides)


if __name__ == "__main__":
    try:
        main(sys.argv[1:])
    except ValueError as error:
        sys.exit(f"{type(error).__name__}: {error}")
