"""Settings in YAML, read, overridden and checked before objects are built."""

import io
import math
import re
from collections.abc import Callable, Mapping, Sequence
from copy import deepcopy
from functools import lru_cache
from pathlib import Path
from types import MappingProxyType
from typing import Any

from hyperpyyaml import resolve_references
from ruamel.yaml import YAML
from ruamel.yaml.comments import CommentedMap
from ruamel.yaml.error import MarkedYAMLError

from speechbrain_ser_cl.utils.errors import FileError, did_you_mean
from speechbrain_ser_cl.utils.files import read_text

# A file with anchors may expand to many more values than characters, or to infinitely
# many.
_MOST_VALUES = 1_000_000
_DEEPEST = 100
# Endings of keys whose value is a path.
_PLACES = ("folder", "file", "source", "revision")

OF_A_MACHINE = frozenset(
    {
        *("device", "distributed_backend", "noprogressbar"),
        *("loader_options", "num_workers", "pin_memory", "loggers"),
    }
)
"""Keys that a resumed run may change, because no result depends on them."""


class SettingsError(FileError):
    """Settings that cannot be used."""


def read_yaml(path: str | Path) -> dict[str, Any]:
    r"""Reads a YAML file that is a mapping.

    Arguments
    ---------
    path : str or pathlib.Path
        The file.

    Returns
    -------
    dict
        Its values. Nothing is built: a value with a tag such as ``!new:`` or ``!ref``
        is a node of ruamel.yaml.

    Raises
    ------
    SettingsError
        For wrong syntax or a repeated key, with the line; for an empty file, and for a
        file that is not a mapping.

    Example
    -------
    >>> path = getfixture("tmp_path") / "my.yaml"
    >>> _ = path.write_text("seed: 1\nseed: 2\n")
    >>> read_yaml(path)
    Traceback (most recent call last):
    speechbrain_ser_cl.utils.settings.SettingsError: ...my.yaml, line 2: ...
    """
    return deepcopy(_mapping(read_text(path), str(path)))


@lru_cache(maxsize=8)  # the rows of a table read one file many times
def _mapping(text: str, path: str) -> CommentedMap:
    """Returns the values of a YAML mapping, which must not be modified."""
    values = _load(text, path, YAML())
    if not isinstance(values, CommentedMap):
        found = "nothing" if values is None else f"a {_kind(values)}"
        raise SettingsError(f"{path}: found {found}, expected keys with values")
    for key in values:
        if not isinstance(key, str):
            raise SettingsError(
                f"{path}: the key {key!r} is a {_kind(key)}, expected a text"
            )
    return values


def split_overrides(words: Sequence[str]) -> dict[str, str]:
    """Splits ``--key value`` and ``--key=value`` of a command line.

    Arguments
    ---------
    words : sequence of str
        Words of the command line.

    Returns
    -------
    dict
        Key to value, as text.

    Raises
    ------
    SettingsError
        For a word that is neither key nor value, and for a repeated key.

    Example
    -------
    >>> split_overrides(["--lr", "0.1", "--folder=/data/a b"])
    {'lr': '0.1', 'folder': '/data/a b'}
    """
    pairs: dict[str, str] = {}
    left = list(words)
    while left:
        word = left.pop(0)
        if not word.startswith("--") or word == "--":
            raise SettingsError(
                f"found {word!r} where an option was expected; values that replace "
                "those of the YAML are given as --key value"
            )
        key, equals, value = word[2:].partition("=")
        if not equals and left and not left[0].startswith("--"):
            value = left.pop(0)
        if key in pairs:
            raise SettingsError(f"--{key} is given twice, expected one value")
        pairs[key] = value
    return pairs


def parse_overrides(
    given: Mapping[str, str], usual: Mapping[str, Any] = MappingProxyType({})
) -> dict[str, Any]:
    r"""Parses values of a command line that replace values of a YAML.

    ``null`` and an empty value are None. Values of keys that end in ``folder``,
    ``file``, ``source`` or ``revision``, and are not numbers or truth values in the
    YAML, are text. If the YAML's value is text, only numbers, truth values, ``{…}`` and
    ``[…]`` are parsed, and anything else is text.

    Arguments
    ---------
    given : mapping of str to str
        Key to value as text.
    usual : mapping
        Values of the YAML, from ``read_yaml``.

    Returns
    -------
    dict
        Key to number, text, truth value, list, mapping or None.

    Raises
    ------
    SettingsError
        For a value that is not valid YAML, with its key.

    Example
    -------
    >>> parse_overrides({"fold": "1", "lr": "1e-4", "folder": "/data/o #1"})
    {'fold': 1, 'lr': 0.0001, 'folder': '/data/o #1'}
    >>> usual = {"title": "x", "freeze": "all"}
    >>> parse_overrides({"title": "a: b", "freeze": "2"}, usual)
    {'title': 'a: b', 'freeze': 2}
    >>> parse_overrides({"fold": "'"})
    Traceback (most recent call last):
    speechbrain_ser_cl.utils.settings.SettingsError: --fold: "'" is not valid YAML: ...
    """
    return {
        key: _parsed(key, text, _own(usual.get(key))) for key, text in given.items()
    }


