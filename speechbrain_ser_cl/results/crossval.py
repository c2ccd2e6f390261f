"""Results of a cross-validation: pooled over folds, compared between settings.

``crossval.json`` contains sums over each speaker's utterances, for each fold and seed,
from which everything else is computed. For classes the sums are confusion counts; for
other kinds of results see ``metrics.kinds``.
"""

import json
from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Any

import numpy as np

from speechbrain_ser_cl.metrics.classification import (
    METRICS,
    MIN_GROUPS,
    bootstrap_intervals,
)
from speechbrain_ser_cl.metrics.kinds import KINDS, Kind, sum_intervals
from speechbrain_ser_cl.metrics.significance import (
    holm,
    paired_fold_tests,
    speaker_permutation_test,
)
from speechbrain_ser_cl.results.sums import (
    OfCorpora,
    RunSums,
    read_sums,
    summarise_groups,
)
from speechbrain_ser_cl.utils.records import check_files, read, write
from speechbrain_ser_cl.utils.schemas import (
    CROSSVAL,
    FILES,
    RESULTS,
    Results,
)

FILE = "crossval.json"
_ABOUT = ("recipe", "setting", "order", "encoder", "demo")
_TESTED = [name for name in FILES if name not in ("embeddings.npz", "history.json")]
# Keys of results.json that are not results, or follow from the counts.
_NO_NUMBERS = {
    *("format", "order", "seed", "fold", "n_folds", "protocol", "data"),
    *("stages", "machine", "versions", "groups"),
    *(
        f"test.{name}"
        for name in (*METRICS, "chance", "utterances", "speakers", "confusion_matrix")
    ),
}


@dataclass(frozen=True)
class Outcome:
    """The result of one fold and seed.

    Arguments
    ---------
    fold : int or None
        None if only seeds are repeated.
    seed : int
        Seed of the training.
    fingerprint : str or None
        Fingerprint of the split.
    counts : dict
        Corpus to speaker to confusion counts (C, C), true class first; for other kinds
        of results, sums.
    numbers : dict
        Other numbers of ``results.json``, such as ``valid.uar``.
    others : dict
        Same as ``counts``, for other measures: ``votes``.

    Example
    -------
    >>> counts = {"toy": {"s1": np.eye(2, dtype=int)}}
    >>> Outcome(0, 1, None, counts).confusion("toy").tolist()
    [[1, 0], [0, 1]]
    """

    fold: int | None
    seed: int
    fingerprint: str | None
    counts: dict[str, dict[str, np.ndarray]]
    numbers: Mapping[str, float | None] = field(default_factory=dict)
    others: Mapping[str, OfCorpora] = field(default_factory=dict)

    def confusion(self, corpus: str) -> np.ndarray:
        """Returns counts (C, C), or sums, of all speakers."""
        return total(self.counts[corpus])


