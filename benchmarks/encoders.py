#!/usr/bin/env python3
"""Compares time and memory of the encoders with SpeechBrain's.

Forward and backward pass of a model with the shape of wav2vec2-base, hubert-base,
wavlm-base or whisper-tiny and random weights, all layers in a weighted sum, all
parameters trained, with dropout. Each measurement runs in its own process; all use the
same weights and the same batch. Prints a table and writes it as JSON.

- ours: ``WeightedSSL``
- wrapper: SpeechBrain's ``Wav2Vec2``, ``HuBERT``, ``WavLM`` or ``Whisper`` with
  ``output_all_hiddens=True``, and the weighted sum that its recipes put after it.
  ``Whisper`` pads each batch to 30 seconds.
- weighted_ssl_model: SpeechBrain's ``WeightedSSLModel``, which has no padding mask

> python benchmarks/encoders.py
> python benchmarks/encoders.py --encoders wavlm --batches mixed --compile on --keep
> python benchmarks/encoders.py --device cuda --compile off on

The lengths of the mixed batch are evenly spaced from a fifth of the longest to the
longest. Memory is what a first step adds to the model, including gradients of all
parameters (380 MB). Rate is the number of operations that valid frames need per time,
as a fraction of the rate of a large matrix product on the same machine in the same
precision. Processor time, summed over threads, hardly depends on other programs.

Authors
 * The speechbrain_ser_cl contributors 2026
"""

import argparse
import json
import os
import statistics
import tempfile
import time
from contextlib import nullcontext
from datetime import datetime, timezone
from functools import partial
from pathlib import Path

from apart import measure_apart

from speechbrain_ser_cl.utils.audio import SAMPLE_RATE

RESULTS = Path(__file__).parent / "results" / "encoders.json"
WHO = {
    "wav2vec2": ("ours", "ours_checkpointed", "wrapper", "weighted_ssl_model"),
    "wavlm": ("ours", "ours_checkpointed", "wrapper"),
    "hubert": ("ours", "wrapper"),
    "whisper": ("ours", "wrapper"),
}
MEGABYTE = 2**20


def save_models(folder):
    """Saves random weights of each shape, as checkpoints of transformers."""
    import torch
    from transformers import (
        AutoConfig,
        AutoModel,
        Wav2Vec2FeatureExtractor,
        WhisperFeatureExtractor,
    )

    for name in WHO:
        torch.manual_seed(0)
        # Layer dropout would make the other libraries' steps shorter; ours has none.
        config = AutoConfig.for_model(name, layerdrop=0.0)
        AutoModel.from_config(config).save_pretrained(folder / name)
        extractor = Wav2Vec2FeatureExtractor(do_normalize=True)
        if name == "whisper":
            extractor = WhisperFeatureExtractor()
        extractor.save_pretrained(folder / name)


def load(who, name, folder):
    """Loads a module from (wavs, lengths) to frames (B, T', D)."""
    import torch
    from torch import nn

    folder = str(folder / name)
    if who in {"ours", "ours_checkpointed"}:
        from speechbrain_ser_cl.backbones import WeightedSSL

        return WeightedSSL(folder, gradient_checkpointing=who == "ours_checkpointed")
    if who == "weighted_ssl_model":
        from speechbrain.integrations.huggingface.weighted_ssl import WeightedSSLModel

        return WeightedSSLModel(folder, folder)
    from speechbrain.integrations.huggingface.hubert import HuBERT
    from speechbrain.integrations.huggingface.wav2vec2 import Wav2Vec2
    from speechbrain.integrations.huggingface.wavlm import WavLM
    from speechbrain.integrations.huggingface.whisper import Whisper

    class WeightedWrapper(nn.Module):
        """SpeechBrain's wrapper and the weighted sum of its layers."""

        def __init__(self):
            super().__init__()
            wrapper = {"wav2vec2": Wav2Vec2, "wavlm": WavLM, "hubert": HuBERT}
            wrapper["whisper"] = partial(Whisper, encoder_only=True)
            self.encoder = wrapper[name](folder, folder, output_all_hiddens=True)
            layers = self.encoder.model.config.num_hidden_layers + 1
            self.weights = nn.Parameter(torch.zeros(layers))

        def forward(self, wavs, lengths):
            """Computes the weighted sum over the first dimension."""
            known = () if name == "whisper" else (lengths,)  # it has no padding mask
            hidden = self.encoder(wavs, *known)
            return (self.weights.softmax(0)[:, None, None, None] * hidden).sum(0)

    return WeightedWrapper()


def batch_lengths(batch, size):
    """Returns the relative lengths of a batch."""
    if batch == "equal":
        return [1.0] * size
    return [0.2 + 0.8 * i / max(1, size - 1) for i in range(size)]


