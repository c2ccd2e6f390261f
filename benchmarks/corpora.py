#!/usr/bin/env python3
"""Measures reading a corpus of 35 000 files by its card: ESD.

A copy with files of a few milliseconds is written to a temporary folder, and read as
`ser-cl check` or a recipe does.

> python benchmarks/corpora.py

Authors
 * The speechbrain_ser_cl contributors 2026
"""

import argparse
import json
import os
import tempfile
import time
import wave
from datetime import datetime, timezone
from pathlib import Path

RESULTS = Path(__file__).parent / "results" / "corpora.json"
EMOTIONS = ("Neutral", "Angry", "Happy", "Sad", "Surprise")


def write_esd(folder):
    """Writes 20 speakers with 5 emotions and 350 sentences each."""
    for speaker in range(1, 21):
        for i, emotion in enumerate(EMOTIONS):
            place = folder / f"{speaker:04d}" / emotion
            place.mkdir(parents=True)
            for number in range(350 * i + 1, 350 * i + 351):
                path = str(place / f"{speaker:04d}_{number:06d}.wav")
                with wave.open(path, "wb") as file:
                    file.setnchannels(1)
                    file.setsampwidth(2)
                    file.setframerate(16000)
                    file.writeframes(bytes(320 + 2 * (number % 7)))


def main():
    """Writes the copy, measures, and saves the result."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--results", type=Path, default=RESULTS)
    options = parser.parse_args()
    from speechbrain_ser_cl.registry import CORPORA
    from speechbrain_ser_cl.training import machine, package_versions

    with tempfile.TemporaryDirectory() as name:
        folder = Path(name)
        write_esd(folder)
        start, busy = time.perf_counter(), time.process_time()
        utterances = CORPORA.get("esd")(folder)
        seconds, processor = time.perf_counter() - start, time.process_time() - busy
    found = {
        **machine(),
        "load_before": os.getloadavg()[0],
        "date": datetime.now(timezone.utc).date().isoformat(),
        "versions": package_versions(),
        "files": len(utterances),
        "seconds": seconds,
        "processor_seconds": processor,
    }
    print(
        f"{len(utterances)} files: {seconds:.1f} s, of the processor {processor:.1f} s"
    )
    options.results.write_text(json.dumps(found, indent=1) + "\n", encoding="utf-8")


if __name__ == "__main__":
    main()
