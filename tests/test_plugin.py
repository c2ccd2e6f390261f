"""A third-party package adds a loss by an entry point; a broken one has no effect."""

import subprocess
import sys
from textwrap import dedent

import pytest

from tests.processes import run

PROJECT = """
    [build-system]
    requires = ["setuptools"]
    build-backend = "setuptools.build_meta"

    [project]
    name = "ser-plugin-{kind}"
    version = "1.0"

    [tool.setuptools]
    py-modules = ["ser_plugin_{kind}"]

    [project.entry-points."speechbrain_ser_cl.losses"]
"""
GOOD = {
    "pyproject.toml": PROJECT.format(kind="good")
    + """
    mean_distance = "ser_plugin_good:MeanDistance"
    """,
    "ser_plugin_good.py": '''
        """A plug-in."""

        import torch


        class MeanDistance(torch.nn.Module):
            """Scaled mean squared distance between two views."""

            def __init__(self, scale=1.0):
                super().__init__()
                self.scale = scale

            def forward(self, z_a, z_b):
                return self.scale * (z_a - z_b).square().mean()
    ''',
}
BROKEN = {
    "pyproject.toml": PROJECT.format(kind="broken")
    + """
    another = "ser_plugin_broken:Another"
    infonce = "ser_plugin_broken:fine"
    constant = "ser_plugin_broken:CONSTANT"
    absent = "ser_plugin_broken_too:Anything"
    """,
    "ser_plugin_broken.py": """
        CONSTANT = 3
        def fine():
            pass
        def __getattr__(name):
            raise RuntimeError("needs a licence file")
    """,
}
USE = """
import sys, warnings
import torch
from hyperpyyaml import load_hyperpyyaml
from speechbrain_ser_cl.registry import LOSSES

sys.path.insert(0, sys.argv[2])  # as installed
with warnings.catch_warnings(record=True) as caught:
    warnings.simplefilter("always")
    with open(sys.argv[1]) as stream:
        hparams = load_hyperpyyaml(stream)

z_a, z_b = torch.zeros(2, 3), torch.ones(2, 3)
print([hparams[key](z_a, z_b).item() for key in ("by_path", "by_name", "scaled")])
print(LOSSES.source("mean_distance"), LOSSES.get("infonce").__module__)
for message in sorted(str(warning.message) for warning in caught):
    if "plug-in" in message:
        print(message)
"""
YAML = """
by_path: !new:ser_plugin_good.MeanDistance
by_name: !apply:speechbrain_ser_cl.build [loss, mean_distance]
scaled: !apply:speechbrain_ser_cl.build
    kind: loss
    name: mean_distance
    scale: 2.0
"""


def write(folder, files):
    folder.mkdir()
    for name, text in files.items():
        (folder / name).write_text(dedent(text))
    return folder


def install(target, *packages):
    """Installs packages from disk into a folder by pip, without network."""
    command = [sys.executable, "-m", "pip", "install", "--quiet", "--no-index"]
    command += ["--no-deps", "--no-build-isolation", "--no-compile"]
    command += ["--target", target, *packages]
    subprocess.run(command, check=True)


@pytest.fixture
def use(tmp_path):
    """Returns a function that runs the YAML with the packages of one target folder."""

    def use(target):
        script, yaml = tmp_path / "use.py", tmp_path / "hparams.yaml"
        script.write_text(USE)
        yaml.write_text(YAML)
        done = run([script, yaml, target])
        assert done.returncode == 0, done.stderr
        return done.stdout.splitlines()

    return use


def test_plugins(tmp_path, use):
    good = write(tmp_path / "good", GOOD)
    install(tmp_path / "target", good)
    expected = [
        "[1.0, 1.0, 2.0]",
        "ser-plugin-good speechbrain_ser_cl.losses.infonce",
    ]
    assert use(tmp_path / "target") == expected

    broken = write(tmp_path / "broken", BROKEN)
    install(tmp_path / "target", broken)
    lines = use(tmp_path / "target")
    assert lines[:2] == expected
    reasons = {
        "absent": "No module named 'ser_plugin_broken_too'",
        "another": "needs a licence file",
        "constant": "expected a class or a function",
        "infonce": "already taken by speechbrain_ser_cl.losses",
    }
    for line, (name, reason) in zip(lines[2:], reasons.items(), strict=True):
        assert f"plug-in '{name}' of package ser-plugin-broken" in line
        assert reason in line
