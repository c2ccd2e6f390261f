#!/usr/bin/env python3
"""Multitask domain adaptation for speech emotion recognition.

A pretrained transformer is trained in turn on a labelled source corpus and on a target
corpus with few labels or none, with four losses: emotion cross-entropy, contrastive
loss between two augmented views, information maximisation, and classification of the
augmentation. Ahn et al., "Integrating contrastive learning into a multitask transformer
model for effective domain adaptation", 2023; equation numbers refer to that paper.

To run the demo on built-in synthetic corpora:
> python train.py hparams/multitask_da.yaml

To run the paper's experiment:
> python train.py hparams/multitask_da.yaml --source_folder /path/to/IEMOCAP \
      --target_folder /path/to/MSP-IMPROV

Authors
 * The speechbrain_ser_cl contributors 2026
"""

from itertools import accumulate
from pathlib import Path

import speechbrain as sb
from speechbrain.utils.distributed import if_main_process
from torch.nn.functional import cross_entropy

from speechbrain_ser_cl.data.dataset import SpeechDataset, steps_of, without_labels
from speechbrain_ser_cl.data.domains import SOURCE, TARGET
from speechbrain_ser_cl.data.experiment import prepare
from speechbrain_ser_cl.data.loaders import make_phase, training_loader, whole_loader
from speechbrain_ser_cl.nnet import EmotionClassifier
from speechbrain_ser_cl.training import (
    SERBrain,
    check_choices,
    labelled_cross_entropy,
    main,
    make_brain,
    unwrap,
    write_run,
)

# Most utterances per domain for its statistics, and for criteria without labels.
MOST_CALIBRATION, MOST_UNLABELLED = 64, 256
AUXILIARY_HEADS = ("projection", "augmentation_head")


class MultitaskBrain(SERBrain):
    """The method: forward pass of fig. 1, losses of eq. 2 to 6."""

    def compute_forward(self, batch, stage):
        """Embeds the utterances, or both views of each, and applies the heads."""
        batch = batch.to(self.device)
        # First views, then second views, in one pass through the shared weights. The
        # mean of the weighted layers over the valid frames, section 3.1, and eq. 1.
        logits, h = self.modules.model(
            batch.speech,
            batch.lengths,
            domain=int(batch.domain[0]),  # a batch has one domain
            embeddings=True,
        )
        outputs = {"logits": logits, "embeddings": h}
        if stage == sb.Stage.TRAIN:
            if self.hparams.loss.active("contrastive"):
                outputs["z"] = self.modules.projection(h)  # eq. 3
            if self.hparams.loss.active("augmentation"):
                outputs["pipeline_logits"] = self.modules.augmentation_head(h)
        return outputs

    def compute_objectives(self, outputs, batch, stage):
        """Computes L_emo + λ1 L_aug + λ2 L_cont + λ3 L_IM, section 3.5."""
        logits, labels = outputs["logits"], batch.label.to(self.device)
        if stage != sb.Stage.TRAIN:
            return cross_entropy(logits, labels)
        terms = {}
        if self.hparams.loss.active("emotion"):  # eq. 2
            terms["emotion"] = labelled_cross_entropy(logits, labels.repeat(2))
        if self.hparams.loss.active("contrastive"):  # eq. 4
            z_a, z_b = outputs["z"].chunk(2)
            terms["contrastive"] = self.hparams.contrastive_loss(z_a, z_b)
        if self.hparams.loss.active("information_maximization"):  # eq. 5
            terms["information_maximization"] = self.hparams.im_loss(logits)
        if self.hparams.loss.active("augmentation"):  # eq. 6
            terms["augmentation"] = cross_entropy(
                outputs["pipeline_logits"], batch.pipeline.to(self.device)
            )
        total, values = self.hparams.loss(terms)
        self.log_terms(values)
        return total

    def on_stage_start(self, stage, epoch=None):
        """Before validation, computes domain statistics from whole utterances."""
        super().on_stage_start(stage, epoch)
        encoder = unwrap(self.modules.model).encoder
        if stage == sb.Stage.VALID and encoder.norm is not None:
            self.calibrate(encoder, self.calibration_loaders)


