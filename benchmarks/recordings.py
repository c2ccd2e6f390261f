#!/usr/bin/env python3
"""Memory of ``ser-cl predict`` on recordings of 20 minutes, 1 hour and 3 hours.

A recording is made of a corpus' utterances with pauses of noise between them, in which
energy finds the speech. Then its first five minutes go through ``EmotionStream`` in
chunks of 0.37 s: are the windows those of the file?

> python benchmarks/recordings.py --model MODEL --speech ../shared/corpora/EmoDB

Authors
 * The speechbrain_ser_cl contributors 2026
"""

import argparse
import json
import os
import sys
import tempfile
import time
from datetime import datetime, timezone
from pathlib import Path

import numpy as np
import soundfile
from apart import measure_apart
from scale import peak_megabytes

RESULTS = Path(__file__).parent / "results" / "recordings.json"
RATE = 16000
PART = 300  # s that are streamed, too


def write_recording(path, files, seconds):
    """Utterances and pauses of 1 to 4 s; returns how many seconds are utterances."""
    rng = np.random.default_rng(0)
    n_left, n_speech = round(seconds * RATE), 0
    with soundfile.SoundFile(path, "w", RATE, 1, "PCM_16") as target:
        while n_left:
            wav = soundfile.read(rng.choice(files))[0][:n_left]
            pause = rng.normal(0, 3e-4, round(rng.uniform(1, 4) * RATE))
            both = np.concatenate([wav, pause])[:n_left]
            target.write(both)
            n_left, n_speech = n_left - len(both), n_speech + len(wav)
    return n_speech / RATE


def predict(model, path):
    """Runs the command in this process; returns what it took."""
    from speechbrain_ser_cl.cli import main

    words = ["predict", str(path), "--model", model, "--activity", "energy"]
    words += ["--smooth", "3", "--format", "json", "--output", str(path.parent)]
    start, busy = time.perf_counter(), time.process_time()
    if status := main(words):
        sys.exit(status)
    return {
        "seconds": time.perf_counter() - start,
        "processor_seconds": time.process_time() - busy,
        "megabytes": peak_megabytes(),
    }


def largest_difference(model, path, windows):
    """Of probabilities and times, in windows that end before the last of the part."""
    from speechbrain_ser_cl.inference import EmotionRecognizer
    from speechbrain_ser_cl.recordings import EmotionStream

    stream = EmotionStream(EmotionRecognizer.from_pretrained(model), smooth=3)
    wav, _ = soundfile.read(path, PART * RATE, dtype="float32")
    size = round(0.37 * RATE)
    heard = [
        one for k in range(0, len(wav), size) for one in stream.add(wav[k:][:size])
    ]
    rows = [
        [[one["start"], one["end"], *one["probabilities"].values()] for one in some]
        for some in ([one.as_dict() for one in heard], windows[: len(heard)])
    ]
    return len(heard), float(np.abs(np.subtract(*rows)).max())


def main():
    """Reads the command line, measures each length."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--model", required=True, help="what ser-cl export wrote")
    parser.add_argument("--speech", type=Path, required=True, help="folder of wavs")
    parser.add_argument("--minutes", type=int, nargs="+", default=[20, 60, 180])
    parser.add_argument("--results", type=Path, default=RESULTS)
    parser.add_argument("--one", type=Path, help=argparse.SUPPRESS)
    options = parser.parse_args()
    if options.one:
        print(json.dumps(predict(options.model, options.one)))
        return
    files = [str(path) for path in sorted(options.speech.rglob("*.wav"))]
    from speechbrain_ser_cl.training import machine, package_versions

    found = {
        **machine(),
        "load_before": os.getloadavg()[0],
        "date": datetime.now(timezone.utc).date().isoformat(),
        "versions": package_versions(),
        "model": Path(options.model).name,
        "results": [],
    }
    with tempfile.TemporaryDirectory() as folder:
        for minutes in options.minutes:
            path = Path(folder) / f"{minutes}.wav"
            spoken = write_recording(path, files, 60 * minutes) / 60
            row = {"minutes": minutes, "minutes_of_speech": spoken}
            words = ["--model", options.model, "--speech", options.speech]
            words = [str(word) for word in [*words, "--one", path]]
            row |= measure_apart(__file__, words, 1, 6 * 3600)
            windows = json.loads(path.with_suffix(".json").read_text("utf-8"))
            windows = windows["windows"]
            row["windows"] = len(windows)
            if minutes == options.minutes[0]:
                streamed = largest_difference(options.model, path, windows)
                found["streamed"] = dict(
                    zip(("windows", "largest_difference"), streamed, strict=True)
                )
            print(json.dumps(row), flush=True)
            found["results"].append(row)
            path.unlink()
    options.results.write_text(json.dumps(found, indent=1) + "\n", encoding="utf-8")


if __name__ == "__main__":
    main()
