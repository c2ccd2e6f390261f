"""Reads runs and cross-validations, and groups them by setting."""

import os
import re
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, field
from functools import cached_property
from pathlib import Path
from typing import Any

import numpy as np
from tqdm import tqdm

from speechbrain_ser_cl.data.protocols import SEEDS
from speechbrain_ser_cl.data.splits import Labelled
from speechbrain_ser_cl.results.crossval import (
    FILE,
    CrossValidation,
    Outcome,
    parse_crossval,
)
from speechbrain_ser_cl.results.measured import find_records
from speechbrain_ser_cl.results.predictions import Predictions, read_predictions
from speechbrain_ser_cl.results.sums import (
    UNKNOWN,
    RunSums,
    read_sums,
    summarise_groups,
)
from speechbrain_ser_cl.results.utterances import read_parts
from speechbrain_ser_cl.utils.files import read_text
from speechbrain_ser_cl.utils.records import check_files, read
from speechbrain_ser_cl.utils.schemas import (
    CROSSVAL_RUN,
    FILES,
    HISTORY,
    check_kind,
)

_ABOUT = ("recipe", "setting", "order", "encoder", "demo")
_CORPORA = ("source", "target", "target_split")


@dataclass(frozen=True)
class FinishedRun:
    """What the folder of one run contains; all except ``results`` may be missing.

    Arguments
    ---------
    folder : pathlib.Path
        Folder of the run.
    results : dict
        ``results.json``.
    history : list of dict
        ``history.json``: one row per epoch.
    predictions : Predictions or None
        ``predictions.csv``.
    parts : dict
        ``utterances.csv``: name of a part to its utterances.
    settings : str
        Text of ``hyperparams.yaml``.

    Example
    -------
    >>> FinishedRun(Path("results/fold-2/seed-1"), {"seed": 1}, [], None, {}, "").name
    'fold 2, seed 1'
    """

    folder: Path
    results: Mapping[str, Any]
    history: Sequence[Mapping[str, Any]]
    predictions: Predictions | None
    parts: dict[str, list[Labelled]]
    settings: str

    @property
    def fold(self) -> int | None:
        """Number of the fold, from the folder names of ``ser-cl crossval``."""
        names = [re.fullmatch(r"fold-(\d+)", name) for name in self.folder.parts]
        folds = [int(match[1]) for match in names if match]
        return folds[-1] if folds else None

    @property
    def name(self) -> str:
        """Fold and seed in words."""
        fold = "" if self.fold is None else f"fold {self.fold}, "
        return f"{fold}seed {self.results.get('seed', '?')}"

    @property
    def embeddings(self) -> Path | None:
        """Path of ``embeddings.npz``, if it exists."""
        path = self.folder / "embeddings.npz"
        return path if path.exists() else None

    @cached_property
    def utterances(self) -> dict[str, Labelled]:
        """Id to utterance, for all parts."""
        return {i.utterance.id: i for part in self.parts.values() for i in part}

    @property
    def class_names(self) -> list[str]:
        """Names of the classes; ``class 0``, … if they are unknown."""
        if self.predictions is not None:
            return self.predictions.class_names
        if "class_names" in self.results:
            return list(self.results["class_names"])
        n_classes = len(self.results["test"]["confusion_matrix"])
        return [f"class {k}" for k in range(n_classes)]

    def sums(self) -> RunSums:
        """Sums the test results by speaker and group."""
        if self.parts and (self.predictions is not None or self.kind != "classes"):
            return read_sums(self.folder, self.results)
        return RunSums(
            self.kind, self.class_names, {self.kind: self._counts()}, {self.kind: {}}
        )

    @property
    def kind(self) -> str:
        """Kind of the results, see ``metrics.kinds``."""
        return str(self.results.get("kind", "classes"))

    def _counts(self) -> dict[str, dict[str, np.ndarray]]:
        """Returns counts (C, C) by corpus and speaker, for a run without parts."""
        corpus = self.results.get("target", "test")
        if self.predictions is None:
            return {
                corpus: {UNKNOWN: np.array(self.results["test"]["confusion_matrix"])}
            }
        found, n_classes = self.predictions, len(self.class_names)
        known = self.utterances
        counts: dict[str, dict[str, np.ndarray]] = {}
        for i, name in enumerate(found.ids):
            of, speaker = corpus, UNKNOWN
            if name in known:
                utterance = known[name].utterance
                of, speaker = utterance.corpus, utterance.speaker or UNKNOWN
            own = counts.setdefault(of, {}).setdefault(
                speaker, np.zeros((n_classes, n_classes), dtype=np.int64)
            )
            own[found.labels[i], found.predictions[i]] += 1
        return counts


