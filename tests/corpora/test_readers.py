"""Corpus readers on generated corpora, complete and damaged."""

import dataclasses
import os
import warnings
from collections import Counter

import pytest

from speechbrain_ser_cl.corpora import CorpusError, Utterance
from speechbrain_ser_cl.data.splits import (
    LeakError,
    check_leaks,
    map_emotions,
    split_fraction,
)
from speechbrain_ser_cl.registry import CORPORA
from tests import hollow

WRITERS = {
    "iemocap": hollow.write_iemocap,
    "msp_improv": hollow.write_msp_improv,
    "emodb": hollow.write_emodb,
    "ravdess": hollow.write_ravdess,
    "crema_d": hollow.write_crema_d,
    "casia": hollow.write_casia,
}
AUDIO = {
    "iemocap": "Session1/sentences/wav/*/Ses*.wav",
    "msp_improv": "session1/*/*/MSP*.wav",
    "emodb": "wav/*.wav",
    "ravdess": "Actor_01/*.wav",
    "crema_d": "AudioWAV/*.wav",
    "casia": "wangzhe/angry/2*.wav",
}
LABELLED_BY_FILE = ("iemocap", "msp_improv")


@pytest.fixture(scope="module")
def corpora(tmp_path_factory):
    """Writes each complete generated corpus, once."""
    folder = tmp_path_factory.mktemp("hollow")
    return {name: write(folder / name) for name, write in WRITERS.items()}


@pytest.fixture(scope="module")
def utterances(corpora):
    """Reads each corpus, without a warning."""
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        return {name: CORPORA.get(name)(root) for name, root in corpora.items()}


@pytest.fixture(params=WRITERS)
def corpus(request):
    return request.param


def some_audio(root, corpus, number):
    return sorted(root.glob(AUDIO[corpus]))[:number]


def by_id(utterances):
    return {utterance.id: utterance for utterance in utterances}


def test_total_counts(utterances):
    assert {name: len(found) for name, found in utterances.items()} == {
        "iemocap": 10039,
        "msp_improv": 8438,
        "emodb": 535,
        "ravdess": 1440,
        "crema_d": 7442,
        "casia": 1200,
    }
    speakers = {name: len({u.speaker for u in us}) for name, us in utterances.items()}
    assert speakers == {
        "iemocap": 10,
        "msp_improv": 12,
        "emodb": 10,
        "ravdess": 24,
        "crema_d": 91,
        "casia": 4,
    }


def test_what_is_compared_across_corpora_is_unique(utterances):
    everything = [u for found in utterances.values() for u in found]
    assert len({u.id for u in everything}) == len(everything)
    for field in ("speaker", "session", "text_id"):
        owners = {}
        for u in everything:
            if (value := getattr(u, field)) is not None:
                assert owners.setdefault(value, u.corpus) == u.corpus


def test_sorted_by_id(utterances, corpus):
    ids = [u.id for u in utterances[corpus]]
    assert ids == sorted(ids)
    assert {u.corpus for u in utterances[corpus]} == {corpus}


def test_the_folder_above_is_found(corpora, utterances, corpus):
    assert len(CORPORA.get(corpus)(corpora[corpus].parent)) == len(utterances[corpus])


def test_iemocap_speakers_come_from_the_last_part_of_the_name(utterances):
    dialogue = [u for u in utterances["iemocap"] if "Ses05M_script01_1b_" in u.id]
    assert Counter((u.speaker, u.gender) for u in dialogue) == {
        ("iemocap_Ses05F", "female"): 9,
        ("iemocap_Ses05M", "male"): 15,
    }
    assert {u.session for u in dialogue} == {"iemocap_Ses05"}
    assert {u.text_id for u in dialogue} == {"iemocap_script01_1"}


def test_iemocap_emotions_and_free_speech(utterances):
    emotions = Counter(u.emotion for u in utterances["iemocap"])
    assert emotions["happy"] + emotions["excited"] == 1636
    assert emotions["other"] == 2510  # 3 other and 2507 without agreement
    assert emotions["frustrated"] == 1849
    utterance = by_id(utterances["iemocap"])["iemocap_Ses03M_impro04_F002"]
    assert utterance.speaker == "iemocap_Ses03F"
    assert utterance.text_id is None
    assert utterance.path.name == "Ses03M_impro04_F002.wav"
    assert utterance.duration == 0.01


