"""Figures of a run, as PNG files.

Drawn on figure objects of their own, so that the caller's pyplot state and
backend stay as they are.
"""

from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import ArrayLike

_FONT = 11  # points; at 150 dots per inch readable at half size, too
_DASHED = ", validation"


def _new_figure(width: float, height: float) -> Any:
    """An empty matplotlib Figure, in inches, that ``savefig`` draws with Agg."""
    try:
        from matplotlib.backends.backend_agg import FigureCanvasAgg
        from matplotlib.figure import Figure
    except ImportError as error:
        raise ImportError(
            "figures need matplotlib, which is not installed; "
            'install the extra: pip install "speechbrain_ser_cl[plots]"'
        ) from error
    figure = Figure(figsize=(width, height), dpi=150, layout="constrained")
    FigureCanvasAgg(figure)
    return figure


def _save(figure: Any, path: str | Path) -> None:
    path = Path(path)
    path.parent.mkdir(parents=True, exist_ok=True)
    # The layout knows how long the tick labels are only once they have been drawn.
    figure.canvas.draw()
    figure.savefig(path, format="png")


def plot_confusion_matrix(
    matrix: ArrayLike,
    class_names: Sequence[str],
    path: str | Path,
    title: str | None = None,
) -> None:
    """Draw a confusion matrix: counts, and shares of each true class.

    Arguments
    ---------
    matrix : array_like of int
        Counts, shape (C, C), one row per true class.
    class_names : sequence of str
        C names.
    path : str or Path
        Of the PNG file; its folder is made where it does not exist.
    title : str, optional
        Above the matrix.

    Raises
    ------
    ValueError
        When the matrix does not fit the names.
    ImportError
        When matplotlib is missing.

    Example
    -------
    >>> import tempfile
    >>> path = Path(tempfile.mkdtemp(), "confusion.png")
    >>> plot_confusion_matrix([[8, 2], [1, 9]], ["positive", "negative"], path)
    >>> path.read_bytes()[1:4]
    b'PNG'
    """
    counts = np.asarray(matrix)
    n_classes = len(class_names)
    if counts.shape != (n_classes, n_classes):
        raise ValueError(
            f"confusion matrix of shape {counts.shape} for {n_classes} class names; "
            f"expected ({n_classes}, {n_classes})"
        )
    totals = counts.sum(1, keepdims=True)
    shares = counts / np.maximum(totals, 1)
    side = 2.0 + 0.85 * n_classes
    figure = _new_figure(side + 0.6, side)
    axes = figure.add_subplot()
    axes.imshow(shares, cmap="Blues", vmin=0, vmax=1)
    for row in range(n_classes):
        for column in range(n_classes):
            share = f"{100 * shares[row, column]:.1f} %" if totals[row] else "–"
            axes.text(
                column,
                row,
                f"{counts[row, column]}\n{share}",
                ha="center",
                va="center",
                fontsize=_FONT,
                color="white" if shares[row, column] > 0.55 else "black",
            )
    axes.set_xticks(range(n_classes), class_names, fontsize=_FONT)
    axes.set_yticks(range(n_classes), class_names, fontsize=_FONT)
    if max(map(len, class_names)) > 8:
        axes.tick_params(axis="x", rotation=35)
        for label in axes.get_xticklabels():
            label.set_ha("right")
            label.set_rotation_mode("anchor")
    axes.set_xlabel("predicted", fontsize=_FONT)
    axes.set_ylabel("true (rows add up to 100 %)", fontsize=_FONT)
    axes.spines[:].set_visible(False)
    axes.tick_params(length=0)
    if title:
        # The figure's, not the axes': it has the whole width, and wraps.
        figure.suptitle(title, fontsize=_FONT + 1, wrap=True)
    _save(figure, path)


def plot_learning_curves(history: Sequence[Mapping], path: str | Path) -> None:
    """Draw loss terms, validation metrics and, if given, learning rates.

    Arguments
    ---------
    history : sequence of mapping
        One entry per epoch::

            {"epoch": 1, "train": {"loss": 1.2, "emotion": 0.7},
             "valid": {"loss": 1.1, "uar": 0.61}, "lr": 1e-4}

        ``lr`` may also be a mapping from parameter group to rate. Everything
        but ``epoch`` may be missing in some entries or in all. Names of
        ``valid`` that also occur in ``train`` are drawn dashed among the losses.
    path : str or Path
        Of the PNG file; its folder is made where it does not exist.

    Raises
    ------
    ValueError
        When there is nothing to draw.
    ImportError
        When matplotlib is missing.

    Example
    -------
    >>> import tempfile
    >>> path = Path(tempfile.mkdtemp(), "curves.png")
    >>> history = [
    ...     {"epoch": 1, "train": {"loss": 0.9}, "valid": {"uar": 0.5}},
    ...     {"epoch": 2, "train": {"loss": 0.7}, "valid": {"uar": 0.6}},
    ... ]
    >>> plot_learning_curves(history, path)
    >>> path.read_bytes()[1:4]
    b'PNG'
    """
    train = _curves(history, "train")
    valid = _curves(history, "valid")
    losses_too = {name + _DASHED: valid.pop(name) for name in train if name in valid}
    panels = {
        "loss": train | losses_too,
        "validation": valid,
        "learning rate": _curves(history, "lr"),
    }
    panels = {title: curves for title, curves in panels.items() if curves}
    if not panels:
        raise ValueError(
            "the history has no number to draw; expected entries like "
            '{"epoch": 1, "train": {"loss": 1.2}, "valid": {"uar": 0.6}}'
        )
    epochs = [entry["epoch"] for entry in history]
    legend_rows = max(len(curves) for curves in panels.values())
    figure = _new_figure(4.2 * len(panels), 3.4 + 0.22 * legend_rows)
    for axes, (title, curves) in zip(
        np.atleast_1d(figure.subplots(1, len(panels))), panels.items(), strict=True
    ):
        colors: dict[str, str] = {}
        for name, points in curves.items():
            term = name.removesuffix(_DASHED)
            axes.plot(
                *zip(*points, strict=True),
                label=name,
                color=colors.setdefault(term, f"C{len(colors)}"),
                linestyle="--" if name.endswith(_DASHED) else "-",
                marker="o" if len(points) < 30 else None,
                markersize=3.5,
            )
        axes.set_title(title, fontsize=_FONT + 1)
        axes.set_xlabel("epoch", fontsize=_FONT)
        axes.set_xlim(min(epochs) - 0.5, max(epochs) + 0.5)
        axes.xaxis.get_major_locator().set_params(integer=True)
        axes.grid(alpha=0.3)
        axes.spines[["top", "right"]].set_visible(False)
        axes.tick_params(labelsize=_FONT - 1)
        if title == "learning rate":
            axes.set_yscale("log")
        axes.legend(
            loc="upper center",
            bbox_to_anchor=(0.5, -0.2),
            fontsize=_FONT - 1,
            frameon=False,
        )
    _save(figure, path)


def _curves(
    history: Sequence[Mapping], key: str
) -> dict[str, list[tuple[float, float]]]:
    """Name to (epoch, value) of everything below ``key``, gaps left out."""
    curves: dict[str, list[tuple[float, float]]] = {}
    for entry in history:
        values = entry.get(key)
        if values is None:
            continue
        for name, value in (
            values.items() if isinstance(values, Mapping) else [(key, values)]
        ):
            if value is not None and np.isfinite(value):
                curves.setdefault(name, []).append((entry["epoch"], float(value)))
    return curves
