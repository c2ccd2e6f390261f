"""Classifies speech with a trained model, without the recipe that trained it.

>>> from speechbrain_ser_cl.inference import EmotionRecognizer
>>> recognizer = EmotionRecognizer.from_pretrained("my_model")  # doctest: +SKIP
>>> recognizer.classify_file("speech.wav").emotion  # doctest: +SKIP
'angry'

A model is a folder from ``ser-cl export RUN MODEL_DIR``, or a repository of the Hugging
Face hub with its files. Loading runs no code from it: it contains names of registered
parts, numbers for their constructors and tensors, see ``model_folder.py``.

A recipe's runs can be exported if it trains an ``EmotionClassifier(backbone, [head],
pooling)`` and passes it to :func:`~.training.write_run` as ``model``, and if each of
its parts has a registered name and a method ``arguments()``.
"""

import re
from collections.abc import Callable, Iterable, Iterator, Sequence
from dataclasses import dataclass
from itertools import islice
from pathlib import Path
from typing import Any

import numpy
import soxr
import torch
from numpy.typing import ArrayLike
from torch import Tensor

from speechbrain_ser_cl.data.quality.audio_facts import SILENT_PEAK
from speechbrain_ser_cl.model_folder import (
    DESCRIPTION,
    WEIGHTS,
    ModelError,
    read_model,
)
from speechbrain_ser_cl.nnet.classifier import EmotionClassifier
from speechbrain_ser_cl.nnet.lengths import valid_counts
from speechbrain_ser_cl.utils.audio import (
    LOUDEST,
    SAMPLE_RATE,
    AudioError,
    load_audio,
)

_NOT_FINITE = "the model's output is not finite: too loud, or the model is damaged"
# Longer files are always cut into windows.
LONGEST_UTTERANCE = 60.0
WINDOW = 10.0
# Seconds of padded speech per batch; a single utterance may be longer.
BATCH_SECONDS = 120.0
# Number of files that are read before sorting by length.
_FILES_AT_ONCE = 256


@dataclass(frozen=True)
class Classification:
    """A model's answer for an utterance, a file, or a window of a file.

    Arguments
    ---------
    emotion : str
        The most probable class.
    probabilities : dict of str to float
        Probability of each class, with sum 1.
    start, end : float
        Time range of the answer, in seconds.
    timeline : tuple of Classification
        Answers for the windows, if there are any, in order of time.
    silent : bool
        Whether no sample is above -60 dB of full scale; the emotion is then
        meaningless.

    Example
    -------
    >>> found = Classification("sad", {"sad": 0.75, "happy": 0.25}, 0.0, 1.5)
    >>> found.probability
    0.75
    """

    emotion: str
    probabilities: dict[str, float]
    start: float
    end: float
    timeline: "tuple[Classification, ...]" = ()
    silent: bool = False

    @property
    def probability(self) -> float:
        """Probability of the most probable class."""
        return self.probabilities[self.emotion]

    def as_dict(self) -> dict[str, Any]:
        """Converts to plain values, for JSON."""
        return {
            "emotion": self.emotion,
            "probabilities": self.probabilities,
            "start": self.start,
            "end": self.end,
            "silent": self.silent,
            "timeline": [window.as_dict() for window in self.timeline],
        }


@dataclass(frozen=True)
class SeveralEmotions(Classification):
    """The answer of a model for several emotions at once.

    ``probabilities`` are those of each emotion separately; ``emotion`` is the most
    probable one.

    Example
    -------
    >>> found = SeveralEmotions("sad", {"sad": 0.75, "angry": 0.5}, 0.0, 1.5)
    >>> found.emotions
    ('sad',)
    """

    @property
    def emotions(self) -> tuple[str, ...]:
        """Emotions with a probability above 0.5; may be empty."""
        return tuple(name for name, p in self.probabilities.items() if p > 0.5)

    def as_dict(self) -> dict[str, Any]:
        """Converts to plain values, for JSON."""
        return {"emotions": list(self.emotions)} | super().as_dict()


