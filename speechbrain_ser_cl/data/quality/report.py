"""Reports counts and errors of the data before training."""

import json
import re
from collections import Counter, defaultdict
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import asdict, dataclass, field
from pathlib import Path
from typing import Any

import numpy as np

from speechbrain_ser_cl.corpora.table import TableUtterances
from speechbrain_ser_cl.corpora.utterance import Utterance
from speechbrain_ser_cl.data.features.place import Estimate
from speechbrain_ser_cl.data.quality.agreement import krippendorff_alpha
from speechbrain_ser_cl.data.quality.audio_facts import SILENT_PEAK, AudioFacts
from speechbrain_ser_cl.data.splits import Labelled
from speechbrain_ser_cl.utils.errors import SERError, offenders
from speechbrain_ser_cl.utils.files import replacing

# Fraction of samples in runs at the largest magnitude.
CLIPPED_SHARE = 0.001
SHORT_SECONDS = 0.3
LONG_SECONDS = 30.0
TINY_CLASS = 10
# How much better than the most frequent class file properties may predict the class.
CONFOUNDED = 0.1

ERROR, WARNING = "error", "warning"


class DataError(SERError):
    """The data have errors that prevent training and test."""


@dataclass(frozen=True)
class Finding:
    """One problem of the data.

    Arguments
    ---------
    check : str
        Name of the check, such as ``"silent"``.
    level : str
        ``"error"``: prevents training; ``"warning"``: does not.
    message : str
        What was found, and what to do.
    names : list of str
        Ids of all utterances concerned, or names of classes or speakers.
    leave_out : list of str
        Ids of utterances to leave out to resolve the problem.

    Example
    -------
    >>> Finding("silent", "error", "silent files (1: a)", ["a"], ["a"]).level
    'error'
    """

    check: str
    level: str
    message: str
    names: list[str]
    leave_out: list[str] = field(default_factory=list)


