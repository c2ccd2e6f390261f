"""A cache of features that are computed once and read by memory map.

Use it for any output that does not change during training: frames of a frozen encoder,
spectrograms. A feature depends on a key, which describes how features are computed, and
on the audio of the utterance. It is computed again only if one of them changes::

    <folder>/<hash of the key>/about.json      the key, to read
    <folder>/<hash of the key>/*.safetensors   a tensor per utterance, named by its id
    <folder>/audio.jsonl                       hash of each audio file
"""

import contextlib
import hashlib
import itertools
import json
import logging
import math
import os
import shutil
import sys
import time
from collections import deque
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from concurrent.futures import ThreadPoolExecutor
from functools import partial
from multiprocessing import parent_process
from pathlib import Path
from typing import Any, NamedTuple

import numpy
import torch
from filelock import FileLock, Timeout
from torch import Tensor, distributed, nn
from torch.multiprocessing.spawn import start_processes
from tqdm import tqdm

from speechbrain_ser_cl.corpora.utterance import Utterance
from speechbrain_ser_cl.data.dataset import waveform
from speechbrain_ser_cl.data.features.pack import (
    DTYPES,
    Entry,
    Pack,
    PackError,
    PackWriter,
    finish_abandoned,
)
from speechbrain_ser_cl.utils.audio import AudioError
from speechbrain_ser_cl.utils.disk import human_size
from speechbrain_ser_cl.utils.errors import offenders
from speechbrain_ser_cl.utils.files import replacing

logger = logging.getLogger(__name__)

# Marks the processes that fill() starts.
_CHILD = "SPEECHBRAIN_SER_CL_FILLS_A_CACHE"
_DTYPES = {str(dtype).removeprefix("torch."): dtype for dtype in DTYPES.values()}


def weights_hash(weights: nn.Module | Mapping[str, Tensor]) -> str:
    """Hashes weights: models have the same hash if their weights are equal.

    Arguments
    ---------
    weights : torch.nn.Module or mapping of str to torch.Tensor
        A model or its ``state_dict``, on any device.

    Returns
    -------
    str
        Sha256 of names, types, shapes and values, 64 hexadecimal digits.

    Example
    -------
    >>> a, b = nn.Linear(3, 2), nn.Linear(3, 2)
    >>> weights_hash(a) == weights_hash(b)
    False
    >>> _ = b.load_state_dict(a.state_dict())
    >>> weights_hash(a) == weights_hash(b)
    True
    """
    if isinstance(weights, nn.Module):
        weights = weights.state_dict()
    digest = hashlib.sha256()
    for name in sorted(weights):
        tensor = weights[name].detach().cpu().contiguous()
        digest.update(f"{name} {tensor.dtype} {tuple(tensor.shape)} ".encode())
        raw: Any = tensor.reshape(-1).view(torch.uint8).numpy()
        digest.update(raw)
    return digest.hexdigest()


