"""Writes and reads manifests: SpeechBrain's JSON with the fields of ``Utterance``."""

import os
from collections.abc import Iterable
from operator import attrgetter, itemgetter
from pathlib import Path
from typing import Any

from speechbrain_ser_cl.corpora.utterance import Utterance
from speechbrain_ser_cl.utils.errors import offenders, repeated
from speechbrain_ser_cl.utils.files import without_links
from speechbrain_ser_cl.utils.garbage import no_collection
from speechbrain_ser_cl.utils.records import RecordError, read, write
from speechbrain_ser_cl.utils.schemas import MANIFEST

PLACEHOLDER = "{data_root}"
FIELDS = (
    "duration",
    "corpus",
    "speaker",
    "session",
    "gender",
    "language",
    "text_id",
    "emotion",
)
# Written if known.
OPTIONAL = (
    *("split", "recording", "start", "end", "intensity"),
    *("dimensions", "votes", "groups"),
)
_needed, _known = attrgetter(*FIELDS), attrgetter(*OPTIONAL)
_all_needed = itemgetter(*FIELDS)
_FIELDS = ("id", "path", *FIELDS, *OPTIONAL)
_WRITTEN = ("wav", *FIELDS)
_UNKNOWN = (None,) * len(OPTIONAL)


@no_collection()
def write_manifest(
    utterances: Iterable[Utterance], path: str | Path, data_root: str | Path
) -> None:
    """Writes utterances as a manifest for SpeechBrain's data sets.

    Each entry is ``id: {"wav": "{data_root}/wav/x.wav", "duration": 1.9, "corpus": …,
    "speaker": …, "session": …, "gender": …, "language": …, "text_id": …, "emotion":
    …}``, with ``"split"``, ``"recording"``, ``"start"``, ``"end"``, ``"intensity"``,
    ``"dimensions"``, ``"votes"`` and ``"groups"`` if known. Audio below ``data_root``
    has a relative path, so that corpus and manifest can be moved; other audio (files
    converted into a cache) has an absolute path. The file is written whole or not at
    all.

    Arguments
    ---------
    utterances : iterable of Utterance
        In any order; the manifest is sorted by id.
    path : str or pathlib.Path
        Manifest file; its folder is created if needed.
    data_root : str or pathlib.Path
        Folder that ``{data_root}`` stands for.

    Raises
    ------
    ValueError
        For a repeated id.

    Example
    -------
    >>> from speechbrain.dataio.dataset import DynamicItemDataset
    >>> from speechbrain_ser_cl.corpora import read_synthetic, write_synthetic
    >>> folder = getfixture("tmp_path")
    >>> corpus = write_synthetic(
    ...     folder / "demo", "synthetic_source", n_speakers=2, utterances_per_speaker=4
    ... )
    >>> write_manifest(read_synthetic(corpus), folder / "demo.json", corpus)
    >>> dataset = DynamicItemDataset.from_json(
    ...     folder / "demo.json", replacements={"data_root": corpus}
    ... )
    >>> len(dataset)
    8
    """
    utterances = sorted(utterances, key=attrgetter("id"))
    if twice := repeated(u.id for u in utterances):
        raise ValueError(f"{path}: ids that occur more than once ({offenders(twice)})")
    root = os.path.join(os.path.realpath(data_root), "")
    files = without_links(u.path for u in utterances)
    entries = {}
    for utterance, file in zip(utterances, files, strict=True):
        values = _portable(file, root), *_needed(utterance)
        entry = entries[utterance.id] = dict(zip(_WRITTEN, values, strict=True))
        known = _known(utterance)
        if known != _UNKNOWN:
            pairs = zip(OPTIONAL, known, strict=True)
            entry.update((name, value) for name, value in pairs if value is not None)
    write(path, MANIFEST, entries)


@no_collection()
def read_manifest(path: str | Path, data_root: str | Path) -> list[Utterance]:
    """Reads a manifest.

    Arguments
    ---------
    path : str or pathlib.Path
        File that ``write_manifest`` wrote.
    data_root : str or pathlib.Path
        Current folder of the audio.

    Returns
    -------
    list of Utterance
        Sorted by id.

    Raises
    ------
    RecordError
        If the file is not a manifest, or an entry lacks a field.

    Example
    -------
    >>> from speechbrain_ser_cl.corpora import read_synthetic, write_synthetic
    >>> folder = getfixture("tmp_path")
    >>> corpus = write_synthetic(
    ...     folder / "demo", "synthetic_source", n_speakers=2, utterances_per_speaker=4
    ... )
    >>> utterances = read_synthetic(corpus)
    >>> write_manifest(utterances, folder / "demo.json", corpus)
    >>> read_manifest(folder / "demo.json", corpus) == utterances
    True
    """
    utterances = []
    root, fields = str(data_root), (*FIELDS, *OPTIONAL)
    folders: dict[str, Path] = {}  # each string is parsed once
    checked: set[tuple[Any, ...]] = set()  # and labels are checked once
    entries = read(path, MANIFEST)
    for name in list(entries):
        entry = entries.pop(name)  # its memory is used again
        place, _, file = entry["wav"].replace(PLACEHOLDER, root).rpartition("/")
        folder = folders.get(place)
        if folder is None:
            folder = folders[place] = Path(f"{place}/" if place else "")
        plain = len(entry) == len(_WRITTEN)
        known: tuple[Any, ...] = (  # in the order of Utterance's fields
            _all_needed(entry) if plain else tuple(map(entry.get, fields))
        )
        utterance = Utterance.__new__(Utterance)
        values = zip(_FIELDS, (name, folder / file, *known), strict=False)
        utterance.__dict__.update(values)
        utterances.append(utterance)
        labels = known[1:]
        if plain and labels in checked and known[0] > 0 and name.isascii():
            continue
        try:
            utterance.__post_init__()
        except ValueError as error:
            raise RecordError(f"{path}: {error!s:.300}. {MANIFEST.advice}") from None
        if plain and _needed(utterance)[1:] == labels:
            checked.add(labels)
    return sorted(utterances, key=attrgetter("id"))


def _portable(file: str, root: str) -> str:
    if file.startswith(root):
        return f"{PLACEHOLDER}/{file[len(root) :].replace(os.sep, '/')}"
    return file