def _parsed(key: str, text: str, own: object) -> Any:
    if text.strip() in ("", "null", "~"):
        return None
    is_text = isinstance(own, str)
    if key.endswith(_PLACES) and (is_text or own is None):
        return text
    try:
        value = _load(text, f"--{key}: {text!r:.80}", YAML(typ="safe", pure=True))
    except SettingsError:
        if is_text:
            return text
        raise
    looks_else = text.lstrip().startswith(("{", "[")) or (
        isinstance(value, bool | int | float) and "#" not in text
    )
    return text if is_text and not looks_else else value


def _own(node: Any) -> object:
    """Returns a reference's text or a plain value; None for objects to be built."""
    if not _tagged(node):
        return node
    # A reference to one value may have any type; a composed value is text.
    if node.tag.value != "!ref" or re.fullmatch(r"<[^<>]*>", node.value):
        return None
    return node.value


def resolve(
    hparams_file: str | Path, overrides: Mapping[str, Any]
) -> tuple[str, dict[str, Any]]:
    r"""Reads a HyperPyYAML file with overrides, resolves its references and checks it.

    Arguments
    ---------
    hparams_file : str or pathlib.Path
        The file.
    overrides : mapping
        Values that replace those of the file, from ``parse_overrides``. A mapping
        replaces the whole mapping.

    Returns
    -------
    tuple of (str, dict)
        YAML with its tags, and its values as in ``read_yaml``; no object is built.

    Raises
    ------
    SettingsError
        As in ``read_yaml`` and ``check_settings``; for an override of an unknown key,
        and for a reference to an unknown key.

    Example
    -------
    >>> path = getfixture("tmp_path") / "my.yaml"
    >>> _ = path.write_text("map: {a: 1}\noutput_folder: !ref runs/<map[b]>\n")
    >>> text, values = resolve(path, {"map": {"b": 2}})
    >>> text
    'map:\n  b: 2\noutput_folder: runs/2\n'
    >>> values["output_folder"]
    'runs/2'
    >>> resolve(path, {"map": {"b": 2}, "output_folder": -1})
    Traceback (most recent call last):
    speechbrain_ser_cl.utils.settings.SettingsError: ...my.yaml: output_folder is -1...
    """
    plain = _mapping(read_text(hparams_file), str(hparams_file)).copy()
    for key in overrides:
        if key not in plain:
            raise SettingsError(
                f"{hparams_file} has no key {key}; {did_you_mean(key, plain)}it has "
                f"{', '.join(sorted(plain))}"
            )
    check_settings(overrides, hparams_file)
    plain.update(overrides)
    stream = io.StringIO()
    YAML().dump(plain, stream)
    stream.seek(0)
    try:
        text = resolve_references(stream).getvalue()
    except Exception as error:  # HyperPyYAML does not document its exceptions
        words = " ".join(map(str, error.args)) or type(error).__name__
        words = " ".join(words.split())
        raise SettingsError(f"{hparams_file}: {words:.300}") from error
    values = dict(_load(text, str(hparams_file), YAML()))
    check_settings(values, hparams_file)
    return str(text), values


def check_settings(values: Mapping[str, Any], file: str | Path) -> None:
    """Checks the types of settings that all recipes have.

    Arguments
    ---------
    values : mapping
        Settings of a recipe, with resolved references. Unknown keys and objects that
        are still to be built are not checked.
    file : str or pathlib.Path
        File of the settings, for the message.

    Raises
    ------
    SettingsError
        The message has the file, the key, what was found and what was expected.

    Example
    -------
    >>> check_settings({"seed": 1, "corpora": {"emodb": None}}, "my.yaml")
    >>> check_settings({"corpora": None}, "my.yaml")
    Traceback (most recent call last):
    speechbrain_ser_cl.utils.settings.SettingsError: my.yaml: corpora is null, ...
    """
    for key, (expected, fits) in _KNOWN.items():
        if key in values and not _tagged(values[key]) and not fits(values[key]):
            raise SettingsError.at(file, key, values[key], expected)
    for key, value in _inner(values):
        expected, fits = _ENTRY if key.startswith("corpora.") else _CLASS
        if not _tagged(value) and not fits(value):
            raise SettingsError.at(file, key, value, expected)


def _inner(values: Mapping[str, Any]) -> list[tuple[str, Any]]:
    """Yields entries of corpora and of emotion_map, each with its key path."""
    found = []
    for name in ("corpora", "emotion_map"):
        top = values.get(name)
        for key, value in top.items() if isinstance(top, Mapping) else ():
            if name == "emotion_map" and isinstance(value, Mapping):
                found += [(f"{name}.{key}.{inner}", v) for inner, v in value.items()]
            else:
                found.append((f"{name}.{key}", value))
    return found


