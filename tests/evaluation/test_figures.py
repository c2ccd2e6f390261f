"""Figures: PNG files that show the numbers and leave pyplot alone."""

import subprocess
import sys

import numpy as np
import pytest

from speechbrain_ser_cl.evaluation.figures import (
    plot_confusion_matrix,
    plot_learning_curves,
)

HISTORY = [
    {
        "epoch": epoch,
        "train": {"loss": 1 / epoch, "emotion": 0.7 / epoch, "contrastive": 0.5},
        "valid": {"loss": 1.1 / epoch, "uar": 1 - 0.5 / epoch},
        "lr": {"encoder": 1e-5, "heads": 1e-4},
    }
    for epoch in range(1, 6)
]


def pixels(path):
    from matplotlib.image import imread

    return imread(path)[..., :3]


def share_of(image, color):
    return np.isclose(image, color, atol=0.02).all(-1).mean()


def test_confusion_matrix_is_dark_where_the_row_share_is_high(tmp_path):
    from matplotlib import colormaps

    path = tmp_path / "new" / "confusion.png"
    plot_confusion_matrix([[90, 0], [0, 3]], ["many", "few"], path, title="Demo")
    dark, light = (colormaps["Blues"](share)[:3] for share in (1.0, 0.0))
    image = pixels(path)
    height, width = image.shape[:2]
    # The shares are of the row, so that the rare class is as dark as the other.
    assert share_of(image, dark) > 0.15
    upper_right = image[: height // 2, width // 2 :]
    lower_left = image[height // 2 :, : width // 2]
    assert share_of(upper_right, light) > 0.2
    assert share_of(upper_right, light) > 5 * share_of(upper_right, dark)
    assert share_of(lower_left, light) > 5 * share_of(lower_left, dark)


def test_nothing_is_cut_off_at_an_edge(tmp_path):
    plot_confusion_matrix(
        [[133, 9], [14, 128]], ["negative", "positive"], tmp_path / "m"
    )
    plot_learning_curves(HISTORY, tmp_path / "c")
    for name in ("m", "c"):
        image = pixels(tmp_path / name)
        for edge in (image[0], image[-1], image[:, 0], image[:, -1]):
            assert np.isclose(edge, 1, atol=0.02).all(), name


@pytest.mark.parametrize("n_classes", [1, 2, 8])
def test_confusion_matrix_of_any_size_and_with_an_empty_class(tmp_path, n_classes):
    matrix = np.eye(n_classes, dtype=int)
    matrix[0] = 0
    names = [f"emotion number {i}" for i in range(n_classes)]
    plot_confusion_matrix(matrix, names, tmp_path / "confusion.png", "long " * 20)
    assert pixels(tmp_path / "confusion.png").std() > 0


def test_confusion_matrix_must_fit_the_names(tmp_path):
    with pytest.raises(ValueError, match=r"\(2, 2\) for 3 class names"):
        plot_confusion_matrix(np.eye(2), "abc", tmp_path / "x.png")


def test_learning_curves_have_a_panel_for_what_is_given(tmp_path):
    widths = []
    for keys in (["train"], ["train", "valid"], ["train", "valid", "lr"]):
        history = [{k: entry[k] for k in ["epoch", *keys]} for entry in HISTORY]
        plot_learning_curves(history, tmp_path / "curves.png")
        image = pixels(tmp_path / "curves.png")
        assert share_of(image, (1, 1, 1)) < 0.99
        widths.append(image.shape[1])
    assert widths[1:] == [2 * widths[0], 3 * widths[0]]


@pytest.mark.parametrize(
    "history",
    [
        HISTORY[:1],
        [{"epoch": 1, "train": {"loss": 0.5}, "valid": {"uar": None}, "lr": 0.1}],
        [{"epoch": 1}, {"epoch": 2, "train": {"loss": float("nan"), "a": 2.0}}],
        [{"epoch": 1, "valid": {"uar": 0.5}, "lr": None}] + HISTORY[1:],
    ],
)
def test_learning_curves_with_gaps(tmp_path, history):
    plot_learning_curves(history, tmp_path / "curves.png")
    assert pixels(tmp_path / "curves.png").std() > 0


@pytest.mark.parametrize(
    "history", [[], [{"epoch": 1}], [{"epoch": 1, "train": {"loss": float("inf")}}]]
)
def test_learning_curves_of_nothing_are_refused(tmp_path, history):
    with pytest.raises(ValueError, match="no number to draw"):
        plot_learning_curves(history, tmp_path / "curves.png")


def test_pyplot_is_not_even_imported(tmp_path):
    code = (
        "import sys, speechbrain_ser_cl.evaluation.figures as figures\n"
        "assert 'matplotlib' not in sys.modules\n"
        f"figures.plot_confusion_matrix([[1]], ['a'], {str(tmp_path / 'a.png')!r})\n"
        "assert 'matplotlib.pyplot' not in sys.modules\n"
    )
    subprocess.run([sys.executable, "-c", code], check=True)


def test_without_matplotlib_the_error_names_the_extra(tmp_path, monkeypatch):
    monkeypatch.setitem(sys.modules, "matplotlib.figure", None)
    with pytest.raises(ImportError, match=r"speechbrain_ser_cl\[plots\]"):
        plot_learning_curves(HISTORY, tmp_path / "curves.png")
