"""The feature cache, with a real (small, random) encoder and real kills."""

import dataclasses
import json
import os
import pickle
import shutil
import signal
import textwrap
import time
from collections import namedtuple
from pathlib import Path

import numpy as np
import pytest
import soundfile
import torch
from filelock import FileLock
from safetensors import safe_open
from torch.utils.data import DataLoader

from speechbrain_ser_cl.backbones import WeightedSSL
from speechbrain_ser_cl.corpora import read_synthetic, write_synthetic
from speechbrain_ser_cl.data.features import pack as feature_pack
from speechbrain_ser_cl.data.features.cache import FeatureCache, weights_hash
from speechbrain_ser_cl.utils.audio import AudioError, load_audio
from tests.processes import Process, run

CONFIG = {
    "model_type": "whisper",
    "d_model": 16,
    "encoder_layers": 2,
    "encoder_attention_heads": 2,
    "encoder_ffn_dim": 32,
}
# Code that a process needs to fill the same cache.
SCRIPT = f"""
import pathlib, sys, time, torch
from speechbrain_ser_cl.backbones import WeightedSSL
from speechbrain_ser_cl.corpora import read_synthetic
from speechbrain_ser_cl.data.features.cache import FeatureCache
torch.manual_seed(0)
backbone = WeightedSSL({CONFIG!r}, freeze="all")
def extract(wav):
    return torch.cat(list(backbone.hidden_states(wav[None])))
calls = 0
def three_and_then_wait(wav):
    global calls
    calls += 1
    while calls > 3 and not pathlib.Path(sys.argv[3]).exists():
        time.sleep(0.02)
    return extract(wav)
if __name__ == "__main__":
    utterances = read_synthetic(sys.argv[1])
    cache = FeatureCache(sys.argv[2], {{"model": "test"}})
"""


class Extract:
    """Computes all layers of an encoder; counts its calls."""

    def __init__(self):
        torch.manual_seed(0)
        self.backbone = WeightedSSL(CONFIG, freeze="all")
        self.calls = 0

    def __call__(self, wav):
        self.calls += 1
        return torch.cat(list(self.backbone.hidden_states(wav[None])))


@pytest.fixture(scope="module")
def corpus(tmp_path_factory):
    return write_synthetic(
        tmp_path_factory.mktemp("corpus"),
        "synthetic_source",
        n_speakers=2,
        utterances_per_speaker=8,
    )


@pytest.fixture
def utterances(corpus):
    return read_synthetic(corpus)


@pytest.fixture
def extract():
    return Extract()


@pytest.fixture
def new_cache(tmp_path):
    """Opens the cache as a new run would."""
    return lambda key="test", **options: FeatureCache(
        tmp_path / "cache", {"model": key}, **options
    )


def assert_right(cache, utterances, extract):
    for u in utterances:
        expected = extract(load_audio(u.path)).half()
        assert torch.equal(cache[u.id], expected)


def packs(cache):
    return sorted(cache.folder.glob("*.safetensors"))


def in_place(path, change):
    """Overwrites a file (not its copies) with the result of ``change`` on its bytes."""
    data = bytearray(path.read_bytes())
    data = change(data) or data
    path.write_bytes(data)


# What is computed, and what is read


def test_features_are_those_of_the_model_without_padding(
    new_cache, utterances, extract
):
    cache = new_cache()
    assert cache.fill(utterances, extract) == len(utterances) == extract.calls
    assert len({cache[u.id].shape for u in utterances}) > 1
    assert_right(cache, utterances, extract)
    assert utterances[0].id in cache
    assert len(cache) == len(list(cache)) == len(utterances)
    with pytest.raises(KeyError, match="not in the feature cache"):
        cache["unknown"]


