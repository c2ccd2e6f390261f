"""Implements ``ser-cl check``: reports contents and problems of a data set."""

from __future__ import annotations

import argparse
import json
import warnings
from collections.abc import Mapping, Sequence
from dataclasses import replace
from functools import partial
from pathlib import Path
from typing import TYPE_CHECKING, Any

from speechbrain_ser_cl.cli.completion import registered_names
from speechbrain_ser_cl.cli.probe import corpus_entry, corpus_hint
from speechbrain_ser_cl.cli.train import find_recipes, hparams_file

if TYPE_CHECKING:
    from speechbrain_ser_cl.corpora.utterance import Utterance
    from speechbrain_ser_cl.data.quality.report import DataReport, Finding

SUMMARY = "check a corpus: decode every file, report problems"
DESCRIPTION = """\
Reads the corpora of a recipe's YAML, or one corpus, decodes every file, and reports
counts, leaks between training and test, silent, clipped, very short and long files,
audio that occurs twice, small classes and suspicious speakers. recipes/own_corpus does
the same before it trains.
"""
EPILOG = """\
With a YAML any other --key value replaces that key, as with train.py.

examples:
  ser-cl check recipes/own_corpus/hparams/finetune.yaml --folder /data/calls
  ser-cl check my.yaml --write-exclude bad.txt    (then, in the YAML, exclude: bad.txt)
  ser-cl check /data/calls  (a table or class folders)
  ser-cl check /data/EmoDB --corpus emodb

exit status: 0 no errors (there may be warnings), 1 errors in the data, 2 the data
cannot be read.
"""
USAGE = "ser-cl check RECIPE|RECIPE.yaml|FOLDER [options] [--key value ...]"
TAKES_MORE = True


def add_arguments(parser: argparse.ArgumentParser) -> None:
    """Adds the command's arguments to its parser."""
    add = parser.add_argument
    what: Any = add("what", metavar="RECIPE|RECIPE.yaml|FOLDER", help="what to check")
    what.completer = lambda **_: sorted(find_recipes())
    corpus: Any = add(
        "--corpus", metavar="NAME", help="FOLDER is this one of `ser-cl list corpora`"
    )
    corpus.completer = lambda **_: registered_names("corpora")
    add("--json", action="store_true", help="print JSON, with every name")
    add(
        "--write-exclude",
        type=Path,
        metavar="FILE",
        help="write the ids to exclude to remove errors and copies, one per line",
    )


def run(arguments: argparse.Namespace) -> int:
    """Prints the report."""
    if arguments.corpus is not None or Path(arguments.what).is_dir():
        if arguments.more:
            raise ValueError(f"not known with a folder: {' '.join(arguments.more)}")
        folder = Path(arguments.what)
        with corpus_hint(arguments.corpus):
            report = _of_corpus(*corpus_entry(folder, arguments.corpus, None))
    else:
        report = _of_recipe(hparams_file(arguments.what), arguments.more)
    if arguments.write_exclude:
        ids = report.leave_out()
        arguments.write_exclude.write_text(
            "".join(f"{name}\n" for name in ids), "utf-8"
        )
    if arguments.json:
        print(json.dumps(report.as_dict(), indent=1, ensure_ascii=False))
    else:
        print(report.text())
        if arguments.write_exclude:
            print(f"{arguments.write_exclude}: {len(ids)} utterances to leave out")
    return 1 if report.errors else 0


def _of_corpus(name: str, entry: Mapping[str, str | None]) -> DataReport:
    from speechbrain_ser_cl.corpora.utterance import EMOTIONS
    from speechbrain_ser_cl.data.features.place import estimate_features
    from speechbrain_ser_cl.data.quality.audio_facts import audio_facts
    from speechbrain_ser_cl.data.quality.report import data_report
    from speechbrain_ser_cl.data.splits import Labelled

    # Missing files are reported with all other problems.
    utterances, found = _readable(name, entry, allow_missing=False, go_on=True)
    there = {utterance.emotion for utterance in utterances}
    names = [emotion for emotion in EMOTIONS if emotion in there]
    names += sorted(there - set(names))
    items = [Labelled(utterance, utterance.emotion) for utterance in utterances]
    facts = audio_facts(utterances)
    features = estimate_features(utterance.duration for utterance in utterances)
    report = data_report(
        items, facts, names, corpora={name: utterances}, features=features
    )
    return _with(found, report)