@dataclass(frozen=True)
class Rating:
    """The answer of a model for dimensions such as arousal.

    Arguments
    ---------
    values : dict of str to float
        Value of each dimension, on the scale of the training corpus.
    start, end, timeline, silent
        As in :class:`Classification`.

    Example
    -------
    >>> Rating({"arousal": 3.5}, 0.0, 1.5).values["arousal"]
    3.5
    """

    values: dict[str, float]
    start: float
    end: float
    timeline: "tuple[Rating, ...]" = ()
    silent: bool = False

    def as_dict(self) -> dict[str, Any]:
        """Converts to plain values, for JSON."""
        return {
            "values": self.values,
            "start": self.start,
            "end": self.end,
            "silent": self.silent,
            "timeline": [window.as_dict() for window in self.timeline],
        }


Answer = Classification | Rating


class EmotionRecognizer:
    """Classifies files and waveforms with a trained model.

    The result of an utterance does not depend on the others in its batch, up to
    rounding (about 1e-6), and equals that of the run's own test.

    Arguments
    ---------
    model : EmotionClassifier
        Waveforms to logits.
    class_names : sequence of str
        Names of the classes 0, 1, …
    device : str or torch.device, optional
        Device of the model. Default: a GPU if there is one.

    Attributes
    ----------
    class_names : list of str
        Names of the classes, or of the dimensions.
    kind : str
        ``"classes"``: results are :class:`Classification`; ``"emotions"``:
        :class:`SeveralEmotions`; ``"dimensions"``: :class:`Rating`.
    max_seconds : float
        Files up to this length are one utterance, unless a window is given.

    Example
    -------
    >>> from speechbrain_ser_cl.backbones import WeightedSSL
    >>> from speechbrain_ser_cl.nnet import ClassifierHead, MeanPooling
    >>> config = {"model_type": "whisper", "d_model": 16, "encoder_layers": 2,
    ...     "encoder_attention_heads": 2, "encoder_ffn_dim": 32}
    >>> model = EmotionClassifier(
    ...     WeightedSSL(config), [ClassifierHead(16, n_classes=2)], MeanPooling()
    ... )
    >>> recognizer = EmotionRecognizer(model, ["negative", "positive"], device="cpu")
    >>> found = recognizer.classify_batch([torch.randn(8000), torch.randn(4000)])
    >>> [(one.end, one.probability) for one in found]
    [(0.5, 0.5), (0.25, 0.5)]
    """

    def __init__(
        self,
        model: EmotionClassifier,
        class_names: Sequence[str],
        device: str | torch.device | None = None,
    ) -> None:
        if device is None:
            device = "cuda" if torch.cuda.is_available() else "cpu"
        try:
            self.device = torch.device(device)
            self.model = model.eval().to(self.device)
        except (RuntimeError, AssertionError) as error:  # AssertionError: no CUDA
            raise ValueError(
                f"device {str(device)!r} cannot be used here: {error}"
            ) from error
        self.class_names, self.kind = list(class_names), model.kind
        self._limit = getattr(model.encoder.backbone, "max_seconds", None)
        self.max_seconds = min(self._limit or LONGEST_UTTERANCE, LONGEST_UTTERANCE)

    @classmethod
    def from_pretrained(
        cls,
        source: str | Path,
        revision: str | None = None,
        device: str | torch.device | None = None,
        cache_folder: str | Path | None = None,
    ) -> "EmotionRecognizer":
        """Loads a model; never runs code that comes with it.

        Arguments
        ---------
        source : str or pathlib.Path
            Folder, or id of a repository on the Hugging Face hub, from which
            ``model.json`` and ``model.safetensors`` are downloaded.
        revision : str, optional
            Commit, tag or branch on the hub. Not used for folders.
        device : str or torch.device, optional
            Device of the model. Default: a GPU if there is one.
        cache_folder : str or pathlib.Path, optional
            Folder for downloads. None: the hub's cache.

        Returns
        -------
        EmotionRecognizer
            Ready to classify.

        Raises
        ------
        ModelError
            If there is no such model, or it is invalid.
        """
        folder = Path(source).expanduser()
        if folder.is_file():
            raise ModelError(f"{folder} is a file; expected the folder that it is in")
        if not folder.is_dir():
            folder = download(str(source), revision, cache_folder)
        return cls(*read_model(folder), device=device)

    def classify_file(
        self,
        path: str | Path,
        window: float | None = None,
        hop: float | None = None,
    ) -> Answer:
        """Classifies an audio file of any sampling rate, mono or not.

        Arguments
        ---------
        path : str or pathlib.Path
            File that libsndfile reads. Channels are averaged.
        window : float, optional
            Length of windows in seconds: the result has a timeline, and its
            probabilities are the mean over the windows. None: a file of up to
            ``max_seconds`` is one utterance; a longer one gets windows of 10 s.
        hop : float, optional
            Step between windows in seconds. Default: half a window.

        Returns
        -------
        Classification, SeveralEmotions or Rating
            Answer for the whole file; its type depends on ``kind``.

        Raises
        ------
        AudioError
            If the file cannot be used.
        ValueError
            If window or hop is out of range.
        """
        ((_, result),) = self.classify_files([path], window, hop)
        if isinstance(result, AudioError):
            raise result
        return result

    def classify_files(
        self,
        paths: Iterable[str | Path],
        window: float | None = None,
        hop: float | None = None,
    ) -> Iterator[tuple[str | Path, Answer | AudioError]]:
        """Classifies many files, in batches of similar length.

        Arguments
        ---------
        paths : iterable of str or pathlib.Path
            The files.
        window, hop : float, optional
            As for :meth:`classify_file`.

        Yields
        ------
        path : str or pathlib.Path
            Given path, in the given order.
        result : Classification, SeveralEmotions, Rating or AudioError
            An AudioError for a file that cannot be used; the others are classified.

        Raises
        ------
        ValueError
            If window or hop is out of range.
        """
        self.check_window(window, hop)
        paths = iter(paths)
        while some := list(islice(paths, _FILES_AT_ONCE)):
            loaded = [_load(path) for path in some]
            pieces: list[Tensor] = []
            spans: list[list[tuple[int, int]]] = []
            for audio in loaded:
                spans.append([])
                if isinstance(audio, Tensor):
                    spans[-1] = window_spans(len(audio), self.max_seconds, window, hop)
                    pieces += [audio[start:end] for start, end in spans[-1]]
            rows = iter(self._run(self._probabilities, pieces))
            for path, audio, found in zip(some, loaded, spans, strict=True):
                if isinstance(audio, AudioError):
                    yield path, audio
                    continue
                own = list(islice(rows, len(found)))
                try:
                    yield path, self._summary(audio, found, own)
                except AudioError as error:
                    yield path, AudioError(f"{path}: {error}")

    def classify_batch(
        self,
        wavs: Tensor | Sequence[ArrayLike | Tensor],
        lengths: Tensor | None = None,
        sample_rate: int = SAMPLE_RATE,
    ) -> list[Answer]:
        """Classifies waveforms, each as one utterance.

        Arguments
        ---------
        wavs : torch.Tensor or sequence
            Waveforms (T,) in [-1, 1], numpy or torch, of any lengths; or, as in
            SpeechBrain, a padded batch (B, T).
        lengths : torch.Tensor, optional
            Relative lengths (B,) of a padded batch, in (0, 1].
        sample_rate : int
            Sampling rate of all waveforms, in Hz.

        Returns
        -------
        list of Classification, SeveralEmotions or Rating
            In the given order.

        Raises
        ------
        AudioError
            If a waveform has a wrong shape, is empty, has samples beyond 1e6, or is
            longer than the encoder accepts; or if the model's output is not finite.
        """
        signals = self._signals(wavs, lengths, sample_rate)
        rows = self._run(self._probabilities, signals)
        return [
            self._classification(row, signal, (0, len(signal)))
            for row, signal in zip(rows, signals, strict=True)
        ]

    def encode_batch(
        self,
        wavs: Tensor | Sequence[ArrayLike | Tensor],
        lengths: Tensor | None = None,
        sample_rate: int = SAMPLE_RATE,
    ) -> Tensor:
        """Embeds waveforms: returns the input of the classifier's heads.

        Arguments
        ---------
        wavs, lengths, sample_rate
            As for :meth:`classify_batch`.

        Returns
        -------
        torch.Tensor
            One vector per utterance (B, D), float32, on the CPU.

        Raises
        ------
        AudioError
            As in :meth:`classify_batch`.
        """
        rows = self._run(self.model.encoder, self._signals(wavs, lengths, sample_rate))
        embeddings = torch.stack(rows) if rows else torch.empty(0, 0)
        if not embeddings.isfinite().all():
            raise AudioError(_NOT_FINITE)
        return embeddings

    def _probabilities(self, wavs: Tensor, lengths: Tensor) -> Tensor:
        return self.model.answers(self.model(wavs, lengths))

    @torch.no_grad()
    def _run(
        self, function: Callable[..., Tensor], signals: Sequence[Tensor]
    ) -> list[Tensor]:
        """Applies a function on batches to each signal, in batches by length."""
        rows = [torch.empty(0)] * len(signals)
        for batch in _batches([len(signal) for signal in signals]):
            longest = max(len(signals[i]) for i in batch)
            wavs = torch.zeros(len(batch), longest)
            for row, i in zip(wavs, batch, strict=True):
                row[: len(signals[i])] = signals[i]
            lengths = torch.tensor([len(signals[i]) / longest for i in batch])
            out = function(wavs.to(self.device), lengths.to(self.device))
            for i, row in zip(batch, out.float().cpu(), strict=True):
                rows[i] = row
        return rows

    def check_window(self, window: float | None, hop: float | None) -> None:
        """Refuses a window that the encoder does not accept, or a longer hop.

        Arguments
        ---------
        window, hop : float or None
            Seconds, as for :meth:`classify_file`.

        Raises
        ------
        ValueError
            The message has the expected range.
        """
        if window is None:
            if hop is not None:
                raise ValueError(f"hop is {hop}, but there is no window")
            return
        if not 0.1 <= window <= self.max_seconds:
            raise ValueError(
                f"window is {window} s, expected from 0.1 to {self.max_seconds:g} s"
            )
        if hop is not None and not 0.01 <= hop <= window:
            raise ValueError(
                f"hop is {hop} s, expected from 0.01 s to the window's {window:g} s"
            )

    def _summary(
        self, audio: Tensor, spans: Sequence[tuple[int, int]], rows: list[Tensor]
    ) -> Answer:
        """Averages the answers for a file's windows."""
        windows = [
            self._classification(row, audio, span)
            for row, span in zip(rows, spans, strict=True)
        ]
        if len(windows) == 1:
            return windows[0]
        mean = torch.stack(rows).mean(dim=0)
        return self._classification(mean, audio, (0, spans[-1][1]), windows)

    def _classification(
        self,
        row: Tensor,
        audio: Tensor,
        span: tuple[int, int],
        timeline: Sequence[Answer] = (),
    ) -> Answer:
        if not row.isfinite().all():
            raise AudioError(_NOT_FINITE)
        start, end = span
        values = dict(zip(self.class_names, row.tolist(), strict=True))
        about: Any = {
            "start": start / SAMPLE_RATE,
            "end": end / SAMPLE_RATE,
            "timeline": tuple(timeline),
            "silent": bool(audio[start:end].abs().max() < SILENT_PEAK),
        }
        if self.kind == "dimensions":
            return Rating(values, **about)
        emotion = self.class_names[int(row.argmax())]
        answer = SeveralEmotions if self.kind == "emotions" else Classification
        return answer(emotion, values, **about)

    def _signals(
        self,
        wavs: Tensor | Sequence[ArrayLike | Tensor],
        lengths: Tensor | None,
        sample_rate: int,
    ) -> list[Tensor]:
        """Checks waveforms and returns them at 16 kHz, on the CPU, without padding."""
        signals = []
        if lengths is not None:
            valid_counts(lengths, 1)  # refuses lengths that are not relative
        for i, wav in enumerate(wavs):
            array = numpy.asarray(wav.cpu() if isinstance(wav, Tensor) else wav)
            if array.ndim != 1 or array.dtype.kind != "f":
                raise AudioError(
                    f"waveform {i} has shape {array.shape} of {array.dtype}; expected "
                    "(T,) of floats in [-1, 1]: average channels, divide 16-bit "
                    "integers by 32768"
                )
            array = array.astype(numpy.float32)
            if lengths is not None:
                array = array[: max(round(float(lengths[i]) * len(array)), 1)]
            if sample_rate != SAMPLE_RATE and len(array):
                array = soxr.resample(array, sample_rate, SAMPLE_RATE)
            # A comparison that is False for NaN.
            if len(array) == 0 or not numpy.abs(array).max() <= LOUDEST:
                raise AudioError(
                    f"waveform {i} is empty, or has values that are not finite or "
                    f"beyond {LOUDEST:g}; full scale is 1"
                )
            seconds = len(array) / SAMPLE_RATE
            if self._limit is not None and seconds > self._limit:
                raise AudioError(
                    f"waveform {i} is {seconds:.2f} s long, and the encoder takes "
                    f"{self._limit:g} s: cut it, or use classify_file, which does"
                )
            signals.append(torch.from_numpy(array))
        return signals


