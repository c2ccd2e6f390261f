"""Implements ``ser-cl doctor``: checks what is installed, missing or incompatible."""

import argparse
import json
import os
import platform
import re
import shutil
import subprocess
import sys
from dataclasses import asdict, dataclass
from importlib.metadata import PackageNotFoundError, requires, version
from pathlib import Path
from typing import Any

SUMMARY = "check versions, GPU, optional extras and disk"
PACKAGE = "speechbrain_ser_cl"
# A pretrained encoder, the state of its optimiser and a few checkpoints.
_ENOUGH_GB = 5

# Run in a separate process, because the import may crash and takes seconds.
_PROBE = """
import json, sys
found = {}
try:
    import torch
    cuda = torch.cuda.is_available()
    found["cuda"] = torch.version.cuda
    devices = range(torch.cuda.device_count() if cuda else 0)
    properties = [torch.cuda.get_device_properties(i) for i in devices]
    found["gpus"] = [[gpu.name, gpu.total_memory] for gpu in properties]
    found["threads"] = torch.get_num_threads()
except Exception as error:
    found["torch_error"] = f"{type(error).__name__}: {error}"
try:
    import torchaudio
except Exception as error:
    found["torchaudio_error"] = f"{type(error).__name__}: {error}"
print(json.dumps(found))
"""


@dataclass
class Check:
    """One line of the report.

    Arguments
    ---------
    name : str
        What was checked.
    status : str
        ``"ok"``, ``"warning"`` (something optional is missing) or ``"problem"``.
    found : str
        What was found.
    advice : str
        What to do, if anything.
    """

    name: str
    status: str
    found: str
    advice: str = ""


def add_arguments(parser: argparse.ArgumentParser) -> None:
    """Adds the command's arguments to its parser."""
    parser.epilog = "Exit status: 0; 1 if there is a problem (a warning is none)."
    parser.add_argument("--json", action="store_true", help="print JSON")


def run(arguments: argparse.Namespace) -> int:
    """Prints all checks."""
    probe = _probe()
    checks = [
        *_versions(),
        _torch_and_torchaudio(probe),
        _gpu(probe),
        *_extras(),
        *_disks(),
        _features(),
        _machine(probe),
        _recipes(),
    ]
    if arguments.json:
        print(json.dumps([asdict(check) for check in checks], indent=2))
    else:
        for check in checks:
            print(f"{check.status:8} {check.name}: {check.found}")
            if check.advice:
                print(f"{'':8}   {check.advice}")
    return int(any(check.status == "problem" for check in checks))


def _probe() -> dict[str, Any]:
    """Imports torch and torchaudio in another process; returns its output."""
    done = subprocess.run(
        [sys.executable, "-c", _PROBE], capture_output=True, text=True, check=False
    )
    try:
        found: dict[str, Any] = json.loads(done.stdout.splitlines()[-1])
        return found
    except (IndexError, ValueError):
        last = (done.stderr.strip().splitlines() or ["no message"])[-1]
        return {"torch_error": f"importing torch ended with {done.returncode}: {last}"}


def _version(package: str) -> str | None:
    try:
        return version(package)
    except PackageNotFoundError:
        return None


def _requirements() -> list[Any]:
    """Lists the requirements of the installed package, with their markers."""
    from packaging.requirements import Requirement

    try:
        return [Requirement(line) for line in requires(PACKAGE) or ()]
    except PackageNotFoundError:
        return []


def _versions() -> list[Check]:
    """Checks Python and the installed version of each requirement."""
    own = _version(PACKAGE)
    checks = [
        Check("python", "ok", f"{platform.python_version()} ({sys.executable})"),
        Check(PACKAGE, "ok", own or "not installed, used from its source folder"),
    ]
    if own is None:
        checks[-1].status = "warning"
        checks[-1].advice = "requirements are not checked: pip install -e . in it"
    for requirement in _requirements():
        if requirement.marker is not None:
            continue
        found = _version(requirement.name)
        check = Check(requirement.name, "ok", found or "not installed")
        if found is None or not requirement.specifier.contains(found, True):
            check.status = "problem"
            check.found += f", needed: {requirement.specifier}"
            check.advice = f"pip install '{requirement}'"
        checks.append(check)
    return checks


