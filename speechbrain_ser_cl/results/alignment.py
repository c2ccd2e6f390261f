"""Similarity of the representations of several views, by PWCCA.

A run of one fold writes an ``alignment.json``::

    {"about": {"encoder": …, "corpora": […], "demo": false}, "fold": 0,
     "utterances": 790,
     "pwcca": {"random": {"w2v2 – mel": 0.31, …}, "Pairwise-CL": {…}, …}}
"""

import warnings
from collections.abc import Mapping
from itertools import combinations
from pathlib import Path
from typing import Any

from numpy.typing import ArrayLike

from speechbrain_ser_cl.metrics.pwcca import pwcca
from speechbrain_ser_cl.results.measured import find_records
from speechbrain_ser_cl.results.text import NONE, markdown_table, mean_and_spread
from speechbrain_ser_cl.utils.records import write
from speechbrain_ser_cl.utils.schemas import ALIGNMENT

FILE = "alignment.json"


def view_alignment(
    embeddings: Mapping[str, Mapping[str, ArrayLike]],
) -> dict[str, dict[str, float | None]]:
    """Computes PWCCA of each pair of views, mean of both directions.

    Arguments
    ---------
    embeddings : mapping
        Model name to view name to its embeddings (N, D) of the same N utterances.

    Returns
    -------
    dict
        Model name to ``"one view – other view"`` to the value, in [0, 1], or None if
        there are too few utterances for the number of dimensions.

    Raises
    ------
    ValueError
        From :func:`pwcca`, with the names of model and views.

    Example
    -------
    >>> import numpy as np
    >>> x = np.random.default_rng(0).normal(size=(50, 3))
    >>> found = view_alignment({"random": {"a": x, "b": 2 * x + 1}})
    >>> round(found["random"]["a – b"], 6)
    1.0
    """
    found: dict[str, dict[str, float | None]] = {}
    for model, views in embeddings.items():
        found[model] = {}
        for (a, x), (b, y) in combinations(views.items(), 2):
            try:
                with warnings.catch_warnings():
                    warnings.simplefilter("error", UserWarning)
                    value = (pwcca(x, y) + pwcca(y, x)) / 2
            except UserWarning:  # some correlations are 1 for any data
                value = None
            except ValueError as error:
                raise ValueError(f"{model}, {a} and {b}: {error}") from error
            found[model][f"{a} – {b}"] = value
    return found


def write_alignment(
    path: str | Path,
    about: Mapping[str, Any],
    fold: int,
    utterances: int,
    found: Mapping[str, Any],
) -> None:
    """Writes the results of one fold.

    Arguments
    ---------
    path : str or pathlib.Path
        Output file, written whole or not at all.
    about : mapping
        See the module's docstring.
    fold : int
        Number of the fold.
    utterances : int
        Number of embedded utterances.
    found : mapping
        From :func:`view_alignment`.
    """
    contents = {"about": about, "fold": fold, "utterances": utterances, "pwcca": found}
    write(path, ALIGNMENT, contents)


def alignment_table(folder: str | Path) -> str:
    """Returns a Markdown table of all ``alignment.json`` files below a folder.

    Arguments
    ---------
    folder : str or pathlib.Path
        Folder, searched at any depth.

    Returns
    -------
    str
        Table; ends in a newline.

    Raises
    ------
    ValueError
        If there is no file, a file is invalid, or experiments differ.
    """
    files = list(find_records(folder, FILE))
    if not files:
        raise ValueError(f"{folder}: no {FILE} in it or below it")
    folds = []
    for _, found in files:
        shape = [found["about"], [(m, list(v)) for m, v in found["pwcca"].items()]]
        folds.append((shape, found))
    if any(shape != folds[0][0] for shape, _ in folds):
        raise ValueError(f"{folder}: the {FILE} files are of different experiments")
    about, models = folds[0][0]
    pairs = models[0][1]
    sizes = sorted({found["utterances"] for _, found in folds})
    size = f"{sizes[0]} to {sizes[-1]}" if len(sizes) > 1 else f"{sizes[0]}"
    demo = ", DEMO on synthetic speech" if about["demo"] else ""
    caption = (
        f"**{' + '.join(about['corpora'])}, {about['encoder']}{demo}** "
        f"({len(folds)} fold{'s' * (len(folds) > 1)} of {size} utterances not trained "
        "on)"
    )
    rows = []
    for model, _ in models:
        rows.append([model])
        for pair in pairs:
            values = [found["pwcca"][model][pair] for _, found in folds]
            known = None not in values
            rows[-1].append(mean_and_spread(values, "{:.3f}".format) if known else NONE)
    note = (
        "PWCCA, mean of both directions; ± is the standard deviation over folds. It "
        "grows with fewer utterances for the same number of dimensions: compare with "
        "the row of random encoders, not with other tables."
    )
    lines = markdown_table(["model", *pairs], rows)
    return "\n".join([caption, "", *lines, "", note, ""])
