"""Evaluates a model from elsewhere and writes the files that a run writes."""

import csv
import re
from collections import Counter
from collections.abc import Iterator, Mapping, Sequence
from pathlib import Path
from shlex import quote
from typing import Any, NamedTuple

import numpy as np
from tqdm import tqdm

from speechbrain_ser_cl.corpora.card import FOLDER as CARDS
from speechbrain_ser_cl.corpora.card import load_card
from speechbrain_ser_cl.corpora.utterance import normal
from speechbrain_ser_cl.data.protocols import SEEDS
from speechbrain_ser_cl.data.splits import (
    Labelled,
    class_of_emotions,
    describe_part,
    fingerprint,
)
from speechbrain_ser_cl.evaluate.labels import map_labels
from speechbrain_ser_cl.evaluate.models import Classifier
from speechbrain_ser_cl.metrics.classification import classification_metrics
from speechbrain_ser_cl.results.crossval import FILE, collect, read_crossval
from speechbrain_ser_cl.results.text import bounds
from speechbrain_ser_cl.results.utterances import read_parts
from speechbrain_ser_cl.training.history import History
from speechbrain_ser_cl.training.record import read_results, write_run
from speechbrain_ser_cl.utils.errors import SERError, offenders
from speechbrain_ser_cl.utils.files import hold_folder, read_csv


class Tested(NamedTuple):
    """The utterances of one test.

    Arguments
    ---------
    items : list of Labelled
        Utterances and their classes.
    fold : int or None
        None if there are no folds.
    seed : int
        Seed of the runs to compare with.
    fingerprint : str or None
        Hash of the split. None: computed from these utterances.

    Example
    -------
    >>> Tested([]).fold
    """

    items: list[Labelled]
    fold: int | None = None
    seed: int = 0
    fingerprint: str | None = None


class Like(NamedTuple):
    """Tests, classes and protocol of a cross-validation.

    Arguments
    ---------
    tests : list of Tested
        One per fold and seed.
    class_names : list of str
        Names of the classes, in order.
    protocol : mapping
        Protocol of the folds.
    encoder : str or None
        Encoder name for tables with both settings.

    Example
    -------
    >>> Like([], ["a", "b"], {"kind": "seeds"}, None).class_names
    ['a', 'b']
    """

    tests: list[Tested]
    class_names: list[str]
    protocol: Mapping[str, Any]
    encoder: str | None


def like(folder: str | Path) -> Like:
    """Reads the test parts of a finished cross-validation, to test on them again.

    Arguments
    ---------
    folder : str or pathlib.Path
        Folder with ``crossval.json``, and the runs below it.

    Returns
    -------
    Like
        Input of :func:`evaluate`.

    Raises
    ------
    SERError
        If the utterances of a run are missing.
    """
    folder = Path(folder)
    known = read_crossval(folder / FILE)
    marks = {(one.fold, one.seed): one.fingerprint for one in known.tested}
    tests = {}
    for path in sorted(folder.rglob("utterances.csv")):
        record = read_results(path.with_name("results.json"))
        key = (record.get("fold"), record.get("seed", 0))
        if key in marks:
            parts = read_parts(path)
            tests[key] = Tested(parts["test"], *key, marks[key])
    lacking = sorted(set(marks) - set(tests), key=str)
    if lacking:
        raise SERError(
            f"{folder}: no utterances.csv of the runs (fold, seed) {lacking[:5]}; "
            "expected the folders of the runs beside crossval.json"
        )
    encoder = known.about.get("encoder")
    ordered = [tests[key] for key in marks]
    return Like(ordered, known.class_names, known.protocol, encoder)


