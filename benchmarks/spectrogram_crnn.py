#!/usr/bin/env python3
"""Compares the cost of a batch of the thesis' CRNN with the same layers in plain
PyTorch.

Forward and backward pass of a batch of log-spectrograms, in float32 and under bfloat16
autocast, by ``SpectrogramCRNN`` and by a model of ``nn.Conv2d`` and ``nn.BatchNorm2d``
with the same weights, whose outputs are compared first. On the CPU it prints processor
seconds, summed over threads, and wall seconds; on a machine with other programs only
the first are comparable.

> python benchmarks/spectrogram_crnn.py --threads 2

Authors
 * The speechbrain_ser_cl contributors 2026
"""

import argparse
import json
import os
import statistics
import time
from pathlib import Path

import torch
from torch import nn

from speechbrain_ser_cl.backbones import SpectrogramCRNN
from speechbrain_ser_cl.training import machine, package_versions

RESULTS = Path(__file__).resolve().parent / "results" / "spectrogram_crnn.json"


class PlainCRNN(nn.Module):
    """The thesis' table in plain PyTorch."""

    def __init__(self, encoder):
        super().__init__()
        self.layers = nn.Sequential(
            nn.Conv2d(1, 64, (41, 21), 2),
            nn.BatchNorm2d(64),
            nn.Hardtanh(0, 20),
            nn.Conv2d(64, 64, (21, 11), 2),
            nn.BatchNorm2d(64),
            nn.Hardtanh(0, 20),
        )
        for i, name in {0: "conv1", 1: "norm1", 3: "conv2", 4: "norm2"}.items():
            self.layers[i].load_state_dict(getattr(encoder, name).state_dict())
        self.gru = encoder.gru
        self.transformer = encoder.transformer

    def encode(self, spectrograms):
        """Encodes spectrograms (B, T, 257) to frames (B, T', 256)."""
        x = self.layers(spectrograms.mT.unsqueeze(1))
        with torch.autocast(x.device.type, enabled=False):
            x = self.gru(x.flatten(1, 2).mT.float())[0]
        return self.transformer(x)


def seconds(step, repeats, device):
    """Returns median processor and wall seconds of a step, after a warm-up step."""
    computed, passed = [], []
    for _ in range(1 + repeats):
        start = time.process_time(), time.perf_counter()
        step()
        if device == "cuda":
            torch.cuda.synchronize()
        computed.append(time.process_time() - start[0])
        passed.append(time.perf_counter() - start[1])
    return {
        "computed_s": round(statistics.median(computed[1:]), 3),
        "passed_s": round(statistics.median(passed[1:]), 3),
    }


def measure(model, spectrograms, bf16, train, repeats):
    """Measures seconds of a step, in training with gradient or in evaluation."""
    device = spectrograms.device.type
    model.train(train)

    def step():
        model.zero_grad()
        with (
            torch.set_grad_enabled(train),
            torch.autocast(device, torch.bfloat16, enabled=bf16),
        ):
            frames = model.encode(spectrograms)
        if train:
            frames.float().square().mean().backward()

    return seconds(step, repeats, device)


def main():
    """Reads the command line and runs."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--batch", type=int, default=32, metavar="UTTERANCES")
    parser.add_argument("--seconds", type=float, default=3, help="of each utterance")
    parser.add_argument("--threads", type=int, default=os.cpu_count())
    parser.add_argument("--repeats", type=int, default=3)
    parser.add_argument("--device", default="cpu", choices=["cpu", "cuda"])
    parser.add_argument("--out", type=Path, default=RESULTS, help="JSON file")
    arguments = parser.parse_args()
    torch.set_num_threads(arguments.threads)
    torch.manual_seed(0)

    encoder = SpectrogramCRNN().to(arguments.device)
    plain = PlainCRNN(encoder).to(arguments.device)
    wavs = torch.randn(arguments.batch, int(16000 * arguments.seconds))
    spectrograms = encoder.features(wavs.to(arguments.device))
    with torch.no_grad():
        frames = encoder.eval().encode(spectrograms[:2])
        gap = (frames - plain.eval().encode(spectrograms[:2])).abs().max().item()
    print(f"largest difference of an output: {gap:.1e}")

    rows = []
    for train in (True, False):
        for bf16 in (False, True):
            row = {
                "step": "training" if train else "evaluation",
                "precision": "bfloat16" if bf16 else "float32",
            }
            for name, model in (("ours", encoder), ("plain", plain)):
                row[name] = measure(model, spectrograms, bf16, train, arguments.repeats)
            rows.append(row)
            print(json.dumps(row), flush=True)
    result = {
        "batch": arguments.batch,
        "seconds": arguments.seconds,
        "threads": arguments.threads,
        "largest_difference": gap,
        "results": rows,
        "machine": machine(),
        "versions": package_versions(),
    }
    arguments.out.parent.mkdir(parents=True, exist_ok=True)
    arguments.out.write_text(json.dumps(result, indent=1) + "\n")
    print(f"written to {arguments.out}")


if __name__ == "__main__":
    main()
