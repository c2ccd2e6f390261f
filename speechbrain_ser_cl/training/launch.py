"""Starts the runs of a recipe from the command line.

A recipe ends with ``main(run, __file__)``, and its ``run(launch)`` starts with
``hparams = launch.start()``.
"""

import shutil
import sys
from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass, replace
from datetime import date
from difflib import unified_diff
from functools import cache, cached_property
from importlib.metadata import distributions
from pathlib import Path
from typing import Any

import speechbrain as sb
import torch
from hyperpyyaml import load_hyperpyyaml
from speechbrain.utils.distributed import (
    if_main_process,
    run_on_main,
)
from speechbrain.utils.run_opts import RunOptions

from speechbrain_ser_cl.backbones import write_untrained_encoder
from speechbrain_ser_cl.corpora import write_synthetic
from speechbrain_ser_cl.data.class_sets import with_classes
from speechbrain_ser_cl.data.experiment import Experiment, look_up_folders
from speechbrain_ser_cl.training.trackers import (
    check_trackers,
    log_results,
    measures_of,
)
from speechbrain_ser_cl.utils.disk import full_disk_told
from speechbrain_ser_cl.utils.errors import plain_warnings
from speechbrain_ser_cl.utils.files import free_name, hold_folder
from speechbrain_ser_cl.utils.settings import (
    OF_A_MACHINE,
    parse_overrides,
    read_yaml,
    resolve,
    split_overrides,
)