def evaluate(
    classifier: Classifier,
    tests: Like,
    output: str | Path,
    labels: Mapping[str, str] | None = None,
    emotion_map: Mapping[str, Sequence[str]] | None = None,
) -> str:
    """Tests a model and writes predictions, results and crossval.json, as a run does.

    Probabilities of labels with the same class are added. Those of labels without a
    class are removed, and the rest is scaled to sum 1. The result also has the number
    of utterances whose most probable label has no class, and the UAR with these as
    errors. The model's outputs are stored in ``outputs-….csv``: a killed evaluation
    continues, and with other ``labels`` the model need not run again.

    Arguments
    ---------
    classifier : Classifier
        The model.
    tests : Like
        Test utterances and classes.
    output : str or pathlib.Path
        Output folder.
    labels : mapping, optional
        The model's label to emotion, used before known words; see :func:`map_labels`.
    emotion_map : mapping, optional
        Class to emotions. Default: each emotion is a class.

    Returns
    -------
    str
        Text for the terminal: meaning of the labels, warnings, results.

    Raises
    ------
    SERError
        If a class has no label.
    """
    output = Path(output)
    emotions = map_labels(classifier.labels, labels)
    names = tests.class_names
    classes = class_of_emotions(
        emotion_map or {name: [name] for name in names},
        [*names, *(e for e in emotions.values() if e)],
    )
    class_of = {label: classes.get(e or "") for label, e in emotions.items()}
    _check_labels(emotions, class_of, names)
    hold_folder(output)
    utterances = {i.utterance.id: i.utterance for t in tests.tests for i in t.items}
    rows = _outputs(classifier, list(utterances.values()), output)
    weights = np.array(
        [[float(class_of[label] == n) for n in names] for label in classifier.labels]
    )
    found, records = [], []
    for test in tests.tests:
        where = output
        if len(tests.tests) > 1:
            where = output / f"fold-{test.fold}" / f"seed-{test.seed}"
        where.mkdir(parents=True, exist_ok=True)
        mark = test.fingerprint or fingerprint({"test": test.items})
        about = {
            "recipe": "evaluate",
            "setting": classifier.origin.name,
            **({"encoder": tests.encoder} if tests.encoder else {}),
            "seed": test.seed,
            "demo": False,
            **({} if test.fold is None else {"fold": test.fold}),
            "protocol": dict(tests.protocol),
            "model": {
                "kind": classifier.origin.kind,
                "hash": classifier.origin.mark,
                "labels": emotions,
                "classes": class_of,
            },
            "data": {"parts": {"test": describe_part(test.items)}, "fingerprint": mark},
        }
        raw = np.stack([rows[item.utterance.id] for item in test.items])
        records.append(_write(where, about, test.items, raw, weights, names))
        found.append((test.fold, test.seed, mark, where / "results.json"))
    crossval = collect(found, tests.protocol)
    crossval.write(output / FILE)
    return "\n".join(
        [
            *_labels_told(emotions, class_of, labels),
            *trained_on(classifier.origin.card, crossval.corpora),
            *_results_told(records, crossval),
            f"Files: {output}; ser-cl report {output}",
        ]
    )


def _check_labels(
    emotions: Mapping[str, str | None],
    class_of: Mapping[str, str | None],
    names: Sequence[str],
) -> None:
    empty = [name for name in names if name not in class_of.values()]
    if empty:
        told = ", ".join(f"{k} ({v or 'not known'})" for k, v in emotions.items())
        raise SERError(
            f"no label of the model means {', '.join(empty)}; its labels are {told}. "
            f"Say what they mean: --labels LABEL={empty[0]}; or leave the class out: "
            "--emotion_map"
        )


