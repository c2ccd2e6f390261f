"""Tables of results in a README, written from the runs' ``results.json`` files.

The README marks where, with the folder relative to itself::

    <!-- results: begin results/ravdess_crema_d metric=uar -->
    <!-- results: end -->

Fill it in, or find out whether it is up to date (exit status 1 if not)::

    python -m speechbrain_ser_cl.evaluation.tables README.md
    python -m speechbrain_ser_cl.evaluation.tables README.md --check

A file ``paper.json`` in that folder adds a column with a paper's figures, in
percent. A row stands in each table whose ``source``, ``target``, ``encoder`` and
``target_split`` it does not contradict::

    {"rows": [{"setting": "full, 5 % labels", "uar": 69.25,
               "note": "Ahn et al. 2023", "source": "iemocap"}]}
"""

import argparse
import json
import re
import sys
from collections.abc import Mapping, Sequence
from pathlib import Path

import numpy as np
from scipy.stats import t as student

_TITLES = {"uar": "UAR", "wa": "WA", "macro_f1": "macro-F1"}
_GROUP = ("source", "target", "encoder", "target_split")
_REQUIRED = ("setting", "source", "target", "encoder", "seed", "demo", "test")
_BLOCK = re.compile(
    r"(<!-- results: begin (?P<folder>\S+)(?: metric=(?P<metric>\S+))? -->\n)"
    r".*?(<!-- results: end -->)",
    re.DOTALL,
)
_NOTE = (
    "± is the standard deviation over seeds. Over seeds: 95 % t-interval of the "
    "mean, from 3 seeds on; it says how far other seeds may move it. Over speakers: "
    "95 % bootstrap interval of one run over the test speakers, its bounds averaged "
    "over the seeds; it says how far other speakers may move it."
)


def collect_results(folder: str | Path) -> list[dict]:
    """Read every ``results.json`` below a folder.

    Arguments
    ---------
    folder : str or Path
        Searched with all its sub-folders.

    Returns
    -------
    results : list of dict
        The files' contents, sorted by path, each with its path as ``file``.

    Raises
    ------
    ValueError
        When a file is no JSON object, lacks a key or comes from a demo run.

    Example
    -------
    >>> import tempfile
    >>> collect_results(tempfile.mkdtemp())
    []
    """
    results = []
    for path in sorted(Path(folder).rglob("results.json")):
        run = _read_object(path)
        missing = [key for key in _REQUIRED if key not in run]
        missing += [
            f"test.{name}.value"
            for name in _TITLES
            if "value" not in run.get("test", {}).get(name, {})
        ]
        if "chance" not in run.get("test", {}):
            missing.append("test.chance")
        if missing:
            raise ValueError(f"{path}: missing {', '.join(missing)}")
        if run["demo"]:
            raise ValueError(
                f"{path} is from a demo run on synthetic speech, which says nothing "
                "about real speech; move its folder elsewhere"
            )
        results.append(run | {"file": str(path)})
    return results


def build_table(
    results: Sequence[Mapping], paper: Sequence[Mapping] = (), metric: str = "uar"
) -> str:
    """Write Markdown tables: one per pair of corpora, encoder and target split.

    One row per setting, in the order of the runs' ``order``, then of the names.

    Arguments
    ---------
    results : sequence of mapping
        Runs, as ``collect_results`` returns them.
    paper : sequence of mapping
        The ``rows`` of a ``paper.json``.
    metric : str
        ``uar``, ``wa`` or ``macro_f1``: the one that gets intervals.

    Returns
    -------
    table : str
        Markdown, ending in a newline.

    Raises
    ------
    ValueError
        When the metric is unknown, there is nothing to show, or two runs have
        the same setting and seed.

    Example
    -------
    >>> run = {"setting": "full", "source": "a", "target": "b", "encoder": "tiny"}
    >>> test = {"uar": {"value": 0.8}, "wa": {"value": 0.7}, "chance": 0.5}
    >>> test["macro_f1"] = {"value": 0.6}
    >>> runs = [run | {"seed": seed, "test": test} for seed in range(3)]
    >>> print(build_table(runs))  # doctest: +ELLIPSIS
    **a → b, tiny** (chance: UAR 50.0 %)
    <BLANKLINE>
    | setting | seeds | UAR % | 95 % over seeds | WA % | macro-F1 % |
    | --- | --- | --- | --- | --- | --- |
    | full | 3 | 80.0 ± 0.0 | 80.0 to 80.0 | 70.0 ± 0.0 | 60.0 ± 0.0 |
    <BLANKLINE>
    ± is the standard deviation over seeds. ...
    """
    if metric not in _TITLES:
        raise ValueError(
            f"unknown metric {metric!r}, expected one of {', '.join(_TITLES)}"
        )
    if not results and not paper:
        raise ValueError("neither results nor a paper's figures to show")
    runs_of: dict[tuple, list[Mapping]] = {}
    for run in results:
        key = tuple(run.get(name) for name in _GROUP)
        runs_of.setdefault(key, []).append(run)
    paper_of: dict[tuple, list[Mapping]] = {}
    for row in paper:
        own = tuple(row.get(name) for name in _GROUP)
        fitting = [
            key
            for key in runs_of
            if all(a is None or a == b for a, b in zip(own, key, strict=True))
        ]
        for key in fitting or [own]:
            paper_of.setdefault(key, []).append(row)
    tables = [
        _one_table(key, runs_of.get(key, []), paper_of.get(key, []), metric)
        for key in sorted(runs_of | paper_of, key=str)
    ]
    return "\n".join(tables + ([_NOTE + "\n"] if results else []))


