"""Draws figures of a run as PNG files; the folder of each file is created if needed.

Every function raises ImportError if matplotlib is not installed. The caller's pyplot
state and backend do not change.
"""

from collections.abc import Mapping, Sequence
from itertools import cycle
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import ArrayLike

_FONT = 11  # points; readable at half size too, with 150 dots per inch
_MAX_LEGEND = 24  # the most colours that can be distinguished
_DASHED = ", validation"


def _new_figure(width: float, height: float) -> Any:
    """Makes an empty matplotlib Figure; sizes are in inches."""
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
    # The layout needs the size of the tick labels, which is known after drawing.
    figure.draw_without_rendering()
    figure.canvas.print_png(path)


def _style(axes: Any, xlabel: str, title: str = "") -> None:
    """Sets the title, the grid and the sizes of text that curves share."""
    axes.set_title(title, fontsize=_FONT + 1)
    axes.set_xlabel(xlabel, fontsize=_FONT)
    axes.grid(alpha=0.3)
    axes.spines[["top", "right"]].set_visible(False)
    axes.tick_params(labelsize=_FONT - 1)


def _legend_below(axes: Any, y: float, size: int = _FONT - 1, **more: Any) -> None:
    axes.legend(
        loc="upper center",
        bbox_to_anchor=(0.5, y),
        fontsize=size,
        frameon=False,
        **more,
    )


def plot_confusion_matrix(
    matrix: ArrayLike,
    class_names: Sequence[str],
    path: str | Path,
    title: str | None = None,
) -> None:
    """Draws a confusion matrix: counts, and shares of each true class.

    Arguments
    ---------
    matrix : array_like of int
        Counts, shape (C, C), one row per true class.
    class_names : sequence of str
        C names.
    path : str or Path
        PNG file.
    title : str, optional
        Title above the matrix.

    Raises
    ------
    ValueError
        If the matrix does not fit the names.

    Example
    -------
    >>> path = getfixture("tmp_path") / "confusion.png"
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
            label = axes.text(
                column,
                row,
                f"{counts[row, column]}\n{share}",
                ha="center",
                va="center",
                fontsize=_FONT,
                color="white" if shares[row, column] > 0.55 else "black",
            )
            label.set_in_layout(False)  # it is inside: saves time
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
        # The figure's title, not the axes': it has the full width and wraps.
        figure.suptitle(title, fontsize=_FONT + 1, wrap=True)
    _save(figure, path)


def plot_layer_curve(layers: Sequence[int], uars: ArrayLike, path: str | Path) -> None:
    """Draws the score of each layer: a thin line per fold, a thick one for the mean.

    Arguments
    ---------
    layers : sequence of int
        L numbers of layers.
    uars : array_like of float
        Scores in [0, 1], shape (L, folds).
    path : str or Path
        PNG file.

    Example
    -------
    >>> path = getfixture("tmp_path") / "layers.png"
    >>> plot_layer_curve([0, 1], [[0.5, 0.6], [0.7, 0.6]], path)
    >>> path.read_bytes()[1:4]
    b'PNG'
    """
    percent = 100 * np.asarray(uars)
    figure = _new_figure(5.0, 3.4)
    axes = figure.add_subplot()
    axes.plot(layers, percent, color="C0", alpha=0.3, linewidth=1)
    axes.plot(layers, percent.mean(axis=1), color="C0", marker="o", linewidth=2)
    axes.set_ylabel("UAR in %, inner folds", fontsize=_FONT)
    axes.xaxis.get_major_locator().set_params(integer=True)
    _style(axes, "layer (0: input of the lowest)")
    _save(figure, path)


def plot_learning_curves(
    history: Sequence[Mapping[str, Any]], path: str | Path
) -> None:
    """Draws loss terms, validation metrics and, if given, learning rates.

    Arguments
    ---------
    history : sequence of mapping
        One entry per epoch::

            {"epoch": 1, "train": {"loss": 1.2, "emotion": 0.7},
             "valid": {"loss": 1.1, "uar": 0.61}, "lr": 1e-4}

        ``lr`` may also be a mapping from parameter group to rate. All keys except
        ``epoch`` may be missing. Names of ``valid`` that also occur in ``train`` are
        drawn dashed among the losses.
    path : str or Path
        PNG file.

    Raises
    ------
    ValueError
        If there is nothing to draw.

    Example
    -------
    >>> path = getfixture("tmp_path") / "curves.png"
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
        axes.set_xlim(min(epochs) - 0.5, max(epochs) + 0.5)
        axes.xaxis.get_major_locator().set_params(integer=True)
        _style(axes, "epoch", title)
        if title == "learning rate":
            axes.set_yscale("log")
        _legend_below(axes, -0.2)
    _save(figure, path)


