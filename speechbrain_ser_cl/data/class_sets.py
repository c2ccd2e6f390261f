"""Sets of classes that many corpora share, and YAMLs that name one."""

from collections.abc import Iterable, Mapping
from pathlib import Path
from typing import Any

from speechbrain_ser_cl.corpora.cards import get_card
from speechbrain_ser_cl.corpora.checks import CorpusError
from speechbrain_ser_cl.corpora.utterance import EMOTIONS
from speechbrain_ser_cl.utils.errors import did_you_mean
from speechbrain_ser_cl.utils.settings import (
    SettingsError,
    read_yaml,
    resolve_settings,
)

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
"""Name of each set to its classes, and the emotions that these are made of.

``polarity``: two classes across corpora (Ahn et al. 2023); ``four`` holds excited in
happy, as usual with IEMOCAP; ``eight``: those of the MSP-Podcast challenge; ``all``:
each emotion that there is.
"""


def common_map(name: str, emotions: Iterable[str]) -> dict[str, list[str]]:
    """Make an ``emotion_map`` of classes that several corpora share.

    Arguments
    ---------
    name : str
        One of ``CLASS_SETS``.
    emotions : iterable of str
        What there is in the corpora, such as the counts of a card.

    Returns
    -------
    dict
        Class to emotions, without what is not there.

    Raises
    ------
    CorpusError
        For another name.

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
    hparams_file: str | Path, overrides: Mapping[str, Any]
) -> Mapping[str, Any]:
    r"""Write out the set of classes that a recipe's YAML names.

    ``emotion_map: four`` stands for the classes of that set which the cards of its
    corpora have; of a corpus without a card it is taken that it has them all.
    ``emotion_map: {iemocap: four, casia: six}`` names a set for each corpus.

    Arguments
    ---------
    hparams_file : str or pathlib.Path
        The file.
    overrides : mapping
        Values that replace those of the file.

    Returns
    -------
    mapping
        The overrides, perhaps with an ``emotion_map`` of classes and emotions.

    Raises
    ------
    SettingsError
        As ``resolve_settings`` does, and for a name that no set has.

    Example
    -------
    >>> path = getfixture("tmp_path") / "my.yaml"
    >>> _ = path.write_text("corpora: {emodb: null}\nemotion_map: polarity\n")
    >>> with_classes(path, {})
    {'emotion_map': {'negative': ['angry', 'sad'], 'positive': ['neutral', 'happy']}}
    """
    asked = {**read_yaml(hparams_file), **overrides}.get("emotion_map")
    if asked is None or (isinstance(asked, Mapping) and not _names_a_set(asked)):
        return overrides
    values = resolve_settings(hparams_file, overrides)
    asked, corpora = values["emotion_map"], values.get("corpora") or {}
    if not _names_a_set(asked):
        return overrides
    return {**overrides, "emotion_map": _written_out(asked, corpora, hparams_file)}


def _names_a_set(asked: object) -> bool:
    some = asked.values() if isinstance(asked, Mapping) else [asked]
    return any(isinstance(one, str) for one in some)


def _written_out(
    asked: str | Mapping[str, Any], corpora: Mapping[str, Any], file: str | Path
) -> dict[str, Any]:
    """Classes and emotions in place of names of sets."""

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
        there = {e for name, entry in corpora.items() for e in _emotions(name, entry)}
        return classes(asked, there, "emotion_map")
    return {
        name: classes(one, _emotions(name, corpora.get(name)), f"emotion_map.{name}")
        if isinstance(one, str)
        else one
        for name, one in asked.items()
    }


def _emotions(name: str, entry: Any) -> Iterable[str]:
    """What the card of a corpus counts; without one, all."""
    reader = entry.get("reader", name) if isinstance(entry, Mapping) else name
    try:
        return get_card(str(reader)).counts.emotions or EMOTIONS
    except CorpusError:
        return EMOTIONS
