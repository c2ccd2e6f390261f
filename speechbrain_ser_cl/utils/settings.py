"""Settings in YAML: read, overridden and checked before anything is built."""

import io
import math
import re
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any

from hyperpyyaml import resolve_references  # type: ignore[import-untyped]
from ruamel.yaml import YAML
from ruamel.yaml.error import MarkedYAMLError

from speechbrain_ser_cl.utils.errors import FileError, did_you_mean
from speechbrain_ser_cl.utils.files import read_text

# Values of a file with anchors may be far more than its characters, or endless.
_MOST_VALUES = 1_000_000


class SettingsError(FileError):
    """Settings that cannot be used."""


def read_yaml(path: str | Path) -> dict[str, Any]:
    r"""Read a YAML file that is a mapping.

    Arguments
    ---------
    path : str or pathlib.Path
        The file.

    Returns
    -------
    dict
        Its values, nothing built: a value with a tag such as ``!new:`` or ``!ref`` is
        a node of ruamel.yaml that keeps it.

    Raises
    ------
    SettingsError
        For wrong syntax or a key that occurs twice, with the line; for an empty file
        and for one that is no mapping.

    Example
    -------
    >>> path = getfixture("tmp_path") / "my.yaml"
    >>> _ = path.write_text("seed: 1\nseed: 2\n")
    >>> read_yaml(path)
    Traceback (most recent call last):
    speechbrain_ser_cl.utils.settings.SettingsError: ...my.yaml, line 2: ...
    """
    values = _load(read_text(path), str(path), YAML())
    if not isinstance(values, Mapping):
        found = "nothing" if values is None else f"a {_kind(values)}"
        raise SettingsError(f"{path}: found {found}, expected keys with values")
    for key in values:
        if not isinstance(key, str):
            raise SettingsError(
                f"{path}: the key {key!r} is a {_kind(key)}, expected a text"
            )
    return values  # type: ignore[return-value]


def parse_overrides(given: str | Mapping[str, str]) -> dict[str, Any]:
    r"""Parse values that were typed on a command line to replace those of a YAML.

    Arguments
    ---------
    given : mapping of str to str, or str
        Key to value as typed; or what ``speechbrain.parse_arguments`` returns, one
        ``key: value`` a line.

    Returns
    -------
    dict
        Key to number, text, truth value, list, mapping or None.

    Raises
    ------
    SettingsError
        For a value that is not valid YAML, with its key, and for a key given twice.

    Example
    -------
    >>> parse_overrides({"fold": "1", "lr": "1e-4", "folder": ""})
    {'fold': 1, 'lr': 0.0001, 'folder': None}
    >>> parse_overrides("seed: 1\nfold: '")
    Traceback (most recent call last):
    speechbrain_ser_cl.utils.settings.SettingsError: --fold: "'" is not valid YAML: ...
    """
    if isinstance(given, str):
        pairs: dict[str, str] = {}
        for line in re.split(r"\n(?=[^\s:]+:)", given.strip()) if given.strip() else ():
            key, _, text = line.partition(":")
            if key in pairs:
                raise SettingsError(f"--{key} is given twice, expected one value")
            pairs[key] = text.strip()
        given = pairs
    values = {}
    for key, text in given.items():
        values[key] = _load(text, f"--{key}: {text!r:.80}", YAML(typ="safe", pure=True))
    return values


def resolve_settings(
    hparams_file: str | Path, overrides: Mapping[str, Any]
) -> dict[str, Any]:
    r"""Read a HyperPyYAML file with overrides, resolve its references and check it.

    Arguments
    ---------
    hparams_file : str or pathlib.Path
        The file.
    overrides : mapping
        Values that replace those of the file, as ``parse_overrides`` returns them.

    Returns
    -------
    dict
        As ``read_yaml`` returns it; nothing is built.

    Raises
    ------
    SettingsError
        As ``read_yaml`` and ``check_settings`` do; for an override of a key that is
        not there, and for a reference to nothing.

    Example
    -------
    >>> path = getfixture("tmp_path") / "my.yaml"
    >>> _ = path.write_text("fold: 1\noutput_folder: !ref runs/<fold>\n")
    >>> resolve_settings(path, {"fold": 2})["output_folder"]
    'runs/2'
    >>> resolve_settings(path, {"fold": -1})
    Traceback (most recent call last):
    speechbrain_ser_cl.utils.settings.SettingsError: ...my.yaml: fold is -1, ...
    """
    plain = read_yaml(hparams_file)
    for key in overrides:
        if key not in plain:
            raise SettingsError(
                f"{hparams_file} has no key {key}; {did_you_mean(key, plain)}it has "
                f"{', '.join(sorted(plain))}"
            )
    check_settings(overrides, hparams_file)
    try:
        with open(hparams_file, encoding="utf-8-sig") as file:
            text = resolve_references(file, dict(overrides)).getvalue()
    except Exception as error:  # HyperPyYAML does not say what it raises
        words = " ".join(map(str, error.args)) or type(error).__name__
        words = " ".join(words.split())
        raise SettingsError(f"{hparams_file}: {words:.300}") from error
    values = _load(text, str(hparams_file), YAML())
    check_settings(values, hparams_file)
    return values  # type: ignore[no-any-return]