class FeatureCache:
    """Stores features by utterance id in a folder.

    :meth:`fill` computes missing features. Then ``cache[id]`` is the feature, a view of
    a memory-mapped file that all processes on the machine share: loader workers (the
    cache can be pickled), ranks, other runs.

    The files are safetensors, which other programs can read::

        from safetensors import safe_open
        with safe_open(path, "pt") as file:
            frames = file.get_tensor("emodb_03a01Fa")

    Arguments
    ---------
    folder : str or pathlib.Path
        Folder of all caches; this cache has a subfolder named by a hash of the key.
    key : mapping
        Everything that determines the features of an audio file, as JSON: for a model
        its ``weights_hash``, revision and settings; for a spectrogram its parameters.
    dtype : str
        Type of the stored values: ``"float16"``, ``"bfloat16"`` or ``"float32"``. Part
        of the key.

    Raises
    ------
    ValueError
        For another dtype, or a key that is not JSON.

    Example
    -------
    >>> from speechbrain_ser_cl.corpora import read_synthetic, write_synthetic
    >>> folder = getfixture("tmp_path")
    >>> corpus = write_synthetic(
    ...     folder / "demo", "synthetic_source", n_speakers=2, utterances_per_speaker=4
    ... )
    >>> utterances = read_synthetic(corpus)
    >>> cache = FeatureCache(folder / "cache", {"kind": "100 samples per frame"})
    >>> cache.fill(utterances, lambda wav: wav[: len(wav) // 100 * 100].view(-1, 100))
    8
    >>> cache[utterances[0].id].dtype
    torch.float16
    >>> cache.fill(utterances, None)  # all are there
    0
    """

    def __init__(
        self, folder: str | Path, key: Mapping[str, Any], dtype: str = "float16"
    ) -> None:
        if dtype not in _DTYPES:
            raise ValueError(
                f"dtype is {dtype!r}, expected one of {', '.join(_DTYPES)}"
            )
        self.dtype = _DTYPES[dtype]
        try:
            self._key = json.dumps({**key, "dtype": dtype}, sort_keys=True)
        except TypeError as error:
            raise ValueError(
                f"the key of a feature cache must be plain JSON: {error}"
            ) from error
        name = hashlib.sha256(self._key.encode()).hexdigest()[:16]
        self.folder = Path(folder) / name
        self._places: dict[str, tuple[Pack, Entry]] = {}

    def __getitem__(self, utterance_id: str) -> Tensor:
        try:
            pack, entry = self._places[utterance_id]
        except KeyError:
            raise KeyError(
                f"{utterance_id}: not in the feature cache {self.folder}; it was not "
                "among the utterances given to fill()"
            ) from None
        return pack.read(entry)

    def __contains__(self, utterance_id: str) -> bool:
        return utterance_id in self._places

    def __len__(self) -> int:
        return len(self._places)

    def __iter__(self) -> Iterator[str]:
        return iter(self._places)

    def batch(
        self, ids: Sequence[str], out: Tensor | None = None
    ) -> tuple[Tensor, Tensor]:
        """Returns features of some utterances, padded with zeros.

        Arguments
        ---------
        ids : sequence of str
            B ids.
        out : torch.Tensor, optional
            Flat tensor to write into, large enough. Reused memory (pinned, for a GPU)
            is faster than new memory for every batch.

        Returns
        -------
        torch.Tensor
            For features (..., T, D): (B, ..., longest T, D). Features of equal shape,
            such as pooled ones, are stacked.
        torch.Tensor
            Relative lengths (B,): T / longest T, or ones.

        Raises
        ------
        KeyError
            For an id that was not given to :meth:`fill`.
        ValueError
            If ``out`` has another type or is too small.
        """
        features = [self[utterance_id] for utterance_id in ids]
        shape: tuple[int, ...] = features[0].shape
        stacked = all(feature.shape == shape for feature in features)
        if not stacked:
            counts = torch.tensor([feature.shape[-2] for feature in features])
            shape = (*shape[:-2], int(counts.max()), shape[-1])
        shape = (len(features), *shape)
        size = math.prod(shape)
        if out is None:
            out = torch.empty(size, dtype=self.dtype)
        elif out.dtype != self.dtype or out.dim() != 1 or len(out) < size:
            raise ValueError(
                f"out must be flat, {self.dtype}, with {size} elements or more; it is "
                f"{tuple(out.shape)}, {out.dtype}"
            )
        batch = out[:size].view(shape)
        if stacked:
            return torch.stack(features, out=batch), torch.ones(len(features))
        for row, feature in zip(batch, features, strict=True):
            row[..., : feature.shape[-2], :] = feature
            row[..., feature.shape[-2] :, :] = 0
        return batch, counts / shape[-2]

    def fill(
        self,
        utterances: Iterable[Utterance],
        extract: Callable[..., Tensor | Sequence[Tensor]] | None,
        processes: int = 1,
        read: Callable[[Utterance], Tensor] | None = None,
        batch_seconds: float | None = None,
    ) -> int:
        """Computes missing features and makes the features of all utterances readable.

        Each feature is written when it is computed, so a killed run continues with the
        next one. Size and time are estimated and shown first, and the free disk space
        is checked. The log has the number of reused features. Checksums of existing
        features are compared; damaged ones are computed again, with a warning.

        In a distributed run (``torch.distributed`` is initialised) all ranks call this
        with the same utterances and the same folder, and each computes its share. Runs
        that fill the same cache wait for each other.

        Arguments
        ---------
        utterances : iterable of Utterance
            In any order; one may occur several times, as where validation and test part
            are the same.
        extract : callable
            ``extract(wav) -> features``: a waveform (T,), float32, 16 kHz, to a tensor
            of any shape on any device. Called without gradients for one utterance at a
            time, so features do not depend on padding.
        processes : int
            Number of processes per rank. Above 1, ``extract`` must be picklable and the
            script importable (with its main part under ``if __name__ == "__main__":``).
        read : callable, optional
            Returns the input of ``extract`` for an utterance. Default: its waveform.
        batch_seconds : float, optional
            If given, ``extract`` gets a list of waveforms of similar length with this
            many seconds in total (or one longer waveform), and returns as many tensors.

        Returns
        -------
        int
            Number of utterances that this rank computed.

        Raises
        ------
        ValueError
            For an id of two utterances, features that are empty or not finite, and
            values that are too large for the dtype.
        OSError
            If the disk space is too small.
        AudioError
            If an audio file cannot be read.
        """
        if _CHILD in os.environ:
            raise RuntimeError(
                "fill(processes=...) starts processes, which import your script: put "
                'what it does under `if __name__ == "__main__":`'
            )
        compute: Any = extract
        if batch_seconds is None:
            compute = partial(_one_by_one, compute)
        work = _Work(read or waveform, compute, batch_seconds or 0.0)
        first: dict[str, Utterance] = {}
        twice = [u.id for u in utterances if first.setdefault(u.id, u) != u]
        if twice:
            raise ValueError(f"ids that occur more than once ({offenders(twice)})")
        utterances = sorted(first.values(), key=lambda u: (-u.duration, u.id))
        self.folder.mkdir(parents=True, exist_ok=True)
        contents = _contents(utterances, self.folder.parent / "audio.jsonl")
        jobs: dict[str, Utterance] = {}
        for utterance in utterances:
            jobs.setdefault(contents[utterance.id], utterance)

        rank, world_size = _rank_and_world_size()
        computed = 0
        lock = FileLock(self.folder / "lock")
        try:
            if rank == 0:
                _acquire(lock)
                self._write_about()
                finish_abandoned(self.folder)
                self._repair(jobs)
                computed += self._probe(jobs, work)
            _barrier()
            there = self._index()
            # The assignment to ranks must not depend on what is stored, which may
            # differ for a later rank.
            share = [
                (content, jobs[content])
                for content in list(jobs)[rank::world_size]
                if content not in there
            ]
            self._extract_all(share, work, processes, rank, world_size)
            computed += len(share)
            _barrier()
        finally:
            lock.release()
        there = self._index()
        self._places |= {u.id: there[contents[u.id]] for u in utterances}
        return computed

    def _write_about(self) -> None:
        with replacing(self.folder / "about.json") as part:
            part.write_text(json.dumps(json.loads(self._key), indent=1))

    def _packs(self) -> tuple[list[Pack], list[PackError]]:
        """Finds the packs in the folder, and files that are not packs."""
        packs, errors = [], []
        for path in sorted(self.folder.glob("*.safetensors")):
            try:
                pack = Pack(path)
                if pack.key != self._key:
                    raise PackError(f"{path}: it has features for another key")
                packs.append(pack)
            except PackError as error:
                errors.append(error)
        return packs, errors

    def _index(self) -> dict[str, tuple[Pack, Entry]]:
        """Lists the stored features by content."""
        packs, _ = self._packs()
        return {e.content: (pack, e) for pack in packs for e in pack.entries}

    def _repair(self, jobs: Mapping[str, Utterance]) -> None:
        """Compares checksums; removes damaged entries of a pack."""
        packs, errors = self._packs()
        for error in errors:
            logger.warning(
                "%s. The file is not used; what is missing without it is computed. "
                "Delete it if it is not needed.",
                error,
            )
        for pack in packs:
            wanted = [entry for entry in pack.entries if entry.content in jobs]
            if pack.is_whole and all(_in_threads(pack.is_intact, wanted, "checking")):
                continue
            intact = _in_threads(pack.is_intact, pack.entries, "checking")
            good = list(itertools.compress(pack.entries, intact))
            lost = [
                e.name for e, ok in zip(pack.entries, intact, strict=True) if not ok
            ]
            logger.warning(
                "%s: the file is damaged; the features of %d of its %d utterances are "
                "computed again (%s)",
                pack.path,
                len(lost),
                len(pack.entries),
                offenders(lost),
            )
            with PackWriter(self.folder, self._key, [e.name for e in good]) as writer:
                for entry in good:
                    writer.add(entry.name, entry.content, pack.read(entry))
            pack.path.unlink()

    def _probe(self, jobs: Mapping[str, Utterance], work: "_Work") -> int:
        """Computes shortest and longest utterance; estimates time and size of all."""
        there = self._index()
        missing = [(c, u) for c, u in jobs.items() if c not in there]
        if len(missing) < len(jobs):
            _tell(
                f"feature cache {self.folder}: {len(jobs) - len(missing)} of "
                f"{len(jobs)} utterances reused"
            )
        if not missing:
            return 0
        # Shortest first, as a warm-up; the second is timed.
        ends = missing[-1:] + missing[:-1][:1]
        sizes = []
        with PackWriter(self.folder, self._key, [u.id for _, u in ends]) as writer:
            for content, utterance in ends:
                begin = time.perf_counter()
                (features,) = self._compute([utterance], work)
                seconds = time.perf_counter() - begin
                writer.add(utterance.id, content, features)
                sizes.append(features.nbytes)
        durations = [u.duration for _, u in missing]
        expected = numpy.interp(durations, [u.duration for _, u in ends], sizes)
        total = int(expected.sum())
        seconds *= sum(durations) / durations[0]
        to_come, free = total - sum(sizes), shutil.disk_usage(self.folder).free
        _tell(
            f"feature cache {self.folder}: {len(missing)} utterances "
            f"({sum(durations) / 3600:.2f} h) to compute, about {human_size(total)} "
            f"and {seconds:.0f} s; free: {human_size(free)}"
        )
        if to_come > free:
            raise OSError(
                f"{self.folder}: the features of {len(missing)} utterances need about "
                f"{human_size(to_come)} and {human_size(free)} are free. Make room or "
                "choose a cache folder on another disk."
            )
        return len(ends)

    def _extract_all(
        self,
        share: Sequence[tuple[str, Utterance]],
        work: "_Work",
        processes: int,
        rank: int,
        world_size: int,
    ) -> None:
        bar = tqdm(
            total=len(share),
            desc="features" + (f", share 1 of {world_size}" if world_size > 1 else ""),
            unit="utt",
            disable=rank > 0 or not share,
        )
        with bar:
            if processes == 1 or not share:
                self._extract(share, work, bar.update)
                return
            done = torch.zeros(processes, dtype=torch.long).share_memory_()
            os.environ[_CHILD] = "1"
            try:
                context = start_processes(
                    _extract_in_process,
                    (self, share, work, done),
                    processes,
                    join=False,
                    start_method="spawn",
                )
            finally:
                del os.environ[_CHILD]
            while not context.join(timeout=0.2):
                bar.update(int(done.sum()) - bar.n)
            bar.update(int(done.sum()) - bar.n)

    def _extract(
        self,
        share: Sequence[tuple[str, Utterance]],
        work: "_Work",
        progress: Callable[[int], object],
    ) -> None:
        names = [utterance.id for _, utterance in share]
        batches = list(_batches(share, work.batch_seconds))
        # The next batch is read while one is computed.
        with (
            PackWriter(self.folder, self._key, names) as writer,
            ThreadPoolExecutor(1) as pool,
        ):
            read = (
                pool.submit(work.inputs, [utterance for _, utterance in batch])
                for batch in batches
            )
            coming = deque(itertools.islice(read, 1))
            for batch in batches:
                inputs = coming.popleft().result()
                coming.extend(itertools.islice(read, 1))
                utterances = [utterance for _, utterance in batch]
                features = self._compute(utterances, work, inputs)
                for (content, utterance), tensor in zip(batch, features, strict=True):
                    writer.add(utterance.id, content, tensor)
                progress(len(batch))

    def _compute(
        self,
        utterances: Sequence[Utterance],
        work: "_Work",
        inputs: list[Tensor] | None = None,
    ) -> list[Tensor]:
        with torch.inference_mode():
            inputs = inputs or work.inputs(utterances)
            features = [one.cpu() for one in work.extract(inputs)]
        return [
            self._stored(utterance, one)
            for utterance, one in zip(utterances, features, strict=True)
        ]

    def _stored(self, utterance: Utterance, features: Tensor) -> Tensor:
        """Converts features to the cache's type and checks them."""
        stored = features.to(self.dtype)
        if stored.numel() == 0 or not features.isfinite().all():
            what = "empty" if stored.numel() == 0 else "not finite"
            raise ValueError(f"{utterance.id} ({utterance.path}): features are {what}")
        if not stored.isfinite().all():
            raise ValueError(
                f"{utterance.id} ({utterance.path}): features of up to "
                f"{features.abs().max():g} do not fit into {self.dtype}; "
                "take bfloat16"
            )
        return stored


