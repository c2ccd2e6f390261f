"""Reads published folds from the user's copy of them.

EmoBox (https://github.com/emo-box/EmoBox, ``data/<corpus>/fold_<k>``) lists the audio
files of each part, EMO-SUPERB (https://github.com/EMOsuperb/EMO-SUPERB-submission,
``data/<corpus>/*/labels_consensus_<k>.csv``) their names. Emotions, speakers and texts
come from this package's readers, not from the lists.
"""

import csv
import json
import logging
import re
from collections import Counter, defaultdict
from collections.abc import Iterator, Sequence
from pathlib import Path, PurePosixPath

import numpy as np
from numpy.typing import NDArray

from speechbrain_ser_cl.corpora.utterance import PARTS, Utterance, normal
from speechbrain_ser_cl.utils.errors import did_you_mean, offenders, repeated
from speechbrain_ser_cl.utils.files import each_key_once

logger = logging.getLogger(__name__)

_EMO_SUPERB_PARTS = {"Train": "train", "Development": "valid", "Test": "test"}
_EMO_SUPERB_CORPORA = {
    "crema_d": "CREMA-D",
    "iemocap": "IEMOCAP",
    "msp_improv": "IMPROV",
    "msp_podcast": "PODCAST",
}

# Path of an audio file relative to the corpus folder, its part, and its emotion if
# given.
Row = tuple[str, str, str | None]


def published_folds(
    utterances: Sequence[Utterance],
    kind: str,
    folder: str | Path,
    leave_out: bool = False,
) -> list[NDArray[np.int8]]:
    """Reads the folds of one corpus and finds its utterances in them.

    Files are matched by name, and by as many parent folders as are needed to be unique.
    Suffixes are ignored, because audio of videos may have been converted.

    Arguments
    ---------
    utterances : sequence of Utterance
        Utterances of one corpus, from its reader.
    kind : str
        ``emobox`` or ``emo_superb``.
    folder : str or pathlib.Path
        ``data`` in the user's clone.
    leave_out : bool
        Whether utterances missing in the lists, and listed files missing in the corpus,
        give a warning instead of an error.

    Returns
    -------
    list of numpy.ndarray
        For each fold: index of each utterance's part in ``PARTS`` (N,); -1: none.

    Raises
    ------
    ValueError
        If the lists are missing or damaged, or, unless ``leave_out``, do not fit the
        utterances; the message has the numbers. Not an error: listed files of an
        emotion that no utterance has, and listed files of EMO-SUPERB without an
        utterance, because its lists have votes instead of emotions.

    Example
    -------
    >>> data = getfixture("tmp_path")
    >>> lists = data / "toy" / "fold_1"
    >>> lists.mkdir(parents=True)
    >>> for part, name in ("train", "a"), ("test", "b"):
    ...     line = f'{{"wav": "downloads/toy/wav/{name}.wav", "emo": "sad"}}'
    ...     _ = (lists / f"toy_{part}_fold_1.jsonl").write_text(line)
    >>> utterances = [
    ...     Utterance(
    ...         f"toy_{n}", Path(f"/data/wav/{n}.wav"), 1.0, "toy", None, None, None,
    ...         "en", None, "sad"
    ...     ) for n in "ab"
    ... ]
    >>> [part_of.tolist() for part_of in published_folds(utterances, "emobox", data)]
    [[0, 2]]
    """
    folder, corpus = Path(folder), utterances[0].corpus
    folds = (_emobox if kind == "emobox" else _emo_superb)(folder, corpus)
    number = {name: code for code, name in enumerate(PARTS)}
    labels: dict[str, str | None] = {}
    parts = []
    for k, rows in enumerate(folds):
        part_of: dict[str, int] = {}
        for path, part, label in rows:
            if part_of.setdefault(path, number[part]) != number[part]:
                raise ValueError(
                    f"protocol {kind}: {folder}: fold {k} of {corpus} has {path} in "
                    "two parts; expected each file in one. Get the lists again"
                )
            labels[path] = label
        parts.append(part_of)
    place = _matched(utterances, list(labels), kind)
    found = np.full((len(parts), len(utterances)), -1, dtype=np.int8)
    for k, part_of in enumerate(parts):
        for path, code in part_of.items():
            if path in place:
                found[k, place[path]] = code
    unlisted = np.flatnonzero(np.all(found < 0, axis=0)).tolist()
    _tell(utterances, labels, place, unlisted, kind, leave_out)
    return list(found)


