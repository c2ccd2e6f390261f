"""The data report on corpora with known defects."""

import json
import os
import re
from dataclasses import replace
from itertools import combinations

import numpy as np
import pytest
import soundfile

from speechbrain_ser_cl.corpora import read_synthetic, read_table, write_synthetic
from speechbrain_ser_cl.data.experiment import prepare
from speechbrain_ser_cl.data.features.place import estimate_features
from speechbrain_ser_cl.data.protocols import make_folds, select_parts
from speechbrain_ser_cl.data.quality.audio_facts import audio_facts
from speechbrain_ser_cl.data.quality.report import DataError, data_report
from speechbrain_ser_cl.data.splits import Labelled

CLASSES = ["neutral", "happy", "sad", "angry"]


@pytest.fixture(scope="module")
def clean(tmp_path_factory):
    """Makes 6 speakers with 20 utterances each, without defects."""
    folder = write_synthetic(
        tmp_path_factory.mktemp("clean"),
        "synthetic_source",
        n_speakers=6,
        utterances_per_speaker=20,
    )
    return read_synthetic(folder)


def report_of(utterances, protocol=None, **options):
    items = [Labelled(u, u.emotion) for u in utterances]
    facts = audio_facts(utterances)
    if protocol is None:
        return data_report(items, facts, CLASSES, **options)
    split = make_folds(items, protocol)[0]
    parts = select_parts(items, split)
    return data_report(items, facts, CLASSES, parts, split.shared, **options)


def found(report):
    return {finding.check: sorted(finding.names) for finding in report.findings}


def with_audio(utterance, path, samples, rate=16000, **changes):
    """Returns the same utterance with other audio."""
    soundfile.write(path, samples, rate, subtype="PCM_16")
    duration = len(samples) / rate
    return replace(utterance, path=path, duration=duration, **changes)


def test_nothing_is_wrong_with_clean_data(clean):
    report = report_of(clean, {"kind": "session_kfold", "n_folds": 3})
    assert report.findings == []
    report.refuse_errors()
    assert report.parts["all"]["classes"] == dict.fromkeys(CLASSES, 30)
    assert [report.parts[p]["speakers"] for p in ("train", "valid", "test")] == [2] * 3
    lengths = sorted(u.duration for u in clean)
    assert report.seconds["shortest"] == lengths[0]
    assert report.parts["all"]["hours"] == pytest.approx(sum(lengths) / 3600, abs=1e-4)
    assert "features" not in report.text() and report.as_dict()["features"] is None
    estimate = estimate_features((u.duration for u in clean), folder="kept")
    report = replace(report, features=estimate)
    assert report.as_dict()["features"]["frames_bytes"] == estimate.frames_bytes
    text = report.text()
    assert re.search("mean and standard deviation, .* a layer; in kept, free: ", text)
    assert "0 errors, 0 warnings" in text
    assert "speaker in two parts: none that is known" in text
    assert "text_id in two parts: 10 in train/valid" in text


def test_each_defect_of_a_file_is_found_and_no_other(clean, tmp_path):
    rng = np.random.default_rng(0)
    noise = rng.normal(0, 0.2, 16000)
    defects = {
        "silent": rng.normal(0, 0.0001, 16000),
        "offset": np.full(16000, 0.25),  # silence with an offset
        "loud": noise * 3,  # clipped at full scale by the format
        "limited": np.clip(noise, -0.3, 0.3),  # clipped before its level was lowered
        "short": noise[:1600],
        "long": rng.normal(0, 0.2, 31 * 16000),
        "sine": 0.9 * np.sin(np.arange(16000) * 2 * np.pi * 60 / 16000),
    }
    utterances = list(clean)
    names = {}
    for n, (name, samples) in enumerate(defects.items()):
        utterances[n] = with_audio(clean[n], tmp_path / f"{name}.wav", samples)
        names[name] = clean[n].id
    report = report_of(utterances)
    assert found(report) == {
        "silent": sorted([names["silent"], names["offset"]]),
        "clipped": sorted([names["loud"], names["limited"]]),
        "short": [names["short"]],
        "long": [names["long"]],
    }
    assert [finding.check for finding in report.errors] == ["silent"]
    assert report.leave_out() == sorted([names["silent"], names["offset"]])
    with pytest.raises(DataError, match=f"1 error: silent files.*{names['silent']}"):
        report.refuse_errors()
    assert report_of(utterances, allow_missing=True).errors == []


def test_audio_that_cannot_be_read_is_an_error(clean, tmp_path):
    broken = tmp_path / "broken.flac"
    soundfile.write(broken, *soundfile.read(clean[0].path))
    broken.write_bytes(broken.read_bytes()[:-2000])
    utterances = [replace(clean[0], path=broken), *clean[1:]]
    report = report_of(utterances, allow_missing=True)
    assert found(report) == {"unreadable": [clean[0].id]}
    assert str(broken) in report.errors[0].message


