#!/usr/bin/env python3
"""Runs all measurements of a GPU in at most 6 minutes.

> benchmarks/gpu.sh
> benchmarks/gpu.sh --cpu

The second command runs a small version on the CPU, as a test; it writes no file in
``results``. Each step is its own process with a time limit: the tests marked ``gpu``;
the rate of a large matrix product, and the fraction of it that SupCon and the encoder
reach; ``losses.py``; ``encoders.py`` in bf16; an epoch of multitask adaptation and of
Pairwise-CL with random weights and as many utterances as IEMOCAP. It writes
``results/<card>.json`` for ``tables.py``.

Authors
 * The speechbrain_ser_cl contributors 2026
"""

import argparse
import csv
import json
import os
import re
import shutil
import subprocess
import sys
import tempfile
import time
from concurrent.futures import ProcessPoolExecutor
from datetime import date
from pathlib import Path

ROOT = Path(__file__).resolve().parents[1]
FOLDER = ROOT / "benchmarks"
IEMOCAP = 10_039  # utterances
PARTS = 16  # parts of the synthetic corpus written at once
SMALL = {  # an encoder for --cpu
    "model_type": "whisper",
    "d_model": 32,
    "encoder_layers": 2,
    "encoder_attention_heads": 2,
    "encoder_ffn_dim": 64,
}
BASE = {"model_type": "wav2vec2"}  # the defaults are the base size
COLUMNS = "{file: file, emotion: emotion, speaker: speaker}"


# ------------------------------------------------------------------ matrix rate


def per_second(function, device, least=1.0):
    """Measures how often a function runs per second."""
    import torch

    def wait():
        if device == "cuda":
            torch.cuda.synchronize()

    function()
    wait()
    start, calls = time.perf_counter(), 0
    while time.perf_counter() - start < least:
        function()
        wait()
        calls += 1
    return calls / (time.perf_counter() - start)


def matrix(device):
    """Measures rates in 1e12 operations/s, bf16: a product, SupCon, the encoder."""
    import torch
    from torch.utils.flop_counter import FlopCounterMode

    from speechbrain_ser_cl.backbones import WeightedSSL
    from speechbrain_ser_cl.losses import SupConLoss

    on_gpu = device == "cuda"
    size, rows, batch = (8192, 65_536, 64) if on_gpu else (512, 1024, 2)
    a, b = torch.randn(2, size, size, device=device, dtype=torch.bfloat16)
    rate = 2 * size**3 * per_second(lambda: a @ b, device)

    z = torch.randn(rows, 128, device=device, dtype=torch.bfloat16, requires_grad=True)
    labels, supcon = torch.arange(rows, device=device) % 4, SupConLoss()
    # One product of all pairs in the forward pass, two in the backward pass.
    loss = 6 * rows**2 * 128 * per_second(lambda: supcon(z, labels).backward(), device)

    backbone = WeightedSSL(BASE if on_gpu else SMALL).to(device).eval()
    wavs = torch.randn(batch, 160_000 if on_gpu else 16_000, device=device)

    def step():
        with torch.autocast(device, torch.bfloat16):
            backbone(wavs).float().square().mean().backward()

    with FlopCounterMode(display=False) as counter:
        step()
    encoder = counter.get_total_flops() * per_second(step, device)
    return {
        "product": [f"{size} × {size}", rate / 1e12, 1.0],
        "SupCon": [f"{rows} × 128", loss / 1e12, loss / rate],
        "encoder": [f"{batch} × {wavs.shape[1] // 16_000} s", encoder / 1e12]
        + [encoder / rate],
    }


# ------------------------------------------------------------------ epochs


