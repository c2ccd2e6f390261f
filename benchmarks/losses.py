#!/usr/bin/env python3
"""Time and memory of the losses, side by side with pytorch-metric-learning.

Forward and backward on random embeddings of 4 classes (or of two views), each
measurement in a process of its own, ours and the peer's one after the other. Prints a
table and writes it as JSON, where a row replaces an earlier one of the same machine and
versions. Where both ran, the table says whether their values agree.

> python benchmarks/losses.py
> python benchmarks/losses.py --losses supcon triplet --sizes 128 512 --threads 2
> python benchmarks/losses.py --losses supcon ntxent --sizes 32768 --largest-peer 0

The peer lists pairs or triplets one by one: its NT-Xent takes 13 GB at 256 rows, which
is why it runs up to --largest-peer rows only, and no process may take more than
--memory-limit. Siamese: the peer averages other pairs, so that its value differs.

Authors
 * The speechbrain_ser_cl contributors 2026
"""

import argparse
import importlib.metadata
import json
import os
import statistics
import time
from datetime import datetime, timezone
from pathlib import Path

from apart import measure_apart

RESULTS = Path(__file__).parent / "results" / "losses.json"
CLASSES, DIM = 4, 128
LOSSES = (
    "supervised_ntxent",
    "supcon",
    "ntxent",
    "triplet",
    "triplet_semihard",
    "smooth_triplet",
    "siamese",
    "soft_nearest_neighbor",
)
MEGABYTE = 2**20


def ours(name):
    """Our loss of that name, of (z, labels)."""
    from speechbrain_ser_cl import losses

    made = {
        "supervised_ntxent": lambda: losses.SupervisedNTXentLoss(0.1),
        "supcon": lambda: losses.SupConLoss(0.1),
        "triplet": lambda: losses.TripletLoss(0.2),
        "triplet_semihard": lambda: losses.TripletLoss(0.2, mining="semihard"),
        "smooth_triplet": lambda: losses.SmoothTripletLoss(1.0),
        "siamese": lambda: losses.SiameseLoss(0.5, distance="euclidean"),
        "soft_nearest_neighbor": lambda: losses.SoftNearestNeighborLoss(1.0),
    }
    if name == "ntxent":
        loss = losses.NTXentLoss(0.5)
        return lambda z, labels: loss(*z.chunk(2))
    return made[name]()


def peers(name):
    """The same loss of pytorch-metric-learning."""
    from pytorch_metric_learning import distances, losses, miners, reducers

    cosine = distances.CosineSimilarity()
    if name == "supervised_ntxent":
        return losses.NTXentLoss(0.1)
    if name == "supcon":
        return losses.SupConLoss(0.1)
    if name == "ntxent":
        loss = losses.SelfSupervisedLoss(losses.NTXentLoss(0.5))
        return lambda z, labels: loss(*z.chunk(2))
    if name == "triplet":
        return losses.TripletMarginLoss(0.2, distance=cosine)
    if name == "triplet_semihard":
        loss = losses.TripletMarginLoss(0.2, distance=cosine)
        miner = miners.TripletMarginMiner(0.2, "semihard", distance=cosine)
        return lambda z, labels: loss(z, labels, miner(z, labels))
    if name == "smooth_triplet":
        mean = reducers.MeanReducer()
        return losses.TripletMarginLoss(
            0, smooth_loss=True, distance=cosine, reducer=mean
        )
    if name == "siamese":
        return losses.ContrastiveLoss(0, 0.5)
    return losses.NCALoss(softmax_scale=1.0)


def high_water_mark():
    """The most memory that this process has held, in bytes."""
    for line in Path("/proc/self/status").read_text().splitlines():
        if line.startswith("VmHWM"):
            return int(line.split()[1]) * 1024
    raise RuntimeError("no VmHWM in /proc/self/status")


def measure(name, who, rows, device, limit):
    """Runs in a process of its own: seconds, memory and value of one loss."""
    import torch

    if device == "cpu":
        import resource

        resource.setrlimit(resource.RLIMIT_AS, (limit, limit))
    loss = {"ours": ours, "peer": peers}[who](name)
    generator = torch.Generator().manual_seed(0)
    z = torch.randn(rows, DIM, generator=generator).to(device).requires_grad_()
    labels = (torch.arange(rows) % CLASSES).to(device)

    def once(z, labels):
        z.grad = None
        value = loss(z, labels)
        value.backward()
        if device != "cpu":
            torch.cuda.synchronize()
        return value

    # Few rows first: what is loaded at first use is not counted.
    small = z[:16].detach().clone().requires_grad_()
    once(small, labels[:16])
    if device == "cpu":
        Path("/proc/self/clear_refs").write_text("5")  # Resets the mark.
        before = high_water_mark()
        value = once(z, labels)
        memory = high_water_mark() - before
    else:
        torch.cuda.reset_peak_memory_stats()
        before = torch.cuda.memory_allocated()
        value = once(z, labels)
        memory = torch.cuda.max_memory_allocated() - before
    seconds = []
    while len(seconds) < 3 or (sum(seconds) < 0.5 and len(seconds) < 200):
        start = time.perf_counter()
        once(z, labels)
        seconds.append(time.perf_counter() - start)
        if sum(seconds) > 30:
            break
    return {
        "seconds": statistics.median(seconds),
        "runs": len(seconds),
        "megabytes": memory / MEGABYTE,
        "value": value.item(),
    }


