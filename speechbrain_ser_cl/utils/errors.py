"""Words of error messages."""

from collections.abc import Iterable
from difflib import get_close_matches

MOST_SHOWN = 10


def offenders(names: Iterable[object]) -> str:
    """Name up to ten offenders, and say how many there are in all.

    Arguments
    ---------
    names : iterable
        What is wrong, one entry each.

    Returns
    -------
    str
        The count and the first ten in sorted order.

    Example
    -------
    >>> offenders(["b.wav", "a.wav"])
    '2: a.wav, b.wav'
    >>> offenders(range(12))
    '12: 0, 1, 10, 11, 2, 3, 4, 5, 6, 7, … and 2 more'
    """
    names = sorted(str(name) for name in names)
    text = f"{len(names)}: {', '.join(names[:MOST_SHOWN])}"
    if len(names) > MOST_SHOWN:
        text += f", … and {len(names) - MOST_SHOWN} more"
    return text


def did_you_mean(name: str, known: Iterable[str]) -> str:
    """A hint at the nearest of the known names, to stand in an error.

    Arguments
    ---------
    name : str
        What was found.
    known : iterable of str
        What there is.

    Returns
    -------
    str
        ``"did you mean 'happy'? "``, or nothing where no name is near.

    Example
    -------
    >>> did_you_mean("hapy", ["sad", "happy"]) + "it is unknown"
    "did you mean 'happy'? it is unknown"
    """
    forms = {str(form).lower(): form for form in known}
    near = get_close_matches(str(name).lower(), forms, n=1, cutoff=0.7)
    return f"did you mean {forms[near[0]]!r}? " if near else ""