@dataclass(frozen=True)
class CrossValidation:
    """One setting of a recipe, tested on all folds with all seeds.

    Arguments
    ---------
    about : dict
        ``recipe``, ``setting`` (name in tables), ``order`` (place in tables),
        ``encoder`` and ``demo``, from the runs' ``results.json``.
    protocol : dict
        From ``resolve_protocol``.
    class_names : list of str
        Names of the C classes, or of the dimensions.
    tested : list of Outcome
        One per fold and seed.
    cost : dict
        Time, memory, machines and versions of the runs.
    missing : list of tuple
        Fold (None without folds) and seed of each planned run without a result. If
        there are any, nothing is pooled.
    kind : str
        Kind of the results: ``classes``, ``votes``, ``dimensions`` or ``emotions``.
    groups : dict
        Kind to corpus to column (gender, …) to the result of each group, from
        :func:`~.sums.summarise_groups`.

    Example
    -------
    >>> one = Outcome(0, 1, None, {"toy": {"s1": np.eye(2, dtype=int)}})
    >>> CrossValidation({}, {"kind": "seeds"}, ["sad", "happy"], [one], {}).corpora
    ['toy']
    """

    about: dict[str, Any]
    protocol: Mapping[str, Any]
    class_names: list[str]
    tested: list[Outcome]
    cost: Mapping[str, Any]
    missing: list[tuple[int | None, int]] = field(default_factory=list)
    kind: str = "classes"
    groups: Mapping[str, Mapping[str, Any]] = field(default_factory=dict)

    @property
    def measured(self) -> Kind:
        """Returns the metrics of this kind of results."""
        return KINDS[self.kind]

    def views(self) -> "list[CrossValidation]":
        """Returns this setting, and the same runs by other measures, such as votes."""
        names = {name: None for one in self.tested for name in one.others}
        return [self] + [
            replace(
                self,
                kind=name,
                tested=[
                    replace(one, counts=one.others[name], others={})
                    for one in self.tested
                    if name in one.others
                ],
            )
            for name in names
        ]

    def view(self, metric: str) -> "tuple[CrossValidation, str] | None":
        """Finds the results that have a measure: these, the votes, or one dimension.

        Arguments
        ---------
        metric : str
            Such as ``uar``, ``kl``, ``ccc``, ``ccc.arousal``.

        Returns
        -------
        tuple of (CrossValidation, str), or None
            The same runs with that measure as one of their kind, and its name there;
            None if they have none.

        Example
        -------
        >>> one = Outcome(0, 1, None, {"toy": {"s1": np.ones((2, 6))}})
        >>> protocol, names = {"kind": "seeds"}, ["arousal", "valence"]
        >>> whole = CrossValidation({}, protocol, names, [one], {}, kind="dimensions")
        >>> view, name = whole.view("ccc.valence")
        >>> name, view.class_names, view.tested[0].counts["toy"]["s1"].shape
        ('ccc', ['valence'], (1, 6))
        """
        name, _, dimension = metric.partition(".")
        for one in self.views():
            if name not in one.measured.titles:
                continue
            if not dimension:
                return one, name
            if one.kind == "dimensions" and dimension in one.class_names:
                return one._of_dimension(dimension), name
        return None

    def _of_dimension(self, name: str) -> "CrossValidation":
        """Returns the same with one dimension only."""
        k = [self.class_names.index(name)]
        tested = [
            replace(
                one,
                counts={
                    corpus: {speaker: sums[k] for speaker, sums in of_speaker.items()}
                    for corpus, of_speaker in one.counts.items()
                },
            )
            for one in self.tested
        ]
        return replace(self, class_names=[name], tested=tested, groups={})

    @property
    def gap(self) -> str:
        """Describes the missing runs; empty if there are none."""
        if not self.missing:
            return ""
        names = [
            f"seed {seed}" if fold is None else f"fold {fold}, seed {seed}"
            for fold, seed in self.missing
        ]
        total = len(self.tested) + len(names)
        return (
            f"INCOMPLETE: {len(names)} of {total} runs have no result "
            f"({'; '.join(names[:10])}{'; …' if names[10:] else ''})"
        )

    @property
    def corpora(self) -> list[str]:
        """Names of the tested corpora."""
        return sorted({name for one in self.tested for name in one.counts})

    @property
    def seeds(self) -> list[int]:
        """Seeds of the trainings."""
        return sorted({one.seed for one in self.tested})

    @property
    def unit(self) -> str:
        """Unit of repetition: ``fold``, or ``seed`` without folds."""
        return "seed" if any(one.fold is None for one in self.tested) else "fold"

    def protocol_of(self, corpus: str) -> Mapping[str, Any]:
        """Returns the protocol of a corpus, which may have its own."""
        own: Mapping[str, Mapping[str, Any]] = self.protocol.get("per_corpus", {})
        return own.get(corpus, self.protocol)

    def per_unit(self, corpus: str) -> dict[int, dict[str, float]]:
        """Returns fold (or seed) to metrics, averaged over the seeds."""
        values: dict[int, list[Any]] = {}
        for one in self.tested:
            metrics = self.measured.measure(one.confusion(corpus))
            values.setdefault(getattr(one, self.unit), []).append(metrics)
        return {
            unit: {
                name: float(np.mean([metrics[name] for metrics in same]))
                for name in self.measured.titles
            }
            for unit, same in sorted(values.items())
        }

    def values(self, corpus: str, metric: str) -> list[float]:
        """Returns one number per fold (or seed), averaged over the seeds.

        Arguments
        ---------
        corpus : str
            A name in ``corpora``.
        metric : str
            Metric of the kind, such as ``uar``, or the name of a number in
            ``results.json``.

        Returns
        -------
        list of float
            In the order of folds; empty if a run lacks this number.
        """
        if metric in self.measured.titles:
            return [metrics[metric] for metrics in self.per_unit(corpus).values()]
        values: dict[int, list[Any]] = {}
        for one in self.tested:
            if metric not in one.numbers:
                return []
            unit = getattr(one, self.unit)
            values.setdefault(unit, []).append(one.numbers[metric])
        return [float(np.mean(same)) for _, same in sorted(values.items())]

    def per_speaker(self, corpus: str) -> dict[str, np.ndarray]:
        """Returns speaker to counts (C, C), or sums, over all folds and seeds."""
        pooled: dict[str, np.ndarray] = {}
        for one in self.tested:
            for speaker, counts in one.counts[corpus].items():
                pooled[speaker] = pooled.get(speaker, 0) + counts
        return pooled

    def summary(self, corpus: str) -> dict[str, Any]:
        """Computes the metrics of one corpus.

        Arguments
        ---------
        corpus : str
            A name in ``corpora``.

        Returns
        -------
        dict
            ``missing``: fold and seed of each run without a result; ``folds`` (or
            ``seeds``): the metrics of each, averaged over seeds; ``mean`` and ``std``
            over them (std: of a sample, None for one fold); ``pooled``: each metric
            over all test utterances together, with its 95 % bootstrap ``interval`` over
            speakers (None with fewer than 5), both None if a run is missing;
            ``utterances`` (counted once per seed) and ``speakers``; for classes also
            ``confusion_matrix`` (C, C) and ``chance`` of the UAR: 1 over the number of
            the corpus' classes.
        """
        per_unit = self.per_unit(corpus)
        per_speaker = self.per_speaker(corpus)
        whole, kind = total(per_speaker), self.measured
        pooled = kind.measure(whole)
        intervals = {} if self.missing else _speaker_intervals(per_speaker, kind)
        values = {name: [m[name] for m in per_unit.values()] for name in kind.titles}
        of_classes = {}
        if self.kind == "classes":
            of_classes = {
                "confusion_matrix": whole.tolist(),
                "chance": 1 / int((whole.sum(1) > 0).sum()),
            }
        several = len(per_unit) > 1
        return {
            "missing": [{"fold": fold, "seed": seed} for fold, seed in self.missing],
            f"{self.unit}s": [{self.unit: k} | m for k, m in per_unit.items()],
            "mean": {name: float(np.mean(v)) for name, v in values.items()},
            "std": {
                name: float(np.std(v, ddof=1)) if several else None
                for name, v in values.items()
            },
            "pooled": {
                name: {
                    "value": None if self.missing else float(pooled[name]),
                    "interval": intervals.get(name),
                }
                for name in kind.titles
            },
            "utterances": int(kind.number(whole)),
            "speakers": len(per_speaker),
        } | of_classes

    def write(self, path: str | Path) -> None:
        """Writes the setting as JSON, with the summary of each corpus.

        Arguments
        ---------
        path : str or pathlib.Path
            Output file, written whole or not at all.
        """
        runs = [
            {
                "fold": one.fold,
                "seed": one.seed,
                "fingerprint": one.fingerprint,
                **self._sums(one),
                "numbers": one.numbers,
            }
            for one in self.tested
        ]
        head = self.about | {
            "protocol": self.protocol,
            **({} if self.kind == "classes" else {"kind": self.kind}),
            "class_names": self.class_names,
            "results": {corpus: self.summary(corpus) for corpus in self.corpora},
            "groups": self.groups,
            "cost": self.cost,
        }
        if self.missing:
            runs_missing = [{"fold": k, "seed": seed} for k, seed in self.missing]
            head = {"missing": runs_missing} | head
        # One line per run, because the counts are not for readers.
        write(path, CROSSVAL, head | {"runs": runs}, rows="runs")

    def _sums(self, one: Outcome) -> dict[str, Any]:
        """Returns the counts, and the sums of other measures, of a run."""
        found = {
            kind: {
                corpus: {
                    speaker: counts.tolist()
                    for speaker, counts in sorted(of_speaker.items())
                }
                for corpus, of_speaker in sorted(of_corpora.items())
            }
            for kind, of_corpora in {self.kind: one.counts, **one.others}.items()
        }
        counts = found.pop("classes", None)
        named = {} if counts is None else {"counts": counts}
        return named | ({"sums": found} if found else {})


