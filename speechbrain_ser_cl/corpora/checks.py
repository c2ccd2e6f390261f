"""Checks shared by all corpus readers.

A reader finds its folder with ``locate``, makes one ``Candidate`` per utterance and
calls ``make_utterances``, which checks that files exist and are readable and that the
counts equal the published ones.
"""

import logging
import math
import os
import posixpath
import struct
import warnings
from collections import Counter
from collections.abc import Callable, Iterable, Mapping, Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING

import soundfile

from speechbrain_ser_cl.corpora.utterance import Utterance, normal
from speechbrain_ser_cl.utils.errors import SERError, offenders, repeated
from speechbrain_ser_cl.utils.media import MEDIA, media_seconds

if TYPE_CHECKING:
    from speechbrain_ser_cl.corpora.card import Scale

logger = logging.getLogger(__name__)

AUDIO_SUFFIXES = (".wav", ".flac")
READABLE = {".wav", ".flac", ".mp3", ".ogg", ".opus", ".aiff", ".aif", ".au"}
"""Suffixes of formats that libsndfile reads."""


class CorpusError(SERError):
    """A corpus folder is not what its reader expects.

    Arguments
    ---------
    message : str
        What was found, and what to do.
    unusable : sequence of str
        Ids of the utterances that cause the error; leaving them out resolves it.

    Example
    -------
    >>> CorpusError("no audio file", ["calls_a"]).unusable
    ['calls_a']
    """

    def __init__(self, message: str, unusable: Sequence[str] = ()) -> None:
        super().__init__(message)
        self.unusable = list(unusable)


@dataclass(frozen=True)
class Candidate:
    """The labels of an utterance whose audio file is not yet checked.

    The arguments are those of ``Utterance``, except: ``path`` is None if the labelled
    utterance has no audio file; ``name`` is the corpus' own name of the utterance,
    which becomes part of the id; ``language`` None stands for the corpus' language.

    Example
    -------
    >>> Candidate(
    ...     name="03a01Fa", path=None, speaker="03", emotion="happy"
    ... ).speaker
    '03'
    """

    name: str
    path: Path | None
    speaker: str | None
    emotion: str
    session: str | None = None
    gender: str | None = None
    text_id: str | None = None
    language: str | None = None
    split: str | None = None
    recording: str | None = None
    start: float | None = None
    end: float | None = None
    intensity: str | None = None
    dimensions: Mapping[str, float] | None = None
    votes: Mapping[str, float] | None = None
    groups: Mapping[str, str] | None = None


def visible(folder: Path, pattern: str) -> list[Path]:
    """Returns the files of a folder that match a pattern, without hidden files.

    Hidden files include the ``._name`` files that macOS writes beside each file.

    Arguments
    ---------
    folder : pathlib.Path
        Folder to search.
    pattern : str
        Glob pattern relative to the folder.

    Returns
    -------
    list of pathlib.Path
        Sorted.

    Example
    -------
    >>> folder = getfixture("tmp_path")
    >>> for name in ["b.txt", "a.txt", "._a.txt"]:
    ...     (folder / name).touch()
    >>> [path.name for path in visible(folder, "*.txt")]
    ['a.txt', 'b.txt']
    """
    return sorted(p for p in folder.glob(pattern) if not p.name.startswith("."))


def audio_files(folder: Path, pattern: str) -> list[Path]:
    """Returns the wav and flac files of a folder, without hidden files.

    Arguments
    ---------
    folder : pathlib.Path
        Folder to search.
    pattern : str
        Glob pattern relative to the folder. Matches that are not wav or flac are left
        out.

    Returns
    -------
    list of pathlib.Path
        Sorted.

    Example
    -------
    >>> folder = getfixture("tmp_path")
    >>> for name in ["a.flac", "._a.flac", "b.WAV", "readme.txt"]:
    ...     (folder / name).touch()
    >>> [path.name for path in audio_files(folder, "*")]
    ['a.flac', 'b.WAV']
    """
    return [p for p in visible(folder, pattern) if p.suffix.lower() in AUDIO_SUFFIXES]


def below(folder: Path, path: Path) -> str:
    """Returns a path relative to a folder, or the whole path if it is elsewhere.

    Arguments
    ---------
    folder : pathlib.Path
        The folder.
    path : pathlib.Path
        A file.

    Returns
    -------
    str
        Path with ``/`` between folders.

    Example
    -------
    >>> below(Path("data"), Path("data/wav/a.wav"))
    'wav/a.wav'
    """
    inside = path.is_relative_to(folder)
    return (path.relative_to(folder) if inside else path).as_posix()


