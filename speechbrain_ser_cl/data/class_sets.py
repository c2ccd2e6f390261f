"""Sets of classes that many corpora share."""

import re
from collections.abc import Iterable, Mapping
from pathlib import Path
from typing import Any

from speechbrain_ser_cl.corpora.cards import get_card
from speechbrain_ser_cl.corpora.checks import CorpusError
from speechbrain_ser_cl.corpora.utterance import EMOTIONS
from speechbrain_ser_cl.utils.errors import did_you_mean
from speechbrain_ser_cl.utils.settings import SettingsError

_FOUR = ("angry", "happy", "neutral", "sad")
_SIX = ("angry", "disgusted", "fearful", "happy", "neutral", "sad")
CLASS_SETS: dict[str, dict[str, tuple[str, ...]]] = {
    "polarity": {
        "negative": ("angry", "sad"),
        "positive": ("neutral", "calm", "happy", "excited"),
    },
    "four": {name: (name,) for name in _FOUR} | {"happy": ("happy", "excited")},
    "five": {name: (name,) for name in sorted((*_FOUR, "fearful"))},
    "six": {name: (name,) for name in _SIX},
    "seven": {name: (name,) for name in (*_SIX, "surprised")},
    "eight": {name: (name,) for name in sorted((*_SIX, "surprised", "contempt"))},
    "all": {},
}
"""Name of each set to its classes, each with the emotions that it contains.

``polarity``: two classes for several corpora (Ahn et al. 2023); ``four``: excited is
in happy, as usual with IEMOCAP; ``eight``: the classes of the MSP-Podcast challenge;
``all``: each emotion of the corpora.
"""


def common_map(name: str, emotions: Iterable[str]) -> dict[str, list[str]]:
    """Makes an ``emotion_map`` of classes that several corpora share.

    Arguments
    ---------
    name : str
        One of ``CLASS_SETS``.
    emotions : iterable of str
        Emotions of the corpora, such as the counts of a card.

    Returns
    -------
    dict
        Class to emotions, without emotions that the corpora lack.

    Raises
    ------
    CorpusError
        For an unknown name.

    Example
    -------
    >>> common_map("four", ["angry", "happy", "excited", "sad", "neutral", "bored"])
    {'angry': ['angry'], 'happy': ['happy', 'excited'], 'neutral': ['neutral'], \
'sad': ['sad']}
    >>> common_map("polarity", ["angry", "calm", "happy"])
    {'negative': ['angry'], 'positive': ['calm', 'happy']}
    """
    if name not in CLASS_SETS:
        raise CorpusError(
            f"no set of classes {name!r}; {did_you_mean(name, CLASS_SETS)}known are "
            f"{', '.join(CLASS_SETS)}"
        )
    there = set(emotions)
    classes = CLASS_SETS[name] or {emotion: (emotion,) for emotion in sorted(there)}
    found = {
        label: [emotion for emotion in some if emotion in there]
        for label, some in classes.items()
    }
    return {label: some for label, some in found.items() if some}


def with_classes(
    plain: Mapping[str, Any], overrides: Mapping[str, Any], file: str | Path
) -> Mapping[str, Any]:
    """Replaces the name of a set of classes in a recipe's YAML by the classes.

    ``emotion_map: four`` stands for the classes of that set whose emotions the
    corpora's cards list. A corpus without a card counts as having all of them.
    ``emotion_map: {iemocap: four, casia: six}`` names a set for each corpus.

    Arguments
    ---------
    plain : mapping
        Values of the YAML, from ``utils.settings.read_yaml``.
    overrides : mapping
        Values that replace those of the YAML.
    file : str or pathlib.Path
        The YAML, for the error.

    Returns
    -------
    mapping
        The overrides, with an ``emotion_map`` of classes and emotions if the YAML names
        a set.

    Raises
    ------
    SettingsError
        For an unknown name.

    Example
    -------
    >>> plain = {"corpora": {"emodb": None}, "emotion_map": "polarity"}
    >>> with_classes(plain, {}, "my.yaml")
    {'emotion_map': {'negative': ['angry', 'sad'], 'positive': ['neutral', 'happy']}}
    """
    values = {**plain, **overrides}
    asked = _referred(values.get("emotion_map"), values)
    if not _names_a_set(asked):
        return overrides
    corpora = _referred(values.get("corpora"), values)
    readers = {
        name: _referred(entry.get("reader", name), values)
        if isinstance(entry := _referred(some, values), Mapping)
        else name
        for name, some in (corpora or {}).items()
    }
    return {**overrides, "emotion_map": _written_out(asked, readers, file)}


def _referred(node: Any, values: Mapping[str, Any]) -> Any:
    """Returns the value of a reference to one key of the YAML."""
    for _ in values:
        match = re.fullmatch(r"<(\w+)>", str(getattr(node, "value", "")))
        if match is None or match[1] not in values:
            break
        node = values[match[1]]
    return node


def _names_a_set(asked: object) -> bool:
    some = asked.values() if isinstance(asked, Mapping) else [asked]
    return any(isinstance(one, str) for one in some)


def _written_out(
    asked: str | Mapping[str, Any], readers: Mapping[str, str], file: str | Path
) -> dict[str, Any]:
    """Replaces names of sets by classes and emotions."""

    def classes(name: str, there: Iterable[str], key: str) -> dict[str, list[str]]:
        try:
            return common_map(name, there)
        except CorpusError:
            raise SettingsError.at(
                *(file, key, name),
                "classes and lists of emotions, such as {sad: [sad]}, or one of "
                + ", ".join(CLASS_SETS),
            ) from None

    if isinstance(asked, str):
        there = {emotion for reader in readers.values() for emotion in _of_card(reader)}
        return classes(asked, there, "emotion_map")
    return {
        name: classes(one, _of_card(readers.get(name, name)), f"emotion_map.{name}")
        if isinstance(one, str)
        else one
        for name, one in asked.items()
    }


def _of_card(reader: str) -> Iterable[str]:
    """Returns the emotions that a corpus' card counts, or all without a card."""
    try:
        return get_card(str(reader)).counts.emotions or EMOTIONS
    except CorpusError:
        return EMOTIONS