class _Work(NamedTuple):
    """Computes features of utterances."""

    read: Callable[[Utterance], Tensor]
    extract: Callable[[list[Tensor]], Sequence[Tensor]]
    batch_seconds: float

    def inputs(self, utterances: Sequence[Utterance]) -> list[Tensor]:
        """Reads the inputs of the features."""
        return [self.read(utterance) for utterance in utterances]


def _one_by_one(
    extract: Callable[[Tensor], Tensor], inputs: list[Tensor]
) -> list[Tensor]:
    return [extract(one) for one in inputs]


def _batches(
    share: Sequence[tuple[str, Utterance]], seconds: float
) -> Iterator[list[tuple[str, Utterance]]]:
    """Groups utterances in order, up to a number of seconds per batch."""
    batch: list[tuple[str, Utterance]] = []
    for job in share:
        if batch and (len(batch) + 1) * batch[0][1].duration > seconds:
            yield batch
            batch = []
        batch.append(job)
    if batch:
        yield batch


def _extract_in_process(
    index: int,
    cache: FeatureCache,
    share: Sequence[tuple[str, Utterance]],
    work: _Work,
    done: Tensor,
) -> None:
    """Computes every ``len(done)``-th utterance of a share, in a process of its own."""
    torch.set_num_threads(max(1, torch.get_num_threads() // len(done)))

    def progress(count: int) -> None:
        done[index] += count
        parent = parent_process()
        if parent is None or not parent.is_alive():
            raise SystemExit("the process that filled the cache is gone")

    cache._extract(share[index :: len(done)], work, progress)


def _contents(utterances: Sequence[Utterance], notes: Path) -> dict[str, str]:
    """Returns id to hash of the file's bytes; an unchanged file is read once."""

    def identity(utterance: Utterance) -> str:
        path = os.path.abspath(utterance.path)
        try:
            stat = os.stat(path)
        except OSError as error:
            raise AudioError(f"{path}: not a readable file ({error})") from error
        return f"{path} {stat.st_size} {stat.st_ctime_ns}"

    def content(utterance: Utterance) -> str:
        try:
            return hashlib.sha256(utterance.path.read_bytes()).hexdigest()
        except OSError as error:
            raise AudioError(
                f"{utterance.path}: not a readable file ({error})"
            ) from error

    known: dict[str, str] = {}
    if notes.exists():
        for line in notes.read_text(encoding="utf-8", errors="replace").splitlines():
            with contextlib.suppress(ValueError):  # cut off by a kill
                name, hashed = json.loads(line)
                known[name] = hashed
    names = {u.id: identity(u) for u in utterances}
    new = [u for u in utterances if names[u.id] not in known]
    found = [
        (names[u.id], text)
        for u, text in zip(new, _in_threads(content, new, "hashing audio"), strict=True)
    ]
    known |= dict(found)
    if found and _rank_and_world_size()[0] == 0:
        with notes.open("a", encoding="utf-8") as file:
            file.write("".join(["\n", *(f"{json.dumps(line)}\n" for line in found)]))
    return {u.id: known[names[u.id]] for u in utterances}


def _tell(message: str) -> None:
    tqdm.write(message, file=sys.stderr)


def _in_threads(
    function: Callable[..., Any], items: Sequence[Any], title: str
) -> list[Any]:
    """Returns results in order; shows a progress bar if it takes long."""
    with ThreadPoolExecutor(os.cpu_count()) as pool:
        results = pool.map(function, items)
        return list(tqdm(results, title, len(items), delay=2, leave=False))


def _rank_and_world_size() -> tuple[int, int]:
    if distributed.is_available() and distributed.is_initialized():
        return distributed.get_rank(), distributed.get_world_size()
    return 0, 1


def _barrier() -> None:
    if _rank_and_world_size()[1] > 1:
        distributed.barrier()


def _acquire(lock: FileLock) -> None:
    try:
        lock.acquire(timeout=0)
    except Timeout:
        logger.info("waiting for another run that fills %s", lock.lock_file)
        lock.acquire()