def one_name(text: str | Path) -> str:
    r"""Normalises the name of a file, so that names can be compared.

    Arguments
    ---------
    text : str or pathlib.Path
        Name as written by a user.

    Returns
    -------
    str
        Name in Unicode form NFC, with ``/`` between folders and without ``./``.

    Example
    -------
    >>> one_name(".\\wav\\a.wav")
    'wav/a.wav'
    """
    return posixpath.normpath(normal(str(text)).replace("\\", "/"))


def locate(
    folder: str | Path,
    corpus: str,
    subfolders: Sequence[str],
    wanted: str,
    is_root: Callable[[Path], bool],
) -> Path:
    """Finds a corpus in the given folder or one of its usual subfolders.

    Arguments
    ---------
    folder : str or pathlib.Path
        Folder that the user gave.
    corpus : str
        Name of the corpus, for the error.
    subfolders : sequence of str
        Folders to try, relative to ``folder``; ``"."`` is the folder itself.
    wanted : str
        Description of what is expected, for the error.
    is_root : callable
        Returns whether an existing folder is the corpus.

    Returns
    -------
    pathlib.Path
        First folder that is the corpus.

    Raises
    ------
    CorpusError
        If there is none. The message says what was expected and what was found.

    Example
    -------
    >>> locate("no/such/folder", "emodb", ["."], "audio files", lambda folder: True)
    Traceback (most recent call last):
    speechbrain_ser_cl.corpora.checks.CorpusError: emodb: there is no folder \
no/such/folder
    """
    folder = Path(folder)
    if not folder.is_dir():
        raise CorpusError(f"{corpus}: there is no folder {folder}")
    for subfolder in subfolders:
        root = folder / subfolder
        if root.is_dir() and is_root(root):
            return root
    found = [path.name for path in visible(folder, "*")]
    raise CorpusError(
        f"{corpus}: {folder} is not the corpus. Looked for {wanted} in it"
        + "".join(f" or in its {name}" for name in subfolders if name != ".")
        + f"; found {offenders(found) if found else 'an empty folder'}"
    )


def emotion_of(
    codes: Iterable[tuple[str, str]], emotions: Mapping[str, str], corpus: str
) -> dict[str, str]:
    """Translates a corpus' label codes to emotion names.

    Arguments
    ---------
    codes : iterable of (str, str)
        Utterance name and code.
    emotions : mapping
        Code to emotion name.
    corpus : str
        Name of the corpus, for the error.

    Returns
    -------
    dict
        Utterance name to emotion name.

    Raises
    ------
    CorpusError
        For a code that ``emotions`` does not have.

    Example
    -------
    >>> emotion_of([("03a01Fa", "F")], {"F": "happy"}, "emodb")
    {'03a01Fa': 'happy'}
    >>> emotion_of([("03a01Qa", "Q")], {"F": "happy"}, "emodb")
    Traceback (most recent call last):
    speechbrain_ser_cl.corpora.checks.CorpusError: emodb: unknown label codes \
(1: 03a01Qa has 'Q'). Known are F
    """
    codes = list(codes)
    unknown = [f"{name} has {code!r}" for name, code in codes if code not in emotions]
    if unknown:
        raise CorpusError(
            f"{corpus}: unknown label codes ({offenders(unknown)}). "
            f"Known are {', '.join(sorted(emotions))}"
        )
    return {name: emotions[code] for name, code in codes}


def numbers(texts: Mapping[str, str]) -> dict[str, float] | None:
    """Reads the values of dimensions.

    Arguments
    ---------
    texts : mapping
        Dimension to a number as text; empty text and NaN mean unknown.

    Returns
    -------
    dict or None
        Known values. None if there are none.

    Raises
    ------
    CorpusError
        For text that is not a number.

    Example
    -------
    >>> numbers({"arousal": "2.5", "valence": "NaN", "dominance": ""})
    {'arousal': 2.5}
    """
    found = {}
    for name, text in texts.items():
        try:
            number = float(text.strip().replace(",", ".") or "nan")
        except ValueError:
            raise CorpusError(f"{name} is {text!r}, expected a number") from None
        if not math.isnan(number):
            found[name] = number
    return found or None


