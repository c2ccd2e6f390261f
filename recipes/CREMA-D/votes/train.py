#!/usr/bin/env python3
"""Learning what listeners heard: votes, or a rated dimension, on CREMA-D.

With ``votes.yaml`` a classifier on an encoder learns one of these: the emotion that
actors intended, the majority of the listeners, the distribution of their votes (also
with soft SupCon), or each emotion with more votes than by chance. Each is tested
against the votes. With ``level.yaml`` it learns the rated strength of the emotion, by
MSE or concordance (CCC), the latter also with Rank-N-Contrast.

To run the demo on built-in synthetic speech:
> python train.py hparams/votes.yaml
> python train.py hparams/level.yaml

On CREMA-D:
> python train.py hparams/votes.yaml --crema_folder /data/CREMA-D --setting distribution

Authors
 * The speechbrain_ser_cl contributors 2026
"""

from dataclasses import replace

import speechbrain as sb
import torch
from speechbrain.utils.distributed import if_main_process

from speechbrain_ser_cl.data.dataset import SpeechDataset, steps_of
from speechbrain_ser_cl.data.experiment import prepare
from speechbrain_ser_cl.data.loaders import make_phase, training_loader, whole_loader
from speechbrain_ser_cl.data.targets import (
    dimension_table,
    resolve_target,
    target_table,
)
from speechbrain_ser_cl.metrics import dimension_metrics
from speechbrain_ser_cl.nnet import EmotionClassifier
from speechbrain_ser_cl.training import (
    SERBrain,
    check_choices,
    keep_frozen,
    main,
    make_brain,
    title_of,
    trained_parts,
    unwrap,
    write_numbers_test,
    write_test,
)
from speechbrain_ser_cl.training.probe import LinearProbe
from speechbrain_ser_cl.training.utterance_features import load_features


class VotesBrain(SERBrain):
    """Trains with cross-entropy against the targets, and soft SupCon.

    ``targets`` has a table (N, C) for each stage, indexed by the rows of its data set;
    NaN rows have no target.
    """

    targets, contrast = None, False
    calibrated = False  # training targets may differ from the tested labels

    def compute_forward(self, batch, stage):
        """Scores the classes; the contrastive loss uses the head's hidden layer."""
        batch = batch.to(self.device)
        logits, h = self.modules.model(batch.speech, batch.lengths, embeddings=True)
        outputs = {"logits": logits, "embeddings": h}
        if stage == sb.Stage.TRAIN and self.contrast:
            (head,) = unwrap(self.modules.model).head.heads
            outputs["z"] = self.modules.projection(head.layers[:-1](h))
        return outputs

    def compute_objectives(self, outputs, batch, stage):
        """Computes the loss of the target, plus λ times the contrastive loss."""
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

    def on_their_own(self):
        """Returns the probabilities of several emotions, of the last test."""
        return torch.cat(self._collected["logits"]).sigmoid().numpy()

    def score_epoch(self, loss):
        """Computes UAR and others against the majority class; the score is the loss."""
        valid, _ = super().score_epoch(loss)
        return valid, -loss


class LevelBrain(VotesBrain):
    """Learns standardised dimensions; ``mean`` and ``scale`` (K,) invert this."""

    def predicted(self):
        """Returns ids and predictions (N, K) on the corpus' scale, of the last test."""
        z = torch.cat(self._collected["logits"])
        return self._collected["id"], (z * self.scale + self.mean).numpy()

    def score_epoch(self, loss):
        """Computes CCC, Pearson's correlation and error; the score is the mean CCC."""
        ids, x = self.predicted()
        y = torch.stack([self.known[name] for name in ids]).numpy()
        valid = {k: float(v.mean()) for k, v in dimension_metrics(y, x).items()}
        return valid | {"loss": loss}, valid["ccc"]


