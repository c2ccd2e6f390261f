"""Figures: PNG files that show the numbers and do not change pyplot's state."""

import subprocess
import sys

import numpy as np
import pytest

from speechbrain_ser_cl.report.figures import (
    plot_confusion_matrix,
    plot_few_labels,
    plot_learning_curves,
    plot_tsne,
)
from speechbrain_ser_cl.results.few_labels import FewLabelPoint

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
    # Shares are per row, so the rare class is as dark as the other.
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
    speakers = [f"corpus_speaker_{k % 24}" for k in range(120)]
    points = np.random.default_rng(0).random((120, 4))
    plot_tsne(points, {"speaker": speakers}, tmp_path / "t")
    plot_tsne(points, {"a": speakers, "speaker": range(120)}, tmp_path / "u")
    for name in ("m", "c", "t", "u"):
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


def test_few_labels_have_a_band_only_where_there_is_an_interval(tmp_path):
    from matplotlib.colors import to_rgb

    points = [
        FewLabelPoint("mel", "supervised", 0.05, 31, 10, 5, 0.5, 0.5, (0.3, 0.7)),
        FewLabelPoint("mel", "supervised", 0.1, 61, 10, 5, 0.5, 0.5, (0.3, 0.7)),
        FewLabelPoint("mel", "supervised", 1.0, 607, 1, 5, 0.5, 0.5, None),
    ]
    plot_few_labels(points, tmp_path / "few.png", chance=0.25)
    band = 0.8 + 0.2 * np.array(to_rgb("C0"))  # a fifth of the line's colour on white
    image = pixels(tmp_path / "few.png")
    columns = np.isclose(image, band, atol=0.02).all(-1).sum(axis=0)
    half = len(columns) // 2
    # On the logarithmic axis 10 % is left of the middle between 5 % and 100 %.
    assert columns[:half].max() > 0.3 * len(image)
    assert columns[half:].max() == 0


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
        "import sys, speechbrain_ser_cl.report.figures as figures\n"
        "assert 'matplotlib' not in sys.modules\n"
        f"figures.plot_confusion_matrix([[1]], ['a'], {str(tmp_path / 'a.png')!r})\n"
        "assert 'matplotlib.pyplot' not in sys.modules\n"
    )
    subprocess.run([sys.executable, "-c", code], check=True)


def test_without_matplotlib_the_error_names_the_extra(tmp_path, monkeypatch):
    monkeypatch.setitem(sys.modules, "matplotlib.figure", None)
    with pytest.raises(ImportError, match=r"speechbrain_ser_cl\[plots\]"):
        plot_learning_curves(HISTORY, tmp_path / "curves.png")


def test_tsne_has_a_panel_for_each_colouring_of_the_same_points(tmp_path):
    """Two distant groups: one colour each in the first panel, both in the second."""
    from matplotlib import colormaps

    rng = np.random.default_rng(0)
    embeddings = rng.normal(size=(80, 6)) + 30 * np.repeat([0, 1], 40)[:, None]
    colourings = {
        "emotion": np.repeat(["angry", "sad"], 40),
        "speaker": np.tile(["s1", "s2"], 40),
    }
    plot_tsne(embeddings, colourings, tmp_path / "new" / "tsne.png", title="Demo")
    image = pixels(tmp_path / "new" / "tsne.png")
    image = image[: int(image.shape[0] * 0.85)]  # without the legends
    blue, orange = colormaps["tab10"]([0, 1])[:, :3]

    def middles(panel):
        return [
            np.argwhere(np.isclose(panel, color, atol=0.02).all(-1)).mean(axis=0)
            for color in (blue, orange)
        ]

    panels = np.array_split(image, 2, axis=1)
    apart, mixed = (np.linalg.norm(a - b) for a, b in map(middles, panels))
    assert apart > 5 * mixed
    both = [
        np.isclose(panel, blue, atol=0.02).all(-1)
        | np.isclose(panel, orange, atol=0.02).all(-1)
        for panel in panels
    ]
    np.testing.assert_allclose(
        *(np.argwhere(where).mean(axis=0) for where in both), atol=10
    )


def test_tsne_of_many_speakers_gives_each_a_colour(tmp_path):
    rng = np.random.default_rng(0)
    speakers = np.arange(24).repeat(4)
    path = tmp_path / "tsne.png"
    plot_tsne(rng.normal(size=(96, 3)), {"speaker": speakers}, path)
    colors = np.unique((pixels(path).reshape(-1, 3) * 255).round(), axis=0)
    assert len(colors) >= 24


def test_tsne_is_the_same_with_the_same_seed(tmp_path):
    embeddings = np.random.default_rng(0).normal(size=(30, 4))
    for name in "ab":
        plot_tsne(embeddings, {"x": ["u", "v"] * 15}, tmp_path / name)
    assert (tmp_path / "a").read_bytes() == (tmp_path / "b").read_bytes()


def test_tsne_errors(tmp_path):
    with pytest.raises(ValueError, match="N at least 4"):
        plot_tsne(np.zeros((3, 2)), {}, tmp_path / "x")
    with pytest.raises(ValueError, match="emotion: 1 groups for 5 embeddings"):
        plot_tsne(np.zeros((5, 2)), {"emotion": ["sad"]}, tmp_path / "x")
    with pytest.raises(ValueError, match="not finite"):
        plot_tsne(np.full((5, 2), np.nan), {"emotion": ["sad"] * 5}, tmp_path / "x")
    with pytest.raises(ValueError, match="at least one colouring"):
        plot_tsne(np.zeros((5, 2)), {}, tmp_path / "x")
