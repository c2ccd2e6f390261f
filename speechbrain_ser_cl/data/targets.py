"""Targets of an utterance: a class, a distribution, or several emotions."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, fields
from typing import Any

import numpy as np
from numpy.typing import NDArray

from speechbrain_ser_cl.corpora.utterance import Utterance
from speechbrain_ser_cl.data.splits import Labelled, class_of_emotions
from speechbrain_ser_cl.utils.errors import did_you_mean, offenders

KINDS = ("emotion", "majority", "plurality", "distribution", "all_inclusive")
Floats = NDArray[np.float64]


@dataclass(frozen=True)
class Target:
    """How labels or votes become a target.

    Arguments
    ---------
    kind : str
        ``"emotion"``: the corpus' label. From the listeners' votes: ``"majority"``: the
        class with more than half of all votes; ``"plurality"``: the class with most
        votes; ``"distribution"``: the share of each class; ``"all_inclusive"``: each
        class whose share is above ``threshold``.
    no_agreement : str, optional
        What to do without a majority or plurality. None: leave the utterance out.
        ``"distribution"``: its shares are the target. A class name: this class is the
        target.
    others : str, optional
        Class that gets the votes for emotions without a class. None: these votes are in
        no distribution, but count in the total for a majority or plurality.
    smoothing : float
        s in [0, 1) for a distribution p of C classes: (1 − s) p + s / C.
    threshold : float, optional
        In [0, 1). None: 1 / C.

    Raises
    ------
    ValueError
        For another kind, or a number out of range.

    References
    ----------
    Chou et al. 2024: "Embracing ambiguity and subjectivity using the all-inclusive
    aggregation rule for evaluating multi-label speech emotion recognition systems".

    Example
    -------
    >>> Target("majority", no_agreement="distribution").smoothing
    0.0
    """

    kind: str = "emotion"
    no_agreement: str | None = None
    others: str | None = None
    smoothing: float = 0.0
    threshold: float | None = None

    def __post_init__(self) -> None:
        if self.kind not in KINDS:
            raise ValueError(
                f"target: kind is {self.kind!r}; {did_you_mean(str(self.kind), KINDS)}"
                f"expected one of {', '.join(KINDS)}"
            )
        for key in ("smoothing", "threshold"):
            value = getattr(self, key)
            number = isinstance(value, int | float) and 0 <= value < 1
            if not number and not (key == "threshold" and value is None):
                raise ValueError(
                    f"target: {key} is {value!r}, expected a number in [0, 1)"
                )


def resolve_target(target: str | Mapping[str, Any] | None) -> Target:
    """Reads ``target`` of a YAML.

    Arguments
    ---------
    target : str or mapping, optional
        A kind, or ``{kind: majority, no_agreement: distribution}`` with arguments of
        :class:`Target`. None: the corpus' label.

    Returns
    -------
    Target

    Raises
    ------
    ValueError
        For an unknown key, and from :class:`Target`.

    Example
    -------
    >>> resolve_target("plurality").kind
    'plurality'
    """
    entry = {"kind": target} if isinstance(target, str) else target or {}
    known = [field.name for field in fields(Target)]
    for key in entry:
        if key not in known:
            raise ValueError(
                f"target: the key {key!r} is not known; {did_you_mean(key, known)}"
                f"it has {', '.join(known)}"
            )
    return Target(**entry)


def label_by_votes(
    utterances: Sequence[Utterance],
    emotion_map: Mapping[str, Sequence[str]],
    target: Target,
) -> tuple[list[Labelled], dict[str, int]]:
    """Assigns classes to utterances by their listeners' votes.

    Arguments
    ---------
    utterances : sequence of Utterance
        Utterances, all with votes.
    emotion_map : mapping
        Class name to emotions, whose votes are added.
    target : Target
        For a distribution or all-inclusive target, the label is the class with most
        votes; the first one in case of a tie.

    Returns
    -------
    list of Labelled
        In the given order.
    dict
        Reason to the number of utterances left out.

    Raises
    ------
    ValueError
        From :func:`target_table`, and for a class without utterances.

    Example
    -------
    >>> from pathlib import Path
    >>> utterance = Utterance("a", Path("a.wav"), 1.0, "toy", None, None, None, "en",
    ...     None, "happy", votes={"sad": 3, "bored": 2, "neutral": 2})
    >>> emotion_map = {"low": ["sad", "bored"], "mid": ["neutral"]}
    >>> label_by_votes([utterance], {"low": ["sad", "bored"]}, Target("majority"))
    ([Labelled(utterance=..., label='low')], {})
    """
    table = target_table(utterances, emotion_map, target)
    classes = list(emotion_map)
    best = _counts(utterances, emotion_map, target)[:, :-1].argmax(1)
    # Without smoothing, so that the largest target is unchanged by rounding.
    if target.kind != "all_inclusive":
        best = table.argmax(1)
    items = [
        Labelled(utterance, classes[k])
        for utterance, k, known in zip(
            utterances, best.tolist(), ~np.isnan(table[:, 0]), strict=True
        )
        if known
    ]
    empty = emotion_map.keys() - {item.label for item in items}
    if empty:
        raise ValueError(
            f"emotion_map: by the votes ({target.kind}) no utterance is in class "
            f"{', '.join(sorted(empty))}"
        )
    left_out = len(utterances) - len(items)
    return items, {"without agreement": left_out} if left_out else {}


def target_table(
    utterances: Sequence[Utterance], emotion_map: Mapping[str, Any], target: Target
) -> Floats:
    """Converts targets of utterances to numbers.

    Arguments
    ---------
    utterances : sequence of Utterance
        N of them.
    emotion_map : mapping
        Name of each of C classes to emotions; or corpus name to such a mapping. The
        classes are then those of all corpora, in order of first occurrence.
    target : Target
        How labels or votes become a target.

    Returns
    -------
    numpy.ndarray
        (N, C): shares with sum 1, one-hot classes, or 0 and 1 for all-inclusive
        targets. NaN rows have no target; losses leave them out.

    Raises
    ------
    ValueError
        For utterances without votes if votes are needed, a class in ``target`` that is
        not in ``emotion_map``, and a corpus without a map if others have one.

    Example
    -------
    >>> from pathlib import Path
    >>> utterance = Utterance("a", Path("a.wav"), 1.0, "toy", None, None, None, "en",
    ...     None, "happy", votes={"sad": 2, "happy": 2})
    >>> emotion_map = {"s": ["sad"], "h": ["happy"]}
    >>> target_table([utterance], emotion_map, Target("distribution"))
    array([[0.5, 0.5]])
    >>> target_table([utterance], emotion_map, Target("majority"))
    array([[nan, nan]])
    """
    if all(isinstance(own, Mapping) for own in emotion_map.values()):
        return _of_corpora(utterances, emotion_map, target)
    classes = list(emotion_map)
    for key, more in (("others", []), ("no_agreement", ["distribution"])):
        if (found := getattr(target, key)) not in (None, *classes, *more):
            raise ValueError(
                f"target: {key} is {found!r}; {did_you_mean(found, classes)}expected "
                f"null or one of {', '.join([*classes, *more])}"
            )
    one_hot = np.eye(len(classes))
    if target.kind == "emotion":
        class_of = class_of_emotions(emotion_map, {u.emotion for u in utterances})
        rows = {e: one_hot[classes.index(name)] for e, name in class_of.items()}
        nothing = np.full(len(classes), np.nan)
        return np.array([rows.get(u.emotion, nothing) for u in utterances])
    votes = _counts(utterances, emotion_map, target)
    inside, most = votes[:, :-1], votes[:, :-1].max(1)
    with np.errstate(invalid="ignore"):
        shares = inside / inside.sum(1, keepdims=True)
    if target.kind == "all_inclusive":
        least = target.threshold
        least = 1 / len(classes) if least is None else least
        return np.where(np.isnan(shares), np.nan, shares > least)
    smooth: Floats = (1 - target.smoothing) * shares + target.smoothing / len(classes)
    if target.kind == "distribution":
        return smooth
    if target.kind == "majority":
        agreed = most > votes.sum(1) / 2
    else:
        agreed = ((votes == most[:, None]).sum(1) == 1) & (most > votes[:, -1])
    fallback: Floats = np.full_like(shares, np.nan)
    if target.no_agreement == "distribution":
        fallback = smooth
    elif target.no_agreement is not None:
        fallback[:] = one_hot[classes.index(target.no_agreement)]
    return np.where(agreed[:, None], one_hot[inside.argmax(1)], fallback)


def _of_corpora(
    utterances: Sequence[Utterance],
    maps: Mapping[str, Mapping[str, Sequence[str]]],
    target: Target,
) -> Floats:
    """Computes the table for corpora with a map each."""
    classes = dict.fromkeys(name for own in maps.values() for name in own)
    table: Floats = np.full((len(utterances), len(classes)), np.nan)
    for corpus in sorted({u.corpus for u in utterances}):
        if corpus not in maps:
            raise ValueError(
                f"emotion_map has classes for {', '.join(maps)}, but none for {corpus}"
            )
        own = {name: list(maps[corpus].get(name, [])) for name in classes}
        rows = [i for i, u in enumerate(utterances) if u.corpus == corpus]
        table[rows] = target_table([utterances[i] for i in rows], own, target)
    return table


def dimension_table(items: Sequence[Labelled], names: Sequence[str]) -> Floats:
    """Converts dimensions of utterances to numbers.

    Arguments
    ---------
    items : sequence of Labelled
        The utterances.
    names : sequence of str
        Names of K dimensions.

    Returns
    -------
    numpy.ndarray
        (N, K), on the corpus' own scale; NaN if unknown.

    Raises
    ------
    ValueError
        For a dimension that no utterance has.

    Example
    -------
    >>> from pathlib import Path
    >>> utterance = Utterance("a", Path("a.wav"), 1.0, "toy", None, None, None, "en",
    ...     None, "happy", dimensions={"arousal": 4})
    >>> dimension_table([Labelled(utterance, "happy")], ["arousal"])
    array([[4.]])
    """
    nothing: Mapping[str, float] = {}
    known = [item.utterance.dimensions or nothing for item in items]
    table = np.array([[one.get(n, np.nan) for n in names] for one in known])
    table = table.reshape(len(items), len(names)).astype(np.float64)
    for name, column in zip(names, table.T, strict=True):
        if np.isnan(column).all():
            there = sorted({key for one in known for key in one})
            raise ValueError(
                f"dimensions: no utterance has {name!r}; {did_you_mean(name, there)}"
                f"the data have {', '.join(there) or 'none'}"
            )
    return table


def _counts(
    utterances: Sequence[Utterance],
    emotion_map: Mapping[str, Sequence[str]],
    target: Target,
) -> Floats:
    """Counts the votes (N, C + 1) per class; last column: votes without a class."""
    without = [u.id for u in utterances if u.votes is None]
    if without:
        raise ValueError(
            f"target {target.kind}: utterances without votes ({offenders(without)}). "
            "Take a corpus, or columns, that have them, or target: emotion"
        )
    heard = {name for u in utterances for name in u.votes or ()}
    class_of = class_of_emotions(emotion_map, heard)
    number = {name: k for k, name in enumerate(emotion_map)}
    other = number[target.others] if target.others else len(number)
    column = {e: number[class_of[e]] if e in class_of else other for e in heard}
    counts = np.zeros((len(utterances), len(number) + 1))
    for row, utterance in enumerate(utterances):
        for name, n in (utterance.votes or {}).items():
            counts[row, column[name]] += n
    return counts
