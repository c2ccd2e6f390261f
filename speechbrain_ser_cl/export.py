"""Exports a finished run to a folder with its model and a model card."""

import json
import logging
import shutil
import warnings
from collections import Counter
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import numpy as np
import torch
import yaml
from torch import Tensor, nn

from speechbrain_ser_cl.corpora import Licence
from speechbrain_ser_cl.corpora.licences import licence_of
from speechbrain_ser_cl.data.splits import Labelled
from speechbrain_ser_cl.hub import card_metadata
from speechbrain_ser_cl.inference import EmotionRecognizer, Rating
from speechbrain_ser_cl.metrics import KINDS, rescale
from speechbrain_ser_cl.model_folder import (
    DESCRIPTION,
    WEIGHTS,
    read_model,
)
from speechbrain_ser_cl.nnet.classifier import EmotionClassifier
from speechbrain_ser_cl.results.numbers import read_numbers
from speechbrain_ser_cl.results.predictions import read_predictions
from speechbrain_ser_cl.results.text import NONE
from speechbrain_ser_cl.results.utterances import read_parts
from speechbrain_ser_cl.utils.audio import SAMPLE_RATE, AudioError
from speechbrain_ser_cl.utils.records import RecordError, check_files, read
from speechbrain_ser_cl.utils.schemas import FILES, MODEL, RESULTS, check_kind

FORMATS = ("native", "speechbrain", "onnx")
# Largest difference of probabilities by rounding, or by evaluating with bf16.
_MOST_DIFFERENCE = 0.02
_MOST_CHECKED = 16
_LONG = {"wa": "WA (accuracy)", "uar": "UAR", "macro_f1": "macro-F1"}
_OUTPUT = "probabilities"


def export_run(
    run: str | Path, folder: str | Path, format: str = "native", force: bool = False
) -> list[Path]:
    """Writes a finished run's model for others to use, with a model card.

    Arguments
    ---------
    run : str or pathlib.Path
        Output folder of a run, with ``results.json`` and ``model/``.
    folder : str or pathlib.Path
        Output folder; must be new or empty.
    format : str
        ``"native"``: for :class:`~speechbrain_ser_cl.inference.EmotionRecognizer`.
        ``"speechbrain"``: for ``EncoderClassifier.from_hparams`` of SpeechBrain.
        ``"onnx"``: one utterance to its probabilities, compared with PyTorch by
        onnxruntime before it is kept.
    force : bool
        Whether to write into a folder that is not empty.

    Returns
    -------
    list of pathlib.Path
        Written files, ``README.md`` first.

    Raises
    ------
    ValueError
        If the run is not finished, has no model, or its model does not reproduce the
        run's predictions; or if the folder is not empty.
    ImportError
        If a package that the format needs is not installed.
    """
    run, folder = Path(run), Path(folder)
    if format not in FORMATS:
        raise ValueError(f"format is {format!r}, expected one of {', '.join(FORMATS)}")
    results = _results(run)
    if folder.exists() and any(folder.iterdir()) and not force:
        raise ValueError(
            f"{folder} is not empty: choose another folder, or replace its files with "
            "--force"
        )
    model, class_names = read_model(run / "model")
    parts = read_parts(run / "utterances.csv")
    predicted = _predicted(run, model.kind)
    if model.kind != "classes" and format == "speechbrain":
        raise ValueError(
            f"{run}: its model answers {model.kind}, and SpeechBrain's "
            "EncoderClassifier knows classes only; choose native or onnx"
        )
    _check_predictions(
        EmotionRecognizer(model, class_names, "cpu"), run, predicted, parts
    )

    folder.mkdir(parents=True, exist_ok=True)
    facts: dict[str, Any] = {
        "format": format,
        "folder": folder.name,
        "kind": model.kind,
        "parameters": sum(p.numel() for p in model.parameters()),
    }
    if format == "native":
        files = [
            Path(shutil.copyfile(run / "model" / name, folder / name))
            for name in (DESCRIPTION, WEIGHTS)
        ]
    elif format == "speechbrain":
        description = read(run / "model" / DESCRIPTION, MODEL)
        files = _write_speechbrain(folder, model, description)
    else:
        path = folder / "model.onnx"
        facts["onnx_difference"] = write_onnx(path, model, class_names)
        files = [path]
    card = folder / "README.md"
    text = model_card(results, parts, list(predicted), class_names, facts)
    card.write_text(text, encoding="utf-8")
    return [card, *files]