def test_what_listeners_said(utterances):
    """Turns have the listeners' words, without the actors' own, and known values."""
    turn = by_id(utterances["iemocap"])["iemocap_Ses03M_impro04_F002"]
    assert turn.votes == {"neutral": 1, "frustrated": 1, "angry": 1}
    assert turn.dimensions == {"valence": 2.5, "arousal": 2.5, "dominance": 2.5}
    turns = utterances["msp_improv"]
    assert all(turn.votes == {"neutral": 1, "other": 1} for turn in turns)
    known = {"arousal": 1.857143, "valence": 3.0, "naturalness": 4.428571}
    told = [turn.dimensions for turn in turns]
    assert told.count(known) == -(-8438 // 50)  # where dominance is NaN
    assert told.count(known | {"dominance": 2.571429}) == 8438 - told.count(known)


def test_msp_improv_label_is_the_annotators_not_the_intended_one(corpora, utterances):
    found = by_id(utterances["msp_improv"])
    lines = (corpora["msp_improv"] / "Evaluation.txt").read_text("latin-1").split("\n")
    emotions = {"A": "angry", "H": "happy", "N": "neutral", "S": "sad"}
    turns = [line.split("; ")[:2] for line in lines if line.startswith("UTD")]
    for name, code in turns:
        utterance = found["msp_improv_" + name[len("UTD-IMPROV-") : -len(".avi")]]
        assert utterance.emotion == emotions.get(code, "other")
    assert {u.emotion for i, u in found.items() if "S01A" in i} > {"happy", "sad"}


def test_msp_improv_fields(utterances):
    read, free = (
        next(u for u in utterances["msp_improv"] if f"M03-{scenario}-" in u.id)
        for scenario in "TP"
    )
    assert (read.speaker, read.session, read.gender) == (
        "msp_improv_M03",
        "msp_improv_session3",
        "male",
    )
    assert read.text_id == "msp_improv_" + read.id.split("_")[2][:3]
    assert free.text_id is None


def test_msp_improv_with_the_other_spelling_and_an_audio_folder(tmp_path, utterances):
    root = hollow.write_msp_improv(tmp_path, "Evalution.txt", "Audio")
    found = CORPORA.get("msp_improv")(root)
    assert [u.emotion for u in found] == [u.emotion for u in utterances["msp_improv"]]
    assert found[0].path.is_relative_to(root / "Audio")


def test_file_names_are_understood(utterances):
    emodb = by_id(utterances["emodb"])["emodb_08b01Ta"]
    assert emodb == Utterance(
        id="emodb_08b01Ta",
        path=emodb.path,
        duration=emodb.duration,
        corpus="emodb",
        speaker="emodb_08",
        session=None,
        gender="female",
        language="de",
        text_id="emodb_b01",
        emotion="sad",
    )
    ravdess = by_id(utterances["ravdess"])["ravdess_03-01-06-01-02-01-12"]
    assert ravdess == Utterance(
        id="ravdess_03-01-06-01-02-01-12",
        path=ravdess.path,
        duration=0.01,
        corpus="ravdess",
        speaker="ravdess_12",
        session=None,
        gender="female",
        language="en",
        text_id="ravdess_02",
        emotion="fearful",
        intensity="normal",
    )
    crema_d = by_id(utterances["crema_d"])["crema_d_1040_ITH_SAD_X"]
    assert crema_d == Utterance(
        id="crema_d_1040_ITH_SAD_X",
        path=crema_d.path,
        duration=0.01,
        corpus="crema_d",
        speaker="crema_d_1040",
        session=None,
        gender="male",
        language="en",
        text_id="crema_d_ITH",
        emotion="sad",
        groups={"age": "30", "race": "Caucasian", "ethnicity": "Not Hispanic"},
    )


def test_ravdess_odd_actors_are_men(utterances):
    for u in utterances["ravdess"]:
        assert u.gender == ("male" if int(u.speaker[-2:]) % 2 else "female")


def test_ravdess_sung_files_are_not_read(corpora, tmp_path):
    root = hollow.linked_copy(corpora["ravdess"], tmp_path)
    song = root / "Actor_01" / "03-02-04-01-01-01-01.wav"
    song.write_bytes(hollow.wav_bytes(480, 48000))
    assert len(CORPORA.get("ravdess")(root)) == 1440


def test_casia_speakers_and_sentences(corpora, utterances, tmp_path):
    found = by_id(utterances["casia"])
    assert Counter((u.speaker, u.gender) for u in found.values()) == {
        ("casia_liuchanhong", "female"): 300,
        ("casia_wangzhe", "male"): 300,
        ("casia_zhaoquanyin", "female"): 300,
        ("casia_zhaozuoxiang", "male"): 300,
    }
    assert set(Counter(u.emotion for u in found.values()).values()) == {200}
    assert set(Counter(u.text_id for u in found.values()).values()) == {24}
    utterance = found["casia_zhaozuoxiang_surprise_250"]
    assert utterance == Utterance(
        id="casia_zhaozuoxiang_surprise_250",
        path=corpora["casia"] / "ZhaoZuoxiang" / "surprise" / "250.wav",
        duration=0.01,
        corpus="casia",
        speaker="casia_zhaozuoxiang",
        session=None,
        gender="male",
        language="zh",
        text_id="casia_250",
        emotion="surprised",
    )
    root = hollow.linked_copy(corpora["casia"], tmp_path)
    (root / "liuchanhg").rename(root / "liuchanhong")
    assert [u.id for u in CORPORA.get("casia")(root)] == list(found)


def test_a_random_split_of_casia_shares_its_sentences(utterances):
    items, _ = map_emotions(utterances["casia"], {"c": ["angry"], "d": ["sad"]})
    test, train, _ = split_fraction(items, 0.2, seed=0)
    with pytest.raises(LeakError, match="share the speaker"):
        check_leaks({"train": train, "test": test})
    shared = check_leaks(
        {"train": train, "test": test}, allow=("speaker", "session", "text_id")
    )
    assert shared["speaker"] == {"train/test": 4}
    assert shared["text_id"]["train/test"] > 40


def test_crema_d_without_demographics(corpora, tmp_path):
    root = hollow.linked_copy(corpora["crema_d"], tmp_path)
    (root / "VideoDemographics.csv").unlink()
    assert {u.gender for u in CORPORA.get("crema_d")(root)} == {None}


def test_crema_d_with_demographics_that_lack_an_actor(corpora, tmp_path):
    root = hollow.linked_copy(corpora["crema_d"], tmp_path)
    hollow.damage(root / "VideoDemographics.csv", b"ActorID,Age,Sex\n1001,51,Male\n")
    with pytest.raises(CorpusError, match="VideoDemographics.*90: 1002, 1003"):
        CORPORA.get("crema_d")(root)


def test_crema_d_audio_folder_itself(corpora):
    found = CORPORA.get("crema_d")(corpora["crema_d"] / "AudioWAV")
    assert {u.gender for u in found} == {"female", "male"}


def test_wrong_folder(tmp_path, corpus):
    (tmp_path / "holiday.jpg").touch()
    with pytest.raises(CorpusError, match=f"{corpus}.*Looked for.*holiday.jpg"):
        CORPORA.get(corpus)(tmp_path, allow_missing=True)
    with pytest.raises(CorpusError, match="no folder"):
        CORPORA.get(corpus)(tmp_path / "nowhere", allow_missing=True)


def test_missing_and_unreadable_files(corpora, tmp_path, corpus):
    """Errors name at most ten files and their number; or the rest is read."""
    root = hollow.linked_copy(corpora[corpus], tmp_path)
    missing = some_audio(root, corpus, 12)
    for path in missing:
        path.unlink()
    corrupt, empty, silent = some_audio(root, corpus, 3)
    hollow.damage(corrupt, b"this is not audio")
    hollow.damage(empty, b"")
    hollow.damage(silent, hollow.wav_bytes(0, 16000))
    read = CORPORA.get(corpus)

    with pytest.raises(CorpusError) as error:
        read(root)
    message = str(error.value)
    assert "corrupt or empty audio files (3: " in message
    for path in (corrupt, empty, silent):
        assert path.name in message
    assert "allow_missing: True" in message
    assert "instead of" in message
    if corpus in LABELLED_BY_FILE:
        assert "missing audio files (12: " in message
        assert "and 2 more" in message

    with pytest.warns(UserWarning) as caught:
        found = read(root, allow_missing=True)
    assert len(caught) == 1
    gone = {p.relative_to(root) for p in [*missing, corrupt, empty, silent]}
    assert len(gone) == 15
    assert f"continuing with {len(found)} utterances" in str(caught[0].message)
    first = corpora[corpus]
    whole = {u.id: u.path.relative_to(first) for u in read(first)}
    assert [u.id for u in found] == [i for i, path in whole.items() if path not in gone]


@pytest.mark.parametrize(
    ("corpus", "old", "new", "told"),
    [
        ("emodb", "wav/03a01Wa.wav", "wav/03a01Qa.wav", "03a01Qa has 'Q'"),
        (
            "ravdess",
            "Actor_01/03-01-02-01-01-01-01.wav",
            "Actor_01/03-01-09-01-01-01-01.wav",
            "03-01-09-01-01-01-01 has '09'",
        ),
        (
            "crema_d",
            "AudioWAV/1001_DFA_ANG_XX.wav",
            "AudioWAV/1001_DFA_BOR_XX.wav",
            "1001_DFA_BOR_XX has 'BOR'",
        ),
        ("casia", "wangzhe/sad", "wangzhe/bored", "wangzhe_bored_201 has 'bored'"),
    ],
)
def test_unknown_code_in_a_file_name(corpora, tmp_path, corpus, old, new, told):
    root = hollow.linked_copy(corpora[corpus], tmp_path)
    (root / old).rename(root / new)
    with pytest.raises(CorpusError, match=f"unknown label codes .*: {told}"):
        CORPORA.get(corpus)(root, allow_missing=True)


@pytest.mark.parametrize(
    ("corpus", "labels", "old", "new"),
    [
        ("iemocap", "Session2/dialog/EmoEvaluation/Ses02F_impro01.txt", "hap", "joy"),
        ("msp_improv", "Evaluation.txt", ".avi; H;", ".avi; joy;"),
    ],
)
def test_unknown_code_in_a_label_file(corpora, tmp_path, corpus, labels, old, new):
    root = hollow.linked_copy(corpora[corpus], tmp_path)
    path = root / labels
    content = path.read_bytes()
    hollow.damage(path, content.replace(old.encode(), new.encode()))
    with pytest.raises(
        CorpusError,
        match=f"unknown label codes .{content.count(old.encode())}: .*has 'joy'",
    ):
        CORPORA.get(corpus)(root, allow_missing=True)


@pytest.mark.parametrize("corpus", ["emodb", "ravdess", "crema_d", "casia"])
def test_a_stray_file_is_named(corpora, tmp_path, corpus):
    root = hollow.linked_copy(corpora[corpus], tmp_path)
    stray = some_audio(root, corpus, 1)[0].with_name("merged.wav")
    stray.write_bytes(hollow.wav_bytes(160, 16000))
    with pytest.raises(CorpusError, match="1: merged.wav"):
        CORPORA.get(corpus)(root)


def test_the_same_utterance_twice(corpora, tmp_path, corpus):
    root = hollow.linked_copy(corpora[corpus], tmp_path)
    if corpus == "iemocap":
        labels = root / "Session1/dialog/EmoEvaluation/Ses01F_impro01.txt"
    elif corpus == "msp_improv":
        labels = root / "Evaluation.txt"
    if corpus in LABELLED_BY_FILE:
        hollow.damage(labels, labels.read_bytes() + b"\n" + labels.read_bytes())
    else:
        path = some_audio(root, corpus, 1)[0]
        os.link(path, path.with_suffix(".flac"))
    with pytest.raises(CorpusError, match="more than once"):
        CORPORA.get(corpus)(root, allow_missing=True)


def test_emodb_copies_of_one_length_are_refused(corpora, tmp_path):
    root = hollow.linked_copy(corpora["emodb"], tmp_path)
    for path in root.glob(AUDIO["emodb"]):
        hollow.damage(path, hollow.wav_bytes(320, 16000))
    for allow_missing in (False, True):
        with pytest.raises(CorpusError, match=r"all 535 files last 0.02 s"):
            CORPORA.get("emodb")(root, allow_missing=allow_missing)


def test_nothing_left_is_an_error(tmp_path):
    (tmp_path / "wav").mkdir()
    (tmp_path / "wav" / "03a01Wa.wav").write_bytes(b"")
    with pytest.raises(CorpusError, match="no utterance left"):
        CORPORA.get("emodb")(tmp_path, allow_missing=True)


WRONG = {"emotion": "Joy", "gender": "m", "duration": 0.0, "split": "dev"}


def test_utterance_checks_its_fields(utterances):
    utterance = utterances["emodb"][0]
    for field, value in WRONG.items():
        with pytest.raises(ValueError, match=f"{utterance.id}.*{field}"):
            dataclasses.replace(utterance, **{field: value})


def test_real_emodb(shared):
    found = CORPORA.get("emodb")(shared / "corpora" / "EmoDB")
    assert len(found) == 535
    assert 1450 < sum(u.duration for u in found) < 1500  # 0.41 h
    assert CORPORA.get("emodb")(shared / "corpora" / "EmoDB" / "wav") == found


def test_real_ravdess_in_flac(shared):
    found = CORPORA.get("ravdess")(shared / "corpora" / "RAVDESS")
    assert len(found) == 1440
    assert {u.path.suffix for u in found} == {".flac"}


def test_real_part_of_crema_d(shared):
    read = CORPORA.get("crema_d")
    with pytest.raises(CorpusError, match="utterances 1999 instead of 7442"):
        read(shared / "corpora" / "CREMA-D")
    with pytest.warns(UserWarning, match="continuing with 1999"):
        found = read(shared / "corpora" / "CREMA-D", allow_missing=True)
    assert Counter(u.emotion for u in found) == {"happy": 1000, "sad": 999}
    assert len({u.speaker for u in found}) == 78
