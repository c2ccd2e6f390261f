#!/usr/bin/env python3
"""Measures the parts of a recipe's training step, and the wait for the loader.

Runs steps of a recipe's YAML part by part in this process, and prints the median time
of each part: reading the audio, augmenting it, padding it, the encoder's forward pass,
heads and losses, the backward pass, the optimiser. Then runs the same steps with the
recipe's own loader and prints how long a step waits for its batch.

> python benchmarks/training_step.py recipes/EmoDB_RAVDESS/hparams/multitask_da.yaml \
      --source_folder EmoDB --target_folder RAVDESS --precision bf16

Authors
 * The speechbrain_ser_cl contributors 2026
"""

import importlib.util
import json
import os
import statistics
import sys
import tempfile
import time
from collections import defaultdict
from contextlib import contextmanager, suppress
from pathlib import Path

import speechbrain as sb
import torch
import yaml

from speechbrain_ser_cl.data.dataset import pad_to_longest
from speechbrain_ser_cl.data.samplers import LengthBucketedStream
from speechbrain_ser_cl.sweeps.recipe import find_script
from speechbrain_ser_cl.training import Launch, machine, package_versions

STEPS = 20
RESULTS = Path(__file__).resolve().parent / "results"


class Stopwatch:
    """Measures the seconds spent in named parts."""

    def __init__(self):
        self.seconds = defaultdict(list)

    @contextmanager
    def __call__(self, part):
        """Times the code of a ``with`` block."""
        start = time.perf_counter()
        yield
        if torch.cuda.is_available():
            torch.cuda.synchronize()
        self.seconds[part].append(time.perf_counter() - start)

    def medians(self):
        """Returns the median milliseconds of each part."""
        return {
            part: round(1000 * statistics.median(values), 2)
            for part, values in self.seconds.items()
        }


class DoneError(Exception):
    """Ends the training after all measurements."""


def load_recipe(script):
    """Loads the recipe's ``train.py`` as a module."""
    spec = importlib.util.spec_from_file_location("recipe", script)
    recipe = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(recipe)
    return recipe


def step_by_step(brain, dataset, batches):
    """Measures median milliseconds of each part of a training step, in this process."""
    watch = Stopwatch()
    read, backbone = dataset.read, brain.modules.model.encoder.backbone
    forward = backbone.forward

    def timed_forward(*args):
        with watch("encoder forward"):
            return forward(*args)

    backbone.forward = timed_forward
    for draws in batches:
        utterances = [dataset.items[draw.index].utterance for draw in draws]
        with watch("load audio"):
            loaded = {utterance.id: read(utterance) for utterance in utterances}
        dataset.read = lambda utterance, loaded=loaded: loaded[utterance.id]
        with watch("augment, two views"):
            items = [dataset[draw] for draw in draws]
        with watch("pad"):
            batch = pad_to_longest(items)
        with watch("forward"), brain.training_ctx:
            outputs = brain.compute_forward(batch, sb.Stage.TRAIN)
            loss = brain.compute_objectives(outputs, batch, sb.Stage.TRAIN)
        with watch("backward"):
            loss.backward()
        with watch("optimiser"):
            brain.optimizers_step()
    dataset.read, backbone.forward = read, forward
    medians = watch.medians()
    heads = medians.pop("forward") - medians["encoder forward"]
    return medians | {"heads and losses": round(heads, 2)}


def with_loader(brain, loader):
    """Measures median milliseconds that a step waits for its batch, and its total."""
    watch = Stopwatch()
    brain.step = 0
    brain.on_stage_start(sb.Stage.TRAIN, epoch=1)
    batches = iter(loader)
    for _ in range(len(loader)):
        with watch("wait for the batch"):
            batch = next(batches)
        with watch("whole step"):
            brain.step += 1
            brain.fit_batch(batch)
    return watch.medians()


def useful_frames(seconds, batch_size):
    """Computes the fraction of valid frames, with length buckets and random batches."""
    seconds = torch.tensor(seconds)
    stream = LengthBucketedStream(seconds.tolist(), batch_size, seed=0)
    bucketed = [stream.batch(k) for k in range(stream.batches_per_pass)]
    shuffled = torch.randperm(
        len(seconds), generator=torch.Generator().manual_seed(0)
    ).split(batch_size)
    shares = {}
    for name, batches in (("bucketed", bucketed), ("random", shuffled)):
        parts = [seconds[torch.as_tensor(batch)] for batch in batches]
        useful = sum(float(part.sum()) for part in parts)
        padded = sum(float(part.max()) * len(part) for part in parts)
        shares[name] = round(useful / padded, 4)
    return shares


def measured(brain_class, found):
    """Returns a subclass of the recipe's Brain that measures instead of training."""

    class Measured(brain_class):
        def fit(self, epoch_counter, train, valid):
            self.on_fit_start()
            self.modules.train()
            batches = list(train.batch_sampler)
            with_loader(self, train)  # warm-up
            source = train.batch_sampler.phases[0]
            found.update(
                {
                    "precision": self.precision,
                    "median_ms": step_by_step(self, train.dataset, batches),
                    "with_loader_median_ms": with_loader(self, train),
                    "loader_workers": train.num_workers,
                    "useful_frames": useful_frames(
                        [train.dataset.durations[i] for i in source.indices],
                        source.stream.batch_size,
                    ),
                }
            )
            raise DoneError

    return Measured


def main(argv):
    """Measures one recipe and writes ``results/training_step.json``."""
    hparams_file, run_opts, overrides = sb.parse_arguments(argv)
    overrides, hparams_file = yaml.safe_load(overrides) or {}, Path(hparams_file)
    recipe, found = load_recipe(find_script(hparams_file)), {}
    load_before = os.getloadavg()[0]
    recipe.MultitaskBrain = measured(recipe.MultitaskBrain, found)
    with tempfile.TemporaryDirectory() as output, suppress(DoneError):
        overrides |= {"output_folder": output, "source_batches": STEPS}
        launch = Launch(hparams_file, run_opts, overrides)
        values = launch.values
        recipe.run(launch)
    result = {
        "recipe": hparams_file.parents[1].name,
        "encoder": Path(values["ssl_source"]).name,
        **{key: values[key] for key in ("freeze", "batch_size", "max_seconds")},
        "steps": STEPS,
        "load_before": load_before,
        **found,
        "machine": machine(),
        "versions": package_versions(),
    }
    RESULTS.mkdir(exist_ok=True)
    path = RESULTS / "training_step.json"
    path.write_text(json.dumps(result, indent=1) + "\n", encoding="utf-8")
    total = sum(result["median_ms"].values())
    for part, ms in result["median_ms"].items():
        print(f"{part:20} {ms:8.1f} ms  {100 * ms / total:5.1f} %")
    for part, ms in result["with_loader_median_ms"].items():
        print(f"{part:20} {ms:8.1f} ms")
    print("useful frames of whole utterances:", result["useful_frames"])
    print(path)


if __name__ == "__main__":
    main(sys.argv[1:])
