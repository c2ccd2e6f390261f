"""Sections on results: overall, per class, per speaker, compared with others."""

from collections import defaultdict
from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np

from speechbrain_ser_cl.metrics.classification import (
    METRICS,
    bootstrap_intervals,
    metrics_of_confusion,
)
from speechbrain_ser_cl.report import measures
from speechbrain_ser_cl.report.blocks import (
    Block,
    Confusion,
    Figure,
    Note,
    Section,
    Table,
)
from speechbrain_ser_cl.report.charts import ChartRow, interval_chart, line_chart
from speechbrain_ser_cl.report.runs import Series
from speechbrain_ser_cl.results.crossval import table_rows, total
from speechbrain_ser_cl.results.text import (
    NONE,
    TITLES,
    bounds,
    p_value,
    percent,
)

_LONG_TITLES = {
    "uar": "UAR (unweighted average recall)",
    "wa": "WA (share of correct utterances)",
    "macro_f1": "macro-F1",
}
_MOST_IN_CHART = 30
_FEW_SPEAKERS = 20  # see bootstrap_intervals


def metrics(series: Series, corpus: str) -> list[Block]:
    """Shows UAR, WA and macro-F1 with intervals and chance level."""
    summary = series.crossval.summary(corpus)
    confusion = np.array(summary["confusion_matrix"])
    mean, chance = summary["mean"], summary["chance"]
    frequent = float(confusion.sum(1).max() / confusion.sum())
    by_chance = {"uar": chance, "wa": frequent, "macro_f1": None}
    unit = series.crossval.unit
    units = f"{unit}s"
    per_unit = summary[units]
    sentence = _sentence(series, corpus)
    intervals = {name: _speaker_interval(series, corpus, name) for name in METRICS}
    test = series.runs[0].results.get("test", {}) if len(series.runs) == 1 else {}
    header = ["metric", "value"]
    header += [f"std over {units}"] if series.several else []
    header += [] if series.several else ["95 % over utterances"]
    header += ["95 % over speakers", "by chance"]
    rows = []
    for name in METRICS:
        cells = [_LONG_TITLES[name], percent(mean[name])]
        if series.several:
            cells.append(percent(summary["std"][name]))
        else:
            cells.append(bounds(test.get(name, {}).get("interval")))
        rows.append([*cells, bounds(intervals[name]), percent(by_chance[name])])
    caption = "Test results, %"
    if series.several:
        caption += f": mean over {len(per_unit)} {units}; intervals are "
        pooled = series.speakers_known(corpus)
        caption += "of all runs together" if pooled else "means of the runs' bounds"
    chart = interval_chart(
        [
            ChartRow(
                TITLES[name],
                mean[name],
                intervals[name],
                [one[name] for one in per_unit] if series.several else (),
            )
            for name in METRICS
        ],
        f"Test results on {corpus}",
        sentence,
        chance,
    )
    what = "Bars: 95 % bootstrap intervals over speakers. Dashed: chance level of UAR."
    what += f" Small dots: single {units}." if series.several else ""
    blocks: list[Block] = [
        Note(sentence),
        Figure([chart], what, Table(caption, header, rows)),
    ]
    if series.several:
        seeds = ", mean over seeds" if unit == "fold" else ""
        rows = [
            [f"{unit} {one[unit]}", *(percent(one[name]) for name in METRICS)]
            for one in per_unit
        ]
        blocks.append(
            Table(f"Each {unit}, %{seeds}", [unit, *TITLES.values()], rows, folded=True)
        )
    return blocks


