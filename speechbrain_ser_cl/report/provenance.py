"""Sections on the origin of results: settings, cost, data, and leaks."""

import re
from collections import Counter, defaultdict
from collections.abc import Iterable, Mapping, Sequence
from typing import Any

from speechbrain_ser_cl.data.protocols import SEEDS
from speechbrain_ser_cl.data.splits import LeakError, check_leaks, fingerprint
from speechbrain_ser_cl.report.blocks import (
    Block,
    Code,
    Facts,
    Note,
    Section,
    Table,
)
from speechbrain_ser_cl.report.runs import FinishedRun, Series
from speechbrain_ser_cl.results.crossval import total
from speechbrain_ser_cl.results.text import NONE, duration

_KEYS = ("speaker", "session", "text_id")
_FACTS = {
    "recipe": "recipe",
    "setting": "setting",
    "source": "source corpus",
    "target": "target corpus",
    "target_split": "target split by",
    "encoder": "encoder",
    "seed": "seed",
    "precision": "precision",
    "epochs": "epochs",
    "tested_epoch": "tested epoch",
    "nonfinite_batches": "batches skipped, gradient not finite",
}
# Shown in other sections, or not relevant for readers.
_ELSEWHERE = {"order", "demo", "data", "layer_weights", "class_names", "test", "valid"}
_ELSEWHERE |= {"format", "training_seconds", "versions", "machine", "peak_memory_mb"}


def what_ran(series: Series) -> Section:
    """Makes the section on recipe, settings, time, memory and versions."""
    records = [run.results for run in series.runs]
    crossval, items = series.crossval, []
    keys = [*_FACTS, *sorted({key for record in records for key in record})]
    for key in dict.fromkeys(keys):
        values = [record[key] for record in records if key in record]
        if not values and key in crossval.about:
            values = [crossval.about[key]]
        plain = all(isinstance(v, str | int | float | bool) for v in values)
        if values and plain and key not in _ELSEWHERE:
            items.append((_FACTS.get(key, key.replace("_", " ")), _all_of(values)))
    chosen = dict.fromkeys(_plain(r["probe"]) for r in records if "probe" in r)
    if chosen:
        items.append(("chosen by the inner folds", "; ".join(chosen)))
    told = [r.get("data", {}) for r in records]
    protocols = [d["protocol"] for d in told if "protocol" in d]
    if crossval.protocol.get("kind") != SEEDS:
        protocols = [crossval.protocol]
    if protocols:
        items.append(("protocol", _all_of(map(_plain, protocols))))
    folds = [one.fold for one in crossval.tested if one.fold is not None]
    folds = folds or [d["fold"] for d in told if "fold" in d]
    if folds:
        items.append(("folds" if len(set(folds)) > 1 else "fold", _all_of(folds)))
    if not records:
        items.append(("seed", _all_of(crossval.seeds)))
    items += _cost(records, crossval.cost)
    marks = {d.get("fingerprint") for d in told} - {None}
    if len(marks) == 1:
        items.append(("fingerprint of the split", marks.pop()))
    elif marks:
        items.append(("fingerprints of the splits", f"{len(marks)} different ones"))
    blocks: list[Block] = [Facts(items)]
    texts = dict.fromkeys(run.settings for run in series.runs if run.settings)
    if texts:
        which = f" of {series.runs[0].name}" if len(texts) > 1 else ""
        what = f"All settings{which} (hyperparams.yaml, absolute paths shortened)"
        blocks.append(Code(what, without_places(next(iter(texts)))))
    return Section("ran", "What ran", blocks)


def without_places(text: str) -> str:
    r"""Shortens absolute paths, which reveal the machine and its user.

    Arguments
    ---------
    text : str
        Text such as a YAML file.

    Returns
    -------
    str
        Text in which only the ends of paths remain.

    Example
    -------
    >>> print(without_places("folder: /home/Anna B/calls\nhub: a/b # of /opt/x.yaml"))
    folder: …/calls
    hub: a/b # of …/x.yaml
    """
    root = r"(?:/|[A-Za-z]:[/\\])"
    text = re.sub(rf"(?m)^([\w -]+: *['\"]?){root}.*[/\\]", r"\1…/", text)
    return re.sub(rf"(?<![\w./:…]){root}(?:[^\s/\\'\"]+[/\\])*", "…/", text)