def find_hparams(path: str | Path, script: str | Path) -> Path:
    """Finds a YAML in the working folder, or else beside the script.

    Arguments
    ---------
    path : str or pathlib.Path
        Path from the command line.
    script : str or pathlib.Path
        ``__file__`` of the recipe; a symbolic link is not resolved.

    Returns
    -------
    pathlib.Path
        Path of the file.

    Raises
    ------
    ValueError
        If it is in neither place; the message lists the existing files.

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


@dataclass(frozen=True)
class Launch:
    """A requested run: its YAML, options and overrides.

    Arguments
    ---------
    hparams_file : pathlib.Path
        YAML of the recipe, with the key ``output_folder``.
    run_opts : RunOptions
        SpeechBrain's options of the command line.
    overrides : mapping
        Values that replace those of the YAML; mappings are replaced as a whole.
    demo : bool
        Whether this is the demo, for ``results.json``.

    Attributes
    ----------
    values : dict
        Values of the YAML with resolved references, without building objects; relative
        corpus folders are resolved by ``look_up_folders``.

    Example
    -------
    A recipe's ``run``::

        def run(launch):
            check_switches(launch.values)
            experiment = prepare(launch.values)  # before an encoder is downloaded
            hparams = launch.start()
            …
            return [write_run(…)]
    """

    hparams_file: Path
    run_opts: RunOptions
    overrides: Mapping[str, Any]
    demo: bool = False

    @cached_property
    def _resolved(self) -> tuple[str, dict[str, Any]]:
        file = self.hparams_file
        return resolve(file, with_classes(read_yaml(file), self.overrides, file))

    @property
    def text(self) -> str:
        """YAML text with resolved references."""
        return self._resolved[0]

    @cached_property
    def values(self) -> dict[str, Any]:
        """Values of the YAML; see the class."""
        values = self._resolved[1]
        if isinstance(values.get("corpora"), Mapping):
            values["corpora"] = look_up_folders(values["corpora"], self.hparams_file)
        return values

    @property
    def folder(self) -> Path:
        """Output folder."""
        return Path(self.values["output_folder"])

    def start(self, experiment: Experiment | None = None) -> dict[str, Any]:
        """Builds the YAML's objects and the output folder, or resumes a killed run.

        Arguments
        ---------
        experiment : Experiment, optional
            Data of the run. If given, and if the YAML has ``baseline: probe``, the
            simple baseline is tested first.

        Returns
        -------
        dict
            Values of the YAML with built objects, including later changes of
            ``self.values``.

        Raises
        ------
        ValueError
            For a value that a class does not accept, if another process trains in the
            folder, and from :func:`refuse_other_experiment`.
        """
        check_trackers(self.values)
        try:
            hparams: dict[str, Any] = load_hyperpyyaml(self.text)
        except TypeError as error:
            # Messages of HyperPyYAML and of the class.
            what, *why = error.args
            if not (why and str(what).startswith("Invalid argument to")):
                raise
            raise ValueError(f"{self.hparams_file}: {what}: {why[0]}") from error
        folder = self.folder
        if if_main_process():
            hold_folder(folder)
        refuse_other_experiment(folder, self.text)
        # SpeechBrain's env.log uses the first `pip` on the PATH, which may be another
        # Python's.
        sb.create_experiment_directory(folder, save_env_desc=False)
        if if_main_process():
            (folder / "env.log").write_text(_environment(), encoding="utf-8")
            told = f"# Made {date.today()} of {self.hparams_file.absolute()}\n"
            text = f"{told}# yamllint disable\n{self.text}"
            (folder / "hyperparams.yaml").write_text(text, encoding="utf-8")
            _keep_script(folder)
        if experiment is not None:
            # Imported here, because the module imports this one.
            from speechbrain_ser_cl.training.baseline import write_baseline

            write_baseline(self, experiment)
        return hparams


@cache  # reading all packages takes a fifth of a short run
def _environment() -> str:
    """Describes the environment: Python, CUDA and installed packages."""
    cuda = torch.version.cuda if torch.cuda.is_available() else "not available"
    found = (one.metadata for one in distributions())
    packages = {f"{one['Name']}=={one['Version']}" for one in found}
    lines = [f"Python {sys.version}", f"CUDA {cuda}", *sorted(packages, key=str.lower)]
    return "\n".join(lines) + "\n"


def check_choices(values: Mapping[str, Any], **allowed: Iterable[str | None]) -> None:
    """Refuses a value of the YAML that is not allowed.

    Each entry of a list must be allowed, and the list must not be empty.

    Arguments
    ---------
    values : mapping
        Values of the YAML.
    **allowed
        Key to allowed values.

    Raises
    ------
    ValueError
        The message names the key and the allowed values.

    Example
    -------
    >>> check_choices({"mining": "any"}, mining=("all", "hard"))
    Traceback (most recent call last):
    ValueError: mining is 'any', expected one of all, hard.
    """
    for key, known in allowed.items():
        if isinstance(values[key], list):
            unknown = [str(one) for one in values[key] if one not in tuple(known)]
            if unknown or not values[key]:
                raise ValueError(
                    f"{key}: found {', '.join(unknown) or 'none'}, expected some of "
                    f"{', '.join(map(str, known))}."
                )
        elif values[key] not in tuple(known):
            raise ValueError(
                f"{key} is {values[key]!r}, expected one of "
                f"{', '.join(map(str, known))}."
            )


def check_entries(values: Mapping[str, Any], **needed: Iterable[str]) -> None:
    """Refuses an entry of the YAML's mappings that lacks a key.

    Arguments
    ---------
    values : mapping
        Values of the YAML.
    **needed
        Key of a mapping to the keys that each of its entries needs.

    Raises
    ------
    ValueError
        The message names the entry and the missing key.

    Example
    -------
    >>> check_entries({"losses": {"mine": {"make": 1}}}, losses=("title", "make"))
    Traceback (most recent call last):
    ValueError: losses: mine has no title; expected title, make.
    """
    for group, keys in needed.items():
        for name, entry in values[group].items():
            found = entry if isinstance(entry, Mapping) else ()
            missing = [key for key in keys if key not in found]
            if missing:
                raise ValueError(
                    f"{group}: {name} has no {' and no '.join(missing)}; expected "
                    f"{', '.join(keys)}."
                )


def _keep_script(folder: Path) -> None:
    """Copies the recipe's script; SpeechBrain would copy this file."""
    (folder / Path(__file__).name).unlink(missing_ok=True)
    script = getattr(sys.modules["__main__"], "__file__", None)
    if script is not None:
        shutil.copy(script, folder)


def refuse_other_experiment(output_folder: str | Path, text: str) -> None:
    """Refuses a folder that contains a run with other settings.

    Arguments
    ---------
    output_folder : str or pathlib.Path
        Folder of the run that is to be started or resumed.
    text : str
        YAML text from ``resolve``.

    Raises
    ------
    ValueError
        If ``hyperparams.yaml`` in the folder differs; the message has up to ten values.
    """
    earlier_file = Path(output_folder) / "hyperparams.yaml"
    # Written by the main process; other processes could read it incomplete.
    if not if_main_process() or not earlier_file.exists():
        return
    now = _settings(text.splitlines())
    earlier = _settings(earlier_file.read_text(encoding="utf-8").splitlines())
    # The first two lines of a diff are its header.
    changed = list(unified_diff(earlier, now, n=0, lineterm=""))[2:]
    changed = [f"{line[0]} {line[1:].strip()}" for line in changed if line[0] in "+-"]
    if changed:
        raise ValueError(
            f"output_folder {output_folder} holds a run with other settings; these "
            f"lines differ (- there, + now): {'; '.join(changed[:10])}. Choose "
            f"another, such as --output_folder {free_name(output_folder)}, or delete "
            "that one to start afresh."
        )


