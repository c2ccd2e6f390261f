"""Files that are there whole or not at all."""

import os
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path


@contextmanager
def replacing(path: Path) -> Iterator[Path]:
    """Write a file under a temporary name; give it its own name when it is complete.

    Arguments
    ---------
    path : pathlib.Path
        The file's own name.

    Yields
    ------
    pathlib.Path
        The temporary name, in the same folder.

    Example
    -------
    >>> path = getfixture("tmp_path") / "a.txt"
    >>> with replacing(path) as part:
    ...     _ = part.write_text("whole")
    >>> path.read_text()
    'whole'
    """
    part = path.with_name(f".{path.name}.{os.getpid()}.part")
    try:
        yield part
        os.replace(part, path)
    finally:
        part.unlink(missing_ok=True)
