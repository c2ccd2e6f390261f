"""Fixtures for tests of recipes: the script as a module, and short runs.

A test module names its script ``SCRIPT`` and its YAML ``HPARAMS`` and has a fixture
``settings``, a very small experiment.
"""

import importlib.util
import sys

import pytest
import torch
from speechbrain.utils.run_opts import RunOptions

from speechbrain_ser_cl.training import Launch


@pytest.fixture(scope="module")
def recipe(request):
    """Returns the recipe's script as a module."""
    script = request.module.SCRIPT
    spec = importlib.util.spec_from_file_location(f"{script.parent.name}_train", script)
    module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    return module


@pytest.fixture(scope="module", autouse=True)
def one_thread():
    """Uses one thread like the other processes, so that sums have one order."""
    threads = torch.get_num_threads()
    torch.set_num_threads(1)
    yield
    torch.set_num_threads(threads)


@pytest.fixture(autouse=True)
def excepthook(monkeypatch):
    """Restores pytest's excepthook, which SpeechBrain replaces in a run."""
    monkeypatch.setattr(sys, "excepthook", sys.excepthook)


@pytest.fixture
def plots():
    """Lets a test draw."""


@pytest.fixture(autouse=True)
def without_plots(request, monkeypatch):
    """Runs as without the extra plots, because drawing takes a third of a short run.

    Tests with the fixture ``plots`` draw; so do demos, in processes of their own.
    """
    if "plots" not in request.fixturenames:
        monkeypatch.setitem(sys.modules, "matplotlib.figure", None)


@pytest.fixture(scope="session")
def on_cpu():
    """Makes the options of a run; each test changes its own."""
    return lambda: RunOptions.from_dictionary({"device": "cpu", "noprogressbar": True})


@pytest.fixture
def run(request, recipe, settings, on_cpu, tmp_path):
    """Runs the experiment with some settings changed."""

    def run(name="run", hparams=request.module.HPARAMS, **changes):
        changes = {"output_folder": str(tmp_path / name)} | changes
        results = recipe.run(Launch(hparams, on_cpu(), settings | changes))
        return results[0] if len(results) == 1 else results

    return run
