"""Models on the Hugging Face hub: metadata of the card, and upload."""

import re
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import yaml
from huggingface_hub import EvalResult, HfApi, ModelCardData

from speechbrain_ser_cl.corpora.licences import licence_of
from speechbrain_ser_cl.data.splits import Labelled
from speechbrain_ser_cl.model_folder import ModelError
from speechbrain_ser_cl.utils.files import read_text

CARD = "README.md"
FILES = (
    *(CARD, "model.json", "model.safetensors", "model.onnx"),
    *("hyperparams.yaml", "embedding_model.ckpt", "head.ckpt", "label_encoder.ckpt"),
)
"""Files that ``ser-cl export`` writes; no other files are uploaded."""

_MODELS = ("model.json", "model.onnx", "hyperparams.yaml")
_METRICS = {
    "uar": ("recall", "UAR (unweighted average recall)"),
    "wa": ("accuracy", "WA (accuracy)"),
    "macro_f1": ("f1", "macro-F1"),
}


def licence_id(name: str) -> str | None:
    """Returns the hub's id of a licence.

    Arguments
    ---------
    name : str
        Name as in the cards of corpora.

    Returns
    -------
    str or None
        None if the hub has no id for it.

    Example
    -------
    >>> licence_id("CC BY-NC-SA 4.0"), licence_id("CC0 1.0"), licence_id("research")
    ('cc-by-nc-sa-4.0', 'cc0-1.0', None)
    """
    slug = re.sub(r"[^a-z0-9.]+", "-", name.lower()).strip("-")
    known = r"cc-by(-nc)?(-sa|-nd)?-\d\.\d|cc0-1\.0|mit|apache-2\.0"
    return slug if re.fullmatch(known, slug) else None


def card_metadata(
    results: Mapping[str, Any],
    parts: Mapping[str, Sequence[Labelled]],
    test_part: str,
    name: str,
) -> str:
    """Returns the YAML header of a model card for the hub.

    The licence is that of the corpora, if the hub knows it and all corpora share it;
    else ``other``, and the card lists the licences.

    Arguments
    ---------
    results : mapping
        Contents of a run's ``results.json``.
    parts : mapping
        Utterances by part.
    test_part : str
        Name of the tested part.
    name : str
        Name of the model.

    Returns
    -------
    str
        YAML without the lines ``---``.
    """
    utterances = [item.utterance for part in parts.values() for item in part]
    corpora = sorted({one.corpus for one in utterances})
    tested = sorted({item.utterance.corpus for item in parts[test_part]})
    terms = [licence_of(corpus) for corpus in corpora]
    ids = {licence_id(one.name) if one else None for one in terms}
    licence = ids.pop() if len(ids) == 1 else None
    found = [
        EvalResult(
            task_type="audio-classification",
            task_name="Speech emotion recognition",
            dataset_type=", ".join(tested),
            dataset_name=", ".join(tested),
            dataset_split=test_part,
            metric_type=kind,
            metric_name=title,
            metric_value=round(results["test"][key]["value"], 4),
        )
        for key, (kind, title) in _METRICS.items()
        if key in results["test"]
    ]
    data = ModelCardData(
        license=licence or "other",
        license_name=None if licence else "terms-of-the-corpora",
        library_name="speechbrain_ser_cl",
        pipeline_tag="audio-classification",
        tags=["speech-emotion-recognition", "speechbrain"],
        language=sorted({one.language for one in utterances if one.language}),
        datasets=corpora,
        metrics=[one.metric_type for one in found] or None,
        model_name=name,
        eval_results=found or None,
    )
    return str(data.to_yaml())


def push(
    folder: str | Path, repository: str, private: bool = False, message: str = ""
) -> str:
    """Uploads an exported model; replaces existing files.

    Uses the hub's token: ``hf auth login``, or ``HF_TOKEN``.

    Arguments
    ---------
    folder : str or pathlib.Path
        Folder from ``ser-cl export``.
    repository : str
        Id of the repository: ``owner/name``. Created if needed.
    private : bool
        Whether a new repository is private.
    message : str
        Message of the commit.

    Returns
    -------
    str
        Address of the commit.

    Raises
    ------
    ModelError
        If the folder is not an exported model, or the hub refuses.
    """
    folder = Path(folder)
    check(folder)
    if not re.fullmatch(r"[A-Za-z0-9][\w.-]*/[\w.-]+", repository):
        raise ModelError(f"found {repository!r}, expected a hub id such as owner/name")
    api = HfApi()
    try:
        api.create_repo(repository, private=private, exist_ok=True)
        done = api.upload_folder(
            repo_id=repository,
            folder_path=folder,
            allow_patterns=list(FILES),
            commit_message=message or "Model exported by speechbrain_ser_cl",
        )
    except (OSError, ValueError) as error:
        words = " ".join(str(error).split())
        raise ModelError(
            f"{repository}: the hub refused the upload ({words:.300}). Check that your "
            "token has write access (hf auth login, or HF_TOKEN)"
        ) from error
    return str(done.commit_url)


def check(folder: Path) -> dict[str, Any]:
    """Refuses a folder without a model, or whose card has no metadata; returns these.

    Arguments
    ---------
    folder : pathlib.Path
        Folder from ``ser-cl export``.

    Returns
    -------
    dict
        Metadata of the card.

    Raises
    ------
    ModelError
        The message has what is missing.
    """
    if not any((folder / name).is_file() for name in _MODELS):
        raise ModelError(
            f"{folder}: none of {', '.join(_MODELS)}; expected what `ser-cl export RUN "
            "FOLDER` writes"
        )
    card = folder / CARD
    text = read_text(card) if card.is_file() else ""
    parts = text.split("---\n", 2)
    try:
        metadata = yaml.safe_load(parts[1]) if text.startswith("---\n") else None
    except (yaml.YAMLError, IndexError):
        metadata = None
    if not isinstance(metadata, dict) or "license" not in metadata:
        raise ModelError(
            f"{card}: no model card with metadata (a licence at least) at its head; "
            "`ser-cl export` writes one"
        )
    return metadata
