"""Damaged inputs of every kind: each gives one of the package's errors, or is read.

``python -m tests.fuzz --inputs 10000`` tries many; ``tests/utils/test_fuzz.py`` a few.
An input is a sound file of a kind, changed at random: values swapped, keys doubled,
bytes flipped, cut off, emptied. What is neither read nor refused with a ``ValueError``
or ``OSError`` in time is a finding.
"""

import argparse
import contextlib
import io
import json
import random
import shutil
import signal
import sys
import tempfile
import traceback
from collections import Counter
from collections.abc import Callable, Iterator
from pathlib import Path

import numpy as np

SECONDS = 10  # seconds for one input
VALUES = (
    *(None, True, [], {}, "", "x", 0, -1, 1.5, 10**30, -(10**30), 1e308),
    *(float("nan"), float("inf"), "\x00", "ü" * 500, [None], {"a": None}, [[[[]]]]),
    "../../etc/passwd",
)
WORDS = (
    "'",
    '"',
    "null",
    "",
    "[]",
    "{}",
    "-1",
    ".nan",
    ".inf",
    "!ref <seed>",
    "&a [*a]",
)
WORDS += ("{a: null}", "[1", "{a: 1, a: 2}", "1e999", "9" * 5000, "!!python/none", "\t")
WORDS += ("{kind: speaker_kfold, n_folds: 1000000000}", "{emodb: 3}", "@", "%", "? a")


class Hang(BaseException):
    """An input that took too long."""


def swapped(value: object, rng: random.Random) -> object:
    """Returns a JSON value with one inner value replaced, removed or doubled."""
    places: list[tuple] = []
    to_see = [value]
    while to_see:
        one = to_see.pop()
        keys = list(one) if isinstance(one, dict) else range(len(one))
        places += [(one, key) for key in keys]
        to_see += [one[key] for key in keys if isinstance(one[key], dict | list)]
    if not places or rng.random() < 0.03:
        return rng.choice(VALUES)
    one, key = rng.choice(places)
    if rng.random() < 0.25:
        del one[key]
    elif isinstance(one, dict) and rng.random() < 0.1:
        one[rng.choice(["", "x", "\n", "format"])] = one.pop(key)
    else:
        one[key] = rng.choice(VALUES)
    return value


def damaged(content: bytes, rng: random.Random) -> bytes:
    """Returns bytes with some changed, removed or inserted."""
    way = rng.randrange(6)
    if way == 0:
        return content[: rng.randrange(len(content) + 1)]
    if way == 1:
        return rng.choice([b"", b"\xff\xfe", b"\x00" * 40, b"[" * 9999, b"{}", b"null"])
    changed = bytearray(content)
    for _ in range(rng.choice([1, 1, 5, 50])):
        place = rng.randrange(len(changed) + 1)
        if way == 2:
            changed[place:place] = bytes([rng.randrange(256)])
        elif way == 3:
            del changed[place : place + rng.randrange(20)]
        elif place < len(changed):
            changed[place] ^= 1 << rng.randrange(8)
    return bytes(changed)


def mutated(content: bytes, rng: random.Random, name: str) -> bytes:
    """Changes a file's content in one of the ways that fit its kind."""
    if name.endswith(".json") and rng.random() < 0.7:
        value = swapped(json.loads(content), rng)
        text = json.dumps(value)
        if rng.random() < 0.1 and text.startswith("{"):  # a repeated key
            text = '{"format": 1, "train": [], ' + text[1:]
        return text.encode()
    if name.endswith(".yaml") and rng.random() < 0.5:
        lines = content.decode().splitlines()
        place = rng.randrange(len(lines))
        if rng.random() < 0.2:
            lines.insert(place, rng.choice(lines))
        else:
            lines[place] = lines[place].partition(":")[0] + ": " + rng.choice(WORDS)
        return "\n".join(lines).encode()
    if name.endswith(".csv") and rng.random() < 0.5:
        rows = [line.split(",") for line in content.decode().splitlines()]
        row = rng.choice(rows)
        row[rng.randrange(len(row))] = rng.choice(["", "x", "nan", "1e999", '"', "-1"])
        return "\n".join(map(",".join, rows)).encode()
    return damaged(content, rng)