def test_safetensors_reads_them_without_this_package(new_cache, utterances, extract):
    cache = new_cache(dtype="bfloat16")
    cache.fill(utterances, extract)
    read = {}
    for path in packs(cache):
        with safe_open(path, "pt") as file:
            names = file.keys()  # it has no __iter__
            read |= {name: file.get_tensor(name) for name in names}
    assert read.keys() == {u.id for u in utterances}
    for name, tensor in read.items():
        assert tensor.dtype == torch.bfloat16
        assert torch.equal(tensor, cache[name])
    assert json.loads((cache.folder / "about.json").read_text()) == {
        "model": "test",
        "dtype": "bfloat16",
    }


def test_a_batch_is_padded_with_zeros(new_cache, utterances, extract):
    cache = new_cache()
    cache.fill(utterances, extract)
    ids = [u.id for u in utterances[:5]]
    batch, lengths = cache.batch(ids)
    longest = max(cache[i].shape[1] for i in ids)
    assert batch.shape == (5, 3, longest, 16)
    for row, length, i in zip(batch, lengths, ids, strict=True):
        n = round(float(length) * longest)
        assert torch.equal(row[:, :n], cache[i])
        assert not row[:, n:].any()


def test_a_batch_in_memory_that_is_used_again(new_cache, utterances, extract):
    cache = new_cache()
    cache.fill(utterances, extract)
    ids = [u.id for u in utterances]
    expected, lengths = cache.batch(ids)
    out = torch.full((expected.numel() + 7,), torch.nan, dtype=torch.float16)
    for _ in range(2):  # previous contents of the memory are not visible
        batch, found = cache.batch(ids, out)
        assert batch.data_ptr() == out.data_ptr()
        assert torch.equal(batch, expected)
        assert torch.equal(found, lengths)
    same, _ = cache.batch(ids[:1] * 3, out)
    assert torch.equal(same, cache[ids[0]].expand_as(same))
    for wrong in (out[: expected.numel() - 1], out.float(), out[None]):
        with pytest.raises(ValueError, match=f"flat.*{expected.numel()} elements"):
            cache.batch(ids, wrong)


def test_writing_into_a_feature_changes_no_file(new_cache, utterances, extract):
    cache = new_cache()
    cache.fill(utterances, extract)
    cache[utterances[0].id].zero_()
    again = new_cache()
    assert again.fill(utterances, None) == 0
    assert again[utterances[0].id].any()


def test_loader_workers_read_it(new_cache, utterances, extract):
    cache = new_cache()
    cache.fill(utterances, extract)
    ids = [u.id for u in utterances]
    loader = DataLoader(ids, batch_size=4, num_workers=2, collate_fn=cache.batch)
    for k, (batch, lengths) in enumerate(loader):
        expected = cache.batch(ids[4 * k : 4 * k + 4])
        assert torch.equal(batch, expected[0])
        assert torch.equal(lengths, expected[1])


def test_a_pickled_cache_is_a_path_and_a_feature_no_more_than_itself(
    new_cache, utterances, extract
):
    cache = new_cache()
    cache.fill(utterances, extract)
    feature = cache[utterances[0].id]  # has the file mapped
    assert feature.untyped_storage().nbytes() == feature.nbytes
    pickled = pickle.dumps(cache)
    assert len(pickled) < sum(cache[u.id].nbytes for u in utterances) / 10
    assert_right(pickle.loads(pickled), utterances, extract)


@pytest.mark.parametrize(("limit", "value"), [("BYTES", 9000), ("TENSORS", 3)])
def test_a_file_that_is_large_enough_is_followed_by_another(
    limit, value, new_cache, utterances, extract, monkeypatch
):
    monkeypatch.setattr(feature_pack, f"_MAX_{limit}", value)
    cache = new_cache()
    cache.fill(utterances, extract)
    assert len(packs(cache)) > 5
    assert new_cache().fill(utterances, None) == 0
    assert_right(cache, utterances, extract)


# What is computed again