@dataclass(frozen=True)
class DataReport:
    """Counts and problems of an experiment's data.

    Arguments
    ---------
    parts : dict
        Name of each part, and ``"all"``, to its ``"classes"`` (utterances of each),
        ``"utterances"``, ``"speakers"`` (known ones), ``"of unknown speakers"``
        (utterances) and ``"hours"``.
    seconds : dict
        ``"shortest"``, ``"median"`` and ``"longest"`` duration.
    shared : dict
        For speakers, sessions and texts, where known: number of values that each two
        parts share. Empty without parts.
    left_out : dict
        Emotion without a class to its number of utterances.
    findings : list of Finding
        Problems, errors first.
    listeners : dict
        If there are votes: ``"utterances"`` with votes, mean ``"votes"`` per utterance,
        ``"alpha"``: Krippendorff's, over the corpus' own emotions, ``"emotion"``:
        fraction of utterances whose emotion has most votes.
    dimensions : dict
        Name to ``"utterances"``, ``"lowest"``, ``"mean"`` and ``"highest"``.
    columns : dict
        For each table corpus: ``"taken"``, field to column name, and ``"unused"``, the
        other columns.
    features : Estimate, optional
        Place and size of the features of a frozen encoder.

    Example
    -------
    >>> finding = Finding("silent", "error", "all silent", [])
    >>> report = DataReport({}, {}, {}, {}, [finding])
    >>> report.refuse_errors()
    Traceback (most recent call last):
    speechbrain_ser_cl.data.quality.report.DataError: the data have 1 error: all silent
    """

    parts: dict[str, dict[str, Any]]
    seconds: dict[str, float]
    shared: dict[str, dict[str, int]]
    left_out: dict[str, int]
    findings: list[Finding]
    listeners: dict[str, float | None] = field(default_factory=dict)
    dimensions: dict[str, dict[str, float]] = field(default_factory=dict)
    columns: dict[str, dict[str, Any]] = field(default_factory=dict)
    features: Estimate | None = None

    @property
    def errors(self) -> list[Finding]:
        """Findings that prevent training."""
        return [finding for finding in self.findings if finding.level == ERROR]

    @property
    def warnings(self) -> list[Finding]:
        """Findings that do not prevent training."""
        return [finding for finding in self.findings if finding.level == WARNING]

    def leave_out(self) -> list[str]:
        """Returns the utterances to leave out to remove all errors and repetitions."""
        return sorted({name for f in self.findings for name in f.leave_out})

    def refuse_errors(self) -> None:
        """Raises a ``DataError`` with all errors, if there are any."""
        if self.errors:
            told = "; ".join(finding.message for finding in self.errors)
            raise DataError(f"the data have {_number(self.errors, ERROR)}: {told}")

    def as_dict(self) -> dict[str, Any]:
        """Returns the whole report as plain values, for JSON."""
        features = self.features and self.features._asdict()
        return {**asdict(self), "features": features}

    def write(self, path: str | Path) -> None:
        """Writes the report as JSON, with all names.

        Arguments
        ---------
        path : str or pathlib.Path
            Output file; its folder is created if needed.
        """
        path = Path(path)
        path.parent.mkdir(parents=True, exist_ok=True)
        with replacing(path) as part:
            text = json.dumps(self.as_dict(), indent=1, ensure_ascii=False)
            part.write_text(text + "\n", encoding="utf-8")

    def text(self) -> str:
        """Formats the report for a terminal."""
        blocks = [_table(self.parts), self._facts(), self._findings()]
        return "\n\n".join("\n".join(lines) for lines in blocks)

    def _facts(self) -> list[str]:
        lines = [
            f"duration: {self.seconds['shortest']:.2f} to "
            f"{self.seconds['longest']:.2f} s, median {self.seconds['median']:.2f} s"
        ]
        for key, pairs in self.shared.items():
            told = ", ".join(f"{n} in {pair}" for pair, n in pairs.items() if n)
            lines.append(f"{key} in two parts: {told or 'none that is known'}")
        if self.left_out:
            told = ", ".join(f"{n} {emotion}" for emotion, n in self.left_out.items())
            lines.append(f"left out, in no class of emotion_map: {told}")
        if self.listeners:
            alpha = self.listeners["alpha"]
            lines.append(
                f"listeners: {self.listeners['votes']:.1f} votes for each of "
                f"{self.listeners['utterances']} utterances, Krippendorff's alpha "
                f"{'not defined' if alpha is None else f'{alpha:.2f}'}; the corpus' "
                f"emotion has most votes of {self.listeners['emotion']:.0%}"
            )
        for corpus, columns in self.columns.items():
            told = ", ".join(f"{key} is {col}" for key, col in columns["taken"].items())
            unused = ", ".join(columns["unused"]) or "none"
            lines.append(f"columns of {corpus}: {told}; not read: {unused}")
        for name, one in self.dimensions.items():
            lines.append(
                f"{name}: {one['lowest']:g} to {one['highest']:g}, mean "
                f"{one['mean']:.2f}, of {one['utterances']} utterances"
            )
        if self.features:
            lines.append(str(self.features))
        return lines

    def _findings(self) -> list[str]:
        lines = [f"{one.level.upper()}: {one.message}" for one in self.findings]
        numbers = (_number(self.errors, ERROR), _number(self.warnings, WARNING))
        return [*lines, ", ".join(numbers)]


