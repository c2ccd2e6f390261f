"""Loads and cuts audio files as 16 kHz mono."""

import hashlib
import os
import re
from collections.abc import Iterator
from pathlib import Path
from typing import TYPE_CHECKING

import numpy
import soundfile
import soxr

from speechbrain_ser_cl.utils.errors import SERError
from speechbrain_ser_cl.utils.files import refuse_lfs_pointer, replacing
from speechbrain_ser_cl.utils.media import MEDIA, MediaFile

if TYPE_CHECKING:
    import torch

SAMPLE_RATE = 16000
# Limits, independent of the file's header.
LONGEST = 6 * 3600.0  # seconds
MOST_VALUES = 2**30  # of all channels, if they are kept apart; 4 GiB
RATES = (1000, 1_000_000)  # Hz
LOUDEST = 1e6  # full scale is 1; integer samples that were not scaled reach 32768

# How far (s) a part may reach beyond a file's end: one frame.
_ROUNDING = 0.025
_BLOCK_VALUES = 2**20
_YEAR = 366 * 86400.0
_UNKNOWN = 2**62  # libsndfile's number of frames if the header has none


class AudioError(SERError):
    """An audio file that cannot be used."""


class _Sequential(soundfile.SoundFile):  # type: ignore[misc]
    """Reads from start to end only; soundfile would seek to the end otherwise."""

    def seekable(self) -> bool:
        """Returns False, so that soundfile does not seek."""
        return False


def load_audio(
    path: str | Path,
    start: float = 0.0,
    end: float | None = None,
    longest: float = LONGEST,
) -> "torch.Tensor":
    """Loads an audio file as 16 kHz mono.

    Channels are averaged; other sampling rates are converted by soxr. Memory use
    depends on the result, not on the length in the header.

    Arguments
    ---------
    path : str or pathlib.Path
        File that libsndfile reads: wav, flac, ogg, …; with the extra ``media`` also the
        first audio track of avi, mp4, m4a, webm, ….
    start : float
        Start in seconds.
    end : float, optional
        End in seconds. Default: end of the file.
    longest : float
        Longest allowed audio in seconds.

    Returns
    -------
    torch.Tensor
        Float32, (T,), nominally in [-1, 1].

    Raises
    ------
    AudioError
        If the file is missing, corrupt, cut off, empty or too long, has a sampling rate
        outside 1 kHz to 1 MHz, contains values that are not finite or beyond 1e6, is
        shorter than one sample at 16 kHz, or does not contain ``start`` to ``end``.

    Example
    -------
    >>> path = getfixture("tmp_path") / "stereo.wav"
    >>> soundfile.write(path, numpy.zeros((8000, 2)), 8000)
    >>> load_audio(path).shape
    torch.Size([16000])
    """
    import torch  # here, because importing it takes two seconds

    blocks = list(stream_audio(path, start, end, longest))
    whole = torch.from_numpy(numpy.concatenate(blocks))
    if len(whole) == 0:
        raise AudioError(f"{path}: the audio file is shorter than a sample of 16 kHz")
    if not whole.isfinite().all():
        raise AudioError(f"{path}: at 16 kHz it has values that are not finite")
    return whole


def stream_audio(
    path: str | Path,
    start: float = 0.0,
    end: float | None = None,
    longest: float = LONGEST,
) -> Iterator[numpy.ndarray]:
    """Reads an audio file as 16 kHz mono, block by block.

    Arguments
    ---------
    path, start, end, longest
        As in ``load_audio``.

    Yields
    ------
    numpy.ndarray
        Float32, (T,), at most about a million samples.

    Raises
    ------
    AudioError
        As in ``load_audio``, which joins the blocks.

    Example
    -------
    >>> path = getfixture("tmp_path") / "stereo.wav"
    >>> soundfile.write(path, numpy.zeros((8000, 2)), 8000)
    >>> sum(len(block) for block in stream_audio(path))
    16000
    """
    stream = None
    for samples, rate in _blocks(path, start, end, longest):
        mono = samples.mean(axis=1)
        if rate != SAMPLE_RATE:
            stream = stream or soxr.ResampleStream(rate, SAMPLE_RATE, 1)
            mono = stream.resample_chunk(mono)
        yield mono
    if stream is not None:
        yield stream.resample_chunk(numpy.zeros(0, numpy.float32), last=True)


def read_samples(path: str | Path) -> tuple[numpy.ndarray, int]:
    """Loads an audio file without resampling or mixing channels.

    Arguments
    ---------
    path : str or pathlib.Path
        File that libsndfile reads.

    Returns
    -------
    samples : numpy.ndarray
        Float32, (T, channels), nominally in [-1, 1].
    rate : int
        Samples per second.

    Raises
    ------
    AudioError
        As in ``load_audio``, or if all channels together have more than 2**30 values.

    Example
    -------
    >>> path = getfixture("tmp_path") / "stereo.wav"
    >>> soundfile.write(path, numpy.zeros((8000, 2)), 8000)
    >>> samples, rate = read_samples(path)
    >>> samples.shape, rate
    ((8000, 2), 8000)
    """
    blocks, size, rate = [], 0, 0
    for samples, found_rate in _blocks(path, 0.0, None, LONGEST):
        rate = found_rate
        blocks.append(samples)
        size += samples.size
        if size > MOST_VALUES:
            raise AudioError(f"{path}: the channels have over {MOST_VALUES} values")
    return numpy.concatenate(blocks), rate