def make_loaders(hparams, parts, classes, read, hop):
    """Makes loaders of the parts; ``keep_frozen`` returns ``read`` and ``hop``.

    Of utterances longer than ``max_seconds`` a part is read, in training a random one.
    """
    longest, options = hparams["max_seconds"], hparams["loader_options"]
    if hop is None:  # vectors need neither cutting nor workers
        longest, options = None, {"num_workers": 0}
    how = {"max_steps": steps_of(longest, hop), "seed": hparams["seed"]}
    data = {k: SpeechDataset(part, classes, read, **how) for k, part in parts.items()}
    size = hparams["batch_size"]
    phase = make_phase(
        data["train"], size, hparams["seed"], hparams["batches_per_epoch"]
    )
    return (
        training_loader(data["train"], phase, options),
        *(whole_loader(data[name], size, options) for name in ("valid", "test")),
    )


def run(launch):
    """Trains and tests a setting on one fold; returns ``results.json``'s contents."""
    values = launch.values
    check_choices(values, setting=values["settings"])
    names = values.get("dimensions")
    experiment = prepare(values)
    parts, classes = experiment.parts, experiment.class_names
    if values["layers"] == "best":
        layers = None
        if values["freeze"] == "all":
            keys = ("ssl_source", "ssl_revision", "features_folder")
            features = load_features(*(values[key] for key in keys))
            features.fill([item.utterance for part in parts.values() for item in part])
            probed = LinearProbe("ridge").run(features, parts, classes)
            layers = list(probed.choice.layers)
        launch = replace(launch, overrides={**launch.overrides, "layers": layers})
    hparams = launch.start()
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
    model = EmotionClassifier(
        hparams["backbone"], [hparams["head"]], hparams["pooling"]
    )
    modules = {"model": model, "projection": hparams["projection"]}
    brain = make_brain(
        LevelBrain if names else VotesBrain,
        hparams | {"target_loss": setting["loss"]},
        launch.run_opts,
        launch.folder,
        modules,
        classes,
        epochs=hparams["n_epochs"],
        patience=hparams["patience"],
        learning_rates=hparams["learning_rates"],
        lr_scheduler=hparams["lr_scheduler"],
        kept=trained_parts(modules),
    )
    everyone = [item.utterance for part in parts.values() for item in part]
    kept = keep_frozen(model, everyone, hparams["features_folder"])
    train, valid, test = make_loaders(hparams, parts, classes, *kept)
    brain.train_sampler, brain.targets = train.batch_sampler, targets
    brain.contrast = setting.get("contrast", False)
    several = not names and target.kind == "all_inclusive"
    brain.calibrated = not (names or several or target.kind == "distribution")
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
    what = (launch, experiment, brain)
    if names:
        ids, x = brain.predicted()
        seen = {"id": ids, "label": [brain.known[i].numpy() for i in ids]}
        seen["prediction"] = x
        model.answer_as("dimensions", mean.tolist(), scale.tolist())
        return [write_numbers_test(*what, about, names, seen, model)]
    seen = brain.collected_outputs()
    heard = {item.utterance.id: item.utterance for item in parts["test"]}
    tested = [heard[name] for name in seen["id"]]
    emotion_map = hparams["emotion_map"]
    if several:
        seen["label"] = target_table(tested, emotion_map, target)
        seen["prediction"] = brain.on_their_own()
        model.answer_as("emotions")
        return [write_numbers_test(*what, about, classes, seen, model)]
    shares = resolve_target("distribution")
    seen["votes"] = target_table(tested, emotion_map, shares)
    return [write_test(*what, model, about, predictions=seen)]


def tell(results):
    """Prints the agreement with the listeners, with 95 % intervals over speakers."""
    for one in results:
        of_votes = one.get("votes")
        measures = of_votes or one["test"]
        names = ("majority", "kl", "js", "cosine") if of_votes else ("ccc", "rmse")
        if one.get("kind") == "emotions":
            names = ("macro_f1", "micro_f1", "sample_f1")
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