def model_card(
    results: Mapping[str, Any],
    parts: Mapping[str, Sequence[Labelled]],
    tested: Sequence[str],
    class_names: Sequence[str],
    facts: Mapping[str, Any],
) -> str:
    """Writes a model card in Markdown: use, training data, licences, results, limits.

    Arguments
    ---------
    results : mapping
        Contents of a run's ``results.json``.
    parts : mapping
        Utterances of the run, see
        :func:`~speechbrain_ser_cl.results.utterances.read_parts`.
    tested : sequence of str
        Ids of the tested utterances.
    class_names : sequence of str
        Names of the classes.
    facts : mapping
        ``format`` and ``folder`` of the export, number of ``parameters``, ``kind`` if
        it is not ``classes`` and, for ONNX, ``onnx_difference``.

    Returns
    -------
    str
        Text of the card.
    """
    from jinja2 import Environment, PackageLoader, StrictUndefined

    environment = Environment(
        loader=PackageLoader("speechbrain_ser_cl", "."),
        undefined=StrictUndefined,
        keep_trailing_newline=True,
        autoescape=False,  # Markdown
    )
    facts = {"kind": "classes", **facts}
    kind = KINDS[facts["kind"]]
    ids = set(tested)
    (test_part,) = {n for n, p in parts.items() for i in p if i.utterance.id in ids}
    corpora = sorted({i.utterance.corpus for part in parts.values() for i in part})
    own = {name: Licence(**one) for name, one in results.get("licences", {}).items()}
    licences = [(corpus, own.get(corpus) or licence_of(corpus)) for corpus in corpora]
    told = _ranges if kind.name == "dimensions" else _counts
    rows = {
        name: _data_row(name, part, told(part, class_names))
        for name, part in parts.items()
    }
    others = [_speakers(part) for name, part in parts.items() if name != test_part]
    return environment.get_template("model_card.md.jinja").render(
        **facts,
        metadata=card_metadata(results, parts, test_part, facts["folder"]),
        classes=list(class_names),
        demo=any(corpus.startswith("synthetic") for corpus in corpora),
        recipe=results.get("recipe"),
        setting=results.get("setting"),
        version=results["versions"]["speechbrain_ser_cl"],
        encoder=results.get("encoder", "trained from scratch"),
        data=list(rows.values()),
        shared_speakers=len(_speakers(parts[test_part]) & set().union(*others)),
        licences=licences,
        limits=[f"{name}: {t.limits}" for name, t in licences if t and t.limits],
        test=results["test"],
        votes=results.get("votes"),
        of_votes=KINDS["votes"],
        calibration=results.get("calibration"),
        test_row=rows[test_part],
        metrics=[(_LONG.get(n, kind.titles[n]), n) for n in kind.titles],
        write=kind.write,
        bounds=kind.bounds,
        percent=lambda share: f"{100 * share:.1f}",
    )


def _counts(part: Sequence[Labelled], class_names: Sequence[str]) -> list[str]:
    """Counts the utterances of each class."""
    counts = Counter(item.label for item in part)
    return [str(counts[name]) for name in class_names]


def _ranges(part: Sequence[Labelled], names: Sequence[str]) -> list[str]:
    """Formats the range of each dimension."""
    known = [item.utterance.dimensions or {} for item in part]
    values = [[one[name] for one in known if name in one] for name in names]
    return [f"{min(own):g} to {max(own):g}" if own else NONE for own in values]


def _data_row(
    name: str, part: Sequence[Labelled], cells: Sequence[str]
) -> dict[str, Any]:
    utterances = [item.utterance for item in part]
    return {
        "part": name.replace("_", " "),
        "corpora": _listed(u.corpus for u in utterances),
        "languages": _listed(u.language for u in utterances),
        "utterances": len(part),
        "speakers": len(_speakers(part)),
        "hours": sum(u.duration for u in utterances) / 3600,
        "classes": cells,
    }


def _speakers(part: Sequence[Labelled]) -> set[tuple[str, str | None]]:
    return {(item.utterance.corpus, item.utterance.speaker) for item in part}


def _listed(names: Any) -> str:
    return ", ".join(sorted({name or "not known" for name in names}))


