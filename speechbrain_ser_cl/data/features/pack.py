"""Safetensors files that grow by one tensor at a time and survive a kill.

A pack is written as ``NAME.part``: space for the header, then one tensor after another.
Each is recorded in ``NAME.journal`` (one line of JSON) after its bytes are written.
When the pack is complete, the header is written and the file is renamed to
``NAME.safetensors``. A killed process leaves part and journal; :func:`finish_abandoned`
makes a pack of all complete tensors.

The metadata of a pack contain its key and, for each tensor, a hash of its source and
its checksum: ``{"format": …, "key": …, "<name>": "<content> <crc32>", …}``.
"""

import json
import mmap
import os
import struct
import uuid
import zlib
from collections.abc import Sequence
from pathlib import Path
from typing import Any, NamedTuple

import torch
from filelock import FileLock
from torch import Tensor

from speechbrain_ser_cl.utils.errors import SERError

FORMAT = "speechbrain_ser_cl feature pack 1"
DTYPES = {"F16": torch.float16, "BF16": torch.bfloat16, "F32": torch.float32}
_DTYPE_NAMES = {dtype: name for name, dtype in DTYPES.items()}
_RESERVED = {"__metadata__", "format", "key"}
_MAX_BYTES = 2**30
_MAX_TENSORS = 20_000


class PackError(SERError):
    """A file is not a pack, or its header is damaged."""


class Entry(NamedTuple):
    """A tensor in a pack.

    Arguments
    ---------
    name : str
        Name in the file.
    content : str
        Hash of the source of the tensor.
    dtype : str
        F16, BF16 or F32.
    shape : tuple of int
        Its shape.
    start, end : int
        First byte and end of its data, from the beginning of the data.
    crc32 : str
        Checksum of the bytes, 8 hexadecimal digits.

    Example
    -------
    >>> Entry("a", "0f", "F16", (2, 3), 0, 12, "89abcdef").shape
    (2, 3)
    """

    name: str
    content: str
    dtype: str
    shape: tuple[int, ...]
    start: int
    end: int
    crc32: str


class PackWriter:
    """Appends tensors to packs in a folder; starts a new pack after 1 GiB.

    Arguments
    ---------
    folder : pathlib.Path
        Folder of the packs.
    key : str
        Key of the cache, written into each pack.
    names : sequence of str
        Names of the tensors in the order in which they are added.

    Raises
    ------
    ValueError
        For a name that safetensors reserves.

    Example
    -------
    >>> folder = getfixture("tmp_path")
    >>> with PackWriter(folder, "key", ["a"]) as writer:
    ...     writer.add("a", "0f", torch.ones(2, 3))
    >>> (path,) = folder.glob("*.safetensors")
    >>> from safetensors.torch import load_file
    >>> load_file(path)["a"].shape
    torch.Size([2, 3])
    """

    def __init__(self, folder: Path, key: str, names: Sequence[str]) -> None:
        taken = _RESERVED.intersection(names)
        if taken:
            raise ValueError(f"an utterance cannot have the id {min(taken)!r}")
        self.folder = folder
        self.key = key
        self._names = names
        self._added = 0
        self._path: Path | None = None

    def __enter__(self) -> "PackWriter":
        return self

    def __exit__(self, *error: object) -> None:
        self.close()

    def add(self, name: str, content: str, tensor: Tensor) -> None:
        """Appends a tensor, which a kill then cannot lose.

        Arguments
        ---------
        name : str
            The next of ``names``.
        content : str
            Hash of the source of the tensor.
        tensor : torch.Tensor
            float16, bfloat16 or float32, on the CPU, with at least one element.
        """
        if self._path is None:
            self._open()
        data = _bytes(tensor)
        start = self._entries[-1].end if self._entries else 0
        entry = Entry(
            name,
            content,
            _DTYPE_NAMES[tensor.dtype],
            tuple(tensor.shape),
            start,
            start + len(data),
            _crc32(data),
        )
        self._file.write(data)
        self._file.flush()
        self._note(entry)
        self._entries.append(entry)
        self._added += 1
        if entry.end >= _MAX_BYTES or len(self._entries) == _MAX_TENSORS:
            self.close()

    def close(self) -> None:
        """Completes the current pack."""
        if self._path is None:
            return
        self._journal.close()
        self._file.close()
        if self._entries:
            _finish(self._path, self.key, self._room, self._entries)
        else:
            _discard(self._path)
        self._lock.release()
        _lock_path(self._path).unlink(missing_ok=True)
        self._path = None

    def _open(self) -> None:
        self._path = self.folder / f"{uuid.uuid4().hex}.safetensors"
        self._lock = FileLock(_lock_path(self._path))
        self._lock.acquire()
        coming = self._names[self._added : self._added + _MAX_TENSORS]
        self._room = _room(self.key, coming)
        self._entries: list[Entry] = []
        self._journal = _journal_path(self._path).open("w", encoding="utf-8")
        self._note({"key": self.key, "room": self._room})
        self._file = _part_path(self._path).open("wb")
        self._file.seek(8 + self._room)

    def _note(self, line: object) -> None:
        self._journal.write(json.dumps(line) + "\n")
        self._journal.flush()