def _torch_and_torchaudio(probe: dict[str, Any]) -> Check:
    """Checks that torchaudio was built for this version of torch."""
    numbers = {name: _version(name) for name in ("torch", "torchaudio")}
    found = ", ".join(f"{name} {number}" for name, number in numbers.items())
    check = Check("torch and torchaudio", "ok", f"{found}: they work together")
    errors = [probe[k] for k in ("torch_error", "torchaudio_error") if k in probe]
    series = {".".join(str(number).split(".")[:2]) for number in numbers.values()}
    if errors:
        check.status = "problem"
        check.found = f"{found}: {' '.join(errors[0].split())}"
    elif len(series) > 1:
        check.status = "warning"
        check.found = f"{found}: of different series"
    if check.status != "ok":
        check.advice = (
            "install both with the same number, from the same place: pip install "
            "'torch>=2.8,<2.12' 'torchaudio>=2.8,!=2.11.1,<2.12'"
        )
    return check


def _gpu(probe: dict[str, Any]) -> Check:
    if "torch_error" in probe:
        return Check("GPU", "warning", "not known, since torch cannot be imported")
    if probe["gpus"]:
        names = ", ".join(f"{n} ({size / 1e9:.0f} GB)" for n, size in probe["gpus"])
        return Check("GPU", "ok", f"{names}, CUDA {probe['cuda']}")
    if shutil.which("nvidia-smi"):
        return Check(
            "GPU",
            "warning",
            f"torch (CUDA {probe['cuda']}) uses none, though nvidia-smi is here",
            "see what nvidia-smi says; its CUDA version must not be below torch's",
        )
    return Check("GPU", "ok", "none: everything runs on the CPU, only slower")


def _extras() -> list[Check]:
    """Checks which packages of the optional extras are missing."""
    wanted: dict[str, list[str]] = {}
    for requirement in _requirements():
        found = re.search(r"extra == ['\"]([^'\"]+)['\"]", str(requirement.marker))
        if found and requirement.name.replace("-", "_") != PACKAGE:
            wanted.setdefault(found[1], []).append(requirement.name)
    checks = []
    for extra, names in sorted(wanted.items()):
        missing = [name for name in names if _version(name) is None]
        check = Check(f"extra {extra}", "ok", "installed")
        if missing:
            check.status = "warning"
            check.found = f"missing: {', '.join(missing)}"
            check.advice = f"if you need it: pip install '{PACKAGE}[{extra}]'"
        checks.append(check)
    return checks


def _disks() -> list[Check]:
    """Checks the free space for runs and for downloaded encoders."""
    cache = os.environ.get("HF_HOME", Path.home() / ".cache" / "huggingface")
    checks = []
    for name, folder in (("here", Path.cwd()), ("encoder cache", Path(cache))):
        while not folder.exists():
            folder = folder.parent
        free = shutil.disk_usage(folder).free / 1e9
        check = Check(f"disk, {name}", "ok", f"{free:.0f} GB free in {folder}")
        if free < _ENOUGH_GB:
            check.status = "warning"
            check.advice = f"a run with a pretrained encoder wants {_ENOUGH_GB} GB"
        checks.append(check)
    return checks


def _features() -> Check:
    """Reports the folder of cached features, its size, and what an hour adds."""
    from speechbrain_ser_cl.data.features.place import describe_kept, estimate_features

    name, found = describe_kept().split(": ", 1)
    hour = f"1000 utterances of 3.6 s: {estimate_features([3.6] * 1000)}"
    return Check(name.lower(), "ok", f"{found}; {hour}")


def _machine(probe: dict[str, Any]) -> Check:
    found = f"{os.cpu_count()} cores, torch uses {probe.get('threads', '?')} threads"
    try:
        pages = os.sysconf("SC_PHYS_PAGES") * os.sysconf("SC_PAGE_SIZE")
        found += f", {pages / 1e9:.0f} GB memory"
    except (AttributeError, ValueError, OSError):
        pass  # not available on this system
    return Check("machine", "ok", found)


def _recipes() -> Check:
    from speechbrain_ser_cl.cli.train import find_recipes

    recipes = find_recipes()
    if recipes:
        return Check("recipes", "ok", f"{len(recipes)} found, see `ser-cl train`")
    return Check(
        "recipes",
        "warning",
        "none found",
        "they are in the project's repository: clone it, or set SER_CL_RECIPES",
    )