def _settings(lines: Iterable[str]) -> list[str]:
    """Returns the lines that define the experiment, without options of the machine."""
    kept, own = [], True
    for line in filter(str.strip, lines):
        key = line.strip().partition(":")[0]
        if line[0] not in " -#":  # of the top level, with all that is below it
            own = key not in OF_A_MACHINE
        if own and line[0] != "#" and key not in OF_A_MACHINE:
            kept.append(line.rstrip())
    return kept


def main(
    run: Callable[[Launch], list[dict[str, Any]]],
    script: str | Path,
    *,
    tell: Callable[[list[dict[str, Any]]], None] | None = None,
) -> None:
    """Runs a recipe by its command line, or its demo.

    The demo runs if no corpus has a folder and the YAML has the key ``demo``, see
    :func:`demo_runs`. Errors are printed in one line.

    Arguments
    ---------
    run : callable
        ``run(launch)`` trains and tests, and returns the contents of each
        ``results.json`` (in the main process).
    script : str or pathlib.Path
        ``__file__`` of the recipe.
    tell : callable, optional
        ``tell(results)`` prints the results, in place of :func:`closing_table`.

    Example
    -------
    The last lines of a ``train.py``::

        if __name__ == "__main__":
            main(run, __file__)
    """
    try:
        with plain_warnings():
            _main(run, script, tell or _print_table, sys.argv[1:])
    except (ValueError, ImportError) as error:
        sys.exit(f"{type(error).__name__}: {error}")


def _main(
    run: Callable[[Launch], list[dict[str, Any]]],
    script: str | Path,
    tell: Callable[[list[dict[str, Any]]], None],
    argv: Sequence[str],
) -> None:
    typed, run_opts, _ = sb.parse_arguments(list(argv))
    hparams_file = find_hparams(typed, script)
    # SpeechBrain's options are not overrides.
    _, words = RunOptions._create_parser().parse_known_args(list(argv))
    plain = read_yaml(hparams_file)
    overrides = parse_overrides(split_overrides(words), plain)
    launch = Launch(hparams_file, run_opts, overrides)
    is_demo = wants_demo(launch.values)
    sb.utils.distributed.ddp_init_group(run_opts)
    launches = demo_runs(launch) if is_demo else [launch]
    results = []
    with full_disk_told(launch.folder):
        for one in launches:
            found = run(one)
            report, told = one.folder / "report.html", f"ser-cl report {one.folder}"
            if report.exists():
                told = str(report.absolute())
            log_results(one.values, one.folder, measures_of(found), {"report": told})
            results += found
    if not if_main_process():
        return
    tell(results)
    if is_demo:
        demo = launch.values["demo"]
        folder = overrides.get("output_folder", demo["output_folder"])
        print(f"\nFigures, predictions and results.json: {folder}")
        print(f"Next, on real speech:\npython {sys.argv[0]} {typed} {demo['next']}")


def wants_demo(values: Mapping[str, Any]) -> bool:
    """Returns whether no corpus has a folder and the YAML has a demo.

    Arguments
    ---------
    values : mapping
        Values of the YAML.

    Returns
    -------
    bool
        Also False if the user chose another reader than the demo's and forgot the
        folder.

    Example
    -------
    >>> wants_demo({"corpora": {"emodb": None}, "demo": {}})
    True
    >>> wants_demo({"corpora": {"emodb": "/data/EmoDB"}, "demo": {}})
    False
    """
    if "demo" not in values or not isinstance(values["corpora"], Mapping):
        return False
    shown = values["demo"].get("corpora", {})
    for name, entry in values["corpora"].items():
        if not isinstance(entry, Mapping):
            if entry is not None:
                return False
            continue
        usual = shown.get(name) or entry
        if entry.get("folder") is not None or entry.get("reader") != usual.get(
            "reader"
        ):
            return False
    return True