def measured_apart(arguments, name, who, rows):
    """One measurement, by this file started once more."""
    words = ["--one", name, who, str(rows), "--device", arguments.device]
    words += ["--memory-limit", str(arguments.memory_limit)]
    return measure_apart(__file__, words, arguments.threads, arguments.timeout)


def about(arguments):
    """What it runs on, and with which versions."""
    from speechbrain_ser_cl.training import machine, package_versions

    name = "pytorch-metric-learning"
    return {
        **machine(),
        "threads": arguments.threads,
        "device": arguments.device,
        "memory_limit_gb": arguments.memory_limit,
        "versions": package_versions() | {name: importlib.metadata.version(name)},
    }


def cell(result):
    """Time and memory, or why there is none."""
    if result is None:
        return f"{'':>10} {'':>9}"
    if "failed" in result:
        return f"{'failed':>10} {'':>9}"
    return f"{1000 * result['seconds']:8.1f}ms {result['megabytes']:7.0f}MB"


def compare(arguments):
    """All measurements, printed as they come."""
    print(
        f"{'loss':22} {'rows':>6} {'ours':>10} {'':>9} {'peer':>10} {'':>9} "
        f"{'faster':>8}  same value"
    )
    rows_of_table = []
    for name in arguments.losses:
        for rows in arguments.sizes:
            load = os.getloadavg()[0]
            mine = measured_apart(arguments, name, "ours", rows)
            theirs = None
            if rows <= arguments.largest_peer:
                theirs = measured_apart(arguments, name, "peer", rows)
            entry = {"loss": name, "rows": rows, "ours": mine, "peer": theirs}
            entry["load_before"] = load
            entry["date"] = datetime.now(timezone.utc).date().isoformat()
            ratio = same = ""
            if theirs and "failed" not in theirs and "failed" not in mine:
                entry["times faster"] = theirs["seconds"] / mine["seconds"]
                ratio = f"{entry['times faster']:.1f}"
                gap = abs(theirs["value"] - mine["value"])
                same = "yes" if gap <= 1e-4 * abs(mine["value"]) else "no"
            rows_of_table.append(entry)
            print(
                f"{name:22} {rows:6} {cell(mine)} {cell(theirs)} {ratio:>8}  {same}",
                flush=True,
            )
            for who, result in (("ours", mine), ("peer", theirs)):
                if result and "failed" in result:
                    print(f"  {who}: {result['failed']}")
    return rows_of_table


def with_earlier(rows, where, path):
    """These rows, and those of the file that are of the same machine and versions."""
    earlier = json.loads(path.read_text()) if path.exists() else {}
    if earlier.pop("results", None) and earlier == where:
        again = {(row["loss"], row["rows"]) for row in rows}
        kept = json.loads(path.read_text())["results"]
        rows = rows + [r for r in kept if (r["loss"], r["rows"]) not in again]
    return sorted(rows, key=lambda row: (LOSSES.index(row["loss"]), row["rows"]))


def main():
    """Reads the command line and runs."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--losses", nargs="+", choices=LOSSES, default=LOSSES)
    parser.add_argument("--sizes", nargs="+", type=int, default=[32, 128, 512])
    parser.add_argument("--largest-peer", type=int, default=128, metavar="ROWS")
    parser.add_argument("--threads", type=int, default=os.cpu_count())
    parser.add_argument("--device", default="cpu")
    parser.add_argument(
        "--memory-limit", type=float, default=16, metavar="GB", help="CPU only"
    )
    parser.add_argument("--timeout", type=float, default=300, metavar="SECONDS")
    parser.add_argument("--out", type=Path, default=RESULTS, help="JSON file")
    parser.add_argument("--one", nargs=3, help=argparse.SUPPRESS)
    arguments = parser.parse_args()
    if arguments.one:
        name, who, rows = arguments.one
        limit = int(arguments.memory_limit * 2**30)
        result = measure(name, who, int(rows), arguments.device, limit)
        print(json.dumps(result))
        return
    where = about(arguments)
    print(", ".join(f"{key}: {value}" for key, value in where.items()))
    table = with_earlier(compare(arguments), where, arguments.out)
    arguments.out.parent.mkdir(parents=True, exist_ok=True)
    arguments.out.write_text(json.dumps(where | {"results": table}, indent=1) + "\n")
    print(f"written to {arguments.out}")


if __name__ == "__main__":
    main()
