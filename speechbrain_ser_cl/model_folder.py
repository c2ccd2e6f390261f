"""Saves and loads a trained model as a folder that contains only data.

``model.json`` contains the names and arguments of the parts, ``model.safetensors``
their weights::

    {
     "format": 1,
     "classes": ["negative", "positive"],
     "sample_rate": 16000,
     "domain": 1,
     "temperature": 1.2,
     "backbone": {"name": "weighted_ssl", "arguments": {"source": {…}, "freeze": 2}},
     "pooling": {"name": "mean", "arguments": {"input_size": null}},
     "norm": {"name": "domain_norm", "arguments": {…}},
     "heads": [{"name": "classifier", "arguments": {…}}],
     "sha256": "…"
    }

``kind`` is present if the model does not answer a single class: ``emotions``, or
``dimensions``, then with ``mean`` and ``scale`` of each (``classes`` are their names).
``sha256`` is the checksum of the weights, which is checked if present. Logits are
divided by ``temperature``, default 1.

A name is in one of the registries ``backbones``, ``poolings`` and (norm and heads)
``heads``, so only code of the installed package or of installed plug-ins runs. A part
can be saved if it has a method ``arguments()`` that returns the keyword arguments, as
plain JSON values, with which a part like it is built. If its constructor can do more
than compute, such as read files or download, it also has a class method
``from_arguments(arguments)`` that builds it and refuses other arguments.

Files are not trusted: whatever is too large, unknown, or of a wrong type or shape is
refused before memory is allocated for it.
"""

import copy
import inspect
import json
import os
import shutil
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any

import torch
from safetensors import SafetensorError, safe_open
from safetensors.torch import load_file, save_file
from torch import nn

from speechbrain_ser_cl.nnet.classifier import EmotionClassifier
from speechbrain_ser_cl.registry import BACKBONES, HEADS, POOLINGS, Registry
from speechbrain_ser_cl.utils.audio import SAMPLE_RATE
from speechbrain_ser_cl.utils.errors import FileError
from speechbrain_ser_cl.utils.files import read_bytes
from speechbrain_ser_cl.utils.records import check, checksum, parse
from speechbrain_ser_cl.utils.schemas import MODEL, ModelPart, ModelRecord

DESCRIPTION = "model.json"
WEIGHTS = "model.safetensors"
FORMAT = 1

_MOST_DESCRIPTION_BYTES = 1_000_000
_MOST_HEADER_BYTES = 10_000_000
_MOST_TENSORS = 5000
_MOST_CLASSES = 1000
_LARGEST_NUMBER = 100_000
_DEEPEST = 6
Shapes = dict[str, tuple[list[int], torch.dtype | None]]
_DTYPES = {
    "F64": torch.float64,
    "F32": torch.float32,
    "F16": torch.float16,
    "BF16": torch.bfloat16,
    "I64": torch.int64,
    "I32": torch.int32,
    "U8": torch.uint8,
    "BOOL": torch.bool,
}


class ModelError(FileError):
    """A model folder that is invalid or unsafe."""


def write_model(
    folder: str | Path,
    model: EmotionClassifier,
    class_names: Sequence[str],
    temperature: float | None = None,
) -> None:
    """Writes a model folder, ``model.json`` last.

    Arguments
    ---------
    folder : str or pathlib.Path
        Output folder; created if needed.
    model : EmotionClassifier
        Model; LoRA's updates are merged into the weights.
    class_names : sequence of str
        Names of the classes 0, 1, …
    temperature : float, optional
        Divisor of the logits. None: the model's own.

    Raises
    ------
    ModelError
        If a part is not registered or has no ``arguments()``, or if these arguments do
        not describe it.

    Example
    -------
    >>> from speechbrain_ser_cl.backbones import WeightedSSL
    >>> from speechbrain_ser_cl.nnet import ClassifierHead, MeanPooling
    >>> config = {"model_type": "whisper", "d_model": 16, "encoder_layers": 2,
    ...     "encoder_attention_heads": 2, "encoder_ffn_dim": 32}
    >>> model = EmotionClassifier(
    ...     WeightedSSL(config), [ClassifierHead(16, n_classes=2)], MeanPooling()
    ... )
    >>> folder = getfixture("tmp_path")
    >>> write_model(folder, model, ["negative", "positive"])
    >>> read_model(folder)[1]
    ['negative', 'positive']
    """
    folder = Path(folder)
    if getattr(model.encoder.backbone, "lora", None) is not None:
        model = copy.deepcopy(model)
        model.encoder.backbone.merge_lora()
    encoder = model.encoder
    more: dict[str, Any] = {} if model.kind == "classes" else {"kind": model.kind}
    if model.kind == "dimensions":
        more |= {"mean": list(model.mean or ()), "scale": list(model.scale or ())}
    description: Any = {
        "format": FORMAT,
        "classes": list(class_names),
        "sample_rate": SAMPLE_RATE,
        "domain": model.domain,
        "temperature": temperature or model.head.temperature,
        **more,
        "backbone": _describe(BACKBONES, encoder.backbone),
        "pooling": _describe(POOLINGS, encoder.pooling),
        "norm": _describe(HEADS, encoder.norm),
        "heads": [_describe(HEADS, head) for head in model.head.heads],
    }
    weights = {
        name: tensor.detach().cpu().contiguous()
        for name, tensor in model.state_dict().items()
    }
    described = {
        name: (list(tensor.shape), tensor.dtype) for name, tensor in weights.items()
    }
    # Errors in the folder are found here, where they can be corrected.
    try:
        check(description, MODEL, folder / DESCRIPTION)
    except FileError as error:
        raise ModelError(str(error)) from None
    _check_values(folder / DESCRIPTION, description, len(weights))
    _check_tensors(folder / WEIGHTS, _expected(folder, description), described)

    folder.mkdir(parents=True, exist_ok=True)
    (folder / DESCRIPTION).unlink(missing_ok=True)
    unfinished = {
        name: folder / f".{name}.{os.getpid()}" for name in (WEIGHTS, DESCRIPTION)
    }
    save_file(weights, unfinished[WEIGHTS], metadata={"format": "pt"})
    description["sha256"] = checksum(unfinished[WEIGHTS])
    text = json.dumps(description, indent=1, ensure_ascii=False) + "\n"
    unfinished[DESCRIPTION].write_text(text, encoding="utf-8")
    # safetensors creates files that only the owner can read.
    shutil.copymode(unfinished[DESCRIPTION], unfinished[WEIGHTS])
    for name, path in unfinished.items():
        os.replace(path, folder / name)


