#!/usr/bin/env python3
"""Writes the tables of this folder's README from the results of the benchmarks.

> python benchmarks/tables.py
> python benchmarks/tables.py --check

Each benchmark leaves a JSON file in ``results``, with the machine and the versions; a
table stands between ``<!-- NAME: begin -->`` and ``<!-- NAME: end -->``, where NAME is
that of the file. One file that is not there is said to be not run.

Authors
 * The speechbrain_ser_cl contributors 2026
"""

import argparse
import json
import re
import sys
from pathlib import Path

FOLDER = Path(__file__).resolve().parent
README = FOLDER / "README.md"
BLOCK = re.compile(r"(<!-- (\w+): begin -->\n).*?(<!-- \2: end -->)", re.DOTALL)


def line(cells):
    """A line of a Markdown table."""
    return "| " + " | ".join(map(str, cells)) + " |"


def table(titles, rows):
    """A Markdown table."""
    return [line(titles), line(["---"] * len(titles)), *map(line, rows)]


def machine(found):
    """On which machine, in words."""
    where = found.get("gpu") or f"{found['processor']}, {found['threads']} threads"
    versions = found["versions"]
    return f"Measured on {where}; PyTorch {versions['torch']}."


def losses(found):
    """Time and memory of losses, ours and pytorch-metric-learning's."""

    def cells(result):
        if result is None:
            return ["–", "–"]
        if "failed" in result:
            too_much = "memory" in result["failed"]
            return ["too much memory" if too_much else "too long", "–"]
        return [f"{1000 * result['seconds']:.1f}", f"{result['megabytes']:.0f}"]

    rows = []
    for row in found["results"]:
        ratio = row.get("times faster")
        ratio = "–" if ratio is None else f"{ratio:.1f}"
        rows.append(
            [
                row["loss"].replace("_", " "),
                row["rows"],
                *cells(row["ours"]),
                *cells(row["peer"]),
                ratio,
            ]
        )
    titles = ["loss", "rows", "ms", "MB", "peer ms", "peer MB", "times faster"]
    return [*table(titles, rows), "", machine(found)]


def encoders(found):
    """Forward and backward of encoders, ours and SpeechBrain's."""
    wrappers = {}
    rows = []
    for row in found["results"]:
        key = tuple(row[k] for k in ("encoder", "batch", "precision", "compiled"))
        if "failed" in row:
            rows.append([*key[:3], row["who"], "failed", *["–"] * 4])
            continue
        if row["who"] == "wrapper":
            wrappers[key] = row
        wrapper = wrappers.get(key, row)
        rows.append(
            [
                row["encoder"],
                row["batch"],
                row["precision"] + (", compiled" if row["compiled"] else ""),
                row["who"].replace("_", " "),
                f"{row['seconds']:.2f}",
                f"{row['megabytes']:.0f}",
                f"{row['seconds'] / wrapper['seconds']:.2f}",
                f"{row['processor_seconds'] / wrapper['processor_seconds']:.2f}",
                f"{row['megabytes'] / wrapper['megabytes']:.2f}",
            ]
        )
    titles = ["encoder", "lengths", "precision", "who", "s", "MB"]
    titles += ["time", "processor time", "memory"]
    first = found["results"][0]
    batch = (
        f"{first['batch_size']} utterances of at most {first['longest_seconds']:g} s. "
        "The last three columns: as a share of the wrapper's. "
    )
    return [*table(titles, rows), "", batch + machine(first)]


def spectrogram_crnn(found):
    """A batch through the thesis's CRNN, ours and typed plainly."""
    rows = [
        [
            row["step"],
            row["precision"],
            *(
                f"{value:.2f}"
                for who in ("ours", "plain")
                for value in row[who].values()
            ),
        ]
        for row in found["results"]
    ]
    names = [name.replace("_", " ") for name in found["results"][0]["ours"]]
    titles = ["step", "precision", *names, *(f"plain: {name}" for name in names)]
    batch = f"{found['batch']} utterances of {found['seconds']:g} s. "
    where = found["machine"] | {"versions": found["versions"]}
    return [*table(titles, rows), "", batch + machine(where)]