def total(counts: Mapping[str, np.ndarray]) -> np.ndarray:
    """Sums the counts (C, C), or sums, of several speakers."""
    return np.asarray(np.sum(list(counts.values()), axis=0))


def _speaker_intervals(
    per_speaker: Mapping[str, np.ndarray], kind: Kind
) -> dict[str, tuple[float, float] | None]:
    counts = np.stack([per_speaker[name] for name in sorted(per_speaker)])
    if kind.name != "classes":
        return sum_intervals(kind, counts)
    n_speakers, n_classes, _ = counts.shape
    if n_speakers < MIN_GROUPS:
        return dict.fromkeys(METRICS)
    speaker, label, prediction = (
        np.indices(counts.shape).reshape(3, -1).repeat(counts.ravel(), axis=1)
    )
    return bootstrap_intervals(label, prediction, n_classes, groups=speaker)


def read_crossval(path: str | Path) -> CrossValidation:
    """Reads a file that ``CrossValidation.write`` wrote.

    Arguments
    ---------
    path : str or pathlib.Path
        A ``crossval.json``.

    Returns
    -------
    CrossValidation
        Results of the setting.

    Raises
    ------
    RecordError
        If the file is invalid.

    Example
    -------
    >>> path = getfixture("tmp_path") / "crossval.json"
    >>> one = Outcome(0, 1, None, {"toy": {"s1": np.eye(2, dtype=int)}})
    >>> about, protocol = {"setting": "probe"}, {"kind": "seeds"}
    >>> CrossValidation(about, protocol, ["sad", "happy"], [one], {}).write(path)
    >>> read_crossval(path).about["setting"]
    'probe'
    """
    return parse_crossval(read(path, CROSSVAL))