def data_report(
    items: Sequence[Labelled],
    facts: Mapping[str, AudioFacts],
    class_names: Sequence[str],
    parts: Mapping[str, Sequence[Labelled]] | None = None,
    shared: Mapping[str, Mapping[str, int]] | None = None,
    left_out: Mapping[str, int] | None = None,
    allow_missing: bool = False,
    corpora: Mapping[str, Sequence[Utterance]] | None = None,
    features: Estimate | None = None,
) -> DataReport:
    """Counts and checks the data of an experiment.

    Errors: audio that cannot be read, silence (no sample above -60 dB of full scale),
    the same audio in two parts, a class that training or test lacks. Warnings: clipped,
    very short and very long files; small classes; the same audio twice within a part,
    with two classes or by two speakers; speakers with one class only, of two genders or
    languages, or with nearly equal names; unknown speakers; classes that properties of
    the files predict. ``make_folds`` and ``select_parts`` check that parts share no
    speaker, session or text.

    Arguments
    ---------
    items : sequence of Labelled
        All utterances.
    facts : mapping
        From ``audio_facts``, for all utterances.
    class_names : sequence of str
        Class names in order.
    parts : mapping, optional
        ``"train"``, ``"valid"`` and ``"test"`` to their utterances.
    shared : mapping, optional
        What the parts share, from ``Split``.
    left_out : mapping, optional
        Emotion without a class to its number of utterances.
    allow_missing : bool
        Whether silence is a warning instead of an error.
    corpora : mapping, optional
        Corpus name to the reader's result.
    features : Estimate, optional
        From ``estimate_features``.

    Returns
    -------
    DataReport
        The report. Call ``refuse_errors`` to raise its errors.

    Example
    -------
    >>> from speechbrain_ser_cl.corpora import Utterance
    >>> utterance = Utterance(id="toy_1", path=Path("1.wav"), duration=1.0,
    ...     corpus="toy", speaker="toy_s1", session=None, gender=None, language="en",
    ...     text_id=None, emotion="sad")
    >>> silent = {"toy_1": AudioFacts(0.0, 0.0, "", 16000, 1)}
    >>> report = data_report([Labelled(utterance, "low")], silent, ["low"])
    >>> [finding.check for finding in report.errors]
    ['silent']
    """
    usable = [i for i in items if facts[i.utterance.id].problem is None]
    findings = [
        *_bad_files(items, facts, allow_missing),
        *_repeated_audio(usable, facts, parts or {}),
        *_classes(items, class_names, parts),
        *_speakers(items),
        *_recordings(usable, facts),
    ]
    every = dict(parts or {}) | {"all": items}
    seconds = np.array([item.utterance.duration for item in items])
    return DataReport(
        parts={name: _counts(part, class_names) for name, part in every.items()},
        seconds={
            "shortest": float(seconds.min()),
            "median": float(np.median(seconds)),
            "longest": float(seconds.max()),
        },
        shared={
            key: dict(pairs)
            for key, pairs in (shared or {}).items()
            if any(getattr(item.utterance, key) is not None for item in items)
        },
        left_out=dict(left_out or {}),
        findings=sorted(findings, key=lambda finding: finding.level != ERROR),
        listeners=_listeners(items),
        dimensions=_dimensions(items),
        columns={
            name: {"taken": corpus.columns, "unused": corpus.unused}
            for name, corpus in (corpora or {}).items()
            if isinstance(corpus, TableUtterances)
        },
        features=features,
    )


def _listeners(items: Sequence[Labelled]) -> dict[str, float | None]:
    heard = [(u.emotion, u.votes) for u, _ in items if u.votes]
    if not heard:
        return {}
    return {
        "utterances": len(heard),
        "votes": sum(sum(votes.values()) for _, votes in heard) / len(heard),
        "alpha": krippendorff_alpha(votes for _, votes in heard),
        "emotion": sum(
            votes.get(emotion, 0) == max(votes.values()) for emotion, votes in heard
        )
        / len(heard),
    }


def _dimensions(items: Sequence[Labelled]) -> dict[str, dict[str, float]]:
    values: defaultdict[str, list[float]] = defaultdict(list)
    for utterance, _ in items:
        for name, value in (utterance.dimensions or {}).items():
            values[name].append(value)
    return {
        name: {
            "utterances": len(some),
            "lowest": min(some),
            "mean": sum(some) / len(some),
            "highest": max(some),
        }
        for name, some in values.items()
    }


def _bad_files(
    items: Sequence[Labelled], facts: Mapping[str, AudioFacts], allow_missing: bool
) -> Iterator[Finding]:
    """Finds problems of single files."""
    known = [(item.utterance, facts[item.utterance.id]) for item in items]
    problems = [fact.problem for _, fact in known if fact.problem]
    if problems:
        names = [utterance.id for utterance, fact in known if fact.problem]
        yield Finding(
            "unreadable",
            ERROR,
            f"files that cannot be read ({offenders(problems)}); exclude them",
            names,
            names,
        )
    known = [(utterance, fact) for utterance, fact in known if not fact.problem]
    silent = [u.id for u, fact in known if fact.peak < SILENT_PEAK]
    if silent:
        cure = "exclude them, or set allow_missing: True to go on"
        yield Finding(
            "silent",
            WARNING if allow_missing else ERROR,
            f"silent files, no sample above -60 dB ({offenders(silent)}); {cure}",
            silent,
            silent,
        )
    clipped = [
        u.id
        for u, fact in known
        if fact.clipped > CLIPPED_SHARE and fact.peak >= SILENT_PEAK
    ]
    short = [u.id for u, _ in known if u.duration < SHORT_SECONDS]
    long = [u.id for u, _ in known if u.duration > LONG_SECONDS]
    for check, names, what in (
        ("clipped", clipped, f"over {CLIPPED_SHARE:.1%} of their samples are clipped"),
        ("short", short, f"files shorter than {SHORT_SECONDS} s"),
        ("long", long, f"files longer than {LONG_SECONDS:.0f} s"),
    ):
        if names:
            yield Finding(check, WARNING, f"{what} ({offenders(names)})", names)