def _emobox(folder: Path, corpus: str) -> list[list[Row]]:
    """Reads the folds of EmoBox."""
    name = corpus.replace("_", "")
    places = [f for f in (folder / name, folder / "data" / name) if f.is_dir()]
    if not places:
        _no_lists("emobox", folder, corpus, [f.name for f in _folders(folder)])
    folds = sorted(
        (int(match[1]), where)
        for where in _folders(places[0])
        if (match := re.fullmatch(r"fold_(\d+)", where.name))
    )
    if not folds:
        raise ValueError(
            f"protocol emobox: {places[0]} has no fold_1, fold_2, …; expected `data` "
            "of a whole clone of EmoBox"
        )
    return [list(_emobox_fold(where, name, k)) for k, where in folds]


def _emobox_fold(folder: Path, name: str, k: int) -> Iterator[Row]:
    for part in PARTS:
        # EmoDB has older versions of the lists in the same folder, with other fields.
        names = [f"{name}_{part}_fold_{k}.jsonl", f"{name}_{part}_fold{k}.jsonl"]
        path = next((folder / n for n in names if (folder / n).is_file()), None)
        if path is None and part != "valid":
            raise ValueError(
                f"protocol emobox: {folder} has no {names[0]}; expected `data` of a "
                "whole clone of EmoBox"
            )
        for n, line in enumerate(_lines(path) if path else [], 1):
            try:
                row = json.loads(line, object_pairs_hook=each_key_once)
                audio = str(row["wav"] if "wav" in row else row["audio"])
                label = str(row["emo"] if "emo" in row else row["label"])
                if "start_time" in row:
                    audio = _piece(audio, str(row["key"]), f"{name}-")
            except (ValueError, KeyError, TypeError):
                raise ValueError(
                    f"protocol emobox: {path}, line {n}: found {line[:80]!r}, expected "
                    "a JSON object with wav and emo (or audio and label). Get the "
                    "file again"
                ) from None
            yield re.sub(r"^(.*/)?downloads/[^/]+/", "", normal(audio)), part, label


def _emo_superb(folder: Path, corpus: str) -> list[list[Row]]:
    """Reads the folds of EMO-SUPERB; its two label sets have the same folds."""
    name = _EMO_SUPERB_CORPORA.get(corpus, corpus)
    for where in (folder / name, folder / "data" / name):
        for labels in ("Primary", "Secondary"):
            files = sorted(
                (int(match[1]), path)
                for path in (where / labels).glob("labels_consensus_*.csv")
                if (match := re.fullmatch(r"labels_consensus_(\d+)", path.stem))
            )
            if files:
                return [list(_emo_superb_fold(path)) for _, path in files]
    return _no_lists("emo_superb", folder, corpus, list(_EMO_SUPERB_CORPORA))


def _emo_superb_fold(path: Path) -> Iterator[Row]:
    for n, row in enumerate(csv.DictReader(_lines(path)), 2):
        part = _EMO_SUPERB_PARTS.get(row.get("Split_Set") or "")
        if not row.get("FileName") or part is None:
            raise ValueError(
                f"protocol emo_superb: {path}, line {n}: expected a FileName and a "
                f"Split_Set of {', '.join(_EMO_SUPERB_PARTS)}, found "
                f"{row.get('FileName')!r} and {row.get('Split_Set')!r}. Get the file "
                "again"
            )
        yield normal(row["FileName"]), part, None


