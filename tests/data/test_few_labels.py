"""Few labels per class, and unlabelled utterances of the same speakers."""

from collections import Counter
from pathlib import Path

import pytest

from speechbrain_ser_cl.corpora import Utterance
from speechbrain_ser_cl.data.few_labels import add_unlabelled, draw_labels
from speechbrain_ser_cl.data.protocols import make_folds
from speechbrain_ser_cl.data.splits import Labelled, LeakError


def utterance(n, speaker, emotion, session=None):
    return Utterance(
        id=f"toy_{n:04d}",
        path=Path(f"{n}.wav"),
        duration=1.0,
        corpus="toy",
        speaker=speaker,
        session=session,
        gender=None,
        language="en",
        text_id=None,
        emotion=emotion,
    )


@pytest.fixture
def corpus():
    """Makes 4 sessions of 2 speakers; each speaker has 20 angry, 10 sad and 5 bored."""
    emotions = ["angry"] * 20 + ["sad"] * 10 + ["bored"] * 5
    return [
        utterance(100 * s + n, f"s{s}", emotion, f"session{s // 2}")
        for s in range(8)
        for n, emotion in enumerate(emotions)
    ]


def labelled(corpus):
    return [Labelled(u, u.emotion) for u in corpus if u.emotion != "bored"]


@pytest.mark.parametrize(
    ("fraction", "expected"),
    [(0.001, (1, 1)), (0.05, (8, 4)), (0.25, (40, 20)), (1.0, (160, 80))],
)
def test_so_many_of_each_class(corpus, fraction, expected):
    drawn = draw_labels(labelled(corpus), fraction, draw=0)
    counts = Counter(item.label for item in drawn)
    assert (counts["angry"], counts["sad"]) == expected
    ids = [item.utterance.id for item in drawn]
    assert ids == sorted(set(ids))


def test_draws_differ_are_nested_and_ignore_the_order(corpus):
    items = labelled(corpus)
    draws = [draw_labels(items, 0.1, draw=k) for k in range(10)]
    assert len({tuple(i.utterance.id for i in drawn) for drawn in draws}) == 10
    assert draw_labels(items[::-1], 0.1, draw=3) == draws[3]
    assert draw_labels(items, 0.1, draw=3, seed=1) != draws[3]
    assert set(draws[3]) < set(draw_labels(items, 0.25, draw=3))
    # All utterances are drawn about equally often: 24 of 240, in 400 draws.
    times = Counter(i for k in range(400) for i in draw_labels(items, 0.1, draw=k))
    assert min(times.values()) > 15 and max(times.values()) < 75


@pytest.mark.parametrize("fraction", [0, -0.1, 1.5])
def test_no_such_fraction(corpus, fraction):
    with pytest.raises(ValueError, match="expected above 0 and at most 1"):
        draw_labels(labelled(corpus), fraction, draw=0)


@pytest.mark.parametrize("kind", ["session_kfold", "speaker_kfold"])
def test_test_speakers_are_not_in_unlabelled_training_data(corpus, kind):
    items = labelled(corpus)
    leaks = ["session"] if kind == "speaker_kfold" else []
    for split in make_folds(items, {"kind": kind, "n_folds": 4, "leaks": leaks}):
        parts = add_unlabelled(split, items, corpus)
        speakers = [{u.speaker for u in part} for part in parts.values()]
        assert sum(map(len, speakers)) == 8
        assert sum(map(len, parts.values())) == len(corpus)
        for name, ids in split.parts().items():
            assert set(ids) < {u.id for u in parts[name]}
            assert Counter(u.emotion for u in parts[name])["bored"] == len(ids) / 6


def test_random_folds_leave_the_rest_to_training(corpus):
    items = labelled(corpus)
    split = make_folds(items, "random_kfold")[0]
    parts = add_unlabelled(split, items, corpus)
    assert [u.id for u in parts["test"]] == split.test
    assert sum(u.emotion == "bored" for u in parts["train"]) == 40


def test_a_speaker_without_labels_goes_with_the_session(corpus):
    items = [i for i in labelled(corpus) if i.utterance.speaker != "s1"]
    split = make_folds(items, {"kind": "session_kfold", "n_folds": 4})[0]
    everybody = [u for u in corpus if u.speaker != "s1" or u.emotion == "bored"]
    parts = add_unlabelled(split, items, everybody)
    (home,) = [n for n, part in parts.items() if any(u.speaker == "s1" for u in part)]
    assert any(u.speaker == "s0" for u in parts[home])


def test_leaks_that_a_protocol_forbids_are_errors(corpus):
    items = labelled(corpus)
    split = make_folds(items, {"kind": "speaker_kfold", "leaks": ["session"]})[0]
    stranger = utterance(9999, None, "bored", None)
    parts = add_unlabelled(split, items, [*corpus, stranger])  # its part is unknown
    assert stranger in parts["train"]
    shared = Utterance(**{**vars(stranger), "text_id": "t"})
    tested = next(u for u in corpus if u.id in split.test)
    said = [
        Utterance(**{**vars(u), "text_id": "t"}) if u == tested else u for u in corpus
    ]
    with pytest.raises(LeakError):
        add_unlabelled(split, labelled(said), [*said, shared])
