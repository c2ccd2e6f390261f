"""Published folds of EmoBox and EMO-SUPERB, on generated copies."""

import csv
import json
import logging
from collections import Counter
from dataclasses import replace
from pathlib import Path

import pytest

from speechbrain_ser_cl.corpora import Utterance
from speechbrain_ser_cl.data.protocols import (
    make_folds,
    read_split,
    select_parts,
    write_split,
)
from speechbrain_ser_cl.data.published_folds import published_folds
from speechbrain_ser_cl.data.splits import Labelled, LeakError

WORDS = {"anger": "angry", "happy": "happy", "neutral": "neutral"}


def utterance(corpus, path, speaker, emotion, text=None):
    name = f"{corpus}_{Path(path).stem}"
    text = text and f"{corpus}_{text}"
    return Utterance(
        *(name, Path("/data", path), 1.0, corpus, f"{corpus}_{speaker}"),
        *(None, None, "de", text, emotion),
    )


def emodb(speakers=10):
    """Makes names as in EmoDB: speaker, text, emotion."""
    return [
        utterance("emodb", f"wav/{s:02d}{t}{e[0]}a.wav", f"{s:02d}", WORDS[e], t)
        for s in range(speakers)
        for t in ("a01", "b02")
        for e in WORDS
    ]


def word(u):
    return next(word for word, emotion in WORDS.items() if emotion == u.emotion)


def write_emobox(data, corpus, folds, root, old=False):
    """Writes lists of EmoBox: for each fold, part to utterances."""
    for k, parts in enumerate(folds, 1):
        folder = data / corpus / f"fold_{k}"
        folder.mkdir(parents=True, exist_ok=True)
        for part, some in parts.items():
            name = f"{corpus}_{part}_fold{'' if old else '_'}{k}.jsonl"
            wav, emo = ("audio", "label") if old else ("wav", "emo")
            lines = [
                {"key": f"{corpus}-{n}", wav: f"{root}{u.path.relative_to('/data')}"}
                | {emo: word(u), "length": 1.0}
                for n, u in enumerate(some)
            ]
            (folder / name).write_text("\n".join(map(json.dumps, lines)) + "\n")
    return {"kind": "emobox", "folder": str(data)}


def random_folds(utterances, number=5):
    """Makes EmoBox' folds of EmoDB: speakers are in training and test."""
    return [
        {
            "train": [u for n, u in enumerate(utterances) if n % number != k],
            "test": [u for n, u in enumerate(utterances) if n % number == k],
        }
        for k in range(number)
    ]


def ids(some):
    return sorted(u.id for u in some)


@pytest.mark.parametrize("old", [False, True])
def test_emobox_tests_what_its_lists_say(tmp_path, caplog, old):
    utterances = emodb()
    lists = random_folds(utterances)
    protocol = write_emobox(tmp_path, "emodb", lists, "downloads/emodb/", old)
    with caplog.at_level(logging.INFO):
        folds = make_folds(utterances[::-1], protocol)
    assert [fold.test for fold in folds] == [ids(parts["test"]) for parts in lists]
    for fold, parts in zip(folds, lists, strict=True):
        assert sorted(fold.train + fold.valid) == ids(parts["train"])
        # EmoBox has no validation part here: whole speakers are taken from training.
        assert fold.valid and fold.shared["speaker"]["train/valid"] == 0
        assert fold.shared["speaker"]["train/test"] > 0
        assert fold.shared["text_id"]["train/test"] == 2
    assert "5 of 5 folds of emodb name no validation part" in caplog.text
    shared = max(fold.shared["speaker"]["train/test"] for fold in folds)
    assert f"share up to {shared} speakers, 2 text_ids a fold" in caplog.text


def test_new_lists_of_emodb_are_read_where_older_ones_lie_beside_them(tmp_path):
    utterances = emodb()
    new, old = random_folds(utterances), random_folds(utterances[::-1], 5)[::-1]
    write_emobox(tmp_path, "emodb", old, "downloads/emodb/", old=True)
    protocol = write_emobox(tmp_path, "emodb", new, "downloads/emodb/")
    assert make_folds(utterances, protocol)[1].test == ids(new[1]["test"])


def test_leaks_of_published_folds_are_errors_where_they_are_not_declared(tmp_path):
    utterances = emodb()
    protocol = write_emobox(tmp_path, "emodb", random_folds(utterances), "downloads/x/")
    with pytest.raises(LeakError, match="share the speaker"):
        make_folds(utterances, protocol | {"leaks": ["text_id"]})


