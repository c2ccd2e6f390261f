"""Headless Chromium, if it is installed."""

import json
import re
import subprocess
import time
from base64 import b64decode
from urllib.error import HTTPError
from urllib.request import Request, urlopen

NAMES = ("chromium", "chromium-browser", "google-chrome", "google-chrome-stable")


class Chromium:
    """Opens pages from disk, one process per page.

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


class Driven:
    """A browser that a test controls through chromedriver (WebDriver), like a user.

    Its microphone is Chromium's own: a beep every second.
    """

    def __init__(self, driver, program, profile):
        self._process = subprocess.Popen(
            [driver, "--port=0"], stdout=subprocess.PIPE, text=True
        )
        started = (re.search(r"on port (\d+)\.", line) for line in self._process.stdout)
        port = next(filter(None, started))[1]
        self._address = f"http://127.0.0.1:{port}/session"
        arguments = ["--headless", "--no-sandbox", "--disable-gpu"]
        arguments += ["--hide-scrollbars", f"--user-data-dir={profile}"]
        arguments += ["--use-fake-ui-for-media-stream"]
        arguments += ["--use-fake-device-for-media-stream"]
        options = {"binary": program, "args": arguments}
        wanted = {
            "goog:chromeOptions": options,
            "goog:loggingPrefs": {"browser": "ALL"},
        }
        session = self._ask("", capabilities={"alwaysMatch": wanted})
        self._address += f"/{session['sessionId']}"

    def _ask(self, path, /, **parameters):
        body = json.dumps(parameters).encode()
        request = Request(self._address + path, body)
        try:
            with urlopen(request, timeout=60) as answer:
                return json.load(answer)["value"]
        except HTTPError as error:
            raise AssertionError(json.load(error)["value"]["message"]) from None

    def close(self):
        """Closes browser and driver."""
        urlopen(Request(self._address, method="DELETE"), timeout=60).close()
        self._process.terminate()
        self._process.wait()

    def open(self, url):
        """Opens an address."""
        self._ask("/url", url=url)

    def _element(self, selector):
        found = self._ask("/element", using="css selector", value=selector)
        return next(iter(found.values()))

    def click(self, selector):
        """Clicks an element, which must be visible."""
        self._ask(f"/element/{self._element(selector)}/click")

    def type(self, selector, text):
        """Types into an element; for file inputs, the path of a file."""
        self._ask(f"/element/{self._element(selector)}/value", text=text)

    def run(self, script, *arguments):
        """Runs a function's body in the page and returns the result."""
        return self._ask("/execute/sync", script=script, args=arguments)

    def wait(self, expression, seconds=20):
        """Waits until an expression is true in the page; returns its value."""
        end = time.monotonic() + seconds
        while not (value := self.run(f"return {expression}")):
            assert time.monotonic() < end, f"never true: {expression}"
            time.sleep(0.05)
        return value

    def prefer(self, scheme):
        """Selects light or dark mode."""
        features = [{"name": "prefers-color-scheme", "value": scheme}]
        self._ask(
            "/goog/cdp/execute",
            cmd="Emulation.setEmulatedMedia",
            params={"features": features},
        )

    def resize(self, width, height):
        """Sets the window's size in pixels."""
        self._ask("/window/rect", width=width, height=height)

    def screenshot(self, path):
        """Writes the window's content to a PNG file."""
        with urlopen(f"{self._address}/screenshot", timeout=60) as answer:
            path.write_bytes(b64decode(json.load(answer)["value"]))

    def console(self):
        """Returns the console output since the last call."""
        return [line["message"] for line in self._ask("/se/log", type="browser")]
