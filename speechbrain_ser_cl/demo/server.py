"""The page's server: loopback only, for its own page only.

Any program on this machine, and any page in its browser, can send requests to a port of
127.0.0.1. So what does not come from the page itself is refused: a ``Host`` that is not
this machine's (a foreign name that was made to point here, "DNS rebinding"), an
``Origin`` that is not this server's, and a ``Content-Type`` that pages may send
elsewhere without asking. Requests without an ``Origin`` are of programs, such as curl.
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
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import Any
from urllib.parse import parse_qs, urlsplit

from jinja2 import Environment, PackageLoader, StrictUndefined

from speechbrain_ser_cl import __version__
from speechbrain_ser_cl.demo.answers import RefusedAudio, answer
from speechbrain_ser_cl.inference import EmotionRecognizer

HOST = "127.0.0.1"
MOST_BYTES = 100_000_000
MOST_UPLOADS = 4  # at once; each can hold MOST_BYTES in memory
# What pages of other origins may not send without asking, which is never granted.
UPLOAD_TYPE = "application/octet-stream"
_NAMES = (HOST, "localhost")
# Seconds offered on the page, and the one that is chosen at first.
_WINDOWS, _WINDOW = (0.5, 1, 2, 3, 5, 10), 2
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
    """A request that is not answered, with its status and why."""

    def __init__(self, status: HTTPStatus, why: str) -> None:
        super().__init__(why)
        self.status = status


class DemoServer(socketserver.ThreadingTCPServer):
    """Serves the page and classifies what it sends; ``serve_forever()`` starts it.

    Uploads lie in a temporary folder while they are classified, one at a time. At most
    four are taken at once, and others told to come back.

    Arguments
    ---------
    recognizer : EmotionRecognizer
        The model.
    name : str
        What the page calls it.
    port : int
        Of 127.0.0.1; 0 takes one that is free.
    most_bytes : int
        Larger uploads are refused.

    Attributes
    ----------
    url : str
        The page's address.

    Raises
    ------
    ValueError
        If the port cannot be had.

    Example
    -------
    >>> from types import SimpleNamespace
    >>> import torch
    >>> recognizer = SimpleNamespace(
    ...     model=torch.nn.Identity(), class_names=["sad", "happy"], max_seconds=30.0
    ... )
    >>> with DemoServer(recognizer, "my_model", port=0) as server:
    ...     server.url.startswith("http://127.0.0.1:")
    True
    """

    daemon_threads = True
    # Elsewhere it lets a restart have its port again; on Windows anybody's.
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
        self._hook = recognizer.model.register_forward_pre_hook(self._go_on)
        self.pages = _pages(recognizer, name, most_bytes)
        try:
            super().__init__((HOST, port), _Handler)
        except OSError as error:
            raise ValueError(_why_no_port(port, error)) from error
        self.url = f"http://{HOST}:{self.server_address[1]}/"

    def server_close(self) -> None:
        """Ends the file in hand with its next batch: Python cannot end inside torch."""
        super().server_close()
        self._closing.set()
        self.one_at_a_time.acquire()  # and nothing else begins
        self._hook.remove()

    def _go_on(self, *_: object) -> None:
        """Runs before each batch."""
        if self._closing.is_set():
            raise ConnectionAbortedError("the server stops")

    def handle_error(self, request: Any, client_address: object) -> None:
        """Ignore a browser that leaves in the middle; report all else."""
        if not isinstance(sys.exc_info()[1], ConnectionError):
            super().handle_error(request, client_address)


def _why_no_port(port: int, error: OSError) -> str:
    why = {
        errno.EADDRINUSE: "is used by another program",
        errno.EACCES: "is not for ordinary users",
    }.get(error.errno or 0, f"cannot be had ({error})")
    return (
        f"port {port} of {HOST} {why}: choose another with --port, or any free one "
        "with --port 0"
    )


def _pages(
    recognizer: EmotionRecognizer, name: str, most_bytes: int
) -> dict[str, tuple[str, bytes]]:
    """Collect type and content of each file of the page."""
    environment = Environment(
        loader=PackageLoader(__package__, "."),
        autoescape=True,
        undefined=StrictUndefined,
        trim_blocks=True,
        lstrip_blocks=True,
    )
    page = environment.get_template("page.html.jinja").render(
        name=name,
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

    # The report's colours and tables are the demo's.
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
    timeout = 30  # s without a byte

    def do_GET(self) -> None:
        """Answers with one of the pages."""
        self._answer(self._page)

    def do_POST(self) -> None:
        """Classifies what was sent."""
        self._answer(self._classification)

    def log_message(self, *_: object) -> None:
        """Prints no line per request."""

    def _answer(self, function: Callable[[], tuple[str, bytes]]) -> None:
        """Sends what a function returns, or why it does not."""
        try:
            self._check_sender()
            status, (kind, content) = HTTPStatus.OK, function()
        except _Refused as refused:
            status = refused.status
            kind, content = _json({"error": str(refused)})
        except (TimeoutError, ConnectionError):
            raise  # nobody listens any more
        except Exception:
            traceback.print_exc()
            status = HTTPStatus.INTERNAL_SERVER_ERROR
            why = "something went wrong; the terminal of `ser-cl demo` shows what"
            kind, content = _json({"error": why})
        self.send_response(status)
        headers = {"Content-Type": kind, "Content-Length": str(len(content))}
        for header, value in (_HEADERS | headers).items():
            self.send_header(header, value)
        self.end_headers()
        self.wfile.write(content)

    def _check_sender(self) -> None:
        """Refuses what does not come from this machine's page, or a program."""
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
            window = float(parse_qs(address.query).get("window", [_WINDOW])[0])
            with TemporaryDirectory(prefix="ser-cl-demo-") as folder:
                path = Path(folder) / "upload"
                path.write_bytes(self._body(size))
                with self.server.one_at_a_time:
                    found = answer(self.server.recognizer, path, window)
        except RefusedAudio as refused:
            raise _Refused(HTTPStatus.UNPROCESSABLE_ENTITY, str(refused)) from refused
        except ValueError as error:
            raise _Refused(HTTPStatus.BAD_REQUEST, str(error)) from error
        finally:
            self.server.uploads.release()
        return _json(found)

    def _size(self) -> int:
        """Bytes of the upload, by its header."""
        length = self.headers.get("Content-Length", "")
        if not (length.isascii() and length.isdigit()):
            raise _Refused(HTTPStatus.LENGTH_REQUIRED, "Content-Length is missing")
        # Python refuses to read numbers of thousands of digits.
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
        """Reads on for a while: who is still sending does not read an answer."""
        left = min(size, 10 * self.server.most_bytes)
        while left > 0 and (chunk := self.rfile.read(min(left, 1 << 20))):
            left -= len(chunk)


def _is_ours(host: str) -> bool:
    """Tell whether a Host header names this machine; the port may be a tunnel's."""
    name, _, port = host.partition(":")
    return name.lower() in _NAMES and (port.isdigit() or not port)


def _json(value: Mapping[str, Any]) -> tuple[str, bytes]:
    text = json.dumps(value, ensure_ascii=False)
    return "application/json; charset=utf-8", text.encode()