def _repeated_audio(
    items: Sequence[Labelled],
    facts: Mapping[str, AudioFacts],
    parts: Mapping[str, Sequence[Labelled]],
) -> Iterator[Finding]:
    """Finds files with the same audio."""
    part_of = {i.utterance.id: name for name, part in parts.items() for i in part}
    alike = defaultdict(list)
    for item in sorted(items, key=lambda item: item.utterance.id):
        fact = facts[item.utterance.id]
        if fact.peak >= SILENT_PEAK:
            alike[fact.digest].append(item)
    groups = [group for group in alike.values() if len(group) > 1]

    def differ(value_of: Callable[[Labelled], object]) -> list[list[Labelled]]:
        return [g for g in groups if len({value_of(i) for i in g} - {None}) > 1]

    def finding(
        check: str, level: str, found: list[list[Labelled]], what: str = ""
    ) -> Finding:
        ids = [[item.utterance.id for item in group] for group in found]
        # Copies in two classes: the right class is unknown.
        doubtful = [
            names if len({item.label for item in group}) > 1 else names[1:]
            for names, group in zip(ids, found, strict=True)
        ]
        return Finding(
            check,
            level,
            f"the {check}{what} ({offenders(' = '.join(names) for names in ids)})",
            sum(ids, []),
            sum(doubtful, []),
        )

    across = differ(lambda item: part_of.get(item.utterance.id))
    if across:
        pairs = Counter(
            "/".join(sorted({part_of.get(i.utterance.id, "") for i in group} - {""}))
            for group in across
        )
        told = ", ".join(f"{n} in {pair}" for pair, n in sorted(pairs.items()))
        cure = "exclude all but one of each"
        yield finding("same audio in two parts", ERROR, across, f", {told}; {cure}")
    for check, found in (
        ("same audio twice", [group for group in groups if group not in across]),
        ("same audio with two classes", differ(lambda item: item.label)),
        ("same audio by two speakers", differ(lambda item: item.utterance.speaker)),
    ):
        if found:
            yield finding(check, WARNING, found)


def _classes(
    items: Sequence[Labelled],
    class_names: Sequence[str],
    parts: Mapping[str, Sequence[Labelled]] | None,
) -> Iterator[Finding]:
    """Finds classes that a part lacks, or that are small."""
    absent: dict[str, list[str]] = {ERROR: [], WARNING: []}
    tiny = []
    for name, part in (parts or {"all": items}).items():
        counts = Counter(item.label for item in part)
        for label in class_names:
            if not counts[label]:
                # Only a warning, because another fold may test the class.
                level = WARNING if name in ("valid", "test") else ERROR
                absent[level].append(f"{label} in {name}")
            elif counts[label] < TINY_CLASS:
                tiny.append(f"{label} {counts[label]} in {name}")
    for level, names in absent.items():
        if names:
            yield Finding(
                "absent class",
                level,
                f"classes without an utterance ({offenders(names)}). Choose another "
                "protocol or fewer folds, or leave the class out of emotion_map",
                names,
            )
    if tiny:
        yield Finding(
            "tiny class",
            WARNING,
            f"classes with fewer than {TINY_CLASS} utterances ({offenders(tiny)})",
            tiny,
        )


