#!/usr/bin/env python3
"""Compares reading cached features with SpeechBrain's cached dynamic items.

The same random features are written into a FeatureCache, a CachedHDF5DynamicItem (one
HDF5 file) and a CachedDynamicItem (one torch.save file per utterance). Each is then
read in batches of 32 utterances of similar length, in random order, into reused memory;
all data are in the operating system's page cache. Each measurement runs in its own
process.

Two kinds of features: frames of all layers in half precision, with the durations of
IEMOCAP (mean 4.55 s, median 3.6 s, at most 34 s), and means of all layers in single
precision. For comparison, the time to copy the same batches from one tensor to another,
which is a lower limit. CPU time is given too, because it does not depend on other
programs.

> python benchmarks/cache.py
> python benchmarks/cache.py --layers 13 --dim 768 --utterances 200

With --epoch: an epoch of Pairwise-CL pre-training (three views, batches of 128,
forward, loss, backward and step) with cached features and with features computed again,
of real speech; or of random features of the size of IEMOCAP with a base model's 13 x
768, on any device. The first needs a folder of speech; epochs without the cache are
measured on some batches and extrapolated.

> python benchmarks/cache.py --epoch ravdess --folder RAVDESS --encoder whisper-tiny.en
> python benchmarks/cache.py --epoch random --utterances 10039 --dim 768 --device cuda

Authors
 * The speechbrain_ser_cl contributors 2026
"""

import argparse
import json
import math
import os
import random
import tempfile
import time
from datetime import datetime, timezone
from pathlib import Path

from apart import measure_apart

RESULTS = Path(__file__).parent / "results" / "cache.json"
READERS = ("ours", "hdf5", "files", "copy")
BATCH, ROUNDS = 32, 7


def durations(count):
    """Draws durations as in IEMOCAP: log-normal with its median and mean, <= 34 s."""
    generator = random.Random(0)
    return [
        min(34.0, max(0.6, generator.lognormvariate(1.281, 0.68))) for _ in range(count)
    ]


def features(kind, index, seconds, layers, dim):
    """Makes random features of one utterance, equal in every process."""
    import torch

    generator = torch.Generator().manual_seed(index)
    if kind == "means":
        return torch.randn(layers, dim, generator=generator)
    n_frames = int(50 * seconds)
    return torch.randn(layers, n_frames, dim, generator=generator).half()


def our_reader(folder, kind, ids, arguments):
    """Fills the cache if needed; returns a function that reads a padded batch."""
    from speechbrain_ser_cl.corpora import Utterance
    from speechbrain_ser_cl.data.features.cache import FeatureCache

    utterances = []
    for name, seconds in ids.items():
        path = folder / name  # replaces the audio, whose bytes are hashed
        path.write_text(name)
        utterances.append(
            Utterance(
                id=name,
                path=path,
                duration=seconds,
                corpus="random",
                speaker="s",
                session=None,
                gender=None,
                language="en",
                text_id=None,
                emotion="neutral",
            )
        )
    index_of = {name: index for index, name in enumerate(ids)}
    dtype = "float32" if kind == "means" else "float16"
    cache = FeatureCache(folder / "ours", {"kind": kind}, dtype)
    cache.fill(
        utterances,
        lambda name: features(
            kind, index_of[name], ids[name], arguments.layers, arguments.dim
        ),
        read=lambda utterance: utterance.id,
    )
    return lambda names, out: cache.batch(names, out)[0]


def their_reader(who, folder, kind, ids, arguments):
    """Same with a cached dynamic item of SpeechBrain."""
    from speechbrain.utils.data_pipeline import CachedDynamicItem, takes

    index_of = {name: index for index, name in enumerate(ids)}

    @takes("id")
    def compute(name):
        made = features(
            kind, index_of[name], ids[name], arguments.layers, arguments.dim
        )
        return made.numpy() if who == "hdf5" else made

    folder = folder / who / kind
    if who == "hdf5":
        from speechbrain.integrations.hdf5.cached_item import CachedHDF5DynamicItem

        folder.mkdir(parents=True, exist_ok=True)
        item = CachedHDF5DynamicItem.cache(folder)(compute)
    else:
        item = CachedDynamicItem.cache(folder)(compute)
    for name in ids:
        item(name)

    return lambda names, out: padded_into(out, [item(name) for name in names])


