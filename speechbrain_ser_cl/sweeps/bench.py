"""Compares features, protocols and classifiers on corpora, cell by cell.

A cell is a linear probe: features with a classifier, tested on the folds of a protocol
on one corpus, or trained on one corpus and tested on another over their shared
emotions. Each cell writes a ``crossval.json``; existing cells are not run again.
"""

import re
import time
from collections.abc import Mapping
from dataclasses import dataclass, field
from itertools import product
from pathlib import Path
from typing import Any

from tqdm import tqdm

from speechbrain_ser_cl.data.class_sets import common_map
from speechbrain_ser_cl.data.experiment import (
    look_up_folders,
    map_corpora,
    read_corpus,
    used_corpora,
)
from speechbrain_ser_cl.data.protocols import make_folds, select_parts
from speechbrain_ser_cl.data.splits import Labelled, fingerprint
from speechbrain_ser_cl.results.bench import (
    CLASSIFIER_NAMES,
    CROSS,
    Cell,
    speaker_counts,
)
from speechbrain_ser_cl.results.crossval import (
    FILE,
    CrossValidation,
    Outcome,
    read_crossval,
)
from speechbrain_ser_cl.training.probe import LinearProbe
from speechbrain_ser_cl.training.record import machine, package_versions
from speechbrain_ser_cl.training.utterance_features import (
    UtteranceFeatures,
    load_features,
)
from speechbrain_ser_cl.utils.errors import FileError, did_you_mean
from speechbrain_ser_cl.utils.files import read_text, replacing
from speechbrain_ser_cl.utils.settings import read_plain_yaml

_NAME = re.compile(r"[\w.+-]+")
_SETTINGS = "bench.yaml"


@dataclass(frozen=True)
class Bench:
    """Description of what ``ser-cl bench`` runs.

    Arguments
    ---------
    features : dict
        Name in tables to an encoder (hub id or folder), or to ``log_mel``, ``egemaps``
        or ``compare``.
    corpora : dict
        As in a recipe; corpora without a folder are left out.
    protocols : dict
        Name in tables to a protocol; see ``speechbrain_ser_cl.data.protocols``.
    classifiers : list of str
        ``logistic``, ``svm``, ``ridge``.
    cross_corpus : bool
        Whether to also train on each corpus and test on each other corpus.
    classes : str, optional
        Name of a set of classes, see ``common_map``. None: the corpus' own emotions;
        across corpora their shared emotions.
    normalisations : list of str
        Normalisations of ``LinearProbe`` within a corpus.
    cross_normalisations : list of str
        Same across corpora. Recordings differ more between corpora than between
        emotions, so by default each corpus is standardised by itself, without labels.
    seed : int
        Seed of the folds.
    allow_missing : bool
        Whether missing files of a corpus give a warning instead of an error.

    Example
    -------
    >>> Bench({"mel": "log_mel"}, {"emodb": "/data/EmoDB"}).classifiers
    ['logistic']
    """

    features: dict[str, str]
    corpora: dict[str, Any]
    protocols: dict[str, Any] = field(
        default_factory=lambda: {"speaker_kfold": "speaker_kfold"}
    )
    classifiers: list[str] = field(default_factory=lambda: ["logistic"])
    cross_corpus: bool = True
    classes: str | None = None
    normalisations: list[str] = field(default_factory=lambda: ["corpus"])
    cross_normalisations: list[str] = field(default_factory=lambda: ["own_corpus"])
    seed: int = 0
    allow_missing: bool = False


