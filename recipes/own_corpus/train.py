#!/usr/bin/env python3
"""Fine-tuning for speech emotion recognition on a corpus of your own.

A pretrained encoder, a pooling and a linear classifier are trained with cross-entropy,
and with a supervised contrastive loss beside it if wanted. The corpus is described in
the YAML; before training it is checked, and a report says what is in it.

To run the demo on built-in synthetic speech:
> python train.py hparams/finetune.yaml

On a table with columns file, emotion and speaker:
> python train.py hparams/finetune.yaml --folder /data/my_corpus

Authors
 * The speechbrain_ser_cl contributors 2026
"""

import csv
import os
import sys
from collections import Counter
from functools import partial
from pathlib import Path

import speechbrain as sb
import torch
import yaml
from speechbrain.dataio.batch import PaddedBatch
from speechbrain.utils.distributed import get_rank, if_main_process, run_on_main
from torch.nn.functional import cross_entropy
from torch.utils.data import DataLoader

from speechbrain_ser_cl.backbones import write_untrained_encoder
from speechbrain_ser_cl.corpora import read_synthetic, write_synthetic
from speechbrain_ser_cl.data.conversion import convert_to_16k_mono
from speechbrain_ser_cl.data.experiment import fold_split, map_corpora, read_corpus
from speechbrain_ser_cl.data.protocols import select_parts
from speechbrain_ser_cl.data.quality.audio_facts import FACTS_FILE, audio_facts
from speechbrain_ser_cl.data.quality.report import data_report
from speechbrain_ser_cl.data.samplers import (
    AlternatingBatchSampler,
    LengthBucketedStream,
    LengthSortedBatches,
    Phase,
)
from speechbrain_ser_cl.data.speech import LabelledSpeech
from speechbrain_ser_cl.data.splits import Labelled
from speechbrain_ser_cl.nnet import EmotionClassifier
from speechbrain_ser_cl.report import write_report
from speechbrain_ser_cl.training import (
    SERBrain,
    find_hparams,
    plain_values,
    resolved_values,
    start_run,
    unwrap,
    write_run,
)
from speechbrain_ser_cl.utils.audio import SAMPLE_RATE, load_audio


class FineTuningBrain(SERBrain):
    """The method: encoder, pooling, classifier; cross-entropy and SupCon."""

    def compute_forward(self, batch, stage):
        """Embeds the utterances and scores the classes."""
        wavs, lengths = batch.to(self.device).speech
        frames = self.modules.backbone(wavs, lengths)
        lengths = unwrap(self.modules.backbone).frame_lengths(lengths, wavs.shape[1])
        h = self.modules.pooling(frames, lengths)
        outputs = {"logits": self.modules.emotion_head(h), "embeddings": h}
        if stage == sb.Stage.TRAIN and self.hparams.loss.active("supcon"):
            outputs["z"] = self.modules.projection(h)
        return outputs

    def compute_objectives(self, outputs, batch, stage):
        """Cross-entropy, each class by its weight, plus λ times SupCon."""
        labels = batch.label.to(self.device)
        weights = self.class_weights.to(self.device)
        emotion = cross_entropy(outputs["logits"], labels, weights)
        if stage != sb.Stage.TRAIN:
            return emotion
        terms = {"emotion": emotion}
        if self.hparams.loss.active("supcon"):
            terms["supcon"] = self.hparams.supcon_loss(outputs["z"], labels)
        total, values = self.hparams.loss(terms)
        self.log_terms(values)
        return total


def prepare_data(values):
    """Reads the corpora, splits, checks and reports; then converts to 16 kHz mono.

    Arguments
    ---------
    values : dict
        The YAML's plain values.

    Returns
    -------
    parts : dict
        ``train``, ``valid`` and ``test`` to their utterances.
    split : Split
        The fold.
    report : DataReport
        It has no errors.

    Raises
    ------
    ValueError
        For a corpus that cannot be read as the YAML says, and for data with errors.
    """
    allow_missing = values["allow_missing"]
    utterances = {
        name: read_corpus(name, entry, allow_missing)
        for name, entry in values["corpora"].items()
    }
    items, left_out = map_corpora(utterances, values["emotion_map"])
    split = fold_split(
        items, values["protocol"], values["fold"], values["seed"], values["split_file"]
    )
    parts = select_parts(items, split)
    data_folder = Path(values["data_folder"])
    listen = partial(
        audio_facts, [i.utterance for i in items], data_folder / FACTS_FILE
    )
    run_on_main(listen)  # the others read what it noted
    facts = listen()
    classes = list(values["emotion_map"])
    report = data_report(
        items, facts, classes, parts, split.shared, left_out, allow_missing
    )
    if if_main_process():
        print(f"\nDATA of {', '.join(split.corpora)}, fold {split.fold}\n")
        print(report.text(), end="\n\n", flush=True)
    report.refuse_errors()
    everything = [item for part in parts.values() for item in part]
    convert = partial(
        convert_to_16k_mono, [i.utterance for i in everything], data_folder / "16k_mono"
    )
    run_on_main(convert)  # what it converts, it converts once
    converted = {utterance.id: utterance for utterance in convert()}
    parts = {
        name: [Labelled(converted[item.utterance.id], item.label) for item in part]
        for name, part in parts.items()
    }
    return parts, split, report


