"""Fixtures that several test modules share, and the order of slow files."""

import gc
import os
import shutil
from collections import Counter
from collections.abc import Iterator
from pathlib import Path

import pytest

from tests.browser import NAMES, Chromium, Driven

ROOT = Path(__file__).resolve().parents[1]
# Tests run in several processes, each of which starts others. More threads than cores
# slow this down by a factor of ten. Set before torch is imported.
os.environ.setdefault("OMP_NUM_THREADS", "1")
# Slow files first, so that no process runs one of them alone at the end.
_LONG = (
    "tests/integration/",
    "tests/sweeps/",
    "features/test_cache",
    "test_weighted_ssl",
    "tests/docs/",
    "test_wheel",
    "test_plugin",
    "tests/report/",
    "tests/training/",
)
_seconds: Counter[str] = Counter()


def pytest_collection_modifyitems(items):
    """Orders the files, which pytest-xdist takes one after another."""

    def place(item) -> int:
        file = item.nodeid.partition("::")[0]
        return next((k for k, part in enumerate(_LONG) if part in file), len(_LONG))

    items.sort(key=place)


def pytest_collection_finish():
    """Excludes modules and collected tests from all later garbage collections."""
    gc.collect()
    gc.freeze()


def pytest_runtest_logreport(report):
    """Adds up the time of each file, including its fixtures."""
    _seconds[report.nodeid.partition("::")[0]] += report.duration


def pytest_terminal_summary(terminalreporter):
    """Prints the slowest files."""
    if len(_seconds) > 1:
        terminalreporter.section("slowest files")
        for file, seconds in _seconds.most_common(15):
            terminalreporter.write_line(f"{seconds:7.1f} s  {file}")


@pytest.fixture(scope="session")
def shared() -> Path:
    """Returns the folder with real speech and pretrained encoders, if it exists."""
    folder = ROOT.parent / "shared"
    if not (folder / "corpora").is_dir():
        pytest.skip("no ../shared folder with real corpora and encoders here")
    return folder


@pytest.fixture
def inductor() -> str:
    """Returns the backend of ``torch.compile`` that builds C++ code."""
    if not any(map(shutil.which, ("g++", "clang++"))):
        pytest.skip("no C++ compiler, which torch.compile needs: install g++")
    return "inductor"


@pytest.fixture(scope="session")
def chromium_program() -> str:
    """Returns the path of a browser, if there is one."""
    program = next(filter(None, map(shutil.which, NAMES)), None)
    if program is None:
        pytest.skip("no Chromium or Chrome, which opens the page: install chromium")
    return program


@pytest.fixture
def chromium(chromium_program, tmp_path) -> Chromium:
    """Returns a headless browser that opens pages."""
    return Chromium(chromium_program, tmp_path / "profile")


@pytest.fixture(scope="module")
def driven(chromium_program, tmp_path_factory) -> Iterator[Driven]:
    """Returns a headless browser that a test can control."""
    driver = shutil.which("chromedriver")
    if driver is None:
        pytest.skip("no chromedriver to click with: install chromium-driver")
    browser = Driven(driver, chromium_program, tmp_path_factory.mktemp("profile"))
    yield browser
    browser.close()