def parse_crossval(contents: Mapping[str, Any]) -> CrossValidation:
    """Converts the contents of a ``crossval.json`` to a setting.

    Arguments
    ---------
    contents : mapping
        From :func:`~speechbrain_ser_cl.results.measured.find_records`.

    Returns
    -------
    CrossValidation
        Results of the setting.
    """
    kind = contents.get("kind", "classes")
    tested = []
    for run in contents["runs"]:
        found = {"classes": run["counts"]} if "counts" in run else {}
        found |= run.get("sums", {})
        sums: dict[str, OfCorpora] = {
            name: {
                corpus: {
                    speaker: np.array(counts, np.int64 if name == "classes" else None)
                    for speaker, counts in of_speaker.items()
                }
                for corpus, of_speaker in of_corpora.items()
            }
            for name, of_corpora in found.items()
        }
        which = (run["fold"], run["seed"], run["fingerprint"], sums.pop(kind))
        tested.append(Outcome(*which, run.get("numbers", {}), sums))
    about = {key: contents.get(key) for key in _ABOUT if key in contents}
    return CrossValidation(
        {"setting": "all"} | about,
        contents["protocol"],
        contents["class_names"],
        tested,
        contents["cost"],
        [(run["fold"], run["seed"]) for run in contents.get("missing", [])],
        kind,
        contents.get("groups", {}),
    )


