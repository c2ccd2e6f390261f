#!/usr/bin/env python3
"""Why a contrastive loss helps or not, and whether the best network can be chosen.

The networks of benchmarks/adaptation.py are trained again. Of the hidden layer on the
target's test part the Recall@1 of emotion, speaker and text is measured: how often the
nearest other utterance (cosine) shares it. Two views of an utterance share all three,
so that a loss between views may draw together any of them. Each network is also scored
without labels of the target, on the unlabelled part, and by its UAR on the source's
validation part, to compare their order with that of the true UAR.

> python benchmarks/adaptation_why.py --encoders whisper-tiny.en \
      --pairs emodb=EmoDB:ravdess=RAVDESS

Authors
 * The speechbrain_ser_cl contributors 2026
"""

import json
from datetime import datetime, timezone
from pathlib import Path

import adaptation
import numpy as np
import torch
from tqdm import tqdm

from speechbrain_ser_cl.metrics import classification_metrics, recall_at_1
from speechbrain_ser_cl.metrics.without_labels import criteria
from speechbrain_ser_cl.utils.files import replacing

RESULTS = Path(__file__).parent / "results" / "adaptation_why.json"


@torch.no_grad()
def trained(draw, *how):
    """Returns the hidden layer of a network and its probabilities, by part."""
    with torch.enable_grad():
        network, given = draw.network(*how)
    parts = ("target_test", "target_unlabelled", "source_valid")
    h = {part: network(given(part)) for part in parts}
    p = {part: network.head(h[part]).softmax(1).numpy() for part in parts}
    return {part: values.numpy() for part, values in h.items()}, p


def scores(draw, *how):
    """Returns true UAR, Recall@1 of what utterances share, and what needs no label."""
    h, p = trained(draw, *how)
    n_classes = len(draw.classes)

    def uar(part):
        truth = draw.labels(part).numpy()
        return classification_metrics(truth, p[part].argmax(1), n_classes)["uar"]

    tested = [item.utterance for item in draw.parts["target_test"]]
    shared = {
        "emotion": [one.emotion for one in tested],
        "class": draw.labels("target_test").tolist(),
        "speaker": [one.speaker for one in tested],
        "text": [one.text_id for one in tested],
    }
    x = h["target_test"] / np.linalg.norm(h["target_test"], axis=1, keepdims=True)
    unlabelled, valid = "target_unlabelled", "source_valid"
    source = p[valid], draw.labels(valid).numpy(), h[valid]
    return {
        "uar": uar("target_test"),
        **{f"same {name}": recall_at_1(x, own) for name, own in shared.items()},
        **criteria(p[unlabelled], h[unlabelled], *source),
        "source_uar": uar("source_valid"),
    }


def main():
    """Trains, measures and writes."""
    known = adaptation.read()
    about = {"date": datetime.now(timezone.utc).date().isoformat(), "runs": []}
    for features, views, draw in adaptation.draws(__doc__):
        place = (features.name, *draw.names)
        layer, _ = adaptation.layer_of(known, features, draw)
        rows = {name: one for name, one in adaptation.ROWS.items() if one.labels}
        for row in tqdm(rows, f"{draw.names}, seed {draw.seed}", leave=False):
            found = scores(draw, rows[row], features, views, layer)
            told = {k: round(float(v), 4) for k, v in found.items()}
            of = (*place, row, draw.seed)
            run = dict(zip(adaptation.COLUMNS, of, strict=False))
            about["runs"].append({**run, **told})
        with replacing(RESULTS) as part:
            part.write_text(json.dumps(about, indent=1) + "\n", encoding="utf-8")


if __name__ == "__main__":
    main()