def _one_table(
    key: tuple, runs: list[Mapping], paper: list[Mapping], metric: str
) -> str:
    """Caption, empty line and table of one group."""
    source, target, encoder, split = key
    caption = [f"{source} → {target}"] if source or target else ["As printed"]
    caption += [encoder] if encoder else []
    caption += [f"{split} target split"] if split else []
    chances = sorted({run["test"]["chance"] for run in runs})
    if len(chances) > 1:
        raise ValueError(
            f"{', '.join(caption)}: runs with different chance levels {chances}, so "
            f"with different classes, do not fit one table: {_files(runs)}"
        )
    lines = [
        f"**{', '.join(caption)}**"
        + "".join(f" (chance: UAR {100 * chance:.1f} %)" for chance in chances),
        "",
    ]
    settings: dict[str, list[Mapping]] = {}
    for run in sorted(runs, key=lambda run: (run.get("order", np.inf), run["setting"])):
        settings.setdefault(run["setting"], []).append(run)
    printed = {row["setting"]: row for row in paper}
    over_speakers = any(run["test"][metric].get("interval_speakers") for run in runs)
    others = [name for name in _TITLES if name != metric]
    titles = ["setting", "seeds", f"{_TITLES[metric]} %", "95 % over seeds"]
    titles += ["95 % over speakers"] if over_speakers else []
    titles += [f"{_TITLES[name]} %" for name in others]
    titles += ["printed"] if paper else []
    lines += [_line(titles), _line(["---"] * len(titles))]
    for setting in settings | printed:
        cells = [setting]
        if setting in settings:
            same = settings[setting]
            seeds = [run["seed"] for run in same]
            if len(set(seeds)) < len(seeds):
                raise ValueError(
                    f"{setting!r}: one seed has several runs: {_files(same)}; "
                    "keep one of them"
                )
            cells += [str(len(seeds)), _mean(same, metric), _over_seeds(same, metric)]
            cells += [_over_speakers(same, metric)] if over_speakers else []
            cells += [_mean(same, name) for name in others]
        else:
            cells += ["–", "not run here"] + ["–"] * (len(titles) - 4)
        if paper:
            row = printed.get(setting)
            cells.append(f"{row[metric]} ({row['note']})" if row else "–")
        lines.append(_line(cells))
    return "\n".join(lines) + "\n"


def _line(cells: Sequence[str]) -> str:
    return "| " + " | ".join(cell.replace("|", r"\|") for cell in cells) + " |"


def _files(runs: Sequence[Mapping]) -> str:
    return ", ".join(str(run.get("file", run["setting"])) for run in runs)


def _percent(runs: Sequence[Mapping], name: str) -> np.ndarray:
    return 100 * np.array([run["test"][name]["value"] for run in runs])


def _mean(runs: Sequence[Mapping], name: str) -> str:
    values = _percent(runs, name)
    spread = f" ± {values.std(ddof=1):.1f}" if len(values) > 1 else ""
    return f"{values.mean():.1f}{spread}"


def _over_seeds(runs: Sequence[Mapping], name: str) -> str:
    values = _percent(runs, name)
    if len(values) < 3:
        return "–"
    error = values.std(ddof=1) / np.sqrt(len(values))
    half = student.ppf(0.975, len(values) - 1) * error
    return f"{values.mean() - half:.1f} to {values.mean() + half:.1f}"