def test_only_a_change_of_key_or_audio_computes_anew(
    new_cache, corpus, tmp_path, extract
):
    copy = shutil.copytree(corpus, tmp_path / "copy")
    utterances = read_synthetic(copy)
    new_cache().fill(utterances, extract)
    first = packs(new_cache())[0].read_bytes()
    extract.calls = 0

    # another path, time, name or speaker: the same audio
    moved = shutil.copytree(copy, tmp_path / "moved")
    for path in moved.rglob("*.wav"):
        os.utime(path, (0, 0))
    renamed = [
        dataclasses.replace(u, id=f"new {u.id}", speaker="other")
        for u in read_synthetic(moved)
    ]
    cache = new_cache()
    cache.fill(renamed, extract)
    assert extract.calls == 0
    assert_right(cache, renamed, Extract())

    # one sample of one utterance; length, size and time are equal
    path = utterances[3].path
    stat = path.stat()
    in_place(path, lambda data: data.__setitem__(-1, data[-1] ^ 1))
    os.utime(path, ns=(stat.st_atime_ns, stat.st_mtime_ns))
    cache = new_cache()
    assert cache.fill(utterances, extract) == extract.calls == 1
    assert_right(cache, utterances, Extract())
    assert first in [path.read_bytes() for path in packs(cache)]

    assert new_cache("other").fill(utterances, extract) == len(utterances)
    assert new_cache(dtype="float32").fill(utterances, extract) == len(utterances)
    assert new_cache().fill(utterances, None) == 0


def test_more_utterances_compute_only_the_new_ones(new_cache, utterances, extract):
    new_cache().fill(utterances[:6], extract)
    cache = new_cache()
    assert cache.fill(utterances, extract) == len(utterances) - 6
    assert extract.calls == len(utterances)
    assert_right(cache, utterances, extract)


def test_equal_audio_is_computed_once(new_cache, utterances, extract):
    twin = dataclasses.replace(utterances[0], id="twin")
    cache = new_cache()
    assert cache.fill([*utterances, twin], extract) == len(utterances)
    assert torch.equal(cache["twin"], cache[utterances[0].id])


def test_weights_hash_tells_weights_apart():
    a = torch.nn.Linear(3, 2)
    same = {name: p.detach().clone() for name, p in reversed(a.state_dict().items())}
    assert weights_hash(a) == weights_hash(same)
    changed = {name: p.clone() for name, p in same.items()}
    changed["weight"][1, 2] = changed["weight"][1, 2].nextafter(torch.tensor(9.0))
    assert weights_hash(changed) != weights_hash(a)
    assert weights_hash({"w": torch.zeros(2, 3)}) != weights_hash(
        {"w": torch.zeros(3, 2)}
    )
    assert weights_hash({"w": torch.zeros(2)}) != weights_hash({"v": torch.zeros(2)})
    bits = {"w": torch.zeros(2, dtype=torch.bfloat16)}
    assert weights_hash(bits) != weights_hash({"w": bits["w"].half()})


# Ids


@pytest.mark.parametrize("name", ["../outside", "/abs", "a/b", "", "ü 😀\n", "a" * 300])
def test_ids_cannot_leave_the_folder(name, new_cache, utterances, extract, tmp_path):
    named = [dataclasses.replace(u, id=f"{name}{k}") for k, u in enumerate(utterances)]
    before = set(tmp_path.parent.rglob("*"))
    cache = new_cache()
    cache.fill(named, extract)
    assert_right(cache, named, extract)
    for path in set(tmp_path.parent.rglob("*")) - before:
        assert path == tmp_path / "cache" or tmp_path / "cache" in path.parents
    with safe_open(packs(cache)[0], "pt") as file:
        assert set(file.keys()) <= {u.id for u in named}


@pytest.mark.parametrize("name", ["__metadata__", "format", "key"])
def test_ids_that_a_file_cannot_have(name, new_cache, utterances, extract):
    named = [dataclasses.replace(utterances[0], id=name)]
    with pytest.raises(ValueError, match=f"cannot have the id '{name}'"):
        new_cache().fill(named, extract)


