"""Source and target to the parts of an experiment."""

import json
import logging
import random
from dataclasses import replace
from pathlib import Path

import pytest
import soundfile
import torch

from speechbrain_ser_cl.corpora import write_synthetic
from speechbrain_ser_cl.corpora.utterance import Utterance
from speechbrain_ser_cl.data.domains import (
    SOURCE,
    TARGET,
    UNLABELLED,
    durations,
    load_corpus,
    of_shared_emotions,
    split_domains,
    to_dataset,
)
from speechbrain_ser_cl.data.splits import Labelled, LeakError

EMOTION_MAP = {"negative": ["angry", "sad"], "positive": ["neutral", "happy"]}
CLASSES = list(EMOTION_MAP)


@pytest.fixture(scope="module")
def folder(tmp_path_factory):
    """Two small corpora: 4 speakers with 12 utterances each."""
    folder = tmp_path_factory.mktemp("corpora")
    for name in ("synthetic_source", "synthetic_target"):
        write_synthetic(folder / name, name, n_speakers=4, utterances_per_speaker=12)
    return folder


@pytest.fixture
def corpora(folder, tmp_path):
    return [
        load_corpus("synthetic", folder / name, EMOTION_MAP, tmp_path / "cache")
        for name in ("synthetic_source", "synthetic_target")
    ]


def toy(corpus, count=40, speakers=4):
    """Items without audio: every third is positive."""
    return [
        Labelled(
            Utterance(
                id=f"{corpus}_{n:03d}",
                path=Path(f"{corpus}/{n:03d}.wav"),
                duration=1.0 + n / 10,
                corpus=corpus,
                speaker=f"{corpus}_s{n % speakers}",
                session=f"{corpus}_s{n % speakers // 2}",
                gender=None,
                language="en",
                text_id=f"t{n % 7}",
                emotion="happy" if n % 3 == 0 else "sad",
            ),
            "positive" if n % 3 == 0 else "negative",
        )
        for n in range(count)
    ]


def ids(items):
    return [item.utterance.id for item in items]


def split_toys(**changes):
    arguments = {
        "source": toy("a"),
        "target": toy("b", 60, 6),
        "source_valid": 0.1,
        "target_train": 0.2,
        "target_by": "utterance",
        "seed": 1,
    }
    return split_domains(**arguments | changes)


def test_sizes_are_as_asked_and_nothing_is_lost():
    splits = split_toys()
    assert [len(part) for part in splits.parts().values()] == [36, 4, 12, 48]
    assert splits.unused == 0
    for one, other, whole in (
        ("source_train", "source_valid", toy("a")),
        ("target_train", "target_test", toy("b", 60, 6)),
    ):
        parts = splits.parts()
        assert sorted(ids(parts[one]) + ids(parts[other])) == ids(whole)
    assert len(split_toys(target_train=7).target_train) == 7


def test_labelled_parts_have_each_class_by_its_share():
    splits = split_toys()
    labels = [item.label for item in splits.target_train]
    assert (labels.count("positive"), labels.count("negative")) == (4, 8)


def test_what_is_drawn_depends_on_seed_and_ids_alone():
    def shuffled(items):
        return random.Random(0).sample(items, len(items))

    again = split_toys(source=shuffled(toy("a")), target=shuffled(toy("b", 60, 6)))
    assert again.parts() == split_toys().parts()
    assert split_toys(seed=2).target_train != split_toys().target_train


def test_without_target_labels_the_classes_do_not_decide_who_is_drawn():
    target = toy("b", 60, 6)
    labels = [item.label for item in target]
    drawn = set()
    for seed in range(5):
        random.Random(seed).shuffle(labels)
        other = [
            Labelled(item.utterance, label)
            for item, label in zip(target, labels, strict=True)
        ]
        splits = split_toys(target=other, target_labels=False)
        drawn.add(tuple(ids(splits.target_train)))
        # They are still known, for the test and for the counts.
        own = dict(zip(ids(target), labels, strict=True))
        for item in splits.target_train + splits.target_test:
            assert item.label == own[item.utterance.id]
    assert len(drawn) == 1
    assert len(drawn.pop()) == 12


def test_emotions_that_the_target_lacks_are_left_out_of_the_source(caplog):
    source, target = toy("a"), toy("b")
    assert of_shared_emotions(source, target) == source
    calm = [
        Labelled(replace(item.utterance, emotion="calm"), item.label)
        for item in source[:6:3]
    ]
    caplog.set_level(logging.INFO)
    assert of_shared_emotions([*calm, *source], target) == source
    assert "2 calm" in caplog.text
    happy = [item for item in target if item.utterance.emotion == "happy"]
    with pytest.raises(ValueError, match="none in class negative"):
        of_shared_emotions(source, happy)


def test_new_test_speakers_are_new():
    splits = split_toys(target_by="speaker", target_train=0.25)
    speakers = {
        name: {item.utterance.speaker for item in part}
        for name, part in splits.parts().items()
    }
    assert len(splits.target_train) == 15
    assert not speakers["target_train"] & speakers["target_test"]
    # 10 utterances each: 15 are drawn from 2 speakers, 5 of which are left over.
    assert len(speakers["target_train"]) == 2
    assert splits.unused == 5
    assert len(splits.target_test) == 40
    shared = splits.leaks["target"]
    assert shared["speaker"] == {"target_train/target_test": 0}
    assert shared["text_id"]["target_train/target_test"] > 0


