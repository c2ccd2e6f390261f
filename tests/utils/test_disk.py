"""A full disk: the error names file, disk and size; existing files are kept."""

import errno
import os
import subprocess

import pytest
import torch

from speechbrain_ser_cl.training.checkpointer import AtomicCheckpointer
from speechbrain_ser_cl.utils.audio import write_flac
from speechbrain_ser_cl.utils.disk import DiskFullError, full_disk_told
from speechbrain_ser_cl.utils.files import replacing


@pytest.fixture
def small_disk(tmp_path):
    """A disk of 1 MB."""
    folder = tmp_path / "disk"
    folder.mkdir()
    command = ["mount", "-t", "tmpfs", "-o", "size=1m", "none", str(folder)]
    try:
        subprocess.run(command, check=True, capture_output=True)
    except (OSError, subprocess.CalledProcessError):
        pytest.skip(
            "only root may mount a small disk and fill it; the error of a full disk is "
            "also tested without one, by a simulated disk at the end of this file"
        )
    yield folder
    subprocess.run(["umount", "-l", str(folder)], check=True)


def told(folder, name):
    return rf"{folder}/{name}: no room on the disk {folder}: it needs .*MB are free"


def test_writing_to_a_full_disk(small_disk):
    path = small_disk / "a.txt"
    with (
        pytest.raises(DiskFullError, match=told(small_disk, "a.txt")),
        replacing(path) as part,
    ):
        part.write_bytes(bytes(2**21))
    # libsndfile says System error.
    noise = torch.rand(2**21) - 0.5
    with pytest.raises(DiskFullError, match=told(small_disk, "a.flac")):
        write_flac(small_disk / "a.flac", noise)
    assert list(small_disk.iterdir()) == []


def test_a_checkpoint_on_a_full_disk(small_disk):
    layer = torch.nn.Linear(300, 300)
    checkpointer = AtomicCheckpointer(small_disk / "save", {"layer": layer})
    first = checkpointer.save_checkpoint()
    (small_disk / "else").write_bytes(bytes(500_000))
    # torch names inline_container.cc.
    with pytest.raises(DiskFullError, match=told(small_disk, "save")) as error:
        checkpointer.save_checkpoint()
    assert "about 1.1 MB" in str(error.value)
    assert checkpointer.find_checkpoint().path == first.path


def test_other_errors_pass_and_a_full_disk_needs_no_root(tmp_path, monkeypatch):
    with pytest.raises(PermissionError), full_disk_told(tmp_path):
        raise PermissionError(errno.EACCES, "no")
    with pytest.raises(RuntimeError, match="System error"), full_disk_told(tmp_path):
        raise RuntimeError("System error.")  # there is room

    def full(*_):
        raise OSError(errno.ENOSPC, "No space left on device")

    monkeypatch.setattr(os, "replace", full)
    message = "a.txt: no room on the disk /.*more than"
    path = tmp_path / "a.txt"
    with pytest.raises(DiskFullError, match=message), replacing(path) as part:
        part.write_text("whole")
    assert list(tmp_path.iterdir()) == []
