"""Spares Python's garbage collector work that finds nothing."""

import gc
from collections.abc import Iterator
from contextlib import contextmanager


@contextmanager
def no_collection() -> Iterator[None]:
    """Pauses the garbage collector while many objects are made, which it slows down.

    Example
    -------
    >>> import gc
    >>> with no_collection():
    ...     gc.isenabled()
    False
    """
    was = gc.isenabled()
    gc.disable()
    try:
        yield
    finally:
        if was:
            gc.enable()


@contextmanager
def importing() -> Iterator[None]:
    """Excludes modules imported meanwhile from garbage collection, also at the exit.

    They live as long as the process, and PyTorch and transformers have about a million
    objects. All other objects that exist at the end are excluded too.

    Example
    -------
    >>> import gc
    >>> with importing():
    ...     import speechbrain_ser_cl
    >>> gc.get_freeze_count() > 0
    True
    """
    with no_collection():
        yield
        gc.freeze()
