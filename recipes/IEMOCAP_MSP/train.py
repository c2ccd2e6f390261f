#!/usr/bin/env python3
"""Multitask domain adaptation for speech emotion recognition.

A pretrained transformer is trained on a labelled source corpus and on a target corpus
with few labels or none, in turn, with four losses: emotion cross-entropy, contrastive
loss between two augmented views, information maximisation, and which augmentation made
a view. Ahn et al., "Integrating contrastive learning into a multitask
transformer model for effective domain adaptation", 2023; equation numbers are of that
paper.

To run the demo on built-in synthetic corpora:
> python train.py hparams/multitask_da.yaml

To run the paper's experiment:
> python train.py hparams/multitask_da.yaml --source_folder /path/to/IEMOCAP \
      --target_folder /path/to/MSP-IMPROV

Authors
 * The speechbrain_ser_cl contributors 2026
"""

import os
import sys
from pathlib import Path

import speechbrain as sb
import torch
import yaml
from speechbrain.dataio.batch import PaddedBatch
from speechbrain.utils.distributed import get_rank, if_main_process, run_on_main
from torch.nn.functional import cross_entropy
from torch.utils.data import ConcatDataset, DataLoader

from speechbrain_ser_cl.backbones import write_untrained_encoder
from speechbrain_ser_cl.corpora import write_synthetic
from speechbrain_ser_cl.data.domains import (
    SOURCE,
    TARGET,
    durations,
    load_corpus,
    of_shared_emotions,
    split_domains,
    to_dataset,
)
from speechbrain_ser_cl.data.samplers import (
    AlternatingBatchSampler,
    LengthBucketedStream,
    LengthSortedBatches,
    Phase,
)
from speechbrain_ser_cl.data.views import AugmentedViews
from speechbrain_ser_cl.nnet import EmotionClassifier
from speechbrain_ser_cl.training import (
    SERBrain,
    find_hparams,
    plain_values,
    start_run,
    unwrap,
    write_run,
)

# Most utterances of a domain that its statistics are taken from.
MOST_CALIBRATION = 64


class MultitaskBrain(SERBrain):
    """The method: fig. 1 forward, eq. 2 to 6 in the objectives."""

    def compute_forward(self, batch, stage):
        """Embeds the utterances, or both views of each, and applies the heads."""
        batch = batch.to(self.device)
        if stage == sb.Stage.TRAIN:
            # Views a, then views b: one pass through the shared weights.
            wavs = torch.cat([batch.view_a.data, batch.view_b.data])
            lengths = torch.cat([batch.view_a.lengths, batch.view_b.lengths])
        else:
            wavs, lengths = batch.sig
        h = self.embed(wavs, lengths)
        domain = int(batch.domain[0])  # a batch is of one domain
        if self.hparams.domain_norm:
            h = self.modules.norm(h, domain)
        outputs = {"logits": self.modules.emotion_head(h), "embeddings": h}  # eq. 1
        if self.hparams.domain_head:
            outputs["logits"] = outputs["logits"] + self.modules.specific_head(
                h, domain
            )
        if stage == sb.Stage.TRAIN:
            if self.hparams.loss.active("contrastive"):
                outputs["z"] = self.modules.projection(h)  # eq. 3
            if self.hparams.loss.active("augmentation"):
                outputs["pipeline_logits"] = self.modules.augmentation_head(h)
        return outputs

    def embed(self, wavs, lengths):
        """The weighted layers' mean over the valid frames, section 3.1."""
        frames = self.modules.backbone(wavs, lengths)
        lengths = unwrap(self.modules.backbone).frame_lengths(lengths, wavs.shape[1])
        return self.modules.pooling(frames, lengths)

    def compute_objectives(self, outputs, batch, stage):
        """L_emo + λ1 L_aug + λ2 L_cont + λ3 L_IM, section 3.5."""
        logits, labels = outputs["logits"], batch.label.to(self.device)
        if stage != sb.Stage.TRAIN:
            return cross_entropy(logits, labels)
        terms = {}
        if self.hparams.loss.active("emotion"):  # eq. 2
            labelled = bool((labels >= 0).all())
            terms["emotion"] = (
                cross_entropy(logits, labels.repeat(2)) if labelled else None
            )
        if self.hparams.loss.active("contrastive"):  # eq. 4
            z_a, z_b = outputs["z"].chunk(2)
            terms["contrastive"] = self.hparams.contrastive_loss(z_a, z_b)
        if self.hparams.loss.active("information_maximization"):  # eq. 5
            terms["information_maximization"] = self.hparams.im_loss(logits)
        if self.hparams.loss.active("augmentation"):  # eq. 6
            pipelines = torch.cat([batch.pipeline_a, batch.pipeline_b])
            terms["augmentation"] = cross_entropy(
                outputs["pipeline_logits"], pipelines.to(self.device)
            )
        total, values = self.hparams.loss(terms)
        self.log_terms(values)
        return total

    def on_stage_start(self, stage, epoch=None):
        """Before validation, domain statistics of whole, clean training utterances."""
        super().on_stage_start(stage, epoch)
        if stage != sb.Stage.VALID or not self.hparams.domain_norm:
            return
        self.modules.eval()
        for domain, loader in self.calibration_loaders.items():
            with torch.no_grad(), self.evaluation_ctx:
                h = [self.embed(*batch.to(self.device).sig) for batch in loader]
            self.modules.norm.calibrate(torch.cat(h), domain)


