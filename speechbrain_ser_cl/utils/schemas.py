"""Schemas and versions of all JSON files that are written and read back.

Kinds with a key ``format`` contain their version; files from before the first version
lack it and are read as version 1. ``history.json`` and manifests have formats that
other programs read (a list of rows, SpeechBrain's manifest), without a version.
``results.json`` lists the files of a run with checksums.
"""

import math
from collections.abc import Mapping
from pathlib import Path
from typing import Annotated, Any, Literal

from pydantic import AfterValidator, BeforeValidator, ConfigDict, Field, with_config
from typing_extensions import NotRequired, TypedDict

from speechbrain_ser_cl.utils.records import Kind, RecordError

_open = with_config(ConfigDict(strict=True, allow_inf_nan=False, extra="allow"))
_closed = with_config(ConfigDict(strict=True, allow_inf_nan=False, extra="forbid"))
_MOST_COUNTED = 10_000_000


def _square(matrix: list[list[int]]) -> list[list[int]]:
    if any(len(row) != len(matrix) for row in matrix):
        raise ValueError("a square matrix of counts")
    return matrix


def _different(names: list[str]) -> list[str]:
    if len(set(names)) < len(names):
        raise ValueError("names that are all different")
    return names


def _or_none(value: object) -> object:
    """Converts NaN, which earlier versions wrote, to None."""
    return None if isinstance(value, float) and not math.isfinite(value) else value


Text = Annotated[str, Field(min_length=1)]
Texts = list[Text]
Names = Annotated[list[Text], AfterValidator(_different)]
Count = Annotated[int, Field(ge=0, le=_MOST_COUNTED)]
Seed = Annotated[int, Field(ge=0, le=2**64)]
Share = Annotated[float, Field(ge=0, le=1)]
Bounds = Annotated[list[float], Field(min_length=2, max_length=2)]
Matrix = Annotated[list[list[Count]], Field(min_length=1), AfterValidator(_square)]
Sums = list[float] | list[list[float]]
Number = Annotated[float | None, BeforeValidator(_or_none)]
Numbers = dict[str, Number]


@_open
class Protocol(TypedDict):
    """Protocol from ``resolve_protocol``."""

    kind: NotRequired[Text]
    group: NotRequired[Text]
    n_folds: NotRequired[Count | None]
    valid: NotRequired[Text]
    leaks: NotRequired[Texts]
    per_corpus: NotRequired[dict[str, "Protocol"]]


@_closed
class SplitRecord(TypedDict):
    """Split file with one fold."""

    format: NotRequired[Literal[1]]
    train: Texts
    valid: Texts
    test: Texts
    fold: Count
    n_folds: Count
    protocol: Protocol
    seed: Seed
    corpora: Texts
    shared: dict[str, dict[str, Count]]
    fingerprint: Text
    absent: NotRequired[dict[str, Texts]]
    unused: NotRequired[Count]
    rule: NotRequired[Annotated[int, Field(ge=1, le=2)]]


@_open
class ManifestEntry(TypedDict):
    """An utterance of a manifest."""

    wav: Text
    duration: float
    corpus: Text
    speaker: str | None
    session: str | None
    gender: str | None
    language: str
    text_id: str | None
    emotion: Text
    split: NotRequired[str | None]
    recording: NotRequired[str | None]
    start: NotRequired[float | None]
    end: NotRequired[float | None]
    intensity: NotRequired[str | None]
    dimensions: NotRequired[dict[str, float] | None]
    votes: NotRequired[dict[str, float] | None]
    groups: NotRequired[dict[str, str] | None]


@_open
class Metric(TypedDict):
    """A metric of the test."""

    value: Share
    interval: NotRequired[Bounds | None]
    interval_speakers: NotRequired[Bounds | None]


@_open
class Scores(TypedDict):
    """Result of ``metrics.classification.summary``."""

    uar: NotRequired[Metric]
    wa: NotRequired[Metric]
    macro_f1: NotRequired[Metric]
    chance: NotRequired[Share]
    utterances: NotRequired[Count]
    speakers: NotRequired[Count | None]
    class_counts: NotRequired[list[Count]]
    confusion_matrix: NotRequired[Matrix]
    interval_speakers_missing: NotRequired[str | None]