class Pack:
    """A pack that is read by memory map.

    All processes that read it share its memory pages. Tensors are views of the map:
    nothing is copied, and writing into one changes the process' memory, not the file. A
    pickled pack contains the path and the header only.

    Arguments
    ---------
    path : pathlib.Path
        File that ``PackWriter`` wrote.

    Attributes
    ----------
    key : str
        Key of the cache.
    entries : list of Entry
        Tensors of the pack.
    is_whole : bool
        Whether the file has the length that its header gives.

    Raises
    ------
    PackError
        If the file is not a pack, or its header is damaged.

    Example
    -------
    >>> with PackWriter(getfixture("tmp_path"), "key", ["a"]) as writer:
    ...     writer.add("a", "0f", torch.ones(2, 3))
    >>> (path,) = getfixture("tmp_path").glob("*.safetensors")
    >>> pack = Pack(path)
    >>> pack.read(pack.entries[0])
    tensor([[1., 1., 1.],
            [1., 1., 1.]])
    """

    def __init__(self, path: Path) -> None:
        self.path = path
        self._map: mmap.mmap | None = None
        try:
            with path.open("rb") as file:
                (size,) = struct.unpack("<Q", file.read(8))
                length = os.fstat(file.fileno()).st_size
                if size > length:
                    raise ValueError("the header is cut off")
                header = json.loads(file.read(size))
            metadata = header.pop("__metadata__", {})
            if metadata.get("format") != FORMAT:
                raise ValueError("it is not a pack of features")
            self.key = metadata["key"]
            self.entries = [
                Entry._make(
                    (
                        name,
                        *metadata[name].split()[:1],
                        info["dtype"],
                        tuple(info["shape"]),
                        *info["data_offsets"],
                        *metadata[name].split()[1:],
                    )
                )
                for name, info in header.items()
            ]
        except (OSError, ValueError, KeyError, TypeError, struct.error) as error:
            raise PackError(f"{path}: {error}") from error
        self._start = 8 + size
        end = max((entry.end for entry in self.entries), default=0)
        self.is_whole = length == self._start + end

    def read(self, entry: Entry) -> Tensor:
        """Returns the tensor of an entry, as a view of the file."""
        if self._map is None:
            with self.path.open("rb") as file:
                self._map = mmap.mmap(file.fileno(), 0, access=mmap.ACCESS_COPY)
        dtype = DTYPES[entry.dtype]
        return torch.frombuffer(
            self._map,
            dtype=dtype,
            count=(entry.end - entry.start) // dtype.itemsize,
            offset=self._start + entry.start,
        ).view(entry.shape)

    def is_intact(self, entry: Entry) -> bool:
        """Returns whether the bytes of an entry are complete and have its checksum."""
        try:
            return _crc32(_bytes(self.read(entry))) == entry.crc32
        except (OSError, ValueError, RuntimeError, KeyError):
            return False

    def __getstate__(self) -> dict[str, Any]:
        return self.__dict__ | {"_map": None}


