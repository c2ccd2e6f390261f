#!/usr/bin/env python3
"""Tests a linear classifier on a frozen encoder's layers, on a corpus of your own.

Mean and standard deviation over time of all layers are computed once and stored. Layer,
strength of the classifier and standardisation are selected by inner folds over the
speakers of training and validation part; the final classifier is fitted on both. The
simplest baseline, and the first to try; `ser-cl probe` runs it without a YAML.

> python probe.py hparams/probe.yaml
> python probe.py hparams/probe.yaml --folder /data/my_corpus

Authors
 * The speechbrain_ser_cl contributors 2026
"""

from speechbrain.utils.distributed import if_main_process

from speechbrain_ser_cl.data.domains import train_and_test
from speechbrain_ser_cl.data.experiment import prepare
from speechbrain_ser_cl.report import write_report
from speechbrain_ser_cl.training import closing_table, main, write_run
from speechbrain_ser_cl.training.probe import write_layer_curve
from speechbrain_ser_cl.training.utterance_features import load_features


def run(launch):
    """Selects, fits and tests on one fold.

    Arguments
    ---------
    launch : Launch
        Requested run.

    Returns
    -------
    list of dict
        Contents of ``results.json``, in the main process.
    """
    experiment = prepare(launch.values, report=True)
    hparams = launch.start()
    if not if_main_process():
        return []
    experiment.report.write(launch.folder / "data_report.json")
    features = load_features(
        hparams["ssl_source"], hparams["ssl_revision"], hparams["features_folder"]
    )
    alone = "use_source" in hparams and not hparams["use_source"]
    parts = train_and_test(experiment.parts, with_source=not alone)
    features.fill([item.utterance for part in parts.values() for item in part])
    probe = hparams["probe"]
    found = probe.run(features, parts, experiment.class_names)
    about = {"recipe": hparams["recipe"], "corpus": ", ".join(experiment.corpora)}
    about |= {"seed": hparams["seed"]} | probe.about(features) | found.record()
    results = write_run(
        launch.folder,
        about | {"demo": launch.demo} | experiment.record(),
        predictions=found.predictions,
        parts=experiment.parts,
        class_names=experiment.class_names,
        history=found.history(),
        model=found.model(),
    )
    write_layer_curve(launch.folder / "layers.csv", [found.curve])
    write_report([launch.folder], launch.folder / "report.html")
    print(f"\n{closing_table([results])}\nReport: {launch.folder / 'report.html'}")
    return [results]


if __name__ == "__main__":
    main(run, __file__, tell=lambda results: None)