@_open
class PartRecord(TypedDict):
    """Result of ``data.splits.describe_part``."""

    utterances: Count
    speakers: NotRequired[Count | None]
    hours: NotRequired[float]
    classes: dict[str, Count]


@_open
class DataRecord(TypedDict):
    """Data of a run's training and test."""

    parts: NotRequired[dict[str, PartRecord]]
    fingerprint: NotRequired[str | None]
    shared_between_parts: NotRequired[dict[str, Any]]
    findings: NotRequired[dict[str, Count]]
    left_out: NotRequired[dict[str, Count]]


@_open
class Machine(TypedDict):
    """Result of ``training.record.machine``."""

    processor: str
    cores: Count | None
    threads: Count
    gpu: NotRequired[str | None]


Versions = dict[str, str]


@_closed
class Terms(TypedDict):
    """Licence of a corpus, as in ``corpora.Licence``."""

    name: str
    share_audio: bool
    source: str
    allows: Literal[
        "anything",
        "with credit",
        "non-commercial",
        "research",
        "agreement",
        "disputed",
        "unknown",
    ]
    says: dict[str, str]


@_open
class Results(TypedDict):
    """``results.json``: settings and results of a run."""

    format: NotRequired[Literal[1]]
    recipe: NotRequired[str]
    setting: NotRequired[Text]
    order: NotRequired[float]
    encoder: NotRequired[str]
    demo: NotRequired[bool]
    source: NotRequired[str]
    target: NotRequired[str]
    target_split: NotRequired[str]
    seed: NotRequired[Seed]
    fold: NotRequired[Count]
    protocol: NotRequired[Protocol]
    data: NotRequired[DataRecord]
    licences: NotRequired[dict[str, Terms]]  # corpora with a card of the user's
    stages: NotRequired[dict[str, Numbers]]
    layer_weights: NotRequired[list[float] | None]
    class_names: NotRequired[Names]
    # dimensions or emotions; missing: classes
    kind: NotRequired[Text]
    test: NotRequired[Scores]
    valid: NotRequired[Numbers | None]
    tested_epoch: NotRequired[Count | None]
    epochs: NotRequired[Count]
    nonfinite_batches: NotRequired[Count]
    training_seconds: NotRequired[Number]
    versions: NotRequired[Versions]
    machine: NotRequired[Machine]
    peak_memory_mb: NotRequired[Numbers]
    files: NotRequired[dict[str, Text]]


@_open
class Epoch(TypedDict):
    """A row of ``history.json``."""

    epoch: Count
    phase: NotRequired[str]
    train: NotRequired[Numbers | None]
    valid: NotRequired[Numbers | None]
    lr: NotRequired[Number | Numbers]


@_open
class CrossvalRun(TypedDict):
    """A run of a cross-validation, as sums by corpus and speaker.

    ``counts`` are confusion counts; ``sums`` are those of other kinds of results.
    """

    fold: Count | None
    seed: Seed
    fingerprint: str | None
    counts: NotRequired[dict[Text, Annotated[dict[str, Matrix], Field(min_length=1)]]]
    sums: NotRequired[
        dict[Literal["votes", "dimensions", "emotions"], dict[Text, dict[str, Sums]]]
    ]
    numbers: NotRequired[Numbers]


class MissingRun(TypedDict):
    """A planned run without a result."""

    fold: Count | None
    seed: Seed


@_open
class Cost(TypedDict):
    """Time and memory of a cross-validation's runs."""

    runs: NotRequired[Annotated[Count, Field(ge=1)]]
    training_seconds: NotRequired[Number]
    stages: NotRequired[dict[str, Numbers] | None]
    peak_memory_mb: NotRequired[Numbers | None]
    machines: NotRequired[list[Machine]]
    versions: NotRequired[list[Versions]]


def _priced(cost: Cost) -> Cost:
    if cost.get("training_seconds") and "runs" not in cost:
        raise ValueError("runs beside training_seconds")
    return cost


