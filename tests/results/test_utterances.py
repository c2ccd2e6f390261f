"""utterances.csv: the parts of an experiment, line by line."""

import csv
from dataclasses import replace

import pytest

from speechbrain_ser_cl.corpora import read_synthetic, write_synthetic
from speechbrain_ser_cl.data.splits import Labelled
from speechbrain_ser_cl.results.utterances import read_parts, write_parts


@pytest.fixture
def parts(tmp_path):
    corpus = write_synthetic(
        tmp_path / "c", "synthetic_source", n_speakers=2, utterances_per_speaker=4
    )
    items = [
        Labelled(replace(u, session=None), f'"{u.emotion}", or so')
        for u in read_synthetic(corpus)
    ]
    return {"train": items[::2], "test": items[1::2]}


def test_what_is_written_is_read(parts, tmp_path):
    path = tmp_path / "utterances.csv"
    utterance, label = parts["train"][0]
    cut = replace(utterance, recording="r", start=0.0, end=0.75)
    strong = replace(utterance, intensity="strong", votes={"sad": 3})
    for first in (cut, strong, replace(cut, intensity="2"), utterance):
        parts["train"][0] = Labelled(first, label)
        write_parts(path, parts)
        assert read_parts(path) == parts
    with open(path, encoding="utf-8", newline="") as file:
        rows = list(csv.DictReader(file))
    assert [row["part"] for row in rows] == ["train"] * 4 + ["test"] * 4
    assert all(row["session"] == "" for row in rows)


def test_a_damaged_line_is_named(parts, tmp_path):
    path = tmp_path / "utterances.csv"
    write_parts(path, parts)
    lines = path.read_text().splitlines(keepends=True)
    path.write_text("".join(lines[:3]) + "id,test,sad,long\n")
    with pytest.raises(ValueError, match="utterances.csv, line 4"):
        read_parts(path)
    path.write_text(lines[0].replace("wav", "wav,intensity,start"))
    with pytest.raises(ValueError, match="columns end with 'intensity, start'"):
        read_parts(path)