def cache(found):
    """Reading cached features, ours and SpeechBrain's."""
    names = {
        "ours": "FeatureCache",
        "hdf5": "CachedHDF5DynamicItem",
        "files": "CachedDynamicItem",
        "copy": "a copy within memory",
    }
    rows = [
        [
            row["features"],
            names[row["reader"]],
            f"{1000 * row['seconds']:.1f}",
            f"{row['gigabytes per second']:.2f}",
            f"{row['ours is faster by']:.2f}",
            f"{row['in CPU time by']:.2f}",
        ]
        for row in found["results"]
    ]
    titles = ["features", "reader", "ms per epoch", "GB/s"]
    titles += ["ours is faster by", "in processor time by"]
    size = f"{found['utterances']} utterances, {found['layers']} × {found['dim']} "
    return [*table(titles, rows), "", size + "values a frame. " + machine(found)]


def cache_epoch(found):
    """An epoch of pre-training, from cached features and from audio."""
    epoch = found["results"]
    rows = [
        ["extraction, once", f"{epoch['seconds of extraction, once']:.0f}"],
        ["epoch, from the cache", f"{epoch['seconds']:.1f}"],
        ["epoch, extracted anew", f"{epoch['seconds without the cache']:.0f}"],
    ]
    batches = epoch["of which batches were measured"]
    about = (
        f"{epoch['utterances']} utterances of {epoch['epoch of']}, "
        f"{epoch['hours']:.1f} h; {', '.join(epoch['views'].values())}; means of "
        f"{epoch['frames averaged']} frames of the speech encoder. The last row is "
        f"measured on {batches} of the batches of 128. "
    )
    return [*table(["what", "s"], rows), "", about + machine(found)]


def training_step(found):
    """Where the time of a training step goes."""
    rows = [[part, f"{ms:.1f}"] for part, ms in found["median_ms"].items()]
    rows += [
        [f"with the loader: {part}", f"{ms:.1f}"]
        for part, ms in found["with_loader_median_ms"].items()
    ]
    about = (
        f"{found['recipe']}, {found['encoder']}, batches of {found['batch_size']} "
        f"utterances of at most {found['max_seconds']} s, {found['precision']}. "
    )
    where = found["machine"] | {"versions": found["versions"]}
    return [*table(["part", "ms"], rows), "", about + machine(where)]


def loading(found):
    """Utterances that one core loads in a second."""
    by = ("per file", "per batch")
    rows = [
        [row["step"], *("–" if row[k] is None else f"{row[k]:.0f}" for k in by)]
        for row in found["results"]
    ]
    whole, many = found["results"][-1]["per file"], found["cores_beside_gpu"]
    slowest = min(found["results"][:-1], key=lambda row: row["per file"])
    about = (
        f"Utterances a second of one core; {found['speech']}, {found['seconds']:g} s "
        f"each, batches of {found['batch']}. The slowest step is {slowest['step']}. "
        f"{many} such cores make {many * whole:.0f} utterances a second of two views "
        f"each ({found['goal']} are wanted for an H100). Load before: "
        f"{found['load_before']:.0f} processes on {found['cores']} cores. "
    )
    return [*table(["step", *by], rows), "", about + machine(found)]


def scale(found):
    """Seconds and memory by the number of utterances, and how they grow."""
    rows, before = [], None
    for row in found["results"]:
        cells = []
        for step, seconds in row["processor_seconds"].items():
            grown = f" (× {seconds / before[step]:.1f})" if before else ""
            cells.append(f"{seconds:.2f}{grown}")
        rows.append([f"{row['utterances']:,}".replace(",", " "), *cells])
        rows[-1].append(f"{row['megabytes']:.0f}")
        before = row["processor_seconds"]
    steps = [f"{step}, s" for step in found["results"][0]["seconds"]]
    about = "Seconds of the processor, on a machine with a load of "
    about += f"{found['load_before']:.0f}; MB: the most that the process had. "
    return [*table(["utterances", *steps, "MB"], rows), "", about + machine(found)]