def collect(
    results: Iterable[tuple[int | None, int, str | None, Path]],
    protocol: Mapping[str, Any],
    missing: Sequence[tuple[int | None, int]] = (),
) -> CrossValidation:
    """Pools the runs of one setting.

    Arguments
    ---------
    results : iterable of (fold, seed, fingerprint, path)
        For each run, with the path of its ``results.json``; ``predictions.csv`` (or the
        file of another kind) and ``utterances.csv`` are beside it. Fold and fingerprint
        may be None; the fingerprint is then read from ``results.json``.
    protocol : mapping
        From ``resolve_protocol``.
    missing : sequence of tuple
        Fold and seed of each planned run without a result.

    Returns
    -------
    CrossValidation
        Results of the setting.

    Raises
    ------
    ValueError
        If files are missing, or belong to different settings or classes.
    """
    tested: list[Outcome] = []
    abouts: dict[str, dict[str, Any]] = {}
    classes: dict[str, list[str]] = {}
    sums: list[RunSums] = []
    records: list[Results] = []
    for fold, seed, fingerprint, path in results:
        record = read(path, RESULTS)
        check_files(Path(path).parent, record.get("files", {}), _TESTED)
        about = {key: record.get(key) for key in _ABOUT if key in record}
        abouts[json.dumps(about, sort_keys=True)] = about
        fingerprint = fingerprint or record.get("data", {}).get("fingerprint")
        one = read_sums(Path(path).parent, record)
        classes[json.dumps([one.kind, one.names])] = one.names
        sums.append(one)
        records.append(record)
        counts = dict(one.counts)
        own = counts.pop(one.kind)
        numbers = dict(_numbers(record))
        tested.append(Outcome(fold, seed, fingerprint, own, numbers, counts))
    for what, different in (("settings", abouts), ("classes", classes)):
        if len(different) != 1:
            raise ValueError(
                f"expected runs of one setting, found these {what}: "
                f"{'; '.join(different) or 'none'}"
            )
    (about,), (class_names,) = abouts.values(), classes.values()
    return CrossValidation(
        {"setting": "all"} | about,
        dict(protocol),
        class_names,
        tested,
        _cost(records),
        list(missing),
        sums[0].kind,
        {} if missing else summarise_groups(sums),
    )


def _numbers(entry: Mapping[str, Any], prefix: str = "") -> Iterator[tuple[str, float]]:
    """Yields numbers of a results.json with dotted names, without intervals."""
    for key, value in entry.items():
        name = f"{prefix}{key}"
        if name in _NO_NUMBERS or isinstance(value, bool):
            continue
        if isinstance(value, Mapping):
            yield from _numbers(value, f"{name}.")
        elif isinstance(value, int | float) and np.isfinite(value):
            yield name.removesuffix(".value"), value


def _cost(records: Sequence[Mapping[str, Any]]) -> dict[str, Any]:
    """Collects time, memory, machines and versions of the runs."""

    def different(key: str) -> list[Any]:
        values = {
            json.dumps(r[key], sort_keys=True): r[key] for r in records if key in r
        }
        return list(values.values())

    seconds = [r["training_seconds"] for r in records if "training_seconds" in r]
    stages: dict[str, dict[str, list[float]]] = {}
    for record in records:
        for stage, values in record.get("stages", {}).items():
            for key, value in values.items():
                stages.setdefault(stage, {}).setdefault(key, []).append(value)
    peaks = [r["peak_memory_mb"] for r in records if "peak_memory_mb" in r]
    return {
        "runs": len(records),
        "training_seconds": round(sum(seconds), 1) if seconds else None,
        "stages": {  # means over the runs
            stage: {key: round(float(np.mean(v)), 2) for key, v in values.items()}
            for stage, values in stages.items()
        },
        "peak_memory_mb": {
            kind: max(peak[kind] for peak in peaks if kind in peak)
            for kind in sorted({kind for peak in peaks for kind in peak})
        },
        "machines": different("machine"),
        "versions": different("versions"),
    }


