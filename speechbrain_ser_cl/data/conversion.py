"""Converts audio to 16 kHz mono once, into a cache folder."""

import os
from collections.abc import Iterable
from concurrent.futures import ThreadPoolExecutor
from dataclasses import replace
from pathlib import Path

import soundfile
from tqdm import tqdm

from speechbrain_ser_cl.corpora.utterance import Utterance
from speechbrain_ser_cl.utils.audio import (
    SAMPLE_RATE,
    AudioError,
    cache_name,
    load_audio,
    write_flac,
)
from speechbrain_ser_cl.utils.disk import refuse_small_disk
from speechbrain_ser_cl.utils.errors import offenders
from speechbrain_ser_cl.utils.files import clear_unfinished

# Bytes per second of speech as 16 kHz FLAC, a low estimate.
_BYTES_PER_SECOND = 10_000


def convert_to_16k_mono(
    utterances: Iterable[Utterance],
    cache_folder: str | Path,
    workers: int | None = None,
) -> list[Utterance]:
    """Converts audio that is not 16 kHz mono, once, into a cache folder.

    Wav and flac files that are 16 kHz mono are not copied. The others become 16-bit
    FLAC in the cache folder. A source whose size or modification time changed is
    converted again. Each file is written under a temporary name and then renamed, so an
    interrupted conversion continues where it stopped.

    Arguments
    ---------
    utterances : iterable of Utterance
        Utterances to convert.
    cache_folder : str or pathlib.Path
        Cache folder; created if needed.
    workers : int, optional
        Number of threads. Default: number of cores.

    Returns
    -------
    list of Utterance
        In the given order, with ``path`` and ``duration`` of the converted files.

    Raises
    ------
    AudioError
        If files cannot be read. All others are converted first; the message names up to
        ten files.
    DiskFullError
        If the disk is too small for the copies, which is checked before the first is
        written.

    Example
    -------
    >>> from speechbrain_ser_cl.corpora import read_synthetic, write_synthetic
    >>> folder = getfixture("tmp_path")
    >>> corpus = write_synthetic(
    ...     folder / "demo", "synthetic_source", n_speakers=2, utterances_per_speaker=4
    ... )
    >>> utterances = read_synthetic(corpus)
    >>> convert_to_16k_mono(utterances, folder / "cache") == utterances
    True
    """
    utterances = list(utterances)
    cache_folder = Path(cache_folder)
    with ThreadPoolExecutor(workers or os.cpu_count()) as pool:
        usable = list(pool.map(_is_16k_mono, [u.path for u in utterances]))
        foreign = [
            u for u, is_usable in zip(utterances, usable, strict=True) if not is_usable
        ]
        if not foreign:
            return utterances
        cache_folder.mkdir(parents=True, exist_ok=True)
        clear_unfinished(cache_folder)
        done = sum(entry.stat().st_size for entry in os.scandir(cache_folder))
        needed = _BYTES_PER_SECOND * sum(u.duration for u in foreign) - done
        refuse_small_disk(cache_folder, needed)
        results = list(
            tqdm(
                pool.map(lambda u: _convert(u, cache_folder), foreign),
                total=len(foreign),
                desc="converting to 16 kHz mono",
            )
        )
    errors = [result for result in results if isinstance(result, AudioError)]
    if errors:
        raise AudioError(f"audio files that cannot be converted: {offenders(errors)}")
    converted = {utterance.id: utterance for utterance in results}
    return [converted.get(utterance.id, utterance) for utterance in utterances]


def _is_16k_mono(path: Path) -> bool:
    if not path.is_file():  # opening a pipe would wait for a writer
        return False
    try:
        info = soundfile.info(path)
    except (soundfile.SoundFileError, OSError):
        return False  # _convert reports the error
    return (info.samplerate, info.channels) == (SAMPLE_RATE, 1) and info.format in (
        "WAV",
        "WAVEX",
        "FLAC",
    )


def _convert(utterance: Utterance, cache_folder: Path) -> Utterance | AudioError:
    """Converts one file; returns an error, so that all errors are reported together."""
    try:
        target = cache_folder / cache_name(utterance.path, utterance.id)
        if not target.exists():
            write_flac(target, load_audio(utterance.path))
    except AudioError as error:
        return error
    return replace(
        utterance,
        path=target,
        duration=soundfile.info(target).frames / SAMPLE_RATE,
    )
