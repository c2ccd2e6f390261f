#!/usr/bin/env python3
"""Compares nearest neighbours in embeddings with and without a contrastive loss.

Two views of an utterance share speaker, text and emotion, so that a loss between views
may draw together any of them. Of each run of a table (its embeddings of the target's
test part) this is the Recall@1 of emotion, speaker and text: how often the nearest
other utterance (cosine) is of the same.

> ser-cl table recipes/EmoDB_RAVDESS/tables/both.yaml --output_folder both ...
> python benchmarks/neighbours.py both

Authors
 * The speechbrain_ser_cl contributors 2026
"""

import argparse
import json
from datetime import datetime, timezone
from pathlib import Path

import numpy as np
from tqdm import tqdm

from speechbrain_ser_cl.metrics import recall_at_1
from speechbrain_ser_cl.results import read_embeddings
from speechbrain_ser_cl.results.utterances import read_parts

RESULTS = Path(__file__).parent / "results" / "neighbours.json"


def measure(folder):
    """Reads the setting, UAR and Recall@1 of what utterances share, of one run."""
    record = json.loads((folder / "results.json").read_text(encoding="utf-8"))
    found = read_embeddings(folder / "embeddings.npz")
    tested = read_parts(folder / "utterances.csv")["target_test"]
    text_of = {item.utterance.id: str(item.utterance.text_id) for item in tested}
    x = found.embeddings.astype(np.float64)
    x /= np.linalg.norm(x, axis=1, keepdims=True)
    shared = {"emotion": found.labels, "speaker": found.speakers}
    shared["text"] = [text_of[name] for name in found.ids]
    about = {key: record[key] for key in ("setting", "order", "source", "target")}
    return {
        **about,
        "encoder": record["encoder"],
        "seed": record["seed"],
        "uar": record["test"]["uar"]["value"],
        **{name: round(recall_at_1(x, labels), 4) for name, labels in shared.items()},
        "chance": {name: 1 / len(set(labels)) for name, labels in shared.items()},
    }


def main():
    """Reads the runs and writes the table."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("folders", nargs="+", type=Path, help="of ser-cl table")
    options = parser.parse_args()
    paths = [p.parent for f in options.folders for p in f.rglob("embeddings.npz")]
    runs = [measure(folder) for folder in tqdm(sorted(paths), "runs")]
    found = {"date": datetime.now(timezone.utc).date().isoformat(), "runs": runs}
    RESULTS.write_text(json.dumps(found, indent=1) + "\n", encoding="utf-8")


if __name__ == "__main__":
    main()
