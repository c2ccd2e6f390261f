"""``predictions.csv``: written and read back, and what is refused."""

import csv

import numpy as np
import pytest

from speechbrain_ser_cl.results import read_predictions, write_predictions

NAMES = ["angry", "happy", "sad"]


def example(n=20):
    rng = np.random.default_rng(0)
    probabilities = rng.dirichlet(np.ones(3), size=n)
    ids = [f'Ses01F, take "{i}" ü' for i in range(n)]
    return ids, rng.integers(0, 3, n), probabilities.argmax(1), probabilities


def test_there_and_back(tmp_path):
    path = tmp_path / "new" / "predictions.csv"
    ids, labels, predictions, probabilities = example()
    write_predictions(path, ids, labels, predictions, probabilities, NAMES)
    found = read_predictions(path)
    assert found.ids == ids
    assert found.class_names == NAMES
    np.testing.assert_array_equal(found.labels, labels)
    np.testing.assert_array_equal(found.predictions, predictions)
    np.testing.assert_allclose(found.probabilities, probabilities, atol=1e-6)


def test_any_csv_reader_understands_it(tmp_path):
    path = tmp_path / "predictions.csv"
    ids, labels, predictions, probabilities = example()
    write_predictions(path, ids, labels, predictions, probabilities, NAMES)
    with open(path, encoding="utf-8", newline="") as file:
        rows = list(csv.DictReader(file))
    assert [row["id"] for row in rows] == ids
    assert [NAMES.index(row["label"]) for row in rows] == labels.tolist()
    assert float(rows[3]["p_sad"]) == pytest.approx(probabilities[3, 2], abs=1e-6)


def test_no_utterances(tmp_path):
    path = tmp_path / "predictions.csv"
    write_predictions(path, [], [], [], np.zeros((0, 3)), NAMES)
    assert read_predictions(path).probabilities.shape == (0, 3)


def test_an_older_file_is_replaced_and_nothing_else_is_left(tmp_path):
    path = tmp_path / "predictions.csv"
    path.write_text("old")
    write_predictions(path, ["a"], [2], [0], [[0.1, 0.2, 0.7]], NAMES)
    assert read_predictions(path).ids == ["a"]
    assert list(tmp_path.iterdir()) == [path]


@pytest.mark.parametrize(
    "change, message",
    [
        ({"ids": ["a"]}, "1 ids, 2 labels, 2 predictions"),
        ({"probabilities": [[0.5, 0.5]] * 2}, r"3 classes.*shape \(2, 2\)"),
        ({"labels": [-1, 0]}, r"\[-1\], expected them in \[0, 3\)"),
        ({"predictions": [0, 3]}, r"\[3\], expected them in \[0, 3\)"),
        ({"ids": ["a", "a"]}, "occur more than once .1: a"),
    ],
)
def test_lists_that_do_not_fit_are_refused(tmp_path, change, message):
    arguments = {
        "ids": ["a", "b"],
        "labels": [0, 1],
        "predictions": [0, 1],
        "probabilities": [[0.2, 0.3, 0.5]] * 2,
    }
    path = tmp_path / "predictions.csv"
    with pytest.raises(ValueError, match=message):
        write_predictions(path, **(arguments | change), class_names=NAMES)
    assert list(tmp_path.iterdir()) == []


@pytest.mark.parametrize(
    "text, message",
    [
        ("", "the file is empty"),
        (
            "id,label,p_a\nx,a,1\n",
            "are id, label, p_a, expected id,",
        ),
        ("id,label,prediction\n", "one p_<class>"),
        ("id,label,prediction,p_a,p_b\nx,a,c,0,1\n", "line 2: unknown class 'c'"),
        (
            "id,label,prediction,p_a,p_b\nx,a,b,0,high\n",
            "0, high, expected 2 prob",
        ),
        ("id,label,prediction,p_a,p_b\nx,a,b,0\n", "line 2: 4 cells, expected 5"),
        ("id,label,prediction,p_a,p_b\nx,a,b,0,1\ny\n", "line 3: "),
        ("id,label,prediction,p_a,p_b\nx,a,b,0,nan\n", "line 2: 0, nan, expected"),
        ("id,label,prediction,p_a\nx,a,a,1\nx,a,a,1\n", "line 3: the id 'x' occurs"),
    ],
)
def test_damaged_files_are_refused(tmp_path, text, message):
    path = tmp_path / "predictions.csv"
    path.write_text(text)
    with pytest.raises(ValueError, match=message) as error:
        read_predictions(path)
    assert str(path) in str(error.value)
