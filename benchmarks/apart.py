"""One measurement in a process of its own, so that none inherits another's memory."""

import json
import os
import subprocess
import sys


def measure_apart(script, words, threads, timeout):
    """Starts a benchmark once more for one measurement.

    Arguments
    ---------
    script : str
        The benchmark; the last line that it prints is the result, as JSON.
    words : list of str
        Its arguments.
    threads : int
        That it computes with.
    timeout : float
        Seconds after which it is stopped.

    Returns
    -------
    dict
        The result, or why there is none, under ``failed``.
    """
    variables = dict.fromkeys(("OMP_NUM_THREADS", "MKL_NUM_THREADS"), str(threads))
    try:
        done = subprocess.run(
            [sys.executable, script, *words],
            capture_output=True,
            text=True,
            env=os.environ | variables,
            timeout=timeout,
        )
    except subprocess.TimeoutExpired:
        return {"failed": f"took more than {timeout} s"}
    if done.returncode:
        lines = done.stderr.strip().splitlines()
        return {"failed": lines[-1] if lines else f"exit status {done.returncode}"}
    return json.loads(done.stdout.splitlines()[-1])