def write_part(folder, part, count):
    """Writes some utterances of two speakers; returns the table's rows."""
    from speechbrain_ser_cl.corpora import write_synthetic

    name = f"part{part}"
    write_synthetic(folder / name, "synthetic_source", part, 2, count // 2)
    with open(folder / name / "labels.csv", encoding="utf-8", newline="") as file:
        return [
            (f"{name}/{row['file']}", row["emotion"], f"{part}_{row['speaker']}")
            for row in csv.DictReader(file)
        ]


def write_corpus(folder, count):
    """Writes a synthetic corpus of this size, with a table."""
    folder.mkdir(parents=True)
    each = -(-count // PARTS // 2) * 2
    with ProcessPoolExecutor() as pool:
        parts = pool.map(write_part, [folder] * PARTS, range(PARTS), [each] * PARTS)
        rows = [row for part in parts for row in part]
    with open(folder / "labels.csv", "w", encoding="utf-8", newline="") as file:
        csv.writer(file).writerows([("file", "emotion", "speaker"), *rows])


def write_world(world, count, config):
    """Writes the input of the epochs: a large corpus, a small one, and an encoder."""
    from speechbrain_ser_cl.backbones import write_untrained_encoder
    from speechbrain_ser_cl.corpora import write_synthetic

    write_corpus(world / "corpus", count)
    for domain in ("source", "target"):
        write_synthetic(world / domain, f"synthetic_{domain}", n_speakers=8)
    write_untrained_encoder(config, world / "encoder")
    return {"utterances": count}


def train(script, hparams, device, **overrides):
    """Returns the command line of a recipe."""
    words = [str(script), str(hparams), "--device", device, "--noprogressbar"]
    for key, value in overrides.items():
        words += [f"--{key}", str(value)]
    return words


def multitask(world, count, device):
    """Runs source and target batches that pass once through a corpus of this size."""
    folder = ROOT / "recipes" / "IEMOCAP_MSP"
    batch_size = min(16, count // 4)
    batches = count // batch_size
    return train(
        folder / "train.py",
        folder / "hparams" / "multitask_da.yaml",
        device,
        source_corpus="synthetic",
        target_corpus="synthetic",
        source_folder=world / "source",
        target_folder=world / "target",
        ssl_source=world / "encoder",
        ssl_revision="null",
        target_labelled=0.5,
        batch_size=batch_size,
        n_rounds=1,
        source_batches=batches,
        target_batches=batches // 4,
        loader_options=f"{{num_workers: {min(14, os.cpu_count() - 1)}}}",
        precision="bf16",
        output_folder=world / "multitask",
    )


def pairwise(world, device):
    """Runs an epoch of pre-training on all utterances, and a short fine-tuning."""
    folder = ROOT / "recipes" / "IEMOCAP" / "pairwise_cl"
    corpus = f"{{reader: table, folder: {world / 'corpus'}, columns: {COLUMNS}}}"
    return train(
        folder / "train.py",
        folder / "hparams" / "pairwise_cl.yaml",
        device,
        corpora=f"{{mine: {corpus}}}",
        emotion_map="{angry: [angry], happy: [happy], sad: [sad]}",
        protocol="{kind: speaker_kfold, n_folds: 5}",
        exclude="[]",
        ssl_source=world / "encoder",
        average_frames=10,
        views="[w2v2, mel]",
        pretrain_epochs=1,
        tune_epochs=1,
        methods="[fine_tuned]",
        fractions="[1.0]",
        draws=1,
        full_draws=1,
        alignment=False,
        tsne=False,
        precision="bf16",
        output_folder=world / "pairwise",
    )


def epochs_of(folder):
    """Collects time and memory of the runs below a folder."""
    return [
        {
            "setting": found["setting"],
            "training_seconds": found["training_seconds"],
            "peak_memory_mb": found["peak_memory_mb"],
            "uar": found["test"]["uar"]["value"],
            "stages": found.get("stages", {}),
        }
        for path in sorted(folder.rglob("results.json"))
        for found in [json.loads(path.read_text(encoding="utf-8"))]
    ]


# ------------------------------------------------------------------ all steps


def run(name, words, limit):
    """Runs a step in its own process; returns seconds, last line, or the error."""
    print(f"\n=== {name}, at most {limit} s", flush=True)
    start = time.perf_counter()
    try:
        done = subprocess.run(
            [sys.executable, *map(str, words)],
            cwd=ROOT,
            stdout=subprocess.PIPE,
            stderr=subprocess.STDOUT,
            text=True,
            timeout=limit,
        )
        lines = done.stdout.strip().splitlines() or [""]
        step = {} if done.returncode == 0 else {"failed": "\n".join(lines[-8:])}
    except subprocess.TimeoutExpired:
        lines, step = [""], {"failed": f"took more than {limit} s"}
    step |= {"seconds": round(time.perf_counter() - start, 1), "last": lines[-1]}
    print("\n".join(lines[-4:]), step.get("failed", ""), sep="\n", flush=True)
    return step


def main():
    """Runs all steps and writes ``results/<card>.json``."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--cpu", action="store_true", help="a small form, on the CPU")
    parser.add_argument("--one", nargs=2, help=argparse.SUPPRESS)
    options = parser.parse_args()
    on_cpu = options.cpu
    device = "cpu" if on_cpu else "cuda"
    count, config = (128, SMALL) if on_cpu else (IEMOCAP, BASE)
    if options.one:
        what, world = options.one
        found = matrix(device) if what == "matrix" else None
        found = found or write_world(Path(world), count, config)
        print(json.dumps(found))
        return
    import torch

    from speechbrain_ser_cl.training import machine, package_versions

    if not on_cpu and not torch.cuda.is_available():
        raise SystemExit("no CUDA device here; --cpu runs a small form on the CPU")
    world = Path(tempfile.mkdtemp()) / "world"
    world.mkdir()
    own = [Path(__file__), *(["--cpu"] if on_cpu else []), "--one"]
    losses, encoders = world / "losses.json", world / "encoders.json"
    sizes = ["32"] if on_cpu else ["1024", "8192"]
    names = ["supcon"] if on_cpu else ["supcon", "ntxent", "supervised_ntxent"]
    small = ["--batch-size", "1", "--seconds", "1", "--runs", "1"] if on_cpu else []
    marked = [
        path
        for path in sorted((ROOT / "tests").rglob("test_*.py"))
        if "pytest.mark.gpu" in path.read_text(encoding="utf-8")
    ]
    steps = {
        "tests": (["-m", "pytest", "-q", "-n", "0", "-m", "gpu", *marked], 50),
        "matrix": ([*own, "matrix", world], 40),
        "world": ([*own, "world", world], 40),
        "multitask": (multitask(world, count, device), 60),
        "pairwise": (pairwise(world, device), 60),
        "losses": (
            [FOLDER / "losses.py", "--device", device, "--losses", *names]
            + ["--sizes", *sizes, "--largest-peer", sizes[0], "--out", losses],
            50,
        ),
        "encoders": (
            [FOLDER / "encoders.py", "--device", device, "--precisions", "bf16"]
            + ["--batches", "mixed", "--encoders", "wav2vec2", "--who", "ours"]
            + ["wrapper", *small, "--out", encoders],
            60,
        ),
    }
    load = os.getloadavg()[0]
    slack = 10 if on_cpu else 1
    done = {
        name: run(name, words, slack * limit) for name, (words, limit) in steps.items()
    }
    found = machine() | {
        "card": machine()["gpu"] or "cpu",
        "load_before": load,
        "date": str(date.today()),
        "versions": package_versions(),
        "utterances": count,
        "steps": done,
        "epochs": {k: epochs_of(world / k) for k in ("multitask", "pairwise")},
    }
    if "failed" not in done["matrix"]:
        found["matrix"] = json.loads(done["matrix"]["last"])
    for name, path in (("losses", losses), ("encoders", encoders)):
        if path.exists():
            found[name] = json.loads(path.read_text(encoding="utf-8"))["results"]
    shutil.rmtree(world.parent)
    name = re.sub(r"\W+", "_", found["card"]).strip("_").lower()
    folder = Path(tempfile.mkdtemp()) if on_cpu else FOLDER / "results"
    path = folder / f"{name}.json"
    path.write_text(json.dumps(found, indent=1) + "\n", encoding="utf-8")
    print(f"\n{path}")
    if any("failed" in step for step in done.values()):
        sys.exit(1)


if __name__ == "__main__":
    main()
