"""Labels, splits and the check of splits for leaks.

All draws depend only on the seed and the ids: not on the order of the input, nor on the
version of a random number generator.
"""

import hashlib
import json
from collections import Counter, defaultdict
from collections.abc import Iterable, Mapping, Sequence
from itertools import combinations
from operator import attrgetter
from typing import Any, NamedTuple

import numpy as np
from numpy.typing import NDArray

from speechbrain_ser_cl.corpora.card import card_names
from speechbrain_ser_cl.corpora.emotion_words import EMOTION_WORDS
from speechbrain_ser_cl.corpora.utterance import EMOTIONS, Utterance, normal
from speechbrain_ser_cl.utils.errors import SERError, did_you_mean, offenders, repeated
from speechbrain_ser_cl.utils.files import without_links

LEAK_KEYS = ("speaker", "session", "text_id")
_FILE = "audio file"
# Shorter overlaps (s) of parts of one recording are ignored.
_TOUCHING = 0.001


class LeakError(SERError):
    """Parts of a split share what they must not share."""


class Labelled(NamedTuple):
    """An utterance and its class in an experiment.

    Arguments
    ---------
    utterance : Utterance
        The utterance.
    label : str
        Name of the class.

    Example
    -------
    >>> for utterance, label in []:
    ...     print(utterance.id, label)
    """

    utterance: Utterance
    label: str


class FractionSplit(NamedTuple):
    """Result of ``split_fraction``.

    Arguments
    ---------
    part : list of Labelled
        Drawn utterances.
    rest : list of Labelled
        Other utterances, without ``unused``.
    unused : list of Labelled
        Other utterances of the drawn speakers; empty with ``by="utterance"``.

    Example
    -------
    >>> part, rest, unused = FractionSplit([], [], [])
    """

    part: list[Labelled]
    rest: list[Labelled]
    unused: list[Labelled]


def map_emotions(
    utterances: Iterable[Utterance], emotion_map: Mapping[str, Sequence[str]]
) -> tuple[list[Labelled], dict[str, int]]:
    """Assigns the classes of an experiment to utterances.

    Arguments
    ---------
    utterances : iterable of Utterance
        In any order.
    emotion_map : mapping
        Class name to the emotions that it contains. Utterances of other emotions are
        left out.

    Returns
    -------
    list of Labelled
        In the given order.
    dict
        Emotion that was left out to its number of utterances.

    Raises
    ------
    ValueError
        For an unknown emotion in the map, an utterance whose emotion is neither in
        ``EMOTIONS`` nor in a class (emotions of corpora with a card are known and left
        out), an emotion in two classes, and a class without utterances.

    Example
    -------
    >>> from speechbrain_ser_cl.corpora import read_synthetic, write_synthetic
    >>> utterances = read_synthetic(
    ...     write_synthetic(
    ...         getfixture("tmp_path"),
    ...         "synthetic_source",
    ...         n_speakers=2,
    ...         utterances_per_speaker=4,
    ...     )
    ... )
    >>> items, left_out = map_emotions(
    ...     utterances, {"positive": ["neutral", "happy"], "negative": ["angry"]}
    ... )
    >>> len(items), left_out
    (6, {'sad': 2})
    """
    utterances = list(utterances)
    there = {u.emotion for u in utterances}
    class_of = class_of_emotions(emotion_map, there)
    words, published = [*EMOTIONS, *class_of], card_names()
    # Common emotion words that a corpus has as labels, unchanged.
    for word in EMOTION_WORDS.keys() & there.difference(words):
        words.append(word)
        if EMOTION_WORDS[word] in class_of:
            class_of[word] = class_of[EMOTION_WORDS[word]]
    strange = [
        f"{emotion!r}, {count} utterances {did_you_mean(emotion, words)}".strip()
        for (emotion, corpus), count in Counter(
            (u.emotion, u.corpus) for u in utterances
        ).items()
        if emotion not in words and corpus not in published
    ]
    if strange:
        raise ValueError(
            "emotion_map: emotions of a corpus that are neither one of "
            f"{', '.join(EMOTIONS)} nor in a class ({offenders(strange)}). Put them "
            "into a class, or correct the corpus' labels"
        )
    items = []
    left_out: Counter[str] = Counter()
    for utterance in utterances:
        if utterance.emotion in class_of:
            items.append(Labelled(utterance, class_of[utterance.emotion]))
        else:
            left_out[utterance.emotion] += 1
    empty = emotion_map.keys() - {item.label for item in items}
    if empty:
        raise ValueError(
            f"emotion_map: no utterance is in class {', '.join(sorted(empty))}. The "
            "emotions that are there and in no class: "
            f"{', '.join(sorted(left_out)) or 'none'}"
        )
    return items, dict(sorted(left_out.items()))