@dataclass
class Series:
    """The runs of one setting: one run, seeds, or all folds of a cross-validation.

    Arguments
    ---------
    name : str
        Name of the setting.
    runs : list of FinishedRun
        Empty if there is only ``crossval.json``.
    crossval : CrossValidation
        The results as confusion counts by corpus and speaker.

    Example
    -------
    >>> counts = {"toy": {"s": np.eye(2, dtype=int)}}
    >>> one = CrossValidation({}, {}, ["a", "b"], [Outcome(None, 0, None, counts)], {})
    >>> Series("probe", [], one).several
    False
    """

    name: str
    runs: list[FinishedRun]
    crossval: CrossValidation

    @property
    def several(self) -> bool:
        """Whether there is more than one training."""
        return len(self.crossval.tested) > 1

    @property
    def demo(self) -> bool:
        """Whether the speech is synthetic."""
        return bool(self.crossval.about.get("demo"))

    def speakers_known(self, corpus: str) -> bool:
        """Returns whether all speakers of a corpus are known."""
        return UNKNOWN not in self.crossval.per_speaker(corpus)


@dataclass
class _Group:
    about: dict[str, Any]
    corpora: dict[str, Any]
    path: Path | None = None
    crossval: CrossValidation | None = None
    runs: list[FinishedRun] = field(default_factory=list)
    missing: list[tuple[int | None, int]] = field(default_factory=list)

    def takes(self, about: dict[str, Any], corpora: dict[str, Any]) -> bool:
        """Returns whether a run has this setting."""
        same_corpora = self.crossval is not None or self.corpora == corpora
        return self.about == about and same_corpora


def _run(path: Path, results: Mapping[str, Any]) -> FinishedRun:
    folder = path.parent
    kind = check_kind(path, results)
    check_files(folder, results.get("files", {}), FILES)
    history, csv = folder / "history.json", folder / "predictions.csv"
    parts, settings = folder / "utterances.csv", folder / "hyperparams.yaml"
    measured = csv.exists() or kind != "classes"
    if not measured and "confusion_matrix" not in results.get("test", {}):
        raise ValueError(
            f"{path}: no key test, and no predictions.csv beside it; expected what a "
            "recipe of this package leaves when a run is finished"
        )
    return FinishedRun(
        folder,
        results,
        read(history, HISTORY) if history.exists() else [],
        read_predictions(csv) if csv.exists() else None,
        read_parts(parts) if parts.exists() else {},
        read_text(settings) if settings.exists() else "",
    )


def read_series(paths: Sequence[Path]) -> list[Series]:
    """Reads runs and cross-validations, grouped by setting.

    Arguments
    ---------
    paths : sequence of pathlib.Path
        Folders that contain ``results.json`` or ``crossval.json`` at any depth.

    Returns
    -------
    list of Series
        In the order of the paths; within a path by the settings' ``order``.

    Raises
    ------
    ValueError
        If a folder contains none, or a file is damaged.

    Example
    -------
    >>> read_series([getfixture("tmp_path")])  # doctest: +ELLIPSIS
    Traceback (most recent call last):
    ValueError: ...: neither results.json nor crossval.json in this folder or below...
    """
    found: list[tuple[Path, _Group]] = []
    for path in paths:
        groups = _groups(path)
        if not groups:
            raise ValueError(
                f"{path}: neither results.json nor {FILE} in this folder or below; "
                "expected a finished run or cross-validation"
            )
        found += [(path, group) for group in groups]
    return [
        Series(name, group.runs, _crossval(group))
        for name, (_, group) in zip(_names(found), found, strict=True)
    ]


