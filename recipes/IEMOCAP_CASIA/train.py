#!/usr/bin/env python3
"""Two-stage supervised contrastive fine-tuning for speech emotion recognition.

Stage 1 fine-tunes a pretrained speech encoder on several corpora at once: utterances of
one emotion are drawn together, whatever their corpus, and away from those of other
emotions. Stage 2 freezes it and trains a classifier for each corpus. Xiang, "A
cross-corpus speech emotion recognition method based on supervised contrastive
learning", 2024; equation and section numbers are of that paper.

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
import json
import os
import shutil
import sys
import time
from pathlib import Path

import speechbrain as sb
import torch
import yaml
from speechbrain.dataio.batch import PaddedBatch
from speechbrain.utils.distributed import get_rank, if_main_process, run_on_main
from speechbrain.utils.train_logger import FileTrainLogger
from torch.nn.functional import cross_entropy
from torch.utils.data import DataLoader

from speechbrain_ser_cl.backbones import write_untrained_encoder
from speechbrain_ser_cl.corpora import write_synthetic
from speechbrain_ser_cl.data.conversion import convert_to_16k_mono
from speechbrain_ser_cl.data.emotion_batches import EmotionBatchSampler
from speechbrain_ser_cl.data.experiment import fold_split, read_corpora, used_corpora
from speechbrain_ser_cl.data.protocols import select_parts
from speechbrain_ser_cl.data.samplers import (
    AlternatingBatchSampler,
    LengthBucketedStream,
    LengthSortedBatches,
    Phase,
)
from speechbrain_ser_cl.data.speech import LabelledSpeech
from speechbrain_ser_cl.data.splits import Labelled, describe_part
from speechbrain_ser_cl.metrics import pair_similarities, write_similarities
from speechbrain_ser_cl.nnet import DomainNorm, EmotionClassifier
from speechbrain_ser_cl.report.figures import plot_similarities
from speechbrain_ser_cl.training import (
    AtomicCheckpointer,
    RoundCounter,
    SERBrain,
    encode,
    find_hparams,
    keep_frames,
    keep_states,
    plain_values,
    start_run,
    unwrap,
    waveform,
    write_run,
)

# Name in tables, and place there.
SETTINGS = {
    "probe": ("frozen encoder", 0),
    "fine_tuning": ("direct fine-tuning", 1),
    "two_stage": ("two-stage", 2),
}

# Most utterances of a corpus that its statistics are taken from.
MOST_CALIBRATION = 256


class EmbeddingBrain(SERBrain):
    """The model of figure 1 without its classifier: encoder and attention pooling."""

    def embed(self, batch):
        """One vector per utterance, C of eq. 1."""
        speech, lengths = batch.to(self.device).speech
        if "backbone" in self.modules:
            speech, lengths = encode(self.modules.backbone, speech, lengths)
        # Else the encoder is frozen, and what is read of utterances is its output.
        return self.modules.pooling(speech.float(), lengths)


class ContrastiveBrain(EmbeddingBrain):
    """Stage 1: sections 2.2 and 2.3, on batches as in figures 2 and 3."""

    corpora = ()

    def compute_forward(self, batch, stage):
        """Embeds the positives, which are the first half of a batch, and negatives."""
        x = self.embed(batch)
        if "norm" in self.modules:  # not the paper's
            of_corpus = [self.corpora.index(name) for name in batch.corpus]
            x = self.modules.norm(x, torch.tensor(of_corpus, device=self.device))
        return {"embeddings": x}

    def compute_objectives(self, outputs, batch, stage):
        """Contrast loss + cosine margin loss, eq. 5."""
        x = outputs["embeddings"]
        positives, negatives = x.chunk(2)
        is_positive = torch.arange(len(x), device=x.device) < len(positives)
        terms = {
            # Section 2.2: each positive against all negatives, anchors are positives.
            "contrast": self.hparams.contrast_loss(
                x, is_positive.long(), anchors=is_positive
            ),
            # Section 2.3: one half of the positives with the other half.
            "margin": self.hparams.margin_loss(positives, negatives),
        }
        total, values = self.hparams.loss(terms)
        self.log_terms(values)
        return total

    def validated(self, loss):
        """The loss is all there is, and lower is better."""
        return {"loss": loss}, -loss


class ClassifierBrain(EmbeddingBrain):
    """Stage 2, on frames of the frozen encoder; the baseline FT, on speech."""

    class_weights = None

    def compute_forward(self, batch, stage):
        """Two linear layers and a ReLU, section 3.1."""
        x = self.embed(batch)
        return {"logits": self.modules.classifier(x), "embeddings": x}

    def compute_objectives(self, outputs, batch, stage):
        """Cross-entropy."""
        labels = batch.label.to(self.device)
        loss = cross_entropy(outputs["logits"], labels, weight=self.class_weights)
        self.log_terms({"emotion": loss.detach()})
        return loss


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
    split : Split
        The fold.
    """
    items = read_corpora(
        hparams["corpora"], hparams["emotion_map"], hparams["allow_missing"]
    )
    split = fold_split(
        items,
        hparams["protocol"],
        hparams["fold"],
        hparams["seed"],
        hparams["split_file"],
    )
    utterances = [item.utterance for item in items]
    folder = Path(hparams["data_folder"]) / "converted"
    run_on_main(convert_to_16k_mono, args=[utterances, folder])  # once
    converted = convert_to_16k_mono(utterances, folder)
    items = [
        Labelled(utterance, item.label)
        for utterance, item in zip(converted, items, strict=True)
    ]
    parts = select_parts(items, split)
    if hparams["train_on_valid"]:
        parts["train"] = [*parts["train"], *parts["valid"]]
    return parts, split


