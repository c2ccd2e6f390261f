"""Voice activity detection: where a stream contains speech."""

from collections import deque
from collections.abc import Callable, Iterator
from typing import Any

import numpy as np

from speechbrain_ser_cl.utils.audio import SAMPLE_RATE

ACTIVITIES = ("none", "energy", "silero")
_AHEAD, _BACK = 200, 1000  # frames for the noise floor: 2 s ahead, 10 s back
_SMOOTH = 5
_ABOVE = 12.0  # dB above the noise floor
_FLOOR = (-75.0, -45.0)  # dB of full scale, limits of the noise floor
_START, _STOP, _PAD = 0.1, 0.5, 0.1  # seconds


class EnergyFrames:
    r"""Decides for each 10 ms by the energy above the noise floor.

    With the mean energy :math:`e_t` of the last 5 frames in dB of full scale,

    .. math::
        v_t = [e_t > 12 + \min(\max(\min_{t - 1000 < s \le t + 200} e_s, -75), -45)]

    so a decision is made 2 s after its frame. Suitable for rooms with steady noise, not
    for music.

    Example
    -------
    >>> frames = EnergyFrames()
    >>> noise = 0.001 * np.random.default_rng(0).standard_normal(32000)
    >>> tone = 0.3 * np.sin(np.arange(16000) / 5)
    >>> found = [*frames.add(np.concatenate([noise, tone, noise])), *frames.finish()]
    >>> len(found), int(sum(found[:200])), int(sum(found[205:300]))
    (500, 0, 95)
    """

    size = SAMPLE_RATE // 100

    def __init__(self) -> None:
        self._rest = np.zeros(0, np.float32)
        self._last: deque[float] = deque(maxlen=_SMOOTH)
        self._waiting: deque[float] = deque()
        # Frame and energy, increasing: the first is the minimum over the window.
        self._least: deque[tuple[int, float]] = deque()
        self._n_seen = self._n_decided = 0

    def add(self, samples: np.ndarray) -> Iterator[bool]:
        """Yields decisions in order, as soon as they can be made."""
        samples = np.concatenate([self._rest, samples])
        n_frames = len(samples) // self.size
        frames = samples[: n_frames * self.size].reshape(n_frames, self.size)
        self._rest = samples[n_frames * self.size :]
        for power in (frames.astype(np.float64) ** 2).mean(axis=1).tolist():
            self._last.append(power)
            energy = 10 * np.log10(sum(self._last) / len(self._last) + 1e-12)
            self._waiting.append(energy)
            while self._least and self._least[-1][1] >= energy:
                self._least.pop()
            self._least.append((self._n_seen, energy))
            self._n_seen += 1
            if len(self._waiting) > _AHEAD:
                yield self._decide()

    def finish(self) -> Iterator[bool]:
        """Yields the remaining decisions."""
        while self._waiting:
            yield self._decide()

    def _decide(self) -> bool:
        while self._least[0][0] <= self._n_decided - _BACK:
            self._least.popleft()
        self._n_decided += 1
        floor = min(max(self._least[0][1], _FLOOR[0]), _FLOOR[1])
        return self._waiting.popleft() > floor + _ABOVE


class SileroFrames:
    """Decides for each 32 ms by the network of the package ``silero-vad``.

    The package contains the weights; nothing is downloaded. Speech starts above a
    probability of 0.5 and continues above 0.35.

    Raises
    ------
    ImportError
        If the extra ``vad`` is not installed.
    """

    size = 512

    def __init__(self) -> None:
        import torch

        threads = torch.get_num_threads()
        try:
            from silero_vad import load_silero_vad
        except ImportError as error:
            raise ImportError(
                f"{error}; silero's voice activity needs: "
                "pip install 'speechbrain_ser_cl[vad]'"
            ) from error
        torch.set_num_threads(threads)  # which the package sets to one for all
        self._model: Any = load_silero_vad()
        self._rest = np.zeros(0, np.float32)
        self._speaking = False

    def add(self, samples: np.ndarray) -> Iterator[bool]:
        """Yields decisions in order."""
        import torch

        samples = np.concatenate([self._rest, samples])
        n_frames = len(samples) // self.size
        self._rest = samples[n_frames * self.size :]
        for k in range(n_frames):
            frame = torch.from_numpy(samples[k * self.size : (k + 1) * self.size])
            with torch.no_grad():
                share = float(self._model(frame, SAMPLE_RATE))
            self._speaking = share > (0.35 if self._speaking else 0.5)
            yield self._speaking

    def finish(self) -> Iterator[bool]:
        """Yields nothing, because decisions have no delay."""
        yield from ()


class SpeechSegments:
    """Joins decisions on frames to segments of speech.

    A segment starts with 0.1 s of voiced frames and ends before 0.5 s of unvoiced ones;
    it is extended by 0.1 s at both ends.

    Arguments
    ---------
    frames : EnergyFrames or SileroFrames
        Voice activity detector.
    opened : callable
        Called with the first sample of a segment.
    closed : callable
        Called with the sample after its last one.

    Attributes
    ----------
    known : int
        The open segment contains all samples up to this one.
    quiet : int
        No later segment starts before this sample.
    """

    def __init__(
        self,
        frames: EnergyFrames | SileroFrames,
        opened: Callable[[int], None],
        closed: Callable[[int], None],
    ) -> None:
        self._frames, self._opened, self._closed = frames, opened, closed
        rate = SAMPLE_RATE / frames.size
        self._start, self._stop = round(_START * rate), round(_STOP * rate)
        self._pad = round(_PAD * SAMPLE_RATE)
        self._n = self._voiced = self._unvoiced = 0
        self._open = False
        self._end = self.known = self.quiet = 0

    def add(self, samples: np.ndarray) -> None:
        """Processes the next samples (T,) at 16 kHz."""
        for voiced in self._frames.add(samples):
            self._decided(voiced)

    def finish(self, n_samples: int) -> None:
        """Processes the end of the recording, at this number of samples."""
        for voiced in self._frames.finish():
            self._decided(voiced)
        if self._open:
            self._close(n_samples)

    def _decided(self, voiced: bool) -> None:
        self._n += 1
        self._voiced = self._voiced + 1 if voiced else 0
        self._unvoiced = 0 if voiced else self._unvoiced + 1
        size = self._frames.size
        if not self._open and self._voiced == self._start:
            first = (self._n - self._voiced) * size - self._pad
            self._opened(max(first, self._end, 0))
            self._open = True
        if self._open and voiced:
            self.known = self._n * size
        if self._open and self._unvoiced == self._stop:
            self._close(self.known + self._pad)
        if not self._open:
            self.quiet = max((self._n - self._voiced) * size - self._pad, self._end, 0)

    def _close(self, end: int) -> None:
        self._open = False
        self._end = min(end, self.known + self._pad)
        self._closed(self._end)