def sound_files(folder: Path) -> dict[str, tuple[Path, Callable[[Path], object]]]:
    """Returns one valid file of each kind, and its reader."""
    from speechbrain_ser_cl.backbones import WeightedSSL
    from speechbrain_ser_cl.corpora import read_synthetic, write_synthetic
    from speechbrain_ser_cl.data.manifest import read_manifest, write_manifest
    from speechbrain_ser_cl.data.protocols import (
        make_folds,
        read_split,
        resolve_protocol,
        write_split,
    )
    from speechbrain_ser_cl.data.splits import Labelled
    from speechbrain_ser_cl.metrics.classification import summary
    from speechbrain_ser_cl.model_folder import read_model, write_model
    from speechbrain_ser_cl.nnet import ClassifierHead, EmotionClassifier, MeanPooling
    from speechbrain_ser_cl.report.runs import read_series
    from speechbrain_ser_cl.results.alignment import alignment_table, write_alignment
    from speechbrain_ser_cl.results.costs import build_cost_table
    from speechbrain_ser_cl.results.crossval import (
        CrossValidation,
        Outcome,
        read_crossval,
    )
    from speechbrain_ser_cl.results.embeddings import read_embeddings, write_embeddings
    from speechbrain_ser_cl.results.few_labels import (
        few_label_points,
        few_label_table,
        read_few_labels,
        write_few_labels,
    )
    from speechbrain_ser_cl.results.measured import measured_records, write_measured
    from speechbrain_ser_cl.results.predictions import (
        read_predictions,
        write_predictions,
    )
    from speechbrain_ser_cl.results.sweep_file import read_sweep
    from speechbrain_ser_cl.results.tables import collect_results
    from speechbrain_ser_cl.results.utterances import read_parts, write_parts
    from speechbrain_ser_cl.sweeps.recipe import Recipe
    from speechbrain_ser_cl.utils.records import read, write
    from speechbrain_ser_cl.utils.schemas import CROSSVAL_RUN, HISTORY, RESULTS
    from speechbrain_ser_cl.utils.settings import (
        parse_overrides,
        read_yaml,
        resolve,
        split_overrides,
    )

    corpus = write_synthetic(
        folder / "corpus", "synthetic_source", n_speakers=6, utterances_per_speaker=4
    )
    utterances = read_synthetic(corpus)
    items = [Labelled(u, u.emotion) for u in utterances]
    split = make_folds(items, "random_kfold")[0]
    by_id = {item.utterance.id: item for item in items}
    parts = {name: [by_id[i] for i in ids] for name, ids in split.parts().items()}
    classes = sorted({item.label for item in items})
    labels = [classes.index(item.label) for item in parts["test"]]
    run = folder / "run"
    run.mkdir()
    write_manifest(utterances, folder / "manifest.json", corpus)
    write_split(split, folder / "split.json")
    write_parts(run / "utterances.csv", parts)
    ids = [item.utterance.id for item in parts["test"]]
    write_predictions(
        run / "predictions.csv",
        ids,
        labels,
        labels,
        np.eye(len(classes))[labels],
        classes,
    )
    names = [classes[k] for k in labels]
    vectors = np.random.default_rng(0).normal(size=(len(ids), 3))
    write_embeddings(run / "embeddings.npz", vectors, ids, names, names, names)
    write(
        run / "history.json",
        HISTORY,
        [{"epoch": k, "train": {"loss": 1.0}, "valid": {"uar": 0.5}} for k in (1, 2)],
    )
    about = {
        **{"recipe": "r", "setting": "s", "order": 0, "encoder": "e", "demo": False},
        **{"source": "a", "target": "b", "target_split": "utterance", "seed": 1},
    }
    results = about | {
        "class_names": classes,
        "test": summary(labels, labels, len(classes)),
        "valid": {"uar": 0.5},
        "data": {"parts": {}, "fingerprint": split.fingerprint},
        "versions": {"speechbrain_ser_cl": "0"},
        "machine": {"processor": "p", "cores": 2, "threads": 1, "gpu": None},
        "training_seconds": 1.0,
        "peak_memory_mb": {"resident": 1.0},
    }
    write(run / "results.json", RESULTS, results)
    counts = {"a": {f"s{k}": 3 * np.eye(2, dtype=int) for k in range(6)}}
    crossval = CrossValidation(
        {key: about[key] for key in ("recipe", "setting", "order", "encoder", "demo")},
        resolve_protocol("speaker_kfold"),
        ["x", "y"],
        [Outcome(k, 1, "f", counts, {"valid.uar": 0.5}) for k in range(3)],
        {"runs": 3, "training_seconds": 9.0, "machines": [results["machine"]]},
    )
    crossval.write(folder / "crossval.json")
    write(
        folder / "crossval_run.json", CROSSVAL_RUN, {"settings": {}, "results": ["r"]}
    )
    views = {
        **{"encoder": "e", "corpora": ["a"], "chance": 0.5, "baseline": "m"},
        **{"demo": False},
    }
    row = {"view": "mel", "fraction": 0.1, "labelled": 3, "uar": 0.5, "wa": 0.5}
    rows = [row | {"method": m, "draw": d} for m in "mn" for d in range(3)]
    write_few_labels(folder / "few_labels.json", views, 0, 1, rows)
    write_alignment(folder / "alignment.json", views, 0, 9, {"m": {"a – b": 0.5}})
    record = json.loads((folder / "crossval.json").read_text())
    write_measured(folder / "measured.json.xz", {"a/crossval.json": record})
    config = {"model_type": "whisper", "d_model": 16, "encoder_layers": 2}
    config |= {"encoder_attention_heads": 2, "encoder_ffn_dim": 32}
    model = EmotionClassifier(
        WeightedSSL(config), [ClassifierHead(16, n_classes=2)], MeanPooling()
    )
    write_model(folder / "model", model, ["x", "y"])
    recipe = folder / "recipe.yaml"
    recipe.write_text(
        "seed: 1\nfolder: null\ncorpora: {emodb: !ref <folder>}\n"
        "emotion_map: {sad: [sad], happy: [happy]}\nfold: 0\nsplit_file: null\n"
        "protocol: {kind: speaker_kfold, n_folds: 5}\nlr: 0.1\n"
        "output_folder: !ref results/<fold>\nlayer: !new:torch.nn.Identity\n"
    )
    (folder / "train.py").touch()
    sweep = folder / "sweep.yaml"
    sweep.write_text(
        f"title: T\nrecipe: {recipe}\nseeds: [1, 2]\ncolumns: [uar, wa]\n"
        "overrides: {lr: 0.2}\nrows:\n    - {name: a}\n    - name: b\n"
        "      sweep_over: {key: lr, values: [0.1, 0.3]}\n"
    )
    overrides = folder / "overrides.yaml"
    overrides.write_text("seed: 2\nfold: 1\ncorpora: {emodb: a}\nprotocol: seeds\n")

    def read_run(path: Path) -> None:
        read_series([path.parent])
        collect_results(path.parent)

    def read_settings(path: Path) -> None:
        values = Recipe(path, path.with_name("train.py"), ()).values
        resolve_protocol(values.get("protocol", "seeds"))

    def read_overrides(path: Path) -> None:
        lines = path.read_text("utf-8", errors="replace").splitlines()
        words = [f"--{line.replace(': ', '=', 1)}" for line in lines]
        given = parse_overrides(split_overrides(words), read_yaml(recipe))
        values = resolve(recipe, given)[1]
        resolve_protocol(values["protocol"])

    def read_all(path: Path) -> None:
        one = read_crossval(path)
        for corpus in one.corpora:
            one.summary(corpus)
        build_cost_table([one])

    def few_labels(path: Path) -> None:
        about, rows = read_few_labels(path)
        few_label_table(about, few_label_points(rows, about["baseline"]))

    return {
        "manifest": (folder / "manifest.json", lambda p: read_manifest(p, corpus)),
        "split": (folder / "split.json", read_split),
        "results": (run / "results.json", read_run),
        "history": (run / "history.json", lambda p: read_series([p.parent])),
        "predictions": (run / "predictions.csv", read_predictions),
        "utterances": (run / "utterances.csv", read_parts),
        "embeddings": (run / "embeddings.npz", read_embeddings),
        "crossval": (folder / "crossval.json", read_all),
        "crossval_run": (folder / "crossval_run.json", lambda p: read(p, CROSSVAL_RUN)),
        "few_labels": (folder / "few_labels.json", few_labels),
        "alignment": (folder / "alignment.json", alignment_table),
        "measured": (folder / "measured.json.xz", measured_records),
        "synthetic": (corpus / "corpus.json", lambda p: read_synthetic(p.parent)),
        "model": (folder / "model" / "model.json", lambda p: read_model(p.parent)),
        "weights": (
            folder / "model" / "model.safetensors",
            lambda p: read_model(p.parent),
        ),
        "recipe": (recipe, read_settings),
        "overrides": (overrides, read_overrides),
        "sweep": (sweep, read_sweep),
    }


