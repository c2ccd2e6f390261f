"""Implements ``ser-cl evaluate``: evaluates a model from elsewhere."""

import argparse
from pathlib import Path

SUMMARY = "test a model from elsewhere on a corpus (transformers, SpeechBrain, …)"
DESCRIPTION = """\
Tests an emotion classifier on whole corpora, or on the folds of one of your own
cross-validations. Labels are mapped to emotions by their words. Nothing that comes
with a model is run as code. Each utterance is classified alone: padding has no effect.
"""
EPILOG = """\
MODEL is a folder or hub id of transformers (an audio classifier), of SpeechBrain
(with hyperparams.yaml), or of `ser-cl export`; an .onnx file that takes waveforms
(1, T) at 16 kHz; or a table with id or file, and prediction or p_LABEL columns.

examples:
  ser-cl evaluate superb/wav2vec2-base-superb-er emodb=/data/EmoDB ravdess=/data/RAVDESS
  ser-cl evaluate their_model /data/calls --labels LABEL_0=angry LABEL_1=none
  ser-cl evaluate their_predictions.csv --like results/own_corpus/crossval
  ser-cl compare results/own_corpus/crossval results/evaluate
"""
USAGE = "ser-cl evaluate MODEL [CORPUS ...] [options]"


def add_arguments(parser: argparse.ArgumentParser) -> None:
    """Adds the command's arguments to its parser."""
    add = parser.add_argument
    add("model", metavar="MODEL", help="folder, hub id, .onnx file or table")
    add(
        "corpora",
        nargs="*",
        metavar="CORPUS",
        help="NAME=FOLDER, with a name of `ser-cl list corpora`; or the folder of a "
        "corpus of your own, with a table or a folder per class",
    )
    add(
        "--like",
        type=Path,
        metavar="FOLDER",
        help="instead of corpora: a finished cross-validation, whose folds are tested",
    )
    add(
        "--labels",
        nargs="+",
        default=[],
        metavar="LABEL=EMOTION",
        help="meaning of the model's labels; none: the label is left out",
    )
    add(
        "--emotion_map",
        metavar="YAML",
        help='classes, such as "{low: [sad, bored], high: [angry]}"; by default each '
        "emotion that model and corpus share is one",
    )
    add("--part", choices=["train", "valid", "test"], help="only this part of a corpus")
    add("--revision", help="commit, tag or branch of a model on the hub")
    add("--device", help="cpu, cuda, … (a GPU where there is one)")
    add("--output_folder", type=Path, help="results/evaluate/MODEL-CORPORA")


def run(arguments: argparse.Namespace) -> int:
    """Tests the model and prints the results."""
    from ruamel.yaml import YAML

    from speechbrain_ser_cl.data.experiment import map_corpora, read_corpus
    from speechbrain_ser_cl.evaluate import load_classifier, map_labels
    from speechbrain_ser_cl.evaluate.run import (
        count_emotions,
        evaluate,
        left_out,
        like,
        shared_classes,
        without_folds,
    )

    if bool(arguments.corpora) == bool(arguments.like):
        raise ValueError("expected either corpora or --like, found both or neither")
    table = dict(_pair(word) for word in arguments.labels)
    emotion_map = None
    if arguments.emotion_map is not None:
        emotion_map = YAML(typ="safe").load(arguments.emotion_map)
    entries = [_corpus(word) for word in arguments.corpora]
    corpora = {
        name: [u for u in read_corpus(name, entry) if arguments.part in (None, u.split)]
        for name, entry in entries
    }
    empty = [name for name, utterances in corpora.items() if not utterances]
    if empty:
        raise ValueError(f"{', '.join(empty)}: no utterance in part {arguments.part}")
    model = load_classifier(arguments.model, arguments.revision, arguments.device)
    if arguments.like:
        tests, what = like(arguments.like), arguments.like.resolve().name
    else:
        everything = [one for some in corpora.values() for one in some]
        if emotion_map is None:
            emotions = map_labels(model.labels, table)
            emotion_map = shared_classes(emotions, count_emotions(everything))
        items, lost = map_corpora(corpora, emotion_map)
        if lost:
            print(left_out(lost))
        tests, what = without_folds(items, list(emotion_map)), "-".join(corpora)
    name = f"{model.origin.name}-{what}".replace("/", "--")
    output = arguments.output_folder or Path("results/evaluate", name)
    print(evaluate(model, tests, output, table, emotion_map))
    return 0


def _pair(word: str) -> tuple[str, str]:
    label, mark, emotion = word.rpartition("=")
    if not (label and mark and emotion):
        raise ValueError(f"--labels: found {word!r}, expected LABEL=EMOTION")
    return label, emotion


def _corpus(word: str) -> tuple[str, dict[str, str | None]]:
    from speechbrain_ser_cl.cli.probe import corpus_entry

    name, mark, folder = word.partition("=")
    if mark and not Path(word).exists():
        return corpus_entry(Path(folder), name, None)
    return corpus_entry(Path(word), None, None)