def _sentence(series: Series, corpus: str) -> str:
    """Describes the result in words."""
    summary = series.crossval.summary(corpus)
    uar, chance = summary["mean"]["uar"], summary["chance"]
    interval = _speaker_interval(series, corpus, "uar")
    speakers = summary["speakers"] if series.speakers_known(corpus) else None
    if speakers is None and len(series.runs) == 1:
        speakers = series.runs[0].results.get("test", {}).get("speakers")
    of = f" of {speakers} speakers" if speakers else ""
    each = (
        f", all {len(series.crossval.tested)} runs together," if series.several else ""
    )
    text = (
        f"UAR {percent(uar)} % on {summary['utterances']} test utterances{of} "
        f"({corpus}){each} where guessing gives {percent(chance)} %."
    )
    if series.crossval.gap:
        return f"{series.crossval.gap}. The other runs only: {text}"
    if interval is None:
        missing = [
            run.results.get("test", {}).get("interval_speakers_missing")
            for run in series.runs
        ]
        reason = next((m for m in missing if m), "too few speakers, or unknown ones")
        return f"{text} There is no interval over speakers: {reason}."
    verdict = "above chance" if interval[0] > chance else "not clearly above chance"
    if interval[1] < chance:
        verdict = "below chance"
    few = speakers is not None and speakers < _FEW_SPEAKERS
    narrow = f" With only {speakers} speakers such an interval is too narrow."
    return (
        f"{text} With other speakers of the same kind it may be {bounds(interval)} % "
        f"(95 %): {verdict}.{narrow if few else ''}"
    )


def _speaker_interval(
    series: Series, corpus: str, metric: str
) -> Sequence[float] | None:
    """Returns the 95 % interval over speakers, from pooled counts or from the runs."""
    if series.crossval.missing:
        return None
    if series.speakers_known(corpus):
        pooled = series.crossval.summary(corpus)["pooled"][metric]
        interval: Sequence[float] | None = pooled["interval"]
        return interval
    found = [run.results.get("test", {}).get(metric, {}) for run in series.runs]
    intervals = [one.get("interval_speakers") for one in found]
    if not intervals or None in intervals:
        return None
    return tuple(float(bound) for bound in np.mean(intervals, axis=0))


def confusion(series: Series, corpus: str) -> list[Block]:
    """Shows the confusion matrix: counts, and shares of each true class."""
    counts = total(series.crossval.per_speaker(corpus))
    names = series.crossval.class_names
    used = [k for k in range(len(names)) if counts[k].sum() or counts[:, k].sum()]
    rows = [
        (
            names[k],
            [(int(counts[k, j]), counts[k, j] / max(counts[k].sum(), 1)) for j in used],
        )
        for k in used
    ]
    n_runs = len(series.crossval.tested)
    sums = f", {n_runs} runs added up" if n_runs > 1 else ""
    sums += f" ({series.crossval.gap})" if series.crossval.gap else ""
    caption = f"Utterances by true class (rows) and prediction (columns){sums}; "
    caption += "below each count its share of the row"
    return [Confusion(caption, [names[k] for k in used], rows)]


def calibration(series: Series) -> Section | None:
    """Shows accuracy by confidence, before and after calibration."""
    found = [
        run.results["calibration"]
        for run in series.runs
        if "calibration" in run.results
    ]
    if not found:
        return None
    curves, rows = {}, []
    for when, name in (("before", "as trained"), ("after", "with the temperature")):
        bins = [one[when]["bins"] for one in found]
        line = []
        for same in zip(*bins, strict=True):
            n = sum(one["count"] for one in same)
            if not n:
                continue
            sure, right = (
                sum(one["count"] * (one[key] or 0) for one in same) / n
                for key in ("confidence", "accuracy")
            )
            line.append((100 * sure, 100 * right))
            low, high = same[0]["low"], same[0]["high"]
            rows.append(
                [name, f"{100 * low:.0f} to {100 * high:.0f}", str(n)]
                + [percent(sure), percent(right)]
            )
        curves[name] = [line]
    curves["perfect calibration, validation"] = [[(0.0, 0.0), (100.0, 100.0)]]
    temperature = float(np.mean([one["temperature"] for one in found]))
    means = {
        key: [
            float(np.mean([one[when][key] for one in found]))
            for when in ("before", "after")
        ]
        for key in ("ece", "brier")
    }
    text = (
        f"Logits are divided by {temperature:.2f}, fitted on validation data. That "
        "changes the expected calibration error from {} to {} %, and the Brier score "
        "from {:.3f} to {:.3f}; predicted classes do not change."
    ).format(*map(percent, means["ece"]), *means["brier"])
    chart = line_chart(curves, "accuracy, %, by confidence, %", text)
    header = ["probabilities", "confidence, %", "utterances", "mean, %", "accuracy, %"]
    table = Table("Utterances by confidence", header, rows, 2, folded=True)
    caption = "Accuracy by the probability of the predicted class."
    return Section(
        "calibration", "Calibration", [Note(text), Figure([chart], caption, table)]
    )


