"""Recognises the emotions of a stream of audio, window by window."""

from collections.abc import Iterator, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import numpy as np
import soxr
from numpy.typing import ArrayLike

from speechbrain_ser_cl.inference import Classification, EmotionRecognizer
from speechbrain_ser_cl.recordings.activity import (
    ACTIVITIES,
    EnergyFrames,
    SileroFrames,
    SpeechSegments,
)
from speechbrain_ser_cl.recordings.turns import Turn
from speechbrain_ser_cl.utils.audio import SAMPLE_RATE, AudioError, stream_audio
from speechbrain_ser_cl.utils.errors import SERError

# Shorter speech is not classified.
SHORTEST = 0.1
# Two per second for half a day.
_MOST_TURNS = 100_000


@dataclass(frozen=True)
class Heard(Classification):
    """The model's output for a window of a recording.

    Arguments
    ---------
    emotion, probabilities, start, end, timeline, silent
        As in ``Classification``; smoothed if requested.
    speaker : str or None
        Speaker of the turn, if turns are given.
    segment : int
        Number of the window's speech segment or turn.

    Example
    -------
    >>> Heard("sad", {"sad": 1.0}, 0.0, 2.0, speaker="A").as_dict()["speaker"]
    'A'
    """

    speaker: str | None = None
    segment: int = 0

    def as_dict(self) -> dict[str, Any]:
        """Converts to plain values, for JSON."""
        told = super().as_dict()
        del told["timeline"]
        return told | {"speaker": self.speaker, "segment": self.segment}


@dataclass
class _Segment:
    """A segment or turn that is not yet completely classified."""

    number: int
    start: int
    end: int | None = None
    speaker: str | None = None
    n_cut: int = 0
    # Windows that later windows are averaged with, and number of returned windows.
    rows: list[Classification] = field(default_factory=list)
    first: int = 0
    n_told: int = 0