def _plain(value: object) -> str:
    if isinstance(value, Mapping):
        return ", ".join(f"{k}: {_plain(v)}" for k, v in value.items())
    return ", ".join(map(str, value)) if isinstance(value, list) else str(value)


def _all_of(values: Iterable[Any]) -> str:
    return ", ".join(dict.fromkeys(map(str, values)))


def _cost(
    records: Sequence[Mapping[str, Any]], cost: Mapping[str, Any]
) -> list[tuple[str, str]]:
    """Lists time, memory, machine and versions."""
    items = []
    seconds = [r["training_seconds"] for r in records if "training_seconds" in r]
    total = sum(seconds) if seconds else cost.get("training_seconds")
    if total is not None:
        runs = len(seconds) or cost.get("runs", 1)
        each = f" ({duration(total / runs)} for each of {runs} runs)"
        items.append(("training time", duration(total) + (each if runs > 1 else "")))
    peaks = [r["peak_memory_mb"] for r in records if "peak_memory_mb" in r]
    peaks = peaks or [cost.get("peak_memory_mb") or {}]
    for kind, name in (("resident", "peak memory"), ("gpu", "peak memory of the GPU")):
        found = [peak[kind] for peak in peaks if kind in peak]
        if found:
            items.append((name, f"{max(found):.0f} MB"))
    machines = [r["machine"] for r in records if "machine" in r] or cost.get("machines")
    if machines:
        items.append(("machine", "; ".join(dict.fromkeys(map(_machine, machines)))))
    versions = [r["versions"] for r in records if "versions" in r]
    versions = versions or cost.get("versions") or []
    if versions:
        told = dict.fromkeys(
            ", ".join(f"{k} {v}" for k, v in one.items()) for one in versions
        )
        items.append(("versions", "; ".join(told)))
    return items


def _machine(machine: Mapping[str, Any]) -> str:
    cores = f"{machine.get('threads')} of {machine.get('cores')} cores"
    parts = [machine.get("gpu") or "no GPU", machine.get("processor"), cores]
    return ", ".join(str(part) for part in parts if part)


def data(series: Series) -> Section:
    """Makes the section on counts per part, class and speaker, and on leaks."""
    blocks: list[Block] = []
    runs = [run for run in series.runs if run.parts]
    recorded = [r.results["data"] for r in series.runs if "data" in r.results]
    if runs:
        blocks += _counts(runs[0], len(series.runs) > 1)
    elif recorded and "parts" in recorded[0]:
        blocks.append(_recorded_counts(recorded[0]["parts"]))
        blocks.append(
            Note(
                "No counts per speaker: there is no utterances.csv beside the results."
            )
        )
    elif series.crossval.kind == "classes":
        for corpus in series.crossval.corpora:
            counts = total(series.crossval.per_speaker(corpus)).sum(1)
            names = series.crossval.class_names
            rows = [
                [n, str(c)] for n, c in zip(names, counts.tolist(), strict=True) if c
            ]
            blocks.append(
                Table(f"Tested utterances of {corpus}", ["class", "utterances"], rows)
            )
    findings = recorded[0].get("findings", {}) if recorded else {}
    if findings:
        text = "; ".join(f"{check}: {count}" for check, count in findings.items())
        blocks.append(Note(f"Findings of the data check: {text}."))
    blocks += _leaks(runs, recorded)
    return Section("data", "Data and leak check", blocks)


def _counts(run: FinishedRun, one_of_several: bool) -> list[Table]:
    which = f" ({run.name}; other runs have other parts)" if one_of_several else ""
    labels = sorted({i.label for part in run.parts.values() for i in part})
    of_parts, of_speakers = [], []
    for name, part in run.parts.items():
        corpora = _all_of(sorted({item.utterance.corpus for item in part}))
        hours = sum(item.utterance.duration for item in part) / 3600
        speakers: dict[tuple[str, str], Counter[str]] = defaultdict(Counter)
        for item in part:
            key = (item.utterance.speaker or NONE, item.utterance.gender or NONE)
            speakers[key][item.label] += 1
        known = {item.utterance.speaker for item in part} - {None}
        classes = sum(speakers.values(), Counter[str]())
        shown = name.replace("_", " ")
        of_parts.append(
            [shown, corpora, str(len(part)), str(len(known)), f"{hours:.2f}"]
            + [str(classes[label]) for label in labels]
        )
        of_speakers += [
            [*key, shown, *(str(counts[label]) for label in labels)]
            for key, counts in speakers.items()
        ]
    header = ["part", "corpus", "utterances", "speakers", "hours", *labels]
    return [
        Table(f"Parts of the data{which}", header, of_parts, texts=2),
        Table(
            f"Utterances of each speaker by part and class{which}",
            ["speaker", "gender", "part", *labels],
            sorted(of_speakers),
            texts=3,
            folded=True,
        ),
    ]


