#!/usr/bin/env python3
"""Which loss of multitask adaptation helps without labels of the target, and how much.

The networks of benchmarks/adaptation.py, trained on the source with its labels and on
30 % of the target without labels; tested on the same part as there. The rows are those
of ablations.yaml and the first half of lambdas.yaml in recipes/EmoDB_RAVDESS, with a
frozen encoder; beside them a logistic regression, with the source's statistics and with
each corpus' own. Its layer and C are chosen by inner folds of the source, and the
networks take that layer. The figures are of test parts: nothing is chosen by them.

> python benchmarks/adaptation_unlabelled.py --encoders whisper-tiny.en \
      --pairs emodb=EmoDB:ravdess=RAVDESS

Authors
 * The speechbrain_ser_cl contributors 2026
"""

import json
from pathlib import Path

import adaptation
import adaptation_weights
from adaptation import WEIGHTS, Setting
from tqdm import tqdm

from speechbrain_ser_cl.metrics.classification import classification_metrics
from speechbrain_ser_cl.metrics.linear_probe import fit_classifier, standardiser

RESULTS = Path(__file__).parent / "results" / "adaptation_unlabelled.json"
PROBE = "logistic regression"
OWN = "logistic regression, own statistics"
COLUMNS = ("encoder", "source", "target", "row", "seed", "uar", "layer", "C")


def spoken(name):
    """Returns a loss's name as words."""
    return name.replace("_", " ")


def networks():
    """Returns what each network trains on, by the row's name."""
    rows = {
        "network": Setting("s", {}),
        "network, own statistics": Setting("su", {}),
        "all losses": Setting("su", WEIGHTS),
    }
    for name in WEIGHTS:
        rest = {other: WEIGHTS[other] for other in WEIGHTS if other != name}
        rows[f"without {spoken(name)}"] = Setting("su", rest)
    for name in WEIGHTS:
        rows[f"{spoken(name)} only"] = Setting("su", adaptation.only(name))
    for name, values in adaptation_weights.VALUES.items():
        for value in values:
            if value not in (0.0, WEIGHTS[name]):
                weights = WEIGHTS | {name: value}
                rows[f"all losses, λ {spoken(name)} {value:g}"] = Setting("su", weights)
    return rows


def by_own_statistics(draw, features, layer, C):
    """Returns the UAR of a logistic regression, each corpus standardised by itself."""
    x = draw.clean("source_train", features, layer)
    mean, std = standardiser(x)
    known = draw.labels("source_train").numpy()
    ((weights, bias),) = fit_classifier("logistic", (x - mean) / std, known, [C])
    mean, std = standardiser(draw.clean("target_unlabelled", features, layer))
    x = draw.clean("target_test", features, layer)
    logits = ((x - mean) / std) @ weights.T + bias
    truth = draw.labels("target_test").numpy()
    found = classification_metrics(truth, logits.argmax(1), len(draw.classes))
    return float(found["uar"])


def main():
    """Measures what is missing."""
    rows = json.loads(RESULTS.read_text("utf-8"))["rows"] if RESULTS.exists() else []
    found, settings = {tuple(row[:5]): row for row in rows}, networks()
    for features, views, draw in adaptation.draws(__doc__):
        layer, C = None, None
        about = f"{draw.names}, seed {draw.seed}"
        for row in tqdm([PROBE, OWN, *settings], about, leave=False):
            key = (features.name, *draw.names, row, draw.seed)
            if key not in found:
                if row == PROBE:
                    probe = draw.probe(features, "s")
                    (layer,), C = probe.choice.layers, probe.choice.C
                    uar = probe.uar
                elif row == OWN:
                    uar = by_own_statistics(draw, features, layer, C)
                else:
                    uar = draw.measure(settings[row], features, views, layer, C)
                found[key] = [*key, round(float(uar), 4), layer, C]
            layer, C = found[key][6:]
        adaptation.write(
            RESULTS,
            "rows",
            found.values(),
            weights=WEIGHTS,
            columns=COLUMNS,
            order=[PROBE, OWN, *settings],
        )


if __name__ == "__main__":
    main()
