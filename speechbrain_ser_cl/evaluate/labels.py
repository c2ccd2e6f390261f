"""Maps the labels of a model from elsewhere to emotions."""

import re
from collections.abc import Iterable, Mapping

from speechbrain_ser_cl.corpora.emotion_words import EMOTION_WORDS, GENDER_WORDS
from speechbrain_ser_cl.corpora.utterance import normal
from speechbrain_ser_cl.utils.errors import SERError, did_you_mean

LEFT_OUT = ("none", "null", "-")


def map_labels(
    labels: Iterable[str], table: Mapping[str, str] | None = None
) -> dict[str, str | None]:
    """Maps the labels of a model to emotions by their words.

    A label is understood if it is a word of ``EMOTION_WORDS``, or contains exactly one
    such word besides numbers, a gender and words that are not ASCII: ``02_calm``,
    ``male-angry``.

    Arguments
    ---------
    labels : iterable of str
        Labels of the model.
    table : mapping, optional
        The user's translations: label to emotion, or to ``none``. Used first.

    Returns
    -------
    dict
        Label to emotion; None for a label that is not understood.

    Raises
    ------
    SERError
        If the table has a label that the model does not have.

    Example
    -------
    >>> map_labels(["ang", "02_calm", "LABEL_3", "x"], {"x": "joy"})
    {'ang': 'angry', '02_calm': 'calm', 'LABEL_3': None, 'x': 'happy'}
    """
    labels = list(labels)
    own = {normal(str(key)): str(value) for key, value in (table or {}).items()}
    for key in own:
        if key not in map(normal, labels):
            raise SERError(
                f"labels: the model has no label {key!r}; "
                f"{did_you_mean(key, labels)}it has {', '.join(labels)}"
            )
    return {label: _emotion(normal(label), own) for label in labels}


def _emotion(label: str, own: Mapping[str, str]) -> str | None:
    if label in own:
        said = normal(own[label]).strip().lower()
        return None if said in LEFT_OUT else EMOTION_WORDS.get(said, said)
    lower = label.strip().lower()
    if lower in EMOTION_WORDS:
        return EMOTION_WORDS[lower]
    words = [w for w in re.split(r"[\W\d_]+", lower) if w and w not in GENDER_WORDS]
    known = [EMOTION_WORDS[w] for w in words if w in EMOTION_WORDS]
    others = [w for w in words if w not in EMOTION_WORDS and w.isascii()]
    return known[0] if len(set(known)) == 1 and not others else None
