"""From a command line to the settings of a run."""

import shutil
import sys
from collections.abc import Callable, Iterable, Mapping
from difflib import get_close_matches, unified_diff
from pathlib import Path

import speechbrain as sb
from hyperpyyaml import load_hyperpyyaml, resolve_references
from ruamel.yaml import YAML
from speechbrain.utils.distributed import if_main_process


def find_hparams(path: str | Path, script: str | Path) -> Path:
    """Looks a YAML file up in the working folder, then beside the script.

    Arguments
    ---------
    path : str or pathlib.Path
        As typed on the command line.
    script : str or pathlib.Path
        The recipe's ``__file__``; a symbolic link is not followed.

    Returns
    -------
    pathlib.Path
        The file.

    Raises
    ------
    ValueError
        If it is in neither place; names the files there are.

    Example
    -------
    >>> import tempfile
    >>> folder = Path(tempfile.mkdtemp())
    >>> (folder / "my.yaml").touch()
    >>> find_hparams("my.yaml", script=folder / "train.py").name
    'my.yaml'
    """
    beside = Path(script).absolute().parent
    for candidate in (Path(path), beside / path):
        if candidate.is_file():
            return candidate
    known = sorted(str(p.relative_to(beside)) for p in beside.glob("hparams/*.yaml"))
    raise ValueError(
        f"{path}: no such file in {Path.cwd()} or in {beside}. "
        f"The recipe has: {', '.join(known) or 'none'}."
    )


def plain_values(hparams_file: str | Path) -> dict:
    r"""Top-level values of a HyperPyYAML file, read without making any object.

    Arguments
    ---------
    hparams_file : str or pathlib.Path
        The file.

    Returns
    -------
    dict
        Values as they stand there; tagged ones are of no use.

    Example
    -------
    >>> import tempfile
    >>> path = Path(tempfile.mkdtemp()) / "my.yaml"
    >>> _ = path.write_text("seed: 1\nlayer: !new:torch.nn.Identity")
    >>> plain_values(path)["seed"]
    1
    """
    with open(hparams_file, encoding="utf-8") as file:
        return dict(YAML().load(file))


def resolved_values(hparams_file: str | Path, overrides: Mapping) -> dict:
    r"""Top-level values of a HyperPyYAML file as a run has them, without any object.

    Arguments
    ---------
    hparams_file : str or pathlib.Path
        The file.
    overrides : mapping
        Values that replace those of the file.

    Returns
    -------
    dict
        Values with references resolved; tagged ones are of no use.

    Raises
    ------
    ValueError
        For an override of a key that is not there.

    Example
    -------
    >>> import tempfile
    >>> path = Path(tempfile.mkdtemp()) / "my.yaml"
    >>> _ = path.write_text("seed: 1\nfolder: !ref runs/<seed>")
    >>> resolved_values(path, {"seed": 2})["folder"]
    'runs/2'
    """
    plain = plain_values(hparams_file)
    unknown = sorted(set(overrides) - set(plain))
    if unknown:
        near = get_close_matches(unknown[0], plain, n=1)
        hint = f"did you mean {near[0]}? It" if near else "it"
        raise ValueError(
            f"{hparams_file} has no key {', '.join(unknown)}; {hint} has "
            f"{', '.join(sorted(plain))}."
        )
    with open(hparams_file, encoding="utf-8") as file:
        return dict(YAML().load(resolve_references(file, dict(overrides))))


def start_run(
    hparams_file: str | Path,
    overrides: Mapping,
    check: Callable[[dict], None] = lambda values: None,
) -> dict:
    """Loads a run's YAML and makes its output folder, or takes up an unfinished run.

    Arguments
    ---------
    hparams_file : str or pathlib.Path
        The recipe's YAML; it has the key ``output_folder``.
    overrides : mapping
        Values that replace those of the YAML.
    check : callable, optional
        Gets what ``resolved_values`` gives, before any object is made, and raises
        ``ValueError`` for values that make no sense.

    Returns
    -------
    dict
        The YAML's values, its objects made.

    Raises
    ------
    ValueError
        For an override of a key that is not there, for a value that a class does not
        take, and as ``check`` and ``refuse_other_experiment`` do.
    """
    check(resolved_values(hparams_file, overrides))
    with open(hparams_file, encoding="utf-8") as file:
        try:
            hparams = load_hyperpyyaml(file, dict(overrides))
        except TypeError as error:
            # HyperPyYAML's own words, and those of the class.
            what, *why = error.args
            if not (why and str(what).startswith("Invalid argument to")):
                raise
            raise ValueError(f"{hparams_file}: {what}: {why[0]}") from error
    folder = hparams["output_folder"]
    refuse_other_experiment(folder, hparams_file, overrides)
    sb.create_experiment_directory(folder, hparams_file, dict(overrides))
    if if_main_process():
        _keep_script(Path(folder))
    return hparams


def _keep_script(folder: Path) -> None:
    """SpeechBrain copies the file that calls it, this one: the recipe's is wanted."""
    (folder / Path(__file__).name).unlink(missing_ok=True)
    script = getattr(sys.modules["__main__"], "__file__", None)
    if script is not None:
        shutil.copy(script, folder)


def refuse_other_experiment(
    output_folder: str | Path, hparams_file: str | Path, overrides: Mapping
) -> None:
    """Refuses to go on in a folder that holds the run of other settings.

    Arguments
    ---------
    output_folder : str or pathlib.Path
        Folder of the run that is about to start or to be resumed.
    hparams_file : str or pathlib.Path
        Its YAML file.
    overrides : mapping
        Its overrides.

    Raises
    ------
    ValueError
        If ``hyperparams.yaml`` there says something else; names up to ten values.
    """
    earlier_file = Path(output_folder) / "hyperparams.yaml"
    # The main process is about to write it; the others may find it half written.
    if not if_main_process() or not earlier_file.exists():
        return
    with open(hparams_file, encoding="utf-8") as file:
        now = _settings(resolve_references(file, dict(overrides)))
    with open(earlier_file, encoding="utf-8") as file:
        earlier = _settings(file)
    # The first two lines of a difference are its header.
    changed = list(unified_diff(earlier, now, n=0, lineterm=""))[2:]
    changed = [f"{line[0]} {line[1:].strip()}" for line in changed if line[0] in "+-"]
    if changed:
        raise ValueError(
            f"output_folder {output_folder} holds a run with other settings; these "
            f"lines differ (- there, + now): {'; '.join(changed[:10])}. Choose another "
            "--output_folder, or delete that one to start afresh."
        )


def _settings(lines: Iterable[str]) -> list[str]:
    return [line.rstrip() for line in lines if line.strip() and line[0] != "#"]
