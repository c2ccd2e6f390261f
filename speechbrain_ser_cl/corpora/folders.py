"""Reads a user's corpus whose folder and file names contain the labels."""

import logging
import os
import re
from collections.abc import Iterable, Mapping
from pathlib import Path

from speechbrain_ser_cl.corpora.checks import (
    READABLE,
    Candidate,
    CorpusError,
    below,
    make_utterances,
)
from speechbrain_ser_cl.corpora.emotion_words import (
    EMOTION_WORDS,
    GENDER_WORDS,
    SPLIT_WORDS,
    Exclusion,
    translate,
)
from speechbrain_ser_cl.corpora.utterance import Utterance, normal
from speechbrain_ser_cl.registry import CORPORA
from speechbrain_ser_cl.utils.errors import did_you_mean, offenders
from speechbrain_ser_cl.utils.files import walk
from speechbrain_ser_cl.utils.media import MEDIA

logger = logging.getLogger(__name__)

FIELDS = ("emotion", "speaker", "session", "gender", "language", "text", "split")


@CORPORA.register("folders")
def read_folders(
    folder: str | Path,
    allow_missing: bool = False,
    corpus: str = "folders",
    pattern: str = "{emotion}/**",
    labels: Mapping[str, str | None] | None = None,
    splits: Mapping[str, str | None] | None = None,
    exclude: str | Path | Iterable[str] | None = None,
    language: str = "und",
) -> list[Utterance]:
    """Reads a user's corpus with a folder per class, or with labels in file names.

    Arguments
    ---------
    folder : str or pathlib.Path
        Folder of the files, at any depth.
    allow_missing : bool
        Whether corrupt files give a warning instead of an error.
    corpus : str
        Name for the corpus; prefix of ids and speakers.
    pattern : str
        Pattern of the file paths relative to ``folder``, without suffix. ``{emotion}``,
        ``{speaker}``, ``{session}``, ``{gender}``, ``{language}``, ``{text}`` and
        ``{split}`` match as few characters as possible, ``*`` matches anything but
        ``/``, ``**`` matches anything. ``"{split}/{emotion}/{speaker}_*"`` fits
        ``train/joy/anna_0017.wav``.
    labels : mapping, optional
        Meaning of emotion words that are not known: ``{Wut: angry}``; null leaves a
        word's utterances out.
    splits : mapping, optional
        Same for the words of ``{split}``: ``{fold1: test}``.
    exclude : list of str or path, optional
        Ids or files (relative to ``folder``) to leave out, or a text file with them.
    language : str
        ISO 639 code of all files, if the names do not contain it.

    Returns
    -------
    list of Utterance
        Sorted by id. The speaker is None if the names do not contain it.

    Raises
    ------
    CorpusError
        For a folder without audio, names that do not fit the pattern, unknown emotion
        words and audio that cannot be read.

    Example
    -------
    >>> import numpy, soundfile
    >>> folder = getfixture("tmp_path")
    >>> (folder / "Joy").mkdir()
    >>> soundfile.write(folder / "Joy" / "anna_1.wav", numpy.zeros(8000), 16000)
    >>> (utterance,) = read_folders(folder, pattern="{emotion}/{speaker}_*")
    >>> utterance.id, utterance.emotion, utterance.speaker, utterance.duration
    ('folders_Joy/anna_1', 'happy', 'folders_anna', 0.5)
    """
    root = Path(folder)
    form = _compiled(pattern, corpus)
    if not root.is_dir():
        raise CorpusError(f"{corpus}: there is no folder {root}")
    files = _audio(root, corpus, allow_missing)
    excluded = Exclusion(exclude, f"{corpus} in {root}")
    names = {path: normal(below(root, path.with_suffix(""))) for path in files}
    names = {
        path: name
        for path, name in names.items()
        if not excluded(name, f"{corpus}_{name}", below(root, path))
    }
    excluded.tell_unused()
    matches = {path: form.fullmatch(name) for path, name in names.items()}
    wrong = [below(root, path) for path, match in matches.items() if not match]
    if wrong:
        raise CorpusError(
            f"{corpus} in {root}: files that pattern {pattern} does not fit "
            f"({offenders(wrong)}). Change the pattern; ** stands for any folders"
        )
    said = {path: match.groupdict("") for path, match in matches.items() if match}
    emotions = translate(
        (fields["emotion"] for fields in said.values()),
        labels,
        EMOTION_WORDS,
        what="emotion",
        key="labels",
        where=f"{corpus} in {root}, pattern {pattern}",
    )
    parts = translate(
        (fields["split"] for fields in said.values() if fields.get("split")),
        splits,
        SPLIT_WORDS,
        what="part of a split",
        key="splits",
        where=f"{corpus} in {root}, pattern {pattern}",
    )
    candidates = [
        Candidate(
            name=names[path],
            path=path,
            speaker=fields.get("speaker"),
            emotion=emotion,
            session=fields.get("session"),
            gender=GENDER_WORDS.get(fields.get("gender", "").lower()),
            text_id=fields.get("text"),
            language=fields.get("language"),
            split=parts.get(fields.get("split", "")),
        )
        for path, fields in said.items()
        if (emotion := emotions[fields["emotion"]])
        and parts.get(fields.get("split", ""), "any")
    ]
    if len(candidates) < len(files):
        logger.info(
            "%s: %d of %d files left out, as labels, splits and exclude say",
            corpus,
            len(files) - len(candidates),
            len(files),
        )
    return make_utterances(
        candidates,
        corpus=corpus,
        language=language,
        folder=root,
        expected={},
        allow_missing=allow_missing,
    )


