#!/usr/bin/env python3
"""Learning what listeners heard: votes, or a rated dimension, on CREMA-D.

With ``votes.yaml`` a classifier on an encoder learns the emotion that actors intended,
the majority of the listeners, or the distribution of their votes, the last also with
soft SupCon; whatever it learned, it is tested against the votes. With ``level.yaml`` it
learns how strong listeners found the emotion, by MSE or concordance (CCC), the last
also with Rank-N-Contrast.

To run the demo on built-in synthetic speech:
> python train.py hparams/votes.yaml
> python train.py hparams/level.yaml

On CREMA-D:
> python train.py hparams/votes.yaml --crema_folder /data/CREMA-D --setting distribution

Authors
 * The speechbrain_ser_cl contributors 2026
"""

import speechbrain as sb
import torch
from speechbrain.utils.distributed import if_main_process

from speechbrain_ser_cl.data.dataset import SpeechDataset, steps_of, waveform
from speechbrain_ser_cl.data.experiment import prepare
from speechbrain_ser_cl.data.loaders import make_phase, training_loader, whole_loader
from speechbrain_ser_cl.data.targets import (
    dimension_table,
    resolve_target,
    target_table,
)
from speechbrain_ser_cl.metrics import dimension_metrics, vote_summary
from speechbrain_ser_cl.nnet import EmotionClassifier
from speechbrain_ser_cl.training import (
    SERBrain,
    check_choices,
    keep_frames,
    main,
    make_brain,
    title_of,
    unwrap,
    write_dimensions,
    write_test,
)


class VotesBrain(SERBrain):
    """The method: cross-entropy against the targets, and soft SupCon.

    ``targets`` has a table (N, C) for each stage, by the rows of its data set; NaN:
    nothing is learned from the utterance.
    """

    targets, contrast = None, False

    def compute_forward(self, batch, stage):
        """Scores the classes; the contrast is that of the head's hidden layer."""
        batch = batch.to(self.device)
        logits, h = self.modules.model(batch.speech, batch.lengths, embeddings=True)
        outputs = {"logits": logits, "embeddings": h}
        if stage == sb.Stage.TRAIN and self.contrast:
            (head,) = unwrap(self.modules.model).head.heads
            outputs["z"] = self.modules.projection(head.layers[:-1](h))
        return outputs

    def compute_objectives(self, outputs, batch, stage):
        """The loss of the target, plus λ times the contrast."""
        targets = self.targets[stage][batch.row].to(self.device)
        loss = self.hparams.target_loss(outputs["logits"], targets)
        if stage != sb.Stage.TRAIN:
            return loss
        terms = {"target": loss}
        if self.contrast:
            contrast = self.hparams.contrast_loss(outputs["z"], targets)
            terms["contrast"] = self.hparams.lambda_contrast * contrast
        self.log_terms({name: term.detach() for name, term in terms.items()})
        return sum(terms.values())

    def score_epoch(self, loss):
        """UAR and others against the class that most heard; the loss counts."""
        valid, _ = super().score_epoch(loss)
        return valid, -loss


class LevelBrain(VotesBrain):
    """Learns standardised dimensions; ``mean`` and ``scale`` (K,) lead back."""

    def predicted(self):
        """Ids, and predictions (N, K) on the corpus' scale, of the last test."""
        z = torch.cat(self._collected["logits"])
        return self._collected["id"], (z * self.scale + self.mean).numpy()

    def score_epoch(self, loss):
        """CCC, Pearson's correlation and error; the mean CCC counts."""
        ids, x = self.predicted()
        y = torch.stack([self.known[name] for name in ids]).numpy()
        valid = {k: float(v.mean()) for k, v in dimension_metrics(y, x).items()}
        return valid | {"loss": loss}, valid["ccc"]


def make_loaders(hparams, parts, classes, read):
    """Loaders for training, validation and test, whole utterances in the latter two."""
    hop = 1 if read is waveform else hparams["backbone"].hop
    longest = steps_of(hparams["max_seconds"], hop)
    how = {"max_steps": longest, "seed": hparams["seed"]}
    data = {k: SpeechDataset(part, classes, read, **how) for k, part in parts.items()}
    options, size = hparams["loader_options"], hparams["batch_size"]
    phase = make_phase(
        data["train"], size, hparams["seed"], hparams["batches_per_epoch"]
    )
    return (
        training_loader(data["train"], phase, options),
        *(whole_loader(data[name], size, options) for name in ("valid", "test")),
    )