def window_spans(
    n_samples: int,
    longest: float,
    window: float | None = None,
    hop: float | None = None,
) -> list[tuple[int, int]]:
    """Cuts a recording into windows; the last window ends with the recording.

    Arguments
    ---------
    n_samples : int
        Number of samples of the recording, at 16 kHz.
    longest : float
        Longest recording in seconds that is one window, if no window is given.
    window : float, optional
        Length of a window in seconds. None: 10 s, or ``longest`` if smaller.
    hop : float, optional
        Step between windows in seconds. Default: half a window.

    Returns
    -------
    list of (int, int)
        First sample of each window, and the sample after its last one.

    Example
    -------
    >>> window_spans(40000, longest=60.0, window=1.0)
    [(0, 16000), (8000, 24000), (16000, 32000), (24000, 40000)]
    """
    if window is None:
        if n_samples <= longest * SAMPLE_RATE:
            return [(0, n_samples)]
        window = min(WINDOW, longest)
    size = round(window * SAMPLE_RATE)
    step = round((hop or window / 2) * SAMPLE_RATE)
    starts = [*range(0, max(n_samples - size, 0), step), max(n_samples - size, 0)]
    return [(start, min(start + size, n_samples)) for start in starts]


def _load(path: str | Path) -> Tensor | AudioError:
    try:
        return load_audio(path)
    except AudioError as error:
        return error
    except MemoryError:
        return AudioError(f"{path}: too long for this machine's memory")


