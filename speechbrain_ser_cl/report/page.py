"""Writes the page: all sections, in order, in one file."""

from collections.abc import Callable, Collection, Sequence
from importlib.resources import files
from pathlib import Path
from typing import Any

from jinja2 import Environment, PackageLoader, StrictUndefined
from tqdm import tqdm

from speechbrain_ser_cl import __version__
from speechbrain_ser_cl.report import (
    measures,
    provenance,
    results,
    training,
    utterances,
)
from speechbrain_ser_cl.report.blocks import Block, Section
from speechbrain_ser_cl.report.charts import SHAPES
from speechbrain_ser_cl.report.runs import Series, read_series
from speechbrain_ser_cl.utils.files import replacing


def write_report(
    paths: Sequence[str | Path],
    output: str | Path,
    audio: bool = False,
    own_corpora: Collection[str] = (),
) -> None:
    """Writes a report on finished runs or cross-validations as one HTML file.

    Style, script, charts and audio are inside the file, so it needs no network. Each
    setting is compared with the first.

    Arguments
    ---------
    paths : sequence of str or pathlib.Path
        Folders of runs or cross-validations, or folders that contain several of them.
    output : str or pathlib.Path
        Output file, written whole or not at all.
    audio : bool
        Whether to include the audio of the worst mistakes, if the corpus' licence
        allows it and the files still exist.
    own_corpora : collection of str
        Corpora without a declared licence whose audio the user may share.

    Raises
    ------
    ValueError
        If a folder contains no results, or a file is damaged.

    Example
    -------
    >>> folder = getfixture("tmp_path")
    >>> import json
    >>> test = {"confusion_matrix": [[8, 2], [1, 9]]}
    >>> _ = (folder / "results.json").write_text(json.dumps({"seed": 1, "test": test}))
    >>> write_report([folder], folder / "report.html")
    >>> "UAR 85.0 %" in (folder / "report.html").read_text()
    True
    """
    all_series = read_series([Path(path) for path in paths])
    several = len(all_series) > 1
    write_page(
        output,
        f"{len(all_series)} settings compared" if several else all_series[0].name,
        [
            (series.name, _sections(series, own_corpora if audio else None))
            for series in tqdm(all_series, desc="settings", disable=None)
        ],
        results.comparison(all_series) if several else None,
        any(series.demo for series in all_series),
    )


def write_page(
    output: str | Path,
    title: str,
    parts: Sequence[tuple[str, Sequence[Section]]],
    comparison: Section | None = None,
    demo: bool = False,
) -> None:
    """Writes sections as one HTML file without external files.

    Arguments
    ---------
    output : str or pathlib.Path
        Output file, written whole or not at all.
    title : str
        Title of the page.
    parts : sequence of (str, sequence of Section)
        Name of each part (shown if there are several) and its sections.
    comparison : Section, optional
        First section.
    demo : bool
        Whether to warn that the speech is synthetic.

    Example
    -------
    >>> path = getfixture("tmp_path") / "page.html"
    >>> write_page(path, "Nothing", [("", [Section("a", "A", [])])])
    >>> "<h1>Nothing</h1>" in path.read_text(encoding="utf-8")
    True
    """
    environment = Environment(
        loader=PackageLoader(__package__, "."),
        autoescape=True,
        undefined=StrictUndefined,
        trim_blocks=True,
        lstrip_blocks=True,
    )
    here = files(__package__)
    page = environment.get_template("page.html.jinja").render(
        title=title,
        demo=demo,
        comparison=comparison,
        parts=parts,
        style=(here / "style.css").read_text(encoding="utf-8"),
        script=(here / "script.js").read_text(encoding="utf-8"),
        shapes=SHAPES,
        version=__version__,
    )
    output = Path(output)
    output.parent.mkdir(parents=True, exist_ok=True)
    with replacing(output) as part:
        part.write_text(page, encoding="utf-8")


def _sections(series: Series, own_corpora: Collection[str] | None) -> list[Section]:
    """Makes all sections of a setting with data; ``own_corpora`` None: no audio."""
    corpora, more = series.crossval.corpora, measures.views(series)[1:]

    def each(
        key: str, title: str, blocks_of: Callable[..., list[Block]], *more: Any
    ) -> list[Section]:
        return [
            Section(
                f"{key}-{number}" if len(corpora) > 1 else key,
                f"{title}: {corpus}" if len(corpora) > 1 else title,
                blocks_of(series, corpus, *more),
            )
            for number, corpus in enumerate(corpora)
        ]

    if series.crossval.kind != "classes":
        found = [
            *each("results", "Results", measures.metrics),
            provenance.what_ran(series),
            provenance.data(series),
            training.learning_curves(series),
            *each("speakers", "Results per speaker", measures.per_speaker),
            measures.groups(series),
            training.layer_weights(series),
        ]
        return [section for section in found if section is not None]

    def others(series: Series, corpus: str) -> list[Block]:
        return [block for one in more for block in measures.metrics(one, corpus)]

    found = [
        *each("results", "Results", results.metrics),
        *(each("votes", "Votes of listeners", others) if more else []),
        provenance.what_ran(series),
        provenance.data(series),
        training.learning_curves(series),
        *each("confusion", "Confusion matrix", results.confusion),
        *each("classes", "Results per class", results.per_class),
        results.calibration(series),
        *each("speakers", "Results per speaker", results.per_speaker),
        measures.groups(series),
        training.layer_weights(series),
        utterances.embeddings(series),
        *each("mistakes", "Worst mistakes", utterances.mistakes, own_corpora),
    ]
    return [section for section in found if section is not None]