def read_model(folder: str | Path) -> tuple[EmotionClassifier, list[str]]:
    """Reads a model folder without trusting it; runs no code from it.

    Arguments
    ---------
    folder : str or pathlib.Path
        Folder with ``model.json`` and ``model.safetensors``; other files are ignored.

    Returns
    -------
    model : EmotionClassifier
        Model on the CPU, in evaluation mode, without gradients.
    class_names : list of str
        Names of the classes 0, 1, …

    Raises
    ------
    ModelError
        The message has the file, what was found and what was expected.
    """
    folder = Path(folder)
    description = _read_description(folder / DESCRIPTION)
    path = folder / WEIGHTS
    found = _read_header(path)
    if description.get("sha256") not in (None, checksum(path)):
        raise ModelError(
            f"{path}: its checksum is not the one in {DESCRIPTION}: it is damaged or "
            "of another model. Export the model again, or copy both files again"
        )
    _check_values(folder / DESCRIPTION, description, len(found))
    _check_tensors(path, _expected(folder, description), found)
    model = _build(folder / DESCRIPTION, description).eval().requires_grad_(False)
    try:
        weights = load_file(path)
    except (OSError, SafetensorError) as error:
        raise ModelError(f"{path}: not a readable safetensors file ({error})") from None
    for name, tensor in weights.items():
        if tensor.is_floating_point() and not tensor.isfinite().all():
            raise ModelError(f"{path}: {name} has values that are not finite")
    model.load_state_dict(weights)
    try:
        found_classes = model(torch.zeros(1, SAMPLE_RATE)).shape[1]
    except Exception as error:  # incompatible parts may raise anything
        raise ModelError(
            f"{folder / DESCRIPTION}: the parts do not work together "
            f"({type(error).__name__}: {error!s:.300})"
        ) from error
    if found_classes != len(description["classes"]):
        raise ModelError(
            f"{folder / DESCRIPTION}: {len(description['classes'])} classes, but the "
            f"heads have {found_classes}"
        )
    return model, description["classes"]


def _describe(registry: Registry, part: nn.Module | None) -> dict[str, Any] | None:
    """Returns name and arguments of a part."""
    if part is None:
        return None
    names = [name for name in registry.names() if registry.get(name) is type(part)]
    if not names or not hasattr(part, "arguments"):
        raise ModelError(
            f"{type(part).__module__}.{type(part).__qualname__} cannot be exported: it "
            f"needs a name among the {registry.plural} (see `ser-cl list "
            f"{registry.plural}`) and a method arguments()"
        )
    described: Any = part
    return {"name": names[0], "arguments": described.arguments()}


def _read_description(path: Path) -> ModelRecord:
    """Reads and checks the JSON, up to a maximum size."""
    if not path.exists():
        folder = path.parent
        hint = "expected one that `ser-cl export` wrote, without --format"
        if (folder / "model" / path.name).is_file():
            hint = (
                f"it is a run, whose model is {folder / 'model'}; for others: "
                f"ser-cl export {folder} MODEL_DIR"
            )
        raise ModelError(f"{folder}: no {path.name} in this folder; {hint}")
    if path.is_file() and path.stat().st_size > _MOST_DESCRIPTION_BYTES:
        raise ModelError(f"{path}: more than {_MOST_DESCRIPTION_BYTES} bytes")
    try:
        return parse(read_bytes(path), MODEL, path)
    except (FileError, OSError) as error:
        raise ModelError(str(error)) from None


