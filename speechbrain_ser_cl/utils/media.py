"""Read the sound of videos, and audio unknown to libsndfile, by PyAV."""

from pathlib import Path
from types import ModuleType

import numpy

MEDIA = {
    ".avi",
    ".mp4",
    ".m4a",
    ".m4v",
    ".mov",
    ".mkv",
    ".webm",
    ".aac",
    ".wma",
    ".amr",
    ".3gp",
    ".flv",
}
"""Suffixes of what PyAV reads and libsndfile does not."""


def _av() -> ModuleType:
    try:
        import av
    except ImportError as error:
        raise ImportError(
            "videos and m4a, webm and the like need PyAV: install "
            "speechbrain_ser_cl[media]"
        ) from error
    return av


def media_seconds(path: str | Path) -> float:
    """Read how long the sound of a video is, without decoding it.

    Arguments
    ---------
    path : str or pathlib.Path
        A file of one of ``MEDIA``.

    Returns
    -------
    float
        Seconds; 0 where it cannot be read or has no sound. Where the header does not
        say, as in webm from a browser, the sound is decoded.

    Raises
    ------
    ImportError
        Without the extra ``media``.

    Example
    -------
    >>> media_seconds("no_such_file.avi")
    0.0
    """
    av = _av()
    try:
        with av.open(str(path)) as container:
            if not container.streams.audio:
                return 0.0
            stream = container.streams.audio[0]
            if stream.duration:
                return float(stream.duration * stream.time_base)
            if container.duration:
                return float(container.duration / av.time_base)
        samples, rate = read_media(path)
    except (OSError, av.error.FFmpegError):
        return 0.0
    return len(samples) / rate


def read_media(path: str | Path) -> tuple[numpy.ndarray, int]:
    """Decode the sound of a video: its first audio track.

    Arguments
    ---------
    path : str or pathlib.Path
        Any file that FFmpeg reads.

    Returns
    -------
    samples : numpy.ndarray
        Float32, (T, channels), nominally in [-1, 1].
    rate : int
        Samples per second.

    Raises
    ------
    ImportError
        Without the extra ``media``.
    OSError
        If the file cannot be read or has no sound.

    Example
    -------
    >>> read_media("no_such_file.avi")
    Traceback (most recent call last):
    av.error.FileNotFoundError: ... 'no_such_file.avi'
    """
    av = _av()
    try:
        with av.open(str(path)) as container:
            if not container.streams.audio:
                raise OSError(f"{path} has no sound")
            stream = container.streams.audio[0]
            stream.thread_type = "AUTO"
            rate = stream.rate
            resampler = av.AudioResampler(format="fltp", rate=rate)
            blocks = [
                block.to_ndarray()
                for frame in [*container.decode(stream), None]
                for block in resampler.resample(frame)
            ]
    except av.error.FFmpegError as error:
        # Some of its errors are OSErrors, others, such as of broken data, are not.
        raise error if isinstance(error, OSError) else OSError(str(error)) from error
    if not blocks:
        return numpy.zeros((0, 1), dtype=numpy.float32), rate
    return numpy.concatenate(blocks, axis=1).T.astype(numpy.float32), rate


class MediaFile:
    """The sound of a video, with what is used of ``soundfile.SoundFile``.

    Arguments
    ---------
    path : str or pathlib.Path
        As for ``read_media``, which decodes it whole.

    Example
    -------
    >>> MediaFile.__enter__, MediaFile.read  # with MediaFile("a.mp4") as file: ...
    (<function ...>, <function ...>)
    """

    def __init__(self, path: str | Path) -> None:
        self._samples, self.samplerate = read_media(path)
        self.frames, self.channels = self._samples.shape
        self._at = 0

    def __enter__(self) -> "MediaFile":
        return self

    def __exit__(self, *_: object) -> None:
        pass

    def seek(self, frame: int) -> None:
        """Go to a frame."""
        self._at = frame

    def read(self, frames: int, **_: object) -> numpy.ndarray:
        """The next frames, float32, (T, channels)."""
        found = self._samples[self._at : self._at + frames]
        self._at += len(found)
        return found
