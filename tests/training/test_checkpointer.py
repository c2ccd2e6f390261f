"""Checkpoints stay valid after a kill in the middle of a save."""

import time

import pytest
import torch
from speechbrain.utils.checkpoints import Checkpointer

from speechbrain_ser_cl.training import AtomicCheckpointer
from speechbrain_ser_cl.utils.errors import FileError
from tests.processes import Process

KIND = AtomicCheckpointer.__name__

# Saves 1, then 2, but stops after the first of two files.
SAVE_AND_HANG = """
import sys, time
from pathlib import Path
from threading import Thread

import torch
from speechbrain.utils.checkpoints import Checkpointer
from speechbrain_ser_cl.training import AtomicCheckpointer
from speechbrain_ser_cl.utils.errors import FileError


def save(kind, folder):
    def hang(obj, path):
        (folder / "hangs").touch()
        time.sleep(1000)

    modules = {name: torch.nn.Linear(1, 1) for name in ("first", "second")}
    checkpointer = kind(folder / "save", modules)
    for value in (1.0, 2.0):
        for module in modules.values():
            torch.nn.init.constant_(module.weight, value)
        if value == 2:
            checkpointer.custom_save_hooks["second"] = hang
        checkpointer.save_checkpoint(meta={"value": value})


folder = Path(sys.argv[1])
for kind in (Checkpointer, AtomicCheckpointer):
    own = folder / kind.__name__
    own.mkdir()
    Thread(target=save, args=(kind, own)).start()
"""


@pytest.fixture(scope="module")
def killed(tmp_path_factory):
    """Returns folders of both checkpointers after a kill -9 in the middle of a save."""
    folder = tmp_path_factory.mktemp("killed")
    script = folder / "save_and_hang.py"
    script.write_text(SAVE_AND_HANG)
    process = Process([script, folder])
    try:
        hanging = [folder / kind / "hangs" for kind in ("Checkpointer", KIND)]
        deadline = time.monotonic() + 240
        while not all(path.exists() for path in hanging):
            assert process.poll() is None, "the saving process ended by itself"
            assert time.monotonic() < deadline, "the saving process does not save"
            time.sleep(0.05)
    finally:
        process.kill()  # SIGKILL
        process.wait()
    return folder


def linears():
    return {name: torch.nn.Linear(1, 1) for name in ("first", "second")}


def test_speechbrains_checkpointer_fails_after_the_kill(killed):
    checkpointer = Checkpointer(killed / "Checkpointer" / "save", linears())
    with pytest.raises((KeyError, RuntimeError), match="second"):
        checkpointer.recover_if_possible()


def test_after_the_kill_the_last_whole_checkpoint_is_loaded(killed):
    folder = killed / KIND / "save"
    modules = linears()
    checkpointer = AtomicCheckpointer(folder, modules)
    leftover = [path for path in folder.iterdir() if path.name.startswith("unfini")]
    assert len(leftover) == 1
    assert (leftover[0] / "first.ckpt").exists()

    found = checkpointer.recover_if_possible()
    assert found.meta["value"] == 1.0
    assert all(module.weight.item() == 1.0 for module in modules.values())

    checkpointer.save_and_keep_only(meta={"value": 3.0})
    (only,) = folder.iterdir()
    assert only.name.startswith("CKPT")
    assert AtomicCheckpointer(folder, linears()).find_checkpoint().meta["value"] == 3


def test_what_save_checkpoint_returns_can_be_loaded(tmp_path):
    modules = linears()
    checkpointer = AtomicCheckpointer(tmp_path, modules)
    saved = checkpointer.save_checkpoint(meta={"uar": 0.5}, end_of_epoch=False)
    assert saved.meta["uar"] == 0.5
    assert saved.meta["end-of-epoch"] is False
    assert saved == checkpointer.find_checkpoint()
    expected = modules["first"].weight.item()
    torch.nn.init.zeros_(modules["first"].weight)
    checkpointer.load_checkpoint(saved)
    assert modules["first"].weight.item() == expected


