"""Protocols: their folds, that folds do not leak, and split files."""

import hashlib
import json
import os
import random
import re
import subprocess
import sys
from collections import Counter
from dataclasses import replace
from pathlib import Path

import pytest

from speechbrain_ser_cl.corpora import Utterance, write_synthetic
from speechbrain_ser_cl.data.experiment import fold_split, read_corpora
from speechbrain_ser_cl.data.protocols import (
    DRAWN,
    PROTOCOLS,
    make_folds,
    read_split,
    resolve_protocol,
    select_parts,
    write_split,
)
from speechbrain_ser_cl.data.splits import Labelled, LeakError
from speechbrain_ser_cl.registry import CORPORA

# ``given`` needs utterances with parts, the last two a folder with lists.
FOLDED = sorted(set(PROTOCOLS) - {*DRAWN, "given", "emobox", "emo_superb"})


def dyads(corpus="toy", sessions=5, each=8):
    """Makes sessions of a woman and a man, as in IEMOCAP; half the turns are read."""
    return [
        Utterance(
            id=f"{corpus}_{session}{sex}{n}",
            path=Path(f"{corpus}/{session}{sex}{n}.wav"),
            duration=1.0,
            corpus=corpus,
            speaker=f"{corpus}_{session}{sex}",
            session=f"{corpus}_Ses{session}",
            gender={"F": "female", "M": "male"}[sex],
            language="en",
            text_id=f"{corpus}_t{n}" if n % 2 else None,
            emotion=("happy", "sad", "angry")[n % 3],
        )
        for session in range(1, sessions + 1)
        for sex in "FM"
        for n in range(each)
    ]


