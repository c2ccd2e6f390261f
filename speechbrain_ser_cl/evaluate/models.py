"""Loads models from elsewhere with one interface: waveform to probabilities."""

import hashlib
import json
from abc import ABC, abstractmethod
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import soxr
import torch
from torch import Tensor
from typing_extensions import override

from speechbrain_ser_cl.corpora.table_file import READERS, TEXTS, read_rows
from speechbrain_ser_cl.corpora.utterance import Utterance
from speechbrain_ser_cl.evaluate.speechbrain_folder import SETTINGS, SpeechBrainModel
from speechbrain_ser_cl.inference import (
    LONGEST_UTTERANCE,
    Classification,
    EmotionRecognizer,
    download,
    window_spans,
)
from speechbrain_ser_cl.model_folder import DESCRIPTION, ModelError
from speechbrain_ser_cl.utils.audio import SAMPLE_RATE, load_audio
from speechbrain_ser_cl.utils.errors import offenders
from speechbrain_ser_cl.utils.files import read_text
from speechbrain_ser_cl.utils.records import checksum

_FILES = ("*.json", "*.safetensors", SETTINGS, "*.ckpt", "*.txt", "*.onnx", "README.md")
_WEIGHTS = ("*.safetensors", "*.bin", "*.ckpt", "*.onnx", "*.onnx.data")


@dataclass
class Origin:
    """The source of a model.

    Arguments
    ---------
    name : str
        The name that the user gave, without parent folders.
    kind : str
        ``transformers``, ``speechbrain``, ``own``, ``onnx`` or ``predictions``.
    card : str
        Text of the model card; empty if there is none.
    mark : str
        Hash of the files.

    Example
    -------
    >>> Origin("wav2vec2-er", "transformers", "", "0a").name
    'wav2vec2-er'
    """

    name: str
    kind: str
    card: str
    mark: str


class Classifier(ABC):
    """Computes probabilities of its own labels.

    Attributes
    ----------
    labels : list of str
        Names of the L labels.
    origin : Origin
        Source of the model.
    """

    labels: list[str]
    origin: Origin

    @abstractmethod
    def outputs(self, utterances: Sequence[Utterance]) -> Iterator[np.ndarray]:
        """Yields probabilities (L,) of each utterance, in order.

        Each utterance is classified alone, so padding has no influence.
        """


class _OfWaveforms(Classifier):
    """A classifier that reads the audio."""

    seconds = LONGEST_UTTERANCE

    @override
    def outputs(self, utterances: Sequence[Utterance]) -> Iterator[np.ndarray]:
        for utterance in utterances:
            wav = load_audio(utterance.path)
            rows = [
                self.probabilities(wav[start:end])
                for start, end in window_spans(len(wav), self.seconds)
            ]
            row = np.mean(rows, axis=0)
            if row.shape != (len(self.labels),) or not np.isfinite(row).all():
                raise ModelError(
                    f"{self.origin.name}: {utterance.path} gives {row.shape} values, "
                    f"expected {len(self.labels)} finite ones: {', '.join(self.labels)}"
                )
            yield row

    @abstractmethod
    def probabilities(self, wav: Tensor) -> np.ndarray:
        """Computes probabilities (L,) of a waveform (T,) at 16 kHz."""


class _Own(_OfWaveforms):
    def __init__(self, folder: Path, device: str | None) -> None:
        self._model = EmotionRecognizer.from_pretrained(folder, device=device)
        if self._model.kind != "classes":
            raise ValueError(
                f"{folder}: its model answers {self._model.kind}, classes are tested"
            )
        self.labels = self._model.class_names
        self.seconds = self._model.max_seconds

    @override
    def probabilities(self, wav: Tensor) -> np.ndarray:
        (found,) = self._model.classify_batch([wav])
        assert isinstance(found, Classification)
        return np.array(list(found.probabilities.values()))


class _Network(_OfWaveforms):
    """A PyTorch classifier on a device."""

    _rate = SAMPLE_RATE

    def _to_device(self, model: torch.nn.Module, device: str | None) -> None:
        self._device = device or ("cuda" if torch.cuda.is_available() else "cpu")
        self._model = model.eval().to(self._device)

    def _at_rate(self, wav: Tensor) -> np.ndarray:
        samples = wav.numpy()
        if self._rate != SAMPLE_RATE:
            samples = soxr.resample(samples, SAMPLE_RATE, self._rate)
        return np.asarray(samples, dtype=np.float32)