def test_speakers_of_iemocap_are_those_who_speak(tmp_path):
    """EmoBox' speaker table has the dialogue; folds use the reader's speakers."""
    utterances = [
        utterance(
            "iemocap",
            f"Session{s}/sentences/wav/Ses0{s}F_impro01/Ses0{s}F_impro01_{g}00{n}.wav",
            f"Ses0{s}{g}",
            emotion,
        )
        for s in range(1, 6)
        for g in "FM"
        for n, emotion in enumerate(WORDS.values())
    ]
    sessions = [[u for u in utterances if u.speaker[-2] == str(s)] for s in range(1, 6)]
    lists = [
        {"test": own, "train": [u for u in utterances if u not in own]}
        for own in sessions
    ]
    protocol = write_emobox(tmp_path, "iemocap", lists, "downloads/iemocap/")
    (tmp_path / "iemocap" / "data.seg.wrd.stm").write_text(
        "\n".join(f"{u.path.stem} 1 {u.path.stem[:6]} 0 1 <> x" for u in utterances)
    )
    folds = make_folds(utterances, protocol | {"leaks": []})
    by_id = {u.id: u for u in utterances}
    assert [{by_id[n].speaker for n in fold.test} for fold in folds] == [
        {f"iemocap_Ses0{s}F", f"iemocap_Ses0{s}M"} for s in range(1, 6)
    ]


def test_names_that_occur_in_several_folders_are_reported_apart_by_them(tmp_path):
    """As in CASIA: each speaker has 201.wav for each emotion."""
    utterances = [
        Utterance(
            f"casia_{who}_{emotion}_{n}",
            Path(f"/data/{who}/{emotion}/{n}.flac"),
            *(1.0, "casia", f"casia_{who}", None, None, "zh", None, emotion),
        )
        for who in ("li", "wu", "zh", "su")
        for emotion in WORDS.values()
        for n in (201, 202)
    ]
    own = [[u for u in utterances if who in u.id] for who in ("li", "wu")]
    lists = [
        {"test": some, "train": [u for u in utterances if u not in some]}
        for some in own
    ]
    protocol = write_emobox(tmp_path / "data", "casia", lists, "downloads/casia/")
    for path in tmp_path.rglob("*.jsonl"):  # converted from wav
        path.write_text(path.read_text().replace(".flac", ".wav"))
    # The clone itself is accepted too.
    folds = make_folds(utterances, protocol | {"folder": str(tmp_path)})
    assert [fold.test for fold in folds] == [ids(some) for some in own]
    assert folds[0].valid and folds[0].shared["speaker"]["train/valid"] == 0


def test_utterances_validate_where_training_speakers_are_too_few(tmp_path, caplog):
    utterances = emodb(speakers=3)
    lists = [{"train": utterances[6:], "test": utterances[:6]}]
    protocol = write_emobox(tmp_path, "emodb", lists, "downloads/emodb/")
    with caplog.at_level(logging.INFO):
        (fold,) = make_folds(utterances, protocol)
    assert (len(fold.train), len(fold.valid), len(fold.test)) == (9, 3, 6)
    assert fold.shared["speaker"] == {
        "train/valid": 2,
        "train/test": 0,
        "valid/test": 0,
    }
    assert "a fifth of the training utterances validates" in caplog.text
    (fold,) = make_folds(utterances, protocol | {"valid": "none"})
    assert (len(fold.train), len(fold.valid)) == (12, 0)


def test_what_lists_and_corpus_do_not_both_have_is_an_error_with_counts(tmp_path):
    utterances = emodb()
    protocol = write_emobox(tmp_path, "emodb", random_folds(utterances), "downloads/a/")
    more = [*utterances, utterance("emodb", "wav/99a01aa.wav", "99", "angry")]
    with pytest.raises(ValueError, match=r"1 of 61 utterances of emodb are not in"):
        make_folds(more, protocol)
    with pytest.raises(ValueError, match=r"2 of 60 files of the lists are not there"):
        make_folds(utterances[2:], protocol)
    loose = protocol | {"unknown": "leave_out"}
    assert [fold.unused for fold in make_folds(more, loose)] == [1] * 5
    assert len(make_folds(utterances[2:], loose)) == 5
    # Another corpus with this name.
    alien = [utterance("emodb", f"x/{n}.wav", f"{n}", "angry") for n in range(9)]
    with pytest.raises(ValueError, match="9 of 9 utterances"):
        make_folds(alien, loose)


def test_emotions_without_a_class_are_not_missed(tmp_path):
    utterances = emodb()
    protocol = write_emobox(tmp_path, "emodb", random_folds(utterances), "downloads/a/")
    two = [u for u in utterances if u.emotion != "neutral"]
    assert Counter(n for f in make_folds(two, protocol) for n in f.test) == Counter(
        ids(two)
    )


def test_other_emotions_in_the_lists_are_counted(tmp_path, caplog):
    utterances = emodb()
    protocol = write_emobox(tmp_path, "emodb", random_folds(utterances), "downloads/a/")
    for path in tmp_path.rglob("*.jsonl"):
        text = path.read_text().splitlines()
        text = [x.replace("anger", "happy") if "/00a01" in x else x for x in text]
        path.write_text("\n".join(text))
    make_folds(utterances, protocol)
    assert "1 of 60 utterances of emodb have another emotion" in caplog.text