def padded_into(out, read):
    """Makes a batch of features in the memory of ``out``."""
    import torch

    read = [torch.as_tensor(x) for x in read]
    longest = max(x.shape[-2] for x in read)
    shape = (len(read), *read[0].shape[:-2], longest, read[0].shape[-1])
    batch = out[: math.prod(shape)].view(shape)
    if all(x.shape[-2] == longest for x in read):
        return torch.stack(read, out=batch)
    for row, x in zip(batch, read, strict=True):
        row[..., : x.shape[-2], :] = x
        row[..., x.shape[-2] :, :] = 0
    return batch


def copier(kind, ids, arguments):
    """Makes the same batches from features in memory."""
    kept = {
        name: features(kind, index, seconds, arguments.layers, arguments.dim)
        for index, (name, seconds) in enumerate(ids.items())
    }
    return lambda names, out: padded_into(out, [kept[name] for name in names])


def measure(who, kind, folder, arguments):
    """Measures seconds per epoch of padded batches, in its own process."""
    import torch

    lengths = durations(arguments.utterances)
    ids = {f"u{k:05}": seconds for k, seconds in enumerate(lengths)}
    if who == "ours":
        batch = our_reader(folder, kind, ids, arguments)
    elif who == "copy":
        batch = copier(kind, ids, arguments)
    else:
        batch = their_reader(who, folder, kind, ids, arguments)
    size = arguments.layers * arguments.dim
    frames = 1 if kind == "means" else int(50 * max(lengths))
    dtype = torch.float32 if kind == "means" else torch.float16
    out = torch.zeros(BATCH * frames * size, dtype=dtype)

    names = sorted(ids, key=ids.get)
    batches = [names[k : k + BATCH] for k in range(0, len(names), BATCH)]
    seconds, cpu_seconds, checksum = [], [], 0.0
    for round_number in range(ROUNDS + 1):
        random.Random(round_number).shuffle(batches)
        start, cpu_start = time.perf_counter(), time.process_time()
        for names in batches:
            checksum += float(batch(names, out)[0].flatten()[0])
        seconds.append(time.perf_counter() - start)
        cpu_seconds.append(time.process_time() - cpu_start)
    useful = sum(1 if kind == "means" else int(50 * s) for s in lengths)
    return {
        # The first pass is a warm-up; the fastest is least affected by other programs.
        "seconds": min(seconds[1:]),
        "cpu_seconds": min(cpu_seconds[1:]),
        "bytes": useful * size * dtype.itemsize,
        "checksum": checksum,
    }


def measured_apart(who, kind, folder, arguments):
    """Runs one measurement by starting this file again."""
    words = ["--one", who, kind, str(folder)]
    for option in ("utterances", "layers", "dim"):
        words += [f"--{option}", str(getattr(arguments, option))]
    found = measure_apart(__file__, words, os.cpu_count(), timeout=1200)
    if "failed" in found:
        raise SystemExit(f"{kind}, {who}: {found['failed']}")
    return found


def compare(arguments, folder):
    """Runs all measurements and prints each result."""
    rows = []
    print(
        f"{'features':8} {'reader':8} {'ms/epoch':>9} {'GB/s':>6} "
        f"{'ours is faster by':>18} {'CPU ms':>9} {'CPU by':>8}"
    )
    for kind in ("frames", "means"):
        found = {w: measured_apart(w, kind, folder, arguments) for w in READERS}
        if len({result["checksum"] for result in found.values()}) > 1:
            raise SystemExit(f"{kind}: what was read differs: {found}")
        for who, result in found.items():
            used = result["bytes"]
            row = {
                "features": kind,
                "reader": who,
                "seconds": result["seconds"],
                "cpu_seconds": result["cpu_seconds"],
                "gigabytes": used / 1e9,
                "gigabytes per second": used / 1e9 / result["seconds"],
                "ours is faster by": result["seconds"] / found["ours"]["seconds"],
                "in CPU time by": result["cpu_seconds"] / found["ours"]["cpu_seconds"],
            }
            rows.append(row)
            print(
                f"{kind:8} {who:8} {1e3 * row['seconds']:9.1f} "
                f"{row['gigabytes per second']:6.2f} {row['ours is faster by']:18.2f} "
                f"{1e3 * row['cpu_seconds']:9.1f} {row['in CPU time by']:8.2f}",
                flush=True,
            )
    return rows