def class_of_emotions(
    emotion_map: Mapping[str, Sequence[str]], there: Iterable[str]
) -> dict[str, str]:
    """Inverts a map of classes: emotion to class.

    Arguments
    ---------
    emotion_map : mapping
        Class name to the emotions that it contains.
    there : iterable of str
        Emotions of the data, which are known besides ``EMOTIONS``.

    Returns
    -------
    dict
        Emotion to class.

    Raises
    ------
    ValueError
        For an unknown emotion, or an emotion in two classes.

    Example
    -------
    >>> class_of_emotions({"low": ["sad", "bored"]}, [])
    {'sad': 'low', 'bored': 'low'}
    """
    known = dict.fromkeys([*EMOTIONS, *sorted(there)])
    class_of: dict[str, str] = {}
    for label, emotions in emotion_map.items():
        if not isinstance(emotions, Sequence) or isinstance(emotions, str):
            raise ValueError(
                f"emotion_map: class {label} must be a list of emotions, such as "
                f"[{emotions or 'happy'}]; found {emotions!r}"
            )
        for emotion in map(normal, emotions):
            if emotion not in known:
                emotion = EMOTION_WORDS.get(emotion.strip().lower(), emotion)
            if emotion not in known:
                raise ValueError(
                    f"emotion_map: class {label} has the unknown emotion {emotion!r}; "
                    f"{did_you_mean(emotion, known)}known are {', '.join(known)}"
                )
            if emotion in class_of:
                raise ValueError(
                    f"emotion_map: {emotion} is in class {class_of[emotion]} and in "
                    f"class {label}; it can be in one only"
                )
            class_of[emotion] = label
    return class_of


def split_fraction(
    items: Iterable[Labelled],
    size: float | int,
    seed: int,
    by: str = "utterance",
) -> FractionSplit:
    """Draws a part of the utterances, stratified by label.

    With ``by="utterance"`` the part is drawn from all utterances, so both sides share
    speakers. With ``by="speaker"`` speakers are drawn in random order until the size is
    reached, and ``rest`` has none of them; surplus utterances of the drawn speakers are
    on neither side and returned as ``unused``. The part has exactly the requested size.

    Arguments
    ---------
    items : iterable of Labelled
        In any order, which does not change the result.
    size : float or int
        A float in (0, 1) is a fraction of all items, rounded to whole utterances, at
        least one; an int is a number of utterances.
    seed : int
        Seed of the draw.
    by : str
        ``"utterance"`` or ``"speaker"``.

    Returns
    -------
    FractionSplit
        ``part``, ``rest``, ``unused``, each sorted by id. Class shares in ``part`` are
        as close as possible to the shares in the data that it is drawn from.

    Raises
    ------
    ValueError
        For a size or ``by`` out of range, repeated ids, or if ``rest`` would be empty.

    Example
    -------
    >>> from pathlib import Path
    >>> def utterance(n):
    ...     path, speaker = Path(f"{n}.wav"), f"toy_{n % 4}"
    ...     return Utterance(
    ...         f"toy_{n}", path, 1.0, "toy", speaker, None, None, "en", None, "sad"
    ...     )
    >>> items = [Labelled(utterance(n), "negative") for n in range(40)]
    >>> [len(side) for side in split_fraction(items, 0.05, seed=1)]
    [2, 38, 0]
    >>> [len(side) for side in split_fraction(items, 12, seed=1, by="speaker")]
    [12, 20, 8]
    """
    items = sorted(items, key=lambda item: item.utterance.id)
    if twice := repeated(item.utterance.id for item in items):
        raise ValueError(f"ids that occur more than once ({offenders(twice)})")
    count = _count(size, len(items))

    if by == "utterance":
        pool = items
    elif by == "speaker":
        pool = _draw_speakers(items, count, seed)
    else:
        raise ValueError(f"by is {by!r}, it must be 'utterance' or 'speaker'")
    drawn = set(_draw_stratified(pool, count, seed))
    speakers = {item.utterance.speaker for item in pool} if by == "speaker" else set()
    part = [item for item in items if item.utterance.id in drawn]
    outside = [item for item in items if item.utterance.id not in drawn]
    rest = [item for item in outside if item.utterance.speaker not in speakers]
    unused = [item for item in outside if item.utterance.speaker in speakers]
    if not rest:
        raise ValueError(
            f"size {size} by {by} takes {count} of {len(items)} utterances and leaves "
            "nothing for the rest; ask for less"
        )
    return FractionSplit(part, rest, unused)


