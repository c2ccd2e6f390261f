"""Table of time and memory of a cross-validation's runs, with the machine."""

from collections.abc import Sequence
from typing import Any

from speechbrain_ser_cl.results.crossval import CrossValidation
from speechbrain_ser_cl.results.text import NONE, markdown_table

_NOTE = (
    "Time and memory of one fold and seed: seconds are means over the runs, memory is "
    "the largest of them, resident, or of the GPU where one is named. Per epoch: number"
    " of epochs × seconds with validation; stages without epochs pass over the corpora "
    "once. What corpora have in common stands with each; its time is shared by them."
)


def build_cost_table(settings: Sequence[CrossValidation]) -> str:
    """Returns a Markdown table with one row per setting, corpus and protocol.

    Encoders have a column if there are several.

    Arguments
    ---------
    settings : sequence of CrossValidation
        Settings in the order of the table.

    Returns
    -------
    table : str
        Table; ends in a newline.

    Raises
    ------
    ValueError
        If there are none.

    Example
    -------
    >>> cost = {
    ...     "runs": 2,
    ...     "training_seconds": 30.0,
    ...     "stages": {"classifier": {"epochs": 20, "seconds_per_epoch": 0.5}},
    ...     "peak_memory_mb": {"resident": 812.4},
    ...     "machines": [{"processor": "CPU", "cores": 4, "threads": 2, "gpu": None}],
    ... }
    >>> one = CrossValidation({"setting": "probe"}, {"kind": "seeds"}, [], [], cost)
    >>> print(build_cost_table([one]))  # doctest: +ELLIPSIS
    | setting | corpus | protocol | runs | s per run | per epoch | MB | machine |
    | --- | --- | --- | --- | --- | --- | --- | --- |
    | probe | – | seeds | 2 | 15 | classifier 20 × 0.50 s | 812 | CPU, 2 of 4 cores |
    <BLANKLINE>
    Time and memory of one fold and seed: ...
    """
    if not settings:
        raise ValueError("no crossval.json to show the cost of")
    several = len({one.about.get("encoder") for one in settings}) > 1
    titles = ["setting", *["encoder"] * several, "corpus", "protocol", "runs"]
    titles += ["s per run", "per epoch", "MB", "machine"]
    rows = []
    for one in settings:
        cost = one.cost
        seconds, runs = cost.get("training_seconds"), cost.get("runs")
        peaks = cost.get("peak_memory_mb") or {}
        memory = peaks.get("gpu", peaks.get("resident"))
        rows.append(
            [
                one.about["setting"],
                *[one.about.get("encoder") or NONE] * several,
                ", ".join(one.corpora) or NONE,
                one.protocol.get("kind", "per corpus"),
                str(runs or NONE),
                f"{seconds / runs:.0f}" if seconds else NONE,
                "; ".join(map(_stage, (cost.get("stages") or {}).items())) or NONE,
                f"{memory:.0f}" if memory else NONE,
                "; ".join(map(_machine, cost.get("machines", []))) or NONE,
            ]
        )
    return "\n".join([*markdown_table(titles, rows), "", _NOTE, ""])


def _stage(stage: tuple[str, dict[str, Any]]) -> str:
    name, values = stage
    name = name.replace("_", " ")
    if "seconds_per_epoch" in values:
        return f"{name} {values['epochs']:g} × {values['seconds_per_epoch']:.2f} s"
    return f"{name} {values['seconds']:.1f} s"


def _machine(machine: dict[str, Any]) -> str:
    if machine.get("gpu"):
        return str(machine["gpu"])
    return (
        f"{machine['processor']}, {machine['threads']} of {machine['cores']} "
        f"core{'s' * (machine['cores'] > 1)}"
    )