def _groups(path: Path) -> list[_Group]:
    """Finds all runs and cross-validations below a path, by setting."""
    if not path.exists():
        raise ValueError(f"there is no folder {path}")
    groups = [
        _Group(_some(record, _ABOUT), {}, file, parse_crossval(record))
        for file, record in find_records(path, FILE)
    ]
    runs = list(find_records(path, "results.json"))
    for file, record in tqdm(runs, desc="runs", disable=None):
        run = _run(file, record)
        about, corpora = (_some(run.results, keys) for keys in (_ABOUT, _CORPORA))
        same = [group for group in groups if group.takes(about, corpora)]
        if not same:
            same = [_Group(about, corpora)]
            groups += same
        # With several cross-validations of one setting: the one that contains the run.
        nearest = max(same, key=lambda group: _shared_depth(group.path, file))
        nearest.runs.append(run)
    missing = _unfinished(path)
    for group in groups:
        group.missing = missing
        group.runs.sort(key=lambda run: (run.fold or 0, run.results.get("seed", 0)))
    return sorted(groups, key=lambda group: group.about.get("order", 0))


def _unfinished(path: Path) -> list[tuple[int | None, int]]:
    """Lists fold and seed of planned runs without results."""
    missing = []
    for file in sorted(path.rglob(CROSSVAL_RUN.name)) if path.is_dir() else []:
        if (file.parent / "results.json").exists():
            continue
        if read(file, CROSSVAL_RUN)["results"]:
            continue
        fold = re.fullmatch(r"fold-(\d+)", file.parent.parent.name)
        seed = re.fullmatch(r"seed-(\d+)", file.parent.name)
        missing.append((int(fold[1]) if fold else None, int(seed[1]) if seed else 0))
    return missing


def _some(contents: Mapping[str, Any], keys: Iterable[str]) -> dict[str, Any]:
    usual = {"setting": "all"} if "setting" in keys else {}
    return usual | {key: contents[key] for key in keys if key in contents}


def _shared_depth(crossval: Path | None, file: Path) -> int:
    if crossval is None:
        return 0
    return len(Path(os.path.commonpath([crossval.parent, file])).parts)


def _names(found: Sequence[tuple[Path, _Group]]) -> list[str]:
    """Names the settings; adds what differs between settings of one name."""
    folders = [path.resolve() for path, _ in found]
    above = Path(os.path.commonpath(folders))
    known = []
    for folder, (_, group) in zip(folders, found, strict=True):
        pair = [group.corpora[key] for key in _CORPORA[:2] if key in group.corpora]
        split = group.corpora.get("target_split")
        known.append(
            {
                "setting": group.about["setting"],
                "corpora": " → ".join(pair),
                "split": f"{split} split" if split else "",
                "encoder": group.about.get("encoder", ""),
                "folder": folder.relative_to(above).as_posix(),
            }
        )
    names = []
    for own in known:
        twins = [other for other in known if other["setting"] == own["setting"]]
        differ = [key for key in own if len({twin[key] for twin in twins}) > 1]
        told = ", ".join(own[key] for key in differ if own[key])
        names.append(f"{own['setting']} ({told})" if told else own["setting"])
    return names


def _crossval(group: _Group) -> CrossValidation:
    if group.crossval is not None:
        return group.crossval
    sums = [run.sums() for run in group.runs]
    names = {(one.kind, *one.names) for one in sums}
    if len(names) > 1:
        raise ValueError(
            f"{group.runs[0].folder} and others: runs of one setting with different "
            f"classes: {'; '.join(map(', '.join, sorted(names)))}. Report on them apart"
        )
    tested = [
        Outcome(
            run.fold,
            run.results.get("seed", 0),
            run.results.get("data", {}).get("fingerprint"),
            one.counts[one.kind],
            {},
            {kind: sums for kind, sums in one.counts.items() if kind != one.kind},
        )
        for run, one in zip(group.runs, sums, strict=True)
    ]
    return CrossValidation(
        group.about,
        {"kind": SEEDS},
        sums[0].names,
        tested,
        {},
        group.missing,
        sums[0].kind,
        {} if group.missing else summarise_groups(sums),
    )
