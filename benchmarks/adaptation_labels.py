#!/usr/bin/env python3
"""How many labels of the target speech without labels is worth.

The draws of benchmarks/adaptation.py again, without the source: 5 % of the target are
labelled, and of the 30 % that are without labels there, a random part has its labels
here. On all labelled utterances a logistic regression is fitted, and the network of
adaptation.py is trained with the emotion loss alone. The last share is the most that
speech without labels could be worth: all of it has labels. Beside them stands what
adaptation.py measured with all losses on the 30 % without labels. The same utterances
are tested.

> python benchmarks/adaptation_labels.py --encoders whisper-base --seeds $(seq 0 9) \
      --pairs emodb=EmoDB:ravdess=RAVDESS

Authors
 * The speechbrain_ser_cl contributors 2026
"""

import itertools
import json
import random
from pathlib import Path

import adaptation
from tqdm import tqdm

RESULTS = Path(__file__).parent / "results" / "adaptation_labels.json"
SHARES = (5, 10, 15, 20, 35)  # percent of the target with labels
NO_SOURCE = "5 %, 30 %, all losses, no source"
METHODS = ("logistic regression", "network")
HIDDEN = ("network with all losses and 30 % without labels", 5)


def main():
    """Measures what is missing."""
    runs = json.loads(RESULTS.read_text("utf-8"))["runs"] if RESULTS.exists() else []
    found = {tuple(run[:-1]): run for run in runs}
    known = adaptation.read()
    for features, views, draw in adaptation.draws(__doc__):
        place = (features.name, *draw.names)
        *_, layer, C, _ = known[(*place, adaptation.LAYER, draw.seed)]
        few, more = (draw.parts[adaptation.PART[key]] for key in "tu")
        more = sorted(more, key=lambda item: item.utterance.id)
        random.Random(draw.seed).shuffle(more)
        names = (features.name, draw.names[1], draw.seed)
        uar = known[(*place, NO_SOURCE, draw.seed)][5]
        found[(*names, *HIDDEN)] = [*names, *HIDDEN, uar]
        rows = list(itertools.product(METHODS, SHARES))
        for method, share in tqdm(rows, f"{names[1]}, seed {draw.seed}", leave=False):
            key = (*names, method, share)
            if key in found:
                continue
            n_more = round((share - 5) / 30 * len(more))
            draw.parts["target_train"] = [*few, *more[:n_more]]
            if method == "network":
                only_labels = adaptation.Setting("t", {})
                uar = draw.measure(only_labels, features, views, layer, C)
            else:
                uar = draw.probe(features, "t").uar
            found[key] = [*key, round(uar, 4)]
        adaptation.write(
            RESULTS,
            "runs",
            found.values(),
            order=[*itertools.product(METHODS, SHARES), HIDDEN],
            columns=["encoder", "target", "seed", "method", "labelled %", "uar"],
        )


if __name__ == "__main__":
    main()