class _Transformers(_Network):
    def __init__(self, folder: Path, device: str | None) -> None:
        from transformers import AutoFeatureExtractor, AutoModelForAudioClassification

        options: dict[str, Any] = {"trust_remote_code": False, "local_files_only": True}
        try:
            self._extract = AutoFeatureExtractor.from_pretrained(folder, **options)
            model, told = AutoModelForAudioClassification.from_pretrained(
                folder, dtype=torch.float32, output_loading_info=True, **options
            )
        except Exception as error:  # any exception of transformers
            words = " ".join(str(error).split())
            raise ModelError(
                f"{folder}: transformers cannot load it as an audio classifier "
                f"without running code of the folder: {words:.300}"
            ) from error
        missing = {*told["missing_keys"], *(key for key, *_ in told["mismatched_keys"])}
        missing -= {name for name in missing if name.endswith("masked_spec_embed")}
        if missing:
            raise ModelError(
                f"{folder}: the weights have no {' and no '.join(sorted(missing)[:3])} "
                f"({len(missing)} missing), which would be random"
            )
        config = model.config
        if config.problem_type == "regression" or config.num_labels < 2:
            raise ModelError(
                f"{folder}: a regression with {config.num_labels} outputs, expected "
                "two labels or more"
            )
        self._several = config.problem_type == "multi_label_classification"
        self.labels = [str(config.id2label[k]) for k in range(config.num_labels)]
        self._rate = int(getattr(self._extract, "sampling_rate", SAMPLE_RATE))
        limit = getattr(self._extract, "chunk_length", None)  # Whisper
        frames = getattr(self._extract, "max_length", None)  # AST, 10 ms each
        if isinstance(limit, int | float):
            self.seconds = min(self.seconds, float(limit))
        elif isinstance(frames, int):
            self.seconds = min(self.seconds, frames / 100)
        self._to_device(model, device)

    @override
    @torch.no_grad()
    def probabilities(self, wav: Tensor) -> np.ndarray:
        inputs = self._extract(
            self._at_rate(wav), sampling_rate=self._rate, return_tensors="pt"
        )
        logits = self._model(**inputs.to(self._device)).logits[0].float()
        shares = logits.sigmoid() if self._several else logits.softmax(0)
        found: np.ndarray = (shares / shares.sum()).cpu().numpy()
        return found


class _SpeechBrain(_Network):
    def __init__(self, folder: Path, device: str | None) -> None:
        model = SpeechBrainModel(folder)
        self.labels, self._rate = model.labels, model.rate
        self._to_device(model, device)

    @override
    @torch.no_grad()
    def probabilities(self, wav: Tensor) -> np.ndarray:
        wavs = torch.from_numpy(self._at_rate(wav))[None].to(self._device)
        # The softmax of log-probabilities is their exponential.
        found: np.ndarray = self._model(wavs)[0].float().softmax(0).cpu().numpy()
        return found


class _Onnx(_OfWaveforms):
    def __init__(self, path: Path) -> None:
        try:
            import onnxruntime
        except ImportError as error:
            raise ImportError(
                f"{error}; an ONNX file needs: pip install 'speechbrain_ser_cl[onnx]'"
            ) from error
        try:
            self._session = onnxruntime.InferenceSession(
                path, providers=["CPUExecutionProvider"]
            )
        except Exception as error:  # onnxruntime's own exceptions
            raise ModelError(
                f"{path}: not a usable ONNX file: {error!s:.300}"
            ) from error
        inputs, outputs = self._session.get_inputs(), self._session.get_outputs()
        if len(inputs) != 1 or len(inputs[0].shape) != 2:
            raise ModelError(
                f"{path}: inputs are {[(one.name, one.shape) for one in inputs]}, "
                "expected one: waveforms (1, T) at 16 kHz"
            )
        self._input, self._output = inputs[0].name, outputs[0].name
        told = self._session.get_modelmeta().custom_metadata_map.get("classes")
        count = outputs[0].shape[-1]
        if told is not None:
            self.labels = [str(name) for name in json.loads(told)]
        elif isinstance(count, int):
            self.labels = [str(k) for k in range(count)]
        else:
            raise ModelError(
                f"{path}: neither metadata 'classes' (a JSON list) nor a fixed number "
                "of outputs says what the labels are"
            )

    @override
    def probabilities(self, wav: Tensor) -> np.ndarray:
        feed = {self._input: wav.numpy()[None]}
        row = np.asarray(self._session.run([self._output], feed)[0], float).ravel()
        if (row < 0).any() or abs(row.sum() - 1) > 1e-3:
            row = np.exp(row - row.max())  # logits
        found: np.ndarray = row / row.sum()
        return found