def arithmetic(config, n_samples):
    """Counts floating point operations of a forward and backward pass of one utterance.

    Counts only products of convolutions, linear layers and attention, and twice each in
    the backward pass.
    """
    width = config.hidden_size
    if config.model_type == "whisper":  # of log-mel frames of 10 ms
        wide, steps = config.encoder_ffn_dim, n_samples // 320
        products = steps * 3 * width * (2 * config.num_mel_bins + width)
    else:
        wide, steps, inputs, products = config.intermediate_size, n_samples, 1, 0
        for size, kernel, stride in zip(
            config.conv_dim, config.conv_kernel, config.conv_stride, strict=True
        ):
            steps = (steps - kernel) // stride + 1
            products += steps * kernel * inputs * size
            inputs = size
        products += steps * inputs * width
        per_group = width // config.num_conv_pos_embedding_groups
        products += steps * config.num_conv_pos_embeddings * per_group * width
    linear = 4 * width**2 + 2 * width * wide
    products += config.num_hidden_layers * steps * (linear + 2 * steps * width)
    return 2 * 3 * products


def high_water_mark():
    """Returns the peak memory of this process, in bytes."""
    for line in Path("/proc/self/status").read_text().splitlines():
        if line.startswith("VmHWM"):
            return int(line.split()[1]) * 1024
    raise RuntimeError("no VmHWM in /proc/self/status")


def matrix_rate(device, dtype):
    """Measures floating point operations per second of a large matrix product."""
    import torch

    n = 2048 if device == "cpu" else 8192
    a, b = (torch.randn(n, n, device=device, dtype=dtype) for _ in range(2))
    seconds = []
    for _ in range(6):
        start = time.perf_counter()
        a @ b
        if device != "cpu":
            torch.cuda.synchronize()
        seconds.append(time.perf_counter() - start)
    return 2 * n**3 / min(seconds)


def measure(arguments):
    """Measures time and memory of one module on one batch, in its own process."""
    import torch
    from transformers import AutoConfig

    name, batch, precision, compiled, who, folder = arguments.one
    device, folder = arguments.device, Path(folder)
    dtype = {"fp32": torch.float32, "bf16": torch.bfloat16}[precision]
    torch.manual_seed(0)
    module = load(who, name, folder).to(device).train()
    lengths = torch.tensor(batch_lengths(batch, arguments.batch_size)).to(device)
    n_samples = int(arguments.seconds * SAMPLE_RATE)
    wavs = torch.randn(len(lengths), n_samples).to(device)
    run = torch.compile(module) if compiled == "on" else module

    def forward(wavs, lengths):
        autocast = torch.autocast(device, dtype)
        with nullcontext() if precision == "fp32" else autocast:
            return run(wavs, lengths)

    def step(wavs, lengths):
        module.zero_grad(set_to_none=True)
        forward(wavs, lengths).float().square().mean().backward()
        if device != "cpu":
            torch.cuda.synchronize()

    # A short batch first, so that initialisation is not measured.
    start = time.perf_counter()
    step(wavs[:2, :SAMPLE_RATE], lengths[:2] / lengths[:2].max())
    module.zero_grad(set_to_none=True)
    if device == "cpu":
        Path("/proc/self/clear_refs").write_text("5")  # Resets the peak.
        before = high_water_mark()
        step(wavs, lengths)
        memory = high_water_mark() - before
    else:
        torch.cuda.reset_peak_memory_stats()
        before = torch.cuda.memory_allocated()
        step(wavs, lengths)
        memory = torch.cuda.max_memory_allocated() - before
    step(wavs, lengths)
    warm_up = time.perf_counter() - start

    seconds, processor = [], []
    while len(seconds) < arguments.runs:
        start = time.perf_counter(), time.process_time()
        step(wavs, lengths)
        seconds.append(time.perf_counter() - start[0])
        processor.append(time.process_time() - start[1])
    rate = matrix_rate(device, dtype)
    config = AutoConfig.from_pretrained(folder / name)
    operations = sum(
        arithmetic(config, int(length * n_samples)) for length in lengths.tolist()
    )
    module.eval()
    with torch.no_grad():
        value = forward(wavs, lengths)[-1].float().abs().mean().item()
    return {
        "seconds": statistics.median(seconds),
        "processor_seconds": statistics.median(processor),
        "megabytes": memory / MEGABYTE,
        "teraflops": operations / statistics.median(seconds) / 1e12,
        "matrix_teraflops": rate / 1e12,
        "warm_up_seconds": warm_up,
        "value": value,
    }


def measured_apart(arguments, one):
    """Runs one measurement by starting this file again."""
    words = ["--one", *one]
    for option in ("device", "batch_size", "seconds", "runs"):
        words += [f"--{option.replace('_', '-')}", str(getattr(arguments, option))]
    return measure_apart(__file__, words, arguments.threads, arguments.timeout)


def about(arguments):
    """Describes machine and versions."""
    from speechbrain_ser_cl.training import machine, package_versions

    return {
        **machine(),
        "threads": arguments.threads,
        "device": arguments.device,
        "versions": package_versions(),
    }


