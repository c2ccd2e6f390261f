"""Errors that a user can correct, and helpers for their messages."""

import json
import warnings
from collections import Counter
from collections.abc import Iterable, Iterator
from contextlib import contextmanager
from difflib import get_close_matches
from pathlib import Path
from typing import TypeVar

MOST_SHOWN = 10
_LONGEST_SHOWN = 80

E = TypeVar("E", bound="FileError")


class SERError(ValueError):
    """Base class of errors caused by input that the user can correct.

    The message is complete without a traceback; command lines print it as one line.

    Example
    -------
    >>> issubclass(SERError, ValueError)
    True
    """


class FileError(SERError):
    """A file, or a value in it, that cannot be used.

    Example
    -------
    >>> FileError.at("my.yaml", "fold", -1, "a whole number from 0", "Correct it")
    FileError('my.yaml: fold is -1, expected a whole number from 0. Correct it')
    """

    @classmethod
    def at(
        cls: type[E],
        file: str | Path,
        key: str,
        found: object,
        expected: str,
        advice: str = "",
    ) -> E:
        """Makes the error for one value.

        Arguments
        ---------
        file : str or pathlib.Path
            File with the value.
        key : str
            Path of keys: ``rows[2].name``.
        found : object
            Value that was found.
        expected : str
            Description of the expected value.
        advice : str
            What to do, if the value alone does not tell.

        Returns
        -------
        FileError
            Error whose message has all of this in one line.
        """
        return cls(
            f"{file}: {key} is {shown(found)}, expected {expected}"
            + (f". {advice}" if advice else "")
        )


def shown(value: object) -> str:
    """Formats a value for a message, as JSON with at most 80 characters.

    Arguments
    ---------
    value : object
        Anything.

    Returns
    -------
    str
        One line.

    Example
    -------
    >>> shown(None), shown("a"), len(shown(list(range(100))))
    ('null', '"a"', 80)
    """
    try:
        text = json.dumps(value, ensure_ascii=False, default=str)
    except (ValueError, TypeError, RecursionError):
        text = f"a {type(value).__name__}"
    more = len(text) > _LONGEST_SHOWN
    return text[: _LONGEST_SHOWN - 1] + "…" if more else text


def offenders(names: Iterable[object]) -> str:
    """Formats up to ten names of offenders, with the total number.

    Arguments
    ---------
    names : iterable
        Names of offenders.

    Returns
    -------
    str
        The number and the first ten names, sorted.

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


def repeated(names: Iterable[str]) -> list[str]:
    """Returns the names that occur more than once.

    Example
    -------
    >>> repeated(["a", "b", "a"])
    ['a']
    """
    return [name for name, count in Counter(names).items() if count > 1]


def did_you_mean(name: str, known: Iterable[str]) -> str:
    """Returns a hint at the nearest known name, for an error message.

    Arguments
    ---------
    name : str
        Name that was found.
    known : iterable of str
        Known names.

    Returns
    -------
    str
        ``"did you mean 'happy'? "``, or an empty text if no name is similar.

    Example
    -------
    >>> did_you_mean("hapy", ["sad", "happy"]) + "it is unknown"
    "did you mean 'happy'? it is unknown"
    """
    forms = {str(form).lower(): form for form in known}
    near = get_close_matches(str(name).lower(), forms, n=1, cutoff=0.7)
    return f"did you mean {forms[near[0]]!r}? " if near else ""


@contextmanager
def plain_warnings() -> Iterator[None]:
    r"""Prints warnings for the user as a line, without the place in the code.

    Example
    -------
    >>> with plain_warnings():
    ...     warnings.formatwarning("2 files are missing", UserWarning, "a.py", 1)
    'warning: 2 files are missing\n'
    """
    usual = warnings.formatwarning

    def plain(
        message: Warning | str,
        category: type[Warning],
        filename: str,
        lineno: int,
        line: str | None = None,
    ) -> str:
        if category is UserWarning:
            return f"warning: {message}\n"
        return usual(message, category, filename, lineno, line)

    warnings.formatwarning = plain
    try:
        yield
    finally:
        warnings.formatwarning = usual