def _compiled(pattern: str, corpus: str) -> re.Pattern[str]:
    """Compiles a pattern to a regular expression on names without suffix."""
    unknown = set(re.findall(r"\{(.*?)\}", pattern)) - set(FIELDS)
    if unknown:
        name = sorted(unknown)[0]
        raise CorpusError(
            f"{corpus}: pattern {pattern} has the unknown {{{name}}}; "
            f"{did_you_mean(name, FIELDS)}known are {', '.join(FIELDS)}"
        )
    if "{emotion}" not in pattern:
        raise CorpusError(f"{corpus}: pattern {pattern} has no {{emotion}}")
    pattern = normal(pattern)
    if Path(pattern).suffix.lower() in READABLE:
        pattern = pattern[: pattern.rindex(".")]
    seen, form = set(), ""
    for piece in re.split(r"(\{.*?\}|\*\*/|\*\*|\*)", pattern):
        if piece.startswith("{"):
            name = piece[1:-1]
            # A field that occurs twice must have the same value.
            form += f"(?P={name})" if name in seen else f"(?P<{name}>[^/]+?)"
            seen.add(name)
        elif piece in ("**/", "**", "*"):
            form += {"**/": "(?:.*/)?", "**": ".*", "*": "[^/]*"}[piece]
        else:
            form += re.escape(piece)
    return re.compile(form)


def _audio(root: Path, corpus: str, allow_missing: bool) -> list[Path]:
    """Returns audio files at any depth, also in linked folders; no hidden files."""
    found, foreign = [], []
    for name in walk(root):
        path = root / os.path.relpath(name, root)
        suffix = path.suffix.lower()
        if suffix in READABLE:
            found.append(path)
        elif suffix in MEDIA:
            foreign.append(below(root, path))
    if foreign:
        problem = (
            f"{corpus} in {root}: audio that cannot be read ({offenders(foreign)}). "
            "Convert it first: ffmpeg -i a.m4a a.wav"
        )
        if not allow_missing:
            raise CorpusError(
                f"{problem}; or set allow_missing: True to leave them out"
            )
        logger.warning("%s", problem)
    if not found:
        raise CorpusError(
            f"{corpus} in {root}: no audio files; looked for "
            f"{', '.join(sorted(READABLE))} at any depth"
        )
    return sorted(found)
