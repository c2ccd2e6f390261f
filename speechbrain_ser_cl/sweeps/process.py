"""Runs a recipe as a process, in a joblib worker."""

import contextlib
import fcntl
import os
import re
import shutil
import signal
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path

from speechbrain_ser_cl.sweeps.supervisor import BUSY

SUPERVISOR = Path(__file__).with_name("supervisor.py")
STOPPED = "stopped"
_PAUSE = 0.2


@dataclass(frozen=True)
class Job:
    """Everything a worker needs to run a process.

    Arguments
    ---------
    name : str
        Name for messages, such as ``"fold 3, seed 0"``.
    arguments : list of str
        Script and arguments.
    folder : pathlib.Path
        Folder of the run, with ``crossval.log`` for the process' output.
    working_folder : pathlib.Path
        Working folder of the process, so that relative paths keep their meaning.
    lifeline : pathlib.Path
        A file; if it is deleted, the process is stopped.
    master : int
        Number of the process that started all runs. If the worker is its child, the run
        ends when that process ends.
    environment : dict
        Changes to the environment variables.
    use_gpu : bool
        Whether the process gets its own GPU, if there are GPUs.
    runs_per_gpu : int
        Number of processes that may share one.

    Example
    -------
    >>> here = Path("results")
    >>> Job("fold 0", ["train.py"], here, here, here / "running", 1).use_gpu
    True
    """

    name: str
    arguments: Sequence[str]
    folder: Path
    working_folder: Path
    lifeline: Path
    master: int
    environment: Mapping[str, str] = field(default_factory=dict)
    use_gpu: bool = True
    runs_per_gpu: int = 1

    @property
    def log(self) -> Path:
        """File with the process' output."""
        return self.folder / "crossval.log"


def run_job(job: Job) -> str | None:
    """Runs a process to its end.

    Arguments
    ---------
    job : Job
        The run.

    Returns
    -------
    str or None
        None if the process ended with status 0, ``STOPPED`` if it was stopped because
        it is not needed any more, else a description of the error.
    """
    in_master = os.getpid() == job.master
    child_of_master = os.getppid() == job.master

    def wanted() -> bool:
        orphaned = child_of_master and os.getppid() != job.master
        return job.lifeline.exists() and (in_master or not orphaned)

    job.folder.mkdir(parents=True, exist_ok=True)
    with contextlib.ExitStack() as stack:
        environment = os.environ | job.environment
        gpus = visible_gpus(environment) if job.use_gpu else []
        if gpus:
            slot = stack.enter_context(gpu_slot(gpus, job.runs_per_gpu, wanted))
            if slot is None:
                return STOPPED
            environment["CUDA_VISIBLE_DEVICES"] = slot
        log = stack.enter_context(open(job.log, "ab"))
        lock = job.folder / ".crossval.lock"
        supervisor = subprocess.Popen(
            [
                sys.executable,
                "-S",  # the standard library is enough
                str(SUPERVISOR),
                str(lock),
                sys.executable,
                *job.arguments,
            ],
            stdin=subprocess.PIPE,
            stdout=log,
            stderr=subprocess.STDOUT,
            cwd=job.working_folder,
            env=environment,
            start_new_session=True,  # it must not get the terminal's Ctrl-C
        )
        stopped = True
        try:
            while wanted():
                with contextlib.suppress(subprocess.TimeoutExpired):
                    supervisor.wait(_PAUSE)
                    stopped = False
                    break
        finally:
            assert supervisor.stdin is not None
            supervisor.stdin.close()  # the supervisor stops it
            status = supervisor.wait()
    if stopped:
        return STOPPED
    return describe_status(status, job)


