#!/usr/bin/env python3
"""Measures folds, parts of a run and manifests for up to 1 000 000 utterances.

Utterances are made in memory, with numbers per speaker and class as in a podcast
corpus, without audio. Each size is measured in its own process. Growth: time divided by
that of the next smaller size.

> python benchmarks/scale.py
> python benchmarks/scale.py --sizes 300000

Authors
 * The speechbrain_ser_cl contributors 2026
"""

import argparse
import json
import os
import random
import re
import resource
import tempfile
import time
from datetime import datetime, timezone
from pathlib import Path

from apart import measure_apart

RESULTS = Path(__file__).parent / "results" / "scale.json"
CLASSES = ("neutral", "happy", "angry", "sad", "surprised", "disgusted", "fearful")
SHARES = (48, 25, 9, 8, 4, 4, 2)


def utterances(count):
    """Makes utterances of speakers with few or many; 100 per speaker on average."""
    from speechbrain_ser_cl.corpora import Utterance

    rng = random.Random(0)
    made, speaker = [], 0
    while len(made) < count:
        speaker += 1
        gender = rng.choice(("female", "male"))
        shares = [share * rng.random() for share in SHARES]
        for emotion in rng.choices(CLASSES, shares, k=1 + int(rng.expovariate(0.01))):
            name = f"{len(made):07d}"
            made.append(
                Utterance(
                    id=f"podcast_{name}",
                    path=Path(f"/data/podcast/Audio/{name}.wav"),
                    duration=2.0 + rng.random() * 9,
                    corpus="podcast",
                    speaker=f"podcast_{speaker}",
                    session=None,
                    gender=gender,
                    language="en",
                    text_id=None,
                    emotion=emotion,
                )
            )
    return made[:count]


def measure(count):
    """Measures wall and processor seconds of each step, and the peak memory."""
    from speechbrain_ser_cl.data.manifest import read_manifest, write_manifest
    from speechbrain_ser_cl.data.protocols import (
        make_folds,
        read_split,
        select_parts,
        write_split,
    )
    from speechbrain_ser_cl.data.splits import Labelled

    items = [Labelled(u, u.emotion) for u in utterances(count)]
    seconds, processor = {}, {}

    def timed(name, step):
        start, busy = time.perf_counter(), time.process_time()
        result = step()
        processor[name] = time.process_time() - busy
        seconds[name] = time.perf_counter() - start
        return result

    with tempfile.TemporaryDirectory() as folder:
        split, *_ = timed("five folds", lambda: make_folds(items, "speaker_kfold"))
        file = Path(folder) / "fold-0.json"
        timed("write a split", lambda: write_split(split, file))
        split = timed("read a split", lambda: read_split(file))
        timed("parts of a run", lambda: select_parts(items, split))
        file = Path(folder) / "manifest.json"
        plain, root = [item.utterance for item in items], "/data/podcast"
        timed("write a manifest", lambda: write_manifest(plain, file, root))
        back = timed("read a manifest", lambda: read_manifest(file, root))
    assert back == plain
    return {
        "utterances": count,
        "seconds": seconds,
        "processor_seconds": processor,
        "megabytes": peak_megabytes(),
    }


def peak_megabytes():
    """Returns the peak of this process; ru_maxrss includes that of its parent."""
    try:
        status = Path("/proc/self/status").read_text(encoding="utf-8")
    except OSError:  # not Linux
        return resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / 1024
    (kilobytes,) = re.findall(r"VmHWM:\s+(\d+) kB", status)
    return int(kilobytes) / 1024


def main():
    """Measures each size in its own process."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    sizes = [10_000, 100_000, 1_000_000]
    parser.add_argument("--sizes", type=int, nargs="+", default=sizes)
    parser.add_argument("--results", type=Path, default=RESULTS)
    parser.add_argument("--one", type=int, help=argparse.SUPPRESS)
    options = parser.parse_args()
    if options.one:
        print(json.dumps(measure(options.one)))
        return
    from speechbrain_ser_cl.training import machine, package_versions

    found = {
        **machine(),
        "load_before": os.getloadavg()[0],
        "date": datetime.now(timezone.utc).date().isoformat(),
        "versions": package_versions(),
        "results": [],
    }
    for size in options.sizes:
        row = measure_apart(__file__, ["--one", str(size)], 1, 900)
        print(json.dumps(row), flush=True)
        found["results"].append(row)
    options.results.write_text(json.dumps(found, indent=1) + "\n", encoding="utf-8")


if __name__ == "__main__":
    main()
