#!/usr/bin/env python3
"""Pairwise-CL: contrastive pre-training on several views of speech, for few labels.

Each utterance has several views: frames of a frozen speech encoder, a mel spectrogram,
functionals of the whole utterance. Stage 1 trains a small encoder for each view,
without labels, so that the views of an utterance agree. Stage 2 fine-tunes each encoder
with a classifier, on all labels or a few. Khaertdinov, Jeuris, Sousa and Hortal,
"Exploring self-supervised multi-view contrastive learning for speech emotion
recognition with limited annotations", 2024; equation and section numbers refer to that
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
import time
from functools import partial

import numpy as np
import speechbrain as sb
import torch

from speechbrain_ser_cl.backbones import AllLayers
from speechbrain_ser_cl.data.dataset import SpeechDataset
from speechbrain_ser_cl.data.experiment import prepare
from speechbrain_ser_cl.data.few_labels import draw_labels
from speechbrain_ser_cl.data.loaders import (
    make_loader,
    make_phase,
    rank_and_world_size,
    training_loader,
)
from speechbrain_ser_cl.data.splits import Labelled, random_rank
from speechbrain_ser_cl.nnet import EmotionClassifier
from speechbrain_ser_cl.training import (
    SERBrain,
    check_choices,
    cost_of,
    main,
    make_brain,
)
from speechbrain_ser_cl.training.few_label_runs import (
    about_few_labels,
    do_few_label_runs,
    do_full_runs,
    few_label_row,
    list_few_label_runs,
    print_few_labels,
    write_few_label_study,
)
from speechbrain_ser_cl.training.short_training import evaluate_short, train_short
from speechbrain_ser_cl.training.view_comparison import ViewComparison
from speechbrain_ser_cl.training.views import (
    ViewFeatures,
    choose_views,
    collate_views,
    from_scratch,
    keep_vectors,
    take_statistics,
    take_unusable,
    view_encoder,
)

# Name and order in tables.
METHODS = {
    "supervised": ("supervised", 0),
    "fine_tuned": ("Pairwise-CL", 1),
    "frozen": ("Pairwise-CL, frozen", 2),
}
# Training data of stage 1, section 4.2, and their description in tables.
PRETRAIN_ON = {"all": "", "target": ", target emotions", "others": ", other emotions"}


class PretrainBrain(SERBrain):
    """Stage 1: trains an encoder and a projection for each view, without labels."""

    def compute_forward(self, batch, stage):
        """Encodes and projects each view, section 2.1."""
        return {
            name: self.modules[f"{name}_projection"](
                self.modules[name](*(x.to(self.device) for x in features))
            )
            for name, features in batch.items()
        }

    def compute_objectives(self, projections, batch, stage):
        """Computes NT-Xent between each pair of views, eqs. 1 to 3."""
        loss = self.hparams.loss(projections)
        self.log_terms({"contrast": loss.detach()})
        return loss

    def evaluate_batch(self, batch, stage):
        """Computes the loss of a validation batch; there is no classifier."""
        return sb.Brain.evaluate_batch(self, batch, stage)

    def score_epoch(self, loss):
        """Returns the loss as score; lower is better."""
        return {"loss": loss}, -loss


def pretraining_data(hparams, experiment, part):
    """Selects the data of stage 1 from a part: section 4.2, pre-training data."""
    target = {item.utterance.id for item in experiment.parts[part]}
    kind, everything = hparams["pretrain_on"], experiment.unlabelled[part]
    chosen = [u for u in everything if kind in ("all", "others") or u.id in target]
    chosen = [u for u in chosen if kind != "others" or u.id not in target]
    if len(chosen) < 2:
        raise ValueError(
            f"pretrain_on is {kind!r}, which leaves {len(chosen)} of {len(everything)} "
            f"utterances of the {part} part: emotion_map has classes for the others. "
            "Take other classes, or pretrain_on: all."
        )
    return SpeechDataset([Labelled(u, None) for u in chosen], [], read=None)


def pretrain(hparams, launch, encoders, features, train, valid):
    """Stage 1: trains the encoders in place, and returns its history.

    Selects the best epoch on validation data.
    """
    size, options = hparams["pretrain_batch_size"], hparams["loader_options"]
    bucketing, collate = hparams["bucketing"], partial(collate_views, features)
    how = {"name": "pretraining", "bucketing": bucketing}
    phase = make_phase(train, size, hparams["seed"], **how)
    train_loader = training_loader(train, phase, options, collate)
    # Equal batches in each epoch, of nearly equal size, because losses depend on it.
    ids = [item.utterance.id for item in valid.items]
    order = sorted(range(len(ids)), key=lambda i: random_rank(0, ids[i]))
    if bucketing:
        order.sort(key=lambda i: valid.durations[i])
    batches = [b.tolist() for b in np.array_split(order, -(-len(ids) // size))]
    valid_loader = make_loader(valid, batches, options, collate)
    modules = encoders | {
        f"{name}_projection": hparams["projection"](encoder.output_size)
        for name, encoder in encoders.items()
    }
    brain = make_brain(
        PretrainBrain,
        hparams,
        launch.run_opts,
        launch.folder / "pretraining",
        modules,
        [],
        epochs=hparams["pretrain_epochs"],
        patience=hparams["pretrain_patience"],
        learning_rates=dict.fromkeys(modules, hparams["pretrain_lr"]),
        lr_scheduler=hparams["pretrain_schedule"],
        sampler=train_loader.batch_sampler,
    )
    brain.fit(brain.epoch_counter, train_loader, valid_loader)
    brain.on_evaluate_start(max_key="score")
    return brain.history


def tune(hparams, experiment, encoders, reads, run):
    """Trains stage 2, section 3.3.

    Returns the model, its history, its test predictions, and the number of training
    utterances.
    """
    entropy = [hparams["seed"], run.draw]
    seed = int(np.random.SeedSequence(entropy).generate_state(1)[0])
    torch.manual_seed(seed)
    if run.method == "supervised":
        encoder = from_scratch(encoders["random"][run.view])
    else:
        encoder = copy.deepcopy(encoders["pretrained"][run.view])
    classes, hidden_size = experiment.class_names, hparams["head_sizes"].get(run.view)
    head = hparams["classifier"](
        encoder.output_size, len(classes), hidden_size=hidden_size
    )
    model = EmotionClassifier(encoder.backbone, [head], encoder.pooling)
    model.encoder.reads, read = encoder.reads, reads[run.view]
    model.to(next(encoder.parameters()).device)
    how = (run.fraction, run.draw, hparams["seed"])
    parts = experiment.parts | {"train": draw_labels(experiment.parts["train"], *how)}
    if run.method == "frozen":
        ids = [item.utterance.id for part in parts.values() for item in part]
        read = keep_vectors(model.encoder, read, ids)
    data = {k: SpeechDataset(part, classes, read=None) for k, part in parts.items()}
    options = ("schedule", "lr", "epochs", "patience", "batch_size", "least_batches")
    history = train_short(
        model,
        read,
        data["train"],
        data["valid"],
        opt_class=hparams["opt_class"],
        bucketing=hparams["bucketing"],
        seed=seed,
        **{name: hparams[f"tune_{name}"] for name in options},
    )
    seen = evaluate_short(model, read, data["test"])
    return model, history, seen, len(data["train"])


def run(launch):
    """Trains and tests on one fold; returns the results for the tables."""
    values = launch.values
    known = {"views": values["encoders"], "methods": METHODS}
    check_choices(values, **known, pretrain_on=PRETRAIN_ON)
    names, replaced = choose_views(values["views"], values["needs"])
    draws = (values["draws"], values["full_draws"])
    few_runs = list_few_label_runs(
        names, values["methods"], values["fractions"], *draws
    )
    full_runs = list_few_label_runs(names, values["methods"], [1.0], 0, 1)
    if rank_and_world_size()[1] > 1:
        raise ValueError(
            "one fold takes one process, which trains small encoders in seconds; run "
            "the folds side by side: ser-cl crossval --jobs N."
        )
    experiment = prepare(values, unlabelled=True)
    hparams = launch.start(experiment)
    device = torch.device(getattr(launch.run_opts, "device", None) or "cpu")
    backbones = {name: hparams["encoders"][name]() for name in names}
    how = (hparams["feature_folder"], hparams["max_seconds"], hparams["feature_dtype"])
    features = {k: ViewFeatures(one.features, *how) for k, one in backbones.items()}
    reads = {k: partial(one.batch, device=device) for k, one in features.items()}
    everybody = [one for part in experiment.unlabelled.values() for one in part]
    start = time.time()
    for one in features.values():
        one.fill(everybody, hparams["extraction_processes"], device)
    cost = {"features": {"seconds": round(time.time() - start, 1)}}
    experiment = experiment.without(take_unusable(features, everybody))

    untrained = {name: view_encoder(one) for name, one in backbones.items()}
    pretrained = copy.deepcopy(untrained)
    parts = ("train", "valid")
    train, valid = (pretraining_data(hparams, experiment, part) for part in parts)
    history = pretrain(hparams, launch, pretrained, features, train, valid)
    torch.manual_seed(hparams["seed"])
    untrained = {k: from_scratch(one).to(device) for k, one in untrained.items()}
    for name, encoder in untrained.items():
        take_statistics(encoder, reads[name], [i.utterance.id for i in train.items])

    more = PRETRAIN_ON[hparams["pretrain_on"]]
    titles = {k: title + more * (place > 0) for k, (title, place) in METHODS.items()}
    ours = titles["fine_tuned"]
    about = about_few_labels(
        launch,
        experiment,
        recipe="Pairwise-CL",
        views=names,
        replaced_views=replaced,
        baseline=titles["supervised"],
    )
    stages = {"random": "random", "pretrained": ours}
    stages |= {"supervised": titles["supervised"], "fine_tuned": f"{ours}, tuned"}
    compared = hparams["alignment"]
    comparison = ViewComparison(launch.folder, stages, reads, experiment, compared)
    encoders = {"random": untrained, "pretrained": pretrained}
    for stage, of_view in encoders.items():
        for view, encoder in of_view.items():
            comparison.keep(stage, view, encoder)

    def tune_full(one):
        model, history_2, seen, _ = tune(hparams, experiment, encoders, reads, one)
        if one.method != "frozen":
            comparison.keep(one.method, one.view, model.encoder)
        place = METHODS[one.method][1]
        first = {"pretraining": cost_of(history)} if place else {}
        is_ssl = isinstance(features[one.view].front_end, AllLayers)
        record = about | {
            "setting": titles[one.method],
            "order": place,
            "encoder": f"{one.view} view" + f" ({about['encoder']})" * is_ssl,
            "pretrained_on": {
                "emotions": hparams["pretrain_on"],
                "utterances": len(train),
            },
            "stages": cost | first | {"fine_tuning": cost_of(history_2)},
        }
        return model, history_2, seen, record

    def tune_few(one):
        _, _, seen, labelled = tune(hparams, experiment, encoders, reads, one)
        return few_label_row(one, titles[one.method], seen, labelled)

    rows = do_full_runs(launch, experiment, features, full_runs, tune_full)
    journal = launch.folder / "few_labels.jsonl"
    rows = do_few_label_runs(journal, few_runs, titles, tune_few, rows)
    fold = experiment.split.fold
    points = write_few_label_study(launch.folder, about, fold, hparams["seed"], rows)
    alignment = comparison.write(about, fold, tsne=hparams["tsne"])
    return [{"about": about, "points": points, "alignment": alignment}]


if __name__ == "__main__":
    main(run, __file__, tell=print_few_labels)
