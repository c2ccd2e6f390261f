"""JSON files that are read back."""

import pytest

from speechbrain_ser_cl.corpora import CorpusError, read_table
from speechbrain_ser_cl.utils.records import RecordError, read
from speechbrain_ser_cl.utils.schemas import HISTORY, MANIFEST


@pytest.mark.parametrize(
    "text",
    [
        '[{"epoch": 1, "train": {}, "epoch": 2}]',
        '[{"epoch": 1, "train": {"epoch": 1, "epoch": 1}}]',
        '[{"epoch": 1, "train": {}, "\\u0065poch": 2}]',
    ],
)
def test_a_key_twice_is_refused_and_named(tmp_path, text):
    path = tmp_path / "history.json"
    path.write_text(text)
    with pytest.raises(RecordError, match="history.json: the key 'epoch' occurs twice"):
        read(path, HISTORY)


@pytest.mark.parametrize("colon", ['":', '": ', '"  :', '"\n:', '"\t: ', '"\r\n :'])
@pytest.mark.parametrize(
    "row",
    ['"wav": "a.wav"', r'"wav": "a\": b.wav"', '"dimensions": {"x": 1}, "wav": "a"'],
)
def test_a_key_twice_in_a_manifest_of_any_layout(tmp_path, colon, row):
    path = tmp_path / "m.json"
    keys = ("corpus", "speaker", "session", "gender", "language", "text_id", "emotion")
    rest = ", ".join(f'"{key}": "sad"' for key in keys)
    row = f'{{{row}, "duration": 1.0, {rest}}}'
    path.write_text(f'{{"a": {row}}}')
    assert list(read(path, MANIFEST)) == ["a"]
    again = row[:-1] + f', "emotion{colon} "sad"}}'
    for text in (f'{{"a": {again}}}', f'{{"a": {row}, "a{colon} {row}}}'):
        path.write_text(text)
        with pytest.raises(RecordError, match="occurs twice"):
            read(path, MANIFEST)


def test_a_key_twice_in_a_table_of_json_lines(tmp_path):
    row = '{"file": "a.wav", "emotion": "joy", "emotion": "sad"}'
    (tmp_path / "t.jsonl").write_text(row)
    with pytest.raises(CorpusError, match="line 1: .*key 'emotion' occurs twice"):
        read_table(tmp_path)