@_open
class Crossval(TypedDict):
    """``crossval.json``: results of a cross-validated setting."""

    format: NotRequired[Literal[1]]
    missing: NotRequired[list[MissingRun]]
    recipe: NotRequired[str]
    setting: NotRequired[Text]
    order: NotRequired[float]
    encoder: NotRequired[str]
    demo: NotRequired[bool]
    protocol: Protocol
    kind: NotRequired[Text]
    class_names: Names
    groups: NotRequired[dict[str, Any]]
    cost: Annotated[Cost, AfterValidator(_priced)]
    runs: list[CrossvalRun]


def _one_size(record: Crossval) -> Crossval:
    size, total = len(record["class_names"]), 0
    kind = record.get("kind", "classes")
    found: list[Any] = []
    for run in record["runs"]:
        counts = run.get("counts")
        if kind != "classes":
            counts = dict[str, Any](**run.get("sums", {})).get(kind)
        found.append(counts)
    if None in found:
        raise ValueError(f"counts, or sums of {kind}, in all runs")
    if len({frozenset(counts) for counts in found}) > 1:
        raise ValueError("counts of the same corpora in all runs")
    for run in record["runs"]:
        for of_speaker in run.get("counts", {}).values():
            for matrix in of_speaker.values():
                total += sum(map(sum, matrix))
                if len(matrix) != size or total > 10 * _MOST_COUNTED:
                    raise ValueError(
                        f"counts of {size} classes in all runs, at most "
                        f"{10 * _MOST_COUNTED} utterances"
                    )
    return record


@_closed
class CrossvalRunNote(TypedDict):
    """``crossval_run.json``: the run in a folder and, once finished, its results."""

    format: NotRequired[Literal[1]]
    settings: dict[str, Any]
    results: Texts


@_open
class About(TypedDict):
    """Description of an experiment with several views."""

    recipe: NotRequired[str]
    encoder: str
    corpora: Texts
    demo: bool
    baseline: str
    chance: Share


@_open
class FewLabelsRow(TypedDict):
    """A training with few labels."""

    view: str
    method: str
    fraction: Share
    draw: Count
    labelled: Count
    uar: Share
    wa: Share


@_closed
class FewLabels(TypedDict):
    """``few_labels.json``: trainings with few labels of one fold."""

    format: NotRequired[Literal[1]]
    about: About
    fold: Count
    seed: Seed
    rows: Annotated[list[FewLabelsRow], Field(min_length=1)]


def _same_pairs(models: dict[str, Numbers]) -> dict[str, Numbers]:
    if len({frozenset(pairs) for pairs in models.values()}) > 1:
        raise ValueError("the same pairs of views for all models")
    return models


@_closed
class Alignment(TypedDict):
    """``alignment.json``: similarity of the views' embeddings."""

    format: NotRequired[Literal[1]]
    about: About
    fold: Count
    utterances: Count
    pwcca: Annotated[
        dict[str, Numbers], Field(min_length=1), AfterValidator(_same_pairs)
    ]


@_open
class PaperRow(TypedDict):
    """A number from a paper."""

    setting: Text
    note: str


@_open
class Paper(TypedDict):
    """``paper.json``: numbers from a paper."""

    format: NotRequired[Literal[1]]
    rows: NotRequired[list[PaperRow]]


@_closed
class Measured(TypedDict):
    """Measured results: records of the kinds above, by their paths."""

    measured: Literal[2]
    records: dict[str, dict[str, Any]]


def _printable(names: list[str]) -> list[str]:
    if not all(len(name) <= 64 and name.isprintable() for name in names):
        raise ValueError("printable names of at most 64 characters")
    return names


@_closed
class ModelPart(TypedDict):
    """A part of a model: registered name and arguments."""

    name: str
    arguments: dict[str, Any]


@_closed
class ModelRecord(TypedDict):
    """``model.json``: parts of a model, and the checksum of its weights."""

    format: Literal[1]
    classes: Annotated[
        Names, Field(min_length=1, max_length=1000), AfterValidator(_printable)
    ]
    sample_rate: Literal[16000]
    domain: Annotated[int, Field(ge=0)] | None
    # Divisor of the logits, fitted on validation data.
    temperature: NotRequired[Annotated[float, Field(gt=0, le=1000)]]
    # missing: classes
    kind: NotRequired[Literal["emotions", "dimensions"]]
    mean: NotRequired[list[float]]
    scale: NotRequired[list[float]]
    backbone: ModelPart
    pooling: ModelPart | None
    norm: ModelPart | None
    heads: Annotated[list[ModelPart], Field(min_length=1)]
    sha256: NotRequired[Text]


