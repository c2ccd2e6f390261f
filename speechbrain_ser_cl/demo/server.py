"""The page's server, reachable only from this machine and only by its own page.

Any program on this machine, and any page in its browser, can send requests to a port of
127.0.0.1. Requests that do not come from the page are therefore refused: a ``Host``
that is not this machine (a foreign name that resolves to it, "DNS rebinding"), an
``Origin`` that is not this server, and a ``Content-Type`` that pages may send to other
origins without permission. Requests without an ``Origin`` come from programs such as
curl.
"""

import errno
import json
import os
import socketserver
import sys
import threading
import traceback
from collections.abc import Callable, Mapping
from http import HTTPStatus
from http.server import BaseHTTPRequestHandler
from importlib.resources import files
from importlib.util import find_spec
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import Any
from urllib.parse import parse_qs, urlsplit

from jinja2 import Environment, PackageLoader, StrictUndefined

from speechbrain_ser_cl import __version__
from speechbrain_ser_cl.corpora.table_file import READERS, TEXTS
from speechbrain_ser_cl.demo.answers import RefusedAudio, answer
from speechbrain_ser_cl.inference import EmotionRecognizer
from speechbrain_ser_cl.recordings import Turn, read_turns

HOST = "127.0.0.1"
MOST_BYTES = 100_000_000
MOST_UPLOADS = 4  # uploads at once; each can use MOST_BYTES of memory
# Pages of other origins need permission to send this type, which is never given.
UPLOAD_TYPE = "application/octet-stream"
TURN_FILES = (".rttm", *TEXTS, *READERS)
_NAMES = (HOST, "localhost")
# Window lengths in seconds that the page offers, and the default.
_WINDOWS, _WINDOW = (0.5, 1, 2, 3, 5, 10), 2
# Texts of the page by the kind of the model.
_WORDS = {
    "classes": {
        "hears": "Hears one of:",
        "what": "class",
        "measure": "Probability",
        "unit": " %",
        "legend": "The stronger the colour, the more probable; the most probable class "
        "is underlined.",
    },
    "emotions": {
        "hears": "Hears none, one or several of:",
        "what": "emotion",
        "measure": "Probability",
        "unit": " %",
        "legend": "The stronger the colour, the more probable; what is above 50 % is "
        "underlined.",
    },
    "dimensions": {
        "hears": "Says how much there is of:",
        "what": "dimension",
        "measure": "Value",
        "unit": "",
        "legend": "The stronger the colour, the higher the value.",
    },
}
_ACTIVITIES = {
    "none": "the whole file",
    "energy": "speech in it, by its energy",
    "silero": "speech in it, by silero-vad",
}
_HEADERS = {
    "Cache-Control": "no-store",
    "Content-Security-Policy": (
        "default-src 'none'; script-src 'self'; style-src 'self'; connect-src 'self'; "
        "img-src data:; media-src blob:; base-uri 'none'; form-action 'none'; "
        "frame-ancestors 'none'"
    ),
    "Cross-Origin-Opener-Policy": "same-origin",
    "Cross-Origin-Resource-Policy": "same-origin",
    "Permissions-Policy": "microphone=(self), camera=(), geolocation=()",
    "Referrer-Policy": "no-referrer",
    "X-Content-Type-Options": "nosniff",
}


class _Refused(Exception):
    """A refused request, with its status and the reason."""

    def __init__(self, status: HTTPStatus, why: str) -> None:
        super().__init__(why)
        self.status = status


