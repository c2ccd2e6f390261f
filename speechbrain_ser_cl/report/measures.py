"""Tables of results other than classes (dimensions, votes, emotions), and by group."""

from collections.abc import Sequence
from dataclasses import replace
from typing import Any

from speechbrain_ser_cl.metrics.kinds import KINDS, each_dimension
from speechbrain_ser_cl.report.blocks import Block, Note, Section, Table
from speechbrain_ser_cl.report.runs import Series
from speechbrain_ser_cl.results.crossval import table_rows, total
from speechbrain_ser_cl.results.text import NONE, p_value

_TITLES = {
    "votes": "Against the votes of listeners",
    "dimensions": "Predicted dimensions",
    "emotions": "Several emotions at once",
}


def views(series: Series) -> list[Series]:
    """Returns the setting, and the same runs measured in their other ways."""
    return [replace(series, crossval=view) for view in series.crossval.views()]


def metrics(series: Series, corpus: str) -> list[Block]:
    """Shows each measure with its interval over speakers.

    Arguments
    ---------
    series : Series
        Setting of another kind than classes.
    corpus : str
        Name of a tested corpus.
    """
    crossval = series.crossval
    kind, summary = crossval.measured, crossval.summary(corpus)
    units = f"{crossval.unit}s"
    known = series.speakers_known(corpus)
    rows = []
    for name, title in kind.titles.items():
        pooled = summary["pooled"][name]
        cells = [title + (" %" if name in kind.percent else "")]
        cells.append(kind.write(name, summary["mean"][name]))
        if series.several:
            cells.append(kind.write(name, summary["std"][name]))
        cells.append(kind.write(name, pooled["value"]))
        rows.append([*cells, kind.bounds(name, pooled["interval"] if known else None)])
    header = ["measure", f"mean over {units}" if series.several else "value"]
    header += [f"std over {units}"] if series.several else []
    header += ["all together", "95 % over speakers"]
    speakers = f" of {summary['speakers']} speakers" if known else ""
    blocks: list[Block] = [
        Note(
            f"{_TITLES[kind.name]}: {summary['utterances']} test utterances{speakers} "
            f"({corpus})."
        ),
        Table(_TITLES[kind.name], header, rows),
    ]
    if kind.name == "dimensions" and len(crossval.class_names) > 1:
        each = each_dimension(total(crossval.per_speaker(corpus)))
        rows = [
            [name, *(kind.write(measure, float(each[measure][k])) for measure in each)]
            for k, name in enumerate(crossval.class_names)
        ]
        header = ["dimension", *kind.titles.values()]
        blocks.append(Table("Each dimension, all together", header, rows))
    return blocks


def per_speaker(series: Series, corpus: str) -> list[Block]:
    """Shows the measures of each speaker, the worst first."""
    if not series.speakers_known(corpus):
        return [Note("Speakers are unknown: no results per speaker.")]
    kind = series.crossval.measured
    sign = -1 if kind.first in kind.errors else 1
    found = {
        speaker: (kind.number(sums), kind.measure(sums))
        for speaker, sums in series.crossval.per_speaker(corpus).items()
    }
    order = sorted(found, key=lambda s: (sign * float(found[s][1][kind.first]), s))
    rows = [
        [speaker, f"{number:g}", *(kind.write(n, float(of[n])) for n in kind.titles)]
        for speaker in order
        for number, of in [found[speaker]]
    ]
    header = ["speaker", "utterances", *(kind.title(name) for name in kind.titles)]
    caption = "Results per speaker, the worst first"
    return [Table(caption, header, rows, folded=len(rows) > 12)]


def groups(series: Series) -> Section | None:
    """Shows results by gender, age and other groups: the worst one, and the gap."""
    blocks: list[Block] = []
    for name, of_corpora in series.crossval.groups.items():
        kind = KINDS[name]
        for corpus, columns in of_corpora.items():
            for column, found in columns.items():
                metric, worst = found["metric"], found["worst"]
                rows = [
                    [group, str(one["speakers"]), str(one["utterances"])]
                    + [kind.write(metric, one["value"])]
                    + [kind.bounds(metric, one["interval"])]
                    for group, one in found["groups"].items()
                ]
                title, gap = kind.title(metric), found["gap"]
                interval = kind.bounds(metric, gap["interval"])
                more = "" if interval == NONE else f" (95 % over speakers: {interval})"
                worst_value = kind.write(metric, found["groups"][worst]["value"])
                gap_value = kind.write(metric, gap["value"])
                text = f"{title} by {column}, {corpus}: {worst} is worst with "
                text += f"{worst_value}; from the best it is {gap_value} away{more}."
                header = [column, "speakers", "utterances", title, "95 % over speakers"]
                caption = f"{title} by {column}, {corpus}"
                blocks += [Note(text), Table(caption, header, rows)]
    if not blocks:
        return None
    blocks.append(
        Note(
            "Intervals are over speakers, and missing where a group has fewer than 5. "
            "The gap of several groups is above 0 by chance alone."
        )
    )
    return Section("groups", "Results by group", blocks)


def comparison(all_series: Sequence[Series]) -> list[Block]:
    """Compares settings of another kind; each is tested against the first."""
    found: dict[tuple[Any, ...], list[Series]] = {}
    for series in (view for one in all_series for view in views(one)):
        crossval = series.crossval
        if crossval.kind == "classes":
            continue
        for corpus in crossval.corpora:
            key = (corpus, crossval.kind, tuple(crossval.class_names))
            found.setdefault(key, []).append(series)
    blocks: list[Block] = []
    for (corpus, name, _), same in found.items():
        kind = KINDS[name]
        for metric in kind.titles:
            rows = table_rows([one.crossval for one in same], corpus, metric)
            cells = []
            for series, row in zip(same, rows, strict=True):
                pooled = row["summary"]["pooled"][metric]
                against = row["against_first"] or {}
                known = series.speakers_known(corpus)
                difference, gain = against.get("difference"), NONE
                if difference is not None:
                    gain = "+" if difference > 0 else ""
                    gain += kind.write(metric, difference)
                cells.append(
                    [series.name, kind.write(metric, pooled["value"])]
                    + [kind.bounds(metric, pooled["interval"] if known else None), gain]
                    + [
                        p_value(against.get(f"{test}_holm"))
                        for test in ("t_test", "permutation")
                    ]
                )
            title = kind.title(metric)
            header = ["setting", title, "95 % over speakers"]
            header += [f"{title} less the first's", "p, over runs", "p, over speakers"]
            caption = f"{_TITLES[name]}, {corpus}: {kind.titles[metric]}"
            folded = metric != kind.first
            blocks.append(Table(caption, header, cells, folded=folded))
    return blocks
