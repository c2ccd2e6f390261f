#!/usr/bin/env python3
"""Compares time and memory of the losses with other libraries.

Forward and backward on random embeddings of 4 classes (or of two views). Each row is
its own process, in which both losses' steps alternate. Prints a table and writes it as
JSON, where a row replaces an earlier one of the same machine and versions. If both ran,
the table says whether their values agree.

> python benchmarks/losses.py
> python benchmarks/losses.py --losses supcon triplet --sizes 128 512 --threads 2
> python benchmarks/losses.py --losses supcon ntxent --sizes 32768 --largest-peer 0

The peer is pytorch-metric-learning; lightly for barlow_twins, vicreg and moco;
pytorch-adapt for coral, mmd and information_maximization (``pip install lightly
pytorch-adapt``); else the formula with masks, written here. Losses of two batches take
two tensors, ours and the peer's.

Some peers list pairs or triplets one by one: NT-Xent needs 13 GB at 256 rows. No
process may need more than --memory-limit and --timeout; else ours is measured alone.
Siamese: the peer averages other pairs, so its value differs.

Authors
 * The speechbrain_ser_cl contributors 2026
"""

import argparse
import ctypes
import importlib.metadata
import itertools
import json
import math
import os
import statistics
import time
from datetime import datetime, timezone
from pathlib import Path

from apart import measure_apart

RESULTS = Path(__file__).parent / "results" / "losses.json"
CLASSES, DIM = 4, 128
SIZES = [32, 128, 512, 1024, 4096]
LOSSES = (
    "supervised_ntxent",
    "supcon",
    "ntxent",
    "npair",
    "triplet",
    "triplet_semihard",
    "smooth_triplet",
    "siamese",
    "soft_nearest_neighbor",
    "pairwise_view",
    "cosine_margin",
    "barlow_twins",
    "vicreg",
    "moco",
    "coral",
    "mmd",
    "dann",
    "information_maximization",
    "rank_n_contrast",
    "contrastive_regression",
    "soft_supcon",
    "ordinal_triplet",
    "ccc",
    "focal",
)
MEGABYTE = 2**20


