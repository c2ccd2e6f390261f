"""Splits source and target corpus into the parts of a domain adaptation."""

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
    """The parts of a domain adaptation experiment.

    Attributes
    ----------
    source_train, source_valid, target_train, target_test : list of Labelled
        The parts.
    leaks : dict
        For source and target, the speakers, sessions and texts that two parts share,
        counted.
    unused : int
        Target utterances that are in no part (of speakers drawn for training).
    target_unlabelled : list of Labelled
        More target speech for training, whose labels must not be used. May be empty.
    """

    source_train: list[Labelled]
    source_valid: list[Labelled]
    target_train: list[Labelled]
    target_test: list[Labelled]
    leaks: dict[str, dict[str, dict[str, int]]]
    unused: int
    target_unlabelled: list[Labelled] = field(default_factory=list)

    def parts(self) -> dict[str, list[Labelled]]:
        """The parts by name, the unlabelled one where there is one."""
        names = ["source_train", "source_valid", "target_train", "target_test"]
        names += ["target_unlabelled"] * bool(self.target_unlabelled)
        return {name: getattr(self, name) for name in names}

    def describe(self) -> dict[str, Any]:
        """Counts, shared values and fingerprint, for results.json."""
        return {
            "parts": {name: describe_part(part) for name, part in self.parts().items()},
            "unused_target_utterances": self.unused,
            "shared_between_parts": self.leaks,
            "fingerprint": fingerprint(self.parts()),
        }


def train_and_test(
    parts: Mapping[str, Sequence[Labelled]], with_source: bool
) -> dict[str, list[Labelled]]:
    """Name the labelled parts of a domain adaptation as a fold's are named.

    Arguments
    ---------
    parts : mapping
        As of :meth:`DomainSplits.parts`; those of a fold are handed back.
    with_source : bool
        Whether the source's training part is in ``train``, beside the target's.

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
    """The source's utterances of emotions that the target has as well.

    Classes are groups of emotions. Where the target has only some of a group, the
    source's others say something else about the class (calm and happy are both
    positive). Which emotions a corpus has is in its description; nothing else about
    the target's labels is used.

    Arguments
    ---------
    source, target : sequence of Labelled
        All utterances of the two corpora.

    Returns
    -------
    list of Labelled
        Those of the source that are kept, in their order.

    Raises
    ------
    ValueError
        If a class of the source is left without utterances.

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
    """Splits the source into training and validation, the target into training and
    test, as Ahn et al. 2023, section 4.2, do.

    Arguments
    ---------
    corpora : mapping
        Name to utterances.
    protocol : mapping
        Of kind ``domain_adaptation``:

        - ``source``, ``target``: which of the corpora they are;
        - ``source_valid``: part of the source for validation, as a fraction or a number
          of utterances, drawn at random and stratified by class;
        - ``labels``: whether the target's training part is labelled. Then it is
          ``target_train``, a fraction or number, stratified by class; else
          ``target_train_unlabelled``, drawn from all alike, since stratifying would use
          the labels;
        - ``both``: with ``labels``, ``target_train_unlabelled`` of the whole target is
          drawn from what is left as well, and the rest of that is tested;
        - ``by``: ``"utterance"``: the target's training part is drawn at random, so its
          speakers are tested as well (as printed). ``"speaker"``: test speakers are
          new;
        - ``shared_emotions``: whether source utterances of emotions that the target
          does not have are left out.
    seed : int
        Another seed is another draw.

    Returns
    -------
    DomainSplits
        The parts, with what they share.

    Raises
    ------
    LeakError
        If parts share an utterance, or target parts share speakers that must not.
    ValueError
        For a corpus that is not there and sizes out of range.
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
