#!/usr/bin/env python3
"""Fine-tuning for speech emotion recognition on a corpus of your own.

A pretrained encoder, a pooling and a linear classifier are trained with cross-entropy,
optionally with a supervised contrastive loss. The YAML describes the corpus, which is
checked before training; a report lists its contents.

To run the demo on built-in synthetic speech:
> python train.py hparams/finetune.yaml

On a table with columns file, emotion and speaker:
> python train.py hparams/finetune.yaml --folder /data/my_corpus

Authors
 * The speechbrain_ser_cl contributors 2026
"""

import copy
from dataclasses import replace
from pathlib import Path

import speechbrain as sb
from speechbrain.utils.distributed import if_main_process
from torch.optim.lr_scheduler import LambdaLR

from speechbrain_ser_cl.data.dataset import SpeechDataset, middle, steps_of, waveform
from speechbrain_ser_cl.data.experiment import prepare
from speechbrain_ser_cl.data.loaders import make_phase, training_loader, whole_loader
from speechbrain_ser_cl.report import write_report
from speechbrain_ser_cl.training import (
    SERBrain,
    begin_with,
    check_choices,
    class_weights,
    closing_table,
    is_frozen,
    keep_frozen,
    labelled_cross_entropy,
    main,
    make_brain,
    names_weighted_ssl,
    run_probe,
    trained_parts,
    write_baseline,
    write_run,
)
from speechbrain_ser_cl.training.probe import leaks_by_validation


class FineTuningBrain(SERBrain):
    """Trains encoder, pooling and classifier by cross-entropy and SupCon."""

    class_weights = None

    def compute_forward(self, batch, stage):
        """Embeds the utterances and scores the classes."""
        batch = batch.to(self.device)
        logits, h = self.modules.model(batch.speech, batch.lengths, embeddings=True)
        outputs = {"logits": logits, "embeddings": h}
        if stage == sb.Stage.TRAIN and self.hparams.loss.active("supcon"):
            outputs["z"] = self.modules.projection(h)
        return outputs

    def compute_objectives(self, outputs, batch, stage):
        """Computes weighted cross-entropy, plus λ times SupCon."""
        labels = batch.label.to(self.device)
        emotion = labelled_cross_entropy(outputs["logits"], labels, self.class_weights)
        if stage != sb.Stage.TRAIN:
            return emotion
        terms = {"emotion": emotion}
        if self.hparams.loss.active("supcon"):
            terms["supcon"] = self.hparams.supcon_loss(outputs["z"], labels)
        total, values = self.hparams.loss(terms)
        self.log_terms(values)
        return total


def make_loaders(hparams, parts, classes, read=waveform, hop=1):
    """Makes loaders of the parts; ``keep_frozen`` returns ``read`` and ``hop``."""
    max_seconds, longest = hparams["max_seconds"], hparams["max_test_seconds"]
    options, seed = hparams["loader_options"], hparams["seed"]
    if hop is None:  # vectors need neither cutting nor workers
        max_seconds, longest, options = None, None, {"num_workers": 0}
    data = SpeechDataset(
        parts["train"], classes, read, max_steps=steps_of(max_seconds, hop), seed=seed
    )

    def whole(utterance):
        return middle(read(utterance), steps_of(longest, hop))

    phase = make_phase(
        data,
        hparams["batch_size"],
        seed,
        hparams["batches_per_epoch"],
        bucketing=hparams["bucketing"],
        max_seconds=max_seconds,
    )
    others = (SpeechDataset(parts[name], classes, whole) for name in ("valid", "test"))
    size = hparams["test_batch_size"]
    return (
        training_loader(data, phase, options),
        *(whole_loader(data, size, options) for data in others),
    )


def make_trainer(hparams, launch, folder, classes, **how):
    """Makes the Brain of a training."""
    return make_brain(
        FineTuningBrain,
        hparams,
        launch.run_opts,
        folder,
        hparams["modules"],
        classes,
        learning_rates=hparams["learning_rates"],
        kept=trained_parts(hparams["modules"]),
        **how,
    )


def fit(brain, hparams, train, valid, from_start=False, epochs=None):
    """Trains, with class weights if requested; the initial state may be the best."""
    brain.train_sampler = train.batch_sampler
    if hparams["balance"]:
        weights = class_weights(train.dataset.labels, len(brain.class_names))
        brain.class_weights = weights.to(brain.device)
    if from_start:
        brain.score_start(valid)
    if epochs != 0:
        brain.fit(brain.epoch_counter, train, valid)