def _of_recipe(hparams_file: Path, overrides: Sequence[str]) -> DataReport:
    from speechbrain_ser_cl.data.experiment import (
        class_names,
        fold_split,
        look_up_folders,
        map_corpora,
        recipe_estimate,
        used_corpora,
    )
    from speechbrain_ser_cl.data.protocols import (
        DRAWN,
        SEEDS,
        resolve_protocol,
        select_parts,
    )
    from speechbrain_ser_cl.data.quality.audio_facts import FACTS_FILE, audio_facts
    from speechbrain_ser_cl.data.quality.report import ERROR, Finding, data_report
    from speechbrain_ser_cl.data.targets import resolve_target
    from speechbrain_ser_cl.sweeps.recipe import Recipe

    values = Recipe(hparams_file, hparams_file, tuple(overrides)).values
    lacking = [key for key in ("corpora", "emotion_map") if key not in values]
    if lacking:
        raise ValueError(
            f"{hparams_file}: no key {' and no '.join(lacking)}, so nothing says which "
            "data to check; check one corpus with --corpus"
        )
    allow_missing = bool(values.get("allow_missing"))
    entries = look_up_folders(used_corpora(values["corpora"]), hparams_file)
    classes = class_names(values["emotion_map"], list(entries))
    utterances, found = {}, []
    for name, entry in entries.items():
        utterances[name], bad = _readable(name, entry, allow_missing)
        found += bad
    target = resolve_target(values.get("target"))
    items, left_out = map_corpora(utterances, values["emotion_map"], target)
    cache = values.get("data_folder")
    facts = audio_facts(
        [item.utterance for item in items], cache and Path(cache) / FACTS_FILE
    )
    report = partial(
        data_report,
        items,
        facts,
        classes,
        left_out=left_out,
        allow_missing=allow_missing,
        corpora=utterances,
        features=recipe_estimate(items, values),
    )
    protocol, split_file = values.get("protocol", SEEDS), values.get("split_file")
    if resolve_protocol(protocol).get("kind") in DRAWN and not split_file:
        return _with(found, report())
    try:
        fold, seed = values.get("fold", 0), values.get("seed", 0)
        split = fold_split(items, protocol, fold, seed, split_file)
        parts = select_parts(items, split)
    except ValueError as error:
        # Such as a leak; the rest of the report is still useful.
        return _with([Finding("split", ERROR, str(error), []), *found], report())
    return _with(found, report(parts=parts, shared=split.shared))


def _readable(
    name: str, entry: Any, allow_missing: bool, go_on: bool = False
) -> tuple[list[Utterance], list[Finding]]:
    """Returns the utterances of a corpus that can be read, and the errors."""
    from speechbrain_ser_cl.corpora import CorpusError
    from speechbrain_ser_cl.data.experiment import read_corpus
    from speechbrain_ser_cl.data.quality.report import ERROR, Finding

    try:
        return read_corpus(name, entry, allow_missing), []
    except CorpusError as error:
        bad = error.unusable
        if not bad and go_on:
            return read_corpus(name, entry, allow_missing=True), []
        if not bad:
            raise
        finding = Finding("unreadable", ERROR, f"{error}; or exclude them", bad, bad)
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")  # the report contains it
        return read_corpus(name, entry, allow_missing=True), [finding]


def _with(found: Sequence[Finding], report: DataReport) -> DataReport:
    return replace(report, findings=[*found, *report.findings])
