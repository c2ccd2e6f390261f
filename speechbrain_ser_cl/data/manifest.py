"""Manifests: SpeechBrain's JSON, with the fields of ``Utterance``."""

import os
from collections import Counter
from collections.abc import Iterable
from pathlib import Path

from speechbrain_ser_cl.corpora.utterance import Utterance
from speechbrain_ser_cl.utils.errors import offenders
from speechbrain_ser_cl.utils.files import without_links
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
# Written where they are known.
OPTIONAL = ("split", "recording", "start", "end", "intensity", "dimensions", "votes")


def write_manifest(
    utterances: Iterable[Utterance], path: str | Path, data_root: str | Path
) -> None:
    """Write utterances as a manifest that SpeechBrain's datasets read.

    Each entry is ``id: {"wav": "{data_root}/wav/x.wav", "duration": 1.9, "corpus": …,
    "speaker": …, "session": …, "gender": …, "language": …, "text_id": …,
    "emotion": …}``, and ``"split"``, ``"recording"``, ``"start"``, ``"end"``,
    ``"intensity"``, ``"dimensions"`` and ``"votes"`` where they are known. Audio below
    ``data_root`` is written relative to it, so that corpus and manifest can move; audio
    elsewhere (files converted into a cache beside the run) is written with its absolute
    path. The file appears whole or not at all.

    Arguments
    ---------
    utterances : iterable of Utterance
        In any order; the manifest is sorted by id.
    path : str or pathlib.Path
        The manifest; its folder is made if it is not there.
    data_root : str or pathlib.Path
        The folder that ``{data_root}`` stands for.

    Raises
    ------
    ValueError
        For an id that occurs twice.

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
    utterances = sorted(utterances, key=lambda utterance: utterance.id)
    repeated = [i for i, n in Counter(u.id for u in utterances).items() if n > 1]
    if repeated:
        raise ValueError(
            f"{path}: ids that occur more than once ({offenders(repeated)})"
        )
    root = os.path.join(os.path.realpath(data_root), "")
    files = without_links(u.path for u in utterances)
    entries = {
        u.id: {"wav": _portable(file, root)}
        | {name: getattr(u, name) for name in FIELDS}
        | {n: value for n in OPTIONAL if (value := getattr(u, n)) is not None}
        for u, file in zip(utterances, files, strict=True)
    }
    write(path, MANIFEST, entries)


def read_manifest(path: str | Path, data_root: str | Path) -> list[Utterance]:
    """Read a manifest back.

    Arguments
    ---------
    path : str or pathlib.Path
        A file that ``write_manifest`` wrote.
    data_root : str or pathlib.Path
        Where the audio lies now.

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
    for name, entry in read(path, MANIFEST).items():
        fields = {key: entry.get(key) for key in (*FIELDS, *OPTIONAL)}
        wav = Path(entry["wav"].replace(PLACEHOLDER, str(data_root)))
        try:
            utterances.append(Utterance(id=name, path=wav, **fields))  # type: ignore[arg-type]
        except ValueError as error:
            raise RecordError(f"{path}: {error!s:.300}. {MANIFEST.advice}") from None
    return sorted(utterances, key=lambda utterance: utterance.id)


def _portable(file: str, root: str) -> str:
    if file.startswith(root):
        return f"{PLACEHOLDER}/{Path(file[len(root) :]).as_posix()}"
    return file
