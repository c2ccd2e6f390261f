#!/usr/bin/env python3
"""Measures utterances per second and core of each step of a training loader.

Real speech is cut to 3 s and written as WAV and FLAC, at 16 kHz and at 48 kHz. Then
each step of a training loader is measured with one thread: decoding, resampling, each
transform of a recipe's augmentation for one utterance and for a batch, the whole
pipelines, and padding. The last row is an utterance of the recipe's loader: read once,
augmented twice.

> python benchmarks/loading.py --folder ../shared/corpora/RAVDESS

Processor time is measured, so that other programs have little effect; their load is
noted.

Authors
 * The speechbrain_ser_cl contributors 2026
"""

import argparse
import json
import os
import re
import tempfile
import time
from datetime import date
from pathlib import Path

import soundfile
import soxr
import torch
from hyperpyyaml import load_hyperpyyaml

from speechbrain_ser_cl.data.dataset import pad_to_longest
from speechbrain_ser_cl.training import machine, package_versions
from speechbrain_ser_cl.utils.audio import SAMPLE_RATE, load_audio

ROOT = Path(__file__).resolve().parents[1]
RESULTS = ROOT / "benchmarks" / "results" / "loading.json"
RECIPE = ROOT / "recipes" / "IEMOCAP_MSP" / "hparams" / "multitask_da.yaml"
SECONDS, BATCH = 3.0, 16
GOAL, CORES = 2000, 16  # utterances per second for an H100; cores of its machine


def augmentation(hparams_file):
    """Returns the recipe's augmentation and its transforms by name."""
    text = hparams_file.read_text(encoding="utf-8")
    blocks = {
        block.partition(":")[0]: block
        for block in re.split(r"^(?=[A-Za-z_]\w*:)", text, flags=re.MULTILINE)
    }
    names = list(dict.fromkeys(re.findall(r"<(\w+)>", blocks["augmentation"])))
    made = load_hyperpyyaml("".join(blocks[k] for k in ["augmentation", *names]))
    return made["augmentation"], {name: made[name] for name in names}


def write_parts(folder, count, into):
    """Returns paths of the written parts, without suffix, by sampling rate."""
    paths = {SAMPLE_RATE: [], 48_000: []}
    for path in sorted(Path(folder).rglob("*.*")):
        if path.suffix not in (".wav", ".flac"):
            continue
        if soundfile.info(path).duration < SECONDS:
            continue
        speech = load_audio(path, 0, SECONDS).numpy()
        for rate, written in paths.items():
            written.append(into / f"{rate}-{len(written)}")
            samples = soxr.resample(speech, SAMPLE_RATE, rate)
            for suffix in ("wav", "flac"):
                soundfile.write(f"{written[-1]}.{suffix}", samples, rate)
        if len(written) == count:
            return paths
    raise SystemExit(f"{folder}: fewer than {count} files of {SECONDS:g} s")


def per_second(step, values, per_call=1):
    """Measures utterances per second and core: the best of three passes."""
    step(values[0])
    times = []
    for _ in range(3):
        start = time.process_time()
        for value in values:
            step(value)
        times.append(time.process_time() - start)
    return len(values) * per_call / min(times)


def measure(folder, count, hparams_file):
    """Measures all rows: step, per file, per batch (None if not applicable)."""
    augment, transforms = augmentation(hparams_file)
    rows = []

    def row(step, alone, batch=None):
        rows.append({"step": step, "per file": alone, "per batch": batch})
        print(f"{step:32} {alone:9.0f} {'–' if batch is None else f'{batch:9.0f}'}")

    with tempfile.TemporaryDirectory() as into:
        paths = write_parts(folder, count, Path(into))
        for rate, some in paths.items():
            made = "" if rate == SAMPLE_RATE else " to 16 kHz"
            for suffix in ("wav", "flac"):
                files = [f"{path}.{suffix}" for path in some]
                each = per_second(load_audio, files)
                row(f"read {suffix}, {rate // 1000} kHz{made}", each)
        wavs = [load_audio(f"{path}.wav") for path in paths[SAMPLE_RATE]]
        stacked = [
            torch.stack(some)[:, None]
            for some in zip(*[iter(wavs)] * BATCH, strict=True)
        ]
        for name, transform in transforms.items():
            transform.output_type = "dict"

            def apply(wavs, transform=transform):
                return transform(wavs, sample_rate=SAMPLE_RATE).samples

            alone = per_second(apply, [wav[None, None] for wav in wavs])
            row(name.replace("_", " "), alone, per_second(apply, stacked, BATCH))
        drawn = list(zip(wavs, range(len(wavs)), strict=True))
        row("a pipeline, drawn", per_second(lambda pair: augment(*pair), drawn))
        items = [
            {"id": "", "row": 0, "label": 0, "domain": 0, "views": [wav, wav]}
            | {"pipelines": [0, 0], "places": []}
            for wav in wavs
        ]
        batches = [list(some) for some in zip(*[iter(items)] * BATCH, strict=True)]
        row(
            "pad two views",
            per_second(pad_to_longest, [items[:1]] * len(items)),
            per_second(pad_to_longest, batches, BATCH),
        )

        def whole(pair):
            number, file = pair
            wav = load_audio(file)
            return augment(wav, number), augment(wav, -number)

        files = [f"{path}.flac" for path in paths[SAMPLE_RATE]]
        row("flac to two views", per_second(whole, list(enumerate(files))))
    return rows


def main():
    """Measures and writes the JSON file."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--folder", required=True, help="with wav or flac of 3 s")
    parser.add_argument("--count", type=int, default=256, help="utterances")
    parser.add_argument("--hparams", type=Path, default=RECIPE)
    parser.add_argument("--out", type=Path, default=RESULTS)
    options = parser.parse_args()
    torch.set_num_threads(1)
    load = os.getloadavg()[0]
    rows = measure(options.folder, options.count // BATCH * BATCH, options.hparams)
    found = machine() | {
        "load_before": load,
        "date": str(date.today()),
        "versions": package_versions(),
        "speech": Path(options.folder).name,
        "seconds": SECONDS,
        "batch": BATCH,
        "goal": GOAL,
        "cores_beside_gpu": CORES,
        "results": rows,
    }
    options.out.write_text(json.dumps(found, indent=1) + "\n", encoding="utf-8")
    print(options.out)


if __name__ == "__main__":
    main()
