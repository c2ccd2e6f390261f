#!/usr/bin/env python3
"""Contrastive losses on spectrograms for speech emotion recognition.

An encoder of spectrograms is trained in one stage or several, with cross-entropy, with
contrastive losses that know the labels or do not, or with sums of these; a linear
classifier or a support vector machine on its embeddings recognises emotions. NTUA
thesis on contrastive losses for speech emotion recognition; section, equation and
table numbers are its own. Which stages a setting has stands in the YAML.

To run the demo on a built-in synthetic corpus:
> python train.py hparams/contrastive.yaml

To run one fold of an experiment of the thesis, here with a loss of table 4.4:
> python train.py hparams/contrastive.yaml --fold 0 --setting contrast_svm \
      --contrast smooth_triplet --temperature 0.5 \
      --corpora "{iemocap: /path/to/IEMOCAP}"

Authors
 * The speechbrain_ser_cl contributors 2026
"""

import copy
import hashlib
import json
import os
import sys
import time
from contextlib import nullcontext
from functools import partial
from pathlib import Path

import numpy as np
import speechbrain as sb
import torch
import yaml
from filelock import FileLock
from speechbrain.utils.distributed import get_rank, if_main_process, run_on_main
from speechbrain.utils.train_logger import FileTrainLogger
from torch.nn.functional import cross_entropy, normalize, one_hot
from torch.utils.data import DataLoader

from speechbrain_ser_cl.corpora import write_synthetic
from speechbrain_ser_cl.data.conversion import convert_to_16k_mono
from speechbrain_ser_cl.data.experiment import fold_split, read_corpora, used_corpora
from speechbrain_ser_cl.data.feature_views import (
    FeatureViews,
    crop_or_pad_to_mean,
    pad_to_longest,
)
from speechbrain_ser_cl.data.features.cache import FeatureCache
from speechbrain_ser_cl.data.protocols import select_parts
from speechbrain_ser_cl.data.samplers import (
    AlternatingBatchSampler,
    Draw,
    LengthBucketedStream,
    LengthSortedBatches,
    Phase,
)
from speechbrain_ser_cl.data.splits import Labelled, describe_part
from speechbrain_ser_cl.metrics import (
    classification_metrics,
    clustering_scores,
    linear_svm,
    recall_at_1,
)
from speechbrain_ser_cl.nnet import ClassifierHead, EmotionClassifier, ProjectionHead
from speechbrain_ser_cl.report.figures import plot_tsne
from speechbrain_ser_cl.training import (
    AtomicCheckpointer,
    RoundCounter,
    SERBrain,
    encode,
    find_hparams,
    keep_states,
    plain_values,
    resolved_values,
    start_run,
    unwrap,
    waveform,
    write_run,
)

# Share of the epochs after which `mining: semihard_hard` takes hard triplets.
HARD_AFTER = 0.8

# What `monitor` of a stage may be; all are of the validation part.
MONITORS = ("uar", "loss", "recall_at_1")

# Values that a trained stage does not depend on, or that its entry in `stages` repeats.
NOT_OF_A_STAGE = {
    *("setting", "settings", "stages", "demo", "corpora", "protocol", "fold"),
    *("split_file", "output_folder", "data_folder", "stage_folder", "allow_missing"),
    *("svm_C", "tsne", "test_batch_size", "loader_options", "epochs"),
    *("contrast_epochs", "fine_tune_epochs", "frozen_epochs", "lr", "low_lr"),
    *("batch_size", "contrast_batch_size", "lambda_contrast", "beta"),
    "contrast_monitor",
}
OF_A_TERM = {
    "contrast": {"contrast", "contrast_losses", "margin", "mining", "temperature"},
    "self_supervised": {
        *("self_supervised", "self_supervised_losses", "self_temperature"),
        *("queue_size", "projection_size"),
    },
}