def shared_classes(
    emotions: Mapping[str, str | None], there: Mapping[str, int]
) -> dict[str, list[str]]:
    """Makes classes of the emotions that both a model and a corpus have.

    Arguments
    ---------
    emotions : mapping
        From :func:`map_labels`.
    there : mapping
        Emotion to number of utterances.

    Returns
    -------
    dict
        An ``emotion_map``, never with the class ``other``.

    Raises
    ------
    SERError
        If there are fewer than two.

    Example
    -------
    >>> shared_classes({"ang": "angry", "neu": "neutral", "x": None},
    ...     {"angry": 3, "neutral": 4, "sad": 5})
    {'angry': ['angry'], 'neutral': ['neutral']}
    """
    both = dict.fromkeys(e for e in emotions.values() if e in there and e != "other")
    if len(both) < 2:
        told = ", ".join(f"{k} = {v or 'not known'}" for k, v in emotions.items())
        raise SERError(
            f"the model ({told}) and the corpus ({', '.join(there)}) share "
            f"{len(both)} emotions, expected two or more. Say what labels mean: "
            "--labels LABEL=EMOTION"
        )
    return {str(emotion): [str(emotion)] for emotion in both}


def _outputs(
    classifier: Classifier, utterances: Sequence[Any], output: Path
) -> dict[str, np.ndarray]:
    """Computes the probabilities of each utterance; reuses earlier ones."""
    if classifier.origin.kind == "predictions":
        return {
            u.id: row
            for u, row in zip(utterances, classifier.outputs(utterances), strict=True)
        }
    path = output / f"outputs-{classifier.origin.mark}.csv"
    header = ["id", *classifier.labels]
    rows = dict(_finished(path, header))
    todo = [u for u in utterances if u.id not in rows]
    with open(path, "a", encoding="utf-8", newline="") as file:
        writer = csv.writer(file, lineterminator="\n")
        if file.tell() == 0:
            writer.writerow(header)
        answers = classifier.outputs(todo)
        bar = tqdm(todo, "classified", unit="file", disable=None)
        for utterance, row in zip(bar, answers, strict=True):
            rows[utterance.id] = row
            writer.writerow([utterance.id, *(f"{share:.9g}" for share in row)])
    return rows


def _finished(path: Path, header: Sequence[str]) -> Iterator[tuple[str, np.ndarray]]:
    if not path.exists():
        return
    whole, newline, cut = path.read_text("utf-8").rpartition("\n")
    if cut:  # a killed process wrote this line incompletely
        path.write_text(whole + newline, "utf-8")
    if not whole:
        return
    lines = read_csv(path, header)
    next(lines)
    for _, (name, *cells) in lines:
        yield name, np.array(cells, dtype=float)


def _write(
    folder: Path,
    about: dict[str, Any],
    items: Sequence[Labelled],
    raw: np.ndarray,
    weights: np.ndarray,
    names: Sequence[str],
) -> dict[str, Any]:
    """Writes the files of a run; returns the contents of ``results.json``."""
    truth = np.array([names.index(item.label) for item in items])
    shares = raw @ weights
    outside = weights[raw.argmax(1)].sum(1) == 0
    # A prediction without probabilities whose label has no class is an error.
    wrong = (truth + 1) % len(names)
    silent = shares.sum(1) == 0
    shares[silent, wrong[silent]] = 1.0
    shares /= shares.sum(1, keepdims=True)
    answers = shares.argmax(1)
    strict = np.where(outside, wrong, answers)
    measure = classification_metrics(truth, strict, len(names))["uar"]
    about["outside"] = {
        "answers": int(outside.sum()),
        "share": float(outside.mean()),
        "uar_as_errors": measure,
    }
    history = History()
    history.tested = {"epoch": None, "valid": None}
    return write_run(
        folder,
        about,
        {
            "id": [item.utterance.id for item in items],
            "label": truth,
            "prediction": answers,
            "probability": shares,
        },
        {"test": list(items)},
        names,
        history,
    )