def _read_header(path: Path) -> Shapes:
    """Reads shape and type of each tensor, without reading the tensors."""
    if not path.is_file():
        raise ModelError(f"{path}: there is no such file, expected the weights")
    try:
        with open(path, "rb") as file:
            header_bytes = int.from_bytes(file.read(8), "little")
        if not 0 < header_bytes <= min(_MOST_HEADER_BYTES, path.stat().st_size - 8):
            raise ModelError(
                f"{path}: its header claims to have {header_bytes} bytes; this is no "
                "safetensors file, or a malicious one"
            )
        with safe_open(path, framework="pt") as file:
            names = file.keys()
            if len(names) > _MOST_TENSORS:
                raise ModelError(f"{path}: {len(names)} tensors, too many for a model")
            slices = {name: file.get_slice(name) for name in names}
            return {
                name: (one.get_shape(), _DTYPES.get(one.get_dtype()))
                for name, one in slices.items()
            }
    except (OSError, SafetensorError) as error:
        raise ModelError(f"{path}: not a readable safetensors file ({error})") from None


def _check_values(path: Path, description: Any, n_tensors: int) -> None:
    """Refuses values that would take too long to check."""
    to_see = [("", description, 0)]
    while to_see:
        key, value, depth = to_see.pop()
        if depth > _DEEPEST:
            raise ModelError(f"{path}: objects in objects, {depth} deep")
        if isinstance(value, dict | list):
            if key and len(value) > _MOST_CLASSES:
                raise ModelError(f"{path}: {key:.60} has {len(value)} values")
            inner = (
                value.items() if isinstance(value, dict) else ((key, v) for v in value)
            )
            to_see += [(name, one, depth + 1) for name, one in inner]
        elif isinstance(value, int | float):
            largest = n_tensors if "layers" in key else _LARGEST_NUMBER
            if not -_LARGEST_NUMBER <= value <= largest:
                raise ModelError(
                    f"{path}: {key:.60} is {value!r:.40}, expected at most {largest}"
                )


def _build(path: Path, description: ModelRecord) -> EmotionClassifier:
    """Builds the parts with untrained weights."""
    parts: dict[str, Any] = {
        "backbone": _part(path, BACKBONES, description["backbone"]),
        "heads": [_part(path, HEADS, head) for head in description["heads"]],
        "pooling": _part(path, POOLINGS, description["pooling"]),
        "norm": _part(path, HEADS, description["norm"]),
    }
    try:
        return EmotionClassifier(
            **parts,
            domain=description["domain"],
            temperature=description.get("temperature", 1.0),
            kind=description.get("kind", "classes"),
            mean=description.get("mean"),
            scale=description.get("scale"),
        )
    except ValueError as error:
        raise ModelError(f"{path}: {error}") from None


def _part(path: Path, registry: Registry, part: ModelPart | None) -> nn.Module | None:
    if part is None:
        return None
    try:
        build = _builder(registry, part["name"])
        return build(part["arguments"])
    except ModelError as error:
        raise ModelError(f"{path}: {error}") from None
    except Exception as error:  # wrong values may raise anything in a constructor
        raise ModelError(
            f"{path}: cannot build the {registry.kind} {part['name']!r:.60} from its "
            f"arguments ({type(error).__name__}: {error!s:.300})"
        ) from error


def _builder(registry: Registry, name: str) -> Callable[[dict[str, Any]], nn.Module]:
    """Returns the function that builds a part of this name from its arguments."""
    try:
        part_class = registry.get(name)
    except ValueError as error:
        raise ModelError(f"{error!s:.300}") from None
    is_class = inspect.isclass(part_class) and issubclass(part_class, nn.Module)
    if not is_class or not hasattr(part_class, "arguments"):
        raise ModelError(f"the {registry.kind} {name!r} cannot be exported")
    if hasattr(part_class, "from_arguments"):
        from_arguments: Callable[[dict[str, Any]], nn.Module] = (
            part_class.from_arguments
        )
        return from_arguments
    return lambda arguments: part_class(**arguments)


def _expected(folder: Path, description: ModelRecord) -> Shapes:
    """Computes shape and type of the tensors of a description, without memory."""
    with torch.device("meta"):
        model = _build(folder / DESCRIPTION, description)
    return {
        name: (list(tensor.shape), tensor.dtype)
        for name, tensor in model.state_dict().items()
    }


def _check_tensors(path: Path, expected: Shapes, found: Shapes) -> None:
    if set(expected) != set(found):
        raise ModelError(
            f"{path}: missing tensors: {_names(set(expected) - set(found))}; "
            f"unknown tensors: {_names(set(found) - set(expected))}"
        )
    for name, (shape, dtype) in expected.items():
        if found[name] != (shape, dtype):
            found_shape, found_dtype = found[name]
            raise ModelError(
                f"{path}: {name} has shape {found_shape} of {found_dtype}, "
                f"{DESCRIPTION} says {shape} of {dtype}"
            )


def _names(names: set[str]) -> str:
    """Formats up to five names."""
    first = [f"{name!s:.80}" for name in sorted(names)[:5]]
    more = f" and {len(names) - 5} more" if len(names) > 5 else ""
    return (", ".join(first) or "none") + more
