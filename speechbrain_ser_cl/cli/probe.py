"""Implements ``ser-cl probe``: tests a frozen encoder with a linear classifier."""

import argparse
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

from speechbrain_ser_cl.cli.completion import registered_names
from speechbrain_ser_cl.utils.garbage import importing

SUMMARY = "test a frozen encoder with a linear classifier, all folds at once"
DESCRIPTION = """\
Computes mean and standard deviation over time of all layers of an encoder once, keeps
them for any later run, and trains a linear classifier on them for each fold. Layers and
strength of the classifier are chosen by inner folds over the speakers that are not
tested; the last fit is on training and validation part. The first test of a corpus,
and the baseline for every other method.
"""
EPILOG = """\
examples:
  ser-cl probe /data/calls --encoder openai/whisper-base  (a table or class folders)
  ser-cl probe /data/EmoDB --corpus emodb --encoder microsoft/wavlm-base-plus
  ser-cl probe /data/calls --encoder egemaps --classifier svm  (without any encoder)

The output folder has crossval.json, a table, the curve over layers, a folder for each
fold, as of any recipe, and the model of all the data, for `ser-cl predict`.
"""


def add_arguments(parser: argparse.ArgumentParser) -> None:
    """Adds the command's arguments to its parser."""
    parser.usage = "ser-cl probe FOLDER --encoder ENCODER [options]"
    parser.description, parser.epilog = DESCRIPTION, EPILOG
    parser.formatter_class = argparse.RawDescriptionHelpFormatter
    add = parser.add_argument
    add("folder", type=Path, metavar="FOLDER", help="the corpus")
    add(
        "--encoder",
        required=True,
        help="hub id or folder; or log_mel, egemaps, compare (the last two by "
        "openSMILE), which are no encoders",
    )
    add("--revision", help="of the encoder, on the hub")
    corpus: Any = add(
        "--corpus", metavar="NAME", help="FOLDER is this one of `ser-cl list corpora`"
    )
    corpus.completer = lambda **_: registered_names("corpora")
    add(
        "--table",
        metavar="FILE",
        help="its table, with columns file, emotion, speaker; by default the only one "
        "there; without one, a folder per class",
    )
    add(
        "--emotion_map",
        metavar="YAML",
        help='classes, such as "{low: [sad, bored], high: [angry]}"; by default each '
        "emotion is one",
    )
    add("--protocol", default="speaker_kfold", help="of the folds (speaker_kfold)")
    add("--seed", type=int, default=0, help="of the folds (0)")
    add(
        "--classifier",
        default="logistic",
        choices=["logistic", "svm", "ridge"],
        help="logistic regression (default), linear SVM or ridge",
    )
    add(
        "--poolings",
        nargs="+",
        metavar="P",
        help="mean, statistics (mean and standard deviation; default): which are tried",
    )
    add(
        "--most_layers",
        type=int,
        metavar="N",
        help="average the scores of up to N layers, if the inner folds gain (logistic: "
        "2, else 1)",
    )
    add(
        "--normalisations",
        nargs="+",
        default=["corpus"],
        metavar="N",
        help="none, corpus (default), speaker: which are tried; speaker looks at all "
        "utterances of a tested speaker (transductive), and leaves no model",
    )
    add("--output_folder", type=Path, help="results/probe/CORPUS-ENCODER-CLASSIFIER")
    add(
        "--features",
        type=Path,
        metavar="FOLDER",
        help="where features are kept (~/.cache/speechbrain_ser_cl/features, or "
        "features/ in SER_CL_CACHE)",
    )


def run(arguments: argparse.Namespace) -> int:
    """Tests all folds and prints the table."""
    with importing():
        from ruamel.yaml import YAML

        from speechbrain_ser_cl.data.experiment import map_corpora, read_corpus
        from speechbrain_ser_cl.sweeps.probe import cross_validate
        from speechbrain_ser_cl.training.probe import LinearProbe
        from speechbrain_ser_cl.training.utterance_features import load_features

    probe = LinearProbe(
        arguments.classifier,
        most_layers=arguments.most_layers,
        poolings=arguments.poolings,
        normalisations=arguments.normalisations,
    )
    name, entry = corpus_entry(arguments.folder, arguments.corpus, arguments.table)
    with corpus_hint(arguments.corpus):
        utterances = read_corpus(name, entry)
    emotions = sorted({utterance.emotion for utterance in utterances})
    emotion_map = {emotion: [emotion] for emotion in emotions}
    if arguments.emotion_map is not None:
        emotion_map = YAML(typ="safe").load(arguments.emotion_map)
    items, left_out = map_corpora({name: utterances}, emotion_map)
    if left_out:
        counts = ", ".join(f"{n} {emotion}" for emotion, n in left_out.items())
        print(f"left out, in no class of emotion_map: {counts}")
    protocol = YAML(typ="safe").load(arguments.protocol)
    features = load_features(arguments.encoder, arguments.revision, arguments.features)
    output = arguments.output_folder or Path(
        "results/probe",
        f"{name}-{Path(arguments.encoder).name}-{arguments.classifier}",
    )
    told = cross_validate(
        probe, features, items, list(emotion_map), protocol, arguments.seed, output
    )
    print(told)
    return 0


@contextmanager
def corpus_hint(corpus: str | None) -> Iterator[None]:
    """Adds to errors of a corpus without a name that it may have one."""
    from speechbrain_ser_cl.corpora import CorpusError

    try:
        yield
    except CorpusError as error:
        if corpus is None:
            error.args = (f"{error}. A corpus of `ser-cl list corpora`: --corpus NAME",)
        raise


def corpus_entry(
    folder: Path, corpus: str | None, table: str | None
) -> tuple[str, dict[str, str | None]]:
    """Makes the entry of a recipe's ``corpora``: name and settings of the corpus.

    Arguments
    ---------
    folder : pathlib.Path
        Folder of the corpus.
    corpus : str, optional
        Name, for a corpus with a card.
    table : str, optional
        Table, for a user's corpus.

    Returns
    -------
    name : str
        Name of the corpus.
    entry : dict
        Entry with ``reader`` and ``folder``.

    Example
    -------
    >>> corpus_entry(Path("/data/EmoDB"), "emodb", None)
    ('emodb', {'reader': 'emodb', 'folder': '/data/EmoDB'})
    """
    from speechbrain_ser_cl.corpora.table_file import tables_in

    if corpus is not None:
        return corpus, {"reader": corpus, "folder": str(folder)}
    name = folder.resolve().name
    if table is None and not any(tables_in(folder)):
        return name, {"reader": "folders", "folder": str(folder)}
    return name, {"reader": "table", "folder": str(folder), "table": table}