def make_loaders(hparams, parts, rank, world_size):
    """Loaders for training, validation and test.

    Arguments
    ---------
    hparams : dict
        The YAML's values.
    parts : dict
        Of ``prepare_data``.
    rank : int
        This process.
    world_size : int
        Of so many.

    Returns
    -------
    train, valid, test : DataLoader
        The last two give whole utterances, up to ``max_test_seconds``.
    """
    classes = list(hparams["emotion_map"])
    options = hparams["loader_options"] | {"collate_fn": PaddedBatch}
    longest = round(hparams["max_test_seconds"] * SAMPLE_RATE)

    def whole(utterance):
        wav = load_audio(utterance.path)
        surplus = max(0, len(wav) - longest)
        return wav[surplus // 2 : len(wav) - (surplus + 1) // 2]

    max_seconds, seed = hparams["max_seconds"], hparams["seed"]
    training = LabelledSpeech(
        parts["train"],
        classes,
        lambda utterance: load_audio(utterance.path),
        max_steps=round(max_seconds * SAMPLE_RATE),
        seed=seed,
    )
    seconds = [min(d, max_seconds) for d in training.durations]
    if not hparams["bucketing"]:
        seconds = [1.0] * len(training)  # all alike: batches are random
    stream = LengthBucketedStream(seconds, hparams["batch_size"], seed)
    n_batches = hparams["batches_per_epoch"] or -(
        -stream.batches_per_pass // world_size
    )
    phase = Phase("train", range(len(training)), stream, n_batches)
    sampler = AlternatingBatchSampler([phase], rank, world_size)
    loaders = [DataLoader(training, batch_sampler=sampler, **options)]
    for name in ("valid", "test"):
        dataset = LabelledSpeech(parts[name], classes, whole)
        batches = LengthSortedBatches(dataset.durations, hparams["test_batch_size"])
        loaders.append(DataLoader(dataset, batch_sampler=batches, **options))
    return loaders


def class_weights(hparams, items):
    """Weight of each class in the cross-entropy, 1 on average over the utterances.

    Arguments
    ---------
    hparams : dict
        The YAML's values.
    items : list of Labelled
        The training utterances.

    Returns
    -------
    torch.Tensor
        (C,): N / (C n_c) with ``balance``, else ones.
    """
    classes = list(hparams["emotion_map"])
    if not hparams["balance"]:
        return torch.ones(len(classes))
    counts = Counter(item.label for item in items)
    return torch.tensor([len(items) / (len(classes) * counts[c]) for c in classes])


def run(hparams_file, run_opts, overrides, demo=False):
    """Trains and tests on one fold.

    Arguments
    ---------
    hparams_file : pathlib.Path
        The YAML.
    run_opts : RunOptions
        Of the command line.
    overrides : dict
        Values that replace those of the YAML.
    demo : bool
        Whether this is the demo, for ``results.json``.

    Returns
    -------
    dict
        What ``results.json`` says.
    """
    # The data first: an encoder may have to be downloaded.
    parts, split, report = prepare_data(resolved_values(hparams_file, overrides))
    hparams = start_run(hparams_file, overrides)
    folder = Path(hparams["output_folder"])
    if if_main_process():
        report.write(folder / "data_report.json")
    world_size = int(os.environ.get("WORLD_SIZE", 1))
    train, valid, test = make_loaders(hparams, parts, get_rank() or 0, world_size)
    brain = FineTuningBrain(
        class_names=list(hparams["emotion_map"]),
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
    brain.class_weights = class_weights(hparams, parts["train"])
    brain.fit(hparams["epoch_counter"], train, valid)
    brain.evaluate(test, max_key="score")
    if not if_main_process():
        return {}
    supcon = hparams["loss"].active("supcon")
    contrast = type(hparams["supcon_loss"]).__name__.removesuffix("Loss")
    weights = getattr(unwrap(brain.modules.backbone), "weights", None)
    results = write_run(
        folder,
        {
            "recipe": hparams["recipe"],
            "setting": f"cross-entropy + {hparams['lambda_supcon']} {contrast}"
            if supcon
            else "cross-entropy",
            "order": int(supcon),
            "corpus": ", ".join(split.corpora),
            "encoder": Path(hparams["ssl_source"]).name,
            "seed": hparams["seed"],
            "precision": brain.precision,
            "demo": demo,
            "data": {
                "parts": {name: report.parts[name] for name in parts},
                "protocol": split.protocol,
                "fold": split.fold,
                "shared_between_parts": split.shared,
                "fingerprint": split.fingerprint,
                "findings": {
                    finding.check: len(finding.names) for finding in report.findings
                },
            },
            "layer_weights": None if weights is None else weights.tolist(),
        },
        predictions=brain.evaluated(),
        parts=parts,
        class_names=list(hparams["emotion_map"]),
        history=brain.history,
        model=EmotionClassifier(
            hparams["backbone"], [hparams["emotion_head"]], hparams["pooling"]
        ),
    )
    write_report([folder], folder / "report.html")
    tell(results, folder)
    return results


def write_demo_corpus(folder):
    """A corpus as somebody might have it: audio files and a table.

    Arguments
    ---------
    folder : pathlib.Path
        Where to.
    """
    write_synthetic(folder, "synthetic_source")
    rows = [["file", "emotion", "speaker"]]
    rows += [
        [u.path.relative_to(folder), u.emotion, u.speaker]
        for u in read_synthetic(folder)
    ]
    with open(folder / "labels.csv", "w", encoding="utf-8", newline="") as file:
        csv.writer(file).writerows(rows)


def run_demo(hparams_file, run_opts, overrides):
    """Trains on synthetic speech that a table describes, as a corpus of one's own.

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
            "DEMO: no folder of a corpus is given, so this runs on synthetic speech "
            "with a small untrained encoder. Its numbers say nothing about people.",
            flush=True,
        )
    settings = plain_values(hparams_file)["demo"]
    output = Path(overrides.get("output_folder", settings["output_folder"]))
    encoder, corpus = output / "untrained_encoder", output / "corpus"
    run_on_main(write_untrained_encoder, args=[settings.pop("encoder"), encoder])
    run_on_main(write_demo_corpus, args=[corpus])
    settings |= {
        "ssl_source": str(encoder),
        "folder": str(corpus),
        "data_folder": str(output / "data"),
        "output_folder": str(output / "run"),
    }
    run(hparams_file, run_opts, settings | overrides, demo=True)


def tell(results, folder):
    """Prints what came out, and what to do next.

    Arguments
    ---------
    results : dict
        Of ``run``.
    folder : pathlib.Path
        Its output folder.
    """
    test = results["test"]
    low, high = test["uar"]["interval"] or (float("nan"), float("nan"))
    print(
        f"\n{'DEMO, ' * results['demo']}{results['setting']}, test set of "
        f"{test['utterances']} utterances, epoch {results['tested_epoch']} of "
        f"{results['epochs']}\n"
        f"UAR {100 * test['uar']['value']:.1f} % (95 % interval {100 * low:.1f} to "
        f"{100 * high:.1f}, chance {100 * test['chance']:.1f}), "
        f"WA {100 * test['wa']['value']:.1f} %, "
        f"macro-F1 {100 * test['macro_f1']['value']:.1f} %\n"
        f"Report: {folder / 'report.html'}\n"
        f"Model, predictions, figures, data_report.json and results.json: {folder}"
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
    values = resolved_values(hparams_file, overrides)
    sb.utils.distributed.ddp_init_group(run_opts)
    is_demo = (
        "demo" in values
        and values.get("folder") is None
        and all(
            isinstance(entry, dict)
            and (entry.get("reader"), entry.get("folder")) == ("table", None)
            for entry in values["corpora"].values()
        )
    )
    (run_demo if is_demo else run)(hparams_file, run_opts, overrides)


if __name__ == "__main__":
    try:
        main(sys.argv[1:])
    except ValueError as error:
        sys.exit(f"{type(error).__name__}: {error}")