class FeatureEncoder(torch.nn.Module):
    """Encoder f of section 4.3: spectrograms to one vector per utterance."""

    def __init__(self, backbone, pooling, head=None):
        super().__init__()
        self.backbone = backbone
        self.pooling = pooling
        self.head = head
        self.output_size = (head or backbone).output_size

    def forward(self, features, lengths):
        """Spectrograms (B, T, 257), waveforms or states of frozen layers to (B, D)."""
        if features.dim() == 3:
            frames = self.backbone.encode(features, lengths)
            lengths = self.backbone.encoded_lengths(lengths, features.shape[1])
        else:
            frames, lengths = encode(self.backbone, features, lengths)
        h = self.pooling(frames.float(), lengths)
        return h if self.head is None else self.head(h)


class StageBrain(SERBrain):
    """One stage: the losses that its entry in the YAML weighs."""

    stage = None
    class_weights = None

    # ------------------------------------------------------------ the method

    def compute_forward(self, batch, stage):
        """Embeds all views; scores the classes where there is a classifier."""
        frozen = stage == sb.Stage.TRAIN and self._epoch <= self.stage["frozen_epochs"]
        if frozen:
            self.modules.encoder.eval()
        with torch.set_grad_enabled(torch.is_grad_enabled() and not frozen):
            h = self.embed(batch)
        outputs = {"embeddings": h}
        if "classifier" in self.modules:
            outputs["logits"] = self.modules.classifier(h)
        if "moco" in self.modules and len(h) > len(batch.label):
            outputs["keys"] = self.keys_of_second_views(batch)
        return outputs

    def embed(self, batch):
        """f(x) of every view (V N, D), not normalised: the losses do that."""
        return self.modules.encoder(
            batch.features.to(self.device), batch.lengths.to(self.device)
        )

    def compute_objectives(self, outputs, batch, stage):
        """L = L_ce + λ L_sc + β L_ssc, eq. 4.2, with what the stage weighs of it."""
        labels = batch.label.to(self.device)
        h, weights = outputs["embeddings"], self.stage["weights"]
        views = labels.repeat(len(h) // len(labels))
        terms = {}
        if "emotion" in weights:
            terms["emotion"] = cross_entropy(
                outputs["logits"], views, weight=self.class_weights
            )
        if "contrast" in weights:
            self.contrast.mining = self.mining(stage)
            terms["contrast"] = self.contrast(h, views)
        if "self_supervised" in weights and len(h) > len(labels):
            terms["self_supervised"] = self.compare_views(outputs)
        self.log_terms({name: value.detach() for name, value in terms.items()})
        return sum(weights[name] * value for name, value in terms.items())

    def compare_views(self, outputs):
        """The self-supervised loss between the two views of each utterance."""
        one, other = self.project(outputs["embeddings"]).chunk(2)
        if "moco" in self.modules:
            return self.modules.moco(one, outputs["keys"])
        return self.self_supervised(one, other)

    def project(self, h):
        """What self-supervised losses compare."""
        return self.modules.projection(h) if "projection" in self.modules else h

    def mining(self, stage):
        """Which triplets count, section 4.4.2.1."""
        mining = self.hparams.mining
        if stage != sb.Stage.TRAIN:
            return "all"
        if mining == "semihard_hard":
            hard = self._epoch > HARD_AFTER * self.stage["epochs"]
            return "hard" if hard else "semihard"
        return mining

    # ------------------------------------------------------------ MoCo

    @torch.no_grad()
    def keys_of_second_views(self, batch):
        """Keys come from an encoder that follows the trained one."""
        features, lengths = (
            whole.chunk(2)[1].to(self.device)
            for whole in (batch.features, batch.lengths)
        )
        keys = self.modules.key_encoder["encoder"](features, lengths)
        if "projection" in self.modules.key_encoder:
            keys = self.modules.key_encoder["projection"](keys)
        return keys

    def on_fit_batch_end(self, batch, outputs, loss, should_step):
        """After a step the key encoder moves on."""
        super().on_fit_batch_end(batch, outputs, loss, should_step)
        if "moco" in self.modules and should_step:
            for name, follower in self.modules.key_encoder.items():
                self.modules.moco.update_key_encoder(
                    unwrap(self.modules[name]), follower
                )

    # ------------------------------------------------------------ bookkeeping

    def validated(self, loss):
        """What the stage monitors: UAR, Recall@1 or the loss, where lower is better."""
        if self.stage["monitor"] == "uar":
            return super().validated(loss)
        if self.stage["monitor"] == "loss":
            return {"loss": loss}, -loss
        labels, x = (torch.cat(self._evaluated[k]) for k in ("label", "embeddings"))
        recall = recall_at_1(normalize(x).numpy(), labels.numpy())
        return {"loss": loss, "recall_at_1": recall}, recall

    def take_best(self):
        """Loads the epoch that validated best, and the history of all of them."""
        self.on_evaluate_start(max_key="score")


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
    return select_parts(items, split), split


def prepare_features(hparams, backbone, parts):
    """Computes once what the encoder reads: spectrograms, or states of frozen layers.

    Arguments
    ---------
    hparams : dict
        The YAML's values.
    backbone : torch.nn.Module
        The encoder.
    parts : dict
        Of ``prepare_data``.

    Returns
    -------
    callable
        ``read(utterance) -> (T, ...)``, from memory-mapped files.
    """
    utterances = [item.utterance for part in parts.values() for item in part]
    folder = Path(hparams["data_folder"]) / "features"
    if hparams["ssl_source"] is not None:
        return keep_states(backbone, utterances, folder, dtype=hparams["feature_dtype"])
    key = {"features": "log-spectrogram, 25 ms / 10 ms, FFT 512, power"}
    cache = FeatureCache(folder, key, hparams["feature_dtype"])
    spectrogram = copy.deepcopy(backbone.features).cpu()
    cache.fill(utterances, lambda wav: spectrogram(wav[None])[0])
    return lambda utterance: cache[utterance.id]


def build_encoder(hparams):
    """The CRNN, or a pretrained encoder with pooling and head on top.

    Arguments
    ---------
    hparams : dict
        The YAML's values.

    Returns
    -------
    FeatureEncoder
        Initialised by the seed.
    """
    torch.manual_seed(hparams["seed"])
    if hparams["ssl_source"] is None:
        return FeatureEncoder(hparams["crnn"](), hparams["pooling"])
    backbone = hparams["ssl"]()
    size = backbone.output_size
    pooling = hparams["ssl_pooling"](input_size=size)
    return FeatureEncoder(backbone, pooling, hparams["ssl_head"](input_size=size))


def view_maker(hparams, backbone):
    """How views of an utterance are made, and of what.

    Arguments
    ---------
    hparams : dict
        The YAML's values.
    backbone : torch.nn.Module
        The encoder.

    Returns
    -------
    augment : callable
        ``augment(features, seed) -> features``.
    read : callable or None
        What it is given of an utterance; None: what the encoder reads.
    """
    if hparams["augmentation"] == "mask":
        return hparams["masking"], None
    pipelines = hparams["pipelines"]()

    def augment(wav, seed):
        view, _ = pipelines(wav, seed)
        return view if spectrogram is None else spectrogram(view[None])[0]

    spectrogram = None
    if hparams["ssl_source"] is None:
        spectrogram = copy.deepcopy(backbone.features).cpu()
    return augment, waveform


def make_loaders(hparams, stage, parts, classes, read, views, steps_per_second):
    """Loaders of a stage, for training and validation.

    Arguments
    ---------
    hparams : dict
        The YAML's values.
    stage : dict
        Its entry in ``stages``.
    parts : dict
        Of ``prepare_data``.
    classes : list of str
        Names of the classes.
    read : callable
        Of ``prepare_features``.
    views : tuple
        Of ``view_maker``.
    steps_per_second : float
        Of what the encoder reads.

    Returns
    -------
    train, valid : DataLoader
        Of FeatureBatch.
    """
    rank, world_size = get_rank() or 0, int(os.environ.get("WORLD_SIZE", 1))
    augment, read_views = views if stage["augmented"] else (None, None)
    options = {"views": stage["views"], "augment": augment, "seed": hparams["seed"]}
    datasets = {
        name: FeatureViews(parts[name], classes, read_views or read, **options)
        for name in ("train", "valid")
    }
    train = datasets["train"]
    batch_size = stage["batch_size"]
    # All of the same length as it were: batches are random, and as long as the mean.
    stream = LengthBucketedStream([1.0] * len(train), batch_size, hparams["seed"])
    batches = hparams["batches_per_epoch"] or -(-stream.batches_per_pass // world_size)
    phase = Phase("train", range(len(train)), stream, batches)
    sampler = AlternatingBatchSampler([phase], rank, world_size)
    longest = hparams["max_seconds"]
    if longest is not None:
        longest = round(longest * steps_per_second)
    collate = partial(crop_or_pad_to_mean, max_steps=longest)
    options = hparams["loader_options"]
    loaders = [DataLoader(train, batch_sampler=sampler, collate_fn=collate, **options)]
    if stage["monitor"] != "loss":
        whole = FeatureViews(parts["valid"], classes, read)
        return *loaders, whole_loader(hparams, whole)
    # The same views of the same batches in each epoch, so that losses can be compared.
    order = np.random.default_rng(hparams["seed"]).permutation(len(parts["valid"]))
    batches = [
        [Draw(int(i), int(i)) for i in some]
        for some in np.array_split(order, max(1, round(len(order) / batch_size)))
    ]
    loaders.append(
        DataLoader(
            datasets["valid"],
            batch_sampler=batches,
            collate_fn=pad_to_longest,
            **options,
        )
    )
    return loaders


def whole_loader(hparams, dataset):
    """A loader of whole utterances, those of similar length together."""
    sampler = LengthSortedBatches(dataset.durations, hparams["test_batch_size"])
    options = hparams["loader_options"]
    return DataLoader(
        dataset, batch_sampler=sampler, collate_fn=pad_to_longest, **options
    )


# ---------------------------------------------------------------- stages


def stage_path(hparams, values, names, fingerprint, precision):
    """Folder of a trained stage: another one for whatever it depends on.

    Arguments
    ---------
    hparams : dict
        The YAML's values.
    values : dict
        The same before any object was made.
    names : list of str
        Names of the stage and those before it.
    fingerprint : str
        Of the split.
    precision : str
        Of the training.

    Returns
    -------
    pathlib.Path
        Below ``stage_folder``.
    """
    stages = [values["stages"][name] for name in names]
    leave_out = set(NOT_OF_A_STAGE)
    for term, keys in OF_A_TERM.items():
        if not any(term in stage["weights"] for stage in stages):
            leave_out |= keys
    if not any(stage["augmented"] for stage in stages):
        leave_out |= {"augmentation", "masking", "pipelines"}
    used = {key: value for key, value in values.items() if key not in leave_out}
    text = json.dumps([stages, used, fingerprint, precision], default=str)
    digest = hashlib.sha256(text.encode()).hexdigest()[:12]
    return Path(hparams["stage_folder"]) / f"{'+'.join(names)}-{digest}"


def make_brain(hparams, run_opts, name, folder, encoder, classes, sampler):
    """The Brain of a stage.

    Arguments
    ---------
    hparams : dict
        The YAML's values.
    run_opts : RunOptions
        Of the command line.
    name : str
        The stage.
    folder : pathlib.Path
        For its checkpoints and log.
    encoder : FeatureEncoder
        Is trained in place.
    classes : list of str
        Names of the classes.
    sampler : AlternatingBatchSampler
        Of the training loader.

    Returns
    -------
    StageBrain
        Ready to fit.
    """
    stage = hparams["stages"][name]
    # The same parameters to begin with, whatever ran before in this process.
    torch.manual_seed(hparams["seed"])
    modules, lr = {"encoder": encoder}, stage["lr"]
    rates = {"encoder": lr * hparams["encoder_factor"]}
    if "emotion" in stage["weights"]:
        modules["classifier"] = ClassifierHead(encoder.output_size, len(classes))
    size = encoder.output_size
    if "self_supervised" in stage["weights"] and hparams["projection_size"]:
        size = hparams["projection_size"]
        modules["projection"] = ProjectionHead(encoder.output_size, output_size=size)
    rates |= {name: lr for name in modules if name != "encoder"}
    contrast = self_supervised = None
    if "contrast" in stage["weights"]:
        contrast = hparams["contrast_losses"][hparams["contrast"]]()
    if "self_supervised" in stage["weights"]:
        make = hparams["self_supervised_losses"][hparams["self_supervised"]]
        if hparams["self_supervised"] == "moco":
            modules["moco"] = make(dim=size)
            followers = {
                k: modules[k] for k in ("encoder", "projection") if k in modules
            }
            modules["key_encoder"] = torch.nn.ModuleDict(copy.deepcopy(followers))
            modules["key_encoder"].requires_grad_(False)
        else:
            self_supervised = make()
    run_on_main(folder.mkdir, kwargs={"parents": True, "exist_ok": True})
    brain = StageBrain(
        modules=modules,
        class_names=classes,
        sampler=sampler,
        epoch_counter=RoundCounter(stage["epochs"], 1, hparams["patience"]),
        learning_rates=rates,
        lr_scheduler=hparams["schedule"],
        valid_metric=hparams["valid_metric"],
        train_logger=FileTrainLogger(folder / "train_log.txt"),
        opt_class=hparams["opt_class"],
        hparams=hparams,
        run_opts=run_opts,
        checkpointer=AtomicCheckpointer(folder / "save", modules),
    )
    brain.stage = stage
    brain.contrast, brain.self_supervised = contrast, self_supervised
    return brain


def train_stages(hparams, run_opts, values, parts, split):
    """Trains the stages of the setting, one after the other.

    Arguments
    ---------
    hparams : dict
        The YAML's values.
    run_opts : RunOptions
        Of the command line.
    values : dict
        The YAML's values before any object was made.
    parts, split
        Of ``prepare_data``.

    Returns
    -------
    brain : StageBrain
        Of the last stage, with its best epoch.
    read : callable
        What the encoder reads of an utterance.
    cost : dict
        Epochs and seconds of each stage.
    """
    encoder = build_encoder(hparams)
    backbone = encoder.backbone
    start = time.time()
    read = prepare_features(hparams, backbone, parts)
    cost = {"features": {"seconds": round(time.time() - start, 1)}}
    views = view_maker(hparams, backbone)
    hop = 1 if read is waveform else backbone.hop
    # Views of waveforms stay waveforms for a pretrained encoder.
    reads_wavs = views[1] is not None and hparams["ssl_source"] is not None
    if hparams["ssl_source"] is None:
        hop = backbone.features.hop
    classes = sorted({item.label for part in parts.values() for item in part})
    names = hparams["settings"][hparams["setting"]]
    for number, name in enumerate(names, start=1):
        stage = hparams["stages"][name]
        steps = 16000 / (1 if stage["augmented"] and reads_wavs else hop)
        train, valid = make_loaders(hparams, stage, parts, classes, read, views, steps)
        folder = stage_path(
            hparams, values, names[:number], split.fingerprint, run_opts.precision
        )
        brain = make_brain(
            hparams, run_opts, name, folder, encoder, classes, train.batch_sampler
        )
        if hparams["class_weights"]:
            counts = torch.bincount(torch.tensor(train.dataset.labels)).float()
            weights = counts.sum() / len(counts) / counts
            brain.class_weights = weights.to(brain.device)
        # Runs beside this one may share the stage: one trains it, the others wait.
        with FileLock(folder / "lock") if if_main_process() else nullcontext():
            brain.fit(brain.epoch_counter, train, valid)
            brain.take_best()
        epochs, seconds = len(brain.history.epochs), brain.history.seconds
        cost[name] = {
            "epochs": epochs,
            "seconds": round(seconds, 1),
            "seconds_per_epoch": round(seconds / epochs, 2),
            "best_epoch": brain.history.tested["epoch"],
        }
    return brain, read, cost


# ---------------------------------------------------------------- evaluation


@torch.no_grad()
def embeddings_of(brain, dataset):
    """Embeddings (N, D) and logits of whole utterances, in the dataset's order."""
    brain.modules.eval()
    loader = whole_loader(brain.hparams.__dict__, dataset)
    rows = {"embeddings": [], "logits": []}
    for batch in loader:
        with brain.evaluation_ctx:
            outputs = brain.compute_forward(batch, sb.Stage.TEST)
        for name, value in outputs.items():
            rows[name].append(value.float().cpu())
    order = torch.tensor(loader.batch_sampler.order).argsort()
    return {name: torch.cat(value)[order] for name, value in rows.items() if value}


def evaluate(hparams, brain, parts, read):
    """Section 4.3.2.2: recognition, retrieval and clustering.

    Arguments
    ---------
    hparams : dict
        The YAML's values.
    brain : StageBrain
        After the last stage.
    parts : dict
        Of ``prepare_data``.
    read : callable
        What the encoder reads of an utterance.

    Returns
    -------
    found : dict
        For validation and test: ``svm`` and, where there is one, ``classifier`` with
        UAR, WA and macro-F1; ``recall_at_1``; ``kmeans`` with F1 and NMI.
    predictions : dict
        Of the test part, for ``write_run``: of the classifier, or else of the SVM,
        whose one-hot predictions stand for probabilities.
    """
    classes = brain.class_names
    datasets = {
        name: FeatureViews(items, classes, read) for name, items in parts.items()
    }
    outputs = {name: embeddings_of(brain, data) for name, data in datasets.items()}
    vectors = {name: out["embeddings"] for name, out in outputs.items()}
    if "classifier" not in brain.modules:  # trained with unit vectors, section 4.3.2
        vectors = {name: normalize(x) for name, x in vectors.items()}
    found = {}
    for part in ("valid", "test"):
        labels, x = np.array(datasets[part].labels), vectors[part].numpy()
        svm = linear_svm(
            vectors["train"].numpy(), datasets["train"].labels, x, hparams["svm_C"]
        )
        guesses = {"svm": svm}
        if "classifier" in brain.modules:
            guesses["classifier"] = outputs[part]["logits"].argmax(dim=1).numpy()
        found[part] = {
            name: classification_metrics(labels, guess, len(classes))
            for name, guess in guesses.items()
        }
        found[part]["recall_at_1"] = recall_at_1(x, labels)
        found[part]["kmeans"] = clustering_scores(x, labels, hparams["seed"])
    prediction = guesses.get("classifier", guesses["svm"])
    probability = one_hot(torch.tensor(prediction), len(classes)).double()
    if "classifier" in guesses:
        probability = outputs["test"]["logits"].double().softmax(dim=1)
    return found, {
        "id": [item.utterance.id for item in parts["test"]],
        "label": labels,
        "prediction": prediction,
        "probability": probability.numpy(),
        "embeddings": x,
    }


def draw(hparams, folder, parts, predictions):
    """t-SNE of the test embeddings, by emotion and by speaker."""
    items = parts["test"]
    colourings = {
        "emotion": [item.label for item in items],
        "speaker": [item.utterance.speaker or "unknown" for item in items],
    }
    path = folder / "tsne.png"
    if not hparams["tsne"] or len(items) < 4:
        return
    try:
        x = predictions["embeddings"]
        plot_tsne(x, colourings, path, setting_title(hparams), hparams["seed"])
    except ImportError as error:
        print(f"No figure: {error}", file=sys.stderr)


# ---------------------------------------------------------------- runs


def loss_titles(hparams):
    """Names of the two losses in tables, with what is swept."""
    name = hparams["contrast"]
    titles = {
        "triplet": "triplet m = {margin:g} ({mining})",
        "smooth_triplet": "smooth triplet τ = {temperature:g}",
        "ntxent": "NT-Xent τ = {temperature:g}",
        "supcon": "SupCon τ = {temperature:g}",
        "supcon_in": "SupCon-in τ = {temperature:g}",
        "siamese": "siamese m = {margin:g}",
        "npair": "N-pair",
        "soft_nearest_neighbor": "soft nearest neighbour T = {temperature:g}",
    }
    mining = hparams["mining"].replace("semihard_hard", "semihard, hard")
    values = {key: hparams[key] for key in ("margin", "temperature")}
    contrast = titles[name].format(mining=mining, **values)
    self_supervised = {
        "ntxent": f"self-supervised NT-Xent τ = {hparams['self_temperature']:g}",
        "barlow_twins": "Barlow Twins",
        "vicreg": "VICReg",
        "moco": f"MoCo τ = {hparams['self_temperature']:g}",
    }[hparams["self_supervised"]]
    return {"contrast": contrast, "self_supervised": self_supervised}


def setting_title(hparams):
    """The setting's name in tables, in the manner of table 4.6."""
    aug = {"mask": "aug", "waveform": "waveform aug"}[hparams["augmentation"]]
    weights = {key: hparams[key] for key in ("lambda_contrast", "beta")}
    stages = [hparams["stages"][n] for n in hparams["settings"][hparams["setting"]]]
    titles = [
        stage["title"].format(aug=aug, **weights, **loss_titles(hparams))
        + (", epoch by Recall@1" if stage["monitor"] == "recall_at_1" else "")
        for stage in stages
    ]
    if "emotion" not in stages[-1]["weights"]:
        titles.append("SVM")
    return " → ".join(titles)


def check_switches(values):
    """Refuses, before anything is loaded, switches that cannot mean anything.

    Arguments
    ---------
    values : dict
        The YAML's plain values.

    Raises
    ------
    ValueError
        Names the keys and what to do.
    """
    for key, allowed in (
        ("setting", tuple(values["settings"])),
        ("contrast", tuple(values["contrast_losses"])),
        ("self_supervised", tuple(values["self_supervised_losses"])),
        ("mining", ("all", "semihard", "hard", "semihard_hard")),
        ("augmentation", ("mask", "waveform")),
    ):
        if values[key] not in allowed:
            raise ValueError(
                f"{key} is {values[key]!r}, expected one of {', '.join(allowed)}."
            )
    used_corpora(values["corpora"])
    names = values["settings"][values["setting"]]
    unknown = [name for name in names if name not in values["stages"]]
    if unknown:
        raise ValueError(
            f"settings: {values['setting']} has the stage {', '.join(unknown)}, which "
            f"stages does not have; it has {', '.join(values['stages'])}."
        )
    augmented = any(values["stages"][name]["augmented"] for name in names)
    masked = augmented and values["augmentation"] == "mask"
    reads_waveforms = values["freeze"] in ("none", "frontend")
    if masked and values["ssl_source"] is not None and reads_waveforms:
        raise ValueError(
            "augmentation is mask, which is for spectrograms and for frames of frozen "
            f"layers, and freeze is {values['freeze']}, so that ssl_source reads "
            "waveforms. Set augmentation: waveform, or freeze: all."
        )
    for name in names:
        stage = values["stages"][name]
        if "self_supervised" in stage["weights"] and stage["views"] != 2:
            raise ValueError(
                f"stages: {name}: views is {stage['views']}, but a self-supervised "
                "loss compares 2."
            )
        monitor, weights = stage["monitor"], stage["weights"]
        if monitor not in MONITORS:
            raise ValueError(
                f"stages: {name}: monitor is {monitor!r}, expected one of "
                f"{', '.join(MONITORS)}."
            )
        if monitor == "uar" and "emotion" not in weights:
            raise ValueError(
                f"stages: {name}: monitor is uar, but no classifier is trained. Set "
                "monitor: loss, or recall_at_1."
            )
        if monitor == "recall_at_1" and "contrast" not in weights:
            raise ValueError(
                f"stages: {name}: monitor is recall_at_1, which needs a contrastive "
                f"loss that knows the labels; weights has {', '.join(weights)}. Set "
                "monitor: loss, or uar where a classifier is trained."
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
        What ``results.json`` says.
    """
    hparams = start_run(hparams_file, overrides, check_switches)
    folder = Path(hparams["output_folder"])
    if not (folder / "results.json").exists():
        values = resolved_values(hparams_file, overrides)
        parts, split = prepare_data(hparams)
        brain, read, cost = train_stages(hparams, run_opts, values, parts, split)
        if if_main_process():
            write_results(hparams, brain, parts, split, read, cost)
    sb.utils.distributed.ddp_barrier()
    return json.loads((folder / "results.json").read_text(encoding="utf-8"))


def write_results(hparams, brain, parts, split, read, cost):
    """Tests, and writes what the run leaves behind.

    Arguments
    ---------
    hparams : dict
        The YAML's values.
    brain : StageBrain
        Of the last stage.
    parts, split
        Of ``prepare_data``.
    read : callable
        What the encoder reads of an utterance.
    cost : dict
        Of ``train_stages``.
    """
    folder = Path(hparams["output_folder"])
    start = time.time()
    found, predictions = evaluate(hparams, brain, parts, read)
    draw(hparams, folder, parts, predictions)
    cost = cost | {"evaluation": {"seconds": round(time.time() - start, 1)}}
    by = "classifier" if "classifier" in brain.modules else "svm"
    tested = brain.history.tested
    brain.history.tested = tested | {"valid": tested["valid"] | found["valid"][by]}
    brain.history.seconds = sum(stage["seconds"] for stage in cost.values())
    encoder = unwrap(brain.modules.encoder)
    ssl_source = hparams["ssl_source"]
    model = None  # an SVM is not exported
    if by == "classifier":
        model = EmotionClassifier(
            encoder.backbone,
            [unwrap(brain.modules.classifier)],
            encoder.pooling,
            encoder.head,
        )
    write_run(
        folder,
        {
            "recipe": "contrastive losses on spectrograms",
            "setting": setting_title(hparams),
            "order": list(hparams["settings"]).index(hparams["setting"]),
            "corpus": ", ".join(split.corpora),
            "encoder": Path(ssl_source).name if ssl_source else "spectrogram_crnn",
            "classifier": by,
            "seed": hparams["seed"],
            "fold": split.fold,
            "n_folds": split.n_folds,
            "protocol": split.protocol,
            "precision": brain.precision,
            "demo": any(name.startswith("synthetic") for name in split.corpora),
            "data": {
                "parts": {name: describe_part(part) for name, part in parts.items()},
                "shared_between_parts": split.shared,
                "fingerprint": split.fingerprint,
            },
            "stages": cost,
            "probes": found,
        },
        predictions=predictions,
        parts=parts,
        class_names=brain.class_names,
        history=brain.history,
        model=model,
    )


def run_demo(hparams_file, run_opts, overrides):
    """Trains on synthetic speech, in some settings, and compares.

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
            "DEMO: no folder is given in corpora, so this runs on synthetic speech. "
            "Its numbers are not results of any paper.",
            flush=True,
        )
    values = plain_values(hparams_file)["demo"]
    folder = Path(overrides.get("output_folder", values["output_folder"]))
    corpus, options = folder / "synthetic_source", values.pop("corpus")
    run_on_main(folder.mkdir, kwargs={"parents": True, "exist_ok": True})
    run_on_main(write_synthetic, args=[corpus, "synthetic_source"], kwargs=options)
    settings = values.pop("settings")
    if "setting" in overrides:
        settings = [overrides["setting"]]
    values |= {
        "corpora": {"synthetic_source": str(corpus)},
        "data_folder": str(folder / "data"),
        "stage_folder": str(folder / "stages"),
    }
    lines = [f"{'':44} {'UAR %':>6}   95 % interval  chance %  Recall@1 %"]
    for name in settings:
        own = {"setting": name, "output_folder": str(folder / name)}
        results = run(hparams_file, run_opts, values | overrides | own)
        test, probes = results["test"], results["probes"]["test"]
        low, high = (100 * bound for bound in test["uar"]["interval"])
        lines.append(
            f"{results['setting']:44} {100 * test['uar']['value']:6.1f}   "
            f"{low:5.1f} to {high:5.1f}  {100 * test['chance']:8.1f}  "
            f"{100 * probes['recall_at_1']:10.1f}"
        )
    if if_main_process():
        print("\nDEMO on synthetic speech, test speakers not trained on")
        print("\n".join(lines))
        print(f"\nFigures, predictions, embeddings and results.json: {folder}")
        corpora = ", ".join(
            f"{n}: FOLDER" for n in plain_values(hparams_file)["corpora"]
        )
        print(
            f"Next, on real speech:\npython {sys.argv[0]} hparams/{hparams_file.name} "
            f'--corpora "{{{corpora}}}"'
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