def per_class(series: Series, corpus: str) -> list[Block]:
    """Shows recall with an interval, precision and F1 of each class."""
    per_speaker = series.crossval.per_speaker(corpus)
    counts = total(per_speaker)
    names, known = series.crossval.class_names, series.speakers_known(corpus)
    rows, chart = [], []
    for k, name in enumerate(names):
        actual, predicted, hits = counts[k].sum(), counts[:, k].sum(), counts[k, k]
        if not actual:
            continue
        recall = float(hits / actual)
        interval = _recall_interval(per_speaker, k) if known else None
        precision = float(hits / predicted) if predicted else None
        f1 = float(2 * hits / (actual + predicted))
        chart.append(ChartRow(name, recall, interval))
        rows.append(
            [name, str(actual), percent(recall), bounds(interval)]
            + [percent(precision), percent(f1)]
        )
    header = ["class", "utterances", "recall", "95 % over speakers", "precision", "F1"]
    picture = interval_chart(
        chart,
        f"Recall of each class, {corpus}",
        "; ".join(f"{row.label} {percent(row.value)} %" for row in chart) + ".",
        1 / len(chart),
    )
    caption = "Recall: how many of a class were found."
    caption += " Bars: 95 % bootstrap intervals over speakers." if known else ""
    return [Figure([picture], caption, Table("Results per class, %", header, rows))]


def _recall_interval(per_speaker: Mapping[str, Any], k: int) -> Sequence[float] | None:
    """Computes the 95 % bootstrap interval over speakers of a class' recall."""
    # With utterances of one class only, UAR is the recall of that class.
    counts = np.stack([per_speaker[name][k] for name in sorted(per_speaker)])
    speaker, prediction = (
        np.indices(counts.shape).reshape(2, -1).repeat(counts.ravel(), axis=1)
    )
    labels = np.full(len(speaker), k)
    n_classes = counts.shape[1]
    return bootstrap_intervals(labels, prediction, n_classes, groups=speaker)["uar"]


def per_speaker(series: Series, corpus: str) -> list[Block]:
    """Shows the results of each speaker, the worst first."""
    if not series.speakers_known(corpus):
        return [Note("Speakers are unknown: there are no results per speaker.")]
    counts = series.crossval.per_speaker(corpus)
    genders = {
        item.utterance.speaker: item.utterance.gender
        for run in series.runs
        for item in run.utterances.values()
    }
    rows = []
    for speaker, matrix in counts.items():
        values = metrics_of_confusion(matrix)
        present = int((matrix.sum(1) > 0).sum())
        rows.append(
            (float(values["uar"]), float(values["wa"]), speaker, matrix, present)
        )
    rows.sort(key=lambda row: (row[0], row[2]))
    shown = rows[:_MOST_IN_CHART]
    summary = series.crossval.summary(corpus)
    worst, best = rows[0], rows[-1]
    description = (
        f"From {percent(worst[0])} % ({worst[2]}) to {percent(best[0])} % ({best[2]})."
    )
    chart = interval_chart(
        [ChartRow(speaker, uar) for uar, _, speaker, _, _ in shown],
        f"UAR of each speaker, {corpus}",
        description,
        summary["chance"],
    )
    some = f" Shown: the {len(shown)} lowest of {len(rows)}." if shown != rows else ""
    table = Table(
        "Results per speaker, %, the lowest UAR first",
        ["speaker", "gender", "utterances", "classes", "UAR", "WA"],
        [
            [speaker, genders.get(speaker) or NONE, str(matrix.sum()), str(present)]
            + [percent(uar), percent(wa)]
            for uar, wa, speaker, matrix, present in rows
        ],
        texts=2,
        folded=len(rows) > 12,
    )
    blocks: list[Block] = [
        Figure(
            [chart], f"UAR over the classes a speaker has. {description}{some}", table
        )
    ]
    groups: dict[str, dict[str, np.ndarray]] = defaultdict(dict)
    for speaker, matrix in counts.items():
        groups[genders.get(speaker) or NONE][speaker] = matrix
    if len(groups) > 1 and NONE not in groups:
        blocks.append(
            Table(
                "Women and men, %",
                ["gender", "speakers", "UAR", "WA"],
                [
                    [gender, str(len(matrices))]
                    + [
                        percent(float(metrics_of_confusion(total(matrices))[name]))
                        for name in ("uar", "wa")
                    ]
                    for gender, matrices in sorted(groups.items())
                ],
            )
        )
    return blocks


