"""Facts for which every audio file is decoded: silence, clipping, hashes."""

import hashlib
import json
import os
from collections.abc import Callable, Iterable, Iterator
from concurrent.futures import ThreadPoolExecutor
from contextlib import contextmanager
from dataclasses import asdict, dataclass
from pathlib import Path

import numpy as np
from tqdm import tqdm

from speechbrain_ser_cl.corpora.utterance import Utterance
from speechbrain_ser_cl.utils.audio import AudioError, read_samples
from speechbrain_ser_cl.utils.disk import full_disk_told

# File with the facts, in a recipe's ``data_folder``.
FACTS_FILE = "audio_facts.jsonl"
SILENT_PEAK = 0.001  # -60 dB of full scale
# This many consecutive samples at the largest magnitude count as clipping.
_CLIPPED_RUN = 3


@dataclass(frozen=True)
class AudioFacts:
    """Facts about one audio file.

    Arguments
    ---------
    peak : float
        Largest magnitude of the mean over channels without its offset; full scale is 1.
    clipped : float
        Fraction of samples in runs at the file's largest magnitude, in [0, 1].
    digest : str
        Hash of the 16-bit samples of the mean over channels, without zeros at both
        ends, and of the sampling rate. Equal for files that sound the same.
    rate : int
        Samples per second.
    channels : int
        Number of channels.
    problem : str or None
        Why the file cannot be read; the other fields are then meaningless.

    Example
    -------
    >>> AudioFacts(0.5, 0.0, "9f2c", 16000, 1).problem is None
    True
    """

    peak: float
    clipped: float
    digest: str
    rate: int
    channels: int
    problem: str | None = None


def audio_facts(
    utterances: Iterable[Utterance], cache_file: str | Path | None = None
) -> dict[str, AudioFacts]:
    """Decodes every file once and collects its facts.

    Arguments
    ---------
    utterances : iterable of Utterance
        In any order.
    cache_file : str or pathlib.Path, optional
        Cache file, one line per file, written as files are decoded, so that a killed
        process loses nothing. A file whose size or modification time changed is decoded
        again.

    Returns
    -------
    dict
        Id to facts. Files that cannot be read have a ``problem``.

    Example
    -------
    >>> from speechbrain_ser_cl.corpora import read_synthetic, write_synthetic
    >>> corpus = write_synthetic(
    ...     getfixture("tmp_path"),
    ...     "synthetic_source",
    ...     n_speakers=1,
    ...     utterances_per_speaker=1,
    ... )
    >>> facts = audio_facts(read_synthetic(corpus))
    >>> facts["synthetic_source_s00_u000_neutral"].rate
    16000
    """
    utterances = list(utterances)
    known = dict(_noted(cache_file)) if cache_file else {}
    keys = {u.id: _file_key(u.path) for u in utterances}
    todo = [u for u in utterances if keys[u.id] not in known]
    with (
        ThreadPoolExecutor(os.cpu_count()) as pool,
        _notes(cache_file) as note,
    ):
        found = pool.map(lambda u: _facts(u.path), todo)
        bar = tqdm(
            zip(todo, found, strict=True),
            total=len(todo),
            desc="decoding the files",
            disable=None if todo else True,
        )
        for utterance, facts in bar:
            known[keys[utterance.id]] = facts
            note(keys[utterance.id], facts)
    return {u.id: known[keys[u.id]] for u in utterances}


def _facts(path: Path) -> AudioFacts:
    try:
        samples, rate = read_samples(path)
    except AudioError as error:
        return AudioFacts(0.0, 0.0, "", 0, 0, str(error))
    mono = samples.mean(axis=1)
    # Hashed as 16 bit, so that copies in other formats have the same hash.
    steps = np.round(mono * 2**15).astype(np.int32)
    digest = hashlib.sha256(str(rate).encode())
    digest.update(np.trim_zeros(steps).tobytes())
    return AudioFacts(
        peak=float(np.abs(mono - mono.mean()).max()),
        clipped=max(_clipped(channel) for channel in samples.T),
        digest=digest.hexdigest()[:32],
        rate=rate,
        channels=samples.shape[1],
    )


def _clipped(samples: np.ndarray) -> float:
    """Computes the fraction of samples in runs at the largest magnitude."""
    magnitude = np.abs(samples)
    peak = float(magnitude.max())
    if peak < SILENT_PEAK:
        return 0.0
    # One 16-bit step below the peak; full scale if a codec exceeds it.
    at_peak = magnitude >= min(peak - 2**-15, 1 - 2**-10)
    edges = np.flatnonzero(np.diff(at_peak, prepend=False, append=False))
    lengths = edges[1::2] - edges[::2]
    return float(lengths[lengths >= _CLIPPED_RUN].sum() / len(samples))


def _file_key(path: Path) -> str:
    try:
        stat = path.stat()
    except OSError:
        return str(path)
    return f"{path.resolve()} {stat.st_size} {stat.st_mtime_ns}"


def _noted(path: str | Path) -> Iterator[tuple[str, AudioFacts]]:
    """Reads the facts of earlier processes; skips incomplete lines."""
    if not Path(path).exists():
        return
    with open(path, encoding="utf-8") as file:
        for line in file:
            try:
                key, values = json.loads(line)
                yield key, AudioFacts(**values)
            except (ValueError, TypeError):
                continue


@contextmanager
def _notes(path: str | Path | None) -> Iterator[Callable[[str, AudioFacts], None]]:
    """Writes facts, one per line. Several processes may write the same file."""
    if path is None:
        yield lambda key, facts: None
        return
    Path(path).parent.mkdir(parents=True, exist_ok=True)
    with full_disk_told(path), open(path, "a", encoding="utf-8") as file:
        # A killed process may have left an incomplete line.
        file.write("\n")

        def note(key: str, facts: AudioFacts) -> None:
            file.write(json.dumps([key, asdict(facts)]) + "\n")
            file.flush()

        yield note