class Leaks:
    """Finds what parts share; reads the utterances once for any number of splits.

    Arguments
    ---------
    utterances : sequence of Utterance
        All utterances.
    keys : sequence of str
        Fields of ``Utterance`` to compare.

    Example
    -------
    >>> Leaks([], ["speaker"]).check(np.array([], int), ["train", "test"])
    {'speaker': {'train/test': 0}}
    """

    def __init__(
        self, utterances: Sequence[Utterance], keys: Sequence[str] = LEAK_KEYS
    ) -> None:
        self.keys = list(keys)
        self._ids = [u.id for u in utterances]
        values: dict[str, Iterable[str | None]] = {
            "utterance id": self._ids,
            _FILE: map(normal, without_links(u.path for u in utterances)),
        } | {key: map(attrgetter(key), utterances) for key in keys}
        if any(u.recording for u in utterances):
            self.keys.append("recording")
            values["recording"] = (u.recording for u in utterances)
        self._values = {what: _numbered(column) for what, column in values.items()}
        # Segments sorted by recording and start; starts are shifted to increase over
        # all recordings.
        cut = [n for n, u in enumerate(utterances) if u.start is not None]
        starts = np.array([utterances[n].start for n in cut], dtype=float)
        ends = np.array(
            [
                start + utterances[n].duration if end is None else end
                for n, start in zip(cut, starts, strict=True)
                for end in [utterances[n].end]
            ],
            dtype=float,
        )
        if cut:
            ends = np.maximum(starts, ends)
            offset = self._values["recording"][0][cut] * (ends.max() + 1.0)
            order = np.argsort(offset + starts, kind="stable")
            starts, ends = (offset + starts)[order], (offset + ends)[order]
            cut = np.array(cut)[order].tolist()
        self._segments = (np.array(cut, dtype=int), starts, ends)

    def check(
        self,
        part_of: NDArray[np.integer],
        parts: Sequence[str],
        allow: Sequence[str] = (),
        entry: str = "allow",
    ) -> dict[str, dict[str, int]]:
        """Refuses shared values of ``keys``, except allowed ones, and counts them.

        Arguments
        ---------
        part_of : array
            Number of each utterance's part, (N,); -1: none.
        parts : sequence of str
            Names of the parts.
        allow : sequence of str
            Keys whose values may be shared. Recordings may always be shared.
        entry : str
            Name of ``allow`` for the user, for the error.

        Returns
        -------
        dict
            For each key, for each pair of parts (``"train/test"``): number of shared
            values.

        Raises
        ------
        LeakError
            The message names parts, keys and up to ten shared values of each.
        """
        pairs = list(combinations(range(len(parts)), 2))
        used = part_of >= 0
        report: dict[str, dict[str, int]] = {}
        wrong: dict[str, str] = {}
        for what, (codes, names) in self._values.items():
            # Row -1 is for unknown values.
            there = np.zeros((len(names) + 1, len(parts)), dtype=bool)
            there[codes[used], part_of[used]] = True
            shared = {
                (a, b): np.flatnonzero(there[:-1, a] & there[:-1, b]) for a, b in pairs
            }
            if what in self.keys:
                report[what] = {
                    f"{parts[a]}/{parts[b]}": len(s) for (a, b), s in shared.items()
                }
            if what in (*allow, "recording"):
                continue
            for (a, b), found in shared.items():
                if len(found):
                    told = offenders(names[n] for n in found)
                    text = f"{parts[a]} and {parts[b]} share the {what} ({told})"
                    if what not in self.keys:
                        raise LeakError(f"{text}; this is never allowed")
                    wrong.setdefault(what, text)
        self._check_times(part_of, parts)
        if wrong:
            cure = ", ".join(dict.fromkeys([*allow, *wrong]))
            raise LeakError(
                f"{'; '.join(wrong.values())}. Split by {next(iter(wrong))}, or "
                f"declare the leak with {entry}: [{cure}]"
            )
        return report

    def _check_times(self, part_of: NDArray[np.integer], parts: Sequence[str]) -> None:
        """Refuses overlapping segments of one recording in different parts."""
        segments, starts, ends = self._segments
        if not len(segments):
            return
        part = part_of[segments]
        for number, name in enumerate(parts):
            # Latest end of this part's earlier segments.
            reach = np.maximum.accumulate(np.where(part == number, ends, -np.inf))
            other = (part[1:] >= 0) & (part[1:] != number)
            found = np.flatnonzero(other & (reach[:-1] > starts[1:] + _TOUCHING)) + 1
            if len(found):
                told = offenders(self._ids[segments[n]] for n in found)
                raise LeakError(
                    f"{' and '.join(sorted({name, parts[part[found[0]]]}))} have "
                    f"segments that share time in a recording ({told}); this is never "
                    "allowed. Keep recordings whole: protocol: recording_kfold"
                )


