"""Runs the tutorial once; tests of pages start from its files."""

import os
import subprocess
import sys

import pytest

from tests.docs.pages import DOCS, ROOT


@pytest.fixture(scope="session")
def tutorial(tmp_path_factory):
    """Returns the folder that docs/tutorial.py wrote, and its output."""
    folder = tmp_path_factory.mktemp("tutorial")
    path = os.pathsep.join([str(ROOT), *filter(None, [os.environ.get("PYTHONPATH")])])
    run = subprocess.run(
        [sys.executable, DOCS / "tutorial.py"],
        cwd=folder,
        env=os.environ | {"OMP_NUM_THREADS": "1", "PYTHONPATH": path},
        capture_output=True,
        text=True,
        timeout=600,
    )
    assert run.returncode == 0, run.stderr[-5000:]
    return folder / "results" / "tutorial", run.stdout
