"""Loads emotion models of SpeechBrain without running code from their folder.

``hyperparams.yaml`` may only build classes of a list; the checkpoints are tensors. A
``custom_interface.py`` in the folder is not run; this file implements the forward pass
of the published ones, for two shapes of models::

    compute_features, mean_var_norm, embedding_model, classifier   (EncoderClassifier)
    wav2vec2, avg_pool, output_mlp          (emotion-recognition-wav2vec2-IEMOCAP)
"""

import ast
import re
from collections.abc import Iterator, Mapping
from pathlib import Path
from pydoc import locate
from typing import Any

import torch
from hyperpyyaml import load_hyperpyyaml
from speechbrain.dataio.encoder import CategoricalEncoder
from speechbrain.utils.parameter_transfer import Pretrainer
from torch import Tensor, nn

from speechbrain_ser_cl.model_folder import ModelError
from speechbrain_ser_cl.utils.files import read_text
from speechbrain_ser_cl.utils.settings import read_yaml

SETTINGS = "hyperparams.yaml"
_OLD = "speechbrain.lobes.models.huggingface_transformers."
_HUB = "speechbrain.integrations.huggingface."
# Modules whose layers may be built. Their constructors only compute, or load an encoder
# with transformers without remote code.
_MODULES = (
    *("torch.nn.", "speechbrain.nnet.", "speechbrain.processing.features."),
    *("speechbrain.lobes.features.", "speechbrain_ser_cl.nnet."),
    "speechbrain_ser_cl.backbones.",
    *(f"speechbrain.lobes.models.{n}." for n in ("ECAPA_TDNN", "Xvector", "CRDNN")),
    *(f"{_HUB}{n}." for n in ("wav2vec2", "hubert", "wavlm", "whisper")),
)
_OTHERS = (CategoricalEncoder, Pretrainer)
_REFUSED_KEYS = ("trust_remote_code", "auto_map")


def check_yaml(path: Path) -> None:
    r"""Refuses a HyperPyYAML file that does more than build layers.

    Arguments
    ---------
    path : pathlib.Path
        A ``hyperparams.yaml``.

    Raises
    ------
    ModelError
        For a tag other than ``!ref``, ``!copy``, and ``!new:`` or ``!name:`` of a layer
        of PyTorch, SpeechBrain or this package. The message has the key.

    Example
    -------
    >>> path = getfixture("tmp_path") / "hyperparams.yaml"
    >>> _ = path.write_text("a: !apply:os.system [ls]\n")
    >>> check_yaml(path)
    Traceback (most recent call last):
    speechbrain_ser_cl.model_folder.ModelError: ...: a is !apply:os.system, ...
    """
    for key, node in _nodes("", read_yaml(path)):
        if key.rpartition(".")[2] in _REFUSED_KEYS:
            raise ModelError(f"{path}: the key {key} is not allowed in a model's YAML")
        tag = str(getattr(getattr(node, "tag", None), "value", None) or "")
        if not tag or tag in ("!ref", "!copy", "!tuple"):
            continue
        kind, _, name = tag.partition(":")
        if kind not in ("!new", "!name") or not _is_layer(name):
            raise ModelError(
                f"{path}: {key} is {tag:.80}, expected only layers of PyTorch, "
                "SpeechBrain and this package (!new:, !name:, !ref, !copy). If you "
                "trust the file, run it with SpeechBrain and evaluate a CSV of its "
                "predictions"
            )


def _nodes(key: str, node: Any) -> Iterator[tuple[str, Any]]:
    yield key, node
    inner: Any = ()
    if isinstance(node, Mapping):
        inner = node.items()
    elif isinstance(node, list | tuple | set):
        inner = enumerate(node)
    for name, value in inner:
        yield from _nodes(f"{key}.{name}".lstrip("."), value)


def _is_layer(name: str) -> bool:
    if name.startswith(_OLD):
        name = _HUB + name.removeprefix(_OLD)
    others = {f"{one.__module__}.{one.__qualname__}" for one in _OTHERS}
    wanted = name.startswith(_MODULES) or name in others
    if not wanted or not re.fullmatch(r"[A-Za-z0-9_.]+", name) or "__" in name:
        return False
    try:
        found = locate(name)
    except Exception:  # importing the layer's module may raise anything
        return False
    if not isinstance(found, type):
        return False
    is_layer = f"{found.__module__}.".startswith(_MODULES)
    return found in _OTHERS or (issubclass(found, nn.Module) and is_layer)