def _results(run: Path) -> dict[str, Any]:
    """Reads ``results.json`` of a run that can be exported."""
    path = run / "results.json"
    if not path.is_file():
        runs = sorted(str(p.parent) for p in run.rglob("results.json"))[:5]
        hint = f"; runs below it: {', '.join(runs)}" if runs else ""
        raise ValueError(f"{run}: no results.json, so no finished run{hint}")
    results: dict[str, Any] = {**read(path, RESULTS)}
    kind = check_kind(path, results)
    predicted = "predictions.csv" if kind == "classes" else f"{kind}.csv"
    for name in ("model", "utterances.csv", predicted):
        if not (run / name).exists():
            raise ValueError(
                f"{run}: no {name}; the run is of a recipe or version that does not "
                "pass its model to write_run"
            )
    check_files(run, results.get("files", {}), FILES)
    for key in ("test", "versions"):
        if key not in results:
            raise RecordError(f"{path}: no {key}, expected a finished run's results")
    return results


def _predicted(run: Path, kind: str) -> dict[str, np.ndarray]:
    """Returns the id of each tested utterance with its prediction."""
    if kind == "classes":
        found = read_predictions(run / "predictions.csv")
        return dict(zip(found.ids, found.probabilities, strict=True))
    numbers = read_numbers(run / f"{kind}.csv")
    return dict(zip(numbers.ids, numbers.predictions, strict=True))


def _check_predictions(
    recognizer: EmotionRecognizer,
    run: Path,
    rows: Mapping[str, np.ndarray],
    parts: Mapping[str, Sequence[Labelled]],
) -> None:
    """Compares the model with the run's predictions, on test files that still exist."""
    path_of = {i.utterance.id: i.utterance.path for p in parts.values() for i in p}
    model = recognizer.model
    most = _MOST_DIFFERENCE * max(model.scale or [1.0])
    some = [name for name in rows if path_of[name].is_file()][:_MOST_CHECKED]
    found = recognizer.classify_files([path_of[name] for name in some])
    for name, (path, result) in zip(some, found, strict=True):
        if isinstance(result, AudioError) or result.timeline:
            continue  # the run may have read it in another way
        values = result.values if isinstance(result, Rating) else result.probabilities
        ours = np.array(list(values.values()))
        if recognizer.kind == "classes":  # the run did not scale
            (ours,) = rescale([ours], 1 / model.head.temperature)
        if abs(ours - rows[name]).max() > most:
            raise ValueError(
                f"{run}: the model gives {ours.round(3).tolist()} for {path}, "
                f"the run's test gave {rows[name].round(3).tolist()}: the recipe "
                "passed another model to write_run than it tested"
            )


def _write_speechbrain(
    folder: Path, model: EmotionClassifier, description: Mapping[str, Any]
) -> list[Path]:
    """Writes what ``EncoderClassifier.from_hparams`` reads."""
    from speechbrain.dataio.encoder import CategoricalEncoder

    encoder = model.encoder
    options = f"    domain: {json.dumps(description['domain'])}\n"
    scale = f"    temperature: {model.head.temperature!r}\n"
    parts = {"backbone": encoder.backbone, "pooling": encoder.pooling}
    parts |= {"norm": encoder.norm}
    text = (
        "# Written by `ser-cl export --format speechbrain`.\n"
        "embedding_model: !new:speechbrain_ser_cl.nnet.UtteranceEncoder\n"
        + "".join(f"    {key}: {_tagged(part)}\n" for key, part in parts.items())
        + options
        + "head: !new:speechbrain_ser_cl.nnet.HeadSum\n    heads:\n"
        + "".join(f"        - {_tagged(head)}\n" for head in model.head.heads)
        + options
        + scale
        + "classifier: !new:torch.nn.Sequential\n"
        "    - !ref <head>\n"
        "    - !new:torch.nn.LogSoftmax\n"
        "        dim: 1\n"
        "# The encoder takes waveforms as they are.\n"
        "compute_features: !new:torch.nn.Identity\n"
        "mean_var_norm: !new:speechbrain.nnet.containers.LengthsCapableSequential\n"
        "    - !new:torch.nn.Identity\n"
        "modules:\n"
        "    compute_features: !ref <compute_features>\n"
        "    mean_var_norm: !ref <mean_var_norm>\n"
        "    embedding_model: !ref <embedding_model>\n"
        "    classifier: !ref <classifier>\n"
        "label_encoder: !new:speechbrain.dataio.encoder.CategoricalEncoder\n"
        "pretrainer: !new:speechbrain.utils.parameter_transfer.Pretrainer\n"
        "    loadables:\n"
        "        embedding_model: !ref <embedding_model>\n"
        "        head: !ref <head>\n"
        "        label_encoder: !ref <label_encoder>\n"
    )
    hparams = folder / "hyperparams.yaml"
    hparams.write_text(text, encoding="utf-8")
    files = [hparams]
    for name, part in (("embedding_model", encoder), ("head", model.head)):
        torch.save(part.state_dict(), folder / f"{name}.ckpt")
        files.append(folder / f"{name}.ckpt")
    labels = CategoricalEncoder()
    labels.update_from_iterable(description["classes"])
    labels.save(folder / "label_encoder.ckpt")
    return [*files, folder / "label_encoder.ckpt"]