class EmotionStream:
    """Takes audio in chunks of any size; returns windows once complete.

    The windows, and up to rounding their probabilities, do not depend on the chunk
    sizes. Memory holds one window and the delay of the voice activity detection:
    seconds of audio.

    Arguments
    ---------
    recognizer : EmotionRecognizer
        The model.
    window : float
        Length of a window in seconds. The last window of a segment ends with the
        segment; a shorter segment is one window.
    hop : float, optional
        Step between windows in seconds. Default: half a window.
    activity : str
        Voice activity detection: ``"energy"``, ``"silero"``, or ``"none"`` (all is
        speech).
    turns : sequence of Turn, optional
        Turns, in place of voice activity detection; may overlap.
    smooth : int
        Number of windows of a segment over which probabilities are averaged, centred.
        Odd.
    sample_rate : int
        Sampling rate of the chunks, in Hz.

    Raises
    ------
    ValueError
        If a value is out of range.

    Example
    -------
    Each chunk of a microphone::

        stream = EmotionStream(recognizer, window=3.0)
        for chunk in chunks:  # (T,) in [-1, 1]
            for heard in stream.add(chunk):
                print(f"{heard.start:.1f} s: {heard.emotion}")
        print(stream.finish())
    """

    def __init__(
        self,
        recognizer: EmotionRecognizer,
        window: float = 3.0,
        hop: float | None = None,
        activity: str = "energy",
        turns: Sequence[Turn] | None = None,
        smooth: int = 1,
        sample_rate: int = SAMPLE_RATE,
    ) -> None:
        if (kind := getattr(recognizer, "kind", "classes")) != "classes":
            raise ValueError(
                f"the model answers {kind}, expected classes; ser-cl predict with "
                "--window alone accepts it"
            )
        recognizer.check_window(window, hop)
        if smooth < 1 or smooth % 2 == 0:
            raise SERError(f"smooth is {smooth}, expected an odd number of windows")
        if activity not in ACTIVITIES:
            raise SERError(
                f"activity is {activity!r}, expected one of {', '.join(ACTIVITIES)}"
            )
        if turns is not None and len(turns) > _MOST_TURNS:
            raise SERError(f"{len(turns)} turns, expected at most {_MOST_TURNS}")
        self._recognizer = recognizer
        self._size = round(window * SAMPLE_RATE)
        self._step = round((hop or window / 2) * SAMPLE_RATE)
        self._reach = smooth // 2
        self._resample = None
        if sample_rate != SAMPLE_RATE:
            self._resample = soxr.ResampleStream(sample_rate, SAMPLE_RATE, 1)
        self._audio = np.zeros(0, np.float32)
        # Number of the first sample in memory, and of all samples received.
        self._first = self._n_samples = 0
        self._open: list[_Segment] = []
        self._waiting: list[_Segment] = []
        self._speech: SpeechSegments | None = None
        self._n_segments = 0
        if turns is not None:
            for turn in sorted(turns, key=lambda turn: turn.start):
                start, end = (round(t * SAMPLE_RATE) for t in turn[:2])
                self._waiting.append(self._new(start, end, turn.speaker))
            self._waiting.reverse()
        elif activity == "none":
            self._open.append(self._new(0))
        else:
            frames = EnergyFrames() if activity == "energy" else SileroFrames()
            self._speech = SpeechSegments(frames, self._opened, self._closed)

    @property
    def seconds(self) -> float:
        """Seconds of audio received."""
        return self._n_samples / SAMPLE_RATE

    @property
    def buffered_seconds(self) -> float:
        """Seconds of audio in memory."""
        return len(self._audio) / SAMPLE_RATE

    def add(self, chunk: ArrayLike) -> list[Heard]:
        """Processes the next samples.

        Arguments
        ---------
        chunk : array_like of float
            (T,) in [-1, 1], T of any size.

        Returns
        -------
        list of Heard
            Windows that are now complete.

        Raises
        ------
        AudioError
            If the chunk is not a waveform.
        """
        samples = np.asarray(chunk)
        if samples.ndim != 1 or samples.dtype.kind != "f":
            raise AudioError(
                f"a chunk has shape {samples.shape} of {samples.dtype}; expected (T,) "
                "of floats in [-1, 1]"
            )
        samples = samples.astype(np.float32)
        if self._resample is not None:
            samples = self._resample.resample_chunk(samples)
        return self._take(samples)

    def finish(self) -> list[Heard]:
        """Ends the recording.

        Returns
        -------
        list of Heard
            Remaining windows.

        Raises
        ------
        SERError
            If all turns begin after the end.
        """
        found = []
        if self._resample is not None:
            rest = self._resample.resample_chunk(np.zeros(0, np.float32), last=True)
            found = self._take(rest)
        if self._speech is not None:
            self._speech.finish(self._n_samples)
        if self._waiting and len(self._waiting) == self._n_segments:
            raise SERError(
                "each turn begins after the end of the recording at "
                f"{self.seconds:.2f} s; expected turns of this recording, in seconds"
            )
        for segment in self._open:
            segment.end = min(segment.end or self._n_samples, self._n_samples)
        return found + self._complete()

    def _new(
        self, start: int, end: int | None = None, speaker: str | None = None
    ) -> _Segment:
        self._n_segments += 1
        return _Segment(self._n_segments - 1, start, end, speaker)

    def _opened(self, start: int) -> None:
        self._open.append(self._new(start))

    def _closed(self, end: int) -> None:
        self._open[-1].end = end

    def _take(self, samples: np.ndarray) -> list[Heard]:
        self._audio = np.concatenate([self._audio, samples])
        self._n_samples += len(samples)
        if self._speech is not None:
            self._speech.add(samples)
        while self._waiting and self._waiting[-1].start < self._n_samples:
            self._open.append(self._waiting.pop())
        found = self._complete()
        self._forget()
        return found

    def _forget(self) -> None:
        """Removes audio that no window needs any more."""
        needed = [s.start + s.n_cut * self._step for s in self._open]
        # The last window of a segment may start before the next regular window.
        needed = [max(n - self._size, 0) for n in needed]
        needed.append(self._n_samples if self._speech is None else self._speech.quiet)
        first = min(max(min(needed), self._first), self._n_samples)
        self._audio = self._audio[first - self._first :]
        self._first = first

    def _complete(self) -> list[Heard]:
        """Classifies the windows of all open segments whose audio is complete."""
        cut = [
            (segment, span) for segment in self._open for span in self._windows(segment)
        ]
        wavs = [
            self._audio[start - self._first : end - self._first]
            for _, (start, end) in cut
        ]
        answers = self._recognizer.classify_batch(wavs)
        for (segment, (start, end)), one in zip(cut, answers, strict=True):
            assert isinstance(one, Classification)  # as its kind defines
            segment.rows.append(
                Classification(
                    one.emotion,
                    one.probabilities,
                    start / SAMPLE_RATE,
                    end / SAMPLE_RATE,
                    silent=one.silent,
                )
            )
        found = [heard for segment in self._open for heard in self._told(segment)]
        self._open = [segment for segment in self._open if not self._is_over(segment)]
        return sorted(found, key=lambda heard: (heard.start, heard.segment))

    def _is_over(self, segment: _Segment) -> bool:
        return segment.end is not None and segment.end <= self._n_samples

    def _windows(self, segment: _Segment) -> Iterator[tuple[int, int]]:
        """Yields the next spans of a segment, except one that may be its last."""
        known = self._n_samples
        if segment.end is None and self._speech is not None:
            known = self._speech.known
        over = self._is_over(segment)
        known = min(known, segment.end or known)
        length = known - segment.start
        while segment.n_cut * self._step < length - self._size:
            start = segment.start + segment.n_cut * self._step
            segment.n_cut += 1
            yield start, start + self._size
        if over and length >= SHORTEST * SAMPLE_RATE:
            start = segment.start + max(length - self._size, 0)
            segment.n_cut += 1
            yield start, known

    def _told(self, segment: _Segment) -> Iterator[Heard]:
        n_ready = segment.first + len(segment.rows)
        if not self._is_over(segment):
            n_ready -= self._reach
        for k in range(segment.n_told, n_ready):
            low = max(k - self._reach, 0) - segment.first
            near = segment.rows[low : k + self._reach + 1 - segment.first]
            shares = {
                name: float(np.mean([one.probabilities[name] for one in near]))
                for name in near[0].probabilities
            }
            one = segment.rows[k - segment.first]
            yield Heard(
                max(shares, key=shares.__getitem__),
                shares,
                one.start,
                one.end,
                silent=one.silent,
                speaker=segment.speaker,
                segment=segment.number,
            )
            segment.n_told = k + 1
        drop = max(segment.n_told - self._reach - segment.first, 0)
        segment.rows, segment.first = segment.rows[drop:], segment.first + drop


def follow_file(stream: EmotionStream, path: str | Path) -> Iterator[Heard]:
    """Classifies the windows of a long recording, reading it in blocks.

    Arguments
    ---------
    stream : EmotionStream
        A new stream; at the end its ``seconds`` is the length of the recording.
    path : str or pathlib.Path
        Audio file of up to 6 hours.

    Yields
    ------
    Heard
        In order of time; for overlapping turns in the order of completion.

    Raises
    ------
    AudioError
        If the file cannot be used.
    """
    for block in stream_audio(path):
        # A block of the reader may be a minute; smaller chunks use less memory.
        for start in range(0, len(block), 4 * SAMPLE_RATE):
            yield from stream.add(block[start : start + 4 * SAMPLE_RATE])
    yield from stream.finish()
