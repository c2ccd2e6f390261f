"""Headless Chromium, where there is one."""

import re
import subprocess

NAMES = ("chromium", "chromium-browser", "google-chrome", "google-chrome-stable")


class Chromium:
    """Opens pages from disk, one process for each.

    Attributes
    ----------
    console : list of str
        What the last page wrote to the console: nothing, if all is well.
    """

    def __init__(self, program, profile):
        self.program, self.profile, self.console = program, profile, []

    def open(self, page, *options):
        """Opens a page; returns what the options print."""
        run = subprocess.run(
            [self.program, "--headless", "--no-sandbox", "--disable-gpu"]
            + [f"--user-data-dir={self.profile}", "--hide-scrollbars"]
            + ["--enable-logging=stderr", "--log-level=0", "--v=0"]
            + [*options, page.absolute().as_uri()],
            capture_output=True,
            text=True,
            timeout=120,
        )
        assert run.returncode == 0, run.stderr
        self.console = re.findall(r":CONSOLE[^]]*\] (.*)", run.stderr)
        return run.stdout
