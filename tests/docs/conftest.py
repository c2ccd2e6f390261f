"""Runs the tutorial once; tests of pages start from its files."""

import os

import pytest

from tests.docs.pages import DOCS, ROOT
from tests.processes import run


@pytest.fixture(scope="session")
def tutorial(tmp_path_factory):
    """Returns the folder that docs/tutorial.py wrote, and its output."""
    folder = tmp_path_factory.mktemp("tutorial")
    path = os.pathsep.join([str(ROOT), *filter(None, [os.environ.get("PYTHONPATH")])])
    environment = os.environ | {"OMP_NUM_THREADS": "1", "PYTHONPATH": path}
    done = run([DOCS / "tutorial.py"], cwd=folder, env=environment)
    assert done.returncode == 0, done.stderr[-5000:]
    return folder / "results" / "tutorial", done.stdout