def count_speakers(utterances: Iterable[Utterance]) -> dict[str, int]:
    """Counts the known speakers, for ``make_utterances``.

    Example
    -------
    >>> count_speakers([])
    {'speakers': 0}
    """
    return {"speakers": len({u.speaker for u in utterances} - {None})}


def make_utterances(
    candidates: Iterable[Candidate],
    *,
    corpus: str,
    language: str,
    folder: Path,
    expected: Mapping[str, int],
    count: Callable[[list[Utterance]], Mapping[str, int]] | None = None,
    allow_missing: bool,
    bad: Mapping[str, str] | None = None,
    scales: "Mapping[str, Scale] | None" = None,
) -> list[Utterance]:
    """Makes utterances: reads durations and compares counts with the published ones.

    Arguments
    ---------
    candidates : iterable of Candidate
        Labels of the utterances.
    corpus : str
        Name of the corpus; becomes the prefix of ids, speakers, sessions and text ids.
    language : str
        ISO 639 code.
    folder : pathlib.Path
        Folder of the corpus, for messages.
    expected : mapping
        Published counts: ``"utterances"`` (total), emotion names and the keys of
        ``count``.
    count : callable, optional
        Returns further counts of the utterances, with the keys of ``expected``.
    allow_missing : bool
        Whether missing files, unreadable files and wrong counts give one warning
        instead of an error; the other utterances are returned.
    bad : mapping, optional
        Name of an utterance to the known defect of its file. It is left out if the file
        cannot be read, and then not counted in ``expected``.
    scales : mapping, optional
        Dimension to its scale.

    Returns
    -------
    list of Utterance
        Sorted by id.

    Raises
    ------
    CorpusError
        For two files with one name, values outside a dimension's scale, and if no
        utterance is left. Unless ``allow_missing``, also for missing or unreadable
        files and wrong counts.

    Example
    -------
    >>> make_utterances(
    ...     [Candidate(name="03a01Fa", path=None, speaker="03", emotion="happy")],
    ...     corpus="emodb",
    ...     language="de",
    ...     folder=Path("EmoDB"),
    ...     expected={},
    ...     allow_missing=False,
    ... )
    Traceback (most recent call last):
    speechbrain_ser_cl.corpora.checks.CorpusError: emodb in EmoDB: no utterance left: \
missing audio files (1: 03a01Fa)
    """
    candidates = list(candidates)
    if twice := repeated(c.name for c in candidates):
        raise CorpusError(
            f"{corpus} in {folder}: utterances that are there more than once "
            f"({offenders(twice)}). Keep one copy of each"
        )
    _check_scales(candidates, scales or {}, f"{corpus} in {folder}")

    present = [candidate for candidate in candidates if candidate.path is not None]
    durations = read_durations([c.path for c in present if c.path is not None])
    read = {c.name for c, seconds in zip(present, durations, strict=True) if seconds}
    known = {c.name for c in candidates if c.name in (bad or {}) and c.name not in read}
    if known:
        told = [f"{name}: {(bad or {})[name]}" for name in known]
        logger.info("%s: known to be bad, left out (%s)", corpus, offenders(told))
    expected = dict(expected)
    for candidate in candidates:
        for name in ("utterances", candidate.emotion):
            if candidate.name in known and name in expected:
                expected[name] -= 1
    utterances = sorted(
        (
            _utterance(candidate, duration, corpus, language)
            for candidate, duration in zip(present, durations, strict=True)
            if duration > 0
        ),
        key=lambda utterance: utterance.id,
    )

    problems = []
    missing = [c.name for c in candidates if c.path is None and c.name not in known]
    if missing:
        problems.append(f"missing audio files ({offenders(missing)})")
    unreadable = [
        below(folder, candidate.path)
        for candidate, duration in zip(present, durations, strict=True)
        if candidate.path and duration == 0 and candidate.name not in known
    ]
    if unreadable:
        problems.append(f"corrupt or empty audio files ({offenders(unreadable)})")
    found = Counter(utterance.emotion for utterance in utterances)
    found["utterances"] = len(utterances)
    found.update(count(utterances) if count else {})
    wrong = [
        f"{name} {found[name]} instead of {number}"
        for name, number in expected.items()
        if found[name] != number
    ]
    if wrong:
        problems.append(f"counts that are not the published ones ({offenders(wrong)})")

    if not utterances:
        problems = problems or ["no audio files found"]
        raise CorpusError(
            f"{corpus} in {folder}: no utterance left: {'; '.join(problems)}"
        )
    if problems and not allow_missing:
        left_out = [c.name for c in candidates if c.name not in read | known]
        raise CorpusError(
            f"{corpus} in {folder}: {'; '.join(problems)}. Complete the copy, or set "
            "allow_missing: True to continue with the rest",
            [f"{corpus}_{normal(name)}" for name in left_out],
        )
    if problems:
        warnings.warn(
            f"{corpus} in {folder}: continuing with {len(utterances)} utterances in "
            f"spite of {'; '.join(problems)}",
            stacklevel=3,
        )
    return utterances


