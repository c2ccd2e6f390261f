"""Measured files: results of many runs, compact and unchanged."""

import json
import lzma

import numpy as np
import pytest

from speechbrain_ser_cl.results.crossval import CrossValidation, Outcome
from speechbrain_ser_cl.results.measured import (
    add_measured,
    find_records,
    measured_records,
    read_measured,
    write_measured,
)
from speechbrain_ser_cl.results.tables import build_crossval_table, collect_crossvals


def test_values_and_their_order_are_unchanged(tmp_path):
    found = [0, 1, 1.0, True, None, 0.1 + 0.2, "ü", [[0, 2], [0, 0]], {}, []]
    records = {
        "b/alignment.json": {"z": found, "a": {"": found}},
        "a/alignment.json": {"z": found},
    }
    path = tmp_path / "t.json.xz"
    write_measured(path, records)
    assert json.dumps(read_measured(path), sort_keys=True) == json.dumps(
        records, sort_keys=True
    )
    assert list(read_measured(path)["b/alignment.json"]) == ["z", "a"]
    before = path.read_bytes()
    write_measured(path, records)
    assert path.read_bytes() == before


def settings():
    """Makes two settings on the same folds and speakers."""
    rng = np.random.default_rng(0)
    return [
        CrossValidation(
            {"setting": name, "order": order, "encoder": "tiny", "demo": False},
            {"kind": "speaker_kfold", "n_folds": 5, "valid": "next"},
            ["sad", "happy", "angry"],
            [
                Outcome(
                    k,
                    seed,
                    f"split {k}",
                    {"toy": {f"s{k}{i}": rng.integers(0, 9, (3, 3)) for i in range(2)}},
                    {"valid.uar": rng.random(), "training_seconds": 2.0},
                )
                for k in range(5)
                for seed in (0, 1)
            ],
            {"runs": 10, "machines": [{"processor": "CPU", "cores": 4, "threads": 2}]},
        )
        for order, name in enumerate(("one", "other"))
    ]


def test_the_table_is_unchanged_with_a_third_of_the_bytes(tmp_path):
    for one in settings():
        one.write(tmp_path / "runs" / one.about["setting"] / "crossval.json")
    found = list(find_records(tmp_path / "runs", "crossval.json"))
    file = tmp_path / "kept" / "table.json.xz"
    for path, record in found:  # one after another, as commands do
        add_measured(file, {path.relative_to(tmp_path).as_posix(): record})
    add_measured(file, {"runs/one/crossval.json": found[0][1]})  # replaced
    for place in (file, file.parent):
        table = build_crossval_table(collect_crossvals([place]))
        assert table == build_crossval_table(collect_crossvals([tmp_path / "runs"]))
    size = sum(path.stat().st_size for path, _ in found)
    assert file.stat().st_size < size / 3
    (one, _) = collect_crossvals([file])
    assert one.values("toy", "valid.uar") == settings()[0].values("toy", "valid.uar")


WHOLE = lzma.compress(b'{"measured": 2, "records": {}}')


@pytest.mark.parametrize(
    ("contents", "told"),
    [
        (b'{"measured": 2, "records": {}}', "not supported"),
        (WHOLE[:-9], "cut off"),
        (lzma.compress(b'{"measured": 1, "records": {}}'), "measured is 1"),
        (
            lzma.compress(b'{"measured": 2, "records": {"a": 1}}'),
            r"records\.a is 1",
        ),
    ],
    ids=["plain text", "cut off", "another version", "a number"],
)
def test_a_damaged_file_is_named(contents, told, tmp_path):
    assert lzma.decompress(WHOLE)
    (tmp_path / "table.json.xz").write_bytes(contents)
    with pytest.raises(ValueError, match=rf"table\.json\.xz: .*{told}"):
        list(find_records(tmp_path, "results.json"))


def test_other_records_are_refused(tmp_path):
    with pytest.raises(ValueError, match=r"history\.json: expected one of results"):
        write_measured(tmp_path / "t.json.xz", {"a/history.json": {}})
    assert not list(tmp_path.iterdir())


def test_two_files_with_the_same_record_are_named(tmp_path):
    records = {"a/alignment.json": {}, "b/alignment.json": {}}
    write_measured(tmp_path / "one.json.xz", records)
    write_measured(tmp_path / "two.json.xz", {"b/alignment.json": {"z": 1}})
    with pytest.raises(ValueError, match=r"one\.json\.xz and .*two\.json\.xz .* b/al"):
        measured_records(tmp_path)
    assert measured_records(tmp_path / "one.json.xz") == records