def fit_again(first, hparams, launch, parts, kept):
    """Trains on training and validation data, up to the first training's best epoch.

    Where nothing stops a training early, the learning rate falls to the last epoch: all
    are done, unless the start was best. Uses the learning rates of the first training.
    Validation scores mean nothing here, so that a few utterances do.
    """
    rows, epochs = first.history.epochs, first.history.tested["epoch"]
    if epochs and hparams["patience"] is None:
        epochs = hparams["n_epochs"]
    # A warm-up may begin at zero.
    groups = first.optimizer.param_groups
    full = max(group.get("initial_lr", rows[0]["lr"]) for group in groups) or 1.0
    rates = [row["lr"] / full for row in rows if row["epoch"]]
    brain = make_trainer(
        hparams,
        launch,
        launch.folder / "refit",
        first.class_names,
        epochs=max(epochs, 1),
        lr_scheduler=lambda optimizer: LambdaLR(
            optimizer, lambda epoch: rates[min(epoch, len(rates) - 1)]
        ),
    )
    parts = parts | {"valid": parts["valid"][:16]}
    train, valid, _ = make_loaders(hparams, parts, first.class_names, *kept)
    fit(brain, hparams, train, valid, from_start=not epochs, epochs=epochs)
    first.history.seconds += brain.history.seconds
    return brain


def run(launch):
    """Trains and tests on one fold; returns the contents of ``results.json``."""
    # Data first, because the encoder may have to be downloaded.
    experiment = prepare(launch.values, report=True)
    leaks = leaks_by_validation(experiment.parts)
    if launch.values["refit"] and leaks:
        raise ValueError(
            "refit is True, but the validation part has speakers or texts of the test "
            "part, to which a training on it would leak; expected False or null"
        )
    wanted = {key: launch.values.get(key) for key in ("start", "baseline")}
    check_choices(wanted, start=(None, "probe"), baseline=(None, "probe"))
    probed = None
    if names_weighted_ssl(launch.values):  # not a user's own encoder
        if launch.values["layers"] == "best" or any(wanted.values()):
            probed = run_probe(launch.values, experiment)
        if launch.values["layers"] == "best":
            layers = {"layers": list(probed.choice.layers)}
            launch = replace(launch, overrides={**launch.overrides, **layers})
    hparams = launch.start()
    if if_main_process():
        experiment.report.write(launch.folder / "data_report.json")
    simple = write_baseline(launch, experiment, probed) if probed else None
    classes, parts = experiment.class_names, experiment.parts
    brain = make_trainer(
        hparams,
        launch,
        launch.folder,
        classes,
        epochs=hparams["n_epochs"],
        patience=hparams["patience"],
        lr_scheduler=hparams["lr_scheduler"],
    )
    everyone = [item.utterance for part in parts.values() for item in part]
    kept = keep_frozen(hparams["model"], everyone, hparams["features_folder"])
    train, valid, test = make_loaders(hparams, parts, classes, *kept)
    begins = probed is not None and wanted["start"] == "probe"
    refit = hparams["refit"]
    if refit is None:
        refit = (begins or is_frozen(hparams["backbone"])) and not leaks
    modules = trained_parts(hparams["modules"]) if refit else {}
    start = copy.deepcopy({name: part.state_dict() for name, part in modules.items()})
    if begins:
        begin_with(hparams["model"], probed, parts["train"], classes)
    fit(brain, hparams, train, valid, from_start=begins)
    brain.evaluate(valid if refit else test, max_key="score")
    tested = brain
    if refit:
        for name, state in start.items():
            modules[name].load_state_dict(state)
        both = parts | {"train": [*parts["train"], *parts["valid"]]}
        if begins:
            begin_with(hparams["model"], probed, both["train"], classes)
        tested = fit_again(brain, hparams, launch, both, kept)
        tested.evaluate(test)
    if not if_main_process():
        return []
    supcon = hparams["loss"].active("supcon")
    contrast = type(hparams["supcon_loss"]).__name__.removesuffix("Loss")
    weights = getattr(hparams["backbone"], "weights", None)
    record = {
        "recipe": hparams["recipe"],
        "setting": f"cross-entropy + {hparams['lambda_supcon']} {contrast}"
        if supcon
        else "cross-entropy",
        "order": int(supcon),
        "corpus": ", ".join(experiment.corpora),
        "encoder": Path(hparams["ssl_source"]).name,
        "seed": hparams["seed"],
        "precision": brain.precision,
        "refit": refit,
        "demo": launch.demo,
        "layer_weights": None if weights is None else weights.tolist(),
    }
    results = write_run(
        launch.folder,
        record | experiment.record(),
        predictions=tested.collected_outputs(),
        parts=experiment.parts,
        class_names=classes,
        history=brain.history,
        model=hparams["model"],
    )
    write_report([launch.folder], launch.folder / "report.html")
    shown = [results] if simple is None else [simple, results]
    print(f"\n{closing_table(shown)}\nReport: {launch.folder / 'report.html'}")
    return [results]


if __name__ == "__main__":
    main(run, __file__, tell=lambda results: None)
