#!/usr/bin/env python3
"""How much of each loss of multitask adaptation, beside a few labels.

The networks of benchmarks/adaptation.py again, on 5 % of the target with labels and
30 % without, no source, with other weights of the losses: each weight by itself, the
others as in the recipe. The values are those of lambdas.yaml in recipes/EmoDB_RAVDESS.
No weight is chosen here: the figures are of test parts.

> python benchmarks/adaptation_weights.py --encoders whisper-base --seeds $(seq 0 4) \
      --pairs emodb=EmoDB:ravdess=RAVDESS

Authors
 * The speechbrain_ser_cl contributors 2026
"""

import json
from pathlib import Path

import adaptation
from tqdm import tqdm

RESULTS = Path(__file__).parent / "results" / "adaptation_weights.json"
VALUES = {
    "augmentation": (0.0, 0.03, 0.1, 0.3, 1.0),
    "contrastive": (0.0, 0.1, 0.25, 0.5, 1.0, 2.0),
    "information_maximization": (0.0, 0.03, 0.1, 0.3, 0.5, 1.0),
}


def rows():
    """Yields the weights of each network, those of the recipe once."""
    yield dict(adaptation.WEIGHTS)
    for name, values in VALUES.items():
        for value in values:
            if value != adaptation.WEIGHTS[name]:
                yield adaptation.WEIGHTS | {name: value}


def main():
    """Measures what is missing."""
    known = adaptation.read()
    runs = json.loads(RESULTS.read_text("utf-8"))["runs"] if RESULTS.exists() else []
    found = {tuple(run[:-1]): run for run in runs}
    for features, views, draw in adaptation.draws(__doc__):
        place = (features.name, *draw.names)
        layer, C = adaptation.layer_of(known, features, draw)
        about = f"{draw.names}, seed {draw.seed}"
        for weights in tqdm(list(rows()), about, leave=False):
            key = (*place, draw.seed, *(weights[name] for name in VALUES))
            if key not in found:
                setting = adaptation.Setting("tu", weights)
                uar = draw.measure(setting, features, views, layer, C)
                found[key] = [*key, round(uar, 4)]
        adaptation.write(
            RESULTS,
            "runs",
            found.values(),
            weights=adaptation.WEIGHTS,
            columns=["encoder", "source", "target", "seed", *VALUES, "uar"],
        )


if __name__ == "__main__":
    main()