class DemoServer(socketserver.ThreadingTCPServer):
    """Serves the page and classifies its uploads; ``serve_forever()`` starts it.

    Uploads are in a temporary folder while they are classified, one at a time. At most
    four are accepted at once; others get a message to try again.

    Arguments
    ---------
    recognizer : EmotionRecognizer
        The model.
    name : str
        Name shown on the page.
    port : int
        Port on 127.0.0.1; 0: any free port.
    most_bytes : int
        Largest accepted upload.

    Attributes
    ----------
    url : str
        Address of the page.

    Raises
    ------
    ValueError
        If the port cannot be used.

    Example
    -------
    >>> from types import SimpleNamespace
    >>> import torch
    >>> recognizer = SimpleNamespace(
    ...     model=torch.nn.Identity(), class_names=["sad", "happy"], max_seconds=30.0,
    ...     kind="classes",
    ... )
    >>> with DemoServer(recognizer, "my_model", port=0) as server:
    ...     server.url.startswith("http://127.0.0.1:")
    True
    """

    daemon_threads = True
    # On other systems this lets a restarted server reuse its port; on Windows it would
    # let any program do so.
    allow_reuse_address = os.name != "nt"

    def __init__(
        self,
        recognizer: EmotionRecognizer,
        name: str,
        port: int,
        most_bytes: int = MOST_BYTES,
    ) -> None:
        self.recognizer, self.most_bytes = recognizer, most_bytes
        self.one_at_a_time = threading.Lock()
        self.uploads = threading.BoundedSemaphore(MOST_UPLOADS)
        self._closing = threading.Event()
        self._handlers: set[threading.Thread] = set()
        self._hook = recognizer.model.register_forward_pre_hook(self._go_on)
        self.pages = _pages(recognizer, name, most_bytes)
        try:
            super().__init__((HOST, port), _Handler)
        except OSError as error:
            raise ValueError(_why_no_port(port, error)) from error
        self.url = f"http://{HOST}:{self.server_address[1]}/"

    def server_close(self) -> None:
        """Stops all files at their next batch; Python cannot interrupt torch."""
        super().server_close()
        self._closing.set()
        with self.one_at_a_time:
            pass  # the current batch has ended, however long it took
        # A thread that ends in torch after Python would abort the process.
        for thread in list(self._handlers):
            thread.join(5)
        self._hook.remove()

    def process_request_thread(self, request: Any, client_address: object) -> None:
        """Answers a request in a thread that ``server_close`` waits for."""
        thread = threading.current_thread()
        self._handlers.add(thread)
        try:
            super().process_request_thread(request, client_address)
        finally:
            self._handlers.discard(thread)

    def _go_on(self, *_: object) -> None:
        """Raises an error before a batch if the server is closed."""
        if self._closing.is_set():
            raise ConnectionAbortedError("the server stops")

    def handle_error(self, request: Any, client_address: object) -> None:
        """Ignores a browser that disconnects; reports all other errors."""
        if not isinstance(sys.exc_info()[1], ConnectionError):
            super().handle_error(request, client_address)


def _why_no_port(port: int, error: OSError) -> str:
    why = {
        errno.EADDRINUSE: "is used by another program",
        errno.EACCES: "is not for ordinary users",
    }.get(error.errno or 0, f"cannot be used ({error})")
    return (
        f"port {port} of {HOST} {why}: choose another with --port, or any free one "
        "with --port 0"
    )


def _pages(
    recognizer: EmotionRecognizer, name: str, most_bytes: int
) -> dict[str, tuple[str, bytes]]:
    """Collects type and content of each file of the page."""
    environment = Environment(
        loader=PackageLoader(__package__, "."),
        autoescape=True,
        undefined=StrictUndefined,
        trim_blocks=True,
        lstrip_blocks=True,
    )
    activities = dict(_ACTIVITIES) if recognizer.kind == "classes" else {}
    if find_spec("silero_vad") is None:
        activities.pop("silero", None)
    page = environment.get_template("page.html.jinja").render(
        **_WORDS[recognizer.kind],
        name=name,
        activities=activities,
        turn_files=TURN_FILES,
        class_names=recognizer.class_names,
        windows=[s for s in _WINDOWS if s <= recognizer.max_seconds],
        window=_WINDOW,
        most_bytes=most_bytes,
        upload_type=UPLOAD_TYPE,
        version=__version__,
    )
    package = files("speechbrain_ser_cl")
    here = package / "demo"

    def script(name: str) -> tuple[str, bytes]:
        return "text/javascript; charset=utf-8", (here / name).read_bytes()

    # The report and the demo use the same colours and tables.
    style = package.joinpath("report", "style.css").read_bytes()
    style += (here / "demo.css").read_bytes()
    return {
        "/": ("text/html; charset=utf-8", page.encode()),
        "/style.css": ("text/css; charset=utf-8", style),
        "/script.js": script("script.js"),
        "/recorder.js": script("recorder.js"),
    }