def of_corpus(items, corpus):
    """Those utterances that are of a corpus."""
    return [item for item in items if item.utterance.corpus == corpus]


def class_names(items):
    """Names of the classes that utterances have, sorted."""
    return sorted({item.label for item in items})


def longest_part(hparams, read):
    """Most steps that training takes of an utterance, as ``read`` gives them."""
    if hparams["max_seconds"] is None:
        return None
    hop = 1 if read is waveform else hparams["backbone"].hop
    return round(hparams["max_seconds"] * 16000 / hop)


def contrast_loaders(hparams, parts, read):
    """Loaders of batches around one emotion, for training and validation."""
    rank, world_size = get_rank() or 0, int(os.environ.get("WORLD_SIZE", 1))
    loaders = []
    for part, replacement in (("train", hparams["replacement"]), ("valid", True)):
        items = parts[part]
        classes = class_names(items)
        batches = -(-len(items) // hparams["batch_size"])
        if part == "train":
            batches = hparams["contrast_batches"] or -(-batches // world_size)
        dataset = LabelledSpeech(
            items, classes, read, longest_part(hparams, read), hparams["seed"]
        )
        sampler = EmotionBatchSampler(
            [item.label for item in items],
            [item.utterance.corpus for item in items],
            hparams["batch_size"],
            batches,
            hparams["seed"],
            replacement,
            # All ranks look at the same validation batches.
            rank=rank if part == "train" else 0,
            world_size=world_size if part == "train" else 1,
        )
        loaders.append(loader(hparams, dataset, sampler))
    return loaders


def classifier_loaders(hparams, parts, corpus, classes, read):
    """Loaders of one corpus, for training, validation and test."""
    rank, world_size = get_rank() or 0, int(os.environ.get("WORLD_SIZE", 1))
    loaders = {}
    for part, items in parts.items():
        dataset = LabelledSpeech(
            of_corpus(items, corpus),
            classes,
            read,
            longest_part(hparams, read),
            hparams["seed"],
        )
        if part == "train":
            seconds = dataset.durations
            if not hparams["bucketing"]:
                seconds = [1.0] * len(dataset)  # all alike: batches are random
            stream = LengthBucketedStream(
                seconds, hparams["batch_size"], hparams["seed"]
            )
            batches = -(-stream.batches_per_pass // world_size)
            if hparams["setting"] != "fine_tuning":
                batches = hparams["classifier_batches"] or batches
            phase = Phase(corpus, range(len(dataset)), stream, batches)
            sampler = AlternatingBatchSampler([phase], rank, world_size)
        else:
            sampler = LengthSortedBatches(dataset.durations, hparams["test_batch_size"])
        loaders[part] = loader(hparams, dataset, sampler)
    return loaders


def loader(hparams, dataset, sampler):
    """A DataLoader with the YAML's options."""
    options = hparams["loader_options"] | {"collate_fn": PaddedBatch}
    return DataLoader(dataset, batch_sampler=sampler, **options)


# ---------------------------------------------------------------- stages


def make_brain(brain_class, hparams, run_opts, folder, modules, epochs, **options):
    """A Brain with its folder, checkpoints and log.

    Arguments
    ---------
    brain_class : type
        ContrastiveBrain or ClassifierBrain.
    hparams : dict
        The YAML's values.
    run_opts : RunOptions
        Of the command line.
    folder : str
        Below the output folder, for its checkpoints and log.
    modules : dict
        What is trained or used.
    epochs : int
        How long it is trained.
    **options
        Further arguments of the Brain.

    Returns
    -------
    EmbeddingBrain
        Ready to fit.
    """
    folder = Path(hparams["output_folder"]) / folder
    run_on_main(folder.mkdir, kwargs={"exist_ok": True})
    return brain_class(
        modules=modules,
        epoch_counter=RoundCounter(epochs, phases=1),
        valid_metric=hparams["valid_metric"],
        train_logger=FileTrainLogger(folder / "train_log.txt"),
        opt_class=hparams["opt_class"],
        hparams=hparams,
        run_opts=run_opts,
        checkpointer=AtomicCheckpointer(folder / "save", modules),
        **options,
    )


def prepare_encoder(hparams, run_opts, parts):
    """Stage 1, where the setting has it; and what later stages read of utterances.

    Arguments
    ---------
    hparams : dict
        The YAML's values; the encoder and the pooling are trained in place.
    run_opts : RunOptions
        Of the command line.
    parts : dict
        Training, validation and test utterances.

    Returns
    -------
    read : callable
        What a classifier, or direct fine-tuning, gets of an utterance.
    cost : dict
        Seconds and epochs of what the corpora have in common, for ``results.json``.
    """
    items = {item.utterance.id: item for part in parts.values() for item in part}
    corpora = sorted({item.utterance.corpus for item in items.values()})
    utterances = [item.utterance for item in items.values()]
    backbone = hparams["backbone"]
    modules = {"backbone": backbone, "pooling": hparams["pooling"]}
    if hparams["corpus_norm"]:
        modules["norm"] = DomainNorm(
            backbone.output_size, len(corpora), batch_statistics=False
        )
    brain = make_brain(
        ContrastiveBrain,
        hparams,
        run_opts,
        "encoder",
        modules,
        hparams["contrast_epochs"],
        learning_rates=hparams["contrast_learning_rates"],
        lr_scheduler=hparams["contrast_schedule"],
        class_names=class_names(items.values()),
        sampler=None,
    )
    brain.corpora = corpora
    features = {
        "precision": brain.eval_precision,
        "context": brain.evaluation_ctx,
        "dtype": hparams["feature_dtype"],
    }
    start = time.time()
    read = keep_states(backbone, utterances, hparams["state_folder"], **features)
    cost = {"frozen_layers": {"seconds": round(time.time() - start, 1)}}
    if hparams["setting"] == "fine_tuning":
        return read, cost
    if hparams["setting"] == "two_stage":
        contrast(hparams, brain, parts, read)
        cost["contrast"] = cost_of(brain)
    start = time.time()
    folder = hparams["feature_folder"]
    read = keep_frames(backbone, utterances, folder, read, **features)
    cost["frames"] = {"seconds": round(time.time() - start, 1)}
    return read, cost


def contrast(hparams, brain, parts, read):
    """Stage 1, and figure 4 with the encoder before and after it.

    Arguments
    ---------
    hparams : dict
        The YAML's values.
    brain : ContrastiveBrain
        With the pretrained encoder.
    parts : dict
        Training, validation and test utterances.
    read : callable
        What the encoder gets of an utterance.
    """
    train, valid = contrast_loaders(hparams, parts, read)
    brain.train_sampler = train.batch_sampler
    if hparams["corpus_norm"]:
        calibrate(brain, train.dataset)
    figure = Path(hparams["output_folder"]) / "encoder" / "similarity"
    draw = hparams["similarity_utterances"] and if_main_process()
    draw = draw and not figure.with_suffix(".csv").exists()
    if draw:
        before = similarities(hparams, brain, parts["test"])
    brain.fit(brain.epoch_counter, train, valid)
    if draw:
        after = similarities(hparams, brain, parts["test"])
        found = {"pretrained": before, "after stage 1": after}
        try:
            plot_similarities(found, figure.with_suffix(".png"))
        except ImportError as error:
            print(f"No figure: {error}", file=sys.stderr)
        write_similarities(figure.with_suffix(".csv"), found)


@torch.no_grad()
def calibrate(brain, dataset):
    """Statistics of each corpus, of what the pretrained encoder gives."""
    brain.modules.eval()
    for number, corpus in enumerate(brain.corpora):
        rows = [i for i, c in enumerate(dataset.corpora) if c == corpus]
        rows = rows[:: -(-len(rows) // MOST_CALIBRATION)]
        with brain.evaluation_ctx:
            x = [brain.embed(PaddedBatch([dataset[i]])) for i in rows]
        brain.modules.norm.calibrate(torch.cat(x), number)


@torch.no_grad()
def similarities(hparams, brain, items):
    """Similarity of pairs of utterances in each layer, figure 4."""
    items = items[:: -(-len(items) // hparams["similarity_utterances"])]
    brain.modules.eval()
    backbone = unwrap(brain.modules.backbone)
    layers = []
    for item in items:
        wav = waveform(item.utterance)[None].to(brain.device)
        with brain.evaluation_ctx:
            states = [h.float().mean(dim=1) for h in backbone.hidden_states(wav)]
        layers.append(torch.cat(states).cpu())
    return pair_similarities(torch.stack(layers, 1), [item.label for item in items])


def classify(hparams, run_opts, parts, corpus, read):
    """Stage 2 on one corpus, or the baseline FT; then the test.

    Arguments
    ---------
    hparams : dict
        The YAML's values, with the encoder and pooling to start from.
    run_opts : RunOptions
        Of the command line.
    parts : dict
        Training, validation and test utterances.
    corpus : str
        Which one.
    read : callable
        What is read of an utterance.

    Returns
    -------
    ClassifierBrain
        After the test.
    """
    classes = class_names(of_corpus(parts["train"], corpus))
    loaders = classifier_loaders(hparams, parts, corpus, classes, read)
    # The same parameters to begin with, whatever ran before in this process.
    torch.manual_seed(hparams["seed"])
    head = hparams["classifier"](n_classes=len(classes))
    modules = {"pooling": copy.deepcopy(hparams["pooling"]), "classifier": head}
    epochs, rates = hparams["classifier_epochs"], hparams["classifier_learning_rates"]
    schedule = hparams["classifier_schedule"]
    if hparams["setting"] == "fine_tuning":
        modules["backbone"] = copy.deepcopy(hparams["backbone"])
        epochs, rates = hparams["tuning_epochs"], hparams["tuning_learning_rates"]
        schedule = hparams["tuning_schedule"]
    brain = make_brain(
        ClassifierBrain,
        hparams,
        run_opts,
        corpus,
        modules,
        epochs,
        learning_rates=rates,
        lr_scheduler=schedule,
        class_names=classes,
        sampler=loaders["train"].batch_sampler,
    )
    if hparams["class_weights"]:
        counts = torch.bincount(torch.tensor(loaders["train"].dataset.labels)).float()
        weights = counts.sum() / len(counts) / counts
        brain.class_weights = weights.to(brain.device)
    brain.fit(brain.epoch_counter, loaders["train"], loaders["valid"])
    best = hparams["test_checkpoint"] == "best"
    brain.evaluate(loaders["test"], max_key="score" if best else None)
    return brain


def cost_of(brain):
    """Epochs, seconds, and seconds of an epoch."""
    epochs = len(brain.history.epochs)
    return {
        "epochs": epochs,
        "seconds": round(brain.history.seconds, 1),
        "seconds_per_epoch": round(brain.history.seconds / epochs, 2),
    }


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
    for key, allowed in (
        ("setting", tuple(SETTINGS)),
        ("test_checkpoint", ("best", "last")),
    ):
        if hparams[key] not in allowed:
            raise ValueError(
                f"{key} is {hparams[key]!r}, expected one of {', '.join(allowed)}."
            )
    used_corpora(hparams["corpora"])
    if hparams["train_on_valid"] and hparams["test_checkpoint"] == "best":
        raise ValueError(
            "train_on_valid is True, so that the validation part is trained on and "
            "cannot tell which checkpoint is best. Set test_checkpoint: last, or "
            "train_on_valid: False."
        )


def run(hparams_file, run_opts, overrides):
    """Trains and tests one setting on one fold.

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
        For each corpus what its ``results.json`` says.
    """
    hparams = start_run(hparams_file, overrides, check_switches)
    corpora = list(used_corpora(hparams["corpora"]))
    folder = Path(hparams["output_folder"])
    files = {corpus: folder / corpus / "results.json" for corpus in corpora}
    if not all(file.exists() for file in files.values()):
        parts, split = prepare_data(hparams)
        read, cost = prepare_encoder(hparams, run_opts, parts)
        for corpus in corpora:
            if files[corpus].exists():  # of a run that was killed after it
                continue
            brain = classify(hparams, run_opts, parts, corpus, read)
            if if_main_process():
                write_results(hparams, brain, parts, split, corpus, cost)
        if not hparams["keep_features"] and if_main_process():
            shutil.rmtree(hparams["feature_folder"], ignore_errors=True)
    sb.utils.distributed.ddp_barrier()
    return {
        corpus: json.loads(file.read_text(encoding="utf-8"))
        for corpus, file in files.items()
    }


def write_results(hparams, brain, parts, split, corpus, cost):
    """Writes what a corpus' training and test leave behind.

    Arguments
    ---------
    hparams : dict
        The YAML's values.
    brain : ClassifierBrain
        After the test.
    parts : dict
        Training, validation and test utterances.
    split : Split
        The fold.
    corpus : str
        Which one.
    cost : dict
        Of what the corpora have in common.
    """
    corpora = sorted(used_corpora(hparams["corpora"]))
    setting, order = SETTINGS[hparams["setting"]]
    own = {name: of_corpus(part, corpus) for name, part in parts.items()}
    stages = cost | {"classifier": cost_of(brain)}
    # Each corpus has its share of what they have in common.
    in_common = sum(stage["seconds"] for stage in cost.values())
    brain.history.seconds += in_common / len(corpora)
    if hparams["train_on_valid"]:
        del own["valid"]  # part of train
    write_run(
        Path(hparams["output_folder"]) / corpus,
        {
            "recipe": "two-stage supervised contrastive fine-tuning",
            "setting": setting,
            "order": order,
            "source": " + ".join(corpora if order == 2 else [corpus]),
            "target": corpus,
            "encoder": Path(hparams["ssl_source"]).name,
            "layers": unwrap(hparams["backbone"]).layers,
            "seed": hparams["seed"],
            "fold": split.fold,
            "n_folds": split.n_folds,
            "protocol": split.protocol,
            "train_on_valid": hparams["train_on_valid"],
            "precision": brain.precision,
            "demo": corpus.startswith("synthetic"),
            "data": {
                "parts": {name: describe_part(part) for name, part in own.items()},
                "shared_between_parts": split.shared,
                "fingerprint": split.fingerprint,
            },
            "stages": stages,
        },
        predictions=brain.evaluated(),
        parts=own,
        class_names=brain.class_names,
        history=brain.history,
        model=EmotionClassifier(
            unwrap(brain.modules.backbone)
            if "backbone" in brain.modules
            else hparams["backbone"],
            [unwrap(brain.modules.classifier)],
            pooling=unwrap(brain.modules.pooling),
        ),
    )


def run_demo(hparams_file, run_opts, overrides):
    """Trains on synthetic speech, in all settings, and compares.

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
            "DEMO: no folder is given in corpora, so this runs on synthetic speech "
            "with a small untrained encoder. Its numbers are not results of any "
            "paper.",
            flush=True,
        )
    settings = plain_values(hparams_file)["demo"]
    folder = Path(overrides.get("output_folder", settings["output_folder"]))
    run_on_main(folder.mkdir, kwargs={"parents": True, "exist_ok": True})
    encoder = folder / "untrained_encoder"
    run_on_main(write_untrained_encoder, args=[settings.pop("encoder"), encoder])
    corpora = {name: str(folder / name) for name in settings["emotion_map"]}
    for name, path in corpora.items():
        run_on_main(write_synthetic, args=[path, name])
    settings |= {
        "corpora": corpora,
        "ssl_source": str(encoder),
        "data_folder": str(folder / "data"),
    }
    lines = [f"{'':20} {'corpus':18} {'UAR %':>6}   95 % interval  chance %"]
    for name, (title, _) in SETTINGS.items():
        own = {"setting": name, "output_folder": str(folder / name)}
        for corpus, results in run(
            hparams_file, run_opts, settings | overrides | own
        ).items():
            test = results["test"]
            low, high = (100 * bound for bound in test["uar"]["interval"])
            lines.append(
                f"{title:20} {corpus:18} {100 * test['uar']['value']:6.1f}   "
                f"{low:5.1f} to {high:5.1f}  {100 * test['chance']:8.1f}"
            )
    if if_main_process():
        print("\nDEMO on synthetic speech, test speakers not trained on")
        print("\n".join(lines))
        print(f"\nFigures, predictions and results.json: {folder}")
        print(
            "Next, on real speech:\n"
            f"python {sys.argv[0]} hparams/{hparams_file.name} "
            '--corpora "{iemocap: IEMOCAP_full_release, casia: CASIA}"'
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
    if "demo" in values and not any(values["corpora"].values()):
        run_demo(hparams_file, run_opts, overrides)
    else:
        run(hparams_file, run_opts, overrides)


if __name__ == "__main__":
    try:
        main(sys.argv[1:])
    except ValueError as error:
        sys.exit(f"{type(error).__name__}: {error}")