def soloists(n_speakers, corpus="solo", each=6):
    """Makes speakers without sessions, women and men in turn, with the same texts."""
    utterances = dyads(corpus, -(-n_speakers // 2), each)[: n_speakers * each]
    return [replace(u, session=None) for u in utterances]


def speakers(utterances, ids):
    of = {u.id: u.speaker.split("_", 1)[1] for u in utterances}
    return sorted({of[name] for name in ids})


def by_hand(utterances, protocol):
    """Returns (test, validation) speakers of each fold."""
    folds = make_folds(utterances, protocol)
    return [
        (speakers(utterances, s.test), speakers(utterances, s.valid)) for s in folds
    ]


def test_leave_one_session_out():
    assert by_hand(dyads(), "leave_one_session_out") == [
        (["1F", "1M"], ["2F", "2M"]),
        (["2F", "2M"], ["3F", "3M"]),
        (["3F", "3M"], ["4F", "4M"]),
        (["4F", "4M"], ["5F", "5M"]),
        (["5F", "5M"], ["1F", "1M"]),
    ]
    for split in make_folds(dyads(), "leave_one_session_out"):
        assert len(split.train) == 3 * 16
        assert split.shared["session"] == dict.fromkeys(split.shared["session"], 0)
        assert split.shared["text_id"]["train/test"] == 4


def test_the_thesis_swaps_the_speakers_of_the_session_left_out():
    folds = by_hand(dyads(), "session_speaker_swap")
    expected = []
    for session in "12345":
        woman, man = [f"{session}F"], [f"{session}M"]
        expected += [(man, woman), (woman, man)]
    assert folds == expected
    for split in make_folds(dyads(), "session_speaker_swap"):
        assert len(split.train) == 4 * 16
        assert split.shared["session"] == {
            "train/valid": 0,
            "train/test": 0,
            "valid/test": 1,
        }


def test_leave_one_speaker_out():
    folds = by_hand(dyads(sessions=2), "leave_one_speaker_out")
    assert folds == [
        (["1F"], ["1M"]),
        (["1M"], ["2F"]),
        (["2F"], ["2M"]),
        (["2M"], ["1F"]),
    ]


def test_speakers_are_dealt_to_balanced_folds():
    for n_speakers, sizes in (
        (10, [2] * 5),
        (24, [5, 5, 5, 5, 4]),
        (7, [2, 2, 1, 1, 1]),
    ):
        folds = by_hand(soloists(n_speakers), "speaker_kfold")
        assert sorted((len(test) for test, _ in folds), reverse=True) == sizes
        assert [valid for _, valid in folds] == [
            folds[(k + 1) % 5][0] for k in range(5)
        ]
        women = [sum(name.endswith("F") for name in test) for test, _ in folds]
        assert max(women) - min(women) <= 1


def test_groups_of_speakers_can_be_halved_and_swapped():
    protocol = {"kind": "speaker_kfold", "n_folds": 5, "valid": "swap"}
    folds = by_hand(soloists(10), protocol)
    assert len(folds) == 10
    assert all(len(test) == len(valid) == 1 for test, valid in folds)
    for first, second in zip(folds[::2], folds[1::2], strict=True):
        assert first == second[::-1]
        assert {first[0][0][-1], first[1][0][-1]} == {"F", "M"}
    folds = by_hand(soloists(24), protocol)
    assert {len(test) for test, _ in folds} == {2, 3}
    with pytest.raises(ValueError, match="halves a fold by speaker"):
        make_folds(soloists(5), protocol)


def test_random_folds_are_stratified():
    utterances = soloists(10, each=7)
    have = Counter(u.emotion for u in utterances)
    emotion = {u.id: u.emotion for u in utterances}
    for split in make_folds(utterances, {"kind": "random_kfold", "n_folds": 5}):
        tested = Counter(emotion[name] for name in split.test)
        assert all(abs(tested[e] - n / 5) < 1 for e, n in have.items())
        assert split.shared["speaker"]["train/test"] > 5


@pytest.mark.parametrize("name", FOLDED)
def test_properties_of_all_protocols(name):
    utterances = dyads() if "session" in name else soloists(12, each=12)
    if "text" in name:
        utterances = [u for u in utterances if u.text_id]
    folds = make_folds(utterances, name, seed=3)
    everything = sorted(u.id for u in utterances)
    assert sorted(i for split in folds for i in split.test) == everything
    assert sorted(i for split in folds for i in split.valid) == everything
    for k, split in enumerate(folds):
        used = [*split.train, *split.valid, *split.test]
        assert len(set(used)) == len(used) == len(everything) - split.unused
        assert (split.unused > 0) == (name == "speaker_text_kfold")
        assert min(map(len, split.parts().values())) > 0
        assert (split.fold, split.n_folds, split.seed) == (k, len(folds), 3)
        assert split.corpora == [utterances[0].corpus]
    assert len({split.fingerprint for split in folds}) == len(folds)

    # Not the order of the input, nor labels equal to the emotions.
    shuffled = random.Random(1).sample(utterances, len(utterances))
    assert make_folds(shuffled, name, seed=3) == folds
    labelled = [Labelled(u, u.emotion) for u in utterances]
    assert make_folds(iter(labelled), name, seed=3) == folds
    # The seed matters if anything is drawn.
    drawn = PROTOCOLS[name]["n_folds"] is not None
    assert (make_folds(utterances, name, seed=4)[0].test != folds[0].test) == drawn


def actors(corpus, women, men):
    """Makes one sad utterance per speaker of a published corpus."""
    return [
        replace(
            dyads()[0],
            id=f"{corpus}_{name}",
            path=Path(f"{corpus}_{name}.wav"),
            corpus=corpus,
            speaker=f"{corpus}_{name}",
            session=None,
            gender=gender,
        )
        for gender, names in (("female", women), ("male", men))
        for name in names
    ]


def test_the_corpus_own_split():
    said = {"1": "test", "2": "valid", "3": "valid"}
    corpus = [replace(u, split=said.get(u.session[-1], "train")) for u in dyads()]
    (split,) = make_folds(corpus, "given")
    assert by_hand(corpus, "given") == [(["1F", "1M"], ["2F", "2M", "3F", "3M"])]
    assert speakers(corpus, split.train) == ["4F", "4M", "5F", "5M"]
    assert split.n_folds == 1

    # Without a validation part, a fifth of the training speakers validates.
    no_valid = [replace(u, split=u.split.replace("valid", "train")) for u in corpus]
    (split,) = make_folds(no_valid, "given", seed=1)
    assert speakers(corpus, split.test) == ["1F", "1M"]
    assert len(speakers(corpus, split.valid)) == 2
    assert len(speakers(corpus, split.train)) == 6
    assert split == make_folds(no_valid[::-1], "given", seed=1)[0]
    assert split.valid != make_folds(no_valid, "given", seed=2)[0].valid
    # If speakers are unknown, a fifth of the utterances.
    (split,) = make_folds([replace(u, speaker=None) for u in no_valid], "given")
    assert [len(part) for part in split.parts().values()] == [51, 13, 16]


@pytest.mark.parametrize(
    ("changes", "told"),
    [
        ({0: "train"}, "train and held out share the speaker .1: toy_1F"),
        ({0: None}, "have no part .*1: toy_1F0.*Name the column"),
        (dict.fromkeys(range(16), "train"), "toy has nothing for test"),
    ],
)
def test_a_corpus_own_split_that_cannot_be_used(changes, told):
    corpus = [replace(u, split="train") for u in dyads()]
    corpus[:16] = [replace(u, split="test") for u in corpus[:16]]
    for n, split in changes.items():
        corpus[n] = replace(corpus[n], split=split)
    with pytest.raises(ValueError, match=told):
        make_folds(corpus, "given")


def test_speakers_that_are_not_known():
    corpus = [replace(u, speaker=None) for u in dyads()]
    with pytest.raises(ValueError, match="without a speaker .80: .*random_kfold needs"):
        make_folds(corpus, "speaker_kfold")
    with pytest.raises(ValueError, match="halves a fold by speaker, but these are not"):
        make_folds(corpus, "session_speaker_swap")
    # Unknown values are not shared.
    assert make_folds(corpus, "random_kfold")[0].shared["speaker"]["train/test"] == 0


CARDS = {"kind": "speaker_kfold", "deal": "cards"}


def test_folds_are_golden():
    """A change here makes folds incomparable with earlier ones."""
    women, men = ("08", "09", "13", "14", "16"), ("03", "10", "11", "12", "15")
    emodb = actors("emodb", women, men)
    numbers = [f"{n:02d}" for n in range(1, 25)]
    ravdess = actors("ravdess", numbers[1::2], numbers[::2])
    assert by_hand(emodb, CARDS) == [
        (["13", "15"], ["11", "16"]),
        (["11", "16"], ["12", "14"]),
        (["12", "14"], ["08", "10"]),
        (["08", "10"], ["03", "09"]),
        (["03", "09"], ["13", "15"]),
    ]
    tested = [test for test, _ in by_hand(ravdess, CARDS)]
    assert tested == [
        ["01", "04", "14", "19", "22"],
        ["02", "10", "11", "12", "13"],
        ["03", "07", "16", "23", "24"],
        ["08", "09", "17", "20", "21"],
        ["05", "06", "15", "18"],
    ]
    both = make_folds([*ravdess, *emodb], CARDS)
    assert both[4].corpora == ["emodb", "ravdess"]
    assert speakers(emodb + ravdess, both[4].test) == sorted(["03", "09", *tested[4]])
    lists = {"train": both[4].train, "valid": both[4].valid, "test": both[4].test}
    text = json.dumps(lists, sort_keys=True)
    assert both[4].fingerprint == hashlib.sha256(text.encode()).hexdigest()


def test_golden_folds_of_real_speech(shared):
    utterances = CORPORA.get("emodb")(shared / "corpora" / "EmoDB")
    splits = make_folds(utterances, CARDS)
    assert [len(s.test) for s in splits] == [117, 126, 104, 96, 92]
    assert splits[0].fingerprint[:16] == "b8fb44c9760dc5f7"
    fair = make_folds(utterances, "speaker_kfold")
    assert [len(s.test) for s in fair] == [110, 106, 114, 107, 98]
    assert fair[0].fingerprint[:16] == "e2fcc52151642cb8"


HASHED = """
import sys
sys.path.insert(0, sys.argv[1])
from test_protocols import dyads, make_folds
for name in ("speaker_kfold", "random_kfold"):
    utterances = {u for u in dyads()}
    protocol = {"kind": name, "leaks": ["speaker", "session", "text_id"]}
    print([split.fingerprint for split in make_folds(utterances, protocol)])
"""


def test_folds_do_not_depend_on_the_hash_seed():
    told = {
        subprocess.check_output(
            [sys.executable, "-c", HASHED, str(Path(__file__).parent)],
            env=os.environ | {"PYTHONHASHSEED": seed},
            text=True,
        )
        for seed in ("0", "1")
    }
    assert len(told) == 1


# ------------------------------------------------------------------ several corpora


def test_corpora_are_split_on_their_own_and_united():
    one, other = dyads("one"), soloists(10, "other")
    protocol = {"kind": "speaker_kfold", "leaks": ["session", "text_id"]}
    both = make_folds(one + other, protocol)
    alone = [make_folds(corpus, protocol) for corpus in (one, other)]
    for k, split in enumerate(both):
        assert split.test == sorted(alone[0][k].test + alone[1][k].test)
        assert split.train == sorted(alone[0][k].train + alone[1][k].train)
    with pytest.raises(ValueError, match=r"one 5, two 4.*per_corpus"):
        make_folds(one + dyads("two", 4), "leave_one_session_out")


def test_each_corpus_can_have_its_own_protocol():
    protocol = {
        "per_corpus": {
            "iemocap": {"kind": "session_kfold", "n_folds": 4},
            "casia": {"kind": "speaker_kfold", "n_folds": 4},
        }
    }
    utterances = dyads("iemocap") + soloists(4, "casia")
    folds = make_folds(utterances, protocol)
    assert len(folds) == 4
    tested = [speakers(utterances, split.test) for split in folds]
    assert sorted(map(len, tested)) == [3, 3, 3, 5]
    assert folds[0].protocol["per_corpus"]["casia"]["leaks"] == ["text_id"]
    with pytest.raises(ValueError, match="names casia, iemocap, but not toy"):
        make_folds(utterances + soloists(4, "toy"), protocol)
    # A missing corpus is not mentioned.
    (fold, *_) = make_folds(dyads("iemocap"), protocol)
    assert list(fold.protocol["per_corpus"]) == ["iemocap"]


# ------------------------------------------------------------------ errors and leaks


def test_sessions_that_a_protocol_tears_apart_are_refused():
    with pytest.raises(LeakError, match=r"speaker_kfold.*share the session.*toy_Ses"):
        make_folds(dyads(), "speaker_kfold")
    declared = {"kind": "speaker_kfold", "leaks": ["session", "text_id"]}
    split = make_folds(dyads(), declared)[0]
    assert sum(split.shared["session"].values()) > 0


def test_one_speaker_in_two_unicode_forms_is_one():
    names = ["Ju\u0308rgen", "J\u00fcrgen", *"ABCDE"]
    corpus = [
        replace(u, speaker=f"solo_{names[n // 6]}", gender=None)
        for n, u in enumerate(soloists(7))
    ]
    folds = make_folds(corpus, "leave_one_speaker_out")
    assert [len(split.test) for split in folds] == [6, 6, 6, 6, 6, 12]


def test_the_advice_on_leaks_is_right():
    """All leaks are named together; declaring what the error says is enough."""
    protocol = {"kind": "random_kfold", "leaks": []}
    with pytest.raises(LeakError, match="declare the leak with leaks: ") as refused:
        make_folds(dyads(), protocol)
    leaks = re.search(r"with leaks: \[(.*?)\]", str(refused.value))[1].split(", ")
    assert make_folds(dyads(), protocol | {"leaks": leaks})


@pytest.mark.parametrize(
    ("kind", "leaks", "told"),
    [
        ("random_kfold", ["session", "text_id"], "share the speaker"),
        ("random_kfold", ["speaker", "text_id"], "share the session"),
        ("random_kfold", ["speaker", "session"], "share the text_id"),
        ("leave_one_session_out", [], "share the text_id"),
        ("session_speaker_swap", [], "share the text_id"),
    ],
)
def test_undeclared_leaks_are_refused(kind, leaks, told):
    with pytest.raises(LeakError, match=told):
        make_folds(dyads(), {"kind": kind, "leaks": leaks})


@pytest.mark.parametrize(
    ("protocol", "told"),
    [
        ("kfold", "kind 'kfold', expected one of leave_one_session_out"),
        ({"n_folds": 5}, "kind None"),
        ({"kind": "speaker_kfold", "folds": 5}, "unknown folds; it has group, n_folds"),
        ({"kind": "speaker_kfold", "n_folds": 2}, "n_folds is 2, expected a whole"),
        ({"kind": "speaker_kfold", "n_folds": "5"}, "n_folds is '5'"),
        ({"kind": "speaker_kfold", "n_folds": None}, "n_folds is None"),
        ({"kind": "speaker_kfold", "group": "session"}, "group is 'session'"),
        ({"kind": "speaker_kfold", "valid": "last"}, "valid is 'last'"),
        ({"kind": "speaker_kfold", "leaks": ["age"]}, "leaks is .*'age'"),
        ({"kind": "leave_one_session_out", "n_folds": 4}, "use session_kfold"),
        ({"kind": "seeds", "n_folds": 4}, "unknown n_folds"),
        ({"per_corpus": {"a": "seeds"}}, "not possible within per_corpus"),
        ({"per_corpus": {}, "kind": "seeds"}, "per_corpus stands alone"),
    ],
)
def test_a_bad_protocol(protocol, told):
    with pytest.raises(ValueError, match=told):
        resolve_protocol(protocol)


@pytest.mark.parametrize(
    ("utterances", "protocol", "told"),
    [
        ([], "random_kfold", "no utterances"),
        (dyads(), "seeds", "no folds"),
        (soloists(10), "leave_one_session_out", "60: .*group"),
        (soloists(4), "speaker_kfold", "4 speakers, expected at least 5"),
        (dyads(sessions=2), "leave_one_session_out", "2 sessions, expected at least 3"),
        (dyads(sessions=1), "session_speaker_swap", "1 sessions, expected at least 2"),
        (dyads()[:3] * 2, "random_kfold", "more than once .3: toy_1F0"),
        (soloists(10), {"kind": "speaker_kfold", "n_folds": 10**9}, "Set n_folds: 10"),
        (soloists(10), {"kind": "random_kfold", "n_folds": 10**9}, "Set n_folds: 60"),
    ],
)
def test_folds_that_cannot_be_made(utterances, protocol, told):
    with pytest.raises(ValueError, match=told):
        make_folds(utterances, protocol)


def test_a_class_that_some_folds_lack_spoils_no_other_fold(caplog):
    """Bored, by two of ten speakers, cannot be in each of five folds."""
    speakers_of = {"solo_1F": "bored", "solo_2M": "bored"}
    items = [
        Labelled(u, speakers_of.get(u.speaker, u.emotion)) for u in soloists(10, each=9)
    ]
    folds = make_folds(items, "speaker_kfold")
    lacking = [split for split in folds if "bored" in split.absent.get("test", [])]
    assert len(lacking) == 3
    assert "speaker_kfold: fold" in caplog.text and "lacks bored" in caplog.text
    assert "No number of folds gives each class to each fold" in caplog.text
    # Only the fold without bored training utterances fails.
    rare = [i for i in items if i.label != "bored" or i.utterance.speaker == "solo_1F"]
    caplog.clear()
    for split in make_folds(rare, "speaker_kfold"):
        if "bored" in split.absent.get("train", []):
            with pytest.raises(
                ValueError, match=f"fold {split.fold}: no training .*bored"
            ):
                select_parts(rare, split)
        else:
            assert len(select_parts(rare, split)["test"])


def test_the_advice_on_the_number_of_folds_is_right(caplog):
    said = {f"solo_{n}F" for n in (1, 2, 3)}
    items = [
        Labelled(u, "bored" if u.speaker in said else u.emotion)
        for u in soloists(10, each=9)
    ]
    make_folds(items, "speaker_kfold")
    number = int(re.search(r"with n_folds: (\d+)", caplog.text)[1])
    assert number == 3
    folds = make_folds(items, {"kind": "speaker_kfold", "n_folds": number})
    assert not any(split.absent for split in folds)
    with pytest.raises(ValueError, match="expected at least 5") as refused:
        make_folds(soloists(4), "speaker_kfold")
    number = int(re.search(r"Set n_folds: (\d+)", str(refused.value))[1])
    assert (
        len(make_folds(soloists(4), {"kind": "speaker_kfold", "n_folds": number})) == 4
    )


# ------------------------------------------------------------------ few speakers


@pytest.mark.parametrize("kind", ["leave_one_speaker_out", "speaker_kfold"])
def test_two_speakers_with_validation_from_the_training_utterances(kind):
    utterances = soloists(2, each=30)
    folds = {"n_folds": 2} if kind == "speaker_kfold" else {}
    with pytest.raises(ValueError, match="valid: utterances"):
        make_folds(utterances, {"kind": kind} | folds)
    for valid, sizes in (("utterances", [24, 6, 30]), ("none", [30, 0, 30])):
        splits = make_folds(utterances, {"kind": kind, "valid": valid} | folds)
        assert len(splits) == 2
        for split in splits:
            assert [len(part) for part in split.parts().values()] == sizes
            assert split.shared["speaker"]["train/test"] == 0
            assert split.shared["speaker"]["train/valid"] == (valid == "utterances")
            items = [Labelled(u, u.emotion) for u in utterances]
            assert len(select_parts(items, split)["test"]) == 30
            classes = Counter(u.emotion for u in utterances if u.id in split.valid)
            assert set(classes.values()) <= {2}


def test_a_fifth_of_two_training_speakers_is_not_half_of_the_data():
    corpus = [
        replace(u, split="test" if u.session.endswith("1") else "train")
        for u in dyads(sessions=2, each=20)
    ]
    with pytest.raises(ValueError, match="2 training speakers are too few.*utterances"):
        make_folds(corpus, "given")
    (split,) = make_folds(corpus, {"kind": "given", "valid": "utterances"})
    assert [len(part) for part in split.parts().values()] == [32, 8, 40]
    (split,) = make_folds(corpus, {"kind": "given", "valid": "none"})
    assert [len(part) for part in split.parts().values()] == [40, 0, 40]


def test_some_speakers_that_are_not_known():
    corpus = [
        replace(u, speaker=None) if n < 12 else u for n, u in enumerate(soloists(12))
    ]
    with pytest.raises(ValueError, match=r"speaker \(12: .*unknown: leave_out"):
        make_folds(corpus, "speaker_kfold")
    left = make_folds(corpus, {"kind": "speaker_kfold", "unknown": "leave_out"})
    assert [split.unused for split in left] == [12] * 5
    assert sum(len(split.test) for split in left) == 60
    alone = make_folds(corpus, {"kind": "speaker_kfold", "unknown": "alone"})
    assert sorted(i for s in alone for i in s.test) == sorted(u.id for u in corpus)


# ------------------------------------------------------------------ texts


def test_new_speakers_say_new_texts():
    utterances = [u for u in soloists(10, each=8) if u.text_id]
    of = {u.id: u for u in utterances}
    folds = make_folds(utterances, {"kind": "speaker_text_kfold", "n_folds": 5})
    assert len(folds) == 10
    for split in folds:
        train, valid, test = (
            [of[name] for name in part] for part in split.parts().values()
        )
        for held_out in (valid, test):
            assert not {u.speaker for u in train} & {u.speaker for u in held_out}
            assert not {u.text_id for u in train} & {u.text_id for u in held_out}
        assert not {u.speaker for u in valid} & {u.speaker for u in test}
        # 6 of 10 speakers on 2 of 4 texts train; 2 speakers each on the others.
        assert [len(train), len(valid), len(test), split.unused] == [12, 4, 4, 20]
        assert split.shared["text_id"]["train/test"] == 0


def test_new_texts_by_known_speakers():
    utterances = [u for u in soloists(10, each=12) if u.text_id]
    of = {u.id: u.text_id for u in utterances}
    for split in make_folds(utterances, {"kind": "text_kfold", "n_folds": 3}):
        texts = [{of[name] for name in part} for part in split.parts().values()]
        assert [len(some) for some in texts] == [2, 2, 2]
        assert split.shared["speaker"]["train/test"] == 10
        assert split.shared["text_id"] == dict.fromkeys(split.shared["text_id"], 0)


# ------------------------------------------------------------------ recordings


def segments(hop, length=3.0, n_recordings=6, each=8):
    """Makes parts of recordings, with two speakers in each."""
    return [
        replace(
            dyads()[0],
            id=f"toy_{r}_{n}",
            path=Path(f"cut/{r}_{n}.wav"),
            duration=length,
            speaker=f"toy_{'FM'[n % 2]}",
            session=None,
            text_id=None,
            emotion=("happy", "sad")[n // 2 % 2],
            recording=f"toy_{r}",
            start=n * hop,
        )
        for r in range(n_recordings)
        for n in range(each)
    ]


def test_segments_that_share_time_are_in_one_part():
    apart = make_folds(segments(hop=3.0), "random_kfold")
    assert apart[0].shared["recording"]["train/test"] > 2
    with pytest.raises(LeakError, match="share time .*recording_kfold"):
        make_folds(segments(hop=2.0), "random_kfold")
    folds = make_folds(segments(hop=2.0), "recording_kfold")
    assert folds[0].shared["recording"] == dict.fromkeys(
        folds[0].shared["recording"], 0
    )
    items = [Labelled(u, u.emotion) for u in segments(hop=2.0)]
    torn = replace(
        folds[0], train=[*folds[0].train, folds[0].test[0]], test=folds[0].test[1:]
    )
    with pytest.raises(LeakError, match=r"share time in a recording \(1: toy_"):
        select_parts(items, torn)


# ------------------------------------------------------------------ split files


def test_a_split_file_says_where_it_comes_from_and_holds_no_audio(tmp_path):
    split = make_folds(dyads(), "session_speaker_swap", seed=7)[3]
    write_split(split, tmp_path / "fold-3.json")
    assert read_split(tmp_path / "fold-3.json") == split
    text = (tmp_path / "fold-3.json").read_text()
    assert "wav" not in text
    contents = json.loads(text)
    assert contents["corpora"] == ["toy"]
    assert contents["protocol"]["kind"] == "session_speaker_swap"
    assert (contents["seed"], contents["fold"], contents["n_folds"]) == (7, 3, 10)
    assert contents["test"] == sorted(f"toy_2F{n}" for n in range(8))


def test_a_split_file_of_the_first_rule_is_read(tmp_path):
    split = make_folds(soloists(10), CARDS)[0]
    write_split(split, tmp_path / "fold-0.json")
    contents = json.loads((tmp_path / "fold-0.json").read_text())
    assert contents["rule"] == 2
    for new in ("rule", "absent", "unused"):
        del contents[new]
    for new in ("deal", "unknown"):
        del contents["protocol"][new]
    (tmp_path / "fold-0.json").write_text(json.dumps(contents))
    old = read_split(tmp_path / "fold-0.json")
    assert (old.rule, old.parts()) == (1, split.parts())
    items = [Labelled(u, u.emotion) for u in soloists(10)]
    assert len(select_parts(items, old)["test"]) == 12


def test_a_changed_split_file_is_refused(tmp_path):
    path = tmp_path / "fold-0.json"
    write_split(make_folds(dyads(), "leave_one_session_out")[0], path)
    contents = json.loads(path.read_text())
    contents["train"].append(contents["test"].pop())
    path.write_text(json.dumps(contents))
    with pytest.raises(ValueError, match=r"fold-0\.json.*changed by hand"):
        read_split(path)
    path.write_text(path.read_text()[:100])
    with pytest.raises(ValueError, match="not valid JSON"):
        read_split(path)
    path.write_text('{"train": []}')
    with pytest.raises(ValueError, match="no valid, test, fold, .* in this split file"):
        read_split(path)


def test_a_split_is_applied_to_the_utterances_of_today():
    items = [Labelled(u, u.emotion) for u in dyads()]
    split = make_folds(items, "leave_one_session_out")[2]
    parts = select_parts(items[::-1], split)
    assert [i.utterance.id for i in parts["test"]] == split.test
    assert [i.utterance.session for i in parts["test"]] == ["toy_Ses3"] * 16
    with pytest.raises(ValueError, match=r"not there \(1: toy_5M7\)"):
        select_parts(items[:-1], split)


def test_a_foreign_split_that_leaks_is_refused():
    items = [Labelled(u, u.emotion) for u in dyads()]
    split = make_folds(items, "leave_one_session_out")[2]
    # A given list with a speaker on both sides.
    leaking = replace(split, train=[*split.train, split.test[0]], test=split.test[1:])
    with pytest.raises(LeakError, match="share the speaker"):
        select_parts(items, leaking)
    twice = replace(split, train=[*split.train, split.test[0]])
    with pytest.raises(LeakError, match="share the utterance id"):
        select_parts(items, twice)


def test_fold_split_makes_a_fold_or_reads_it(tmp_path):
    items = [Labelled(u, u.emotion) for u in dyads()]
    made = fold_split(items, "leave_one_session_out", fold=1, seed=0)
    assert made == make_folds(items, "leave_one_session_out")[1]
    write_split(made, tmp_path / "fold-1.json")
    given = fold_split(items, "seeds", 1, 0, split_file=tmp_path / "fold-1.json")
    assert given == made
    with pytest.raises(ValueError, match=r"fold-1\.json is fold 1, but fold is 0"):
        fold_split(items, "seeds", 0, 0, split_file=tmp_path / "fold-1.json")
    with pytest.raises(ValueError, match="fold is -1, but .* 0 to 4"):
        fold_split(items, "leave_one_session_out", fold=-1, seed=0)


# ------------------------------------------------------------------ reading corpora


def test_corpora_with_maps_of_their_own(shared, tmp_path):
    size = {"n_speakers": 2, "utterances_per_speaker": 4}
    corpora = {
        "emodb": shared / "corpora" / "EmoDB",
        "synthetic": write_synthetic(tmp_path, "synthetic_target", **size),
    }
    one = {"sad": ["sad"], "happy": ["happy"]}
    items = read_corpora(corpora, one)
    assert Counter(i.label for i in items) == {"sad": 62 + 2, "happy": 71 + 2}
    own = {"emodb": one, "synthetic": one | {"angry": ["angry"]}}
    items = read_corpora(corpora, own)
    assert Counter(i.label for i in items)["angry"] == 2
    # A corpus without a folder is not used.
    items = read_corpora(corpora | {"synthetic": None}, own)
    assert Counter(i.label for i in items) == {"sad": 62, "happy": 71}
    with pytest.raises(ValueError, match="for emodb, but none for synthetic"):
        read_corpora(corpora, {"emodb": one})


@pytest.mark.parametrize("corpora", [{}, {"emodb": None}])
def test_no_corpus_with_a_folder_is_an_error(corpora):
    with pytest.raises(ValueError, match="at least one corpus, .* found {"):
        read_corpora(corpora, {"sad": ["sad"]})