def _folders(folder: Path) -> list[Path]:
    return sorted(f for f in folder.iterdir() if f.is_dir()) if folder.is_dir() else []


def _lines(path: Path) -> list[str]:
    return path.read_text(encoding="utf-8-sig").splitlines()


def _no_lists(
    kind: str, folder: Path, corpus: str, known: Sequence[str]
) -> list[list[Row]]:
    raise ValueError(
        f"protocol {kind}: folder: no lists of {corpus} in {folder}; "
        f"{did_you_mean(corpus, known)}expected `data` of a clone with one of "
        f"{', '.join(known) or 'its folders of corpora'}"
    )


def _piece(recording: str, name: str, prefix: str) -> str:
    """Returns a path for a part of a long recording; names start with the corpus."""
    path = PurePosixPath(normal(recording.removeprefix(prefix))).with_suffix("")
    return str(path / normal(name.removeprefix(prefix)))


def _matched(
    utterances: Sequence[Utterance], listed: Sequence[str], kind: str
) -> dict[str, int]:
    """Returns the index of the utterance of each listed file that exists."""

    def ends(paths: Sequence[str], depth: int) -> list[str]:
        parts = (PurePosixPath(path).with_suffix("").parts for path in paths)
        return ["/".join(some[-depth:]) for some in parts]

    here = [
        normal(utterance.path.as_posix())
        if utterance.recording is None
        else _piece(utterance.recording, utterance.id, f"{utterance.corpus}_")
        for utterance in utterances
    ]
    for depth in range(1, 1 + max((path.count("/") + 1 for path in listed), default=1)):
        ours, theirs = ends(here, depth), ends(listed, depth)
        if len(set(ours)) == len(ours) and len(set(theirs)) == len(theirs):
            there = {end: place for place, end in enumerate(ours)}
            return {
                path: there[end]
                for path, end in zip(listed, theirs, strict=True)
                if end in there
            }
    raise ValueError(
        f"protocol {kind}: paths do not tell the files of {utterances[0].corpus} apart "
        f"({offenders(repeated(ours) or theirs)}); expected each file once. Remove the "
        "copies"
    )


def _tell(
    utterances: Sequence[Utterance],
    labels: dict[str, str | None],
    place: dict[str, int],
    unlisted: Sequence[int],
    kind: str,
    leave_out: bool,
) -> None:
    """Raises an error, or warns, for differences between lists and utterances."""
    corpus = utterances[0].corpus
    emotions: dict[str | None, Counter[str]] = defaultdict(Counter)
    for path, n in place.items():
        emotions[labels[path]][utterances[n].emotion] += 1
    strange = [utterances[n].id for n in unlisted]
    missing = [path for path in labels if path not in place]
    wanted = [path for path in missing if labels[path] in emotions]
    if kind == "emo_superb":
        if missing:
            logger.warning(
                "protocol %s: %d of its %d files of %s are not used: no utterance is "
                "given (no class, or no file)",
                *(kind, len(missing), len(labels), corpus),
            )
        wanted = []
    checked = {
        f"of {len(utterances)} utterances of {corpus} are not in the lists": strange,
        f"of {len(labels)} files of the lists are not there": wanted,
    }
    wrong = [
        f"{len(names)} {what} ({offenders(names)})"
        for what, names in checked.items()
        if names
    ]
    if wrong and (not place or not leave_out):
        raise ValueError(
            f"protocol {kind}: {'; '.join(wrong)}. Get the version of the corpus that "
            "the lists were made of, or go on without them (unknown: leave_out)"
        )
    if wrong:
        logger.warning("protocol %s: left out: %s", kind, "; ".join(wrong))
    # Each label with its most frequent emotion here.
    usual = [] if kind == "emo_superb" else [*emotions.values()]
    if other := sum(n.total() - max(n.values()) for n in usual):
        logger.warning(
            "protocol %s: %d of %d utterances of %s have another emotion in the "
            "lists than here; those here are used",
            *(kind, other, len(place), corpus),
        )
