"""Python processes for tests, forked from one that has imported the package.

Importing torch, SpeechBrain and the package takes five seconds of a core, and tests of
kills, resuming and ranks start dozens of processes. They are processes like any other:
with a command line, folder, environment, output and exit status of their own.
"""

import contextlib
import gc
import json
import multiprocessing.process
import os
import random
import runpy
import select
import signal
import socket
import subprocess
import sys
import tempfile
import time
import types
from collections.abc import Iterable
from functools import cache
from pathlib import Path

# What recipes import when they run, too.
_IMPORTS = (
    *("speechbrain_ser_cl.training", "speechbrain_ser_cl.losses", "pandas"),
    *("matplotlib.backends.backend_agg", "matplotlib.figure", "scipy.signal"),
    *("sklearn.linear_model", "sklearn.manifold", "sklearn.svm"),
    *("torch_audiomentations", "speechbrain_ser_cl.report.figures"),
)
_MOST = 2**20  # bytes per message


@cache
def _server() -> socket.socket:
    """Starts the process that forks; it ends with this one."""
    here, there = socket.socketpair(socket.AF_UNIX, socket.SOCK_SEQPACKET)
    with there:
        subprocess.Popen(
            [sys.executable, __file__, str(there.fileno())], pass_fds=[there.fileno()]
        )
    return here


class Process:
    """A started process, used like ``subprocess.Popen``.

    Arguments
    ---------
    words : iterable of str or path
        What follows ``python``: a script, ``-m`` and a module, or ``-c`` and code, and
        its arguments.
    cwd : path
        Its folder.
    env : mapping
        Its environment.
    """

    _ended: dict[int, int] = {}

    def __init__(self, words: Iterable[object], cwd=".", env=os.environ) -> None:
        with contextlib.ExitStack() as files:
            # Two file descriptors, open as long as this object.
            self._out, self._err = (
                files.enter_context(tempfile.TemporaryFile()) for _ in range(2)
            )
            files.pop_all()
        request = {
            "argv": list(map(str, words)),
            "cwd": str(Path(cwd).absolute()),
            "env": dict(env),
        }
        socket.send_fds(
            _server(),
            [json.dumps(request).encode()],
            [self._out.fileno(), self._err.fileno()],
        )
        self.pid = 0
        while not self.pid:
            self._receive()
        self.returncode: int | None = None

    def _receive(self) -> None:
        """Receives a message: a process has started or ended."""
        pid, status = json.loads(_server().recv(_MOST))
        if status is None:
            self.pid = pid
        else:
            self._ended[pid] = status

    def poll(self) -> int | None:
        """Returns the exit status, negative after a signal; None while it runs."""
        _server().setblocking(False)
        with contextlib.suppress(BlockingIOError):
            while True:
                self._receive()
        _server().setblocking(True)
        if self.returncode is None:
            self.returncode = self._ended.pop(self.pid, None)
        return self.returncode

    def wait(self, timeout: float = 300) -> int:
        """Waits for the process to end."""
        end = time.monotonic() + timeout
        while self.poll() is None:
            if time.monotonic() > end:
                raise subprocess.TimeoutExpired(f"process {self.pid}", timeout)
            time.sleep(0.005)
        assert self.returncode is not None
        return self.returncode

    def send_signal(self, number: int) -> None:
        """Sends a signal, unless it has ended."""
        if self.poll() is None:
            os.kill(self.pid, number)

    def kill(self) -> None:
        """Kills the process."""
        self.send_signal(signal.SIGKILL)

    def communicate(self, timeout: float = 300) -> tuple[str, str]:
        """Waits for the process to end; returns its output and errors."""
        self.wait(timeout)
        said = []
        for file in (self._out, self._err):
            file.seek(0)
            said.append(file.read().decode(errors="replace"))
        return said[0], said[1]


def run(words: Iterable[object], **options) -> subprocess.CompletedProcess[str]:
    """Runs a process, see ``Process``, to its end."""
    words = list(map(str, words))
    process = Process(words, **options)
    out, err = process.communicate(timeout=600)
    return subprocess.CompletedProcess(words, process.returncode, out, err)


def start_ranks(world: int, words: Iterable[object], **options) -> list[Process]:
    """Starts the processes of a distributed run, like ``torchrun``."""
    words = list(words)
    with socket.socket() as free:
        free.bind(("localhost", 0))
        port = free.getsockname()[1]
    same = {"MASTER_ADDR": "localhost", "MASTER_PORT": str(port)}
    same |= {"WORLD_SIZE": str(world), "LOCAL_WORLD_SIZE": str(world)}
    return [
        Process(
            words,
            env=os.environ | same | {"RANK": str(rank), "LOCAL_RANK": str(rank)},
            **options,
        )
        for rank in range(world)
    ]


def _serve(connection: socket.socket) -> dict | None:
    """Forks for each request, and returns the request in the child; None at the end."""
    for name in _IMPORTS:
        with contextlib.suppress(ImportError):  # of an extra
            __import__(name)
    gc.freeze()  # so that no collection in a child visits what is imported
    # A child's end interrupts the wait for a request.
    signal.signal(signal.SIGCHLD, lambda *_: None)
    woken, wake = socket.socketpair()
    wake.setblocking(False)
    signal.set_wakeup_fd(wake.fileno(), warn_on_full_buffer=False)
    while True:
        ready, _, _ = select.select([connection, woken], [], [])
        if woken in ready:
            woken.recv(4096)
            with contextlib.suppress(ChildProcessError):
                while (ended := os.waitpid(-1, os.WNOHANG))[0]:
                    status = os.waitstatus_to_exitcode(ended[1])
                    connection.send(json.dumps([ended[0], status]).encode())
        if connection not in ready:
            continue
        message, files, _, _ = socket.recv_fds(connection, _MOST, 2)
        if not message:
            return None
        pid = os.fork()
        if pid == 0:
            signal.set_wakeup_fd(-1)
            signal.signal(signal.SIGCHLD, signal.SIG_DFL)
            for one in (connection, woken, wake):
                one.close()
            os.dup2(os.open(os.devnull, os.O_RDONLY), 0)
            for number, file in enumerate(files, start=1):
                os.dup2(file, number)
                os.close(file)
            return json.loads(message)
        for file in files:
            os.close(file)
        connection.send(json.dumps([pid, None]).encode())


def _become(request: dict) -> None:
    """Does in a forked process what ``python`` does with its command line."""
    os.chdir(request["cwd"])
    multiprocessing.process.ORIGINAL_DIR = request["cwd"]  # for its children
    os.environ.clear()
    os.environ.update(request["env"])
    random.seed()
    what, *arguments = request["argv"]
    if what == "-m":
        sys.argv, sys.path[0] = arguments, os.getcwd()
        runpy.run_module(arguments[0], run_name="__main__", alter_sys=True)
        return
    if what == "-c":
        code, path = arguments.pop(0), "<string>"
        sys.path[0] = ""
    else:
        code, path = Path(what).read_text(encoding="utf-8"), what
        sys.path[0] = str(Path(what).absolute().parent)
    # Working folder of pytest, from which scripts import shared test code.
    sys.path.append(str(Path(__file__).resolve().parents[1]))
    sys.argv = [what, *arguments]
    main = types.ModuleType("__main__")
    if what != "-c":
        main.__file__ = path
    sys.modules["__main__"] = main
    exec(compile(code, path, "exec"), main.__dict__)


if __name__ == "__main__":
    asked = _serve(socket.socket(fileno=int(sys.argv[1])))
    if asked is not None:
        _become(asked)