def _check_scales(
    candidates: Iterable[Candidate], scales: "Mapping[str, Scale]", where: str
) -> None:
    for name, scale in scales.items():
        outside = [
            f"{c.name}: {value:g}"
            for c in candidates
            if (value := (c.dimensions or {}).get(name)) is not None
            and not scale.low <= value <= scale.high
        ]
        if outside:
            raise CorpusError(
                f"{where}: {name} outside its scale, {scale.low:g} to {scale.high:g} "
                f"({offenders(outside)})"
            )


def read_durations(paths: Sequence[Path]) -> list[float]:
    """Reads the durations of files from their headers.

    Arguments
    ---------
    paths : sequence of pathlib.Path
        Audio or video files.

    Returns
    -------
    list of float
        Seconds; 0 if the file has no audio.

    Raises
    ------
    ImportError
        If a format needs an extra that is not installed.

    Example
    -------
    >>> path = getfixture("tmp_path") / "a.wav"
    >>> soundfile.write(path, [0.0] * 800, 16000)
    >>> read_durations([path])
    [0.05]
    """
    size = 64  # In groups: a task per file would cost more than reading the file.
    groups = [paths[i : i + size] for i in range(0, len(paths), size)]
    # Threads help, because reading waits for the disk.
    with ThreadPoolExecutor(8) as pool:
        found = pool.map(lambda group: [_duration(path) for path in group], groups)
        return [seconds for group in found for seconds in group]


def _duration(path: Path) -> float:
    """Returns the duration in seconds, or 0 if the file has no audio."""
    if path.suffix.lower() in MEDIA:
        return media_seconds(path)
    try:
        with open(path, "rb") as file:
            seconds = _of_header(file.read(256), os.fstat(file.fileno()).st_size)
        if seconds:
            return seconds
        info = soundfile.info(path)
    except (soundfile.SoundFileError, OSError):
        return 0.0
    return float(info.frames / info.samplerate)


def _of_header(head: bytes, size: int) -> float | None:
    """Reads the duration from a simple wav or flac header; None for other headers."""
    if head[:4] == b"fLaC" and len(head) >= 26 and head[4] & 127 == 0:
        packed = int.from_bytes(head[18:26], "big")  # 20 bits rate, ..., 36 bits frames
        rate, frames = packed >> 44, packed & (1 << 36) - 1
        return frames / rate if rate else None
    if head[:4] != b"RIFF" or head[8:12] != b"WAVE":
        return None
    at, rate, width = 12, 0, 0
    while at + 8 <= len(head):
        length = int.from_bytes(head[at + 4 : at + 8], "little")
        if head[at : at + 4] == b"fmt " and at + 22 <= len(head):
            kind, _, rate, _, width = struct.unpack_from("<HHIIH", head, at + 8)
            if kind not in (1, 3):  # whole numbers or floating point
                return None
        elif head[at : at + 4] == b"data":
            length = min(length, size - at - 8)
            return length // width / rate if rate and width else None
        at += 8 + length + length % 2
    return None


def _utterance(
    candidate: Candidate, duration: float, corpus: str, language: str
) -> Utterance:
    def qualified(value: str | None) -> str | None:
        return None if value is None else f"{corpus}_{value}"

    assert candidate.path is not None  # a duration was read from it
    return Utterance(
        id=f"{corpus}_{candidate.name}",
        path=candidate.path,
        duration=duration,
        corpus=corpus,
        speaker=qualified(candidate.speaker),
        session=qualified(candidate.session),
        gender=candidate.gender,
        language=candidate.language or language,
        text_id=qualified(candidate.text_id),
        emotion=candidate.emotion,
        split=candidate.split,
        recording=qualified(candidate.recording),
        start=candidate.start,
        end=candidate.end,
        intensity=candidate.intensity,
        dimensions=candidate.dimensions,
        votes=candidate.votes,
        groups=candidate.groups,
    )