class _Quoting(yaml.SafeDumper):  # type: ignore[misc]
    """Quotes all text: HyperPyYAML reads 1e3 as a number, PyYAML does not."""


def _quoted(dumper: _Quoting, text: str) -> yaml.ScalarNode:
    return dumper.represent_scalar("tag:yaml.org,2002:str", text, '"')


_Quoting.add_representer(str, _quoted)


def _tagged(part: nn.Module | None) -> str:
    """Formats a part as one line of HyperPyYAML."""
    if part is None:
        return "null"
    described: Any = part
    arguments = yaml.dump(
        described.arguments(),
        Dumper=_Quoting,
        default_flow_style=True,
        width=float("inf"),
        sort_keys=False,
    ).strip()
    return f"!new:{type(part).__module__}.{type(part).__qualname__} {arguments}"


class _OneUtterance(nn.Module):
    """Converts a waveform (1, T) to the model's answer (1, C)."""

    def __init__(self, model: EmotionClassifier) -> None:
        super().__init__()
        self.model = model

    def forward(self, wavs: Tensor) -> Tensor:
        """Computes the answer."""
        return self.model.answers(self.model(wavs))


def write_onnx(
    path: str | Path, model: EmotionClassifier, class_names: Sequence[str]
) -> float:
    """Writes a model for one utterance, ``wavs`` (1, T), of at least 0.1 s.

    Arguments
    ---------
    path : str or pathlib.Path
        Output file.
    model : EmotionClassifier
        Model on the CPU.
    class_names : sequence of str
        Written into the file's metadata as JSON under ``classes``, with the model's
        kind under ``kind``.

    Returns
    -------
    float
        Largest difference between ``probabilities`` (1, C), or ``values`` of
        dimensions, of onnxruntime and PyTorch, on noise of three lengths.

    Raises
    ------
    ValueError
        If the difference is above 1e-4 (times a dimension's scale), or PyTorch cannot
        export the model, for example one with openSMILE features; no file is written
        then.
    ImportError
        If the extra ``onnx`` is not installed.
    """
    try:
        import onnxruntime
        import onnxscript  # noqa: F401  torch's exporter needs it
    except ImportError as error:
        raise ImportError(
            f"{error}; install what ONNX needs: pip install 'speechbrain_ser_cl[onnx]'"
        ) from error
    module = _OneUtterance(model).eval()
    generator = torch.Generator().manual_seed(0)
    speech = 0.1 * torch.randn(1, 2 * SAMPLE_RATE, generator=generator)
    # Messages of torch's exporter about itself and torchvision do not help users.
    logging.getLogger("torch.onnx").setLevel(logging.ERROR)
    try:
        with torch.no_grad(), warnings.catch_warnings():
            warnings.simplefilter("ignore")
            program = torch.export.export(
                module, (speech,), dynamic_shapes=({1: torch.export.Dim.AUTO},)
            )
            onnx: Any = torch.onnx.export(
                program,
                (),
                input_names=["wavs"],
                output_names=["values" if model.kind == "dimensions" else _OUTPUT],
                dynamo=True,
                verbose=False,
            )
    except Exception as error:  # the exporter may raise anything
        raise ValueError(
            f"PyTorch cannot export this model with "
            f"{type(model.encoder.backbone).__name__} to ONNX: {error!s:.300}"
        ) from error
    onnx.model.metadata_props["classes"] = json.dumps(list(class_names))
    onnx.model.metadata_props["kind"] = model.kind
    onnx.model.metadata_props["sample_rate"] = str(SAMPLE_RATE)
    path = Path(path)
    onnx.save(path, external_data=False)
    session = onnxruntime.InferenceSession(path)
    differences = []
    for n_samples in (SAMPLE_RATE // 10, 12345, 2 * SAMPLE_RATE):
        wavs = speech[:, :n_samples].contiguous()
        (found,) = session.run(None, {"wavs": wavs.numpy()})
        with torch.no_grad():
            differences.append(abs(found - module(wavs).numpy()).max())
    worst = float(max(differences)) / max(model.scale or [1.0])
    if worst > 1e-4:
        path.unlink()
        raise ValueError(
            f"onnxruntime's answers differ from PyTorch's by {worst:.1e}, expected at "
            "most 1e-4; the file was deleted"
        )
    return worst