def copies(clean, tmp_path, of, to):
    """Copies ``clean``, with the audio of ``of`` in place of that of ``to``."""
    samples, rate = soundfile.read(clean[of].path)
    padded = np.concatenate([np.zeros(160), samples, np.zeros(99)])
    utterances = list(clean)
    for n, place in enumerate(to):
        path = tmp_path / f"copy{n}.{('wav', 'flac')[n % 2]}"
        stereo = np.stack([padded] * 2, axis=1)
        utterances[place] = with_audio(clean[place], path, stereo, rate)
    return utterances


def test_the_same_audio_is_found_whatever_the_file(clean, tmp_path):
    # Utterances of one speaker and one emotion are 4 apart; all are in one part.
    utterances = copies(clean, tmp_path, of=0, to=[4, 8])
    report = report_of(utterances, {"kind": "session_kfold", "n_folds": 3})
    ids = [clean[n].id for n in (0, 4, 8)]
    assert found(report) == {"same audio twice": ids}
    assert report.errors == []
    assert report.leave_out() == ids[1:]
    assert " = ".join(ids) in report.text()


def test_the_same_audio_in_two_parts_is_an_error(clean, tmp_path):
    # 20 later is another speaker, 1 later another emotion too.
    utterances = copies(clean, tmp_path, of=0, to=[20, 41, 60, 80, 100])
    report = report_of(utterances, {"kind": "session_kfold", "n_folds": 3})
    ids = [clean[n].id for n in (0, 20, 41, 60, 80, 100)]
    assert found(report) == {
        "same audio in two parts": ids,
        "same audio with two classes": ids,
        "same audio by two speakers": ids,
    }
    (error,) = report.errors
    assert "1 in test/train/valid" in error.message
    # Which of two labels is right is unknown.
    assert report.leave_out() == ids
    kept = [u for u in utterances if u.id not in report.leave_out()]
    assert found(report_of(kept)) == {}


def test_what_is_excluded_is_no_error(tmp_path):
    folder = tmp_path / "corpus"
    write_synthetic(folder, "synthetic_source", n_speakers=6, utterances_per_speaker=4)
    first, *_, last = sorted(read_synthetic(folder), key=lambda u: u.id)
    last.path.write_bytes(first.path.read_bytes())  # of another speaker
    values = {
        "corpora": {"synthetic_source": str(folder)},
        "emotion_map": {name: [name] for name in CLASSES},
        "protocol": {"kind": "session_kfold", "n_folds": 3},
        "seed": 0,
        "data_folder": str(tmp_path / "data"),
    }
    with pytest.raises(DataError, match="same audio in two parts"):
        prepare(values, report=True)
    kept = prepare(values | {"exclude": last.id}, report=True)
    assert kept.unused == {last.id: "exclude"}
    assert last.id not in {u.id for part in kept.parts.values() for u, _ in part}


def test_small_and_absent_classes(clean):
    few = [u for u in clean if u.emotion != "sad" or u.id.endswith("u002_sad")]
    report = report_of(few, {"kind": "session_kfold", "n_folds": 3})
    assert found(report) == {
        "tiny class": ["sad 2 in test", "sad 2 in train", "sad 2 in valid"]
    }
    speakers = sorted({u.speaker for u in few})
    split = dict(zip(speakers, ["train"] * 4 + ["valid", "test"], strict=True))
    given = [replace(u, split=split[u.speaker]) for u in few]
    given = [u for u in given if u.split == "train" or u.emotion != "sad"]
    report = report_of(given, "given")
    absent = {f.level: f.names for f in report.findings if f.check == "absent class"}
    assert absent == {"warning": ["sad in valid", "sad in test"]}
    assert report.errors == []


def test_suspicious_speakers(clean):
    speakers = sorted({u.speaker for u in clean})
    changed = [
        replace(u, speaker=f"{u.speaker.upper()} ")
        if u.speaker == speakers[1] and u.emotion == "sad"
        else replace(u, speaker=None)
        if u.id == clean[0].id
        else u
        for u in clean
    ]
    report = report_of(changed)
    assert found(report) == {
        "unknown speaker": [clean[0].id],
        "speaker with one class": [f"{speakers[1].upper()} "],
        "speakers alike": [f"{speakers[1].upper()}  = {speakers[1]}"],
    }
    assert report.parts["all"]["speakers"] == 7
    assert report.parts["all"]["of unknown speakers"] == 1
    assert re.search("of unknown speakers +1\n", report.text())


def test_two_people_with_one_name(clean):
    """A pattern that matches only the number makes f1 and m1 one speaker."""
    names = sorted({u.speaker for u in clean})
    merged = [replace(u, speaker=f"s{names.index(u.speaker) // 2}") for u in clean]
    report = report_of(merged)
    assert found(report) == {"speaker of two genders": ["s0", "s1", "s2"]}
    assert "s0: female and male" in report.text()
    spoken = [replace(u, language="de") if u.id == clean[0].id else u for u in clean]
    assert found(report_of(spoken)) == {"speaker of two languages": [names[0]]}


