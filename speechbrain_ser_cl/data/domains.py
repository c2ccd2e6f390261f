"""Source and target corpus to the parts of a domain adaptation experiment."""

import logging
from collections import Counter
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path

from speechbrain.dataio.dataset import DynamicItemDataset

from speechbrain_ser_cl.data.conversion import convert_to_16k_mono
from speechbrain_ser_cl.data.splits import (
    Labelled,
    check_leaks,
    describe_part,
    fingerprint,
    map_emotions,
    split_fraction,
)
from speechbrain_ser_cl.registry import CORPORA
from speechbrain_ser_cl.utils.audio import load_audio

logger = logging.getLogger(__name__)

SOURCE, TARGET = 0, 1
UNLABELLED = -1
_LEAK_KEYS = ("speaker", "session", "text_id")


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
    """

    source_train: list[Labelled]
    source_valid: list[Labelled]
    target_train: list[Labelled]
    target_test: list[Labelled]
    leaks: dict
    unused: int

    def parts(self) -> dict[str, list[Labelled]]:
        """The four parts by name."""
        names = ("source_train", "source_valid", "target_train", "target_test")
        return {name: getattr(self, name) for name in names}

    def describe(self) -> dict:
        """Counts, shared values and fingerprint, for results.json."""
        return {
            "parts": {name: describe_part(part) for name, part in self.parts().items()},
            "unused_target_utterances": self.unused,
            "shared_between_parts": self.leaks,
            "fingerprint": fingerprint(self.parts()),
        }


def load_corpus(
    name: str,
    folder: str | Path,
    emotion_map: Mapping[str, Sequence[str]],
    cache_folder: str | Path,
    allow_missing: bool = False,
) -> list[Labelled]:
    """Reads a corpus, converts what is not 16 kHz mono, gives utterances their class.

    Arguments
    ---------
    name : str
        Registered name of the corpus, see ``ser-cl list corpora``.
    folder : str or pathlib.Path
        Where it is.
    emotion_map : mapping
        Class to emotions; utterances of other emotions are left out, with a count.
    cache_folder : str or pathlib.Path
        Where converted audio goes.
    allow_missing : bool
        Whether to go on, with a warning, when files are missing.

    Returns
    -------
    list of Labelled
        The utterances with their class.

    Raises
    ------
    ValueError
        As the corpus' reader, ``map_emotions`` and ``convert_to_16k_mono`` do.
    """
    utterances = CORPORA.get(name)(folder, allow_missing=allow_missing)
    items, left_out = map_emotions(utterances, emotion_map)
    if left_out:
        counts = ", ".join(f"{count} {emotion}" for emotion, count in left_out.items())
        logger.info("%s: left out, in no class of emotion_map: %s", name, counts)
    converted = convert_to_16k_mono([i.utterance for i in items], cache_folder)
    return [Labelled(u, i.label) for u, i in zip(converted, items, strict=True)]


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
    source: Sequence[Labelled],
    target: Sequence[Labelled],
    source_valid: float | int,
    target_train: float | int,
    target_by: str,
    seed: int,
    target_labels: bool = True,
) -> DomainSplits:
    """Splits the source into training and validation, the target into training and
    test, as Ahn et al. 2023, section 4.2, do.

    Arguments
    ---------
    source, target : sequence of Labelled
        All utterances of the two corpora.
    source_valid : float or int
        Part of the source for validation, as a fraction or a number of utterances,
        drawn at random and stratified by class.
    target_train : float or int
        Part of the target for training, labelled or not.
    target_by : str
        ``"utterance"``: the target's training part is drawn at random, so its speakers
        are tested as well (as printed). ``"speaker"``: test speakers are new.
    seed : int
        Another seed is another draw.
    target_labels : bool
        Whether the target's training part is labelled. Then it is stratified by
        class; else it is drawn from all alike, since stratifying would use the labels.

    Returns
    -------
    DomainSplits
        The parts, with what they share.

    Raises
    ------
    LeakError
        If parts share an utterance, or target parts share speakers that must not.
    ValueError
        For sizes out of range.
    """
    valid, train, _ = split_fraction(source, source_valid, seed)
    label_of = {item.utterance.id: item.label for item in target}
    if not target_labels:
        target = [Labelled(item.utterance, "unknown") for item in target]
    adapt, test, unused = (
        [Labelled(item.utterance, label_of[item.utterance.id]) for item in part]
        for part in split_fraction(target, target_train, seed, by=target_by)
    )
    allowed = [k for k in _LEAK_KEYS if not (target_by == "speaker" and k == "speaker")]
    leaks = {
        "source": check_leaks(
            {"source_train": train, "source_valid": valid}, _LEAK_KEYS, _LEAK_KEYS
        ),
        "target": check_leaks(
            {"target_train": adapt, "target_test": test}, _LEAK_KEYS, allowed
        ),
    }
    check_leaks(
        {"source": [*train, *valid], "target": [*adapt, *test]}, ("speaker",), ()
    )
    return DomainSplits(train, valid, adapt, test, leaks, len(unused))


def to_dataset(
    items: Sequence[Labelled],
    class_names: Sequence[str],
    domain: int,
    use_labels: bool = True,
) -> DynamicItemDataset:
    """A SpeechBrain dataset of ``id``, ``sig``, ``label`` and ``domain``.

    Arguments
    ---------
    items : sequence of Labelled
        The utterances.
    class_names : sequence of str
        Label k is ``class_names[k]``.
    domain : int
        ``SOURCE`` or ``TARGET``.
    use_labels : bool
        If False every label is ``UNLABELLED``: nothing downstream can see the class.

    Returns
    -------
    DynamicItemDataset
        ``sig`` is float32 (T,) at 16 kHz, read when asked for. ``duration`` (s) is in
        its ``data``.
    """
    index = {name: k for k, name in enumerate(class_names)}
    rows = {
        item.utterance.id: {
            "wav": str(item.utterance.path),
            "duration": item.utterance.duration,
            "label": index[item.label] if use_labels else UNLABELLED,
            "domain": domain,
        }
        for item in items
    }
    return DynamicItemDataset(
        rows,
        dynamic_items=[{"func": load_audio, "takes": ["wav"], "provides": "sig"}],
        output_keys=["id", "sig", "label", "domain"],
    )


def durations(dataset: DynamicItemDataset) -> list[float]:
    """Durations (s) of a dataset's utterances, in its order."""
    return [dataset.data[key]["duration"] for key in dataset.data_ids]