def make_loaders(hparams, experiment):
    """Makes loaders of training, validation, test, domains and unlabelled target."""
    parts, options = experiment.parts, hparams["loader_options"]
    labels, seed = hparams["target_labels"], hparams["seed"]
    target = parts["target_train"] if labels else without_labels(parts["target_train"])
    more = without_labels(parts.get("target_unlabelled", []))
    batches = hparams["target_batches" if labels else "target_batches_unlabelled"]
    plan = [
        ("source", parts["source_train"], SOURCE, hparams["source_batches"]),
        ("target", target, TARGET, batches),
        ("unlabelled", more, TARGET, hparams["target_batches_unlabelled"]),
    ]
    plan = [phase for phase in plan if hparams[f"use_{phase[0]}"]]
    data = SpeechDataset(
        [item for _, items, _, _ in plan for item in items],
        experiment.class_names,
        views=2,
        augment=hparams["augmentation"],
        max_steps=steps_of(hparams["max_seconds"]),
        seed=seed,
        corpora=experiment.corpora,
    )
    ends = accumulate(len(items) for _, items, _, _ in plan)
    phases = [
        make_phase(
            data,
            hparams["batch_size"],
            seed + domain + (name == "unlabelled"),
            n_batches,
            name=name,
            indices=range(end - len(items), end),
            bucketing=hparams["bucketing"],
            max_seconds=hparams["max_seconds"],
        )
        for (name, items, domain, n_batches), end in zip(plan, ends, strict=True)
    ]
    train = training_loader(data, phases, options)

    def whole(items, most=None):
        items = items[:: -(-len(items) // (most or len(items)))]
        data = SpeechDataset(items, experiment.class_names, corpora=experiment.corpora)
        return whole_loader(data, hparams["test_batch_size"], options)

    # Without target data, the source's statistics are used for the target.
    some = {SOURCE: parts["source_train"], TARGET: parts["source_train"]}
    if hparams["use_target"] or hparams["target_statistics"]:
        some[TARGET] = parts["target_train"] + more * hparams["use_unlabelled"]
    calibration = {
        domain: whole(without_labels(items), MOST_CALIBRATION)
        for domain, items in some.items()
    }
    hidden = more if labels else target
    hidden = whole(hidden, MOST_UNLABELLED) if hidden else None
    valid, test = whole(parts["source_valid"]), whole(parts["target_test"])
    return train, valid, test, calibration, hidden


def setting_of(hparams):
    """Returns the name of a run's switches for tables, and its order there."""
    if not hparams["use_target"] and hparams["target_statistics"]:
        group, data = 3, "source + statistics of unlabelled target"
    elif not hparams["use_target"]:
        group, data = 0, "source only"
    elif not hparams["use_source"]:
        group, data = 1, "labelled target only"
    elif hparams["target_labels"]:
        group, data = 2, "source + labelled target"
    else:
        group, data = 3, "source + unlabelled target"
    if hparams["use_unlabelled"]:
        group, data = group + 4, f"{data} + unlabelled target"
    auxiliary = ("augmentation", "contrastive", "information_maximization")
    off = [name for name in auxiliary if not hparams["loss"].active(name)]
    if not hparams["loss"].active("emotion"):
        losses = "without " + ", ".join(["emotion", *off])
    elif not off:
        losses = "all losses"
    elif len(off) == len(auxiliary):
        losses = "emotion loss only"
    else:
        losses = "without " + ", ".join(off)
    for name in ("norm", "head"):
        if hparams[f"domain_{name}"]:
            losses += f", domain {name}"
    order, shared = 10 * group + len(auxiliary) - len(off), hparams["shared_emotions"]
    return f"{data}{' (shared emotions)' * shared}, {losses}", order + 100 * shared


def check_switches(values):
    """Refuses meaningless switches before anything is loaded."""
    check_choices(values, test_checkpoint=("best", "last"))
    use_source, use_target = values["use_source"], values["use_target"]
    labels, stops = values["target_labels"], values["patience"] is not None
    weights = (values["lambda_aug"], values["lambda_cont"], values["lambda_im"])
    for wrong, told in (
        (
            not (use_source or use_target),
            "use_source and use_target are both False: nothing to train.",
        ),
        (
            not use_source and not labels,
            "use_source and target_labels are both False: no label is left to learn "
            "from. Set one of them to True.",
        ),
        (
            use_target and not labels and not any(weights),
            "target_labels is False and lambda_aug, lambda_cont and lambda_im are 0: "
            "nothing is learned from the target. Set use_target: False or a weight.",
        ),
        (
            values["use_unlabelled"] and not (values["target_both"] and labels),
            "use_unlabelled: True needs target_both: True and target_labels: True.",
        ),
        (
            values["target_statistics"]
            and (use_target or labels or not values["domain_norm"]),
            "target_statistics: True trains on the source alone and takes nothing but "
            "domain_norm's statistics from unlabelled target speech. Set use_target: "
            "False, target_labels: False and domain_norm: True.",
        ),
        (
            (stops or values["test_checkpoint"] == "best") and not use_source,
            "use_source is False, but validation is on the source, and patience or "
            "test_checkpoint: best would look at it. Set patience: null and "
            "test_checkpoint: last.",
        ),
        (
            bool(values["source_folder"]) != bool(values["target_folder"]),
            "Only one of source_folder and target_folder is given. Give both, or none "
            "for the demo on synthetic speech.",
        ),
    ):
        if wrong:
            raise ValueError(told)


def run(launch):
    """Trains and tests one setting; returns the contents of ``results.json``."""
    check_switches(launch.values)
    experiment = prepare(launch.values)
    hparams = launch.start(experiment)
    train, valid, test, calibration, hidden = make_loaders(hparams, experiment)
    # With labels of one domain only, a second head could not be trained.
    hparams["domain_head"] &= all(
        (hparams["use_source"], hparams["use_target"], hparams["target_labels"])
    )
    heads = ["emotion_head"] + ["specific_head"] * hparams["domain_head"]
    model = EmotionClassifier(
        hparams["backbone"],
        [hparams[name] for name in heads],
        pooling=hparams["pooling"],
        norm=hparams["norm"] if hparams["domain_norm"] else None,
        domain=TARGET,
    )
    brain = make_brain(
        MultitaskBrain,
        hparams,
        launch.run_opts,
        launch.folder,
        {"model": model, **{name: hparams[name] for name in AUXILIARY_HEADS}},
        experiment.class_names,
        epochs=hparams["n_rounds"],
        phases=sum(hparams[f"use_{k}"] for k in ("source", "target", "unlabelled")),
        patience=hparams["patience"],
        learning_rates=hparams["learning_rates"],
        lr_scheduler=hparams["lr_scheduler"],
        sampler=train.batch_sampler,
    )
    brain.calibration_loaders, brain.unlabelled = calibration, hidden
    brain.fit(brain.epoch_counter, train, valid)
    best = hparams["test_checkpoint"] == "best"
    brain.evaluate(test, max_key="score" if best else None)
    if not if_main_process():
        return []
    both = ", labelled and unlabelled" * hparams["target_both"]
    record = dict(zip(("setting", "order"), setting_of(hparams), strict=True)) | {
        "recipe": "multitask domain adaptation",
        "source": hparams["source_corpus"],
        "target": hparams["target_corpus"],
        "target_split": hparams["target_split"] + both,
        "encoder": Path(hparams["ssl_source"]).name,
        "seed": hparams["seed"],
        "precision": brain.precision,
        "demo": launch.demo,
        "layer_weights": hparams["backbone"].weights.tolist(),
    }
    results = write_run(
        launch.folder,
        record | experiment.record(),
        predictions=brain.collected_outputs(),
        parts=experiment.parts,
        class_names=experiment.class_names,
        history=brain.history,
        model=model,
    )
    return [results]


if __name__ == "__main__":
    main(run, __file__)