def describe_status(status: int, job: Job) -> str | None:
    """Describes an exit status of the supervisor.

    Arguments
    ---------
    status : int
        The exit status.
    job : Job
        The run.

    Returns
    -------
    str or None
        None for 0.

    Example
    -------
    >>> job = Job("fold 0", [], Path("out"), Path("."), Path("x"), 1)
    >>> describe_status(1, job), describe_status(137, job)
    ('exit status 1', 'killed by SIGKILL')
    """
    if status == 0:
        return None
    if status == BUSY:
        return f"another process is running in {job.folder}; wait for its end"
    number = status - 128 if status > 128 else -status
    if number > 0:
        try:
            return f"killed by {signal.Signals(number).name}"
        except ValueError:
            pass
    return f"exit status {status}"


def visible_gpus(environment: Mapping[str, str]) -> list[str]:
    """Lists the GPUs that processes may use, by their CUDA names.

    Arguments
    ---------
    environment : mapping
        Environment variables of the process.

    Returns
    -------
    list of str
        From ``CUDA_VISIBLE_DEVICES`` if set, else from ``nvidia-smi``.

    Example
    -------
    >>> visible_gpus({"CUDA_VISIBLE_DEVICES": "1,3"})
    ['1', '3']
    """
    chosen = environment.get("CUDA_VISIBLE_DEVICES")
    if chosen is not None:
        return [name.strip() for name in chosen.split(",") if name.strip()]
    if shutil.which("nvidia-smi") is None:
        return []
    listing = subprocess.run(["nvidia-smi", "-L"], capture_output=True, text=True)
    return re.findall(r"^GPU (\d+):", listing.stdout, re.MULTILINE)


@contextlib.contextmanager
def gpu_slot(
    gpus: Sequence[str], runs_per_gpu: int, wanted: Callable[[], bool] = lambda: True
) -> Iterator[str | None]:
    """Reserves a GPU during the context; waits until one is free.

    Locked files share the GPUs between all processes of the machine.

    Arguments
    ---------
    gpus : sequence of str
        Names of the GPUs.
    runs_per_gpu : int
        Number of processes that may share one.
    wanted : callable
        Returns whether to continue waiting.

    Yields
    ------
    str or None
        Name of the GPU; None if ``wanted`` returned False.

    Example
    -------
    >>> with gpu_slot(["example"], 1) as gpu:
    ...     gpu
    'example'
    """
    folder = Path(tempfile.gettempdir(), f"ser-cl-gpus-{os.getuid()}")
    folder.mkdir(mode=0o700, exist_ok=True)
    # First slots first, so that two runs use two GPUs.
    slots = [(gpu, n) for n in range(runs_per_gpu) for gpu in gpus]
    while wanted():
        for gpu, n in slots:
            name = re.sub(r"\W", "_", f"{gpu}_{n}")
            with open(folder / name, "w") as lock:
                try:
                    fcntl.flock(lock, fcntl.LOCK_EX | fcntl.LOCK_NB)
                except BlockingIOError:
                    continue
                yield gpu
                return
        time.sleep(_PAUSE)
    yield None


def tail(path: Path, n_lines: int = 15) -> list[str]:
    r"""Returns the last lines of a log.

    Arguments
    ---------
    path : pathlib.Path
        Log file.
    n_lines : int
        Largest number of lines.

    Returns
    -------
    list of str
        Without empty lines and without overwritten states of progress bars.

    Example
    -------
    >>> path = getfixture("tmp_path") / "log"
    >>> _ = path.write_text("begin\r10 %\r100 %\n\nValueError: no")
    >>> tail(path, 2)
    ['100 %', 'ValueError: no']
    """
    if not path.exists():
        return []
    with open(path, "rb") as file:
        file.seek(0, os.SEEK_END)
        file.seek(max(0, file.tell() - 100_000))
        text = file.read().decode("utf-8", errors="replace")
    # Split at line feeds only: a carriage return overwrites the same line.
    lines = [
        line.rstrip("\r").rpartition("\r")[2].rstrip() for line in text.split("\n")
    ]
    return [line for line in lines if line][-n_lines:]