def trained_on(card: str, corpora: Sequence[str]) -> list[str]:
    """Warns of corpora that a model's card names.

    Arguments
    ---------
    card : str
        Text of the model card.
    corpora : sequence of str
        Names of the test corpora.

    Returns
    -------
    list of str
        One line per named corpus: the model may have been trained on the test data.

    Example
    -------
    >>> for line in trained_on("Fine-tuned on CREMA-D and more.", ["crema_d"]):
    ...     print(line)  # doctest: +ELLIPSIS
    WARNING: the model's card names crema_d: ...
    """
    plain = re.sub(r"[^a-z0-9]", "", card.lower())
    lines = []
    for name in corpora:
        words = [name]
        if (CARDS / f"{name}.yaml").is_file():
            words.append(load_card(CARDS / f"{name}.yaml", name).title.split(",")[0])
        forms = {re.sub(r"[^a-z0-9]", "", word.lower()) for word in words}
        if any(len(form) > 3 and form in plain for form in forms):
            lines.append(
                f"WARNING: the model's card names {name}: if it was trained on it, the "
                "results below do not apply to new speech"
            )
    if not card:
        lines.append(
            "WARNING: the model has no card (README.md), so its training data are "
            "unknown"
        )
    return lines


def _labels_told(
    emotions: Mapping[str, str | None],
    class_of: Mapping[str, str | None],
    table: Mapping[str, str] | None,
) -> list[str]:
    width = max(map(len, emotions))
    lines, unknown = ["label -> class"], []
    left_out = {normal(str(label)) for label in table or {}}
    for label, emotion in emotions.items():
        if emotion:
            said = class_of[label] or f"none ({emotion} is no class here)"
        elif normal(label) in left_out:
            said = "none (left out)"
        else:
            said = "none (not known)"
            unknown.append(label)
        lines.append(f"  {label:{width}}  {said}")
    if unknown:
        lines.append(
            f"Labels without a known meaning ({offenders(unknown)}); to define one: "
            f"--labels {quote(f'{unknown[0]}=EMOTION')}"
        )
    return lines


def _results_told(records: Sequence[Mapping[str, Any]], crossval: Any) -> list[str]:
    lines = []
    for corpus in crossval.corpora:
        summary = crossval.summary(corpus)
        pooled = summary["pooled"]["uar"]
        interval = ""
        if pooled["interval"]:
            interval = f" (95 % over speakers: {bounds(pooled['interval'])})"
        others = ", ".join(
            f"{title} {100 * summary['pooled'][key]['value']:.1f} %"
            for key, title in (("wa", "WA"), ("macro_f1", "macro-F1"))
        )
        lines.append(
            f"{corpus}: UAR {100 * pooled['value']:.1f} %{interval}, {others}, chance "
            f"{100 * summary['chance']:.1f} %, {summary['utterances']} utterances of "
            f"{summary['speakers']} speakers"
        )
    n_outside = sum(record["outside"]["answers"] for record in records)
    if n_outside:
        n = sum(record["test"]["utterances"] for record in records)
        strict = np.mean([record["outside"]["uar_as_errors"] for record in records])
        lines.append(
            f"The most probable label was of no class for {n_outside} of {n}; with "
            f"these as errors: UAR {100 * strict:.1f} %"
        )
    return lines


def left_out(counts: Mapping[str, int]) -> str:
    """Describes how many utterances of each emotion have no class."""
    listed = ", ".join(f"{n} {emotion}" for emotion, n in counts.items())
    return f"Left out, the model has no label for them: {listed}"


def without_folds(items: Sequence[Labelled], class_names: Sequence[str]) -> Like:
    """Tests all utterances at once.

    Arguments
    ---------
    items : sequence of Labelled
        Utterances and their classes.
    class_names : sequence of str
        Names of the classes, in order.

    Returns
    -------
    Like
        Input of :func:`evaluate`.

    Example
    -------
    >>> without_folds([], ["sad", "angry"]).protocol
    {'kind': 'seeds'}
    """
    return Like([Tested(list(items))], list(class_names), {"kind": SEEDS}, None)


def count_emotions(utterances: Sequence[Any]) -> dict[str, int]:
    """Counts the utterances of each emotion, sorted by name."""
    return dict(sorted(Counter(u.emotion for u in utterances).items()))