def comparison(all_series: Sequence[Series]) -> Section:
    """Compares settings; each is tested against the first."""
    groups: dict[tuple[Any, ...], list[Series]] = {}
    for series in all_series:
        if series.crossval.kind != "classes":
            continue
        for corpus in series.crossval.corpora:
            key = (corpus, tuple(series.crossval.class_names))
            groups.setdefault(key, []).append(series)
    blocks: list[Block] = []
    tested = False
    for (corpus, _), same in groups.items():
        rows = table_rows([series.crossval for series in same], corpus)
        chance = rows[0]["summary"]["chance"]
        cells, chart = [], []
        for series, row in zip(same, rows, strict=True):
            summary, against = row["summary"], row["against_first"] or {}
            tested |= bool(against)
            unit = series.crossval.unit
            interval = _speaker_interval(series, corpus, "uar")
            n_units = len(summary[f"{unit}s"])
            chart.append(
                ChartRow(
                    series.name,
                    summary["mean"]["uar"],
                    interval,
                    [one["uar"] for one in summary[f"{unit}s"]] if n_units > 1 else (),
                )
            )
            difference = against.get("difference")
            cells.append(
                [series.name, _runs(series)]
                + [_spread(summary, "uar"), bounds(interval)]
                + [_spread(summary, name) for name in ("wa", "macro_f1")]
                + [NONE if difference is None else f"{100 * difference:+.1f}"]
                + [p_value(against.get(f"{t}_holm")) for t in ("t_test", "permutation")]
            )
        header = ["setting", "runs", "UAR", "95 % over speakers", "WA", "macro-F1"]
        header += ["UAR less the first's", "p, over runs", "p, over speakers"]
        picture = interval_chart(
            chart,
            f"UAR of each setting on {corpus}",
            "; ".join(f"{row.label}: {percent(row.value)} %" for row in chart) + ".",
            chance,
        )
        caption = f"UAR on {corpus}. Bars: 95 % bootstrap intervals over speakers. "
        caption += "Small dots: single runs."
        table = Table(f"Settings tested on {corpus}, %", header, cells, texts=2)
        blocks.append(Figure([picture], caption, table))
    others = measures.comparison(all_series)
    blocks += others
    if tested or others:
        text = (
            "p: two-sided, against the first setting, Holm-corrected over the rows. "
            "Over runs: paired t-test over the folds, or seeds. Over speakers: "
            "permutation test that exchanges the predictions of the two settings, all "
            "of a speaker at once."
        )
        blocks.append(Note(text))
    blocks.append(
        Note(
            "No p where two settings were not tested on the same folds, seeds and "
            "utterances, or where there are fewer than 2 runs or 5 speakers."
        )
    )
    return Section("comparison", "Comparison", blocks)


def _spread(summary: Mapping[str, Any], name: str) -> str:
    std = summary["std"][name]
    return percent(summary["mean"][name]) + (
        "" if std is None else f" ± {percent(std)}"
    )


def _runs(series: Series) -> str:
    """Describes the numbers of folds and seeds."""
    folds = {one.fold for one in series.crossval.tested} - {None}
    told = [(len(folds), "fold"), (len(series.crossval.seeds), "seed")]
    words = [f"{n}\u00a0{name}{'s' if n > 1 else ''}" for n, name in told if n]
    return "\u00a0× ".join(words)