def test_damaged_or_absent_lists_are_named(tmp_path):
    utterances = emodb()
    with pytest.raises(ValueError, match="folder is None"):
        make_folds(utterances, "emobox")
    protocol = {"kind": "emobox", "folder": str(tmp_path)}
    with pytest.raises(ValueError, match="no lists of emodb"):
        make_folds(utterances, protocol)
    write_emobox(tmp_path, "emodb", random_folds(utterances), "downloads/a/")
    path = tmp_path / "emodb" / "fold_2" / "emodb_test_fold_2.jsonl"
    good = path.read_text()
    path.write_text(good + '{"wav": 1\n')
    with pytest.raises(ValueError, match=r"emodb_test_fold_2.jsonl, line 13"):
        make_folds(utterances, protocol)
    train = path.with_name("emodb_train_fold_2.jsonl").read_text()
    path.write_text(good + train.splitlines()[0])
    with pytest.raises(ValueError, match="fold 1 of emodb has wav/00a01aa.wav in two"):
        make_folds(utterances, protocol)
    path.unlink()
    with pytest.raises(ValueError, match="has no emodb_test_fold_2.jsonl"):
        make_folds(utterances, protocol)


def test_records_do_not_say_where_the_lists_are(tmp_path):
    utterances = emodb()
    protocol = write_emobox(tmp_path, "emodb", random_folds(utterances), "downloads/a/")
    fold = make_folds(utterances, {"per_corpus": {"emodb": protocol}})[0]
    write_split(fold, tmp_path / "fold-0.json")
    assert str(tmp_path) not in (tmp_path / "fold-0.json").read_text()
    again = read_split(tmp_path / "fold-0.json")
    assert again == fold
    select_parts([Labelled(u, u.emotion) for u in utterances], again)


def test_emo_superb_matches_by_name_and_has_a_validation_part(tmp_path, caplog):
    utterances = [
        utterance(
            *("crema_d", f"AudioWAV/{s}_{t}_{e[:3].upper()}_XX.wav", s, WORDS[e], t)
        )
        for s in (1001, 1002, 1003, 1004)
        for t in ("DFA", "IEO")
        for e in WORDS
    ]
    sets = ["Train", "Train", "Development", "Test"]
    folder = tmp_path / "CREMA-D" / "Primary"
    folder.mkdir(parents=True)
    for k in (1, 2, 10):
        with open(folder / f"labels_consensus_{k}.csv", "w", newline="") as file:
            writer = csv.writer(file)
            writer.writerow(["FileName", "angry", "happy", "SpkrID", "Split_Set"])
            for n, u in enumerate(utterances):
                part = sets[(n // 6 + k) % 4]
                writer.writerow([u.path.name, 0.6, 0.4, n // 6, part])
    protocol = {"kind": "emo_superb", "folder": str(tmp_path)}
    folds = make_folds(utterances[1:], protocol)
    assert [len(fold.valid) for fold in folds] == [6, 5, 5]
    by_id = {u.id: u for u in utterances}
    for fold, tested in zip(folds, ("1003", "1002", "1002"), strict=True):
        assert {by_id[n].speaker for n in fold.test} == {f"crema_d_{tested}"}
        assert fold.shared["speaker"]["train/test"] == 0
    assert "1 of its 24 files of crema_d are not used" in caplog.text
    assert "2 text_ids" in caplog.text


def test_pieces_of_long_recordings_are_matched_by_their_names(tmp_path):
    """As in PAVOQUE, whose lists name the recording, some times with two styles."""
    utterances = [
        replace(
            utterance("pavoque", f"cut/m{n}-{style}.flac", "1", "angry"),
            recording=f"pavoque_pavoque-{file}",
            start=n * 2.0,
        )
        for file, style in (("angry", "angry"), ("outtakes", "angry"))
        for n in range(3 * (file == "outtakes"), 3 + 3 * (file == "outtakes"))
    ]
    folder = tmp_path / "pavoque" / "fold_1"
    folder.mkdir(parents=True)
    for part, some in (("train", utterances[1:]), ("test", utterances[:1])):
        lines = [
            {"key": u.id.replace("_", "-"), "emo": "angry", "start_time": u.start}
            | {"wav": f"downloads/pavoque/{u.recording[8:]}.flac"}
            for u in some
        ]
        lines.append(lines[-1] | {"key": f"pavoque-m9-{part}", "emo": "poker"})
        text = "\n".join(map(json.dumps, lines))
        (folder / f"pavoque_{part}_fold_1.jsonl").write_text(text)
    (parts,) = published_folds(utterances, "emobox", tmp_path)
    assert parts.tolist() == [2, 0, 0, 0, 0, 0]