def finish_abandoned(folder: Path) -> None:
    """Completes packs that killed processes left in a folder.

    Waits for processes that are still writing.

    Arguments
    ---------
    folder : pathlib.Path
        Folder of the packs.

    Example
    -------
    >>> finish_abandoned(getfixture("tmp_path"))
    """
    for journal in sorted(folder.glob("*.journal")):
        path = journal.with_suffix(".safetensors")
        with FileLock(_lock_path(path)):
            if journal.exists():
                _finish_abandoned_pack(path)
        _lock_path(path).unlink(missing_ok=True)


def _finish_abandoned_pack(path: Path) -> None:
    head, noted = _read_journal(_journal_path(path))
    whole = []
    if noted and _part_path(path).exists():
        with _part_path(path).open("rb") as part:
            part.seek(8 + head["room"])
            for entry in noted:
                # After a power failure the file may be shorter than the journal says.
                if _crc32(part.read(entry.end - entry.start)) != entry.crc32:
                    break
                whole.append(entry)
    if whole:
        _finish(path, head["key"], head["room"], whole)
    else:
        _discard(path)


def _read_journal(path: Path) -> tuple[dict[str, Any], list[Entry]]:
    lines = []
    for line in path.read_text(encoding="utf-8", errors="replace").splitlines():
        try:
            lines.append(json.loads(line))
        except ValueError:
            break  # the process was killed while writing this line
    if not lines:
        return {}, []
    return lines[0], [
        Entry._make((*line[:3], tuple(line[3]), *line[4:])) for line in lines[1:]
    ]


def _finish(path: Path, key: str, room: int, entries: Sequence[Entry]) -> None:
    """Writes the header and renames the file. Can be repeated after a kill."""
    metadata = {"format": FORMAT, "key": key}
    metadata |= {e.name: f"{e.content} {e.crc32}" for e in entries}
    header = {"__metadata__": metadata} | {
        e.name: {"dtype": e.dtype, "shape": e.shape, "data_offsets": [e.start, e.end]}
        for e in entries
    }
    text = json.dumps(header).encode()
    if len(text) > room:
        raise ValueError(f"{path}: a header of {len(text)} bytes, room for {room}")
    with _part_path(path).open("r+b") as file:
        file.write(struct.pack("<Q", room) + text.ljust(room))
        file.truncate(8 + room + entries[-1].end)
        file.flush()
        os.fsync(file.fileno())
    os.replace(_part_path(path), path)
    _journal_path(path).unlink()


def _discard(path: Path) -> None:
    _part_path(path).unlink(missing_ok=True)
    _journal_path(path).unlink(missing_ok=True)


def _room(key: str, names: Sequence[str]) -> int:
    """Returns a sufficient number of bytes for a header, a multiple of 8."""
    room = 1000 + 2 * len(json.dumps(key))
    room += sum(2 * len(json.dumps(name)) + 400 for name in names)
    return -(-room // 8) * 8


def _bytes(tensor: Tensor) -> memoryview:
    raw: Any = tensor.contiguous().reshape(-1).view(torch.uint8).numpy()
    return memoryview(raw)


def _crc32(data: bytes | memoryview) -> str:
    return f"{zlib.crc32(data):08x}"


def _part_path(path: Path) -> Path:
    return path.with_suffix(".part")


def _journal_path(path: Path) -> Path:
    return path.with_suffix(".journal")


def _lock_path(path: Path) -> Path:
    return path.with_suffix(".lock")