class RandomFeatures:
    """Random features of a view, with an utterance's duration, in the cache."""

    def __init__(self, folder, name, shape, per_second, dtype):
        from speechbrain_ser_cl.data.features.cache import FeatureCache

        self.cache = FeatureCache(folder, {"random": name}, dtype)
        self.shape, self.per_second = shape, per_second

    def fill(self, utterances):
        """Writes missing features."""
        import torch

        def draw(seconds):
            *head, dim = self.shape
            time_ = [max(1, int(self.per_second * seconds))] if self.per_second else []
            return torch.randn(*head, *time_, dim)

        self.cache.fill(utterances, draw, read=lambda utterance: utterance.duration)

    def batch(self, ids, device):
        """Same as in ``ViewFeatures``."""
        x, lengths = self.cache.batch(ids)
        return x.to(device), lengths.to(device)


def random_utterances(folder, count):
    """Makes utterances without audio, with IEMOCAP's durations."""
    from speechbrain_ser_cl.corpora import Utterance

    folder.mkdir()
    for k, seconds in enumerate(durations(count)):
        path = folder / f"u{k:05}"  # replaces the audio, whose bytes are hashed
        path.write_text(path.name)
        about = {"session": None, "gender": None, "language": "en", "text_id": None}
        yield Utterance(
            path.name, path, min(seconds, 15.0), "random", "s", emotion="sad", **about
        )


def epoch_of_pretraining(arguments, folder):
    """Measures an epoch from the cache and, for real speech, without it."""
    import torch

    from speechbrain_ser_cl.backbones import EGeMAPSMLP, MelCNN, PointwiseCNN, VocalMLP
    from speechbrain_ser_cl.data.conversion import convert_to_16k_mono
    from speechbrain_ser_cl.data.experiment import read_corpus
    from speechbrain_ser_cl.losses import PairwiseViewLoss
    from speechbrain_ser_cl.nnet import ProjectionHead
    from speechbrain_ser_cl.training.views import ViewFeatures, view_encoder
    from speechbrain_ser_cl.utils.audio import load_audio

    try:
        import opensmile  # noqa: F401

        functionals = EGeMAPSMLP()
    except ImportError:
        functionals = VocalMLP()
    random_ = arguments.epoch == "random"
    n_layers = arguments.layers - 1
    encoders = {
        "ssl": PointwiseCNN(
            arguments.encoder, arguments.dim, n_layers, average=arguments.average
        )
        if not random_
        else PointwiseCNN(input_size=arguments.dim, n_layers=n_layers),
        "mel": MelCNN(),
        "functionals": functionals,
    }
    if random_:
        utterances = list(random_utterances(folder / "audio", arguments.utterances))
        size = functionals.features.output_size
        features = {
            "ssl": ((arguments.layers, arguments.dim), 50, "float16"),
            "mel": ((64,), 100, "float16"),
            "functionals": ((size,), 0, "float32"),
        }
        features = {
            name: RandomFeatures(folder / "cache", name, *about)
            for name, about in features.items()
        }
    else:
        utterances = read_corpus(arguments.epoch, arguments.folder)
        utterances = convert_to_16k_mono(utterances, folder / "audio")
        kept = arguments.cache_folder or folder / "cache"
        features = {
            name: ViewFeatures(encoder.features, kept, max_seconds=15.0)
            for name, encoder in encoders.items()
        }
    start = time.perf_counter()
    for one in features.values():
        one.fill(utterances)
    extraction = time.perf_counter() - start

    device = torch.device(arguments.device)
    views = {name: view_encoder(one).to(device) for name, one in encoders.items()}
    heads = {n: ProjectionHead(v.output_size).to(device) for n, v in views.items()}
    loss = PairwiseViewLoss(temperature=0.5)
    modules = torch.nn.ModuleList([*views.values(), *heads.values()])
    optimizer = torch.optim.Adam(modules.parameters(), lr=1e-3)
    path_of = {u.id: u.path for u in utterances}

    def from_cache(name, ids):
        return features[name].batch(ids, device)

    def anew(name, ids):
        front_end = features[name].front_end
        with torch.inference_mode():
            found = [front_end(load_audio(path_of[i])[None, :240000])[0] for i in ids]
        if found[0].dim() == 1:
            return torch.stack(found).clone().to(device), None
        counts = torch.tensor([x.shape[-2] for x in found])
        out = found[0].new_zeros(
            len(found), *found[0].shape[:-2], int(counts.max()), found[0].shape[-1]
        )
        for row, x in zip(out, found, strict=True):
            row[..., : x.shape[-2], :] = x
        return out.clone().to(device), (counts / counts.max()).to(device)

    def train(batches, read):
        start = time.perf_counter()
        for ids in batches:
            z = {name: heads[name](views[name](*read(name, ids))) for name in views}
            optimizer.zero_grad(set_to_none=True)
            loss(z).backward()
            optimizer.step()
        if device.type == "cuda":
            torch.cuda.synchronize()
        return time.perf_counter() - start

    ids = [utterance.id for utterance in utterances]
    random.Random(0).shuffle(ids)
    batches = [ids[k : k + 128] for k in range(0, len(ids), 128)]
    cpu = time.process_time()
    first = train(batches, from_cache)
    cached = [train(batches, from_cache) for _ in range(arguments.rounds)]
    cpu = (time.process_time() - cpu) / (1 + arguments.rounds)
    result = {
        "epoch of": arguments.epoch,
        "utterances": len(ids),
        "hours": sum(u.duration for u in utterances) / 3600,
        "device": str(device),
        "views": {n: type(encoder).__name__ for n, encoder in encoders.items()},
        "frames averaged": arguments.average,
        "seconds of extraction, once": extraction,
        "seconds": min(cached),
        "seconds of the first epoch": first,
        "CPU seconds": cpu,
    }
    if not random_:
        some = batches[: arguments.uncached_batches]
        seconds = train(some, anew) * len(ids) / sum(map(len, some))
        result |= {
            "seconds without the cache": seconds,
            "of which batches were measured": len(some),
            "faster by": seconds / min(cached),
        }
    for key, value in result.items():
        print(
            f"{key:32} {value:.2f}" if isinstance(value, float) else f"{key:32} {value}"
        )
    return result