def run(launch):
    """Trains and tests a setting on one fold; returns what ``results.json`` says."""
    values = launch.values
    check_choices(values, setting=values["settings"])
    names = values.get("dimensions")
    experiment = prepare(values)
    hparams = launch.start()
    parts, classes = experiment.parts, experiment.class_names
    setting = hparams["settings"][hparams["setting"]]
    stages = dict(zip(sb.Stage, ("train", "valid", "test"), strict=True))
    if names:
        tables = {k: torch.tensor(dimension_table(parts[k], names)) for k in parts}
        if any(table.isnan().any() for table in tables.values()):
            raise ValueError(f"dimensions: some utterances lack {' or '.join(names)}")
        mean, scale = tables["train"].mean(dim=0), tables["train"].std(dim=0)
        targets = {s: ((tables[k] - mean) / scale).float() for s, k in stages.items()}
    else:
        target = resolve_target(setting["learns"])
        targets = {
            stage: torch.tensor(
                target_table(
                    [item.utterance for item in parts[part]],
                    hparams["emotion_map"],
                    target,
                )
            ).float()
            for stage, part in stages.items()
        }
    backbone, read = hparams["backbone"], waveform
    model = EmotionClassifier(backbone, [hparams["head"]], hparams["pooling"])
    brain = make_brain(
        LevelBrain if names else VotesBrain,
        hparams | {"target_loss": setting["loss"]},
        launch.run_opts,
        launch.folder,
        {"model": model, "projection": hparams["projection"]},
        classes,
        epochs=hparams["n_epochs"],
        patience=hparams["patience"],
        learning_rates=hparams["learning_rates"],
        lr_scheduler=hparams["lr_scheduler"],
    )
    if hparams["freeze"] == "all":  # then the encoder has to run but once
        backbone.requires_grad_(False)
        utterances = [item.utterance for part in parts.values() for item in part]
        how = {"precision": brain.eval_precision, "context": brain.evaluation_ctx}
        folder = f"{hparams['data_folder']}/frames"
        read, model.encoder.reads = (
            keep_frames(backbone, utterances, folder, **how),
            "frames",
        )
    train, valid, test = make_loaders(hparams, parts, classes, read)
    brain.train_sampler, brain.targets = train.batch_sampler, targets
    brain.contrast = setting.get("contrast", False)
    if names:
        brain.mean, brain.scale = mean, scale
        brain.known = {
            item.utterance.id: row
            for name, part in parts.items()
            for item, row in zip(part, tables[name], strict=True)
        }
    brain.fit(brain.epoch_counter, train, valid)
    brain.evaluate(test, max_key="score")
    if not if_main_process():
        return []
    order = list(hparams["settings"]).index(hparams["setting"])
    about = {
        "recipe": hparams["recipe"],
        "setting": title_of(setting, hparams),
        "order": order,
        "corpus": ", ".join(experiment.corpora),
    }
    if names:
        ids, x = brain.predicted()
        return [write_dimensions(launch, experiment, brain, about, names, ids, x)]
    seen = brain.collected_outputs()
    heard = {item.utterance.id: item.utterance for item in parts["test"]}
    tested = [heard[name] for name in seen["id"]]
    votes = target_table(tested, hparams["emotion_map"], resolve_target("distribution"))
    speakers = [utterance.speaker for utterance in tested]
    about["votes"] = vote_summary(votes, seen["probability"], speakers)
    return [write_test(launch, experiment, brain, model, about)]


def tell(results):
    """Prints what agrees with the listeners, with 95 % intervals over speakers."""
    for one in results:
        of_votes = one.get("votes")
        measures = of_votes or one["test"]
        names = ("majority", "kl", "js", "cosine") if of_votes else ("ccc", "rmse")
        found = {name: measures[name] for name in names}
        if of_votes:
            found["uar"] = one["test"]["uar"]
        told = []
        for name, measure in found.items():
            low, high = measure.get("interval_speakers") or measure["interval"]
            told.append(f"{name} {measure['value']:.3f} ({low:.3f} to {high:.3f})")
        print(f"{one['setting']}: {', '.join(told)}")


if __name__ == "__main__":
    main(run, __file__, tell=tell)
