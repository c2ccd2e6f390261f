#!/usr/bin/env python3
"""Compares a probe with trainings of own_corpus that start from it, on speaker folds.

Every run uses ``recipes/own_corpus`` with its YAML: it tests the simple baseline and
the trained model on the same fold. All runs share one process, which keeps the probe of
a fold for all seeds; figures and reports are not made. Finished runs are not repeated.

> python benchmarks/heads.py --encoders whisper-tiny.en whisper-base \
      --folders emodb=EmoDB ravdess=RAVDESS crema_d=CREMA-D
> python benchmarks/heads.py --yaml finetune --precision bf16 --seeds 0 ...

Authors
 * The speechbrain_ser_cl contributors 2026
"""

import argparse
import functools
import importlib.util
import itertools
import json
import logging
import os
import re
from datetime import datetime, timezone
from pathlib import Path

RESULTS = Path(__file__).parent / "results" / "heads.json"
RECIPE = Path(__file__).parents[1] / "recipes" / "own_corpus"
N_FOLDS = 5


def recipe():
    """Loads the recipe's script, with probes kept and figures disabled."""
    spec = importlib.util.spec_from_file_location("own_corpus", RECIPE / "train.py")
    module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    probes, run_probe = {}, module.run_probe

    def kept(values, experiment):
        key = (values["ssl_source"], experiment.record()["data"]["fingerprint"])
        if key not in probes:
            probes[key] = run_probe(values, experiment)
        return probes[key]

    module.run_probe = kept
    module.write_report = lambda *_: None
    module.write_run = functools.partial(module.write_run, figures=False)
    return module


def measure(module, options, encoder, corpus, fold, seed):
    """Runs once; returns the results of the probe and of the training."""
    from speechbrain.utils.run_opts import RunOptions

    from speechbrain_ser_cl.data.experiment import map_corpora, read_corpus
    from speechbrain_ser_cl.data.protocols import make_folds, write_split
    from speechbrain_ser_cl.training import Launch, read_results

    name, folder = corpus
    place = options.output / options.yaml / name / Path(encoder).name
    output = place / f"fold-{fold}" / f"seed-{seed}"
    utterances = read_corpus(name, folder, allow_missing=True)
    emotions = {u.emotion: [u.emotion] for u in sorted(utterances, key=lambda u: u.id)}
    emotions = {emotion: emotions[emotion] for emotion in sorted(emotions)}
    split = place / f"fold-{fold}.json"
    if not split.exists():
        items, _ = map_corpora({name: utterances}, emotions)
        protocol = {"kind": "speaker_kfold", "n_folds": N_FOLDS}
        write_split(make_folds(items, protocol, 0)[fold], split)
    if not (output / "results.json").exists():
        values = {
            "corpora": {name: str(folder)},
            "emotion_map": emotions,
            "allow_missing": True,
            "split_file": str(split),
            "fold": fold,
            "seed": seed,
            "ssl_source": encoder,
            "ssl_revision": None,
            "features_folder": options.features,
            "data_folder": str(options.output / "data"),
            "output_folder": str(output),
            "loader_options": {"num_workers": 0},
        }
        of_brain = RunOptions.from_dictionary(
            {"noprogressbar": True, "precision": options.precision}
        )
        yaml = RECIPE / "hparams" / f"{options.yaml}.yaml"
        module.run(Launch(yaml, of_brain, values))
    found, simple = (
        read_results(output / part / "results.json") for part in ("", "baseline")
    )
    return {
        "yaml": options.yaml,
        "corpus": name,
        "encoder": Path(encoder).name,
        "fold": fold,
        "seed": seed,
        "probe": simple["test"]["uar"]["value"],
        "uar": found["test"]["uar"]["value"],
        "tested_epoch": found["tested_epoch"],
        "precision": found["precision"],
        "schedule": schedule(options.yaml),
        "seconds": found["training_seconds"],
        "classes": len(emotions),
    }


def schedule(yaml):
    """Tells the YAML's number of epochs and its learning rate schedule."""
    text = (RECIPE / "hparams" / f"{yaml}.yaml").read_text(encoding="utf-8")
    (epochs,) = re.findall(r"^n_epochs: (\d+)", text, re.MULTILINE)
    (kind,) = re.findall(r"^lr_scheduler: .*\.(\w+)$", text, re.MULTILINE)
    return f"{epochs} epochs, {kind}"


def main():
    """Adds each run to the results when it ends."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--encoders", nargs="+", required=True)
    parser.add_argument("--folders", nargs="+", required=True)
    parser.add_argument("--yaml", default="frozen", choices=["frozen", "finetune"])
    parser.add_argument("--folds", type=int, nargs="+", default=range(N_FOLDS))
    parser.add_argument("--seeds", type=int, nargs="+", default=range(3))
    parser.add_argument("--precision", default="fp32", choices=["fp32", "bf16"])
    parser.add_argument("--features", help="where they are kept")
    parser.add_argument("--output", type=Path, default=Path("results/heads"))
    options = parser.parse_args()
    module = recipe()
    logging.disable(logging.INFO)
    corpora = [one.split("=", 1) for one in options.folders]
    runs = itertools.product(options.seeds, options.folds, corpora, options.encoders)
    for seed, fold, corpus, encoder in runs:
        row = measure(module, options, encoder, corpus, fold, seed)
        print(json.dumps(row), flush=True)
        add(row)


def add(row):
    """Adds a run to the results; replaces an earlier one of the same kind."""
    from speechbrain_ser_cl.training import machine, package_versions
    from speechbrain_ser_cl.utils.files import replacing

    found = json.loads(RESULTS.read_text()) if RESULTS.exists() else {"results": []}
    keys = ("yaml", "schedule", "corpus", "encoder", "fold", "seed")
    rows = {tuple(one[k] for k in keys): one for one in [*found["results"], row]}
    about = {
        **machine(),
        "load": os.getloadavg()[0],
        "date": datetime.now(timezone.utc).date().isoformat(),
        "versions": package_versions(),
        "results": [rows[key] for key in sorted(rows)],
    }
    with replacing(RESULTS) as part:
        part.write_text(json.dumps(about, indent=1) + "\n", encoding="utf-8")


if __name__ == "__main__":
    main()