def main():
    """Reads the command line and runs."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--utterances", type=int, default=300)
    parser.add_argument("--layers", type=int, default=13)
    parser.add_argument("--dim", type=int, default=256)
    parser.add_argument("--out", type=Path, default=RESULTS, help="JSON file")
    parser.add_argument("--one", nargs=3, help=argparse.SUPPRESS)
    parser.add_argument("--epoch", help="random, or a corpus such as ravdess")
    parser.add_argument("--folder", type=Path, help="of that corpus")
    parser.add_argument("--encoder", help="folder or hub id of a speech encoder")
    parser.add_argument("--average", type=int, default=5, help="frames of it, a mean")
    parser.add_argument("--cache_folder", type=Path, help="kept for the next time")
    parser.add_argument("--device", default="cpu")
    parser.add_argument("--rounds", type=int, default=3, help="epochs measured")
    parser.add_argument("--uncached_batches", type=int, default=2)
    arguments = parser.parse_args()
    if arguments.one:
        who, kind, folder = arguments.one
        result = measure(who, kind, Path(folder), arguments)
        print(json.dumps(result))
        return

    from speechbrain_ser_cl.training import machine, package_versions

    where = {
        **machine(),
        "load_before": os.getloadavg()[0],
        "date": datetime.now(timezone.utc).date().isoformat(),
        "versions": package_versions(),
        "utterances": arguments.utterances,
        "layers": arguments.layers,
        "dim": arguments.dim,
    }
    print(", ".join(f"{key}: {value}" for key, value in where.items()))
    with tempfile.TemporaryDirectory() as folder:
        if arguments.epoch:
            table = epoch_of_pretraining(arguments, Path(folder))
        else:
            table = compare(arguments, Path(folder))
    if arguments.epoch and arguments.out == RESULTS:
        arguments.out = RESULTS.with_name(f"cache_epoch_{arguments.epoch}.json")
    arguments.out.parent.mkdir(parents=True, exist_ok=True)
    arguments.out.write_text(json.dumps(where | {"results": table}, indent=1) + "\n")
    print(f"written to {arguments.out}")


if __name__ == "__main__":
    main()