def test_what_the_parts_share_is_counted():
    leaks = split_toys(target_train=0.5).leaks
    assert leaks["target"] == {
        "speaker": {"target_train/target_test": 6},
        "session": {"target_train/target_test": 3},
        "text_id": {"target_train/target_test": 7},
    }
    # 4 utterances of the source are for validation.
    counted = leaks["source"]["speaker"]["source_train/source_valid"]
    splits = split_toys()
    assert counted == len({i.utterance.speaker for i in splits.source_valid})


def test_the_same_corpus_twice_is_refused():
    with pytest.raises(LeakError, match=r"source and target share"):
        split_toys(target=toy("a"))


def test_a_speaker_in_both_corpora_is_refused():
    target = toy("b")
    moved = target[0].utterance.__class__(
        **vars(target[0].utterance) | {"speaker": "a_s0"}
    )
    with pytest.raises(LeakError, match=r"source and target share.*a_s0"):
        split_toys(target=[Labelled(moved, "positive"), *target[1:]])


def test_describe_counts_and_identifies_the_split():
    splits = split_toys()
    described = json.loads(json.dumps(splits.describe()))
    parts = described["parts"]
    assert {name: part["utterances"] for name, part in parts.items()} == {
        "source_train": 36,
        "source_valid": 4,
        "target_train": 12,
        "target_test": 48,
    }
    assert parts["target_train"]["classes"] == {"positive": 4, "negative": 8}
    seconds = sum(item.utterance.duration for item in splits.target_test)
    assert parts["target_test"]["hours"] == pytest.approx(seconds / 3600, abs=5e-4)
    assert parts["target_test"]["speakers"] == 6
    assert split_toys().describe() == described
    for change in ({"seed": 2}, {"target_train": 13}, {"target_by": "speaker"}):
        other = split_toys(**change).describe()
        assert other["fingerprint"] != described["fingerprint"]


def test_a_corpus_is_read_with_its_classes(corpora):
    for corpus in corpora:
        assert len(corpus) == 48
        assert {(i.utterance.emotion, i.label) for i in corpus} == {
            ("angry", "negative"),
            ("sad", "negative"),
            ("neutral", "positive"),
            ("happy", "positive"),
        }


def test_other_emotions_are_left_out_with_a_count(folder, tmp_path, caplog):
    few = {"negative": ["angry"], "positive": ["happy"]}
    with caplog.at_level(logging.INFO, "speechbrain_ser_cl"):
        items = load_corpus("synthetic", folder / "synthetic_source", few, tmp_path)
    assert len(items) == 24
    assert "12 neutral" in caplog.text
    assert "12 sad" in caplog.text


def test_audio_of_another_rate_is_converted(folder, tmp_path):
    # A source corpus of which one file is 8 kHz stereo.
    copy = tmp_path / "corpus"
    write_synthetic(copy, "synthetic_source", n_speakers=1, utterances_per_speaker=4)
    file = sorted((copy / "wav").glob("*.wav"))[0]
    samples, _ = soundfile.read(file)
    soundfile.write(file, torch.tensor(samples[::2]).repeat(2, 1).T.numpy(), 8000)
    items = load_corpus("synthetic", copy, EMOTION_MAP, tmp_path / "cache")
    dataset = to_dataset(items, CLASSES, SOURCE)
    assert len(list((tmp_path / "cache").iterdir())) == 1
    for row, seconds in zip(dataset, durations(dataset), strict=True):
        assert row["sig"].dim() == 1
        assert abs(len(row["sig"]) / 16000 - seconds) < 1e-3
        assert 1.0 <= seconds <= 2.6


def test_a_dataset_reads_speech_label_and_domain(corpora):
    dataset = to_dataset(corpora[1], CLASSES, TARGET)
    by_id = {item.utterance.id: item for item in corpora[1]}
    assert len(dataset) == 48
    for row, seconds in zip(dataset, durations(dataset), strict=True):
        item = by_id[row["id"]]
        samples, rate = soundfile.read(item.utterance.path, dtype="float32")
        assert rate == 16000
        assert row["sig"].dtype == torch.float32
        assert torch.equal(row["sig"], torch.from_numpy(samples))
        assert len(samples) / rate == pytest.approx(seconds)
        assert CLASSES[row["label"]] == item.label
        assert row["domain"] == TARGET


def test_an_unlabelled_dataset_has_no_label_anywhere(corpora):
    labelled = to_dataset(corpora[1], CLASSES, TARGET)
    blind = to_dataset(corpora[1], CLASSES, TARGET, use_labels=False)
    other_classes = [
        Labelled(i.utterance, CLASSES[1 - CLASSES.index(i.label)]) for i in corpora[1]
    ]
    # Whatever the classes are, the dataset is the same.
    assert blind.data == to_dataset(other_classes, CLASSES, TARGET, False).data
    assert blind.data != labelled.data
    for row in blind:
        assert row["label"] == UNLABELLED
    for row in blind.data.values():
        assert row.keys() == {"wav", "duration", "label", "domain"}
        assert row["label"] == UNLABELLED