def ours(name):
    """Returns our loss of that name, as a function of (z, labels)."""
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
    made |= {
        "npair": lambda: losses.NPairLoss(),
        "rank_n_contrast": lambda: losses.RankNContrastLoss(),
        "contrastive_regression": lambda: losses.ContrastiveRegressionLoss(),
        "ordinal_triplet": lambda: losses.OrdinalTripletLoss(),
        "focal": lambda: losses.FocalLoss(),
    }
    if name in made:
        loss = made[name]()
        if name in ("rank_n_contrast", "contrastive_regression", "ordinal_triplet"):
            return lambda z, labels: loss(z, values(len(z)).to(z.device))
        return loss
    if name in TWO:
        kinds = {
            "ntxent": lambda: losses.NTXentLoss(0.5),
            "barlow_twins": losses.BarlowTwinsLoss,
            "vicreg": losses.VICRegLoss,
            "moco": lambda: losses.MoCoQueue(4096, DIM),
            "coral": losses.CORALLoss,
            "mmd": lambda: losses.MMDLoss(KERNELS),
            "dann": lambda: losses.DomainAdversarialLoss(DIM, steps=1000),
            "cosine_margin": losses.CosineMarginLoss,
        }
        loss = kinds[name]()
        return lambda z, labels: loss(*z.chunk(2))
    if name == "pairwise_view":
        loss = losses.PairwiseViewLoss(0.5)
        return lambda z, labels: loss(
            dict(zip("abc", z[: len(z) // 3 * 3].chunk(3), strict=True))
        )
    if name == "information_maximization":
        loss = losses.InformationMaximizationLoss()
        return lambda z, labels: loss(z)
    if name == "soft_supcon":
        loss = losses.SoftSupConLoss()
        return lambda z, labels: loss(z, votes(len(z)).to(z.device))
    loss = losses.CCCLoss()
    return lambda z, labels: loss(z, z.detach().roll(1, 0))


KERNELS = (0.25, 0.5, 1.0, 2.0, 4.0)
TWO = ("ntxent", "barlow_twins", "vicreg", "moco", "coral", "mmd", "dann")
TWO = (*TWO, "cosine_margin")


def values(rows):
    """Draws a label in 1 to 7 for each row."""
    import torch

    return 1 + torch.rand(rows, generator=torch.Generator().manual_seed(1)) * 6


def votes(rows):
    """Draws votes of ten listeners for four classes for each row."""
    import torch

    generator = torch.Generator().manual_seed(1)
    drawn = torch.randint(CLASSES, (rows, 10), generator=generator)
    return torch.nn.functional.one_hot(drawn, CLASSES).sum(dim=1)


def plain(name):
    """Computes the loss by its formula with masks."""
    import torch
    from torch.nn import functional as F

    def others(z):
        return ~torch.eye(len(z), dtype=torch.bool, device=z.device)

    def weighted(z, weights):
        z = F.normalize(z)
        s = (z @ z.T / 0.1).masked_fill(~others(z), -torch.inf)
        log_p = s.log_softmax(1).masked_fill(~others(z), 0)
        weights = weights * others(z)
        return -((weights * log_p).sum(1) / weights.sum(1)).mean()

    def regression(z, _):
        y = values(len(z))
        return weighted(z, torch.exp(-((y[:, None] - y) ** 2) / 2))

    def soft(z, _):
        shares = (votes(len(z)) / 10).sqrt()
        return weighted(z, shares @ shares.T)

    def rank(z, _):  # One pass per column, as in the authors' code.
        n, y = len(z), values(len(z))
        kept = others(z)
        gaps = (y[:, None] - y).abs()[kept].view(n, n - 1)
        s = (-(z[:, None] - z).norm(dim=2) / 2)[kept].view(n, n - 1)
        s = s - s.max(dim=1, keepdim=True).values.detach()
        loss = 0
        for k in range(n - 1):
            far = (gaps >= gaps[:, k : k + 1]).float()
            loss = loss - (s[:, k] - (far * s.exp()).sum(1).log()).sum()
        return loss / (n * (n - 1))

    def ordinal(z, _):
        z, y = F.normalize(z), values(len(z))
        gaps = (y[:, None] - y).abs()
        behind = 1 - z @ z.T - 0.1 * gaps
        x = behind[:, :, None] - behind[:, None, :]
        kept = (gaps[:, :, None] < gaps[:, None, :]) & (x > 0)
        kept &= others(z)[:, :, None] & others(z)[:, None, :]
        return x[kept].mean()

    def ccc(z, _):
        y = z.detach().roll(1, 0)
        a, b = z - z.mean(0), y - y.mean(0)
        spread = (a**2).mean(0) + (b**2).mean(0) + (z.mean(0) - y.mean(0)) ** 2
        return (1 - 2 * (a * b).mean(0) / spread).mean()

    def focal(z, labels):
        log_p = F.cross_entropy(z, labels, reduction="none").neg()
        return -((1 - log_p.exp()) ** 2 * log_p).mean()

    def margin(z, _):
        x, n = (F.normalize(v) for v in z.chunk(2))
        a, b = x.chunk(2)
        return 0.5 * (1 - (a * b).sum(1)).mean() + F.relu(a @ n.T - 0.4).mean()

    net = torch.nn.Sequential(
        torch.nn.Linear(DIM, 256), torch.nn.ReLU(), torch.nn.Linear(256, 1)
    )

    calls = itertools.count()

    def dann(z, _):
        source, target = z.chunk(2)
        both = torch.cat([source, target])
        domain = torch.cat([torch.ones(len(source)), torch.zeros(len(target))])
        factor = 2 / (1 + math.exp(-10 * next(calls) / 1000)) - 1
        # Identity with gradient -factor.
        reverse = (1 + factor) * both.detach() - factor * both
        logits = net(reverse).squeeze(1)
        return F.binary_cross_entropy_with_logits(logits, domain)

    return {
        "contrastive_regression": regression,
        "soft_supcon": soft,
        "rank_n_contrast": rank,
        "ordinal_triplet": ordinal,
        "ccc": ccc,
        "focal": focal,
        "cosine_margin": margin,
        "dann": dann,
    }[name]


def other_libraries(name):
    """Returns the same loss of lightly or pytorch-adapt."""
    if name in ("barlow_twins", "vicreg", "moco"):
        from lightly import loss as lightly

        made = {
            "barlow_twins": lightly.BarlowTwinsLoss,
            "vicreg": lightly.VICRegLoss,
            "moco": lambda: lightly.NTXentLoss(0.07, memory_bank_size=(4096, DIM)),
        }
        loss = made[name]()
        return lambda z, labels: loss(*z.chunk(2))
    from pytorch_adapt import layers

    if name == "information_maximization":
        entropy, diversity = layers.EntropyLoss(), layers.DiversityLoss()
        return lambda z, labels: entropy(z) + diversity(z)
    if name == "coral":
        loss = layers.CORALLoss()
    else:
        import torch

        loss = layers.MMDLoss(torch.tensor(KERNELS), "quadratic")
    return lambda z, labels: loss(*z.chunk(2))


def peers(name):
    """Returns the same loss of another library, or by its formula."""
    if name in ("barlow_twins", "vicreg", "moco", "coral", "mmd"):
        return other_libraries(name)
    if name == "information_maximization":
        return other_libraries(name)
    if name in LOSSES[LOSSES.index("dann") :] or name == "cosine_margin":
        return plain(name)
    from pytorch_metric_learning import distances, losses, miners, reducers

    cosine = distances.CosineSimilarity()
    if name == "supervised_ntxent":
        return losses.NTXentLoss(0.1)
    if name == "supcon":
        return losses.SupConLoss(0.1)
    if name == "npair":
        return losses.NTXentLoss(
            1.0, distance=distances.DotProductSimilarity(normalize_embeddings=False)
        )
    if name == "pairwise_view":
        pair = losses.SelfSupervisedLoss(losses.NTXentLoss(0.5))

        def each(z, labels):
            a, b, c = z[: len(z) // 3 * 3].chunk(3)
            return (pair(a, b) + pair(a, c) + pair(b, c)) / 3

        return each
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
    """Returns the peak memory of this process, in bytes."""
    for line in Path("/proc/self/status").read_text().splitlines():
        if line.startswith("VmHWM"):
            return int(line.split()[1]) * 1024
    raise RuntimeError("no VmHWM in /proc/self/status")


def measure(name, rows, with_peer, device, limit):
    """Measures both in turn in its own process, so that other programs affect both."""
    import torch

    if device == "cpu":
        import resource

        resource.setrlimit(resource.RLIMIT_AS, (limit, limit))
    generator = torch.Generator().manual_seed(0)
    z = torch.randn(rows, DIM, generator=generator).to(device).requires_grad_()
    labels = (torch.arange(rows) % CLASSES).to(device)
    # Few rows first, so that initialisation is not measured.
    small = z[:16].detach().clone().requires_grad_()

    def once(loss, z, labels):
        z.grad = None
        value = loss(z, labels)
        value.backward()
        if device != "cpu":
            torch.cuda.synchronize()
        return value

    made, results = {}, {"ours": None, "peer": None}
    for who in ("ours", "peer") if with_peer else ("ours",):
        try:
            loss = {"ours": ours, "peer": peers}[who](name)
            once(loss, small, labels[:16])
            if device == "cpu":
                ctypes.CDLL(None).malloc_trim(0)  # gives back what earlier steps freed
                Path("/proc/self/clear_refs").write_text("5")  # Resets the peak.
                before = high_water_mark()
                value = once(loss, z, labels)
                memory = high_water_mark() - before
            else:
                torch.cuda.reset_peak_memory_stats()
                before = torch.cuda.memory_allocated()
                value = once(loss, z, labels)
                memory = torch.cuda.max_memory_allocated() - before
        except (MemoryError, RuntimeError) as error:
            results[who] = {"failed": str(error).splitlines()[0]}
            continue
        made[who] = loss
        results[who] = {"megabytes": memory / MEGABYTE, "value": value.item()}
    seconds = {who: [] for who in made}
    spent = 0
    while made and len(seconds["ours"]) < 200 and spent < 30:
        if min(map(len, seconds.values())) >= 3 and spent > 1:
            break
        for who, loss in made.items():
            start = time.perf_counter()
            once(loss, z, labels)
            seconds[who].append(time.perf_counter() - start)
        spent = sum(map(sum, seconds.values()))
    for who, values in seconds.items():
        results[who] |= {"seconds": statistics.median(values), "runs": len(values)}
    return results


def about(arguments):
    """Describes machine and versions."""
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
    """Formats time and memory, or the reason for none."""
    if result is None:
        return f"{'':>10} {'':>9}"
    if "failed" in result:
        return f"{'failed':>10} {'':>9}"
    return f"{1000 * result['seconds']:8.1f}ms {result['megabytes']:7.0f}MB"


def compare(arguments):
    """Runs all measurements and prints each result."""
    print(
        f"{'loss':22} {'rows':>6} {'ours':>10} {'':>9} {'peer':>10} {'':>9} "
        f"{'faster':>8}  same value"
    )
    # glibc returns freed memory to the system and gets it again in the next step, page
    # by page, in one of two alternating measurements more often than in the other.
    os.environ |= {"MALLOC_MMAP_THRESHOLD_": str(2**25), "MALLOC_TRIM_THRESHOLD_": "-1"}
    rows_of_table = []
    for name in arguments.losses:
        for rows in arguments.sizes:
            load = os.getloadavg()[0]
            peer = str(int(rows <= arguments.largest_peer))
            words = ["--one", name, str(rows), peer, "--device", arguments.device]
            words += ["--memory-limit", str(arguments.memory_limit)]
            both = measure_apart(__file__, words, arguments.threads, arguments.timeout)
            if "failed" in both:
                both, failed = {"ours": both, "peer": None}, both
                if peer == "1":
                    words[3] = "0"
                    alone = measure_apart(
                        __file__, words, arguments.threads, arguments.timeout
                    )
                    both = {"ours": alone.get("ours", alone), "peer": failed}
            mine, theirs = both["ours"], both["peer"]
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
    """Returns these rows, and earlier ones of the same machine and versions."""
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
    parser.add_argument("--sizes", nargs="+", type=int, default=SIZES)
    parser.add_argument("--largest-peer", type=int, default=4096, metavar="ROWS")
    parser.add_argument("--threads", type=int, default=os.cpu_count())
    parser.add_argument("--device", default="cpu")
    parser.add_argument(
        "--memory-limit", type=float, default=16, metavar="GB", help="CPU only"
    )
    parser.add_argument("--timeout", type=float, default=60, metavar="SECONDS")
    parser.add_argument("--out", type=Path, default=RESULTS, help="JSON file")
    parser.add_argument("--one", nargs=3, help=argparse.SUPPRESS)
    arguments = parser.parse_args()
    if arguments.one:
        name, rows, peer = arguments.one
        limit = int(arguments.memory_limit * 2**30)
        result = measure(name, int(rows), peer == "1", arguments.device, limit)
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
