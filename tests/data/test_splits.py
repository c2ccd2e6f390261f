"""Classes, splits and leaks."""

import random
from collections import Counter
from dataclasses import replace
from pathlib import Path

import pytest

from speechbrain_ser_cl.corpora import Utterance
from speechbrain_ser_cl.data.splits import (
    Labelled,
    LeakError,
    check_leaks,
    fingerprint,
    map_emotions,
    split_fraction,
)

MAP = {"positive": ["neutral", "happy", "excited"], "negative": ["sad", "angry"]}


def make(n, emotion="sad", speaker=0, session=None, text_id=None):
    return Utterance(
        id=f"toy_{n:04d}",
        path=Path(f"wav/{n}.wav"),
        duration=1.0,
        corpus="toy",
        speaker=f"toy_s{speaker}",
        session=session,
        gender=None,
        language="en",
        text_id=text_id,
        emotion=emotion,
    )


def uneven_corpus(seed, size=None, speakers=12):
    """Makes utterances with uneven speakers and classes."""
    rng = random.Random(seed)
    size = size or rng.randint(50, 400)
    shares = [rng.random() + 0.1 for _ in range(speakers)]
    return map_emotions(
        [
            make(
                n,
                rng.choices(["neutral", "happy", "sad"], [5, 2, 1])[0],
                rng.choices(range(speakers), shares)[0],
            )
            for n in range(size)
        ],
        {"n": ["neutral"], "h": ["happy"], "s": ["sad"]},
    )[0]


def ids(items):
    return [item.utterance.id for item in items]


def test_map_emotions():
    emotions = ["happy", "calm", "sad", "excited", "calm", "other", "angry"]
    utterances = [make(n, emotion) for n, emotion in enumerate(emotions)]
    items, left_out = map_emotions(utterances, MAP)
    assert items == [
        (utterances[0], "positive"),
        (utterances[2], "negative"),
        (utterances[3], "positive"),
        (utterances[6], "negative"),
    ]
    assert left_out == {"calm": 2, "other": 1}


@pytest.mark.parametrize(
    ("emotion_map", "told"),
    [
        ({"a": ["zest"]}, "class a has the unknown emotion 'zest'; known are angry"),
        ({"a": ["sad"], "b": ["sad"]}, "sad is in class a and in class b"),
        ({"a": ["sad"], "b": ["bored"]}, "no utterance is in class b.*: happy"),
        ({"a": "sad"}, r"class a must be a list of emotions, such as \[sad\]"),
    ],
)
def test_a_bad_emotion_map(emotion_map, told):
    with pytest.raises(ValueError, match=told):
        map_emotions([make(0, "sad"), make(1, "happy")], emotion_map)


@pytest.mark.parametrize("by", ["utterance", "speaker"])
@pytest.mark.parametrize("case", range(20))
def test_properties_of_a_split(case, by):
    items = uneven_corpus(case)
    size = random.Random(case).choice([0.05, 0.1, 0.3, 1, 17])
    split = split_fraction(items, size, seed=case, by=by)
    part, rest, unused = split

    # Exact size; no utterance is lost or repeated.
    expected = max(1, round(size * len(items))) if isinstance(size, float) else size
    assert len(part) == expected
    assert sorted(ids(part) + ids(rest) + ids(unused)) == sorted(ids(items))
    for side in split:
        assert ids(side) == sorted(ids(side))
        assert set(side) <= set(items)

    # Independent of the order, dependent on the seed.
    shuffled = random.Random(case).sample(items, len(items))
    assert split_fraction(iter(shuffled), size, seed=case, by=by) == split
    others = [split_fraction(items, size, seed=1000 + n, by=by) for n in range(5)]
    assert any(other.part != part for other in others)

    # Stratified: the part has the class shares of the data.
    speakers = {item.utterance.speaker for item in part}
    pool = items if by == "utterance" else [*part, *unused]
    have, drawn = (Counter(item.label for item in side) for side in (pool, part))
    for label, number in have.items():
        assert abs(drawn[label] - number * len(part) / len(pool)) < 1

    if by == "speaker":
        assert not speakers & {item.utterance.speaker for item in rest}
        assert {i.utterance.speaker for i in unused} & {
            i.utterance.speaker for i in rest
        } == set()
        # As few speakers as possible.
        per_speaker = Counter(item.utterance.speaker for item in pool)
        assert len(pool) - max(per_speaker.values()) < expected
    else:
        assert unused == []


def test_every_utterance_can_be_drawn():
    items = uneven_corpus(0, size=60)
    drawn = {i for seed in range(200) for i in ids(split_fraction(items, 6, seed).part)}
    assert drawn == set(ids(items))


