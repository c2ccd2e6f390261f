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

from pathlib import Path

import speechbrain as sb
from speechbrain.utils.distributed import if_main_process

from speechbrain_ser_cl.data.dataset import SpeechDataset, steps_of, waveform
from speechbrain_ser_cl.data.experiment import prepare
from speechbrain_ser_cl.data.loaders import make_phase, training_loader, whole_loader
from speechbrain_ser_cl.report import write_report
from speechbrain_ser_cl.training import (
    SERBrain,
    class_weights,
    closing_table,
    labelled_cross_entropy,
    main,
    make_brain,
    write_run,
)


class FineTuningBrain(SERBrain):
    """The method: encoder, pooling, classifier; cross-entropy and SupCon."""

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
        """Cross-entropy, each class by its weight, plus λ times SupCon."""
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


def make_loaders(hparams, parts, classes):
    """Loaders for training, validation and test.

    Arguments
    ---------
    hparams : dict
        The YAML's values.
    parts : dict
        ``train``, ``valid`` and ``test`` to their utterances.
    classes : list of str
        Names of the classes 0, 1, …

    Returns
    -------
    train, valid, test : DataLoader
        The last two give whole utterances, up to ``max_test_seconds``.
    """
    longest = steps_of(hparams["max_test_seconds"])

    def middle(utterance):
        wav = waveform(utterance)
        surplus = max(0, len(wav) - longest)
        return wav[surplus // 2 : len(wav) - (surplus + 1) // 2]

    max_seconds, seed = hparams["max_seconds"], hparams["seed"]
    options = hparams["loader_options"]
    data = SpeechDataset(
        parts["train"], classes, max_steps=steps_of(max_seconds), seed=seed
    )
    phase = make_phase(
        data,
        hparams["batch_size"],
        seed,
        hparams["batches_per_epoch"],
        bucketing=hparams["bucketing"],
        max_seconds=max_seconds,
    )
    whole = (SpeechDataset(parts[name], classes, middle) for name in ("valid", "test"))
    size = hparams["test_batch_size"]
    return (
        training_loader(data, phase, options),
        *(whole_loader(data, size, options) for data in whole),
    )


def run(launch):
    """Trains and tests on one fold; returns what ``results.json`` says."""
    # The data first: an encoder may have to be downloaded.
    experiment = prepare(launch.values, report=True)
    hparams = launch.start()
    if if_main_process():
        experiment.report.write(launch.folder / "data_report.json")
    classes = experiment.class_names
    train, valid, test = make_loaders(hparams, experiment.parts, classes)
    brain = make_brain(
        FineTuningBrain,
        hparams,
        launch.run_opts,
        launch.folder,
        hparams["modules"],
        classes,
        epochs=hparams["n_epochs"],
        patience=hparams["patience"],
        learning_rates=hparams["learning_rates"],
        lr_scheduler=hparams["lr_scheduler"],
        sampler=train.batch_sampler,
    )
    if hparams["balance"]:
        weights = class_weights(train.dataset.labels, len(classes))
        brain.class_weights = weights.to(brain.device)
    brain.fit(brain.epoch_counter, train, valid)
    brain.evaluate(test, max_key="score")
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
        "demo": launch.demo,
        "layer_weights": None if weights is None else weights.tolist(),
    }
    results = write_run(
        launch.folder,
        record | experiment.record(),
        predictions=brain.collected_outputs(),
        parts=experiment.parts,
        class_names=classes,
        history=brain.history,
        model=hparams["model"],
    )
    write_report([launch.folder], launch.folder / "report.html")
    print(f"\n{closing_table([results])}\nReport: {launch.folder / 'report.html'}")
    return [results]


if __name__ == "__main__":
    main(run, __file__, tell=lambda results: None)