@contextlib.contextmanager
def _limit(seconds: int) -> Iterator[None]:
    def stop(*_: object) -> None:
        raise Hang

    before = signal.signal(signal.SIGALRM, stop)
    signal.alarm(seconds)
    try:
        yield
    finally:
        signal.alarm(0)
        signal.signal(signal.SIGALRM, before)


def outcome(
    load: Callable[[object], object], content: object, seconds: int
) -> tuple[str, str]:
    """Loads an input that may be damaged or hostile.

    Arguments
    ---------
    load : callable
        Takes the input.
    content : object
        The input.
    seconds : int
        More than these are a hang.

    Returns
    -------
    tuple of str
        ``read``, ``refused`` or ``found``; if found, what happened: a hang, or the end
        of the traceback of an error that is no ValueError or OSError.
    """
    out = io.StringIO()
    try:
        with (
            _limit(seconds),
            contextlib.redirect_stdout(out),
            contextlib.redirect_stderr(out),
        ):
            load(content)
    except (ValueError, OSError):
        return "refused", ""
    except KeyboardInterrupt:
        raise
    except Hang:
        return "found", "hangs"
    except BaseException:
        return "found", " | ".join(traceback.format_exc().splitlines()[-4:])
    return "read", ""


def fuzz(per_kind: int, seed: int = 0, kinds: tuple[str, ...] = ()) -> dict:
    """Tries damaged files of each kind.

    Arguments
    ---------
    per_kind : int
        How many of each.
    seed : int
        Of what is changed.
    kinds : tuple of str
        Only these.

    Returns
    -------
    dict
        ``tried``, ``refused`` and ``read``: counts by kind; ``findings``: kind,
        number of the input, what happened.
    """
    counts = {"read": Counter(), "refused": Counter(), "found": Counter()}
    findings = []
    folder = Path(tempfile.mkdtemp(prefix="fuzz-"))
    try:
        for kind, (path, load) in sound_files(folder).items():
            if kinds and kind not in kinds:
                continue
            content = path.read_bytes()
            load(path)  # the valid file is read
            for number in range(per_kind):
                rng = random.Random(f"{seed} {kind} {number}")
                path.write_bytes(mutated(content, rng, path.name))
                what, told = outcome(load, path, SECONDS)
                counts[what][kind] += 1
                if told:
                    findings.append((kind, number, told))
            path.write_bytes(content)
    finally:
        shutil.rmtree(folder)
    tried = sum(counts.values(), Counter())
    return {"tried": tried, "findings": findings} | counts


def main(argv: list[str] | None = None) -> int:
    """Prints counts and findings; returns 1 after a finding."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--inputs", type=int, default=10_000, help="in all")
    parser.add_argument("--seed", type=int, default=0)
    parser.add_argument("--kinds", nargs="*", default=())
    options = parser.parse_args(argv)
    n_kinds = len(options.kinds) or 18
    found = fuzz(-(-options.inputs // n_kinds), options.seed, tuple(options.kinds))
    for kind, count in found["tried"].items():
        print(
            f"{kind:14}{count:7} tried{found['refused'][kind]:7} refused"
            f"{found['read'][kind]:7} read"
        )
    for finding in found["findings"]:
        print(*finding)
    total = sum(found["tried"].values())
    hangs = sum(what == "hangs" for *_, what in found["findings"])
    print(f"{total} inputs, {len(found['findings']) - hangs} tracebacks, {hangs} hangs")
    return int(bool(found["findings"]))


if __name__ == "__main__":
    sys.exit(main())