def _speakers(items: Sequence[Labelled]) -> Iterator[Finding]:
    """Finds unknown speakers, speakers with one class, and possible duplicates."""
    unknown = [i.utterance.id for i in items if i.utterance.speaker is None]
    if unknown:
        yield Finding(
            "unknown speaker",
            WARNING,
            f"the speaker is not known ({offenders(unknown)}): training and test may "
            "share speakers; protocol: {unknown: leave_out} leaves them out",
            unknown,
        )
    classes, forms = defaultdict(set), defaultdict(set)
    traits: dict[str, defaultdict[str, set[str]]] = {
        key: defaultdict(set) for key in ("gender", "language")
    }
    for utterance, label in items:
        if utterance.speaker is not None:
            for key, known in traits.items():
                if value := getattr(utterance, key):
                    known[utterance.speaker].add(value)
            classes[utterance.speaker].add(label)
            plain = re.sub(r"[\W_]+", "", utterance.speaker.casefold())
            forms[plain].add(utterance.speaker)
    if len({label for _, label in items}) > 1:
        single = [name for name, labels in classes.items() if len(labels) == 1]
        if single:
            yield Finding(
                "speaker with one class",
                WARNING,
                f"speakers with utterances of one class only ({offenders(single)}): "
                "the speaker determines the class",
                single,
            )
    for key, known in traits.items():
        several = {n: sorted(found) for n, found in known.items() if len(found) > 1}
        if several:
            told = offenders(f"{n}: {' and '.join(v)}" for n, v in several.items())
            yield Finding(
                f"speaker of two {key}s",
                WARNING,
                f"speakers of more than one {key} ({told}): two people may have one "
                "name, so that a fold tests fewer speakers than there are, or a bad "
                "row; correct the column or pattern of speakers",
                list(several),
            )
    alike = [" = ".join(sorted(names)) for names in forms.values() if len(names) > 1]
    if alike:
        yield Finding(
            "speakers alike",
            WARNING,
            f"names of speakers that differ in case, blanks or marks only "
            f"({offenders(alike)}): one person may be in training and in test",
            alike,
        )


def _recordings(
    items: Sequence[Labelled], facts: Mapping[str, AudioFacts]
) -> Iterator[Finding]:
    """Finds properties of the files that predict the class."""
    if not items:
        return
    of_form: defaultdict[str, Counter[str]] = defaultdict(Counter)
    for utterance, label in items:
        fact = facts[utterance.id]
        form = f"{fact.rate} Hz, {fact.channels} channels, {utterance.path.suffix}"
        of_form[form][label] += 1
    guess = sum(max(counts.values()) for counts in of_form.values()) / len(items)
    usual = max(Counter(item.label for item in items).values()) / len(items)
    if guess > usual + CONFOUNDED:
        forms = [
            f"{form}: "
            + ", ".join(f"{n} {label}" for label, n in sorted(counts.items()))
            for form, counts in of_form.items()
        ]
        yield Finding(
            "recorded otherwise",
            WARNING,
            f"the form of the files predicts the class of {guess:.0%}, the most "
            f"frequent class is {usual:.0%} ({offenders(forms)}): a model may learn "
            "how classes were recorded",
            forms,
        )


def _counts(items: Sequence[Labelled], class_names: Sequence[str]) -> dict[str, Any]:
    counts = Counter(item.label for item in items)
    speakers = Counter(item.utterance.speaker for item in items)
    unknown = speakers.pop(None, 0)
    return {
        "classes": {name: counts[name] for name in class_names},
        "utterances": len(items),
        "speakers": len(speakers),
        "of unknown speakers": unknown,
        "hours": round(sum(item.utterance.duration for item in items) / 3600, 4),
    }


def _table(parts: Mapping[str, Mapping[str, Any]]) -> list[str]:
    """Formats a table with one column per part."""
    names = list(parts["all"]["classes"])
    rows = [["", *parts]]
    rows += [
        [name, *(part["classes"][name] for part in parts.values())] for name in names
    ]
    rows += [
        [key, *(part[key] for part in parts.values())]
        for key in ("utterances", "speakers", "of unknown speakers", "hours")
        if key != "of unknown speakers" or parts["all"][key]
    ]
    cells = [
        [f"{c:.2f}" if isinstance(c, float) else str(c) for c in row] for row in rows
    ]
    widths = [max(map(len, column)) for column in zip(*cells, strict=True)]
    lines = [
        "  ".join(
            [row[0].ljust(widths[0])]
            + [cell.rjust(w) for cell, w in zip(row[1:], widths[1:], strict=True)]
        )
        for row in cells
    ]
    rule = "-" * len(lines[0])
    return [lines[0], rule, *lines[1 : 1 + len(names)], rule, *lines[1 + len(names) :]]


def _number(findings: Sequence[Finding], what: str) -> str:
    return f"{len(findings)} {what}{'' if len(findings) == 1 else 's'}"