def heads(found):
    """UAR of trainings of own_corpus beside the probe that they begin with."""
    groups = {}
    for row in found["results"]:
        key = (row["corpus"], row["encoder"].removesuffix("-encoder"), row["yaml"])
        groups.setdefault(key, []).append(row)
    rows = []
    for (corpus, encoder, yaml), runs in sorted(groups.items()):
        folds = sorted({run["fold"] for run in runs})
        seeds = sorted({run["seed"] for run in runs})
        probe, uar = (
            100
            * sum(
                sum(run[what] for run in of_fold) / len(of_fold)
                for fold in folds
                if (of_fold := [run for run in runs if run["fold"] == fold])
            )
            / len(folds)
            for what in ("probe", "uar")
        )
        kept = sum(not run["tested_epoch"] for run in runs)
        numbers = [", ".join(map(str, some)) for some in (folds, seeds)]
        row = [corpus, encoder, yaml, *numbers, len(runs), f"{probe:.1f}"]
        rows.append([*row, f"{uar:.1f}", f"{uar - probe:+.1f}", kept])
    titles = ["corpus", "encoder", "YAML", "folds", "seeds", "runs", "probe, UAR %"]
    titles += ["trained, UAR %", "difference", "runs that keep the probe"]
    about = "Means over folds, each over its seeds. "
    return [*table(titles, rows), "", about + machine(found)]


def leaks(found):
    """UAR by what training shares with the test, and what that is worth."""

    def cell(row, name):
        low, high = (100 * bound for bound in row["intervals"][name])
        sign = "+" if name == "gain" else ""
        return f"{100 * row[name]:{sign}.1f} ({low:{sign}.1f} to {high:{sign}.1f})"

    kinds = {(r["corpus"], r["kept apart"]): {} for r in found["results"]}
    for row in found["results"]:
        kinds[row["corpus"], row["kept apart"]][row["training"]] = row
    rows = []
    for (corpus, kept_apart), sizes in kinds.items():
        cells = [corpus, kept_apart]
        for row in (sizes["same"], sizes["all"]):
            gain = "–" if kept_apart == "by both" else cell(row, "gain")
            cells += [row["utterances"], cell(row, "uar"), gain]
        rows.append(cells)
    titles = ["corpus", "kept apart", "trained on", "UAR %", "leak"]
    titles += ["trained on all", "UAR %", "leak and more data"]
    sizes = "; ".join(
        f"{name}: {one['utterances']} utterances, {one['speakers']} speakers, "
        f"{one['texts']} sentences, {one['classes']} classes"
        for name, one in found["corpora"].items()
    )
    about = f"Frozen {found['encoder']}, logistic regression. {sizes}."
    return [*table(titles, rows), "", about]


TABLES = {
    "heads": heads,
    "leaks": leaks,
    "scale": scale,
    "loading": loading,
    "cache": cache,
    "cache_epoch_ravdess": cache_epoch,
    "training_step": training_step,
    "losses": losses,
    "losses_32768": losses,
    "encoders": encoders,
    "spectrogram_crnn": spectrogram_crnn,
}


def filled(text):
    """The README's text as it should be."""

    def fill(block):
        path = FOLDER / "results" / f"{block[2]}.json"
        lines = ["Not run yet."]
        if path.exists():
            found = json.loads(path.read_text(encoding="utf-8"))
            lines = TABLES[block[2]](found)
        return "\n".join([block[1], *lines, "", block[3]])

    return BLOCK.sub(fill, text)


def main(arguments=None):
    """Reads the command line; 1 where the README is out of date."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--check", action="store_true", help="write nothing")
    options = parser.parse_args(arguments)
    text = README.read_text(encoding="utf-8")
    new = filled(text)
    if options.check:
        return int(new != text)
    README.write_text(new, encoding="utf-8")
    return 0


if __name__ == "__main__":
    sys.exit(main())