def plot_similarities(
    similarities: Mapping[str, tuple[ArrayLike, ArrayLike]], path: str | Path
) -> None:
    """Draws the similarity of positive and negative pairs in each layer.

    Arguments
    ---------
    similarities : mapping
        Model name to the means of positive and of negative pairs in each layer, from
        ``pair_similarities``; one panel per model.
    path : str or Path
        PNG file.

    Example
    -------
    >>> path = getfixture("tmp_path") / "similarity.png"
    >>> plot_similarities({"pretrained": ([0.9, 0.9], [0.9, 0.8])}, path)
    >>> path.read_bytes()[1:4]
    b'PNG'
    """
    figure = _new_figure(0.6 + 3.6 * len(similarities), 3.4)
    panels = figure.subplots(1, len(similarities), sharey=True, squeeze=False)[0]
    for axes, (title, (positive, negative)) in zip(
        panels, similarities.items(), strict=True
    ):
        axes.plot(positive, "o-", label="same emotion")
        axes.plot(negative, "s--", label="different emotions")
        axes.xaxis.get_major_locator().set_params(integer=True)
        _style(axes, "layer", title)
    panels[0].set_ylabel("mean cosine similarity of pairs", fontsize=_FONT)
    panels[0].legend(fontsize=_FONT - 1, frameon=False)
    _save(figure, path)