def read_plain_yaml(path: str | Path) -> Any:
    """Reads a YAML file without tags.

    Arguments
    ---------
    path : str or pathlib.Path
        The file.

    Returns
    -------
    object
        Contents in Python's own types.

    Raises
    ------
    SettingsError
        For wrong syntax, a repeated key and tags, with the line.

    Example
    -------
    >>> path = getfixture("tmp_path") / "my.yaml"
    >>> _ = path.write_text("seeds: [1, 2]")
    >>> read_plain_yaml(path)
    {'seeds': [1, 2]}
    """
    return _load(read_text(path), str(path), YAML(typ="safe", pure=True))


def _load(text: str, where: str, yaml: YAML) -> Any:
    if re.search(r"(?:[{\[]\s*|\?\s+){9}", text):  # time doubles with each level
        raise SettingsError(f"{where}: not valid YAML: keys or lists nested nine deep")
    depth = 0  # ruamel.yaml's time is quadratic in them
    for bracket in re.findall(r"[][{}]", text):
        depth = max(depth + (1 if bracket in "[{" else -1), 0)
        if depth > _DEEPEST:
            raise SettingsError(
                f"{where}: not valid YAML: {_DEEPEST} brackets are open"
            )
    try:
        loaded = yaml.load(io.StringIO(text))
    except MarkedYAMLError as error:
        mark = error.problem_mark or error.context_mark
        line = f", line {mark.line + 1}" if mark and not where.startswith("--") else ""
        verb = " is" if where.startswith("--") else f"{line}:"
        why = " ".join(str(error.problem or error.context).split())
        raise SettingsError(f"{where}{verb} not valid YAML: {why:.300}") from None
    except Exception as error:  # ruamel.yaml has many exceptions
        raise SettingsError(
            f"{where}: not valid YAML ({type(error).__name__}: {error!s:.300})"
        ) from None
    to_see, seen = [loaded], 0
    while to_see:
        node = to_see.pop()
        seen += 1
        if seen > _MOST_VALUES:
            raise SettingsError(
                f"{where}: more than {_MOST_VALUES} values. Write less, without anchors"
            )
        if isinstance(node, Mapping):
            to_see += node.values()
        elif isinstance(node, list):
            to_see += node
    return loaded


def _kind(value: object) -> str:
    if isinstance(value, list):
        return "list"
    return "number" if isinstance(value, int | float) else "text"


def _tagged(value: object) -> bool:
    tag = getattr(getattr(value, "tag", None), "value", None)
    return bool(tag) and str(tag).startswith("!")


def _is_count(least: int, most: float = math.inf) -> Callable[[object], bool]:
    return lambda value: (
        isinstance(value, int)
        and not isinstance(value, bool)
        and least <= value <= most
    )


def is_text(value: object) -> bool:
    """Returns whether a value is text that is not blank."""
    return isinstance(value, str) and bool(value.strip())


def _is_map(value: object) -> bool:
    return isinstance(value, Mapping) and bool(value) and all(map(is_text, value))


def _or_none(fits: Callable[[object], bool]) -> Callable[[object], bool]:
    return lambda value: value is None or fits(value)


_PATH = ("a path, or null; a number in quotes", _or_none(is_text))
_COUNT = ("a whole number from 1", _is_count(1))
_ENTRY = (
    "the folder of the corpus, null, or a mapping with folder and reader",
    lambda value: value is None or is_text(value) or _is_map(value),
)
_CLASS = (  # or, for a corpus, the name of a set of classes
    "a list of emotions, such as [happy]",
    lambda value: (
        is_text(value) or (isinstance(value, list) and all(map(is_text, value)))
    ),
)
_CORPORA = "a mapping of corpora to folders, such as {emodb: /data/EmoDB}"
_EMOTIONS = (
    "a mapping of classes to emotions, such as {sad: [sad]}, or the name of a set",
    lambda value: is_text(value) or _is_map(value),
)
_PROTOCOL = (
    "the name of a protocol, or a mapping such as {kind: speaker_kfold, n_folds: 5}",
    lambda value: is_text(value) or _is_map(value),
)
# Key to a description of the expected value, and a function that checks it.
_KNOWN: dict[str, tuple[str, Callable[[Any], bool]]] = {
    "seed": ("a whole number from 0 to 4294967295", _is_count(0, 2**32 - 1)),
    "fold": ("a whole number from 0", _is_count(0)),
    "corpora": (_CORPORA, _is_map),
    "emotion_map": _EMOTIONS,
    "protocol": _PROTOCOL,
    "folder": _PATH,
    "source_folder": _PATH,
    "target_folder": _PATH,
    "split_file": _PATH,
    "output_folder": ("a path; a number in quotes", is_text),
    "data_folder": _PATH,
    "save_folder": _PATH,
    "allow_missing": ("True or False", lambda value: isinstance(value, bool)),
    "batch_size": _COUNT,
    "test_batch_size": _COUNT,
    "n_epochs": _COUNT,
    "patience": ("a whole number from 1, or null", _or_none(_is_count(1))),
}