def test_classes_that_the_recording_gives_away(clean, tmp_path):
    changed = []
    for n, u in enumerate(clean):
        if u.emotion == "angry" and n % 8 == 3:
            samples, rate = soundfile.read(u.path)
            u = with_audio(u, tmp_path / f"{n}.wav", np.stack([samples] * 2, 1), rate)
        changed.append(u)
    # Half of one class in stereo: right for 37.5 %, and for 25 % without.
    report = report_of(changed)
    assert list(found(report)) == ["recorded otherwise"]
    assert "predicts the class of 38%, the most frequent class is 25%" in report.text()
    # If all classes have it, it carries no information.
    even = [
        replace(u, path=changed[3].path) if n % 8 < 4 else u
        for n, u in enumerate(clean)
    ]
    assert "recorded otherwise" not in found(report_of(even))


def test_ten_offenders_are_named_and_all_written(clean, tmp_path):
    silent = tmp_path / "silent.wav"
    soundfile.write(silent, np.zeros(16000), 16000)
    utterances = [replace(u, path=silent) for u in clean[:12]] + clean[12:]
    report = report_of(utterances)
    assert "(12: " in report.errors[0].message
    assert "and 2 more" in report.errors[0].message
    report.write(tmp_path / "new" / "data_report.json")
    written = json.loads((tmp_path / "new" / "data_report.json").read_text())
    assert written == report.as_dict()
    assert written["findings"][0]["names"] == sorted(u.id for u in clean[:12])


# ------------------------------------------------------------------ decoding once


def test_files_are_decoded_once(clean, tmp_path):
    cache = tmp_path / "data" / "facts.jsonl"
    utterances = []
    for n, u in enumerate(clean[:4]):
        path = tmp_path / f"{n}.wav"
        path.write_bytes(u.path.read_bytes())
        utterances.append(replace(u, path=path))
    facts = audio_facts(utterances, cache)
    assert facts == audio_facts(utterances) == audio_facts(utterances[::-1], cache)
    lines = [line for line in cache.read_text().splitlines() if line]
    assert len(lines) == 4

    # A killed process leaves an incomplete line.
    cache.write_text("\n".join([*lines[:2], lines[2][:40]]))
    assert audio_facts(utterances, cache) == facts
    assert audio_facts(utterances, cache) == facts
    complete = [line for line in cache.read_text().splitlines() if line.endswith("]")]
    assert sorted(complete) == sorted(lines)

    # Another file with this name is decoded.
    soundfile.write(utterances[0].path, np.zeros(16000), 16000)
    os.utime(utterances[0].path, ns=(1, 1))
    again = audio_facts(utterances, cache)
    assert again[utterances[0].id].peak == 0
    assert again[utterances[1].id] == facts[utterances[1].id]


def test_cached_facts_are_used(clean, tmp_path):
    cache = tmp_path / "facts.jsonl"
    audio_facts(clean[:1], cache)
    cache.write_text(cache.read_text().replace("16000", "12345"))
    assert audio_facts(clean[:1], cache)[clean[0].id].rate == 12345


def test_real_speech_is_clean(shared):
    from speechbrain_ser_cl.registry import CORPORA

    utterances = CORPORA.get("emodb")(shared / "corpora" / "EmoDB")
    items = [Labelled(u, u.emotion) for u in utterances]
    names = sorted({u.emotion for u in utterances})
    report = data_report(items, audio_facts(utterances), names)
    assert report.findings == []


def test_an_utterance_of_no_part_does_not_count_as_shared(clean, tmp_path):
    utterances = copies(clean, tmp_path, of=0, to=[4])
    items = [Labelled(u, u.emotion) for u in utterances]
    parts = {"train": items[:4], "valid": items[20:40], "test": items[40:]}
    report = data_report(items, audio_facts(utterances), CLASSES, parts)
    assert report.errors == [f for f in report.errors if f.check == "absent class"]
    assert "same audio twice" in found(report)


def test_agreement_of_listeners_in_a_table_with_a_row_for_each(tmp_path):
    heard = {"a": ["happy", "happy", "sad"], "b": ["sad"] * 2, "c": ["sad", "happy"]}
    rows = [f"{name}.wav,{word}" for name, said in heard.items() for word in said]
    (tmp_path / "labels.csv").write_text("\n".join(["file,emotion", *rows]))
    for name in heard:
        soundfile.write(tmp_path / f"{name}.wav", np.full(8000, 0.1), 16000)
    report = report_of(read_table(tmp_path, raters="plurality"))

    def apart(words):  # share of the pairs that differ
        return np.mean([x != y for x, y in combinations(words, 2)])

    within = sum(len(said) * apart(said) for said in heard.values())
    alpha = 1 - within / 7 / apart(sum(heard.values(), []))
    assert report.listeners["alpha"] == pytest.approx(alpha)
    told = f"2.3 votes for each of 3 utterances, Krippendorff's alpha {alpha:.2f}"
    assert told in report.text()
