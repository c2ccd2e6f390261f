#!/usr/bin/env python3
"""Contrastive losses on spectrograms for speech emotion recognition.

An encoder of spectrograms is trained in one or several stages with cross-entropy, with
supervised or self-supervised contrastive losses, or with sums of them; a linear
classifier or a support vector machine on its embeddings recognises emotions. NTUA
thesis on contrastive losses for speech emotion recognition; section, equation and table
numbers refer to it. The YAML defines the stages of each setting.

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
import time
from functools import partial
from pathlib import Path

import speechbrain as sb
import torch
from speechbrain.utils.distributed import if_main_process
from torch.nn.functional import cross_entropy

from speechbrain_ser_cl.data.dataset import (
    SpeechDataset,
    crop_or_pad_to_mean,
    steps_of,
    waveform,
)
from speechbrain_ser_cl.data.experiment import prepare
from speechbrain_ser_cl.data.loaders import (
    fixed_loader,
    make_phase,
    training_loader,
    whole_loader,
)
from speechbrain_ser_cl.losses import MoCoQueue
from speechbrain_ser_cl.nnet import (
    ClassifierHead,
    EmotionClassifier,
    ProjectionHead,
    UtteranceEncoder,
)
from speechbrain_ser_cl.training import (
    SERBrain,
    check_choices,
    check_stages,
    class_weights,
    cost_of,
    fit_once,
    keep_features,
    keep_states,
    main,
    make_brain,
    read_results,
    setting_title,
    stage_folder,
    unwrap,
    write_embedding_test,
)

# Triplet selection. The last entry: hard triplets after this fraction of the epochs.
MINING = ("all", "semihard", "hard", "semihard_hard")
HARD_AFTER = 0.8
# Type of the encoder's input, by the number of dimensions of a batch.
READS = {2: "waveform", 3: "features", 4: "states"}


class StageBrain(SERBrain):
    """Trains one stage, with the losses and weights of its entry in the YAML."""

    stage = model = class_weights = losses = None

    def compute_forward(self, batch, stage):
        """Embeds all views; scores the classes if there is a classifier."""
        batch = batch.to(self.device)
        frozen = stage == sb.Stage.TRAIN and self._epoch <= self.stage["frozen_epochs"]
        if frozen:
            self.modules.encoder.eval()
        with torch.set_grad_enabled(torch.is_grad_enabled() and not frozen):
            h = self.embed(self.modules.encoder, batch.speech, batch.lengths)
        outputs = {"embeddings": h}
        if "classifier" in self.modules:
            outputs["logits"] = self.modules.classifier(h)
        if "moco" in self.modules and len(h) > len(batch.label):
            outputs["keys"] = self.keys_of_second_views(batch)
        return outputs

    def embed(self, encoder, speech, lengths):
        """Computes f(x) of every view (V N, D), not normalised: the losses do that."""
        unwrap(encoder).reads = READS[speech.dim()]
        return encoder(speech, lengths)

    def compute_objectives(self, outputs, batch, stage):
        """Computes L = L_ce + λ L_sc + β L_ssc, eq. 4.2, with the stage's weights."""
        labels = batch.label.to(self.device)
        h, weights = outputs["embeddings"], self.stage["weights"]
        views = labels.repeat(len(h) // len(labels))
        terms = {}
        if "emotion" in weights:
            terms["emotion"] = cross_entropy(
                outputs["logits"], views, weight=self.class_weights
            )
        if "contrast" in weights:
            self.losses["contrast"].mining = self.mining(stage)
            terms["contrast"] = self.losses["contrast"](h, views)
        if "self_supervised" in weights and len(h) > len(labels):
            terms["self_supervised"] = self.compare_views(outputs)
        self.log_terms({name: value.detach() for name, value in terms.items()})
        return sum(weights[name] * value for name, value in terms.items())

    def compare_views(self, outputs):
        """Computes the self-supervised loss between the two views of each utterance."""
        h = outputs["embeddings"]
        z = self.modules.projection(h) if "projection" in self.modules else h
        one, other = z.chunk(2)
        if "moco" in self.modules:
            return self.modules.moco(one, outputs["keys"])
        return self.losses["self_supervised"](one, other)

    def mining(self, stage):
        """Returns the triplet selection, section 4.4.2.1."""
        mining = self.hparams.mining
        if stage != sb.Stage.TRAIN:
            return "all"
        if mining == "semihard_hard":
            hard = self._epoch > HARD_AFTER * self.stage["epochs"]
            return "hard" if hard else "semihard"
        return mining

    @torch.no_grad()
    def keys_of_second_views(self, batch):
        """Computes MoCo's keys by an encoder that follows the trained one."""
        follower, second = self.modules.key_encoder, len(batch.label)
        views = batch.speech[second:], batch.lengths[second:]
        keys = self.embed(follower["encoder"], *views)
        return follower["projection"](keys) if "projection" in follower else keys

    def on_fit_batch_end(self, batch, outputs, loss, should_step):
        """Updates the key encoder after a step."""
        super().on_fit_batch_end(batch, outputs, loss, should_step)
        if "moco" in self.modules and should_step:
            for name, follower in self.modules.key_encoder.items():
                trained = unwrap(self.modules[name])
                self.modules.moco.update_key_encoder(trained, follower)


def make_encoder(hparams):
    """Makes the CRNN, or a pretrained encoder with pooling and head."""
    torch.manual_seed(hparams["seed"])
    if hparams["ssl_source"] is None:
        return UtteranceEncoder(hparams["crnn"](), hparams["pooling"])
    backbone = hparams["ssl"]()
    size = backbone.output_size
    pooling = hparams["ssl_pooling"](input_size=size)
    return UtteranceEncoder(backbone, pooling, hparams["ssl_head"](input_size=size))


def prepare_features(hparams, backbone, parts):
    """Computes the encoder's input once: spectrograms, or states of frozen layers.

    Returns a function that reads an utterance's input, the augmentation, and samples
    per step; first for plain utterances, then for augmented views.
    """
    utterances = [item.utterance for part in parts.values() for item in part]
    folder, dtype = Path(hparams["data_folder"]) / "features", hparams["feature_dtype"]
    chosen = hparams["augmentations"][hparams["augmentation"]]
    augment = chosen["make"]()
    if hparams["ssl_source"] is not None:
        read = keep_states(backbone, utterances, folder, dtype=dtype)
        hop = 1 if read is waveform else backbone.hop
        of_waveforms = (waveform, augment, 1)
    else:
        front_end = copy.deepcopy(backbone.features).cpu()
        name = "log-spectrogram, 25 ms / 10 ms, FFT 512, power"
        read = keep_features(front_end, utterances, folder, name, dtype)
        hop = front_end.hop

        def augment_waveform(wav, seed):
            view, pipeline = augment(wav, seed)
            return front_end(view[None])[0], pipeline

        of_waveforms = (waveform, augment_waveform, hop)
    views = of_waveforms if chosen["of"] == "waveforms" else (read, augment, hop)
    return (read, None, hop), views


def make_loaders(hparams, stage, parts, classes, whole, views):
    """Makes a stage's loaders for training, validation and an SVM's training."""
    size, seed = stage["batch_size"], hparams["seed"]
    options = hparams["loader_options"]
    read, augment, hop = views if stage["augmented"] else whole
    own = {"views": stage["views"], "augment": augment, "places": True, "seed": seed}
    data = {k: SpeechDataset(parts[k], classes, read, **own) for k in parts}
    phase = make_phase(data["train"], size, seed, hparams["batches_per_epoch"])
    longest = steps_of(hparams["max_seconds"], hop)
    collate = partial(crop_or_pad_to_mean, max_steps=longest)
    train = training_loader(data["train"], phase, options, collate)
    if stage["monitor"] == "loss":
        return train, fixed_loader(data["valid"], size, seed, options), None
    plain = [SpeechDataset(parts[k], classes, whole[0]) for k in ("valid", "train")]
    sizes = hparams["test_batch_size"], options
    return train, *(whole_loader(one, *sizes) for one in plain)


def make_stage(hparams, launch, name, folder, encoder, train):
    """Makes the Brain of a stage, which trains the encoder in place."""
    stage, classes = hparams["stages"][name], train.dataset.class_names
    size, weights = encoder.output_size, stage["weights"]
    # Equal initial parameters, independent of what ran before in this process.
    torch.manual_seed(hparams["seed"])
    modules, model, losses = {"encoder": encoder}, None, {}
    if "emotion" in weights:
        heads = [ClassifierHead(size, len(classes))]
        parts = (encoder.backbone, heads, encoder.pooling, encoder.norm)
        model = EmotionClassifier(*parts)
        # Two modules, because in frozen epochs only the second is trained.
        modules = {"encoder": model.encoder, "classifier": model.head}
    if "self_supervised" in weights and hparams["projection_size"]:
        inner, size = size, hparams["projection_size"]
        modules["projection"] = ProjectionHead(inner, output_size=size)
    rates = dict.fromkeys(modules, stage["lr"])
    rates["encoder"] *= hparams["encoder_factor"]
    for loss in (name for name in weights if name != "emotion"):
        make = hparams[f"{loss}_losses"][hparams[loss]]["make"]
        if getattr(make, "func", make) is not MoCoQueue:
            losses[loss] = make()
            continue
        followers = {k: m for k, m in modules.items() if k != "classifier"}
        modules["moco"] = make(dim=size)
        modules["key_encoder"] = torch.nn.ModuleDict(copy.deepcopy(followers))
        modules["key_encoder"].requires_grad_(False)
    brain = make_brain(
        StageBrain,
        hparams,
        launch.run_opts,
        folder,
        modules,
        classes,
        epochs=stage["epochs"],
        learning_rates=rates,
        lr_scheduler=hparams["schedule"],
        sampler=train.batch_sampler,
        patience=hparams["patience"],
        valid_metric=stage["monitor"],
    )
    brain.stage, brain.model, brain.losses = stage, model, losses
    if hparams["class_weights"]:
        weights = class_weights(train.dataset.labels, len(classes))
        brain.class_weights = weights.to(brain.device)
    return brain


def run(launch):
    """Trains and tests a setting on one fold; returns ``results.json``'s contents."""
    check_choices(launch.values, mining=MINING)
    check_stages(launch.values)
    experiment = prepare(launch.values)
    hparams, file = launch.start(experiment), launch.folder / "results.json"
    names, parts = hparams["settings"][hparams["setting"]], experiment.parts
    if not file.exists():
        encoder, start = make_encoder(hparams), time.time()
        whole, views = prepare_features(hparams, encoder.backbone, parts)
        cost = {"features": {"seconds": round(time.time() - start, 1)}}
        for number, name in enumerate(names, start=1):
            stage, classes = hparams["stages"][name], experiment.class_names
            loaders = make_loaders(hparams, stage, parts, classes, whole, views)
            train, valid, svm_speech = loaders
            fingerprint = experiment.split.fingerprint
            folder = stage_folder(launch, names[:number], fingerprint)
            brain = make_stage(hparams, launch, name, folder, encoder, train)
            brain.svm_speech = svm_speech
            fit_once(brain, folder, train, valid)
            cost[name] = cost_of(brain.history)
        if if_main_process():
            about = {
                "recipe": "contrastive losses on spectrograms",
                "setting": setting_title(launch.values),
                "order": list(hparams["settings"]).index(hparams["setting"]),
                "corpus": ", ".join(experiment.corpora),
                "encoder": "spectrogram_crnn",
                "stages": cost,
            }
            how = (brain, brain.model, about, whole[0])  # section 4.3.2.2
            write_embedding_test(launch, experiment, *how)
    sb.utils.distributed.ddp_barrier()
    return [read_results(file)] if if_main_process() else []


if __name__ == "__main__":
    main(run, __file__)