class SpeechBrainModel(nn.Module):
    """An emotion model of SpeechBrain as one module.

    Arguments
    ---------
    folder : pathlib.Path
        Folder with ``hyperparams.yaml`` and a ``.ckpt`` file per part.

    Attributes
    ----------
    labels : list of str
        Names of the classes 0, 1, …

    Raises
    ------
    ModelError
        If the YAML is refused, or a part, its weights or labels are missing.
    """

    def __init__(self, folder: Path) -> None:
        super().__init__()
        path = folder / SETTINGS
        check_yaml(path)
        text = read_text(path).replace(_OLD, _HUB)
        try:
            hparams: Any = load_hyperpyyaml(text)
        except Exception as error:  # wrong arguments of a layer may raise anything
            words = " ".join(str(error).split())
            raise ModelError(f"{path}: cannot be built: {words:.300}") from error
        modules = hparams.get("modules") or {}
        self.parts = nn.ModuleDict(
            {k: v for k, v in modules.items() if isinstance(v, nn.Module)}
        )
        if {"embedding_model", "classifier"} <= set(self.parts):
            self._logits = self._encoder_classifier
        elif {"wav2vec2", "avg_pool", "output_mlp"} <= set(self.parts):
            self._logits = self._pooled
        else:
            raise ModelError(
                f"{path}: modules are {', '.join(self.parts) or 'none'}, expected "
                "embedding_model and classifier, or wav2vec2, avg_pool and output_mlp"
            )
        loader = hparams.get("pretrainer")
        loadables = dict(getattr(loader, "loadables", {}))
        encoder = loadables.pop("label_encoder", hparams.get("label_encoder"))
        paths = {k: str(v) for k, v in getattr(loader, "paths", {}).items()}
        for name, module in loadables.items():
            file = folder / Path(paths.get(name, f"{name}.ckpt")).name
            _load(module, file)
        self._check_loaded(path, loadables)
        self.labels = _labels(folder, encoder, paths)
        self.rate = int(hparams.get("sample_rate", 16000))

    def _check_loaded(self, path: Path, loadables: Mapping[str, nn.Module]) -> None:
        """Refuses parts whose weights would stay random."""
        loaded = {id(p) for m in loadables.values() for p in m.parameters()}
        for name, part in self.parts.items():
            if any(id(p) not in loaded for p in part.parameters()):
                raise ModelError(
                    f"{path}: pretrainer.loadables has no weights of {name}; without "
                    "them its output would be random"
                )

    def forward(self, wavs: Tensor) -> Tensor:
        """Computes logits, or log-probabilities, (B, C) of whole waveforms (B, T)."""
        return self._logits(wavs, torch.ones(len(wavs), device=wavs.device)).flatten(1)

    def _encoder_classifier(self, wavs: Tensor, lengths: Tensor) -> Tensor:
        x = wavs
        if "compute_features" in self.parts:
            x = self.parts["compute_features"](x)
        if "mean_var_norm" in self.parts:
            x = self.parts["mean_var_norm"](x, lengths)
        out: Tensor = self.parts["classifier"](
            self.parts["embedding_model"](x, lengths)
        )
        return out

    def _pooled(self, wavs: Tensor, lengths: Tensor) -> Tensor:
        x = self.parts["avg_pool"](self.parts["wav2vec2"](wavs), lengths)
        out: Tensor = self.parts["output_mlp"](x.flatten(1))
        return out


def _load(module: Any, file: Path) -> None:
    if not file.is_file():
        raise ModelError(f"{file}: no such file, expected the weights of a part")
    try:
        state = torch.load(file, map_location="cpu", weights_only=True)
        module.load_state_dict(state)
    except Exception as error:  # damaged, not only tensors, or of another shape
        words = " ".join(str(error).split())
        raise ModelError(
            f"{file}: weights that cannot be used: {words:.300}"
        ) from error


def _labels(folder: Path, encoder: object, paths: Mapping[str, str]) -> list[str]:
    names = [Path(paths.get("label_encoder", "label_encoder.ckpt")).name]
    names += ["label_encoder.ckpt", "label_encoder.txt"]
    file = next((folder / n for n in names if (folder / n).is_file()), None)
    if file is None or not isinstance(encoder, CategoricalEncoder):
        raise ModelError(
            f"{folder}: no label_encoder in {SETTINGS} with its file "
            "(label_encoder.txt), which says what the classes are"
        )
    lines = read_text(file).partition("\n=====")[0]  # the lines below it are extras
    pairs = re.findall(r"(?m)^(['\"].*['\"]) => (\d+)$", lines)
    pairs.sort(key=lambda pair: int(pair[1]))
    names = [str(ast.literal_eval(word)) for word, _ in pairs]
    if not names or [n for _, n in pairs] != list(map(str, range(len(names)))):
        raise ModelError(f"{file}: expected lines such as 'ang' => 0, for 0, 1, …")
    return names
