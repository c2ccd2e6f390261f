#!/usr/bin/env python3
"""Two-stage supervised contrastive fine-tuning for speech emotion recognition.

Stage 1 fine-tunes a pretrained speech encoder on several corpora together: utterances
with one emotion are pulled together across corpora and pushed away from other emotions.
Stage 2 freezes the encoder and trains a classifier for each corpus. Xiang, "A
cross-corpus speech emotion recognition method based on supervised contrastive
learning", 2024; equation and section numbers refer to that paper.

To run the demo on built-in synthetic corpora:
> python train.py hparams/two_stage.yaml

To run one fold of the paper's experiment, and its baseline:
> python train.py hparams/two_stage.yaml --fold 0 \
      --corpora "{iemocap: /path/to/IEMOCAP, casia: /path/to/CASIA}"
> python train.py hparams/two_stage.yaml --fold 0 --setting fine_tuning \
      --corpora "{iemocap: /path/to/IEMOCAP, casia: /path/to/CASIA}"

Authors
 * The speechbrain_ser_cl contributors 2026
"""

import copy
import shutil
import time

import speechbrain as sb
import torch
from speechbrain.utils.distributed import if_main_process
from torch.nn.functional import cross_entropy

from speechbrain_ser_cl.data.dataset import (
    SpeechDataset,
    steps_of,
    waveform,
)
from speechbrain_ser_cl.data.emotion_batches import EmotionBatchSampler
from speechbrain_ser_cl.data.experiment import class_names, prepare
from speechbrain_ser_cl.data.loaders import (
    domain_loaders,
    make_loader,
    make_phase,
    rank_and_world_size,
    training_loader,
    whole_loader,
)
from speechbrain_ser_cl.nnet import DomainNorm, EmotionClassifier, UtteranceEncoder
from speechbrain_ser_cl.training import (
    SERBrain,
    check_choices,
    class_weights,
    cost_of,
    keep_frames,
    keep_states,
    layer_similarities,
    main,
    make_brain,
    read_results,
    write_test,
)

# Name and order in tables.
SETTINGS = {
    "probe": ("frozen encoder", 0),
    "fine_tuning": ("direct fine-tuning", 1),
    "two_stage": ("two-stage", 2),
}


class ContrastiveBrain(SERBrain):
    """Stage 1: sections 2.2 and 2.3, on batches as in figures 2 and 3."""

    def compute_forward(self, batch, stage):
        """Computes C, eq. 1; the first half of a batch is positive."""
        batch = batch.to(self.device)
        x = self.modules.encoder(batch.speech, batch.lengths, batch.domain)
        return {"embeddings": x}

    def compute_objectives(self, outputs, batch, stage):
        """Computes contrastive loss + cosine margin loss, eq. 5."""
        x = outputs["embeddings"]
        positives, negatives = x.chunk(2)
        is_positive = torch.arange(len(x), device=x.device) < len(positives)
        terms = {
            # Section 2.2: each positive against all negatives, with positives as
            # anchors.
            "contrast": self.hparams.contrast_loss(
                x, is_positive.long(), anchors=is_positive
            ),
            # Section 2.3: one half of the positives with the other half.
            "margin": self.hparams.margin_loss(positives, negatives),
        }
        total, values = self.hparams.loss(terms)
        self.log_terms(values)
        return total


class ClassifierBrain(SERBrain):
    """Stage 2, on frames of the frozen encoder; and the baseline FT, on speech."""

    class_weights = None

    def compute_forward(self, batch, stage):
        """Applies attention pooling and two linear layers with a ReLU, section 3.1."""
        batch = batch.to(self.device)
        logits, x = self.modules.model(batch.speech, batch.lengths, embeddings=True)
        return {"logits": logits, "embeddings": x}

    def compute_objectives(self, outputs, batch, stage):
        """Computes the cross-entropy."""
        labels = batch.label.to(self.device)
        loss = cross_entropy(outputs["logits"], labels, weight=self.class_weights)
        self.log_terms({"emotion": loss.detach()})
        return loss