def plot_sweep(
    panels: Mapping[str, Mapping[str, Sequence[tuple[Any, ...]]]],
    path: str | Path,
    xlabel: str,
    baseline: Mapping[str, tuple[Any, ...]] | None = None,
) -> None:
    """Draws metrics against a varied value, with their intervals.

    Arguments
    ---------
    panels : mapping
        Title of a metric to its curves: name to points (value, mean, low, high). Bounds
        may be None. Numeric values are drawn to scale, logarithmic if they are positive
        and span more than a decade; other values are evenly spaced.
    path : str or Path
        PNG file.
    xlabel : str
        Name of the varied value.
    baseline : mapping, optional
        Title of a metric to (name, mean, low, high) of the baseline.

    Raises
    ------
    ValueError
        If there is nothing to draw.

    Example
    -------
    >>> path = getfixture("tmp_path") / "margin.png"
    >>> curve = [(0.1, 52.0, 50.1, 53.9), (0.2, 53.0, 51.5, 54.5)]
    >>> plot_sweep({"UAR %": {"Triplet": curve}}, path, "margin")
    >>> path.read_bytes()[1:4]
    b'PNG'
    """
    curves = [curve for panel in panels.values() for curve in panel.values()]
    values = list(dict.fromkeys(point[0] for curve in curves for point in curve))
    if not values:
        raise ValueError("no points to draw; expected at least one curve")
    to_scale = all(isinstance(value, int | float) for value in values)
    if to_scale:
        values.sort()
        place = {value: value for value in values}
    else:
        place = {value: i for i, value in enumerate(values)}
    n_lines = max(map(len, panels.values())) + bool(baseline)
    slanted = len(values) > 6 or max(len(str(value)) for value in values) > 8
    n_columns = min(3, len(panels))
    n_rows = -(-len(panels) // n_columns)
    figure = _new_figure(0.6 + 4.0 * n_columns, n_rows * (3.4 + 0.22 * n_lines))
    grid = figure.subplots(n_rows, n_columns, squeeze=False).ravel()
    for axes in grid[len(panels) :]:
        axes.set_axis_off()
    for axes, (title, panel) in zip(grid, panels.items(), strict=False):
        if baseline and title in baseline:
            name, mean, low, high = baseline[title]
            axes.axhline(mean, color="0.4", linestyle=":", label=name, zorder=1)
            if low is not None:
                axes.axhspan(low, high, color="0.4", alpha=0.12, linewidth=0)
        for marker, (name, curve) in zip(cycle("os^Dv"), panel.items()):
            points = sorted(curve, key=lambda point: place[point[0]])
            x = np.array([place[point[0]] for point in points])
            mean, low, high = np.array([p[1:] for p in points], dtype=float).T
            (line,) = axes.plot(
                x,
                mean,
                marker=marker,
                markersize=5,
                linestyle="-" if to_scale else "none",
                label=name,
            )
            if to_scale:
                axes.fill_between(
                    x, low, high, color=line.get_color(), alpha=0.2, linewidth=0
                )
            else:
                axes.vlines(x, low, high, color=line.get_color())
        if to_scale and values[0] > 0 and values[-1] / values[0] > 10:
            axes.set_xscale("log")
        axes.set_xticks(list(place.values()), list(map(str, values)))
        axes.set_xticks([], minor=True)
        if slanted:
            axes.tick_params(axis="x", rotation=45)
        _style(axes, xlabel, title)
        _legend_below(axes, -0.32 if slanted else -0.2)
    _save(figure, path)


def plot_importance(shares: Mapping[str, float], path: str | Path) -> None:
    """Draws the fraction of a search score's variance that each key explains.

    Arguments
    ---------
    shares : mapping
        Key to its fraction, in [0, 1].
    path : str or Path
        PNG file.

    Example
    -------
    >>> path = getfixture("tmp_path") / "importance.png"
    >>> plot_importance({"lr": 0.75, "temperature": 0.25}, path)
    >>> path.read_bytes()[1:4]
    b'PNG'
    """
    figure = _new_figure(7, 1.0 + 0.35 * len(shares))
    axes = figure.subplots()
    axes.barh(range(len(shares)), [100 * share for share in shares.values()])
    axes.set_yticks(range(len(shares)), list(shares), fontsize=_FONT)
    axes.invert_yaxis()
    axes.set_xlabel("share of the score's variance, %", fontsize=_FONT)
    _save(figure, path)


def plot_timeline(
    tiers: Mapping[str | None, Sequence[tuple[float, float, Mapping[str, float]]]],
    seconds: float,
    path: str | Path,
) -> None:
    """Draws the probabilities of each class over the time of a recording.

    Each speaker has a panel.

    Arguments
    ---------
    tiers : mapping of str or None to sequence of (start, end, probabilities)
        The windows of each speaker; times in seconds. Where windows overlap, the border
        between them is the middle of the shared time.
    seconds : float
        Length of the recording.
    path : str or Path
        PNG file.

    Raises
    ------
    ValueError
        If there is no window.

    Example
    -------
    >>> path = getfixture("tmp_path") / "time.png"
    >>> windows = [(0.0, 2.0, {"sad": 0.75, "angry": 0.25})]
    >>> plot_timeline({"anna": windows, "bea": windows}, 3.0, path)
    >>> path.read_bytes()[1:4]
    b'PNG'
    """
    if not any(tiers.values()):
        raise ValueError("there is no window to draw: the recording has no speech")
    names = next(list(windows[0][2]) for windows in tiers.values() if windows)
    unit, name = (60.0, "min") if seconds > 300 else (1.0, "s")
    n_titles = sum(bool(speaker) for speaker in tiers)
    height = 0.9 + 0.35 * len(names) * len(tiers) + 0.4 * n_titles
    figure = _new_figure(10, height)
    panels = figure.subplots(len(tiers), 1, sharex=True, squeeze=False)[:, 0]
    for axes, (speaker, windows) in zip(panels, tiers.items(), strict=True):
        drawn = axes.imshow(
            _over_time(windows, len(names), seconds),
            aspect="auto",
            interpolation="nearest",
            cmap="viridis",
            vmin=0,
            vmax=1,
            extent=(0, seconds / unit, len(names) - 0.5, -0.5),
        )
        axes.set_yticks(range(len(names)), names, fontsize=_FONT)
        if speaker:
            axes.set_title(speaker, fontsize=_FONT, loc="left")
    panels[-1].set_xlabel(f"time in {name}", fontsize=_FONT)
    figure.colorbar(drawn, ax=list(panels), label="probability")
    _save(figure, path)


def _over_time(
    windows: Sequence[tuple[float, float, Mapping[str, float]]],
    n_classes: int,
    seconds: float,
) -> Any:
    """Returns the probability of each class (row) in each of 2000 parts of the time."""
    n_columns = 2000
    image = np.full((n_classes, n_columns), np.nan)
    reached = 0.0
    for start, end, shares in sorted(windows, key=lambda window: window[:2]):
        first = (start + min(reached, end)) / 2 if reached > start else start
        columns = [round(n_columns * t / seconds) for t in (first, end)]
        parts = slice(columns[0], max(columns[1], columns[0] + 1))
        image[:, parts] = np.array([list(shares.values())]).T
        reached = end
    return image


def plot_few_labels(points: Sequence[Any], path: str | Path, chance: float) -> None:
    """Draws UAR against the fraction of labels, one panel per view.

    The bands are the points' intervals; points of a single draw have none.

    Arguments
    ---------
    points : sequence of FewLabelPoint
        From ``few_labels.few_label_points``.
    path : str or Path
        PNG file.
    chance : float
        Chance level of the UAR, in [0, 1].

    Raises
    ------
    ValueError
        If there is nothing to draw.

    Example
    -------
    >>> from speechbrain_ser_cl.results.few_labels import FewLabelPoint
    >>> path = getfixture("tmp_path") / "few_labels.png"
    >>> points = [
    ...     FewLabelPoint("mel", "base", f, 9, 10, 5, 0.4 + f, 0.4, (0.3 + f, 0.5 + f))
    ...     for f in (0.05, 0.1)
    ... ]
    >>> plot_few_labels(points, path, chance=0.25)
    >>> path.read_bytes()[1:4]
    b'PNG'
    """
    if not points:
        raise ValueError("no points to draw; expected at least one")
    views = list(dict.fromkeys(point.view for point in points))
    methods = list(dict.fromkeys(point.method for point in points))
    fractions = sorted({point.fraction for point in points})
    figure = _new_figure(0.8 + 3.6 * len(views), 3.6)
    panels = figure.subplots(1, len(views), sharey=True, squeeze=False)[0]
    for axes, view in zip(panels, views, strict=True):
        for marker, method in zip(cycle("os^Dv"), methods):
            own = [p for p in points if (p.view, p.method) == (view, method)]
            x = [100 * point.fraction for point in own]
            y = [100 * point.uar for point in own]
            (line,) = axes.plot(x, y, marker=marker, markersize=5, label=method)
            bounds = [p.interval or (np.nan, np.nan) for p in own]
            low, high = 100 * np.array(bounds).reshape(-1, 2).T
            axes.fill_between(x, low, high, color=line.get_color(), alpha=0.2)
        axes.axhline(100 * chance, color="0.4", linestyle=":", label="chance")
        axes.set_xscale("log")
        axes.set_xticks(
            [100 * f for f in fractions], [f"{100 * f:g}" for f in fractions]
        )
        axes.minorticks_off()
        _style(axes, "labels in %", view)
    panels[0].set_ylabel("UAR in %, 95 % over draws", fontsize=_FONT)
    panels[0].legend(fontsize=_FONT - 1, frameon=False)
    _save(figure, path)


def plot_tsne(
    embeddings: ArrayLike,
    colourings: Mapping[str, Sequence[Any]],
    path: str | Path,
    title: str | None = None,
    seed: int = 0,
) -> None:
    """Draws embeddings in two dimensions, once for each colouring.

    t-SNE (van der Maaten and Hinton 2008) keeps neighbours together. Sizes of groups
    and distances between them have no meaning. All panels show the same points.

    Arguments
    ---------
    embeddings : array_like of float
        Shape (N, D), N at least 4.
    colourings : mapping of str to sequence
        For example ``{"emotion": [...], "speaker": [...]}``: title of a panel to the
        group of each utterance. With more than 24 groups their number replaces the
        legend.
    path : str or Path
        PNG file.
    title : str, optional
        Title above the panels.
    seed : int
        Seed of t-SNE.

    Raises
    ------
    ValueError
        If there are too few embeddings, one is not finite, or a colouring has another
        length.

    Example
    -------
    >>> path = getfixture("tmp_path") / "tsne.png"
    >>> embeddings = np.random.default_rng(0).normal(size=(12, 3))
    >>> plot_tsne(embeddings, {"emotion": ["sad", "happy"] * 6}, path)
    >>> path.read_bytes()[1:4]
    b'PNG'
    """
    from sklearn.manifold import TSNE

    embeddings = np.asarray(embeddings, dtype=np.float64)
    if embeddings.ndim != 2 or len(embeddings) < 4:
        raise ValueError(
            f"expected embeddings (N, D), N at least 4; found shape {embeddings.shape}"
        )
    if not np.isfinite(embeddings).all():
        raise ValueError("embeddings hold values that are not finite")
    if not colourings:
        raise ValueError("expected at least one colouring")
    for name, groups in colourings.items():
        if len(groups) != len(embeddings):
            raise ValueError(
                f"{name}: {len(groups)} groups for {len(embeddings)} embeddings"
            )
    perplexity = min(30, (len(embeddings) - 1) / 3)  # scikit-learn's default: 30
    points = TSNE(perplexity=perplexity, random_state=seed).fit_transform(embeddings)

    middle = (points.max(axis=0) + points.min(axis=0)) / 2
    half_side = 0.54 * np.ptp(points, axis=0).max()
    limits = np.stack([middle - half_side, middle + half_side])

    panels = {
        name: {group: np.equal(groups, group) for group in sorted(set(groups))}
        for name, groups in colourings.items()
    }
    legends = [list(map(str, p)) for p in panels.values() if len(p) <= _MAX_LEGEND]
    rows = max((-(-len(names) // _columns(names)) for names in legends), default=0)
    figure = _new_figure(5.2 * len(panels), 4.8 + 0.2 * rows)
    for axes, (name, members) in zip(
        np.atleast_1d(figure.subplots(1, len(panels))), panels.items(), strict=True
    ):
        colors = _colors(len(members))
        for (group, chosen), color in zip(members.items(), colors, strict=True):
            axes.scatter(*points[chosen].T, s=9, color=color, label=str(group))
        axes.set_xticks([])
        axes.set_yticks([])
        axes.set(xlim=limits[:, 0], ylim=limits[:, 1], box_aspect=1)
        if len(members) > _MAX_LEGEND:
            axes.set_title(f"{name} ({len(members)})", fontsize=_FONT + 1)
            continue
        axes.set_title(name, fontsize=_FONT + 1)
        columns = _columns(list(map(str, members)))
        _legend_below(
            axes, -0.02, _FONT - 2, ncols=columns, markerscale=2, handletextpad=0.1
        )
    if title:
        figure.suptitle(title, fontsize=_FONT + 1, wrap=True)
    _save(figure, path)


def _columns(names: Sequence[str]) -> int:
    """Returns how many columns of names fit below a panel."""
    return max(1, 60 // (max(map(len, names)) + 6))


def _colors(count: int) -> Any:
    """Returns ``count`` colours that differ as much as possible: (count, 4)."""
    from matplotlib import colormaps

    if count <= 10:
        return colormaps["tab10"](range(count))
    if count <= 20:
        return colormaps["tab20"](range(count))
    return colormaps["turbo"](np.linspace(0, 1, count))


def _curves(
    history: Sequence[Mapping[str, Any]], key: str
) -> dict[str, list[tuple[float, float]]]:
    """Collects (epoch, value) of each number below ``key``; skips missing ones."""
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