def _over_speakers(runs: Sequence[Mapping], name: str) -> str:
    bounds = [run["test"][name].get("interval_speakers") for run in runs]
    if None in bounds:
        return "–"
    low, high = 100 * np.mean(bounds, axis=0)
    return f"{low:.1f} to {high:.1f}"


def _read_object(path: Path) -> dict:
    try:
        content = json.loads(path.read_text(encoding="utf-8"))
    except json.JSONDecodeError as error:
        raise ValueError(f"{path} is not valid JSON: {error}") from None
    if not isinstance(content, dict):
        raise ValueError(f"{path}: expected a JSON object")
    return content


def _read_paper(folder: Path, metric: str) -> list[dict]:
    path = folder / "paper.json"
    if not path.exists():
        return []
    rows = _read_object(path).get("rows", [])
    for row in rows:
        missing = [key for key in ("setting", metric, "note") if key not in row]
        if missing:
            raise ValueError(f"{path}: row {row} lacks {', '.join(missing)}")
    return rows


def _filled(readme_path: Path) -> str:
    """The README's text as it should be."""
    text = readme_path.read_text(encoding="utf-8")
    n_blocks = len(_BLOCK.findall(text))
    n_marks = (text.count("<!-- results: begin"), text.count("<!-- results: end"))
    if n_blocks == 0 or n_marks != (n_blocks, n_blocks):
        raise ValueError(
            f"{readme_path}: {n_marks[0]} begin and {n_marks[1]} end markers make "
            f"{n_blocks} blocks; expected pairs of '<!-- results: begin FOLDER "
            "[metric=uar] -->' and '<!-- results: end -->', each on its own line"
        )

    def fill(block: re.Match) -> str:
        folder = readme_path.parent / block["folder"]
        metric = block["metric"] or "uar"
        try:
            results = collect_results(folder)
            table = build_table(results, _read_paper(folder, metric), metric)
        except ValueError as error:
            raise ValueError(f"{readme_path}, {block['folder']}: {error}") from error
        return f"{block[1]}\n{table}\n{block[4]}"

    return _BLOCK.sub(fill, text)


def fill_readme(readme_path: str | Path) -> bool:
    r"""Write the tables between a README's markers.

    Arguments
    ---------
    readme_path : str or Path
        A Markdown file with at least one pair of markers.

    Returns
    -------
    changed : bool
        False when the tables were up to date and the file was left alone.

    Raises
    ------
    ValueError
        When markers do not pair up, or a folder's results cannot be shown.

    Example
    -------
    >>> import tempfile
    >>> readme = Path(tempfile.mkdtemp(), "README.md")
    >>> _ = readme.write_text("<!-- results: begin runs -->\n<!-- results: end -->")
    >>> fill_readme(readme)
    Traceback (most recent call last):
    ...
    ValueError: ...README.md, runs: neither results nor a paper's figures to show
    """
    readme_path = Path(readme_path)
    text = _filled(readme_path)
    if text == readme_path.read_text(encoding="utf-8"):
        return False
    readme_path.write_text(text, encoding="utf-8")
    return True


def main(arguments: Sequence[str] | None = None) -> int:
    """Run the command line that the module's docstring shows.

    Arguments
    ---------
    arguments : sequence of str, optional
        Without the program's name; by default the process's own.

    Returns
    -------
    status : int
        0; 1 when ``--check`` found an outdated README; 2 when it cannot be
        filled in.

    Example
    -------
    >>> main(["no_such_folder/README.md"])
    2
    """
    parser = argparse.ArgumentParser(
        prog="python -m speechbrain_ser_cl.evaluation.tables",
        description="Write the results tables of a README from results.json files.",
    )
    parser.add_argument("readme", type=Path)
    parser.add_argument(
        "--check", action="store_true", help="write nothing; exit 1 if out of date"
    )
    options = parser.parse_args(arguments)
    try:
        if not options.check:
            changed = fill_readme(options.readme)
            print(f"{options.readme}: {'written' if changed else 'was up to date'}")
            return 0
        if _filled(options.readme) == options.readme.read_text(encoding="utf-8"):
            return 0
    except (OSError, ValueError) as error:
        print(error, file=sys.stderr)
        return 2
    print(
        f"{options.readme}: the tables are not those of the results.json files; run "
        f"python -m speechbrain_ser_cl.evaluation.tables {options.readme}",
        file=sys.stderr,
    )
    return 1


if __name__ == "__main__":
    sys.exit(main())