def _recorded_counts(parts: Mapping[str, Any]) -> Table:
    labels = sorted({label for part in parts.values() for label in part["classes"]})
    rows = [
        [name.replace("_", " "), str(part["utterances"]), str(part["speakers"])]
        + [f"{part['hours']:.2f}"]
        + [str(part["classes"].get(label, 0)) for label in labels]
        for name, part in parts.items()
    ]
    header = ["part", "utterances", "speakers", "hours", *labels]
    return Table("Parts of the data", header, rows)


def _leaks(
    runs: Sequence[FinishedRun], recorded: Sequence[Mapping[str, Any]]
) -> list[Block]:
    """Reports what the parts share: counted again if the utterances are known."""
    shared: dict[str, Counter[str]] = {key: Counter() for key in _KEYS}
    blocks: list[Block] = []
    told = [_flat(one.get("shared_between_parts", {})) for one in recorded]
    checked = set()
    for run in runs:
        mark = fingerprint(run.parts)
        said = run.results.get("data", {}).get("fingerprint")
        if said and mark != said:
            text = (
                f"{run.name}: utterances.csv is not the split that results.json was "
                "made with: their fingerprints differ."
            )
            blocks.append(Note(text, warning=True))
        if mark in checked:
            continue
        checked.add(mark)
        try:
            told.append(check_leaks(run.parts, _KEYS, _KEYS))
        except LeakError as error:
            why = without_places(str(error))
            blocks.append(Note(f"Leak in {run.name}: {why}.", warning=True))
    for one in told:
        for key, told_pairs in one.items():
            for pair, count in told_pairs.items():
                known = shared.setdefault(key, Counter())
                known[pair] = max(known[pair], count)
    pairs = list(dict.fromkeys(pair for counts in shared.values() for pair in counts))
    if not pairs:
        return [*blocks, Note("What the parts share was not recorded.")]
    rows = [
        [_words(pair)]
        + [str(shared[key][pair]) if pair in shared[key] else NONE for key in _KEYS]
        for pair in pairs
    ]
    how = (
        "counted again from utterances.csv"
        if runs
        else "as results.json has recorded it"
    )
    most = ", the most of any run" if max(len(runs), len(recorded)) > 1 else ""
    header = ["parts", "speakers", "sessions", "texts"]
    blocks.append(Table(f"Shared between parts ({how}{most})", header, rows))
    met = {
        pair: count
        for pair, count in shared["speaker"].items()
        if "train" in pair and "test" in pair
    }
    return [*blocks, *_verdict(met, runs)]


def _words(pair: str) -> str:
    return pair.replace("_", " ").replace("/", " and ")


def _verdict(met: Mapping[str, int], runs: Sequence[FinishedRun]) -> list[Note]:
    """Says whether training and test share speakers."""
    if any(met.values()):
        told = "; ".join(
            f"{_words(pair)}: {count}" for pair, count in met.items() if count
        )
        text = (
            f"A training part and the test part share speakers ({told}). If that "
            "part is used for training, the results below do not apply to new speakers."
        )
        return [Note(text, warning=True)]
    items = [item for run in runs for part in run.parts.values() for item in part]
    unknown = len({i.utterance.id for i in items if i.utterance.speaker is None})
    if unknown:
        text = (
            f"The speakers of {unknown} utterances are unknown: the test may share "
            "speakers with training."
        )
        return [Note(text, warning=True)]
    return [Note("The test shares no speaker with a training part.")] if met else []


def _flat(told: Mapping[str, Any]) -> dict[str, dict[str, int]]:
    """Returns key to pair to count; corpora, if there are any, are put together."""
    flat: dict[str, dict[str, int]] = {}
    for key, value in told.items():
        inner = {key: value} if key in _KEYS else value
        for name, pairs in inner.items():
            flat.setdefault(name, {}).update(pairs)
    return flat