def test_the_best_and_the_last_are_kept_and_a_tie_goes_to_the_later(tmp_path):
    checkpointer = AtomicCheckpointer(tmp_path, linears())
    for epoch, score in enumerate((0.5, 0.7, 0.7, 0.6), start=1):
        checkpointer.save_and_keep_only(
            meta={"score": score, "epoch": epoch}, max_keys=["score"]
        )
    kept = {c.meta["epoch"] for c in checkpointer.list_checkpoints()}
    assert kept == {3, 4}
    assert checkpointer.find_checkpoint(max_key="score").meta["epoch"] == 3
    assert checkpointer.find_checkpoint().meta["epoch"] == 4


def test_a_name_can_be_used_again(tmp_path):
    checkpointer = AtomicCheckpointer(tmp_path, linears())
    for value in (1, 2):
        saved = checkpointer.save_checkpoint(meta={"value": value}, name="mine")
        assert saved.path.name == "CKPT+mine"
    (only,) = checkpointer.list_checkpoints()
    assert only.meta["value"] == 2


def test_the_log_names_the_folder_that_is_there(tmp_path, caplog):
    with caplog.at_level("INFO"):
        saved = AtomicCheckpointer(tmp_path, linears()).save_checkpoint()
    assert str(saved.path) in caplog.text
    assert "unfinished" not in caplog.text


def test_the_cost_of_a_save_does_not_grow(tmp_path, monkeypatch):
    checkpointer = AtomicCheckpointer(tmp_path, linears())
    listings = []
    listed = checkpointer.list_checkpoints
    monkeypatch.setattr(
        checkpointer, "list_checkpoints", lambda: listings.append(1) or listed()
    )
    counts = []
    for _ in range(5):
        listings.clear()
        checkpointer.save_and_keep_only()
        counts.append(len(listings))
    assert len(set(counts)) == 1


@pytest.mark.parametrize("size", [0, 1, 100, -1])
def test_a_file_that_is_cut_off_is_named(tmp_path, size):
    checkpointer = AtomicCheckpointer(tmp_path, linears())
    path = checkpointer.save_checkpoint().paramfiles["first"]
    path.write_bytes(path.read_bytes()[:size])
    with pytest.raises(ValueError, match="first.ckpt: cannot be loaded .*delete the"):
        checkpointer.recover_if_possible()
    assert not checkpointer.custom_load_hooks


def test_a_clock_that_is_set_back_does_not_change_the_newest_checkpoint(
    tmp_path, monkeypatch
):
    checkpointer = AtomicCheckpointer(tmp_path, linears())
    monkeypatch.setattr(time, "time", lambda: 2e9)
    checkpointer.save_and_keep_only(meta={"epoch": 1})
    monkeypatch.setattr(time, "time", lambda: 1e9)
    for epoch in (2, 3):
        checkpointer.save_and_keep_only(meta={"epoch": epoch})
        assert checkpointer.find_checkpoint().meta["epoch"] == epoch
        assert len(checkpointer.list_checkpoints()) == 1


@pytest.mark.parametrize(
    "content",
    [
        *(
            b"",
            b"epoch: 3\n",
            b"- 1\n",
            b"unixtime: soon\n",
            b"a: [1\n",
            b"\xff\xfe\x00",
        ),
        b"a: !!python/object/apply:os.system ['touch ran']\nunixtime: 1\n",
        b"a: " + b"[" * 5000,
        b"a: &a [x, x]\n" + b"".join(b"%d: &%d [*a, *a]\n" % (k, k) for k in range(9)),
    ],
)
def test_a_damaged_description_is_named(tmp_path, content, monkeypatch):
    monkeypatch.chdir(tmp_path)
    checkpointer = AtomicCheckpointer(tmp_path / "save", linears())
    saved = checkpointer.save_checkpoint()
    (saved.path / "CKPT.yaml").write_bytes(content)
    for use in (checkpointer.recover_if_possible, checkpointer.save_checkpoint):
        with pytest.raises(FileError, match=r"CKPT.yaml: not the .*delete the folder"):
            use()
    assert not (tmp_path / "ran").exists()
