"""Load and cut audio files as 16 kHz mono."""

import hashlib
import re
from pathlib import Path

import numpy
import soundfile
import soxr
import torch

from speechbrain_ser_cl.utils.errors import SERError
from speechbrain_ser_cl.utils.files import replacing

SAMPLE_RATE = 16000


class AudioError(SERError):
    """An audio file that cannot be used."""


# How far (s) beyond a file's end a part of it may be said to reach.
_ROUNDING = 0.1


def load_audio(
    path: str | Path, start: float = 0.0, end: float | None = None
) -> torch.Tensor:
    """Load an audio file as 16 kHz mono.

    Channels are averaged; other sampling rates are converted by soxr.

    Arguments
    ---------
    path : str or pathlib.Path
        Any file that libsndfile reads: wav, flac, ogg, …
    start : float
        Where to begin, in seconds.
    end : float, optional
        Where to end, in seconds; by default where the file does.

    Returns
    -------
    torch.Tensor
        Float32, (T,), nominally in [-1, 1].

    Raises
    ------
    AudioError
        If the file is missing, corrupt, cut off, empty, holds values that are not
        finite, or does not reach from ``start`` to ``end``.

    Example
    -------
    >>> path = getfixture("tmp_path") / "stereo.wav"
    >>> soundfile.write(path, numpy.zeros((8000, 2)), 8000)
    >>> load_audio(path).shape
    torch.Size([16000])
    """
    samples, rate = read_samples(path, start, end)
    mono = samples.mean(axis=1)
    if rate != SAMPLE_RATE:
        mono = soxr.resample(mono, rate, SAMPLE_RATE)
    return torch.from_numpy(mono)


def read_samples(
    path: str | Path, start: float = 0.0, end: float | None = None
) -> tuple[numpy.ndarray, int]:
    """Load an audio file as it was recorded.

    Arguments
    ---------
    path : str or pathlib.Path
        Any file that libsndfile reads.
    start : float
        Where to begin, in seconds.
    end : float, optional
        Where to end, in seconds; by default where the file does.

    Returns
    -------
    samples : numpy.ndarray
        Float32, (T, channels), nominally in [-1, 1].
    rate : int
        Samples per second.

    Raises
    ------
    AudioError
        As ``load_audio`` does.

    Example
    -------
    >>> path = getfixture("tmp_path") / "stereo.wav"
    >>> soundfile.write(path, numpy.zeros((8000, 2)), 8000)
    >>> samples, rate = read_samples(path)
    >>> samples.shape, rate
    ((8000, 2), 8000)
    """
    try:
        with soundfile.SoundFile(path) as file:
            total, rate = file.frames, file.samplerate
            first = round(start * rate)
            last = total if end is None else round(end * rate)
            if total and not 0 <= first < min(last, total) <= last <= (
                total + _ROUNDING * rate
            ):
                raise AudioError(
                    f"{path}: asked for {start} s to {end} s of {total / rate:.3f} s"
                )
            promised = min(last, total) - first
            file.seek(first)
            samples = file.read(promised, dtype="float32", always_2d=True)
    except (soundfile.SoundFileError, OSError) as error:
        if not Path(path).is_file():  # of which libsndfile says: System error.
            raise AudioError(f"{path}: there is no such file") from error
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
    return samples, rate


def cut_audio(
    path: str | Path, start: float, end: float | None, folder: str | Path
) -> Path:
    """Write a part of an audio file as 16 kHz mono FLAC, unless it is there already.

    Arguments
    ---------
    path : str or pathlib.Path
        The whole file.
    start : float
        Where the part begins, in seconds.
    end : float or None
        Where it ends, in seconds; None: where the file does.
    folder : str or pathlib.Path
        Where to.

    Returns
    -------
    pathlib.Path
        The part. A file that changes (size or time of modification), and other times,
        make another one.

    Raises
    ------
    AudioError
        As ``load_audio`` does.

    Example
    -------
    >>> folder = getfixture("tmp_path")
    >>> soundfile.write(folder / "call.wav", numpy.zeros(16000), 8000)
    >>> part = cut_audio(folder / "call.wav", 0.5, 1.5, folder)
    >>> soundfile.info(part).duration
    1.0
    """
    path = Path(path)
    target = Path(folder) / cache_name(path, path.stem, start, end)
    if not target.exists():
        write_flac(target, load_audio(path, start, end))
    return target


def write_flac(target: Path, samples: torch.Tensor) -> None:
    """Write 16 kHz samples (T,) as 16-bit FLAC, whole or not at all."""
    with replacing(target) as part:
        soundfile.write(
            part, samples.numpy(), SAMPLE_RATE, subtype="PCM_16", format="FLAC"
        )


def cache_name(path: Path, name: str, *settings: object) -> str:
    """A file name that no name can lead out of the folder, new for a changed source."""
    try:
        stat = path.stat()
    except OSError as error:
        raise AudioError(f"{path}: not a readable file ({error})") from error
    key = repr((name, str(path.resolve()), stat.st_size, stat.st_mtime_ns, *settings))
    digest = hashlib.sha256(key.encode()).hexdigest()[:16]
    readable = re.sub(r"[^A-Za-z0-9_-]", "_", name)[:80]
    return f"{readable}-{digest}.flac"
