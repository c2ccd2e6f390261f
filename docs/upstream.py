"""Copies the multitask recipe into a checkout of SpeechBrain, and checks it there.

> git clone https://github.com/speechbrain/speechbrain
> python docs/upstream.py speechbrain

Copies script, YAML and README to ``recipes/IEMOCAP_MSP``, adds the line of
``tests/recipes``, formats with SpeechBrain's settings, and runs SpeechBrain's checks
(consistency, style) and its recipe test, the demo for a few steps. ``--no-run`` skips
the checks. Nothing is copied from the checkout into this project.

Authors
 * The speechbrain_ser_cl contributors 2026
"""

import argparse
import os
import re
import shutil
import subprocess
import sys
from pathlib import Path

ROOT = Path(__file__).resolve().parents[1]
NAME = "IEMOCAP_MSP"
FILES = ("train.py", "hparams/multitask_da.yaml", "README.md", "extra_requirements.txt")
RECIPE_TEST = f"""
from tests.utils.recipe_tests import run_recipe_tests
passed = run_recipe_tests(
    filters_fields=["Dataset"], filters=[["{NAME}"]], run_opts="--device=cpu"
)
raise SystemExit(not passed)
"""


def readme_for_upstream(text: str) -> str:
    """Removes tables that are written from files outside the recipe, and their marks.

    Links to other folders of this project become plain text.
    """
    text = re.sub(r"<!-- (\w+): begin.*?<!-- \1: end.*?-->\n?", "", text, flags=re.S)
    return re.sub(r"\[([^\]]*)\]\(\.\./[^)]*\)", r"\1", text)


def name_keys(script: str, yaml: str) -> str:
    """Lists, in the script's docstring, the keys that the package reads from the YAML.

    SpeechBrain's consistency test needs the name of each key in the script.
    """
    keys = re.findall(r"^([a-z_]+):", yaml, flags=re.M)
    unnamed = [key for key in keys if f'hparams["{key}"]' not in script]
    lines = "".join(f' * hparams["{key}"]\n' for key in unnamed)
    told = f"Read by speechbrain_ser_cl:\n{lines}\nAuthors\n"
    return script.replace("Authors\n", told, 1)


def lay_out(checkout: Path) -> list[Path]:
    """Copies the recipe.

    Arguments
    ---------
    checkout : Path
        A checkout of SpeechBrain.

    Returns
    -------
    list of Path
        Written files.

    Raises
    ------
    SystemExit
        If the folder is not a checkout of SpeechBrain.
    """
    if not (checkout / "tests" / "recipes").is_dir():
        raise SystemExit(f"{checkout}: no checkout of SpeechBrain: no tests/recipes")
    folder = checkout / "recipes" / NAME
    for name in FILES:
        (folder / name).parent.mkdir(parents=True, exist_ok=True)
        shutil.copyfile(ROOT / "recipes" / NAME / name, folder / name)
    script, yaml, readme = (folder / name for name in FILES[:3])
    script.write_text(name_keys(script.read_text(), yaml.read_text()))
    readme.write_text(readme_for_upstream(readme.read_text()))
    extra = folder / "extra_requirements.txt"
    extra.write_text("speechbrain_ser_cl\n" + extra.read_text())
    row = checkout / "tests" / "recipes" / f"{NAME}.csv"
    shutil.copyfile(ROOT / "tests" / "recipes" / row.name, row)
    return [*(folder / name for name in FILES), row]


def main() -> int:
    """Runs the command line of the module's docstring."""
    parser = argparse.ArgumentParser(description=(__doc__ or "").split("\n")[0])
    parser.add_argument("checkout", type=Path, help="checkout of SpeechBrain")
    parser.add_argument("--no-run", action="store_true", help="copy, check nothing")
    arguments = parser.parse_args()
    checkout = arguments.checkout.resolve()
    written = lay_out(checkout)
    print(*(path.relative_to(checkout) for path in written), sep="\n", flush=True)
    if arguments.no_run:
        return 0
    script = f"recipes/{NAME}/train.py"
    module = [sys.executable, "-m"]
    # SpeechBrain's recipe test calls `python`.
    path = os.pathsep.join([str(Path(sys.executable).parent), os.environ["PATH"]])
    failed = []
    for title, command in (
        ("their style, mended", [*module, "ruff", "check", "--fix", script]),
        ("their format", [*module, "ruff", "format", script]),
        ("their YAML rules", [*module, "yamllint", f"recipes/{NAME}"]),
        ("their consistency tests", [*module, "pytest", "-q", "tests/consistency"]),
        ("their recipe test", [sys.executable, "-c", RECIPE_TEST]),
    ):
        print(f"\n=== {title}", flush=True)
        if subprocess.run(
            command, cwd=checkout, env=os.environ | {"PATH": path}
        ).returncode:
            failed.append(title)
    print("\nfailed: " + ", ".join(failed) if failed else "\nall passed")
    return bool(failed)


if __name__ == "__main__":
    raise SystemExit(main())
