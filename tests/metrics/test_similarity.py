"""Similarity of pairs, against a loop over all pairs."""

import csv

import numpy as np
import pytest

from speechbrain_ser_cl.metrics import pair_similarities, write_similarities
from speechbrain_ser_cl.report.figures import plot_similarities


def by_pairs(embeddings, labels):
    """Computes mean cosines over all ordered pairs of one layer."""
    same, other = [], []
    for i, a in enumerate(embeddings):
        for j, b in enumerate(embeddings):
            if i != j:
                cosine = a @ b / np.sqrt(a @ a) / np.sqrt(b @ b)
                (same if labels[i] == labels[j] else other).append(cosine)
    return np.mean(same), np.mean(other)


def test_equals_a_loop_over_pairs():
    rng = np.random.default_rng(0)
    embeddings = rng.normal(0.3, 1, size=(4, 23, 7)) * rng.uniform(0.1, 9, (4, 23, 1))
    labels = rng.choice(["sad", "happy", "angry"], 23)
    positive, negative = pair_similarities(embeddings, labels)
    for layer in range(4):
        expected = by_pairs(embeddings[layer], labels)
        assert (positive[layer], negative[layer]) == pytest.approx(expected)


def test_a_label_of_one_utterance_has_negative_pairs_only():
    embeddings = np.eye(3)[None, [0, 0, 1]]
    assert pair_similarities(embeddings, [0, 0, 1]) == ([1.0], [0.0])
    assert pair_similarities(-embeddings, [0, 1, 1]) == ([0.0], [0.5])


@pytest.mark.parametrize("labels", [["a"] * 4, list("abcd")])
def test_without_pairs_of_both_kinds_there_is_nothing_to_compare(labels):
    with pytest.raises(ValueError, match="4 utterances of [14] labels make no pairs"):
        pair_similarities(np.ones((1, 4, 2)), labels)


def test_shapes_that_do_not_fit():
    with pytest.raises(ValueError, match=r"of 3 labelled.*found shape \(1, 4, 2\)"):
        pair_similarities(np.ones((1, 4, 2)), ["a", "a", "b"])


def test_csv_and_figure(tmp_path):
    found = {
        "pretrained": ([0.5, 0.25], [0.5, 0.125]),
        "fine-tuned": ([0.5, 1], [0.5, -0.5]),
    }
    write_similarities(tmp_path / "new" / "s.csv", found)
    with open(tmp_path / "new" / "s.csv", newline="") as file:
        rows = list(csv.DictReader(file))
    assert [row["model"] for row in rows] == ["pretrained"] * 2 + ["fine-tuned"] * 2
    assert [float(row["negative"]) for row in rows] == [0.5, 0.125, 0.5, -0.5]
    assert [row["layer"] for row in rows] == ["0", "1"] * 2
    plot_similarities(found, tmp_path / "new" / "s.png")
    assert (tmp_path / "new" / "s.png").read_bytes().startswith(b"\x89PNG")