class _Handler(BaseHTTPRequestHandler):
    server: DemoServer
    server_version, sys_version = f"ser-cl/{__version__}", ""
    timeout = 30  # seconds without data

    def do_GET(self) -> None:
        """Answers with one of the pages."""
        self._answer(self._page)

    def do_POST(self) -> None:
        """Classifies the uploaded audio."""
        self._answer(self._classification)

    def log_message(self, *_: object) -> None:
        """Prints no line per request."""

    def _answer(self, function: Callable[[], tuple[str, bytes]]) -> None:
        """Sends a function's result, or the reason for an error."""
        try:
            self._check_sender()
            status, (kind, content) = HTTPStatus.OK, function()
        except _Refused as refused:
            status = refused.status
            kind, content = _json({"error": str(refused)})
        except (TimeoutError, ConnectionError):
            raise  # the client has disconnected
        except Exception:
            traceback.print_exc()
            status = HTTPStatus.INTERNAL_SERVER_ERROR
            why = "an error occurred; see the terminal of `ser-cl demo`"
            kind, content = _json({"error": why})
        self.send_response(status)
        headers = {"Content-Type": kind, "Content-Length": str(len(content))}
        for header, value in (_HEADERS | headers).items():
            self.send_header(header, value)
        self.end_headers()
        self.wfile.write(content)

    def _check_sender(self) -> None:
        """Refuses requests that come neither from this page nor from a program."""
        host = self.headers.get("Host", "")
        if not _is_ours(host):
            raise _Refused(
                HTTPStatus.FORBIDDEN,
                f"this page is at {self.server.url} only, not at {host or 'no host'!r}",
            )
        origin = self.headers.get("Origin")
        if origin is not None and origin != f"http://{host}":
            raise _Refused(
                HTTPStatus.FORBIDDEN, f"requests of {origin!r} are not answered"
            )

    def _page(self) -> tuple[str, bytes]:
        path = urlsplit(self.path).path
        if path not in self.server.pages:
            raise _Refused(HTTPStatus.NOT_FOUND, "there is no such page")
        return self.server.pages[path]

    def _classification(self) -> tuple[str, bytes]:
        address = urlsplit(self.path)
        if address.path != "/classify":
            raise _Refused(HTTPStatus.NOT_FOUND, "there is no such page")
        if self.headers.get("Content-Type") != UPLOAD_TYPE:
            raise _Refused(
                HTTPStatus.UNSUPPORTED_MEDIA_TYPE, f"Content-Type is not {UPLOAD_TYPE}"
            )
        size = self._size()
        if not self.server.uploads.acquire(blocking=False):
            self._skip(size)
            raise _Refused(
                HTTPStatus.SERVICE_UNAVAILABLE,
                f"{MOST_UPLOADS} files are being classified already; try again soon",
            )
        try:
            asked = {name: all[0] for name, all in parse_qs(address.query).items()}
            window = float(asked.get("window", _WINDOW))
            activity = asked.get("activity", "none")
            with TemporaryDirectory(prefix="ser-cl-demo-") as folder:
                path = Path(folder) / "upload"
                body = memoryview(self._body(size))
                # The file of turns, if there is one, comes before the audio.
                n_turns = min(max(int(asked.get("turns", 0)), 0), size)
                path.write_bytes(body[n_turns:])
                turns = _turns(body[:n_turns], asked, folder) if n_turns else None
                with self.server.one_at_a_time:
                    found = answer(
                        self.server.recognizer, path, window, activity, turns
                    )
        except RefusedAudio as refused:
            raise _Refused(HTTPStatus.UNPROCESSABLE_ENTITY, str(refused)) from refused
        except (ValueError, ImportError) as error:
            raise _Refused(HTTPStatus.BAD_REQUEST, str(error)) from error
        finally:
            self.server.uploads.release()
        return _json(found)

    def _size(self) -> int:
        """Reads the size of the upload from its header."""
        length = self.headers.get("Content-Length", "")
        if not (length.isascii() and length.isdigit()):
            raise _Refused(HTTPStatus.LENGTH_REQUIRED, "Content-Length is missing")
        # Python refuses to parse numbers of thousands of digits.
        size, most = int(length[:18]), self.server.most_bytes
        if size > most:
            self._skip(size)
            raise _Refused(
                HTTPStatus.REQUEST_ENTITY_TOO_LARGE,
                f"the file has {size / 1e6:.1f} MB, and this page takes up to "
                f"{most / 1e6:g} MB: cut it, or use `ser-cl predict`",
            )
        return size

    def _body(self, size: int) -> bytes:
        body = self.rfile.read(size)
        if not body:
            raise _Refused(HTTPStatus.BAD_REQUEST, "the file is empty")
        if len(body) < size:
            raise ConnectionAbortedError("the upload broke off")
        return body

    def _skip(self, size: int) -> None:
        """Reads the rest, up to a limit: clients read no answer while they send."""
        left = min(size, 10 * self.server.most_bytes)
        while left > 0 and (chunk := self.rfile.read(min(left, 1 << 20))):
            left -= len(chunk)


def _turns(content: memoryview, asked: Mapping[str, str], folder: str) -> list[Turn]:
    """Reads a file of turns; errors name it as the user does."""
    name = asked.get("turns_name", "turns.rttm")
    suffix = Path(name).suffix.lower()
    path = Path(folder) / f"turns{suffix if suffix in TURN_FILES else '.rttm'}"
    path.write_bytes(content)
    try:
        return read_turns(path, Path(asked.get("name", "")).stem or None)
    except ValueError as error:
        raise ValueError(str(error).replace(str(path), name)) from error


def _is_ours(host: str) -> bool:
    """Returns whether a Host header names this machine; the port may be a tunnel's."""
    name, _, port = host.partition(":")
    return name.lower() in _NAMES and (port.isdigit() or not port)


def _json(value: Mapping[str, Any]) -> tuple[str, bytes]:
    text = json.dumps(value, ensure_ascii=False)
    return "application/json; charset=utf-8", text.encode()
