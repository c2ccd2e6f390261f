"""Measured files: results of many runs, compact and unchanged."""

import json
import random

import numpy as np
import pytest

from speechbrain_ser_cl.results.crossval import CrossValidation, Outcome
from speechbrain_ser_cl.results.measured import (
    add_measured,
    find_records,
    read_measured,
    write_measured,
)
from speechbrain_ser_cl.results.tables import build_crossval_table, collect_crossvals


def anything(draw, depth=0):
    """Draws a JSON value: nested, with numbers that are easily changed."""
    kind = draw.randrange(8 if depth < 3 else 5)
    if kind == 5:
        return [anything(draw, depth + 1) for _ in range(draw.randrange(4))]
    if kind == 6:
        keys = draw.sample("abcde", draw.randrange(4))
        return [
            {key: anything(draw, depth + 2) for key in keys}
            for _ in range(draw.randrange(4))
        ]
    if kind == 7:
        keys = draw.sample(["a", "b", "c", "", "ü"], draw.randrange(5))
        return {key: anything(draw, depth + 1) for key in keys}
    return [None, draw.choice([0, 1, 1.0, True]), draw.random(), "t", [[0, 2], [0, 0]]][
        kind
    ]


@pytest.mark.parametrize("seed", range(200))
def test_nothing_changes_not_even_the_order(seed, tmp_path):
    draw = random.Random(seed)
    common = {"x": anything(draw), "y": anything(draw)}
    records = {
        f"{k}/alignment.json": {**common, "z": anything(draw), "": anything(draw)}
        for k in range(draw.randrange(1, 4))
    }
    write_measured(tmp_path / "t.json", records)
    assert json.dumps(read_measured(tmp_path / "t.json")) == json.dumps(records)


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


def test_the_same_table_comes_of_a_third_of_the_bytes(tmp_path):
    for one in settings():
        one.write(tmp_path / "runs" / one.about["setting"] / "crossval.json")
    found = list(find_records(tmp_path / "runs", "crossval.json"))
    file = tmp_path / "kept" / "table.json"
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


@pytest.mark.parametrize(
    "text",
    [
        '{"measured":1',
        '{"measured":1,"results.json":{}}',
        '{"measured":1,"results.json":{"shared":[],"records":{"a":{}}}}',
        '{"measured":1,"results.json":{"shared":{},"records":{"a":{"[]":{"b":1}}}}}',
        '{"measured":1,"crossval.json":{"shared":{},"records":{"a":{"x":"#a"}}}}',
    ],
)
def test_a_damaged_file_is_named(text, tmp_path):
    (tmp_path / "table.json").write_text(text)
    with pytest.raises(ValueError, match=r"table\.json"):
        list(find_records(tmp_path, "results.json"))


def test_other_records_are_refused(tmp_path):
    with pytest.raises(ValueError, match=r"history\.json: expected one of results"):
        write_measured(tmp_path / "t.json", {"a/history.json": {}})
    assert not list(tmp_path.iterdir())
