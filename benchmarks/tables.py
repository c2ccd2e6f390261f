#!/usr/bin/env python3
"""Writes the tables of this folder's README, of pages in docs and of own_corpus.

> python benchmarks/tables.py
> python benchmarks/tables.py --check

Each benchmark writes a JSON file in ``results``, with the machine and the versions. Its
table is between ``<!-- NAME: begin -->`` and ``<!-- NAME: end -->``, where NAME is that
of the file. For a missing file the table says that it was not run.

Authors
 * The speechbrain_ser_cl contributors 2026
"""

import argparse
import json
import re
import sys
from itertools import pairwise
from pathlib import Path
from statistics import fmean, stdev

from speechbrain_ser_cl.metrics.significance import (
    holm,
    mean_interval,
    paired_fold_tests,
)
from speechbrain_ser_cl.metrics.without_labels import CRITERIA, rank_correlation

FOLDER = Path(__file__).resolve().parent
README = FOLDER / "README.md"
OWN_CORPUS = FOLDER.parent / "recipes" / "own_corpus" / "README.md"
DOCS = FOLDER.parent / "docs"
WRITTEN = ("which_loss.md", "bench.md", "adaptation.md")
PAGES = (README, *(DOCS / name for name in WRITTEN), OWN_CORPUS)
KEYS = ("features", "train")  # of a cell of ser-cl bench
BLOCK = re.compile(r"(<!-- (\w+): begin -->\n).*?(<!-- \2: end -->)", re.DOTALL)


def line(cells):
    """Formats a line of a Markdown table."""
    return "| " + " | ".join(map(str, cells)) + " |"


def table(titles, rows):
    """Formats a Markdown table."""
    return [line(titles), line(["---"] * len(titles)), *map(line, rows)]


def machine(found):
    """Describes the machine in words."""
    where = found.get("gpu") or f"{found['processor']}, {found['threads']} threads"
    versions = found["versions"]
    return f"Measured on {where}; PyTorch {versions['torch']}."


