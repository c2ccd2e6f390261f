"""Audio files to 16 kHz mono, on the fly or once into a cache folder."""

import hashlib
import os
import re
from collections.abc import Iterable
from concurrent.futures import ThreadPoolExecutor
from dataclasses import replace
from pathlib import Path

import numpy
import soundfile
import soxr
import torch
from tqdm import tqdm

from speechbrain_ser_cl.corpora.checks import offenders
from speechbrain_ser_cl.corpora.files import replacing
from speechbrain_ser_cl.corpora.utterance import Utterance

SAMPLE_RATE = 16000


class AudioError(ValueError):
    """An audio file that cannot be used."""


def load_audio(path: str | Path) -> torch.Tensor:
    """Load an audio file as 16 kHz mono.

    Channels are averaged; other sampling rates are converted by soxr.

    Arguments
    ---------
    path : str or pathlib.Path
        Any file that libsndfile reads: wav, flac, ogg, …

    Returns
    -------
    torch.Tensor
        Float32, (T,), nominally in [-1, 1].

    Raises
    ------
    AudioError
        If the file is missing, corrupt, cut off, empty, or holds values that are
        not finite.

    Example
    -------
    >>> path = getfixture("tmp_path") / "stereo.wav"
    >>> soundfile.write(path, numpy.zeros((8000, 2)), 8000)
    >>> load_audio(path).shape
    torch.Size([16000])
    """
    try:
        with soundfile.SoundFile(path) as file:
            promised, rate = file.frames, file.samplerate
            samples = file.read(dtype="float32", always_2d=True)
    except (soundfile.SoundFileError, OSError) as error:
        raise AudioError(f"{path}: not a readable audio file ({error})") from error
    if len(samples) == 0:
        raise AudioError(f"{path}: the audio file is empty")
    if len(samples) < promised:
        raise AudioError(
            f"{path}: the audio file is cut off after {len(samples)} of {promised} "
            "frames"
        )
    if not numpy.isfinite(samples).all():
        raise AudioError(f"{path}: the audio file holds values that are not finite")
    mono = samples.mean(axis=1)
    if rate != SAMPLE_RATE:
        mono = soxr.resample(mono, rate, SAMPLE_RATE)
    return torch.from_numpy(mono)


def convert_to_16k_mono(
    utterances: Iterable[Utterance],
    cache_folder: str | Path,
    workers: int | None = None,
) -> list[Utterance]:
    """Convert what is not 16 kHz mono, once, into a cache folder.

    Files that are 16 kHz mono wav or flac already are used where they lie. The
    others become 16-bit FLAC in the cache folder. A source that changes (size or
    time of modification) is converted again. Each file is written under a temporary
    name and then renamed, so that an interrupted conversion goes on where it was.

    Arguments
    ---------
    utterances : iterable of Utterance
        What to convert.
    cache_folder : str or pathlib.Path
        Made if it is not there.
    workers : int, optional
        Number of threads; as many as there are cores by default.

    Returns
    -------
    list of Utterance
        In the given order, ``path`` and ``duration`` of the converted ones replaced.

    Raises
    ------
    AudioError
        If files cannot be read; names up to ten, after all others are done.

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
    try:
        info = soundfile.info(path)
    except (soundfile.SoundFileError, OSError):
        return False  # converting it will say what is wrong
    return (info.samplerate, info.channels) == (SAMPLE_RATE, 1) and info.format in (
        "WAV",
        "WAVEX",
        "FLAC",
    )


def _convert(utterance: Utterance, cache_folder: Path) -> Utterance | AudioError:
    """Convert one file; errors are returned, so that all can be named at once."""
    try:
        target = cache_folder / _cache_name(utterance)
        if not target.exists():
            samples = load_audio(utterance.path).numpy()
            with replacing(target) as part:
                soundfile.write(
                    part, samples, SAMPLE_RATE, subtype="PCM_16", format="FLAC"
                )
    except AudioError as error:
        return error
    return replace(
        utterance,
        path=target,
        duration=soundfile.info(target).frames / SAMPLE_RATE,
    )


def _cache_name(utterance: Utterance) -> str:
    """A file name that no id can lead out of the folder, new for a changed source."""
    try:
        stat = utterance.path.stat()
    except OSError as error:
        raise AudioError(f"{utterance.path}: not a readable file ({error})") from error
    key = repr(
        (utterance.id, str(utterance.path.resolve()), stat.st_size, stat.st_mtime_ns)
    )
    digest = hashlib.sha256(key.encode()).hexdigest()[:16]
    readable = re.sub(r"[^A-Za-z0-9_-]", "_", utterance.id)[:80]
    return f"{readable}-{digest}.flac"