def check_leaks(
    parts: Mapping[str, Iterable[Utterance | Labelled]],
    keys: Sequence[str] = LEAK_KEYS,
    allow: Sequence[str] = (),
) -> dict[str, dict[str, int]]:
    """Checks that no two parts share an utterance, a speaker, a session or a text.

    None (no session, free speech) is not shared. The same id, the same audio file or
    overlapping times of a recording in two parts are always an error.

    Arguments
    ---------
    parts : mapping
        Part name, such as ``"train"``, to its utterances.
    keys : sequence of str
        Fields of ``Utterance`` to compare.
    allow : sequence of str
        Keys that may be shared; they are counted.

    Returns
    -------
    dict
        For each key, for each pair of parts (``"train/test"``): number of shared
        values; also for recordings, if known. Written to the run's results.

    Raises
    ------
    LeakError
        The message names the parts, the keys and up to ten shared values of each.
    ValueError
        If ``allow`` contains a key that is not in ``keys``.

    Example
    -------
    >>> from pathlib import Path
    >>> def utterance(n):
    ...     path, speaker = Path(f"{n}.wav"), f"toy_{n % 4}"
    ...     return Utterance(
    ...         f"toy_{n}", path, 1.0, "toy", speaker, None, None, "en", None, "sad"
    ...     )
    >>> parts = {"train": [utterance(0), utterance(1)], "test": [utterance(4)]}
    >>> check_leaks(parts, keys=["speaker"], allow=["speaker"])
    {'speaker': {'train/test': 1}}
    >>> check_leaks(parts)
    Traceback (most recent call last):
    speechbrain_ser_cl.data.splits.LeakError: train and test share the speaker (1: \
toy_0). Split by speaker, or declare the leak with allow: [speaker]
    """
    undeclared = set(allow) - set(keys)
    if undeclared:
        raise ValueError(
            f"allow has {', '.join(sorted(undeclared))}, which keys does not check: "
            f"{', '.join(keys)}"
        )
    plain = [[_utterance(item) for item in part] for part in parts.values()]
    part_of = np.repeat(np.arange(len(plain)), [len(part) for part in plain])
    return Leaks(sum(plain, []), keys).check(part_of, list(parts), allow)