def prepare_data(hparams):
    """Reads both corpora and splits them.

    Arguments
    ---------
    hparams : dict
        The YAML's values.

    Returns
    -------
    DomainSplits
        Training and validation part of the source, training and test part of the
        target.
    """
    cache = Path(hparams["data_folder"])
    corpora = []
    for domain, name, folder in (
        ("source", hparams["source_corpus"], hparams["source_folder"]),
        ("target", hparams["target_corpus"], hparams["target_folder"]),
    ):
        if folder is None:
            folder = cache / f"synthetic_{domain}"
            run_on_main(write_synthetic, args=[folder, folder.name])
        load = {
            "name": name,
            "folder": folder,
            "emotion_map": hparams["emotion_map"],
            "cache_folder": cache / "converted",
            "allow_missing": hparams["allow_missing"],
        }
        run_on_main(load_corpus, kwargs=load)  # what it converts, it converts once
        corpora.append(load_corpus(**load))
    source, target = corpora
    if hparams["shared_emotions"]:
        source = of_shared_emotions(source, target)
    labels = hparams["target_labels"]
    return split_domains(
        source,
        target,
        source_valid=hparams["source_valid"],
        target_train=(
            hparams["target_labelled"] if labels else hparams["target_unlabelled"]
        ),
        target_by=hparams["target_split"],
        seed=hparams["seed"],
        target_labels=labels,
    )


