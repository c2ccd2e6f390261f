#!/usr/bin/env python3
"""How many labels of the target speech without labels is worth.

The draws of benchmarks/adaptation.py again, without the source: 5 % of the target are
labelled, and of the 30 % that are without labels there, a random part has its labels
here. On all labelled utterances a logistic regression is fitted, and the network of
adaptation.py is trained with the emotion loss alone. The last share is the most that
speech without labels could be worth: all of it has labels. The same utterances are
tested. The table has adaptation.py's row with all losses on the 30 % without labels
beside them; run that benchmark first, since the networks take its layer.

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
COLUMNS = ("encoder", "source", "target", "row", "seed", "uar")
METHODS = ("logistic regression", "network")
SHARES = (5, 10, 15, 20, 35)  # percent of the target with labels


def main():
    """Measures what is missing."""
    rows = json.loads(RESULTS.read_text("utf-8"))["rows"] if RESULTS.exists() else []
    found, known = {tuple(row[:5]): row for row in rows}, adaptation.read()
    wanted = list(itertools.product(METHODS, SHARES))
    for features, views, draw in adaptation.draws(__doc__):
        layer, C = adaptation.layer_of(known, features, draw)
        few, more = (draw.parts[adaptation.PART[key]] for key in "tu")
        more = sorted(more, key=lambda item: item.utterance.id)
        random.Random(draw.seed).shuffle(more)
        about = f"{draw.names[1]}, seed {draw.seed}"
        for method, share in tqdm(wanted, about, leave=False):
            row = f"{method}, {share} %"
            key = (features.name, *draw.names, row, draw.seed)
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
            "rows",
            found.values(),
            columns=COLUMNS,
            methods=METHODS,
            shares=SHARES,
        )


if __name__ == "__main__":
    main()
