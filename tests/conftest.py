"""Fixtures that several test modules share."""

import shutil
from collections.abc import Iterator
from pathlib import Path

import pytest

from tests.browser import NAMES, Chromium, Driven

ROOT = Path(__file__).resolve().parents[1]


@pytest.fixture(scope="session")
def shared() -> Path:
    """The folder with real speech and pretrained encoders, where there is one."""
    folder = ROOT.parent / "shared"
    if not (folder / "corpora").is_dir():
        pytest.skip("no ../shared folder with real corpora and encoders here")
    return folder


@pytest.fixture
def inductor() -> str:
    """The backend of ``torch.compile`` that builds C++ code."""
    if not any(map(shutil.which, ("g++", "clang++"))):
        pytest.skip("no C++ compiler, which torch.compile needs: install g++")
    return "inductor"


@pytest.fixture(scope="session")
def chromium_program() -> str:
    """The path of a browser, where there is one."""
    program = next(filter(None, map(shutil.which, NAMES)), None)
    if program is None:
        pytest.skip("no Chromium or Chrome, which opens the page: install chromium")
    return program


@pytest.fixture
def chromium(chromium_program, tmp_path) -> Chromium:
    """A headless browser that opens pages."""
    return Chromium(chromium_program, tmp_path / "profile")


@pytest.fixture(scope="module")
def driven(chromium_program, tmp_path_factory) -> Iterator[Driven]:
    """A headless browser that is used as a person would."""
    driver = shutil.which("chromedriver")
    if driver is None:
        pytest.skip("no chromedriver to click with: install chromium-driver")
    browser = Driven(driver, chromium_program, tmp_path_factory.mktemp("profile"))
    yield browser
    browser.close()