def demo_runs(launch: Launch) -> list[Launch]:
    """Prepares the demo: synthetic corpora, an untrained encoder, and the runs.

    ``demo`` in the YAML defines them. Its other keys replace keys of the YAML;
    ``{folder}`` in their texts is the demo's output folder::

        demo:
            output_folder: results/my_demo
            next: --folder /data/my_corpus  # what the last line advises
            synthetic:  # corpora to write, with options of write_synthetic
                corpus: {corpus: synthetic_source, n_speakers: 8}
            encoder: {model_type: whisper, …}  # of which an untrained one is written
            runs:  # name of each run to what it replaces
                source only: {use_target: False}
                adapted: {}
            corpora: {my_corpus: "{folder}/corpus"}
            ssl_source: "{folder}/untrained_encoder"

    Arguments
    ---------
    launch : Launch
        Launch from the command line. Its overrides take precedence over the demo's
        values.

    Returns
    -------
    list of Launch
        Runs of the demo. Each has a subfolder of the demo's output folder with its
        name; a run without a name (``"": {}``) uses the output folder itself. Runs that
        replace a value of the command line are left out; if none remains, one without a
        name is added.
    """
    if if_main_process():
        print(
            "DEMO: no folder of a corpus is given, so this runs on synthetic speech, "
            "with small models that were not pretrained. Its numbers are no results.",
            flush=True,
        )
    demo = dict(read_yaml(launch.hparams_file)["demo"])
    folder = Path(launch.overrides.get("output_folder") or demo["output_folder"])
    synthetic, encoder = demo.pop("synthetic", {}), demo.pop("encoder", None)
    runs, _ = demo.pop("runs", {"": {}}), demo.pop("next", None)
    typed = launch.overrides
    asked = {
        name: own
        for name, own in runs.items()
        if all(typed.get(key, value) == value for key, value in own.items())
    }
    run_on_main(folder.mkdir, kwargs={"parents": True, "exist_ok": True})
    for name, options in synthetic.items():
        run_on_main(write_synthetic, args=[folder / name], kwargs=dict(options))
    if encoder is not None:
        where = folder / "untrained_encoder"
        run_on_main(write_untrained_encoder, args=[encoder, where])
    values = _filled(dict(demo), str(folder)) | dict(launch.overrides)
    return [
        replace(
            launch,
            demo=True,
            overrides=values
            | _filled(dict(own), str(folder))
            | {"output_folder": str(folder / name.replace(" ", "_"))},
        )
        for name, own in (asked or {"": {}}).items()
    ]


def _filled(value: Any, folder: str) -> Any:
    """Replaces ``{folder}`` in texts."""
    if isinstance(value, Mapping):
        return {key: _filled(one, folder) for key, one in value.items()}
    if isinstance(value, list):
        return [_filled(one, folder) for one in value]
    return value.replace("{folder}", folder) if isinstance(value, str) else value


def closing_table(results: Sequence[Mapping[str, Any]]) -> str:
    """Formats results as a table for the terminal.

    Arguments
    ---------
    results : sequence of mapping
        Contents of each ``results.json``.

    Returns
    -------
    str
        One line per result: UAR with its 95 % interval, chance, WA and macro-F1, in %.

    Example
    -------
    >>> measure = {"value": 0.5, "interval": [0.4, 0.6]}
    >>> test = dict.fromkeys(("uar", "wa", "macro_f1"), measure) | {"chance": 0.25}
    >>> print(closing_table([{"setting": "probe", "target": "emodb", "test": test}]))
    setting  test     UAR %  95 % interval  chance %    WA %  macro-F1 %
    probe    emodb     50.0   40.0 to 60.0      25.0    50.0        50.0
    """
    names = [
        (one["setting"], one.get("target") or one.get("corpus") or "")
        for one in results
    ]
    first, second = (
        max(len(title), *(len(pair[k]) for pair in names))
        for k, title in enumerate(("setting", "test"))
    )
    lines = [
        f"{'setting':{first}}  {'test':{second}}   UAR %  95 % interval  chance %    "
        "WA %  macro-F1 %"
    ]
    for (setting, corpus), one in zip(names, results, strict=True):
        test = one["test"]
        uar, wa, f1 = (100 * test[k]["value"] for k in ("uar", "wa", "macro_f1"))
        low, high = test["uar"]["interval"] or (float("nan"), float("nan"))
        lines.append(
            f"{setting:{first}}  {corpus:{second}}  {uar:6.1f}  {100 * low:5.1f} to "
            f"{100 * high:4.1f}  {100 * test['chance']:8.1f}  {wa:6.1f}  {f1:10.1f}"
        )
    return "\n".join(lines)


def _print_table(results: Sequence[Mapping[str, Any]]) -> None:
    print(f"\n{closing_table(results)}")
