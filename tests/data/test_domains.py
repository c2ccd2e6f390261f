"""Source and target corpus to the parts of an experiment."""

import json
import logging
import random
from dataclasses import replace
from pathlib import Path

import pytest

from speechbrain_ser_cl.corpora.utterance import Utterance
from speechbrain_ser_cl.data.domains import of_shared_emotions, split_domains
from speechbrain_ser_cl.data.splits import Labelled, LeakError

EMOTION_MAP = {"negative": ["angry", "sad"], "positive": ["neutral", "happy"]}
CLASSES = list(EMOTION_MAP)


def toy(corpus, count=40, speakers=4):
    """Makes items without audio: every third is positive."""
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


def split_toys(source=None, target=None, seed=1, **changes):
    corpora = {"source": source or toy("a"), "target": target or toy("b", 60, 6)}
    sizes = {"source_valid": 0.1, "target_train": 0.2, "target_train_unlabelled": 0.2}
    protocol = {"kind": "domain_adaptation", **sizes, "by": "utterance"} | changes
    return split_domains(corpora, protocol, seed)


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
        splits = split_toys(target=other, labels=False)
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
    splits = split_toys(by="speaker", target_train=0.25)
    speakers = {
        name: {item.utterance.speaker for item in part}
        for name, part in splits.parts().items()
    }
    assert len(splits.target_train) == 15
    assert not speakers["target_train"] & speakers["target_test"]
    # 10 utterances each: 15 are drawn from 2 speakers, 5 of theirs remain.
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
    for change in ({"seed": 2}, {"target_train": 13}, {"by": "speaker"}):
        other = split_toys(**change).describe()
        assert other["fingerprint"] != described["fingerprint"]


def test_both_sets_aside_labelled_and_unlabelled_speech_and_tests_the_rest():
    target = toy("b", 60, 6)
    splits = split_toys(both=True)
    parts = splits.parts()
    assert [len(part) for part in parts.values()] == [36, 4, 12, 36, 12]
    own = [ids(parts[f"target_{name}"]) for name in ("train", "unlabelled", "test")]
    assert sorted(sum(own, [])) == ids(target)
    assert parts["target_train"] == split_toys().target_train
    assert "target_train/target_unlabelled" in splits.leaks["target"]["speaker"]
    with pytest.raises(ValueError, match="expected labels: True"):
        split_toys(both=True, labels=False)


def test_by_speaker_the_three_parts_of_the_target_share_none():
    splits = split_toys(both=True, by="speaker")
    heard = [
        {item.utterance.speaker for item in part}
        for part in (splits.target_train, splits.target_unlabelled, splits.target_test)
    ]
    assert len(set.union(*heard)) == sum(map(len, heard))
    total = sum(len(part) for name, part in splits.parts().items() if "target" in name)
    assert total + splits.unused == 60
