"""Only one process at a time uses a folder."""

import signal
import subprocess
import sys

import pytest

from speechbrain_ser_cl.utils.files import hold_folder

HOLD = """
import sys, time
from speechbrain_ser_cl.utils.files import hold_folder
hold_folder(sys.argv[1])
print("held", flush=True)
time.sleep(600)
"""


def test_a_folder_is_free_again_when_its_process_is_killed(tmp_path):
    other = subprocess.Popen(
        [sys.executable, "-c", HOLD, str(tmp_path)], stdout=subprocess.PIPE, text=True
    )
    try:
        assert other.stdout.readline() == "held\n"
        with pytest.raises(ValueError, match=f"process {other.pid} is running in"):
            hold_folder(tmp_path)
    finally:
        other.send_signal(signal.SIGKILL)
        other.communicate()
    hold_folder(tmp_path)
    hold_folder(tmp_path)  # its own
