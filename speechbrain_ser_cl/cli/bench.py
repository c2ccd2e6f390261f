"""Implements ``ser-cl bench``: compares features and classifiers on many corpora."""

import argparse
from pathlib import Path

SUMMARY = "compare features and classifiers on corpora, and across corpora"
DESCRIPTION = """\
Tests encoders (or openSMILE's and log-mel statistics) with linear classifiers on the
folds of each corpus, and trained on one corpus and tested on another, with the emotions
that both have. Features are computed once and kept.
"""
EPILOG = """\
Any other --key value replaces that entry of the YAML. Entries are features, corpora,
protocols, classifiers, cross_corpus, classes (four, five, six, seven, polarity; by
default the corpora's own), normalisations, cross_normalisations, seed and
allow_missing.

examples:
  ser-cl bench benchmarks/ser.yaml \\
      --corpora "{emodb: /data/EmoDB, ravdess: /data/RAVDESS}"
  ser-cl bench my.yaml --classifiers "[logistic, svm]" --output_folder results/mine

The output folder gets bench.md, bench.tex, bench.csv, bench.json, bench.html, and a
crossval.json for each cell, which `ser-cl compare` reads. Finished cells are not run
again: a stopped bench continues, and only new entries are run.
"""
USAGE = "ser-cl bench BENCH.yaml [options] [--key value ...]"
TAKES_MORE = True


def add_arguments(parser: argparse.ArgumentParser) -> None:
    """Adds the command's arguments to its parser."""
    add = parser.add_argument
    add("file", type=Path, metavar="BENCH.yaml", help="description of the bench")
    add("--output_folder", type=Path, help="results/bench/<name of the YAML>")
    add("--features_folder", metavar="FOLDER", help="folder of the features")
    add(
        "--tables_only",
        action="store_true",
        help="run nothing, write the tables of finished cells",
    )


def run(arguments: argparse.Namespace) -> int:
    """Runs missing cells, writes the tables and prints them."""
    from speechbrain_ser_cl.report.bench import write_bench_page
    from speechbrain_ser_cl.results.bench import write_bench
    from speechbrain_ser_cl.sweeps.bench import BenchRun, read_bench
    from speechbrain_ser_cl.utils.settings import split_overrides

    bench = read_bench(arguments.file, split_overrides(arguments.more))
    output = arguments.output_folder or Path("results/bench", arguments.file.stem)
    bench_run = BenchRun(bench, output, arguments.features_folder)
    try:
        if not arguments.tables_only:
            bench_run.run()
    finally:  # finished cells are reported also after an error
        cells = bench_run.cells()
        text = write_bench(cells, output)
        write_bench_page(cells, output / "bench.html")
    print(text)
    print(f"Results: {output}")
    return 0