def check_settings(values: Mapping[str, Any], file: str | Path) -> None:
    """Refuse settings of a wrong type, of the keys that all recipes have.

    Arguments
    ---------
    values : mapping
        Of a recipe, references resolved. What is still to be built, and keys that are
        not known here, are not looked at.
    file : str or pathlib.Path
        Where they stand, for the message.

    Raises
    ------
    SettingsError
        With the file, the key, what was found and what was expected.

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
    """Entries of corpora and of emotion_map, each with the path of its keys."""
    found = []
    for name in ("corpora", "emotion_map"):
        top = values.get(name)
        for key, value in top.items() if isinstance(top, Mapping) else ():
            if name == "emotion_map" and isinstance(value, Mapping):
                found += [(f"{name}.{key}.{inner}", v) for inner, v in value.items()]
            else:
                found.append((f"{name}.{key}", value))
    return found


def _load(text: str, where: str, yaml: YAML) -> Any:
    try:
        loaded = yaml.load(io.StringIO(text))
    except MarkedYAMLError as error:
        mark = error.problem_mark or error.context_mark
        line = f", line {mark.line + 1}" if mark and not where.startswith("--") else ""
        verb = " is" if where.startswith("--") else f"{line}:"
        why = " ".join(str(error.problem or error.context).split())
        raise SettingsError(f"{where}{verb} not valid YAML: {why:.300}") from None
    except Exception as error:  # ruamel.yaml ends in many ways on what is no YAML
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


def _is_text(value: object) -> bool:
    return isinstance(value, str) and bool(value.strip())


def _is_map(value: object) -> bool:
    return isinstance(value, Mapping) and bool(value) and all(map(_is_text, value))


def _or_none(fits: Callable[[object], bool]) -> Callable[[object], bool]:
    return lambda value: value is None or fits(value)


_PATH = ("a path, or null; a number in quotes", _or_none(_is_text))
_COUNT = ("a whole number from 1", _is_count(1))
_ENTRY = (
    "the folder of the corpus, null, or a mapping with folder and reader",
    lambda value: value is None or _is_text(value) or _is_map(value),
)
_CLASS = (
    "a list of emotions, such as [happy]",
    lambda value: isinstance(value, list) and all(map(_is_text, value)),
)
_CORPORA = "a mapping of corpora to folders, such as {emodb: /data/EmoDB}"
_EMOTIONS = "a mapping of classes to emotions, such as {sad: [sad]}"
_PROTOCOL = (
    "the name of a protocol, or a mapping such as {kind: speaker_kfold, n_folds: 5}",
    lambda value: _is_text(value) or _is_map(value),
)
# Key to what is expected, in words and as a function.
_KNOWN: dict[str, tuple[str, Callable[[Any], bool]]] = {
    "seed": ("a whole number from 0 to 4294967295", _is_count(0, 2**32 - 1)),
    "fold": ("a whole number from 0", _is_count(0)),
    "corpora": (_CORPORA, _is_map),
    "emotion_map": (_EMOTIONS, _is_map),
    "protocol": _PROTOCOL,
    "folder": _PATH,
    "source_folder": _PATH,
    "target_folder": _PATH,
    "split_file": _PATH,
    "output_folder": ("a path; a number in quotes", _is_text),
    "data_folder": _PATH,
    "save_folder": _PATH,
    "allow_missing": ("True or False", lambda value: isinstance(value, bool)),
    "batch_size": _COUNT,
    "test_batch_size": _COUNT,
    "n_epochs": _COUNT,
    "patience": ("a whole number from 1, or null", _or_none(_is_count(1))),
}
