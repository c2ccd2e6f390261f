"""Runs a command and ends it, with all its children, when standard input closes.

``python supervisor.py LOCK COMMAND …``: the starting process holds the other end of
standard input. When that process ends in any way, the system closes it, and the command
is ended. ``LOCK`` is held meanwhile, so that the command does not run twice. Only
Python's standard library is imported, because each training process has a supervisor.
"""

import ctypes
import fcntl
import os
import signal
import subprocess
import sys
import threading
from collections.abc import Sequence

BUSY = 75  # EX_TEMPFAIL of sysexits.h
PR_SET_PDEATHSIG = 1  # from linux/prctl.h
GRACE = 5.0  # seconds between SIGTERM and SIGKILL


def end_group(group: int, wait_for_leader: subprocess.Popen[bytes]) -> None:
    """Asks a process group to end, and kills it if it does not.

    Arguments
    ---------
    group : int
        Number of the group.
    wait_for_leader : subprocess.Popen
        First process of the group, which gets time to end by itself.
    """
    for number in (signal.SIGTERM, signal.SIGKILL):
        try:
            os.killpg(group, number)
        except (ProcessLookupError, PermissionError):  # no process is left
            return
        try:
            wait_for_leader.wait(GRACE)
        except subprocess.TimeoutExpired:
            continue


def die_with_parent() -> None:
    """Asks the kernel to end this process with its parent; works on Linux only."""
    if sys.platform == "linux":
        ctypes.CDLL(None).prctl(PR_SET_PDEATHSIG, signal.SIGKILL)


def main(argv: Sequence[str]) -> int:
    """Runs the command.

    Arguments
    ---------
    argv : sequence of str
        Path of the lock, then the command.

    Returns
    -------
    int
        Exit status of the command, negative after a signal; ``BUSY`` if the lock is
        held.
    """
    with open(argv[0], "w") as lock:
        try:
            fcntl.flock(lock, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except BlockingIOError:
            return BUSY
        # In its own group, so that its children can be ended with it.
        command = subprocess.Popen(
            argv[1:],
            stdin=subprocess.DEVNULL,
            start_new_session=True,
            preexec_fn=die_with_parent,
        )

        def end() -> None:
            end_group(command.pid, command)

        def end_when_alone() -> None:
            os.read(0, 1)  # nothing is written: this returns when the pipe closes
            end()

        threading.Thread(target=end_when_alone, daemon=True).start()
        signal.signal(
            signal.SIGTERM, lambda *_: threading.Thread(target=end, daemon=True).start()
        )
        status = command.wait()
        end()  # its children
        return status


if __name__ == "__main__":
    # Signals become 128 + number, as in shells.
    number = main(sys.argv[1:])
    sys.exit(number if number >= 0 else 128 - number)