def _enough(record: ModelRecord) -> ModelRecord:
    kind, n = record.get("kind"), len(record["classes"])
    if kind is None and n < 2:
        raise ValueError("two classes or more")
    lengths = {len(record.get(key, [])) for key in ("mean", "scale")}  # type: ignore[arg-type]
    if lengths != {n if kind == "dimensions" else 0}:
        raise ValueError("mean and scale of each dimension, and of nothing else")
    return record


@_closed
class SyntheticUtterance(TypedDict):
    """An utterance of a synthetic corpus."""

    file: Text
    name: Text
    path: None
    speaker: Text
    emotion: Text
    session: str | None
    gender: str | None
    text_id: str | None
    language: NotRequired[None]
    split: NotRequired[None]
    recording: NotRequired[None]
    start: NotRequired[None]
    end: NotRequired[None]
    intensity: NotRequired[None]
    dimensions: NotRequired[dict[str, float] | None]
    votes: NotRequired[dict[str, float] | None]
    groups: NotRequired[dict[str, str] | None]


@_open
class SyntheticSettings(TypedDict):
    """Settings of a synthetic corpus."""

    corpus: Text


@_closed
class SyntheticRecord(TypedDict):
    """``corpus.json`` of a synthetic corpus."""

    settings: SyntheticSettings
    utterances: list[SyntheticUtterance]


_AGAIN = "Run it again, or take the file from a copy"
SPLIT: Kind[SplitRecord] = Kind(
    "split file", SplitRecord, "Make the splits again with ser-cl crossval"
)
MANIFEST: Kind[dict[str, ManifestEntry]] = Kind(
    "manifest", dict[Text, ManifestEntry], "Write the manifest again", None
)
RESULTS: Kind[Results] = Kind("results.json", Results, _AGAIN)
# Files beside a run's results.json, which has their checksums.
FILES = (
    *("predictions.csv", "utterances.csv", "embeddings.npz", "history.json"),
    *("dimensions.csv", "emotions.csv", "votes.csv"),
)


def check_kind(path: str | Path, results: Mapping[str, Any]) -> str:
    """Returns the kind of a run's results; refuses unknown kinds.

    Arguments
    ---------
    path : str or pathlib.Path
        Path of the file.
    results : mapping
        Contents of the file.

    Returns
    -------
    str
        ``classes``, ``dimensions`` or ``emotions``.

    Raises
    ------
    RecordError
        For an unknown kind.

    Example
    -------
    >>> check_kind("results.json", {})
    'classes'
    """
    kind = results.get("kind", "classes")
    if kind not in ("classes", "dimensions", "emotions"):
        raise RecordError(
            f"{path}: a run whose results are {kind}, expected classes, dimensions or "
            "emotions: a later version may have written it"
        )
    return str(kind)


HISTORY: Kind[list[Epoch]] = Kind("history.json", list[Epoch], _AGAIN, None)
CROSSVAL: Kind[Crossval] = Kind(
    "crossval.json",
    Annotated[Crossval, AfterValidator(_one_size)],
    "ser-cl crossval --resume writes it again from the runs",
)
CROSSVAL_RUN: Kind[CrossvalRunNote] = Kind(
    "crossval_run.json", CrossvalRunNote, "Delete the file; the run then starts anew"
)
FEW_LABELS: Kind[FewLabels] = Kind("few_labels.json", FewLabels, _AGAIN)
ALIGNMENT: Kind[Alignment] = Kind("alignment.json", Alignment, _AGAIN)
PAPER: Kind[Paper] = Kind("paper.json", Paper, "Correct the file")
MEASURED: Kind[Measured] = Kind(
    "file of measured results", Measured, "Write it again with --measured", None
)
MODEL: Kind[ModelRecord] = Kind(
    "model.json",
    Annotated[ModelRecord, AfterValidator(_enough)],
    "Export the model again",
)
SYNTHETIC: Kind[SyntheticRecord] = Kind(
    "synthetic corpus", SyntheticRecord, "Delete the folder; it is made again", None
)
