"""From the words of somebody's own corpus to the names used here."""

from collections import Counter
from collections.abc import Iterable, Mapping
from pathlib import Path

from speechbrain_ser_cl.corpora.checks import CorpusError
from speechbrain_ser_cl.corpora.utterance import EMOTIONS, PARTS
from speechbrain_ser_cl.utils.errors import did_you_mean, offenders

# Words that need no explanation, in lower case.
EMOTION_WORDS = dict(zip(EMOTIONS, EMOTIONS, strict=True)) | {
    "anger": "angry",
    "happiness": "happy",
    "joy": "happy",
    "joyful": "happy",
    "excitement": "excited",
    "sadness": "sad",
    "neutrality": "neutral",
    "frustration": "frustrated",
    "fear": "fearful",
    "afraid": "fearful",
    "surprise": "surprised",
    "disgust": "disgusted",
    "calmness": "calm",
    "boredom": "bored",
}
SPLIT_WORDS = dict(zip(PARTS, PARTS, strict=True)) | {
    "training": "train",
    "validation": "valid",
    "val": "valid",
    "dev": "valid",
    "devel": "valid",
    "development": "valid",
    "testing": "test",
    "eval": "test",
    "evaluation": "test",
}
GENDER_WORDS = {
    "female": "female",
    "f": "female",
    "woman": "female",
    "male": "male",
    "m": "male",
    "man": "male",
}


def translate(
    words: Iterable[str],
    meaning: Mapping | None,
    known: Mapping[str, str],
    *,
    what: str,
    key: str,
    where: str,
) -> dict[str, str | None]:
    """Say of each word what it means.

    Arguments
    ---------
    words : iterable of str
        Each as often as it occurs.
    meaning : mapping or None
        The user's: word to name, or to None for what is to be left out. Goes first.
    known : mapping
        Words that need no explanation, in lower case. Upper and lower case are alike.
    what : str
        What a name is, for the error: ``"emotion"``.
    key : str
        Where the user says what words mean, for the error: ``"labels"``.
    where : str
        Where the words are, for the error.

    Returns
    -------
    dict
        Word to name, or to None.

    Raises
    ------
    CorpusError
        For words that nothing explains, with their number, the nearest known word and
        what to write.

    Example
    -------
    >>> translate(
    ...     ["Joy", "Wut"],
    ...     {"Wut": "angry"},
    ...     EMOTION_WORDS,
    ...     what="emotion",
    ...     key="labels",
    ...     where="calls.csv",
    ... )
    {'Joy': 'happy', 'Wut': 'angry'}
    """
    if not isinstance(meaning or {}, Mapping):
        raise CorpusError(
            f"{key} is {meaning!r}, expected what each word means: "
            f"{key}: {{word: {next(iter(known.values()))}}}"
        )
    own = {
        str(word): None if name is None else str(name).strip().lower()
        for word, name in (meaning or {}).items()
    }
    own_lower = {word.lower(): name for word, name in own.items()}
    counts = Counter(words)
    names, strange = {}, []
    for word in counts:
        lower = word.lower()
        for table, entry in ((own, word), (own_lower, lower), (known, lower)):
            if entry in table:
                names[word] = table[entry]
                break
        else:
            strange.append(word)
    if strange:
        listed = [
            f"{word!r} {counts[word]}× "
            f"{did_you_mean(word, [*known, *own_lower])}".strip()
            for word in strange
        ]
        example = ", ".join(f'"{word}": …' for word in sorted(strange)[:10])
        everything = ", ".join(dict.fromkeys(known.values()))
        raise CorpusError(
            f"{where}: words that are not known as {what} ({offenders(listed)}). Say "
            f"what each means, or null to leave its utterances out: "
            f"{key}: {{{example}}}. Known are {everything}"
        )
    return names


def names_to_leave_out(exclude: str | Path | Iterable[str] | None) -> set[str]:
    """What a user wants to leave out of a corpus.

    Arguments
    ---------
    exclude : str or pathlib.Path or iterable of str or None
        Names, or a text file with one name a line; lines with ``#`` in front are
        comments.

    Returns
    -------
    set of str
        The names: ids, or files as the corpus calls them.

    Raises
    ------
    CorpusError
        If the file is not there.

    Example
    -------
    >>> sorted(names_to_leave_out(["b.wav", "a.wav"]))
    ['a.wav', 'b.wav']
    """
    if exclude is None:
        return set()
    if not isinstance(exclude, str | Path):
        return {str(name) for name in exclude}
    try:
        lines = Path(exclude).read_text(encoding="utf-8").splitlines()
    except OSError as error:
        raise CorpusError(
            f"exclude: {exclude} is no file that can be read ({error}); expected a "
            "list of names, or a text file with one name a line"
        ) from error
    lines = [line.strip() for line in lines]
    return {line for line in lines if line and not line.startswith("#")}
