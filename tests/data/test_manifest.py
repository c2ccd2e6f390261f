"""Manifests, written and read by this package and by SpeechBrain."""

import dataclasses
import json
import shutil

import pytest
import torch
from speechbrain.dataio.dataset import DynamicItemDataset

from speechbrain_ser_cl.corpora import read_synthetic, write_synthetic
from speechbrain_ser_cl.data.manifest import read_manifest, write_manifest
from speechbrain_ser_cl.utils.audio import load_audio


@pytest.fixture
def corpus(tmp_path):
    return write_synthetic(
        tmp_path / "corpus",
        "synthetic_source",
        n_speakers=2,
        utterances_per_speaker=4,
    )


def test_round_trip(corpus, tmp_path):
    utterances = read_synthetic(corpus)
    # Values that a corpus may not have.
    utterances[0] = dataclasses.replace(
        utterances[0], speaker=None, session=None, gender=None, text_id=None
    )
    utterances[1] = dataclasses.replace(
        utterances[1], split="test", recording="r", start=0.0, end=1.25
    )
    write_manifest(reversed(utterances), tmp_path / "new" / "m.json", corpus)
    assert read_manifest(tmp_path / "new" / "m.json", corpus) == utterances
    assert [p.name for p in (tmp_path / "new").iterdir()] == ["m.json"]


def test_keys_are_the_documented_ones(corpus, tmp_path):
    utterance = read_synthetic(corpus)[0]
    write_manifest([utterance], tmp_path / "m.json", corpus)
    assert json.loads((tmp_path / "m.json").read_text()) == {
        "synthetic_source_s00_u000_neutral": {
            "wav": "{data_root}/wav/s00_u000_neutral.wav",
            "duration": utterance.duration,
            "corpus": "synthetic_source",
            "speaker": "synthetic_source_s00",
            "session": "synthetic_source_session1",
            "gender": "female",
            "language": "zxx",
            "text_id": utterance.text_id,
            "emotion": "neutral",
        }
    }


def test_speechbrain_reads_it_after_the_corpus_moved(corpus, tmp_path):
    utterances = read_synthetic(corpus)
    audio = {u.id: load_audio(u.path) for u in utterances}
    write_manifest(utterances, tmp_path / "m.json", corpus)
    moved = tmp_path / "elsewhere" / "corpus"
    shutil.move(corpus, moved)

    dataset = DynamicItemDataset.from_json(
        tmp_path / "m.json", replacements={"data_root": moved}
    )
    dataset.add_dynamic_item(load_audio, takes="wav", provides="sig")
    dataset.set_output_keys(["id", "sig", "emotion"])
    assert len(dataset) == 8
    for item in dataset:
        assert torch.equal(item["sig"], audio[item["id"]])
        assert item["id"].endswith(item["emotion"])
    assert all(u.path.is_file() for u in read_manifest(tmp_path / "m.json", moved))


def test_audio_outside_the_root_keeps_its_absolute_path(corpus, tmp_path):
    utterances = read_synthetic(corpus)
    cached = tmp_path / "cache" / "x.wav"
    cached.parent.mkdir()
    shutil.copy(utterances[3].path, cached)
    utterances[3] = dataclasses.replace(utterances[3], path=cached)
    write_manifest(utterances, tmp_path / "m.json", corpus)
    assert read_manifest(tmp_path / "m.json", corpus) == utterances
    dataset = DynamicItemDataset.from_json(
        tmp_path / "m.json", replacements={"data_root": corpus}
    )
    assert dataset.data[utterances[3].id]["wav"] == str(cached)


def test_a_failed_write_leaves_the_old_manifest(corpus, tmp_path):
    utterances = read_synthetic(corpus)
    path = tmp_path / "m.json"
    write_manifest(utterances, path, corpus)
    before = path.read_text()
    with pytest.raises(
        ValueError, match="more than once .1: synthetic_source_s00_u000"
    ):
        write_manifest([*utterances, utterances[0]], path, corpus)
    assert path.read_text() == before


def test_what_is_not_a_manifest(tmp_path):
    path = tmp_path / "m.json"
    path.write_text("{")
    with pytest.raises(ValueError, match="m.json: not valid JSON"):
        read_manifest(path, tmp_path)
    path.write_text('{"a": {"wav": "a.wav", "duration": 1.0}}')
    with pytest.raises(ValueError, match="no a.corpus, .* in this manifest"):
        read_manifest(path, tmp_path)


def test_every_utterance_is_checked_and_its_names_are_composed(corpus, tmp_path):
    first, *_ = read_synthetic(corpus)
    write_manifest([first], tmp_path / "m.json", corpus)
    (entry,) = json.loads((tmp_path / "m.json").read_text()).values()
    entry["speaker"] = "Ju\u0308rgen"
    entries = {"a": entry, "b": entry, "c\u0308": entry | {"speaker": "d"}}
    entries |= {"d": entry | {"speaker": "d"}, "e\u0308": entry | {"speaker": "d"}}
    (tmp_path / "m.json").write_text(json.dumps(entries))
    told = {u.id: u.speaker for u in read_manifest(tmp_path / "m.json", corpus)}
    assert told == dict.fromkeys("ab", "J\u00fcrgen") | dict.fromkeys(
        ("c\u0308", "d", "\u00eb"), "d"
    )
    entries["d"] |= {"duration": 0.0}
    (tmp_path / "m.json").write_text(json.dumps(entries))
    with pytest.raises(ValueError, match=r"utterance d: duration 0.0 s is not above 0"):
        read_manifest(tmp_path / "m.json", corpus)
