"""Runs a command and ends it, with all its children, when standard input closes.

``python supervisor.py LOCK COMMAND …``: whoever starts this holds the other end of its
standard input. Should that process end, in whatever way, the system closes it, and the
command does not stay behind. ``LOCK`` is held meanwhile, so that nobody runs the same
command beside it. Nothing but Python's standard library is imported: a supervisor
stands beside each training process.
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
PR_SET_PDEATHSIG = 1  # of linux/prctl.h
GRACE = 5.0  # seconds between asking to end and ending


def end_group(group: int, wait_for_leader: subprocess.Popen[bytes]) -> None:
    """Ask a process group to end, and end it if it does not.

    Arguments
    ---------
    group : int
        Its number.
    wait_for_leader : subprocess.Popen
        Its first process, which is given time to end by itself.
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
    """Ask the kernel to end this process when its parent ends, even by a kill -9.

    Linux alone can do that; elsewhere a supervisor that is killed itself leaves its
    command running.
    """
    if sys.platform == "linux":
        ctypes.CDLL(None).prctl(PR_SET_PDEATHSIG, signal.SIGKILL)


def main(argv: Sequence[str]) -> int:
    """Run the command.

    Arguments
    ---------
    argv : sequence of str
        The lock's path, then the command.

    Returns
    -------
    int
        The command's exit status, negative after a signal; ``BUSY`` if the lock is
        taken.
    """
    with open(argv[0], "w") as lock:
        try:
            fcntl.flock(lock, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except BlockingIOError:
            return BUSY
        # A group of its own, so that its children can be ended with it.
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