def compare(
    one: CrossValidation, other: CrossValidation, corpus: str, metric: str = "uar"
) -> dict[str, Any]:
    """Compares two settings on the same folds and seeds.

    Arguments
    ---------
    one, other : CrossValidation
        Settings to compare.
    corpus : str
        Corpus on which both were tested.
    metric : str
        Metric of the kind; for classes ``uar``, ``wa`` or ``macro_f1``.

    Returns
    -------
    dict
        ``difference``: pooled metric of ``one`` minus that of ``other``; ``t_test`` and
        ``wilcoxon``: p over folds (or seeds); ``permutation``: p over speakers, None
        with fewer than 5 speakers, which cannot give a small p.

    Raises
    ------
    ValueError
        If folds, seeds, classes or test utterances differ, or runs are missing.
    """
    runs = [
        sorted((str(t.fold), t.seed, str(t.fingerprint)) for t in setting.tested)
        for setting in (one, other)
    ]
    if one.missing or other.missing:
        raise ValueError(f"{one.gap or other.gap}: nothing to compare yet")
    if runs[0] != runs[1] or (one.kind, one.class_names) != (
        other.kind,
        other.class_names,
    ):
        raise ValueError(
            f"{one.about['setting']!r} and {other.about['setting']!r} were not run on "
            "the same folds, seeds and classes"
        )
    units = [
        [metrics[metric] for metrics in setting.per_unit(corpus).values()]
        for setting in (one, other)
    ]
    speakers = [setting.per_speaker(corpus) for setting in (one, other)]
    pooled = [float(one.measured.measure(total(s))[metric]) for s in speakers]
    enough = len(speakers[0]) >= MIN_GROUPS
    return {
        "difference": pooled[0] - pooled[1],
        **paired_fold_tests(units[0], units[1]),
        "permutation": (
            speaker_permutation_test(
                speakers[0], speakers[1], metric=metric, kind=one.kind
            )
            if enough
            else None
        ),
    }


def table_rows(
    settings: Sequence[CrossValidation], corpus: str, metric: str = "uar"
) -> list[dict[str, Any]]:
    """Summarises settings for a table; compares each with the first.

    Arguments
    ---------
    settings : sequence of CrossValidation
        In the order of the table.
    corpus : str
        Corpus of the table.
    metric : str
        Metric of the comparison.

    Returns
    -------
    list of dict
        For each its ``setting``, the ``summary`` and ``against_first``: the result of
        ``compare``, with ``t_test_holm``, ``wilcoxon_holm`` and ``permutation_holm``,
        corrected over the rows; None for the first row, and for rows with other folds,
        seeds or utterances.
    """
    rows: list[dict[str, Any]] = []
    for setting in settings:
        try:
            against: dict[str, Any] | None = compare(
                setting, settings[0], corpus, metric
            )
        except ValueError:
            against = None
        rows.append(
            {
                "setting": setting.about["setting"],
                "summary": setting.summary(corpus),
                "against_first": against if rows else None,
            }
        )
    for test in ("t_test", "wilcoxon", "permutation"):
        tested = [row["against_first"] for row in rows if row["against_first"]]
        adjusted = holm([against[test] for against in tested])
        for against, p in zip(tested, adjusted, strict=True):
            against[f"{test}_holm"] = p
    return rows