def read_bench(path: str | Path, overrides: Mapping[str, str] | None = None) -> Bench:
    r"""Reads a file that describes a bench.

    Arguments
    ---------
    path : str or pathlib.Path
        YAML with the entries of :class:`Bench`.
    overrides : mapping, optional
        Entry to YAML text that replaces it.

    Returns
    -------
    Bench
        Bench with resolved corpus folders.

    Raises
    ------
    ValueError
        For an entry that is unknown, missing, or has a wrong type.

    Example
    -------
    >>> path = getfixture("tmp_path") / "my.yaml"
    >>> _ = path.write_text("features: {mel: log_mel}\ncorpora: {emodb: null}")
    >>> read_bench(path)
    Traceback (most recent call last):
    ValueError: corpora: expected the folder of at least one corpus, such as ...
    """
    from ruamel.yaml import YAML

    found = read_plain_yaml(path)
    entries = dict(found) if isinstance(found, Mapping) else {}
    for key, text in (overrides or {}).items():
        entries[key] = YAML(typ="safe", pure=True).load(text)
    kinds = {"features": dict, "corpora": dict, "protocols": dict, "seed": int}
    kinds |= {"classifiers": list, "normalisations": list, "cross_corpus": bool}
    kinds |= {"allow_missing": bool, "cross_normalisations": list}
    for key, value in entries.items():
        if key not in Bench.__dataclass_fields__:
            known = Bench.__dataclass_fields__
            raise FileError(
                f"{path}: {key}: found an unknown entry, "
                f"{did_you_mean(str(key), known)}expected one of {', '.join(known)}"
            )
        if not isinstance(value, kinds.get(key, str | None)):
            raise FileError(
                f"{path}: {key}: found {value!r}, expected a "
                f"{kinds.get(key, str).__name__}"
            )
    for key in ("features", "corpora"):
        if not entries.get(key):
            raise FileError(f"{path}: {key}: found none, expected one or more")
    for key, name in [
        (k, n) for k in ("features", "protocols") for n in entries.get(k, ())
    ]:
        if not _NAME.fullmatch(str(name)):
            raise FileError(
                f"{path}: {key}: found the name {name!r}, expected letters, digits, "
                "'_', '.', '+' or '-': folders are named after it"
            )
    for name in entries.get("classifiers", ()):
        LinearProbe(name, normalisations=entries.get("normalisations", ["corpus"]))
    corpora = look_up_folders(used_corpora(entries["corpora"]), path)
    return Bench(**entries | {"corpora": corpora})


