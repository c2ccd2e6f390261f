"""Reads the audio of videos and of formats unknown to libsndfile, by PyAV."""

from pathlib import Path
from types import ModuleType

import numpy

MEDIA = {
    *(".avi", ".mp4", ".m4a", ".m4v", ".mov", ".mkv"),
    *(".webm", ".aac", ".wma", ".amr", ".3gp", ".flv"),
}
"""Suffixes of formats that PyAV reads and libsndfile does not."""


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
    """Reads the duration of a video's audio without decoding it.

    Arguments
    ---------
    path : str or pathlib.Path
        File with a suffix in ``MEDIA``.

    Returns
    -------
    float
        Seconds; 0 if it cannot be read or has no audio. Audio without a duration in the
        header, as in webm from a browser, is decoded.

    Raises
    ------
    ImportError
        If the extra ``media`` is not installed.

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
    """Decodes the first audio track of a video.

    Arguments
    ---------
    path : str or pathlib.Path
        File that FFmpeg reads.

    Returns
    -------
    samples : numpy.ndarray
        Float32, (T, channels), nominally in [-1, 1].
    rate : int
        Samples per second.

    Raises
    ------
    ImportError
        If the extra ``media`` is not installed.
    OSError
        If the file cannot be read or has no audio.

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
        # Some PyAV errors are OSErrors; others, such as for broken data, are not.
        raise error if isinstance(error, OSError) else OSError(str(error)) from error
    if not blocks:
        return numpy.zeros((0, 1), dtype=numpy.float32), rate
    return numpy.concatenate(blocks, axis=1).T.astype(numpy.float32), rate


class MediaFile:
    """The audio of a video, with some methods of ``soundfile.SoundFile``.

    Arguments
    ---------
    path : str or pathlib.Path
        As in ``read_media``, which decodes the whole file.

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
        """Moves to a frame."""
        self._at = frame

    def read(self, frames: int, **_: object) -> numpy.ndarray:
        """Returns the next frames, float32, (T, channels)."""
        found = self._samples[self._at : self._at + frames]
        self._at += len(found)
        return found