def line(row, wrapper):
    """Formats a row of the table; ``wrapper`` is the wrapper's result for the batch."""
    compiled = "compiled" if row["compiled"] else ""
    text = f"{row['encoder']:9} {row['batch']:6} {row['precision']:5} {compiled:9}"
    text += f"{row['who']:19}"
    if "failed" in row:
        return f"{text} failed: {row['failed'][:200]}"
    share = row["teraflops"] / row["matrix_teraflops"]
    text += f"{row['seconds']:8.2f} s {row['processor_seconds']:8.2f} s"
    text += f"{row['megabytes']:8.0f} MB {100 * share:5.0f} %"
    if wrapper is None or "failed" in wrapper:
        return text
    for key in ("seconds", "processor_seconds", "megabytes"):
        text += f" {row[key] / wrapper[key]:6.2f}"
    same = abs(row["value"] / wrapper["value"] - 1) < 1e-3
    return text + ("  same" if same else "  other")


def compare(arguments, where, folder):
    """Runs all measurements and prints each result."""
    print(
        f"{'':44}{'':10} {'':10}{'':11} {'':6}  as a share of the wrapper's\n"
        f"{'encoder':9} {'batch':6} {'':5} {'':9}{'who':19}{'time':>10} "
        f"{'processor':>10}{'memory':>11} {'rate':>6}   time   proc    mem  last output"
    )
    rows = []
    for name in arguments.encoders:
        for batch in arguments.batches:
            lengths = batch_lengths(batch, arguments.batch_size)
            for precision in arguments.precisions:
                for compiled in arguments.compile:
                    wrapper = None
                    some = [who for who in WHO[name] if who in arguments.who]
                    for who in sorted(some, key=lambda who: who != "wrapper"):
                        setting = [name, batch, precision, compiled, who]
                        load_before = os.getloadavg()[0]
                        row = {
                            "encoder": name,
                            "batch": batch,
                            "precision": precision,
                            "compiled": compiled == "on",
                            "who": who,
                            "batch_size": arguments.batch_size,
                            "longest_seconds": arguments.seconds,
                            "useful_frames": sum(lengths) / len(lengths),
                            **measured_apart(arguments, [*setting, str(folder)]),
                            "load_before": load_before,
                            "date": datetime.now(timezone.utc).date().isoformat(),
                            **where,
                        }
                        wrapper = row if who == "wrapper" else wrapper
                        rows.append(row)
                        print(line(row, wrapper), flush=True)
    return rows


def setting_of(row):
    """Returns the settings of a row."""
    keys = ("encoder", "batch", "precision", "compiled", "who", "device", "threads")
    return [row[key] for key in keys]


def main():
    """Reads the command line and runs."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--encoders", nargs="+", choices=WHO, default=list(WHO))
    everyone = list(WHO["wav2vec2"])
    batches, precisions = ["equal", "mixed"], ["fp32", "bf16"]
    parser.add_argument("--batches", nargs="+", choices=batches, default=batches)
    parser.add_argument(
        "--precisions", nargs="+", choices=precisions, default=precisions
    )
    parser.add_argument("--who", nargs="+", choices=everyone, default=everyone)
    parser.add_argument("--compile", nargs="+", choices=["off", "on"], default=["off"])
    parser.add_argument("--device", default="cpu")
    parser.add_argument("--batch-size", type=int, help="8, on a GPU 64")
    parser.add_argument("--seconds", type=float, help="5, on a GPU 10")
    parser.add_argument("--runs", type=int, default=3)
    parser.add_argument("--threads", type=int, default=os.cpu_count())
    parser.add_argument("--timeout", type=float, default=1200, metavar="SECONDS")
    parser.add_argument("--out", type=Path, default=RESULTS, help="JSON file")
    parser.add_argument(
        "--keep", action="store_true", help="other rows of the JSON file stay in it"
    )
    parser.add_argument("--one", nargs=6, help=argparse.SUPPRESS)
    arguments = parser.parse_args()
    on_cpu = arguments.device == "cpu"
    arguments.batch_size = arguments.batch_size or (8 if on_cpu else 64)
    arguments.seconds = arguments.seconds or (5.0 if on_cpu else 10.0)
    if arguments.one:
        print(json.dumps(measure(arguments)))
        return
    where = about(arguments)
    print(", ".join(f"{key}: {value}" for key, value in where.items()))
    with tempfile.TemporaryDirectory() as folder:
        save_models(Path(folder))
        rows = compare(arguments, where, Path(folder))
    if arguments.keep and arguments.out.exists():
        new = [setting_of(row) for row in rows]
        old = json.loads(arguments.out.read_text(encoding="utf-8"))["results"]
        rows = [row for row in old if setting_of(row) not in new] + rows
    arguments.out.parent.mkdir(parents=True, exist_ok=True)
    arguments.out.write_text(json.dumps({"results": rows}, indent=1) + "\n")
    print(f"written to {arguments.out}")


if __name__ == "__main__":
    main()