def describe_part(items: Sequence[Labelled]) -> dict[str, Any]:
    """Counts one part of a split, for results.json.

    Arguments
    ---------
    items : sequence of Labelled
        The part.

    Returns
    -------
    dict
        ``utterances``, ``speakers``, ``hours``, and ``classes``: class to utterances.

    Example
    -------
    >>> describe_part([])
    {'utterances': 0, 'speakers': 0, 'hours': 0.0, 'classes': {}}
    """
    return {
        "utterances": len(items),
        "speakers": len({item.utterance.speaker for item in items}),
        "hours": round(sum((i.utterance.duration for i in items), 0.0) / 3600, 3),
        "classes": dict(Counter(item.label for item in items)),
    }


def fingerprint(parts: Mapping[str, Iterable[Utterance | Labelled | str]]) -> str:
    """Hashes a split: runs have the same hash if they used the same split.

    Arguments
    ---------
    parts : mapping
        Part name to its utterances or their ids, in any order.

    Returns
    -------
    str
        Sha256 of the part names and their ids, 64 hexadecimal digits.

    Example
    -------
    >>> fingerprint({"train": [], "test": []}) == fingerprint({"test": [], "train": []})
    True
    """
    ids = {
        name: sorted(i if isinstance(i, str) else _utterance(i).id for i in part)
        for name, part in parts.items()
    }
    return hashlib.sha256(json.dumps(ids, sort_keys=True).encode()).hexdigest()


def _numbered(values: Iterable[str | None]) -> tuple[NDArray[np.int64], list[str]]:
    """Numbers the values, -1 for None; also returns the values by number."""
    number: dict[str, int] = {}
    codes = [-1 if v is None else number.setdefault(v, len(number)) for v in values]
    return np.array(codes, dtype=np.int64), list(number)


def _utterance(item: Utterance | Labelled) -> Utterance:
    return item.utterance if isinstance(item, Labelled) else item


def _count(size: float | int, total: int) -> int:
    if isinstance(size, bool) or not isinstance(size, int | float):
        raise ValueError(f"size is {size!r}, it must be a number")
    if isinstance(size, float):
        if not 0 < size < 1:
            raise ValueError(f"size is the fraction {size}, it must be in (0, 1)")
        return max(1, round(size * total))
    if not 0 < size < total:
        raise ValueError(
            f"size is {size} utterances, it must be at least 1 and below {total}, "
            "which is how many there are"
        )
    return size


def random_rank(seed: int, name: str) -> bytes:
    """Returns a sort key for a random order that depends only on seed and names.

    Example
    -------
    >>> sorted("abcd", key=lambda name: random_rank(1, name))
    ['d', 'a', 'b', 'c']
    """
    return hashlib.sha256(f"{seed}/{name}".encode()).digest()


def _draw_speakers(items: list[Labelled], count: int, seed: int) -> list[Labelled]:
    """Draws speakers in random order until their items are enough."""
    of_speaker = defaultdict(list)
    for item in items:
        of_speaker[item.utterance.speaker or ""].append(item)
    if "" in of_speaker:
        unknown = offenders(item.utterance.id for item in of_speaker[""])
        raise ValueError(f"by is 'speaker', but speakers are not known ({unknown})")
    pool = []
    for speaker in sorted(of_speaker, key=lambda name: random_rank(seed, name)):
        pool += of_speaker[speaker]
        if len(pool) >= count:
            break
    return pool


def _draw_stratified(pool: list[Labelled], count: int, seed: int) -> list[str]:
    """Draws ``count`` ids, stratified by label (largest remainders)."""
    of_label = defaultdict(list)
    for item in pool:
        of_label[item.label].append(item.utterance.id)
    # As integers, so that equal remainders are exactly equal.
    quota = {
        label: divmod(count * len(of_label[label]), len(pool)) for label in of_label
    }
    short = count - sum(whole for whole, _ in quota.values())
    first = sorted(
        quota, key=lambda label: (-quota[label][1], random_rank(seed, label))
    )
    drawn = []
    for place, label in enumerate(first):
        number = quota[label][0] + (place < short)
        drawn += sorted(of_label[label], key=lambda name: random_rank(seed, name))[
            :number
        ]
    return drawn
