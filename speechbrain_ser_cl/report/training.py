"""Sections on learning curves and on the weights of the encoder's layers."""

from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np

from speechbrain_ser_cl.metrics.classification import METRICS
from speechbrain_ser_cl.report.blocks import Figure, Section, Table
from speechbrain_ser_cl.report.charts import bar_chart, line_chart
from speechbrain_ser_cl.report.runs import Series
from speechbrain_ser_cl.results.text import NONE, TITLES


def learning_curves(series: Series) -> Section | None:
    """Draws each loss term, the validation metrics and the learning rate."""
    runs = [run for run in series.runs if run.history]
    if not any(row.get("train") for run in runs for row in run.history):
        return None  # such as a probe
    curves: dict[str, dict[str, list[Any]]] = {}  # chart, curve: one line per run
    for run in runs:
        for (chart, curve), line in _lines(run.history).items():
            curves.setdefault(chart, {}).setdefault(curve, []).append(line)
    tested = runs[0].results.get("tested_epoch") if len(runs) == 1 else None
    chance = series.crossval.summary(series.crossval.corpora[0]).get("chance")
    charts = []
    for name, lines in curves.items():
        rate = name == "learning rate"
        lowest = min(v for runs_ in lines.values() for line in runs_ for _, v in line)
        ends = "; ".join(
            f"{curve} from {line[0][0][1]:.4g} to {line[0][-1][1]:.4g}"
            for curve, line in lines.items()
        )
        charts.append(
            line_chart(
                lines,
                name,
                f"Over epochs, first run: {ends}.",
                mark=tested,
                reference=chance if name == "validation metrics" else None,
                log=rate and lowest > 0,
            )
        )
    columns = [(chart, curve) for chart, lines in curves.items() for curve in lines]
    every = [
        line for lines in curves.values() for runs_ in lines.values() for line in runs_
    ]
    epochs = sorted({epoch for line in every for epoch, _ in line})
    rows = []
    for epoch in epochs:
        cells = [f"{epoch:g}"]
        for chart, curve in columns:
            at = [v for ln in curves[chart][curve] for e, v in ln if e == epoch]
            cells.append(f"{np.mean(at):.4g}" if at else NONE)
        rows.append(cells)
    several = ", means over runs" if len(runs) > 1 else ""
    table = Table(
        f"Numbers by epoch{several}",
        ["epoch", *(f"{c}: {k}" if k != c else c for c, k in columns)],
        rows,
        folded=True,
    )
    caption = "Every loss term, the validation and the learning rate by epoch."
    caption += " Upright line: the tested epoch." if tested is not None else ""
    caption += " One line per run." if len(runs) > 1 else ""
    return Section("curves", "Learning curves", [Figure(charts, caption, table)])


def _lines(history: Sequence[Mapping[str, Any]]) -> dict[tuple[str, str], list[Any]]:
    """Collects (chart, curve) to (epoch, value), in order."""
    lines: dict[tuple[str, str], list[Any]] = {}
    phases = {row.get("phase") for row in history} - {None}
    terms = {name for row in history for name in row.get("train") or {}}
    for row in history:
        found = {}
        for name, value in (row.get("train") or {}).items():
            phase = row.get("phase") if len(phases) > 1 else None
            found[name, f"{phase} batches" if phase else "training"] = value
        for name, value in (row.get("valid") or {}).items():
            if name in METRICS:
                found["validation metrics", TITLES[name]] = value
            elif name in terms:
                found[name, "training, validation"] = value
            else:
                found[f"validation {name}", f"validation {name}"] = value
        rates = row.get("lr")
        rates = rates if isinstance(rates, Mapping) else {"learning rate": rates}
        for name, value in rates.items():
            found["learning rate", name] = value
        for key, value in found.items():
            if value is not None and np.isfinite(value):
                lines.setdefault(key, []).append((row["epoch"], float(value)))
    return lines


def layer_weights(series: Series) -> Section | None:
    """Shows the weights of the encoder's layers."""
    told = [run.results.get("layer_weights") for run in series.runs]
    found: list[list[float]] = [weights for weights in told if weights]
    if not found or len({len(weights) for weights in found}) > 1:
        return None
    mean = np.mean(found, axis=0).tolist()
    labels = [str(k) for k in range(len(mean))]
    heaviest = int(np.argmax(mean))
    chart = bar_chart(
        labels,
        mean,
        "Weights of the encoder's layers",
        f"The largest is that of layer {heaviest}: {mean[heaviest]:.3f}.",
        list(zip(*found, strict=True)) if len(found) > 1 else (),
        1 / len(mean),
    )
    rows = [[label, f"{value:.4f}"] for label, value in zip(labels, mean, strict=True)]
    caption = "Weights of the encoder's layers after training; 0 is what goes into the "
    caption += "first transformer layer. Dashed: all alike."
    caption += " Dots: single runs." if len(found) > 1 else ""
    table = Table("Layer weights", ["layer", "weight"], rows, folded=True)
    return Section("layers", "Layer weights", [Figure([chart], caption, table)])