def test_two_utterances_of_one_id(new_cache, utterances, extract):
    one, other = utterances[:2]
    assert new_cache().fill([one, one], extract) == 1
    with pytest.raises(ValueError, match="more than once"):
        new_cache().fill([one, dataclasses.replace(other, id=one.id)], extract)


# Damage


def flip_a_bit(data):
    data[-100] ^= 1


DAMAGES = {
    "a bit flipped": flip_a_bit,
    "cut off by a byte": lambda data: data[:-1],
    "cut off in the middle": lambda data: data[: len(data) * 2 // 3],
    "longer": lambda data: data + b"\0",
    "cut off in the header": lambda data: data[:1000],
    "empty": lambda data: bytearray(),
    "another safetensors file": None,
    "no safetensors file": lambda data: bytearray(b"\xff" * 5000),
    "a listing of something": lambda data: bytearray(b"hello"),
    "of another key": None,
}


@pytest.mark.parametrize("damage", DAMAGES)
def test_damaged_features_are_named_and_computed_again(
    damage, new_cache, utterances, extract, caplog, tmp_path
):
    cache = new_cache()
    cache.fill(utterances, extract)
    path = max(packs(cache), key=lambda path: path.stat().st_size)
    if damage == "another safetensors file":
        from safetensors.torch import save_file

        save_file({utterances[0].id: torch.zeros(3, 5, 16)}, path)
    elif damage == "of another key":
        other = new_cache("other")
        other.fill(utterances, lambda wav: extract(wav) + 1)
        shutil.copy(max(packs(other), key=lambda p: p.stat().st_size), path)
    else:
        data = bytearray(path.read_bytes())
        changed = DAMAGES[damage](data)
        path.write_bytes(data if changed is None else changed)

    extract.calls = 0
    again = new_cache()
    again.fill(utterances, extract)
    computed = extract.calls
    assert computed <= len(utterances)
    assert caplog.text.count(path.name) == 1
    assert_right(again, utterances, extract)
    if damage in ("a bit flipped", "cut off by a byte"):
        assert computed == 1
        assert "1 of its" in caplog.text
    elif damage == "longer":
        assert computed == 0
    else:
        assert computed > 1
    third = new_cache()
    assert third.fill(utterances, None) == 0
    assert_right(third, utterances, extract)


# Errors


@pytest.mark.parametrize("value", [float("nan"), float("inf")])
def test_features_that_are_not_finite(value, new_cache, utterances):
    with pytest.raises(ValueError, match=rf"{utterances[0].id}.*not finite"):
        new_cache().fill(utterances[:1], lambda wav: wav[:9] + value)


def test_features_that_do_not_fit(new_cache, utterances):
    def large(wav):
        return torch.full((2, 3), 1e5)

    with pytest.raises(ValueError, match="up to 100000 do not fit.*bfloat16"):
        new_cache().fill(utterances, large)
    new_cache(dtype="bfloat16").fill(utterances, large)


def test_empty_features(new_cache, utterances):
    with pytest.raises(ValueError, match="are empty"):
        new_cache().fill(utterances, lambda wav: wav[:0])


def test_errors_of_arguments(new_cache, utterances, tmp_path):
    with pytest.raises(ValueError, match="dtype is 'int8', expected one of float16"):
        new_cache(dtype="int8")
    with pytest.raises(ValueError, match="plain JSON"):
        FeatureCache(tmp_path, {"model": torch.zeros(1)})
    gone = dataclasses.replace(utterances[0], path=tmp_path / "gone.wav")
    with pytest.raises(AudioError, match="gone.wav"):
        new_cache().fill([gone], None)


def test_an_error_loses_nothing_that_was_computed(new_cache, utterances, extract):
    bad = utterances[5]

    def failing(wav):
        if torch.equal(wav, load_audio(bad.path)):
            raise RuntimeError("this one does not work")
        return extract(wav)

    with pytest.raises(RuntimeError, match="does not work"):
        new_cache().fill(utterances, failing)
    before = extract.calls
    assert before > 0
    new_cache().fill(utterances, extract)
    assert extract.calls == len(utterances)


def test_size_is_estimated_and_the_disk_checked(
    new_cache, utterances, extract, capsys, monkeypatch
):
    cache = new_cache()
    usage = namedtuple("usage", "total used free")
    monkeypatch.setattr(shutil, "disk_usage", lambda path: usage(0, 0, 5000))
    with pytest.raises(OSError, match="need about .* and 5 kB are free. Make room"):
        cache.fill(utterances, extract)
    assert extract.calls == 2
    shown = capsys.readouterr().err
    monkeypatch.undo()
    cache.fill(utterances, extract)
    actual = sum(cache[u.id].nbytes for u in utterances)
    number, unit = shown.split("about ")[1].split(" and ")[0].split()
    assert unit == "kB"
    assert float(number) * 1000 == pytest.approx(actual, rel=0.05)
    assert f"{len(utterances)} utterances" in shown


# Kills and processes


def environment():
    root = str(Path(__file__).resolve().parents[2])
    return os.environ | {"PYTHONPATH": root, "OMP_NUM_THREADS": "1"}


def start(script, code, *arguments):
    script.write_text(SCRIPT + textwrap.indent(textwrap.dedent(code), "    "))
    return Process([script, *arguments], env=environment())


def in_journals(cache):
    """Counts the utterances in unfinished files, without a journal's first line."""
    lines = [p.read_text().count("\n") for p in cache.folder.glob("*.journal")]
    return sum(max(0, count - 1) for count in lines)


def children(process):
    tasks = Path(f"/proc/{process.pid}/task/{process.pid}/children")
    return [int(pid) for pid in tasks.read_text().split()]


def test_a_killed_run_continues_at_the_utterance(
    new_cache, corpus, utterances, extract, tmp_path
):
    """Kills the run, and one of the two processes that it started."""
    cache = new_cache()
    process = start(
        tmp_path / "fill.py",
        "cache.fill(utterances, three_and_then_wait, processes=2)",
        corpus,
        tmp_path / "cache",
        tmp_path / "go on",
    )
    try:
        deadline = time.monotonic() + 300
        while in_journals(cache) < 6:
            assert process.poll() is None, process.communicate()[1]
            assert time.monotonic() < deadline
            time.sleep(0.01)
        # Stopped, so that it does nothing between the two kills: its own end would
        # interrupt the other processes, which would then finish their files.
        process.send_signal(signal.SIGSTOP)
        os.kill(children(process)[-1], signal.SIGKILL)
    finally:
        process.send_signal(signal.SIGKILL)
    process.wait()
    # The other process notices this and releases its file.
    (tmp_path / "go on").touch()
    for lock in list(cache.folder.glob("*.lock")):
        with FileLock(lock):  # which creates the file if it no longer exists
            lock.unlink()
    finished = sum(len(feature_pack.Pack(path).entries) for path in packs(cache))
    there = finished + in_journals(cache)
    (journal,) = cache.folder.glob("*.journal")
    with journal.open("a") as file:
        file.write('["half a li')  # as if it was killed while writing

    cache.fill(utterances, extract)
    # Two for the estimate, three of the killed process, and three or four of the other:
    # on Linux it is interrupted, unless it ignores that.
    assert there in (8, 9)
    assert extract.calls == len(utterances) - there
    assert_right(cache, utterances, extract)
    left = {path.suffix for path in cache.folder.iterdir()}
    assert left == {".safetensors", ".json", ""}


@pytest.mark.parametrize("stage", ["header written", "renamed"])
def test_a_kill_while_a_pack_is_finished(stage, new_cache, utterances, extract):
    """Files as at these moments, made from those of a complete run."""
    cache = new_cache()
    seen = {}
    original = os.replace

    def keep(source, target):
        if str(source).endswith(".part") and str(target).endswith(".safetensors"):
            journal = Path(source).with_suffix(".journal")
            seen[Path(source)] = Path(source).read_bytes()
            seen[journal] = journal.read_bytes()
        original(source, target)

    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(feature_pack.os, "replace", keep)
        cache.fill(utterances, extract)
    for path, data in seen.items():
        if stage == "header written":
            path.with_suffix(".safetensors").unlink(missing_ok=True)
            path.write_bytes(data)
        elif path.suffix == ".journal":
            path.write_bytes(data)
    assert new_cache().fill(utterances, None) == 0
    assert not list(cache.folder.glob("*.journal"))
    assert not list(cache.folder.glob("*.part"))


def test_ranks_share_the_work_and_runs_wait_for_each_other(
    new_cache, corpus, utterances, extract, tmp_path
):
    code = """
    rank = int(sys.argv[3])
    torch.distributed.init_process_group(
        "gloo", init_method="file://" + sys.argv[4], rank=rank, world_size=2
    )
    computed = cache.fill(utterances, extract)
    total = sum(float(cache[u.id].double().sum()) for u in utterances)
    torch.distributed.destroy_process_group()
    # From here on they are two runs that know nothing of each other.
    other = FeatureCache(sys.argv[2], {"model": "other"})
    print(computed, total, other.fill(utterances, extract))
    """
    ranks = [
        start(
            tmp_path / f"rank{rank}.py",
            code,
            corpus,
            tmp_path / "cache",
            rank,
            tmp_path / "store",
        )
        for rank in range(2)
    ]
    outputs = [process.communicate() for process in ranks]
    assert [process.returncode for process in ranks] == [0, 0], outputs
    a, b = (out.split() for out, _ in outputs)
    assert int(a[0]) + int(b[0]) == len(utterances)
    assert min(int(a[0]), int(b[0])) >= len(utterances) // 2 - 2
    assert a[1] == b[1]
    assert sorted([int(a[2]), int(b[2])]) == [0, len(utterances)]
    for key in ("test", "other"):
        cache = new_cache(key)
        assert cache.fill(utterances, None) == 0
        assert_right(cache, utterances, extract)


def test_a_script_that_cannot_be_imported_is_reported_so(corpus, tmp_path):
    script = tmp_path / "script.py"
    script.write_text(
        "import sys\n"
        "from speechbrain_ser_cl.corpora import read_synthetic\n"
        "from speechbrain_ser_cl.data.features.cache import FeatureCache\n"
        "def extract(wav):\n"
        "    return wav[:100]\n"
        "cache = FeatureCache(sys.argv[2], {})\n"
        "cache.fill(read_synthetic(sys.argv[1]), extract, processes=2)\n"
    )
    done = run([script, corpus, tmp_path / "cache"], env=environment())
    assert done.returncode != 0
    assert 'put what it does under `if __name__ == "__main__":`' in done.stderr


def test_spectrograms_and_other_features(new_cache, tmp_path, utterances):
    """Any function of a waveform; the read values equal numpy's."""

    def energies(wav):
        return wav[: len(wav) // 400 * 400].view(-1, 400).square().sum(1, keepdim=True)

    cache = new_cache(dtype="float32")
    cache.fill(utterances, energies)
    for u in utterances:
        wav = soundfile.read(u.path, dtype="float32")[0]
        frames = wav[: len(wav) // 400 * 400].reshape(-1, 400)
        expected = np.square(frames).sum(1, keepdims=True)
        np.testing.assert_allclose(cache[u.id].numpy(), expected, rtol=1e-5)


def test_features_can_be_made_of_the_features_of_another_cache(
    new_cache, utterances, extract
):
    first = new_cache("first")
    first.fill(utterances, extract)
    second = new_cache("second")
    second.fill(utterances, lambda layers: layers.mean(0), read=lambda u: first[u.id])
    for utterance in utterances:
        expected = first[utterance.id].mean(0)
        assert torch.equal(second[utterance.id], expected)