class _Predictions(Classifier):
    """A table with one row per utterance."""

    def __init__(self, path: Path) -> None:
        rows = read_rows(path)
        columns = {name.lower(): name for name in rows[0]}
        self._path = path
        key = next((columns[n] for n in _IDS if n in columns), None)
        said = next((columns[n] for n in _SAID if n in columns), None)
        shares = [name for name in rows[0] if name.startswith("p_")]
        if key is None or not (said or shares):
            raise ModelError(
                f"{path}: the columns are {', '.join(rows[0])}; expected "
                f"{' or '.join(_IDS)}, and {' or '.join(_SAID)} or p_<label> for each "
                "label"
            )
        if shares:
            self.labels = [name.removeprefix("p_") for name in shares]
        else:
            self.labels = sorted({row[str(said)] for row in rows} - {""})
        self._rows: dict[str, np.ndarray] = {}
        for number, row in enumerate(rows, 2):
            name = row[key]
            try:
                values = (
                    [float(row[p]) for p in shares]
                    if shares
                    else [float(row[str(said)] == label) for label in self.labels]
                )
            except ValueError:
                values = []
            found = np.array(values)
            if not values or not np.isfinite(found).all() or (found < 0).any():
                raise ModelError(
                    f"{path}, row {number}: {name!r} has no probabilities of at least 0"
                )
            for form in _forms(name):
                same = np.array_equal(self._rows.setdefault(form, found), found)
                if not same:
                    self._rows[form] = np.array([])  # an ambiguous name

    @override
    def outputs(self, utterances: Sequence[Utterance]) -> Iterator[np.ndarray]:
        found = [self._of(utterance) for utterance in utterances]
        missing = [
            u.id for u, row in zip(utterances, found, strict=True) if row is None
        ]
        if missing:
            raise ModelError(
                f"{self._path}: no prediction, or several that differ, for utterances "
                f"of the corpus ({offenders(missing)}). Without them the result would "
                "cover a selection only; add them, by id or file name, or remove them "
                "from the corpus"
            )
        yield from (row for row in found if row is not None)

    def _of(self, utterance: Utterance) -> np.ndarray | None:
        path = utterance.path
        for form in (utterance.id, str(path), path.name, path.stem):
            row = self._rows.get(form)
            if row is not None and len(row):
                return row
        return None


_IDS = ("id", "file", "path", "filename", "name", "utterance", "wav")
_SAID = ("prediction", "predicted", "label", "emotion", "class")


def _forms(name: str) -> list[str]:
    path = Path(name)
    return list(dict.fromkeys((name, path.name, path.stem)))


def load_classifier(
    source: str | Path, revision: str | None = None, device: str | None = None
) -> Classifier:
    """Loads a model of any kind that can be evaluated; runs no code from it.

    Arguments
    ---------
    source : str or pathlib.Path
        Folder of transformers (an audio classifier), of SpeechBrain (a classifier with
        ``hyperparams.yaml``), of ``ser-cl export``, or of a run; an ``.onnx`` file with
        input (1, T); a table of predictions; or a hub id.
    revision : str, optional
        Commit, tag or branch on the hub.
    device : str, optional
        Default: a GPU if there is one.

    Returns
    -------
    Classifier
        Classifier with its labels and source.

    Raises
    ------
    ModelError
        If there is no such model, or it cannot be used.
    """
    path = Path(source).expanduser()
    if not path.exists():
        path = download(str(source), revision, allow=_FILES)
        if not any(list(path.glob(pattern)) for pattern in _WEIGHTS):
            path = download(str(source), revision, allow=(*_FILES, "*.bin"))
    if (path / "model" / DESCRIPTION).is_file():
        path = path / "model"
    table = path.suffix.lower() in (*TEXTS, *READERS)
    found: Classifier
    if path.is_file() and table:
        kind, found = "predictions", _Predictions(path)
    elif path.suffix == ".onnx":
        kind, found = "onnx", _Onnx(path)
    elif (path / DESCRIPTION).is_file():
        kind, found = "own", _Own(path, device)
    elif (path / SETTINGS).is_file():
        kind, found = "speechbrain", _SpeechBrain(path, device)
    elif (path / "config.json").is_file():
        kind, found = "transformers", _Transformers(path, device)
    elif len(files := sorted(path.glob("*.onnx"))) == 1:
        kind, found = "onnx", _Onnx(files[0])
    else:
        raise ModelError(
            f"{path}: expected a folder with config.json (transformers), "
            f"{SETTINGS} (SpeechBrain) or {DESCRIPTION} (ser-cl export), an .onnx "
            "file, or a table of predictions"
        )
    if len(set(found.labels)) < len(found.labels):
        raise ModelError(f"{path}: labels that occur twice: {', '.join(found.labels)}")
    card = (path if path.is_dir() else path.parent) / "README.md"
    text = read_text(card) if card.is_file() and kind != "predictions" else ""
    place = Path(source).expanduser()
    name = place.resolve().name if place.exists() else str(source)
    found.origin = Origin(name, kind, text, _mark(path))
    return found


def _mark(path: Path) -> str:
    files = [path] if path.is_file() else []
    for pattern in () if files else (*_WEIGHTS, "*.json", SETTINGS):
        files += sorted(path.glob(pattern))
    marks = {file.name: checksum(file) for file in files}
    return hashlib.sha256(json.dumps(marks, sort_keys=True).encode()).hexdigest()[:16]