def _batches(sizes: Sequence[int]) -> Iterator[list[int]]:
    """Yields indices, longest first, with at most BATCH_SECONDS of padded speech."""
    batch: list[int] = []
    for i in sorted(range(len(sizes)), key=sizes.__getitem__, reverse=True):
        if batch and (len(batch) + 1) * sizes[batch[0]] > BATCH_SECONDS * SAMPLE_RATE:
            yield batch
            batch = []
        batch.append(i)
    if batch:
        yield batch


def download(
    source: str,
    revision: str | None = None,
    cache_folder: str | Path | None = None,
    allow: Sequence[str] = (DESCRIPTION, WEIGHTS),
) -> Path:
    """Downloads selected files of a repository of the Hugging Face hub.

    Arguments
    ---------
    source : str
        Id, such as ``owner/name``.
    revision : str, optional
        Commit, tag or branch.
    cache_folder : str or pathlib.Path, optional
        Output folder. None: the hub's cache.
    allow : sequence of str
        Patterns of the file names.

    Returns
    -------
    pathlib.Path
        Folder of the files.

    Raises
    ------
    ModelError
        If there is no such repository, or the hub cannot be reached.
    """
    if not re.fullmatch(r"[A-Za-z0-9][\w.-]*/[\w.-]+", source):
        raise ModelError(
            f"no folder {source}; expected one that `ser-cl export` wrote, or a hub id "
            "such as owner/name"
        )
    from huggingface_hub import snapshot_download

    try:
        folder = snapshot_download(
            source,
            revision=revision,
            cache_dir=cache_folder,
            allow_patterns=list(allow),
        )
    except (OSError, ValueError) as error:
        raise ModelError(
            f"no folder {source}, and the Hugging Face hub has no such model, or "
            f"cannot be reached ({error})"
        ) from error
    return Path(folder)