def make_loaders(hparams, splits, rank, world_size):
    """Loaders for training, validation and test.

    Arguments
    ---------
    hparams : dict
        The YAML's values.
    splits : DomainSplits
        The utterances.
    rank : int
        This process.
    world_size : int
        Of so many.

    Returns
    -------
    train, valid, test : DataLoader
        ``train`` has the phases of a round in turn.
    calibration : dict
        For each domain, a loader of whole training utterances.
    """
    classes = list(hparams["emotion_map"])
    labels = hparams["target_labels"]
    target_batches = (
        hparams["target_batches"] if labels else hparams["target_batches_unlabelled"]
    )
    plan = [
        ("source", splits.source_train, SOURCE, True, hparams["source_batches"]),
        ("target", splits.target_train, TARGET, labels, target_batches),
    ]
    used = {"source": hparams["use_source"], "target": hparams["use_target"]}
    datasets, phases = [], []
    for name, items, domain, use_labels, n_batches in plan:
        if not used[name]:
            continue
        dataset = to_dataset(items, classes, domain, use_labels)
        seconds = [min(d, hparams["max_seconds"]) for d in durations(dataset)]
        if not hparams["bucketing"]:
            seconds = [1.0] * len(dataset)  # all alike: batches are random
        seed = hparams["seed"] + domain
        stream = LengthBucketedStream(seconds, hparams["batch_size"], seed)
        first = sum(map(len, datasets))
        indices = range(first, first + len(dataset))
        phases.append(Phase(name, indices, stream, n_batches))
        datasets.append(dataset)
    views = AugmentedViews(
        ConcatDataset(datasets),
        hparams["augmentation"],
        hparams["seed"],
        hparams["max_seconds"],
    )
    sampler = AlternatingBatchSampler(phases, rank, world_size)
    options = hparams["loader_options"] | {"collate_fn": PaddedBatch}
    train = DataLoader(views, batch_sampler=sampler, **options)

    def whole_utterances(items, domain, use_labels=True):
        dataset = to_dataset(items, classes, domain, use_labels)
        batches = LengthSortedBatches(durations(dataset), hparams["test_batch_size"])
        return DataLoader(dataset, batch_sampler=batches, **options)

    valid = whole_utterances(splits.source_valid, SOURCE)
    test = whole_utterances(splits.target_test, TARGET)
    # A target of which nothing is known is taken to be like the source.
    some = {SOURCE: splits.source_train, TARGET: splits.source_train}
    if hparams["use_target"] or hparams["target_statistics"]:
        some[TARGET] = splits.target_train
    calibration = {
        domain: whole_utterances(
            items[:: -(-len(items) // MOST_CALIBRATION)], domain, use_labels=False
        )
        for domain, items in some.items()
    }
    return train, valid, test, calibration


def setting_of(hparams):
    """What the switches of a run amount to, for tables.

    Arguments
    ---------
    hparams : dict
        The YAML's values.

    Returns
    -------
    setting : str
        Such as ``"source + labelled target, all losses"``.
    order : int
        Where the setting stands among others.
    """
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
    order = 10 * group + len(auxiliary) - len(off)
    if hparams["shared_emotions"]:
        return f"{data} (shared emotions), {losses}", 100 + order
    return f"{data}, {losses}", order


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
    if hparams["test_checkpoint"] not in ("best", "last"):
        raise ValueError(
            f"test_checkpoint is {hparams['test_checkpoint']!r}, expected best or last."
        )
    if not (hparams["use_source"] or hparams["use_target"]):
        raise ValueError("use_source and use_target are both False: nothing to train.")
    if not hparams["use_source"] and not hparams["target_labels"]:
        raise ValueError(
            "use_source and target_labels are both False: no label is left to learn "
            "from. Set one of them to True."
        )
    auxiliary = (hparams["lambda_aug"], hparams["lambda_cont"], hparams["lambda_im"])
    if hparams["use_target"] and not hparams["target_labels"] and not any(auxiliary):
        raise ValueError(
            "target_labels is False and lambda_aug, lambda_cont and lambda_im are 0: "
            "nothing is learned from the target. Set use_target: False or a weight."
        )
    if hparams["target_statistics"] and (
        hparams["use_target"] or hparams["target_labels"] or not hparams["domain_norm"]
    ):
        raise ValueError(
            "target_statistics: True trains on the source alone and takes nothing but "
            "domain_norm's statistics from unlabelled target speech. Set use_target: "
            "False, target_labels: False and domain_norm: True."
        )
    stops = hparams["patience"] is not None or hparams["test_checkpoint"] == "best"
    if stops and not hparams["use_source"]:
        raise ValueError(
            "use_source is False, but validation is on the source, and patience or "
            "test_checkpoint: best would look at it. Set patience: null and "
            "test_checkpoint: last."
        )
    if bool(hparams["source_folder"]) != bool(hparams["target_folder"]):
        raise ValueError(
            "Only one of source_folder and target_folder is given. Give both, or none "
            "for the demo on synthetic speech."
        )


def run(hparams_file, run_opts, overrides):
    """Trains and tests one setting.

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
        What ``results.json`` says.
    """
    hparams = start_run(hparams_file, overrides, check_switches)
    folder = Path(hparams["output_folder"])
    splits = prepare_data(hparams)
    world_size = int(os.environ.get("WORLD_SIZE", 1))
    train, valid, test, calibration = make_loaders(
        hparams, splits, get_rank() or 0, world_size
    )
    # With labels of one domain only there is nothing that a second head could learn.
    hparams["domain_head"] &= all(
        (hparams["use_source"], hparams["use_target"], hparams["target_labels"])
    )
    class_names = list(hparams["emotion_map"])

    brain = MultitaskBrain(
        class_names=class_names,
        sampler=train.batch_sampler,
        epoch_counter=hparams["epoch_counter"],
        learning_rates=hparams["learning_rates"],
        lr_scheduler=hparams["lr_scheduler"],
        valid_metric=hparams["valid_metric"],
        train_logger=hparams["train_logger"],
        modules=hparams["modules"],
        opt_class=hparams["opt_class"],
        hparams=hparams,
        run_opts=run_opts,
        checkpointer=hparams["checkpointer"],
    )
    brain.calibration_loaders = calibration
    brain.fit(hparams["epoch_counter"], train, valid)
    brain.evaluate(
        test, max_key="score" if hparams["test_checkpoint"] == "best" else None
    )
    if not if_main_process():
        return {}
    backbone = unwrap(brain.modules.backbone)
    setting, order = setting_of(hparams)
    return write_run(
        folder,
        {
            "recipe": "multitask domain adaptation",
            "setting": setting,
            "order": order,
            "source": hparams["source_corpus"],
            "target": hparams["target_corpus"],
            "target_split": hparams["target_split"],
            "encoder": Path(hparams["ssl_source"]).name,
            "seed": hparams["seed"],
            "precision": brain.precision,
            "demo": hparams["source_folder"] is None,
            "data": splits.describe(),
            "layer_weights": backbone.weights.tolist(),
        },
        predictions=brain.evaluated(),
        parts=splits.parts(),
        class_names=class_names,
        history=brain.history,
        model=EmotionClassifier(
            hparams["backbone"],
            [hparams["emotion_head"]]
            + ([hparams["specific_head"]] if hparams["domain_head"] else []),
            pooling=hparams["pooling"],
            norm=hparams["norm"] if hparams["domain_norm"] else None,
            domain=TARGET,
        ),
    )


def run_demo(hparams_file, run_opts, overrides):
    """Trains on synthetic speech, without and with adaptation, and compares.

    Arguments
    ---------
    hparams_file : pathlib.Path
        The YAML; its ``demo`` holds the values that make it small.
    run_opts : RunOptions
        Of the command line.
    overrides : dict
        Values of the command line, which go before those of the demo.
    """
    if if_main_process():
        print(
            "DEMO: neither --source_folder nor --target_folder is given, so this runs "
            "on synthetic speech with a small untrained encoder. Its numbers are not "
            "results of any paper.",
            flush=True,
        )
    settings = plain_values(hparams_file)["demo"]
    folder = Path(overrides.get("output_folder", settings["output_folder"]))
    encoder = folder / "untrained_encoder"
    run_on_main(write_untrained_encoder, args=[settings.pop("encoder"), encoder])
    settings |= {"ssl_source": str(encoder)} | overrides
    no_adaptation = {
        "use_target": False,
        "lambda_aug": 0.0,
        "lambda_cont": 0.0,
        "lambda_im": 0.0,
    }
    lines = [f"{'':12} {'UAR %':>6}   95 % interval    WA %  macro-F1 %"]
    for name, switches in (("source only", no_adaptation), ("adapted", {})):
        output = {"output_folder": str(folder / name.replace(" ", "_"))}
        test = run(hparams_file, run_opts, settings | switches | output).get("test")
        if test:
            value = {k: 100 * test[k]["value"] for k in ("uar", "wa", "macro_f1")}
            low, high = (100 * bound for bound in test["uar"]["interval"])
            lines.append(
                f"{name:12} {value['uar']:6.1f}   {low:5.1f} to {high:5.1f}  "
                f"{value['wa']:6.1f}  {value['macro_f1']:10.1f}"
            )
    if if_main_process():
        print("\nDEMO on synthetic speech, target test set (chance: 50.0 % UAR)")
        print("\n".join(lines))
        print(f"\nFigures, predictions and results.json: {folder}")
        print(
            "Next, on real speech:\n"
            f"python {sys.argv[0]} hparams/{hparams_file.name} "
            "--source_folder IEMOCAP_full_release --target_folder MSP-IMPROV"
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
    sb.utils.distributed.ddp_init_group(run_opts)
    folders = (values["source_folder"], values["target_folder"])
    if "demo" in values and folders == (None, None):
        run_demo(hparams_file, run_opts, overrides)
    else:
        run(hparams_file, run_opts, overrides)


if __name__ == "__main__":
    try:
        main(sys.argv[1:])
    except ValueError as error:
        sys.exit(f"{type(error).__name__}: {error}")