def losses(found):
    """Table of time and memory of losses, ours and other libraries'."""

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
    """Table of forward and backward passes of encoders, ours and SpeechBrain's."""
    wrappers = {}
    rows = []
    for row in found["results"]:
        key = tuple(row[k] for k in ("encoder", "batch", "precision", "compiled"))
        if "failed" in row:
            rows.append([*key[:3], row["who"], "failed", *["–"] * 4])
            continue
        if row["who"] == "wrapper":
            wrappers[key] = row
        shares = [
            f"{row[what] / wrappers.get(key, row)[what]:.2f}"
            for what in ("seconds", "processor_seconds", "megabytes")
        ]
        rows.append(
            [
                row["encoder"],
                row["batch"],
                row["precision"] + (", compiled" if row["compiled"] else ""),
                row["who"].replace("_", " "),
                f"{row['seconds']:.2f}",
                f"{row['megabytes']:.0f}",
                *shares,
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
    """Table of a batch of the thesis' CRNN, ours and in plain PyTorch."""
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
    """Table of reading cached features, ours and SpeechBrain's."""
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
    """Table of an epoch of pre-training, from cached features and from audio."""
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
    """Table of the parts of a training step's time."""
    parts = found["median_ms"]
    total = sum(parts.values())
    rows = [[k, f"{ms:.1f}", f"{100 * ms / total:.1f}"] for k, ms in parts.items()]
    rows += [
        [f"with the loader: {part}", f"{ms:.1f}", "–"]
        for part, ms in found["with_loader_median_ms"].items()
    ]
    about = (
        f"{found['recipe']}, {found['encoder']}, batches of {found['batch_size']} "
        f"utterances of at most {found['max_seconds']} s, {found['precision']}. "
    )
    if "load_before" in found:
        about += f"Load before: {found['load_before']:.0f} processes. "
    where = found["machine"] | {"versions": found["versions"]}
    return [*table(["part", "ms", "%"], rows), "", about + machine(where)]


def loading(found):
    """Table of utterances per second and core."""
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
    """Table of seconds and memory by the number of utterances, and their growth."""
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


def recordings(found):
    """Memory and time of predict by the length of a recording."""
    rows = [
        [
            f"{row['minutes']} min",
            f"{row['minutes_of_speech']:.0f} min",
            row["windows"],
            f"{row['megabytes']:.0f}",
            f"{row['processor_seconds']:.0f}",
            f"{60 * row['minutes'] / row['processor_seconds']:.0f}",
        ]
        for row in found["results"]
    ]
    titles = ["recording", "speech in it", "windows", "MB", "processor time, s"]
    titles.append("times faster than speech")
    same = found["streamed"]
    about = f"Model: {found['model']}. Of the {same['windows']} windows of the first "
    about += "five minutes the stream's differ from the file's by at most "
    about += f"{same['largest_difference']:.1e}. "
    return [*table(titles, rows), "", about + machine(found)]


def frozen(found):
    """Tables of ser-cl probe beside a script of 20 lines, by corpus and encoder."""
    lines = []
    for name, run in found.items():
        rows = [
            [title, row["wall_s"], row["cpu_s"], row["uar"]]
            for title, row in run["rows"].items()
        ]
        for row in rows:
            row.insert(3, f"{row[2] / rows[0][2]:.2f}")
        titles = [name, "wall s", "processor s", "× of the script", "UAR %"]
        lines += [*table(titles, rows), ""]
    return lines[:-1]


def heads(found):
    """Table of UAR of trainings of own_corpus and of the probe that they start from."""
    groups = {}
    for row in found["results"]:
        encoder = row["encoder"].removesuffix("-encoder")
        key = (row["corpus"], encoder, row["yaml"], row["schedule"])
        groups.setdefault(key, []).append(row)
    rows = []
    for key, runs in sorted(groups.items()):
        folds = {}
        for run in runs:
            folds.setdefault(run["fold"], []).append(run)
        probe, uar = (
            [
                100 * sum(run[what] for run in some) / len(some)
                for some in folds.values()
            ]
            for what in ("probe", "uar")
        )
        gains = [one - simple for one, simple in zip(uar, probe, strict=True)]
        bounds = mean_interval(gains)
        kept = sum(not run["tested_epoch"] for run in runs)
        seeds = {run["seed"] for run in runs}
        numbers = [", ".join(map(str, sorted(some))) for some in (folds, seeds)]
        means = [f"{sum(some) / len(folds):.1f}" for some in (probe, uar)]
        gain = f"{sum(gains) / len(folds):+.1f}"
        between = "–" if bounds is None else f"{bounds[0]:+.1f} to {bounds[1]:+.1f}"
        rows.append([*key, *numbers, len(runs), *means, gain, between, kept])
    titles = ["corpus", "encoder", "YAML", "at most", "folds", "seeds", "runs"]
    titles += ["probe, UAR %", "trained, UAR %", "difference", "95 % over folds"]
    titles += ["runs that keep the probe"]
    about = "Means over folds, each over its seeds. "
    return [*table(titles, rows), "", about + machine(found)]


def leaks(found):
    """Table of UAR by what training shares with the test."""

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


def ser(found):
    """Tables of ser-cl bench: within corpora, then across corpora."""

    def cell(row):
        if row["uar"] is None:
            return "not run"
        told = f"{100 * row['uar']:.1f}"
        if row["low"] is not None:
            told += f" ({100 * row['low']:.1f} to {100 * row['high']:.1f})"
        return told

    lines = []
    for cross in (False, True):
        own = [r for r in found["cells"] if (r["protocol"] == "cross_corpus") == cross]
        places = {}
        for row in own:
            classes = f", {row['classes']} classes" if row["classes"] else ""
            name = f"{row['train']} → {row['test']}" if cross else row["test"]
            known = places.get((row["train"], row["test"]), "")
            places[row["train"], row["test"]] = max(known, name + classes, key=len)
        rows = {}
        for row in own:
            key = row["features"], row["classifier"]
            rows.setdefault(key, {})[row["train"], row["test"]] = cell(row)
        lines += table(
            ["features", "classifier", *places.values()],
            [[*key, *(some[p] for p in places)] for key, some in rows.items()],
        )
        lines.append("")
    for name, rows in found["ranks"].items():
        told = "; ".join(f"{one}, {by}: {rank} (p {p})" for one, by, rank, p in rows)
        lines += [f"Mean ranks, {name.removesuffix('_ranks')}: {told}.", ""]
    return lines[:-1]


def ser_figure(found, path):
    """Draws UAR by training and test corpus, one heat map per kind of features."""
    import matplotlib

    matplotlib.use("Agg")
    from matplotlib import pyplot

    cells = [row for row in found["cells"] if row["classifier"] == "logistic"]
    features, corpora = (list(dict.fromkeys(r[k] for r in cells)) for k in KEYS)
    figure, axes = pyplot.subplots(1, len(features), figsize=(13, 3.6), sharey=True)
    for name, axis in zip(features, axes, strict=True):
        uar = {
            (r["train"], r["test"]): r["uar"] for r in cells if r["features"] == name
        }
        grid = [[100 * (uar[a, b] or 0) for b in corpora] for a in corpora]
        axis.imshow(grid, vmin=0, vmax=100, cmap="Blues")
        for y, row in enumerate(grid):
            for x, value in enumerate(row):
                color = "white" if value > 60 else "black"
                axis.text(x, y, f"{value:.0f}", ha="center", va="center", color=color)
        axis.set_xticks(range(len(corpora)), corpora)
        axis.set_yticks(range(len(corpora)), corpora)
        axis.set_title(name, fontsize=10)
        axis.set_xlabel("tested on")
    axes[0].set_ylabel("trained on")
    figure.tight_layout()
    figure.savefig(path, dpi=90, metadata={"Software": None})


def without_labels(found):
    """Tables of rank correlation and regret of criteria, by pair of corpora."""
    pairs = list(dict.fromkeys((r["source"], r["target"]) for r in found["results"]))
    lines = {}
    for row in found["results"]:
        place = row["source"], row["target"]
        told = f"{row['rho']:+.2f}, {100 * row['regret']:.1f}"
        lines.setdefault(row["criterion"], {})[place] = told
    rows = [[name, *(line[pair] for pair in pairs)] for name, line in lines.items()]
    for row, name in zip(rows, lines, strict=True):
        own = [r for r in found["results"] if r["criterion"] == name]
        rho, regret = (sum(r[k] for r in own) / len(own) for k in ("rho", "regret"))
        row.append(f"{rho:+.2f}, {100 * regret:.1f}")
    best = {(r["source"], r["target"]): r for r in found["results"]}
    for title, key in (("best model, UAR %", "best"), ("mean model, UAR %", "mean")):
        rows.append([title, *(f"{100 * best[p][key]:.1f}" for p in pairs), "–"])
    titles = ["criterion", *(f"{source} → {target}" for source, target in pairs)]
    about = (
        f"Rank correlation with the true UAR; points of UAR behind the best of "
        f"{found['results'][0]['models']} models. Frozen {found['encoder']}."
    )
    return [*table([*titles, "mean"], rows), "", about]


def adaptation_why(found):
    """Writes what neighbours share, by setting, and how criteria order networks."""
    shared = ("emotion", "class", "speaker", "text")
    groups, lines = {}, []
    for run in found["runs"]:
        key = run["source"], run["target"], run["encoder"]
        groups.setdefault(key, {}).setdefault(run["row"], []).append(run)
    for (source, target, encoder), settings in groups.items():
        rows = [
            [name]
            + [
                f"{100 * fmean(run[key] for run in runs):.1f}"
                for key in ("uar", *(f"same {name}" for name in shared))
            ]
            for name, runs in settings.items()
        ]
        titles = ["setting", "UAR %", *(f"same {name} %" for name in shared)]
        lines += [f"**{source} → {target}, {encoder}**", "", *table(titles, rows), ""]
    names = {**CRITERIA, "source_uar": "UAR on the source"}
    rows = []
    for name, title in names.items():
        cells = []
        for settings in groups.values():
            runs = [run for some in settings.values() for run in some]
            truth = [run["uar"] for run in runs]
            rho = rank_correlation([run[name] for run in runs], truth)
            best = max(runs, key=lambda run: run[name])["uar"]
            cells.append(f"{rho:+.2f}, {100 * (max(truth) - best):.1f}")
        rows.append([title, *cells])
    pairs = [f"{source} → {target}, {encoder}" for source, target, encoder in groups]
    about = (
        "Spearman's ρ with the true UAR over all networks; points of UAR behind the "
    )
    about += f"best. {len(found['runs']) // len(groups)} networks each."
    return [*lines, *table(["criterion", *pairs], rows), "", about]


NO_SOURCE = "5 %, 30 %, all losses, no source"
# Rows with unlabelled speech, and the same network without it.
WITHOUT = {
    NO_SOURCE: "5 % alone",
    "5 %, source, 30 % with augmentation": "5 % and source",
    "5 %, source, 30 % with contrast": "5 % and source",
    "5 %, source, 30 % with information maximisation": "5 % and source",
    "5 %, source, 30 %, all losses": "5 % and source",
}
ALL = "5 %, source, 30 %, all losses"
FIRST = 5  # draws that were seen before more were made


def adaptation(found):
    """Tables of UAR by what is trained on, one per encoder, and the tests."""
    values = by_encoder_and_pair(found)
    seen = {key: own.pop("recognised") for key, own in values.items()}
    names = list(dict.fromkeys(name for own in values.values() for name in own))
    names.sort(key=lambda name: (not name.startswith("logistic"), "then" in name))
    lines, fresh = [], []
    for encoder in dict.fromkeys(key[0] for key in values):
        columns = {pair: own for (e, pair), own in values.items() if e == encoder}
        cells = {name: [name] for name in names}
        gains = {name: [f"{name}, against {WITHOUT[name]}"] for name in WITHOUT}
        titles = []
        for pair, own in columns.items():
            titles.append(f"{pair}, {count(own)} draws")
            means = {name: mean_of(seeds) for name, seeds in own.items()}
            simple = max((n for n in own if n.startswith("logistic")), key=means.get)
            rivals = {n: simple for n in names if not n.startswith("logistic")}
            against = gained(own, rivals)
            for name in names:
                told = "not run here"
                if name in own:
                    told = f"{means[name]:.1f} ± {spread(own[name].values()):.1f}"
                if name in against:
                    told += f" ({against[name]})"
                cells[name].append(told)
            for name, told in gained(own, WITHOUT).items():
                gains[name].append(told)
            later = {n: {k: own[n][k] for k in own[n] if k >= FIRST} for n in own}
            told = gained(later, {name: rivals[name] for name in [ALL]})
            if told:
                fresh.append(f"{pair}, {encoder}: {told[ALL]}")
        lines += [f"{encoder}, UAR %:", ""]
        rows = [*cells.values(), ["views nearest to one of the same utterance, %"]]
        rows[-1] += [f"{mean_of(seen[encoder, pair]):.1f}" for pair in columns]
        lines += [*table(["trained on", *titles], rows), ""]
        lines += [f"{encoder}, points that speech without labels gives:", ""]
        lines += [*table(["row", *titles], gains.values()), ""]
    about = (
        "± is the standard deviation over draws; in brackets the gain over the better "
        "logistic regression of the column and p of a paired t-test over draws, Holm's "
        "correction over the rows. Draws are parts of the same corpus, so that p is "
        "somewhat too small."
    )
    if fresh:
        about += (
            f" Without the first {FIRST} draws, which were seen before the others were "
            "made (those with shared emotions were made at once), all losses against "
            f"the same logistic regression, one test each: {'; '.join(fresh)}."
        )
    return [*lines, about]


def by_encoder_and_pair(found):
    """Maps encoder and pair of corpora to UAR in % by row and draw."""
    values = {}
    for encoder, source, target, name, seed, uar, *_ in found["rows"]:
        own = values.setdefault((encoder, f"{source} → {target}"), {})
        own.setdefault(name, {})[seed] = 100 * uar
    return values


def count(own):
    """Tells how many draws the rows have."""
    return " or ".join(sorted({str(len(seeds)) for seeds in own.values()}))


def adaptation_unlabelled(found):
    """Tables of UAR without labels of the target: which loss, and how much of it."""
    simple, usual = "network, own statistics", "all losses"
    less = [name for name in found["order"] if name.startswith("without ")]
    weighed = [name for name in found["order"] if "λ" in name]
    which = [name for name in found["order"] if name not in weighed]
    values, lines, fresh = by_encoder_and_pair(found), [], []
    for encoder in dict.fromkeys(encoder for encoder, _ in values):
        columns = {pair: own for (e, pair), own in values.items() if e == encoder}
        for rival, names in ((simple, which), (usual, [usual, *less, *weighed])):
            titles = [f"{pair}, {count(own)} draws" for pair, own in columns.items()]
            cells = {name: [name] for name in names}
            compared = [name for name in names[names.index(rival) :] if name != rival]
            for own in columns.values():
                against = gained(own, dict.fromkeys(compared, rival))
                for name in names:
                    seeds = own.get(name, {})
                    told = f"{mean_of(seeds):.1f} ± {spread(seeds.values()):.1f}"
                    if name in against:
                        told += f" ({against[name]})"
                    cells[name].append(told if seeds else "not run here")
            lines += [f"{encoder}, UAR %, in brackets against “{rival}”:", ""]
            lines += [*table(["row", *titles], cells.values()), ""]
        for pair, own in columns.items():
            later = {n: {k: own[n][k] for k in own[n] if k >= FIRST} for n in own}
            told = gained(later, {usual: "without contrastive"})
            if told:
                fresh.append(f"{pair}, {encoder}: {told[usual]}")
    weights = ", ".join(
        f"{k.replace('_', ' ')} {v:g}" for k, v in found["weights"].items()
    )
    about = (
        f"The recipe's weights: {weights}. ± is the standard deviation over draws; p "
        "of a paired t-test over draws, Holm's correction over the rows of a table."
    )
    if fresh:
        about += (
            f" Without the first {FIRST} draws, which were seen before the others were "
            "made, all losses against those without contrast, one test each: "
            f"{'; '.join(fresh)}."
        )
    return [*lines, about]


def gained(own, rivals):
    """Tells the gain of rows over their rivals, with p corrected over the rows."""
    means, p_values = {}, {}
    for name, rival in rivals.items():
        same = sorted(set(own.get(name, {})) & set(own.get(rival, {})))
        if len(same) > 1:
            mine, theirs = ([own[n][seed] for seed in same] for n in (name, rival))
            means[name] = fmean(mine) - fmean(theirs)
            p_values[name] = paired_fold_tests(mine, theirs)["t_test"]
    corrected = zip(means, means.values(), holm(list(p_values.values())), strict=True)
    return {
        name: f"{gain:+.1f}, p {'< 0.001' if p < 0.001 else f'{p:.3f}'}"
        for name, gain, p in corrected
    }


def adaptation_weights(found):
    """Table of UAR by the weights of the losses, beside those of the recipe."""
    names = found["columns"][4:-1]
    usual = tuple(found["weights"][name] for name in names)
    by_pair, encoders = {}, set()
    for encoder, source, target, seed, *weights, uar in found["runs"]:
        own = by_pair.setdefault(f"{source} → {target}", {})
        own.setdefault(tuple(weights), {})[seed] = 100 * uar
        encoders.add(encoder)
    titles, cells = [], {}
    for pair, own in by_pair.items():
        titles.append(f"{pair}, {count(own)} draws")
        gains = gained(own, {weights: usual for weights in own if weights != usual})
        for weights, seeds in own.items():
            told = f"{mean_of(seeds):.1f}"
            if weights in gains:
                told += f" ({gains[weights]})"
            cells.setdefault(weights, {})[pair] = told

    def place(weights):
        """Sorts by the weight that is not the recipe's, then by its value."""
        return [(x != y, x) for x, y in zip(weights, usual, strict=True)]

    rows = [
        [
            *map("{:g}".format, weights),
            *(cells[weights].get(pair, "not run here") for pair in by_pair),
        ]
        for weights in sorted(cells, key=place)
    ]
    titles = [f"λ {name.replace('_', ' ')}" for name in names] + titles
    about = (
        f"{', '.join(sorted(encoders))}, frozen; UAR %. In brackets points above the "
        "first row, the recipe's weights, and p of a paired t-test over draws, Holm's "
        "correction over the rows."
    )
    return [*table(titles, rows), "", about]


def adaptation_labels(found):
    """Table of UAR by how much is labelled, and what speech without labels is worth."""
    path = FOLDER / "results" / "adaptation.json"
    beside = by_encoder_and_pair(json.loads(path.read_text(encoding="utf-8")))
    hidden = "network, 5 %, and 30 % without labels with all losses"
    methods, shares = found["methods"], found["shares"]
    curves = {name: [f"{name}, {share} %" for share in shares] for name in methods}
    cells = {row: [row] for row in [*sum(curves.values(), []), hidden]}
    worth = {name: [f"as good as: {name}, %"] for name in curves}
    titles = ["method, share with labels"]
    for (encoder, pair), own in by_encoder_and_pair(found).items():
        titles.append(f"{pair.split(' → ')[1]}, {encoder}, {count(own)} draws")
        draws = set.union(*map(set, own.values()))
        other = beside[encoder, pair][NO_SOURCE]
        own[hidden] = {draw: other[draw] for draw in draws}
        means = {row: mean_of(seeds) for row, seeds in own.items()}
        for row, line in cells.items():
            told = "not run here"
            if row in own:
                told = f"{means[row]:.1f} ± {spread(own[row].values()):.1f}"
            line.append(told)
        for name, line in worth.items():
            curve = [
                (share, means[row])
                for share, row in zip(shares, curves[name], strict=True)
                if row in own
            ]
            line.append(share_that_reaches(curve, means[hidden]))
    about = (
        "UAR %, ± is the standard deviation over draws. The last rows: with how much "
        "of the target labelled the other method is as good as the row above them; "
        "linear between the shares."
    )
    return [*table(titles, [*cells.values(), *worth.values()]), "", about]


def share_that_reaches(curve, value):
    """Tells at which share a curve first reaches a value, linear between shares."""
    if not curve:
        return "not run here"
    (first, y), (last, _) = curve[0], curve[-1]
    if y >= value:
        return f"≤ {first}"
    for (x0, y0), (x1, y1) in pairwise(curve):
        if y1 >= value:
            return f"{x0 + (x1 - x0) * (value - y0) / (y1 - y0):.1f}"
    return f"> {last}"


def spread(values):
    """Returns the standard deviation of some values; 0 for one."""
    values = list(values)
    return stdev(values) if len(values) > 1 else 0.0


# Loss zoo: measures in the order of the columns.
MEASURES = {
    "uar": "logistic regression",
    "nearest": "nearest utterance",
    "few_5": "5 per class",
    "few_10": "10 per class",
    "others": "other corpora",
    "head": "own head",
}


def zoo_units(found):
    """Maps encoder, loss and measure to values by corpus and fold, means over seeds."""
    sums = {}
    for row in found["rows"]:
        row = dict(zip(found["columns"], row, strict=True))
        others = [row[name] for name in found["corpora"] if row[name] is not None]
        row["others"] = sum(others) / len(others)
        for measure in MEASURES:
            if row[measure] is not None:
                key = row["encoder"], row["loss"], measure
                unit = sums.setdefault(key, {}).setdefault(
                    (row["corpus"], row["fold"]), []
                )
                unit.append(row[measure])
    return {
        key: {unit: sum(v) / len(v) for unit, v in units.items()}
        for key, units in sums.items()
    }


def zoo_tests(units, encoder, losses, base="cross_entropy"):
    """Computes, per loss and measure, the mean gain over cross-entropy and Holm's p."""
    gains = {}
    for measure in MEASURES:
        p_values, means = [], []
        for loss in losses:
            one = units.get((encoder, loss, measure), {})
            other = units.get((encoder, base, measure), {})
            same = sorted(set(one) & set(other))
            if loss == base or not same:
                p_values.append(None)
                means.append(None)
                continue
            pair = [[values[unit] for unit in same] for values in (one, other)]
            p_values.append(paired_fold_tests(*pair)["wilcoxon"])
            means.append(sum(pair[0]) / len(same) - sum(pair[1]) / len(same))
        for loss, mean, p in zip(losses, means, holm(p_values), strict=True):
            gains[loss, measure] = mean, p
    return gains


def zoo_told(units, encoder):
    """Lists, by measure and base, the losses that differ from it, else the nearest."""
    losses = sorted({loss for one, loss, _ in units if one == encoder})
    rows = []
    for base in ("cross_entropy", "plain features"):
        gains = zoo_tests(units, encoder, losses, base)
        for measure, title in MEASURES.items():
            tested = [(gains[loss, measure], loss.replace("_", " ")) for loss in losses]
            tested = sorted(
                (p, gain, loss) for (gain, p), loss in tested if p is not None
            )
            if not tested:
                continue
            told = [f"{loss} {100 * gain:+.1f} (p {p:.3f})" for p, gain, loss in tested]
            different = sum(p < 0.05 for p, _, _ in tested)
            if different == len(tested):
                told = [f"all, at least {min(abs(100 * g) for _, g, _ in tested):.1f}"]
            elif not different:
                told = [f"none; nearest {told[0]}"]
            else:
                told = told[:different]
            rows.append([title, base.replace("_", "-"), ", ".join(told)])
    return rows


def loss_zoo(found):
    """Tables of each loss by all measures, one per encoder; then by corpus."""
    units, lines = zoo_units(found), []
    losses = list(dict.fromkeys(row[2] for row in found["rows"]))
    for encoder in sorted({row[0] for row in found["rows"]}):
        gains = zoo_tests(units, encoder, losses)
        order = sorted(
            (loss for loss in losses if (encoder, loss, "uar") in units),
            key=lambda loss: -mean_of(units[encoder, loss, "uar"]),
        )
        rows = []
        for loss in order:
            cells = [loss.replace("_", " ")]
            for measure in MEASURES:
                values = units.get((encoder, loss, measure))
                if values is None:
                    cells.append("–")
                    continue
                gain, p = gains[loss, measure]
                star = "*" if p is not None and p < 0.05 else ""
                told = "" if gain is None else f" ({100 * gain:+.1f}{star})"
                cells.append(f"{100 * mean_of(values):.1f}{told}")
            rows.append(cells)
        own = [row for row in found["rows"] if row[0] == encoder]
        corpora, folds, seeds = ({row[k] for row in own} for k in (1, 3, 4))
        whole = len(losses) * len(corpora) * len(folds) * len(seeds)
        gap = "" if len(own) == whole else f" INCOMPLETE: {len(own)} of {whole} cells."
        lines += [f"**{encoder}**", "", *table(["loss", *MEASURES.values()], rows), ""]
        lines += [
            f"UAR in %, means over {len(corpora)} corpora × {len(folds)} folds × "
            f"{len(seeds)} seeds; in brackets the gain over cross-entropy, with * "
            "where p < 0.05 (signed-rank test over corpora and folds, Holm-corrected "
            f"over the losses).{gap}",
            "",
        ]
        lines += [*table(["measure", "against", "p < 0.05"], zoo_told(units, encoder))]
        lines.append("")
        by_corpus = [
            [
                loss.replace("_", " "),
                *(
                    f"{100 * mean_of(some):.1f}"
                    for measure in ("uar", "nearest", "few_5")
                    for corpus in sorted(corpora)
                    if (
                        some := {
                            unit: value
                            for unit, value in units[encoder, loss, measure].items()
                            if unit[0] == corpus
                        }
                    )
                ),
            ]
            for loss in order
        ]
        titles = [
            f"{corpus}, {MEASURES[measure]}"
            for measure in ("uar", "nearest", "few_5")
            for corpus in sorted(corpora)
        ]
        lines += [*table(["loss", *titles], by_corpus), ""]
    return lines[:-1]


def mean_of(values):
    """Returns the mean of a mapping's values."""
    return sum(values.values()) / len(values)


def zoo_figure(found, path):
    """Draws each loss's gain over cross-entropy by measure, with 95 % intervals."""
    import matplotlib

    matplotlib.use("Agg")
    from matplotlib import pyplot

    units = zoo_units(found)
    encoders = sorted({row[0] for row in found["rows"]})
    losses = list(dict.fromkeys(row[2] for row in found["rows"]))
    losses.remove("cross_entropy")
    shown = list(MEASURES)[:5]
    figure, axes = pyplot.subplots(1, 5, figsize=(13, 5), sharey=True)
    for measure, axis in zip(shown, axes, strict=True):
        for k, encoder in enumerate(encoders):
            for y, loss in enumerate(losses):
                one = units.get((encoder, loss, measure), {})
                other = units[encoder, "cross_entropy", measure]
                same = sorted(set(one) & set(other))
                if not same:
                    continue
                gains = [100 * (one[unit] - other[unit]) for unit in same]
                place = y + 0.2 * (k - (len(encoders) - 1) / 2)
                axis.plot(sum(gains) / len(gains), place, f"C{k}o", markersize=4)
                if interval := mean_interval(gains):
                    axis.plot(interval, [place] * 2, f"C{k}-")
        axis.axvline(0, color="grey", linewidth=0.8)
        axis.set_title(MEASURES[measure], fontsize=10)
        axis.set_xlabel("points above cross-entropy")
    names = [loss.replace("_", " ") for loss in losses]
    axes[0].set_yticks(range(len(losses)), names)
    axes[0].invert_yaxis()
    for k, encoder in enumerate(encoders):
        axes[-1].plot([], [], f"C{k}o-", label=encoder)
    figure.tight_layout(rect=(0, 0, 1, 0.94))
    figure.legend(loc="upper center", ncols=len(encoders), frameon=False)
    figure.savefig(path, dpi=90, metadata={"Software": None})


def gpu(found):
    """Tables of a GPU: fractions of its matrix rate, epochs."""
    rows = [
        [f"{name}, {size}", f"{rate:.1f}", f"{100 * share:.0f} %"]
        for name, (size, rate, share) in found.get("matrix", {}).items()
    ]
    lines = table(["bf16", "1e12 operations a second", "of the product"], rows)
    rows = [
        [name.replace("pairwise", "Pairwise-CL"), one["setting"]]
        + [
            f"{one['training_seconds']:.0f}",
            f"{one['peak_memory_mb'].get('gpu', 0):.0f}",
        ]
        for name, epochs in found["epochs"].items()
        for one in epochs
    ]
    lines += ["", *table(["epoch", "setting", "s", "MB"], rows)]
    failed = [name for name, step in found["steps"].items() if "failed" in step]
    about = f"Epochs of {found['utterances']} utterances, random weights. "
    about += f"Failed: {', '.join(failed) or 'nothing'}. "
    return [*lines, "", about + machine(found)]


TABLES = {
    "ser": ser,
    "without_labels": without_labels,
    "adaptation": adaptation,
    "adaptation_unlabelled": adaptation_unlabelled,
    "adaptation_why": adaptation_why,
    "adaptation_weights": adaptation_weights,
    "adaptation_labels": adaptation_labels,
    "loss_zoo": loss_zoo,
    "heads": heads,
    "frozen": frozen,
    "leaks": leaks,
    "scale": scale,
    "recordings": recordings,
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
    """Returns a page's text with current tables."""

    def fill(block):
        paths = sorted((FOLDER / "results").glob("*.json"))
        read = {p.stem: json.loads(p.read_text(encoding="utf-8")) for p in paths}
        lines = ["Not run yet."]
        if block[2] == "gpu":  # one file per card
            cards = [gpu(found) for found in read.values() if "card" in found]
            lines = [line for card in cards for line in [*card, ""]][:-1] or lines
        elif block[2] in read:
            lines = TABLES[block[2]](read[block[2]])
        return "\n".join([block[1], *lines, "", block[3]])

    return BLOCK.sub(fill, text)


def main(arguments=None):
    """Reads the command line; returns 1 if a page is out of date."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--check", action="store_true", help="write nothing")
    parser.add_argument("--figure", action="store_true", help="draw the figure, too")
    options = parser.parse_args(arguments)
    outdated = 0
    for page in PAGES:
        text = page.read_text(encoding="utf-8")
        new = filled(text)
        outdated |= new != text
        if not options.check:
            page.write_text(new, encoding="utf-8")
    if options.figure:
        for name, draw, page in (
            ("loss_zoo", zoo_figure, "which_loss"),
            ("ser", ser_figure, "bench"),
        ):
            found = json.loads((FOLDER / "results" / f"{name}.json").read_text())
            draw(found, DOCS / "_static" / f"{page}.png")
    return int(outdated and options.check)


if __name__ == "__main__":
    sys.exit(main())