def make_data(hparams, items, class_names, read, corpora=None):
    """Makes a data set, from which training takes random parts."""
    hop = 1 if read is waveform else hparams["backbone"].hop
    longest = steps_of(hparams["max_seconds"], hop)
    how = {"max_steps": longest, "seed": hparams["seed"], "corpora": corpora}
    return SpeechDataset(items, class_names, read, **how)


def contrast_loaders(hparams, experiment, parts, read):
    """Makes loaders of batches around one emotion, for training and validation."""
    size, loaders = hparams["batch_size"], []
    for part, replacement in (("train", hparams["replacement"]), ("valid", True)):
        items, processes = parts[part], (0, 1)  # all ranks validate equally
        batches = -(-len(items) // size)
        if part == "train":
            processes = rank_and_world_size()
            batches = hparams["contrast_batches"] or -(-batches // processes[1])
        data = make_data(
            hparams, items, experiment.class_names, read, experiment.corpora
        )
        emotions = [item.label for item in items]
        corpora = [item.utterance.corpus for item in items]
        how = (size, batches, hparams["seed"], replacement, *processes)
        sampler = EmotionBatchSampler(emotions, corpora, *how)
        loaders.append(make_loader(data, sampler, hparams["loader_options"]))
    return loaders


def classifier_loaders(hparams, parts, classes, read):
    """Makes loaders of one corpus, for training, validation and test."""
    data = {k: make_data(hparams, part, classes, read) for k, part in parts.items()}
    tuning = hparams["setting"] == "fine_tuning"
    how = (hparams["batch_size"], hparams["seed"])
    batches = None if tuning else hparams["classifier_batches"]
    phase = make_phase(data["train"], *how, batches, bucketing=hparams["bucketing"])
    options, size = hparams["loader_options"], hparams["test_batch_size"]
    train = training_loader(data["train"], phase, options)
    return train, *(whole_loader(data[k], size, options) for k in ("valid", "test"))


def stage_options(hparams, stage):
    """Returns the YAML's options of a stage."""
    return {
        "epochs": hparams[f"{stage}_epochs"],
        "learning_rates": hparams[f"{stage}_learning_rates"],
        "lr_scheduler": hparams[f"{stage}_schedule"],
    }


def prepare_encoder(hparams, launch, experiment, parts):
    """Runs stage 1, if the setting has it; prepares the input of later stages.

    Returns ``read``, its type (``reads`` of ``UtteranceEncoder``), and the cost that
    the corpora share.
    """
    backbone, norm = hparams["backbone"], None
    if hparams["corpus_norm"]:
        sizes = backbone.output_size, len(experiment.corpora)
        norm = DomainNorm(*sizes, batch_statistics=False)
    encoder = UtteranceEncoder(backbone, hparams["pooling"], norm, domain=0)
    brain = make_brain(
        ContrastiveBrain,
        hparams,
        launch.run_opts,
        launch.folder / "encoder",
        {"encoder": encoder},
        experiment.class_names,
        **stage_options(hparams, "contrast"),
        valid_metric="loss",
    )
    every = {item.utterance.id: item.utterance for p in parts.values() for item in p}
    utterances = list(every.values())
    how = (brain.eval_precision, brain.evaluation_ctx, hparams["feature_dtype"])
    start = time.time()
    read = keep_states(backbone, utterances, hparams["state_folder"], *how)
    encoder.reads = "waveform" if read is waveform else "states"
    cost = {"frozen_layers": {"seconds": round(time.time() - start, 1)}}
    if hparams["setting"] == "fine_tuning":
        return read, encoder.reads, cost
    if hparams["setting"] == "two_stage":
        train, valid = contrast_loaders(hparams, experiment, parts, read)
        brain.train_sampler = train.batch_sampler
        if norm is not None:  # statistics of the pretrained encoder
            brain.calibrate(encoder, domain_loaders(train.dataset, most=256))
        most = hparams["similarity_utterances"]  # in figure 4
        figure = (launch.folder / "encoder" / "similarity", backbone, parts["test"])
        with layer_similarities(*figure, most, brain.evaluation_ctx):
            brain.fit(brain.epoch_counter, train, valid)
        cost["contrast"] = cost_of(brain.history)
    start = time.time()
    read = keep_frames(backbone, utterances, hparams["feature_folder"], read, *how)
    cost["frames"] = {"seconds": round(time.time() - start, 1)}
    backbone.requires_grad_(False)  # stage 2 trains the layers above it
    return read, "frames", cost


def classify(hparams, launch, parts, classes, corpus, read, reads):
    """Runs stage 2 on one corpus, or the baseline FT; then the test."""
    train, valid, test = classifier_loaders(hparams, parts, classes, read)
    # Equal initial parameters, independent of what ran before in this process.
    torch.manual_seed(hparams["seed"])
    head, backbone = hparams["classifier"](n_classes=len(classes)), hparams["backbone"]
    tuning = hparams["setting"] == "fine_tuning"
    backbone = copy.deepcopy(backbone) if tuning else backbone
    model = EmotionClassifier(backbone, [head], copy.deepcopy(hparams["pooling"]))
    model.encoder.reads = reads
    trained = {"pooling": model.encoder.pooling, "head": model.head}
    brain = make_brain(
        ClassifierBrain,
        hparams,
        launch.run_opts,
        launch.folder / corpus,
        {"model": model},
        classes,
        **stage_options(hparams, "tuning" if tuning else "classifier"),
        sampler=train.batch_sampler,
        kept={"model": model} if tuning else trained,
    )
    if hparams["class_weights"]:
        weights = class_weights(train.dataset.labels, len(classes))
        brain.class_weights = weights.to(brain.device)
    brain.fit(brain.epoch_counter, train, valid)
    best = hparams["test_checkpoint"] == "best"
    brain.evaluate(test, max_key="score" if best else None)
    return brain, model


def run(launch):
    """Trains and tests one setting on one fold; returns results per corpus."""
    check_choices(launch.values, setting=SETTINGS, test_checkpoint=("best", "last"))
    if launch.values["train_on_valid"] and launch.values["test_checkpoint"] == "best":
        raise ValueError(
            "train_on_valid is True: the validation part cannot tell which checkpoint "
            "is best. Set test_checkpoint: last, or train_on_valid: False."
        )
    experiment = prepare(launch.values)
    hparams = launch.start(experiment)
    files = {name: launch.folder / name / "results.json" for name in experiment.corpora}
    setting, order = SETTINGS[hparams["setting"]]
    todo = [name for name, file in files.items() if not file.exists()]
    if todo:
        parts = dict(experiment.parts)
        if hparams["train_on_valid"]:
            parts["train"] = [*parts["train"], *parts["valid"]]
        read, reads, cost = prepare_encoder(hparams, launch, experiment, parts)
        for corpus in todo:
            own = {
                name: [item for item in part if item.utterance.corpus == corpus]
                for name, part in parts.items()
            }
            classes = class_names(hparams["emotion_map"], [corpus])
            brain, model = classify(hparams, launch, own, classes, corpus, read, reads)
            if if_main_process():
                stages = cost | {"classifier": cost_of(brain.history)}
                # Each corpus gets a share of the common cost.
                in_common = sum(stage["seconds"] for stage in cost.values())
                brain.history.seconds += in_common / len(files)
                if hparams["train_on_valid"]:  # it is part of train
                    del own["valid"]
                about = {
                    "recipe": "two-stage supervised contrastive fine-tuning",
                    "setting": setting,
                    "order": order,
                    "source": " + ".join(files if order == 2 else [corpus]),
                    "target": corpus,
                    "layers": hparams["backbone"].layers,
                    "train_on_valid": hparams["train_on_valid"],
                    "stages": stages,
                }
                where = {"folder": launch.folder / corpus, "parts": own}
                write_test(launch, experiment, brain, model, about, **where)
        if not hparams["keep_features"] and if_main_process():
            shutil.rmtree(hparams["feature_folder"], ignore_errors=True)
    sb.utils.distributed.ddp_barrier()
    return [read_results(file) for file in files.values()] if if_main_process() else []


if __name__ == "__main__":
    main(run, __file__)