class BenchRun:
    """The cells of a bench and their results; runs missing cells.

    Arguments
    ---------
    bench : Bench
        Bench; its corpora are read.
    output : str or pathlib.Path
        Folder of the results.
    features_folder : str or pathlib.Path, optional
        Folder of the feature caches.

    Raises
    ------
    ValueError
        If a corpus cannot be read, or the folder contains results of other settings.
    """

    def __init__(
        self,
        bench: Bench,
        output: str | Path,
        features_folder: str | Path | None = None,
    ) -> None:
        self.bench, self.output = bench, Path(output)
        self._features_folder = features_folder
        self._refuse_other_settings()
        self._items: dict[str, list[Labelled]] = {}
        self._classes: dict[str, list[str]] = {}
        for name, entry in bench.corpora.items():
            utterances = read_corpus(name, entry, bench.allow_missing)
            emotions = sorted({one.emotion for one in utterances})
            emotion_map = {one: [one] for one in emotions}
            if bench.classes is not None:
                emotion_map = common_map(bench.classes, emotions)
            if len(emotion_map) < 2:
                raise ValueError(
                    f"corpora: {name}: found the classes {list(emotion_map)}, expected "
                    "two or more"
                )
            self._items[name], _ = map_corpora({name: utterances}, emotion_map)
            self._classes[name] = list(emotion_map)

    def _refuse_other_settings(self) -> None:
        """Refuses a folder whose cells have other settings."""
        bench = self.bench
        path = self.output / _SETTINGS
        text = "".join(
            f"{key}: {getattr(bench, key)!r}\n"
            for key in ("seed", "classes", "normalisations", "cross_normalisations")
        )
        if path.exists() and read_text(path) != text:
            raise ValueError(
                f"{path}: found {read_text(path)!r}, expected {text!r}. Results of "
                "other settings belong in another output_folder"
            )
        self.output.mkdir(parents=True, exist_ok=True)
        with replacing(path) as part:
            part.write_text(text, encoding="utf-8")

    def cells(self) -> list[Cell]:
        """Returns all cells, with the results of finished ones."""
        bench, names = self.bench, list(self.bench.corpora)
        places = [(kind, name, name) for kind, name in product(bench.protocols, names)]
        if bench.cross_corpus:
            places += [
                (CROSS, train, test)
                for train, test in product(names, names)
                if train != test and len(self._shared(train, test)) > 1
            ]
        cells = []
        for features, classifier in product(bench.features, bench.classifiers):
            for protocol, train, test in places:
                cell = Cell(features, classifier, protocol, train, test, None)
                path = self._path(cell)
                result = read_crossval(path) if path.exists() else None
                cells.append(Cell(*cell[:-1], result))
        return cells

    def run(self) -> None:
        """Runs missing cells."""
        todo = [cell for cell in self.cells() if cell.result is None]
        with tqdm(total=len(todo), desc="cells", disable=None) as bar:
            for name, source in self.bench.features.items():
                own = [cell for cell in todo if cell.features == name]
                if not own:
                    continue
                features = load_features(source, folder=self._features_folder)
                start = time.process_time()
                utterances = [
                    i.utterance for some in self._items.values() for i in some
                ]
                computed = features.fill(utterances)
                per_utterance = None
                if computed:
                    per_utterance = (time.process_time() - start) / computed
                for cell in own:
                    result = self._measure(cell, features, per_utterance)
                    path = self._path(cell)
                    path.parent.mkdir(parents=True, exist_ok=True)
                    result.write(path)
                    bar.update()

    def _path(self, cell: Cell) -> Path:
        where = cell.test if cell.protocol != CROSS else f"{cell.train}-{cell.test}"
        row = f"{cell.features}-{cell.classifier}"
        return self.output / cell.protocol / where / row / FILE

    def _shared(self, train: str, test: str) -> list[str]:
        return [one for one in self._classes[train] if one in self._classes[test]]

    def _measure(
        self, cell: Cell, features: UtteranceFeatures, per_utterance: float | None
    ) -> CrossValidation:
        bench, kinds = self.bench, self.bench.normalisations
        if cell.protocol == CROSS:
            kinds = bench.cross_normalisations
        probe = LinearProbe(cell.classifier, most_layers=None, normalisations=kinds)
        protocol: Mapping[str, Any] = {"kind": CROSS, "train": cell.train}
        classes = self._shared(cell.train, cell.test)
        folds: list[tuple[int | None, str, dict[str, list[Labelled]]]]
        if cell.protocol == CROSS:
            parts = {
                part: [i for i in self._items[name] if i.label in classes]
                for part, name in (("train", cell.train), ("test", cell.test))
            }
            folds = [(None, fingerprint(parts), parts)]
        else:
            items = self._items[cell.test]
            splits = make_folds(items, bench.protocols[cell.protocol], bench.seed)
            protocol = splits[0].protocol
            folds = [(s.fold, s.fingerprint, select_parts(items, s)) for s in splits]
        start, tested = time.process_time(), []
        for fold, fold_print, parts in folds:
            found = probe.run(features, parts, classes)
            numbers = {
                "valid.uar": found.choice.uar,
                "layer": float(found.choice.layers[0]),
            }
            counts = speaker_counts(found.predictions, parts["test"], len(classes))
            tested.append(
                Outcome(fold, bench.seed, fold_print, {cell.test: counts}, numbers)
            )
        cost: dict[str, Any] = {
            "runs": len(tested),
            "training_seconds": round(time.process_time() - start, 2),
            "machines": [machine()],
            "versions": [package_versions()],
        }
        if per_utterance is not None:
            cost["stages"] = {"features": {"seconds_per_utterance": per_utterance}}
        about = {
            "recipe": "bench",
            "setting": cell.setting,
            "encoder": cell.features,
            "order": list(CLASSIFIER_NAMES).index(cell.classifier),
            "demo": False,
        }
        return CrossValidation(about, protocol, classes, tested, cost)