def test_draws_do_not_depend_on_the_version_of_a_generator():
    """Published results name a seed, so the draw of a seed must never change."""
    items = [Labelled(make(n, speaker=n % 5), "ab"[n % 2]) for n in range(40)]
    assert ids(split_fraction(items, 0.1, seed=0).part) == [
        "toy_0000",
        "toy_0002",
        "toy_0029",
        "toy_0035",
    ]
    part = split_fraction(items, 0.1, seed=0, by="speaker").part
    assert ids(part) == ["toy_0002", "toy_0012", "toy_0017", "toy_0037"]


@pytest.mark.parametrize(
    ("size", "by", "told"),
    [
        (0.0, "utterance", r"fraction 0.0, it must be in \(0, 1\)"),
        (1.0, "utterance", "fraction 1.0"),
        (0, "utterance", "at least 1 and below 20"),
        (20, "utterance", "at least 1 and below 20"),
        (True, "utterance", "must be a number"),
        ("5 %", "utterance", "must be a number"),
        (5, "gender", "'gender', it must be 'utterance' or 'speaker'"),
        (0.99, "speaker", "leaves nothing for the rest"),
    ],
)
def test_a_bad_size(size, by, told):
    items = [Labelled(make(n, speaker=n % 2), "a") for n in range(20)]
    with pytest.raises(ValueError, match=told):
        split_fraction(items, size, seed=0, by=by)


def test_speakers_that_are_not_known_cannot_be_kept_apart():
    items = [
        Labelled(replace(item.utterance, speaker=None), item.label)
        for item in uneven_corpus(0)
    ]
    with pytest.raises(ValueError, match="by is 'speaker', but speakers are not known"):
        split_fraction(items, 0.3, seed=0, by="speaker")


def test_the_same_id_twice_cannot_be_split():
    items = [Labelled(make(n % 9), "a") for n in range(10)]
    with pytest.raises(ValueError, match="more than once .1: toy_0000"):
        split_fraction(items, 3, seed=0)


def test_leaks_are_named():
    parts = {
        "train": [make(n, speaker=n) for n in range(15)],
        "test": [make(100 + n, speaker=n) for n in range(12)],
    }
    told = "train and test share the speaker .12: toy_s0, .*toy_s7, … and 2 more"
    with pytest.raises(LeakError, match=told):
        check_leaks(parts)


@pytest.mark.parametrize("key", ["speaker", "session", "text_id"])
def test_declared_leaks_are_counted(key):
    def unlike(n):
        return make(n, speaker=n, session=f"session{n}", text_id=f"t{n}")

    shared = "toy_s7" if key == "speaker" else "x7"
    parts = {
        "train": [Labelled(replace(unlike(0), **{key: shared}), "a"), unlike(1)],
        "valid": [unlike(2)],
        "test": [replace(unlike(3), **{key: shared}), unlike(4)],
    }
    with pytest.raises(LeakError, match=f"train and test share the {key} .1: {shared}"):
        check_leaks(parts)
    report = check_leaks(parts, allow=[key])
    pairs = ("train/valid", "train/test", "valid/test")
    assert report == {
        name: {pair: int(name == key and pair == "train/test") for pair in pairs}
        for name in ("speaker", "session", "text_id")
    }


def test_what_is_not_known_is_not_shared():
    parts = {"train": [make(0, speaker=0)], "test": [make(1, speaker=1)]}
    assert check_leaks(parts)["session"] == {"train/test": 0}


def test_the_same_utterance_or_file_is_never_allowed():
    everything = ("speaker", "session", "text_id")
    a, b = make(0), make(1)
    with pytest.raises(LeakError, match="share the utterance id .1: toy_0000"):
        check_leaks({"train": [a], "test": [a, b]}, allow=everything)
    renamed = replace(a, id="toy_other", path=Path("wav/../wav/0.wav"))
    with pytest.raises(LeakError, match="share the audio file .1: .*0.wav"):
        check_leaks({"train": [a], "test": [renamed, b]}, keys=(), allow=())


def test_allowing_what_is_not_checked_is_an_error():
    with pytest.raises(ValueError, match="allow has speaker"):
        check_leaks({"train": []}, keys=["session"], allow=["speaker"])


def test_fingerprint():
    a, b, c = (make(n) for n in range(3))
    prints = [
        fingerprint({"train": [a, b], "test": [c]}),
        fingerprint({"train": [a], "test": [b, c]}),
        fingerprint({"train": [c], "test": [a, b]}),
        fingerprint({"train": [a, b, c], "test": []}),
        fingerprint({"train": [a, b], "valid": [c]}),
    ]
    assert len(set(prints)) == len(prints)
    assert all(len(text) == 64 for text in prints)
    same = fingerprint({"test": [Labelled(c, "x")], "train": iter([b, a])})
    assert same == prints[0]
