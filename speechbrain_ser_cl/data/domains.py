"""Splits source and target corpus for domain adaptation."""

import logging
from collections import Counter
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any

from speechbrain_ser_cl.data.protocols import resolve_protocol
from speechbrain_ser_cl.data.splits import (
    LEAK_KEYS,
    Labelled,
    check_leaks,
    describe_part,
    fingerprint,
    split_fraction,
)

logger = logging.getLogger(__name__)

SOURCE, TARGET = 0, 1


@dataclass
class DomainSplits:
    """Parts of a domain adaptation experiment.

    Attributes
    ----------
    source_train, source_valid, target_train, target_test : list of Labelled
        Utterances of each part.
    leaks : dict
        For source and target: numbers of speakers, sessions and texts that two parts
        share.
    unused : int
        Number of target utterances in no part (other utterances of training speakers).
    target_unlabelled : list of Labelled
        Further target speech for training without labels. May be empty.
    """

    source_train: list[Labelled]
    source_valid: list[Labelled]
    target_train: list[Labelled]
    target_test: list[Labelled]
    leaks: dict[str, dict[str, dict[str, int]]]
    unused: int
    target_unlabelled: list[Labelled] = field(default_factory=list)

    def parts(self) -> dict[str, list[Labelled]]:
        """Parts by name; the unlabelled part only if it exists."""
        names = ["source_train", "source_valid", "target_train", "target_test"]
        names += ["target_unlabelled"] * bool(self.target_unlabelled)
        return {name: getattr(self, name) for name in names}

    def describe(self) -> dict[str, Any]:
        """Returns counts, shared values and fingerprint, for results.json."""
        return {
            "parts": {name: describe_part(part) for name, part in self.parts().items()},
            "unused_target_utterances": self.unused,
            "shared_between_parts": self.leaks,
            "fingerprint": fingerprint(self.parts()),
        }


def train_and_test(
    parts: Mapping[str, Sequence[Labelled]], with_source: bool
) -> dict[str, list[Labelled]]:
    """Returns the labelled parts under the names that folds use.

    Arguments
    ---------
    parts : mapping
        From :meth:`DomainSplits.parts`; parts of a fold are returned unchanged.
    with_source : bool
        Whether ``train`` contains the source's training part besides the target's.

    Returns
    -------
    dict
        ``train`` and ``test``.

    Example
    -------
    >>> train_and_test({"train": [], "test": []}, with_source=True)
    {'train': [], 'test': []}
    """
    if "target_test" not in parts:
        return {name: list(part) for name, part in parts.items()}
    source = parts["source_train"] if with_source else ()
    train = [*source, *parts["target_train"]]
    return {"train": train, "test": list(parts["target_test"])}


def of_shared_emotions(
    source: Sequence[Labelled], target: Sequence[Labelled]
) -> list[Labelled]:
    """Selects the source utterances whose emotion also occurs in the target.

    Classes are groups of emotions. If the target has only some emotions of a class, the
    source's other emotions change the meaning of the class (calm and happy are both
    positive). Only the list of the target's emotions is used, which a corpus'
    description gives; its other labels are not.

    Arguments
    ---------
    source, target : sequence of Labelled
        All utterances of both corpora.

    Returns
    -------
    list of Labelled
        Selected source utterances, in the given order.

    Raises
    ------
    ValueError
        If a class has no source utterance left.

    Example
    -------
    >>> from speechbrain_ser_cl.corpora import Utterance
    >>> def item(emotion):
    ...     utterance = Utterance(id="a", path="a.wav", duration=1.0, corpus="c",
    ...         speaker="s", session=None, gender=None, language="en", text_id=None,
    ...         emotion=emotion)
    ...     return Labelled(utterance, "negative" if emotion == "sad" else "positive")
    >>> kept = of_shared_emotions(
    ...     [item("happy"), item("calm"), item("sad")], [item("happy"), item("sad")]
    ... )
    >>> [i.utterance.emotion for i in kept]
    ['happy', 'sad']
    """
    shared = {item.utterance.emotion for item in target}
    kept = [item for item in source if item.utterance.emotion in shared]
    lost = {item.label for item in source} - {item.label for item in kept}
    if lost:
        raise ValueError(
            f"shared_emotions: the target has {', '.join(sorted(shared))}, of which "
            f"the source has none in class {', '.join(sorted(lost))}. Set "
            "shared_emotions: False or change emotion_map."
        )
    if len(kept) < len(source):
        left_out = Counter(
            i.utterance.emotion for i in source if i.utterance.emotion not in shared
        )
        counts = ", ".join(f"{count} {emotion}" for emotion, count in left_out.items())
        logger.info("source: left out, no such emotion in the target: %s", counts)
    return kept


