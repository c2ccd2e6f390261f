"""Fixtures that several test modules share."""

import shutil
from pathlib import Path

import pytest

from tests.browser import NAMES, Chromium

ROOT = Path(__file__).resolve().parents[1]


@pytest.fixture(scope="session")
def shared() -> Path:
    """The folder with real speech and pretrained encoders, where there is one."""
    folder = ROOT.parent / "shared"
    if not (folder / "corpora").is_dir():
        pytest.skip("no ../shared folder with real corpora and encoders here")
    return folder


@pytest.fixture
def chromium(tmp_path) -> Chromium:
    """A headless browser, where there is one."""
    program = next(filter(None, map(shutil.which, NAMES)), None)
    if program is None:
        pytest.skip(f"no Chromium here: none of {', '.join(NAMES)}")
    return Chromium(program, tmp_path / "profile")
