"""Translates the emotion words of a user's corpus to this package's emotion names."""

import logging
import re
import unicodedata
import warnings
from collections import Counter
from collections.abc import Iterable, Mapping
from pathlib import Path
from typing import Any

from speechbrain_ser_cl.corpora.checks import CorpusError, one_name
from speechbrain_ser_cl.corpora.utterance import EMOTIONS, normal
from speechbrain_ser_cl.utils.errors import did_you_mean, offenders
from speechbrain_ser_cl.utils.files import read_text

logger = logging.getLogger(__name__)

# Known words in lower case: English, codes of well-known corpora, German, French,
# Spanish and Italian. Single letters are left out, because they are ambiguous.
_SAID = {
    "angry": "anger ang wut wütend ärger verärgert zorn zornig colère en_colère "
    "furieux enojo enojado enojada enfado enfadado enfadada ira rabbia arrabbiato "
    "arrabbiata furioso furiosa",
    "happy": "happiness hap joy joyful glad freude fröhlich glücklich joie heureux "
    "heureuse joyeux joyeuse alegría alegre feliz felicidad contento contenta gioia "
    "felice felicità allegria allegro allegra",
    "excited": "excitement exc aufgeregt aufregung excité emocionado emocionada "
    "eccitato eccitata",
    "sad": "sadness trauer traurig traurigkeit tristesse triste tristeza tristezza",
    "neutral": "neutrality neu neutre neutro neutra neutrale neutralità",
    "frustrated": "frustration fru frustriert frustré frustrado frustrada "
    "frustración frustrato frustrata frustrazione",
    "fearful": "fear fea afraid scared angst ängstlich peur effrayé miedo asustado "
    "asustada paura spaventato spaventata impaurito impaurita",
    "surprised": "surprise sur pleasant_surprise pleasant_surprised "
    "pleasantly_surprised überraschung überrascht surpris sorpresa sorprendido "
    "sorprendida sorpreso",
    "disgusted": "disgust dis ekel angeekelt dégoût dégoûté asco asqueado asqueada "
    "disgusto disgustato disgustata",
    "calm": "calmness calma ruhig ruhe calme calmo tranquilo tranquila tranquillo "
    "tranquilla",
    "bored": "boredom bor langeweile langweilig gelangweilt ennui ennuyé aburrimiento "
    "aburrido aburrida noia annoiato annoiata",
    "contempt": "contemptuous con verachtung mépris desprecio disprezzo",
    "other": "oth xxx",
}


def _spellings(word: str) -> set[str]:
    """Returns a word as it is and without diacritics."""
    apart = unicodedata.normalize("NFD", word)
    german = apart.replace("\u0308", "e")
    plain = re.sub("[\u0300-\u036f]", "", apart)
    return {normal(form).replace("_", " ") for form in (word, german, plain)}


EMOTION_WORDS = {
    form: name
    for name, words in _SAID.items()
    for word in words.split()
    for form in _spellings(word)
} | {name: name for name in EMOTIONS}
NO_LABEL = frozenset(
    ("", "nan", "none", "null", "n/a", "#n/a", "unknown", "<unk>", "unk", "-", "?")
)
"""Words for an utterance without a label."""
_PART_WORDS = {
    "train": "train training",
    "valid": "valid validation val dev devel development",
    "test": "test testing eval evaluation",
}
SPLIT_WORDS = {word: n for n, words in _PART_WORDS.items() for word in words.split()}
GENDER_WORDS = dict.fromkeys(("female", "f", "woman"), "female") | dict.fromkeys(
    ("male", "m", "man"), "male"
)


def translate(
    words: Iterable[str],
    meaning: Mapping[Any, str | None] | None,
    known: Mapping[str, str],
    *,
    what: str,
    key: str,
    where: str,
) -> dict[str, str | None]:
    """Translates words to names.

    Arguments
    ---------
    words : iterable of str
        Words, each as often as it occurs.
    meaning : mapping or None
        The user's translations: word to name, or to None to leave it out. Used before
        ``known``.
    known : mapping
        Words with a known meaning, in lower case. Case is ignored; blank, ``_`` and
        ``-`` are equal.
    what : str
        What a name denotes, for the error: ``"emotion"``.
    key : str
        Option with the user's translations, for the error: ``"labels"``.
    where : str
        Where the words were found, for the error.

    Returns
    -------
    dict
        Word to name, or to None.

    Raises
    ------
    CorpusError
        For unknown words. The message gives their counts, the nearest known word and
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
        _plain(str(word)): None if name is None else normal(str(name)).strip().lower()
        for word, name in (meaning or {}).items()
    }
    own_lower = {word.lower(): name for word, name in own.items()}
    counts = Counter(words)
    names: dict[str, str | None] = {}
    strange, unlabelled = [], 0
    for word in counts:
        plain = _plain(word)
        lower = plain.lower()
        spaced = re.sub(r"(?<=\w)[\s_-]+(?=\w)", " ", lower)
        tables = ((own, plain), (own_lower, lower), (known, lower), (known, spaced))
        for table, entry in tables:
            if entry in table:
                names[word] = table[entry]
                break
        else:
            if known is EMOTION_WORDS and lower in NO_LABEL:
                names[word] = None
                unlabelled += counts[word]
            else:
                strange.append(word)
    if unlabelled:
        warnings.warn(
            f"{where}: {unlabelled} of {counts.total()} have no label and are left out",
            stacklevel=3,
        )
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


def _plain(word: str) -> str:
    """Normalises a word: one Unicode form, no blanks around it, 1.0 as 1."""
    return re.sub(r"^(-?[0-9]+)[.]0+$", r"\1", normal(word).strip())


class Exclusion:
    """Decides which utterances of a corpus the user leaves out.

    Arguments
    ---------
    exclude : str or pathlib.Path or iterable of str or None
        Names, or a text file with one name per line; lines that start with ``#`` are
        comments.
    where : str
        Name of the corpus, for messages.

    Raises
    ------
    CorpusError
        If the file does not exist.

    Example
    -------
    >>> excluded = Exclusion(["wav/a.wav"], "calls")
    >>> excluded("./wav/a.wav", "calls_a"), excluded("b.wav")
    (True, False)
    """

    def __init__(self, exclude: str | Path | Iterable[str] | None, where: str) -> None:
        names: Iterable[object] = ()
        if isinstance(exclude, str | Path):
            try:
                names = map(str.strip, read_text(exclude).splitlines())
            except OSError as error:
                raise CorpusError(
                    f"exclude: {exclude} is no file that can be read ({error}); "
                    "expected a list of names, or a text file with one name a line"
                ) from error
        elif isinstance(exclude, Iterable):
            names = exclude
        elif exclude is not None:
            raise CorpusError(f"exclude is {exclude!r}, expected a list of names")
        self.where = where
        told = (str(name) for name in names)
        self._names = {one_name(n): n for n in told if n and not n.startswith("#")}
        self._unused = set(self._names)

    def __call__(self, *names: str) -> bool:
        """Returns whether an utterance with one of these names is left out."""
        if not self._names:
            return False
        found = self._names.keys() & {one_name(name) for name in names}
        self._unused -= found
        return bool(found)

    def tell_unused(self) -> None:
        """Warns of names that match no utterance."""
        if self._unused:
            unused = offenders(self._names[name] for name in self._unused)
            logger.warning("%s: exclude matches no utterance (%s)", self.where, unused)
