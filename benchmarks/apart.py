"""Runs one measurement in its own process, so that memory use is not inherited."""

import json
import os
import subprocess
import sys


def measure_apart(script, words, threads, timeout):
    """Starts a benchmark again for one measurement.

    Arguments
    ---------
    script : str
        Benchmark whose last printed line is the result as JSON.
    words : list of str
        Arguments.
    threads : int
        Number of threads.
    timeout : float
        Time limit in seconds.

    Returns
    -------
    dict
        Result, or the reason for none under ``failed``.
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
