#!/usr/bin/env python3
"""Compares ser-cl probe with a script of 20 lines: a frozen encoder, all folds of a
corpus.

Both use the same audio and the same folds; each run is its own process. The script
computes means over time of all layers, standardises, and fits logistic regression with
C = 0.01 and balanced classes; the layer is selected on the validation part. `ser-cl
probe` selects more (strength, mean or statistics, by inner folds) and writes results,
figures and a model. It runs from an empty folder, and again with the features of the
first run.

> python benchmarks/frozen.py RAVDESS --corpus ravdess --encoder whisper-tiny.en

Authors
 * The speechbrain_ser_cl contributors 2026
"""

import argparse
import json
import os
import resource
import subprocess
import sys
import tempfile
import time
from datetime import datetime, timezone
from pathlib import Path

RESULTS = Path(__file__).parent / "results" / "frozen.json"
SCRIPT = """
import sys, numpy as np, torch
from sklearn.linear_model import LogisticRegression
from sklearn.metrics import recall_score
from sklearn.preprocessing import StandardScaler
from speechbrain_ser_cl.backbones import WeightedSSL
from speechbrain_ser_cl.data.experiment import read_corpus
from speechbrain_ser_cl.data.protocols import make_folds
from speechbrain_ser_cl.utils.audio import load_audio
folder, corpus, encoder = sys.argv[1:]
utterances = read_corpus(corpus, folder)
model, x, y = WeightedSSL(encoder, freeze="all"), {}, {}
for u in utterances:
    with torch.inference_mode():
        layers = model.hidden_states(load_audio(u.path)[None])
        x[u.id] = np.stack([h[0].mean(0).numpy() for h in layers])
    y[u.id] = u.emotion
uars = []
for fold in make_folds(utterances, "speaker_kfold"):
    tried = []
    for layer in range(model.n_layers + 1):
        (a, b), (c, d), (e, f) = (
            (np.stack([x[i][layer] for i in part]), [y[i] for i in part])
            for part in (fold.train, fold.valid, fold.test))
        scale = StandardScaler().fit(a)
        fit = LogisticRegression(C=0.01, class_weight="balanced", max_iter=5000)
        fit.fit(scale.transform(a), b)
        valid, test = (recall_score(t, fit.predict(scale.transform(s)), average="macro")
            for s, t in ((c, d), (e, f)))
        tried.append((valid, test))
    uars.append(max(tried)[1])
print(100 * np.mean(uars))
"""


def timed(command, environment):
    """Returns wall and processor seconds of a process, and its last printed line."""
    before, begin = resource.getrusage(resource.RUSAGE_CHILDREN), time.perf_counter()
    done = subprocess.run(
        command, env=environment, stdout=subprocess.PIPE, text=True, check=True
    )
    wall = time.perf_counter() - begin
    after = resource.getrusage(resource.RUSAGE_CHILDREN)
    cpu = after.ru_utime + after.ru_stime - before.ru_utime - before.ru_stime
    return {"wall_s": round(wall, 1), "cpu_s": round(cpu, 1)}, done.stdout


def main():
    """Measures, prints a table and adds it to the results."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("folder")
    parser.add_argument("--corpus", required=True)
    parser.add_argument("--encoder", required=True)
    arguments = parser.parse_args()
    rows = {}
    with tempfile.TemporaryDirectory() as place:
        environment = os.environ | {"SER_CL_CACHE": place}
        script = [sys.executable, "-c", SCRIPT]
        script += [arguments.folder, arguments.corpus, arguments.encoder]
        rows["script"], told = timed(script, environment)
        rows["script"]["uar"] = round(float(told.split()[-1]), 1)
        output = Path(place, "probe")
        ours = [sys.executable, "-m", "speechbrain_ser_cl.cli", "probe"]
        ours += [arguments.folder, "--corpus", arguments.corpus]
        ours += ["--encoder", arguments.encoder, "--output_folder", str(output)]
        for name in ("ser-cl probe, empty folder", "ser-cl probe, again"):
            rows[name], _ = timed(ours, environment)
            found = json.loads((output / "crossval.json").read_text(encoding="utf-8"))
            (of_corpus,) = found["results"].values()
            rows[name]["uar"] = round(100 * of_corpus["mean"]["uar"], 1)
    print(
        "| | wall s | processor s | × of the script | UAR % |\n| --- |" + " --- |" * 4
    )
    for name, row in rows.items():
        share = row["cpu_s"] / rows["script"]["cpu_s"]
        values = (name, row["wall_s"], row["cpu_s"], f"{share:.2f}", row["uar"])
        print(f"| {' | '.join(map(str, values))} |")
    earlier = json.loads(RESULTS.read_text()) if RESULTS.exists() else {}
    key = f"{arguments.corpus}, {Path(arguments.encoder).name}"
    earlier[key] = {"rows": rows, "cores": os.cpu_count()}
    earlier[key]["date"] = datetime.now(timezone.utc).date().isoformat()
    RESULTS.write_text(json.dumps(earlier, indent=1) + "\n", encoding="utf-8")


if __name__ == "__main__":
    main()