def _blocks(
    path: str | Path, start: float, end: float | None, longest: float
) -> Iterator[tuple[numpy.ndarray, int]]:
    """Yields checked samples (T, channels), at least one block, and their rate."""
    if not Path(path).is_file():  # libsndfile's message would be: System error.
        what = f"a folder; name its files, such as {Path(path, '*.wav')}"
        what = what if Path(path).is_dir() else "no audio file"
        found = f"this is {what}" if Path(path).exists() else "there is no such file"
        raise AudioError(f"{path}: {found}")
    try:
        # As bytes, because a name need not be UTF-8.
        name = os.fsencode(path) if os.name == "posix" else path
        media = Path(path).suffix.lower() in MEDIA
        with MediaFile(path) if media else _Sequential(name) as file:
            yield from _blocks_of(path, file, start, end, longest)
    except (soundfile.SoundFileError, OSError, MemoryError) as error:
        try:
            refuse_lfs_pointer(Path(path))
        except SERError as pointer:
            raise AudioError(str(pointer)) from None
        raise AudioError(f"{path}: not a readable audio file ({error})") from error


def _blocks_of(
    path: str | Path,
    file: soundfile.SoundFile | MediaFile,
    start: float,
    end: float | None,
    longest: float,
) -> Iterator[tuple[numpy.ndarray, int]]:
    total, rate = file.frames, file.samplerate
    if not RATES[0] <= rate <= RATES[1]:
        raise AudioError(
            f"{path}: the sampling rate is {rate} Hz, expected {RATES[0]} to {RATES[1]}"
        )
    # Longest file: a year; infinity is not a number of samples.
    first = round(min(start, _YEAR) * rate)
    last = total if end is None else round(min(end, _YEAR) * rate)
    if total and not 0 <= first < min(last, total) <= last <= total + _ROUNDING * rate:
        raise AudioError(
            f"{path}: asked for {start} s to {end} s of {total / rate:.3f} s"
        )
    promised, found = min(last, total) - first, 0
    if longest * rate < promised < _UNKNOWN - first:
        raise AudioError(
            f"{path}: the audio is {_duration(promised / rate)} long, expected at most "
            f"{_duration(longest)}"
        )
    file.seek(first)
    while found < promised:
        size = min(max(_BLOCK_VALUES // file.channels, 1), promised - found)
        samples = file.read(size, dtype="float32", always_2d=True)
        if len(samples) == 0:
            break
        # The largest is inf or NaN if any value is.
        loudest = float(numpy.abs(samples).max())
        if not loudest <= LOUDEST:
            raise AudioError(
                f"{path}: the audio file holds values that are not finite or beyond "
                f"{LOUDEST:g}; full scale is 1"
            )
        found += len(samples)
        if found > longest * rate:
            raise AudioError(f"{path}: the audio is longer than {_duration(longest)}")
        yield samples, rate
    if found == 0:
        raise AudioError(f"{path}: the audio file is empty")
    missing = promised - found
    if total >= _UNKNOWN:  # a stream; only the requested part must exist
        missing = 0 if end is None else missing - _ROUNDING * rate
    if missing > 0:
        raise AudioError(
            f"{path}: the audio file is cut off after {found} of {promised} frames"
        )


def _duration(seconds: float) -> str:
    return f"{seconds / 60:.0f} min" if seconds < 7200 else f"{seconds / 3600:.0f} h"


def cut_audio(
    path: str | Path, start: float, end: float | None, folder: str | Path
) -> Path:
    """Writes a part of an audio file as 16 kHz mono FLAC, unless it exists.

    Arguments
    ---------
    path : str or pathlib.Path
        Source file.
    start : float
        Start in seconds.
    end : float or None
        End in seconds. None: end of the file.
    folder : str or pathlib.Path
        Output folder.

    Returns
    -------
    pathlib.Path
        The part. Other times, or another size or modification time of the source, give
        another file.

    Raises
    ------
    AudioError
        As in ``load_audio``.

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


def write_flac(target: Path, samples: "torch.Tensor") -> None:
    """Writes 16 kHz samples (T,) as 16-bit FLAC, whole or not at all."""
    with replacing(target) as part:
        soundfile.write(
            part, samples.numpy(), SAMPLE_RATE, subtype="PCM_16", format="FLAC"
        )


def cache_name(path: Path, name: str, *settings: object) -> str:
    """Makes a safe file name for a source; a modified source has another name."""
    try:
        stat = path.stat()
    except OSError as error:
        raise AudioError(f"{path}: not a readable file ({error})") from error
    key = repr((name, str(path.resolve()), stat.st_size, stat.st_mtime_ns, *settings))
    digest = hashlib.sha256(key.encode()).hexdigest()[:16]
    readable = re.sub(r"[^A-Za-z0-9_-]", "_", name)[:80]
    return f"{readable}-{digest}.flac"