def split_domains(
    corpora: Mapping[str, Sequence[Labelled]], protocol: Mapping[str, Any], seed: int
) -> DomainSplits:
    """Splits the source into training and validation, the target into training and test
    (Ahn et al. 2023, section 4.2).

    Arguments
    ---------
    corpora : mapping
        Corpus name to utterances.
    protocol : mapping
        Of kind ``domain_adaptation``:

        - ``source``, ``target``: names of the corpora;
        - ``source_valid``: validation part of the source, a fraction or number of
          utterances, drawn at random and stratified by class;
        - ``labels``: whether the target's training part is labelled. If so,
          ``target_train`` is its fraction or number, stratified by class. If not,
          ``target_train_unlabelled`` is its fraction or number, not stratified, because
          that would use the labels;
        - ``both``: with ``labels``, also draws ``target_train_unlabelled`` of the whole
          target from the remaining utterances; the rest is tested;
        - ``by``: ``"utterance"``: the target's training part is drawn at random, so its
          speakers are also tested (as in the paper). ``"speaker"``: test speakers are
          not in training;
        - ``shared_emotions``: whether source utterances of emotions that the target
          lacks are left out.
    seed : int
        Seed of the draws.

    Returns
    -------
    DomainSplits
        The parts, and what they share.

    Raises
    ------
    LeakError
        If parts share an utterance, or target parts share speakers with ``by:
        speaker``.
    ValueError
        For an unknown corpus or a size out of range.
    """
    protocol = resolve_protocol(protocol)
    for role in ("source", "target"):
        if protocol[role] not in corpora:
            raise ValueError(
                f"protocol: {role}: no corpus {protocol[role]!r} has a folder; corpora "
                f"has {', '.join(corpora)}"
            )
    source, target = (corpora[protocol[role]] for role in ("source", "target"))
    if protocol["shared_emotions"]:
        source = of_shared_emotions(source, target)
    by, size = protocol["by"], protocol["target_train"]
    if protocol["both"] and not protocol["labels"]:
        raise ValueError(
            "protocol: both: found True with labels: False, expected labels: True"
        )
    valid, train, _ = split_fraction(source, protocol["source_valid"], seed)
    label_of = {item.utterance.id: item.label for item in target}
    unlabelled = protocol["target_train_unlabelled"]
    count = len(target)

    def hidden(items: Sequence[Labelled]) -> list[Labelled]:
        return [item._replace(label="unknown") for item in items]

    def labelled(items: Sequence[Labelled]) -> list[Labelled]:
        return [item._replace(label=label_of[item.utterance.id]) for item in items]

    if not protocol["labels"]:
        size, target = unlabelled, hidden(target)
    adapt, test, unused = map(labelled, split_fraction(target, size, seed, by=by))
    more: list[Labelled] = []
    if protocol["both"]:
        if isinstance(unlabelled, float):
            unlabelled = round(unlabelled * count)
        more, test, others = map(
            labelled, split_fraction(hidden(test), unlabelled, seed, by=by)
        )
        unused += others
    allowed = [k for k in LEAK_KEYS if not (by == "speaker" and k == "speaker")]
    leaks = {
        "source": check_leaks(
            {"source_train": train, "source_valid": valid}, LEAK_KEYS, LEAK_KEYS
        ),
        "target": check_leaks(
            {"target_train": adapt, "target_test": test}
            | ({"target_unlabelled": more} if more else {}),
            LEAK_KEYS,
            allowed,
        ),
    }
    check_leaks(
        {"source": [*train, *valid], "target": [*adapt, *more, *test]}, ("speaker",), ()
    )
    return DomainSplits(train, valid, adapt, test, leaks, len(unused), more)
