"""A recipe with a user's overrides, read without building objects."""

import os
from collections.abc import Mapping
from dataclasses import dataclass
from functools import cached_property
from pathlib import Path
from typing import Any

from speechbrain_ser_cl.data.class_sets import with_classes
from speechbrain_ser_cl.utils.settings import (
    parse_overrides,
    read_yaml,
    resolve,
    split_overrides,
)


@dataclass(frozen=True)
class Recipe:
    """A recipe with a user's overrides.

    Arguments
    ---------
    hparams_file : pathlib.Path
        YAML of the recipe.
    script : pathlib.Path
        Its ``train.py``.
    overrides : tuple of str
        Words of the command line: ``("--lr", "0.001")``.

    Example
    -------
    >>> Recipe(Path("hparams/my.yaml"), Path("train.py"), ("--lr", "0.1")).overridden
    {'lr': '0.1'}
    """

    hparams_file: Path
    script: Path
    overrides: tuple[str, ...]

    @cached_property
    def overridden(self) -> dict[str, str]:
        """Key to value of the overrides, as text."""
        return split_overrides(self.overrides)

    @cached_property
    def _resolved(self) -> dict[frozenset[tuple[str, str]], dict[str, Any]]:
        return {}

    @cached_property
    def values(self) -> dict[str, Any]:
        """Values of the YAML with the overrides."""
        return self.resolve(self.overridden)

    def resolve(self, overridden: Mapping[str, str]) -> dict[str, Any]:
        """Resolves the YAML's values, some of them replaced, without building objects.

        Arguments
        ---------
        overridden : mapping
            Key to value, as text. SpeechBrain's own options (``--device``) are left
            out.

        Returns
        -------
        dict
            Numbers, texts, lists and dictionaries; for objects, tag and arguments.

        Raises
        ------
        SettingsError
            If the YAML or a value is invalid, or neither the YAML nor SpeechBrain has a
            key.
        """
        # Many runs of a table need the same values.
        key = frozenset(overridden.items())
        if key not in self._resolved:
            plain = read_yaml(self.hparams_file)
            strange = overridden.keys() - plain.keys()
            own = strange & _speechbrain_options() if strange else set()
            given = {key: text for key, text in overridden.items() if key not in own}
            parsed = parse_overrides(given, plain)
            changed = with_classes(plain, parsed, self.hparams_file)
            self._resolved[key] = _plain(resolve(self.hparams_file, changed)[1])
        return self._resolved[key]


def _speechbrain_options() -> set[str]:
    """Returns the names of SpeechBrain's options."""
    from speechbrain.utils.run_opts import RunOptions

    parser = RunOptions._create_parser()
    return {name.removeprefix("--") for name in parser._option_string_actions}


def _plain(node: Any) -> Any:
    """Converts a YAML node to plain values; tags become keys."""
    tag = getattr(getattr(node, "tag", None), "value", None)
    if isinstance(node, Mapping):
        plain: Any = {key: _plain(value) for key, value in node.items()}
    elif isinstance(node, list):
        plain = [_plain(value) for value in node]
    else:
        plain = getattr(node, "value", node)
    return {tag: plain} if tag and tag.startswith("!") else plain


def as_words(overrides: Mapping[str, str]) -> tuple[str, ...]:
    """Returns overrides as words of a command line.

    Example
    -------
    >>> as_words({"lr": "0.1"})
    ('--lr', '0.1')
    """
    return tuple(word for key, text in overrides.items() for word in (f"--{key}", text))


def find_script(hparams_file: Path) -> Path:
    """Finds a YAML's script: in its folder, above it, or in the recipe that it names.

    The key ``recipe`` names the recipe; the key ``script`` may name another file than
    ``train.py``.

    Arguments
    ---------
    hparams_file : pathlib.Path
        ``…/hparams/my.yaml``.

    Returns
    -------
    pathlib.Path
        Absolute path; symbolic links are not resolved.

    Raises
    ------
    ValueError
        If the YAML or the script does not exist.

    Example
    -------
    >>> folder = getfixture("tmp_path")
    >>> (folder / "train.py").touch()
    >>> (folder / "hparams").mkdir()
    >>> _ = (folder / "hparams" / "my.yaml").write_text("seed: 1")
    >>> find_script(folder / "hparams" / "my.yaml") == folder / "train.py"
    True
    """
    if not hparams_file.is_file():
        raise ValueError(f"there is no file {hparams_file}")
    folders = list(hparams_file.absolute().parents)[:3]
    values = read_yaml(hparams_file)
    recipe, name = values.get("recipe"), str(values.get("script", "train.py"))
    if isinstance(recipe, str):
        folders += [folder / recipe for folder in recipe_folders(hparams_file)]
    for folder in folders:
        if (folder / name).is_file():
            return folder / name
    raise ValueError(
        f"no {name} belongs to {hparams_file}: looked in "
        f"{', '.join(map(str, folders))}. Put the YAML there, or set SER_CL_RECIPES to "
        "the folder of the recipes, one of which the YAML names as recipe"
    )


def recipe_folders(hparams_file: Path | None = None) -> list[Path]:
    """Finds folders that may contain recipes, the most explicit one first.

    Arguments
    ---------
    hparams_file : pathlib.Path, optional
        A YAML, whose own recipes are included.

    Returns
    -------
    list of pathlib.Path
        The folder of the environment variable ``SER_CL_RECIPES``; ``recipes`` above the
        YAML, in the working folder and above it; and in this package's checkout.
    """
    below = [Path.cwd() / "any", Path(__file__).resolve().parents[1]]
    if hparams_file is not None:
        below.insert(0, hparams_file.absolute())
    places = [folder / "recipes" for path in below for folder in path.parents]
    if named := os.environ.get("SER_CL_RECIPES"):
        places.insert(0, Path(named))
    return [place for place in dict.fromkeys(places) if place.is_dir()]
