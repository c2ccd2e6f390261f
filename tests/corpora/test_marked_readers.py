"""Readers of corpora with labels outside of names and tables: M3ED, EESC, PAVOQUE."""

import json
import os
import shutil
from collections import Counter
from itertools import cycle
from pathlib import Path

import numpy
import pytest
import soundfile

from speechbrain_ser_cl.corpora import (
    CorpusError,
    get_card,
    read_eesc,
    read_m3ed,
    read_pavoque,
)
from speechbrain_ser_cl.corpora.cards import recognise
from tests.hollow import wav_bytes

ESTONIAN = {"angry": "anger", "happy": "joy", "sad": "sadness", "neutral": "neutral"}
LONG = """File type = "ooTextFile"
Object class = "TextGrid"

xmin = 0
xmax = 1
tiers? <exists>
size = 3
item []:
    item [1]:
        class = "IntervalTier"
        name = "phoneme"
        intervals: size = 1
        intervals [1]:
            xmin = 0
            xmax = 1
            text = "m"
    item [2]:
        class = "IntervalTier"
        name = "sentence"
        intervals: size = 1
        intervals [1]:
            xmin = 0
            xmax = 1
            text = "{sentence}"
    item [3]:
        class = "IntervalTier"
        name = "emotion"
        intervals: size = 1
        intervals [1]:
            xmin = 0
            xmax = 1
            text = "{emotion}"
"""
SHORT = """File type = "ooTextFile"
Object class = "TextGrid"

0
1
<exists>
2
"IntervalTier"
"emotion"
0
1
1
0
1
"{emotion}"
"IntervalTier"
"sentence"
0
1
1
0
1
"{sentence}"
"""


@pytest.fixture(scope="module")
def eesc(tmp_path_factory):
    folder = tmp_path_factory.mktemp("eesc")
    first = folder / "1.wav"
    first.write_bytes(wav_bytes(160, 44100))
    n = 0
    for emotion, count in get_card("eesc").counts.emotions.items():
        for _ in range(count):
            n += 1
            if n > 1:
                os.link(first, folder / f"{n}.wav")
            form = SHORT if n % 2 else LONG
            text = form.format(sentence=f"Küll {n // 2}", emotion=ESTONIAN[emotion])
            encoding = "utf-16" if n % 3 else "utf-8"
            (folder / f"{n}.TextGrid").write_text(text, encoding=encoding)
    return folder


def test_eesc_has_the_emotions_of_its_text_grids(eesc):
    utterances = read_eesc(eesc)
    counts = Counter(u.emotion for u in utterances)
    assert counts == get_card("eesc").counts.emotions
    by_id = {u.id: u for u in utterances}
    assert by_id["eesc_1"].emotion == "angry" and by_id["eesc_1164"].emotion == "sad"
    assert by_id["eesc_500"].text_id == by_id["eesc_501"].text_id == "eesc_Küll 250"
    (found,) = recognise(eesc)
    assert (found.name, found.found, found.problem) == ("eesc", 1164, None)


def test_eesc_reports_problems(eesc, tmp_path):
    folder = tmp_path / "copy"
    shutil.copytree(eesc, folder, copy_function=os.link)
    (folder / "7.wav").unlink()
    with pytest.raises(CorpusError, match=r"missing audio files \(1: 7\)"):
        read_eesc(folder)
    (folder / "7.TextGrid").unlink()
    with pytest.raises(CorpusError, match="1163 instead of 1164"):
        read_eesc(folder)
    shutil.copy(folder / "8.wav", folder / "alien.wav")
    with pytest.raises(CorpusError, match="no .TextGrid with a tier .* alien"):
        read_eesc(folder)
    with pytest.raises(CorpusError, match="is not the corpus"):
        read_eesc(tmp_path / "copy" / "..", allow_missing=True)


@pytest.fixture(scope="module")
def m3ed(tmp_path_factory):
    """Makes all 24437 turns, and 12 without audio."""
    folder = tmp_path_factory.mktemp("m3ed")
    (folder / "modality_speech").mkdir()
    (folder / "splitInfo").mkdir()
    counts = get_card("m3ed").counts
    word = {"angry": "Anger", "disgusted": "Disgust", "fearful": "Fear", "sad": "Sad"}
    word |= {"happy": "Happy", "neutral": "Neutral", "surprised": "Surprise"}
    labels = [word[e] for e, n in counts.emotions.items() for _ in range(n)]
    labels += ["Neutral"] * 12
    first = folder / "first"
    first.write_bytes(wav_bytes(160, 16000))
    annotated = {}
    # 317 dialogues of two roles, and one with a third.
    turns = cycle((d, who) for d in range(317) for who in "AB")
    for n, label in enumerate(labels):
        d, who = next(turns) if n else (0, "C")
        series, dialogue = f"series{d % 56}", f"series{d % 56}_{d}"
        own = annotated.setdefault(series, {}).setdefault(
            dialogue, {"SpeakerInfo": {}, "Dialog": {}}
        )
        gender = "Female" if who == "A" else "Male"
        own["SpeakerInfo"][who] = {"Name": f"名{d}{who}", "Gender": gender}
        own["Dialog"][f"{dialogue}_{n}"] = {
            "Speaker": who,
            "EmoAnnotation": {"final_main_emo": label},
        }
        if n < counts.utterances:
            os.link(first, folder / "modality_speech" / f"{who}_{dialogue}_{n}.wav")
    (folder / "annotation.json").write_text(
        json.dumps(annotated, ensure_ascii=False), encoding="utf-8"
    )
    parts = {"train": range(38), "val": range(38, 45), "test": range(45, 56)}
    for part, numbers in parts.items():
        text = "".join(f"series{n}\n" for n in numbers)
        (folder / "splitInfo" / f"movie_list_{part}.txt").write_text(text)
    first.unlink()
    return folder


def test_m3ed_has_speakers_dialogues_and_parts(m3ed):
    utterances = read_m3ed(m3ed)
    counts = get_card("m3ed").counts
    assert Counter(u.emotion for u in utterances) == counts.emotions
    by_id = {u.id: u for u in utterances}
    one = by_id["m3ed_B_series40_40_82"]
    assert (one.speaker, one.session) == ("m3ed_series40_名40B", "m3ed_series40_40")
    assert (one.gender, one.split) == ("male", "valid")
    assert {u.split for u in utterances} == {"train", "valid", "test"}


def test_m3ed_reports_problems(m3ed, tmp_path):
    (tmp_path / "modality_speech").mkdir()
    path = tmp_path / "annotation.json"
    path.write_text('{"a": {"a_1": {"Dialog": {"a_1_1": {}}}}}')
    with pytest.raises(CorpusError, match="annotation.json is not as published"):
        read_m3ed(tmp_path)
    path.unlink()
    with pytest.raises(CorpusError, match="is not the corpus"):
        read_m3ed(tmp_path)


@pytest.fixture(scope="module")
def pavoque(tmp_path_factory):
    """Makes two of the six recordings, with three utterances each."""
    folder = tmp_path_factory.mktemp("pavoque") / "pavoque-data"
    folder.mkdir()
    for number, style in enumerate(("angry", "outtakes")):
        entries = ""
        for n in range(3):
            entries += f"- prompt: m{n}{'a' * number}\n  text: 'Ach: {n},\n    ja?'\n"
            entries += f"  style: {'angry' if n < 2 else 'sad'}\n"
            entries += f"  start: {n * 0.5}\n  end: {n * 0.5 + 0.4}\n  segments:\n"
            entries += "  - {lab: 'a:', end: 0.2}\n  - {lab: _, end: 0.4}\n"
        (folder / f"pavoque-{style}.yaml").write_text(entries, encoding="utf-8")
        rising = numpy.arange(66150) / 66150
        soundfile.write(folder / f"pavoque-{style}.flac", rising, 44100, "PCM_24")
    return folder


def test_pavoque_is_cut_at_the_times_of_its_lists(pavoque, tmp_path):
    with pytest.warns(UserWarning, match="6 utterances in spite of counts"):
        found = read_pavoque(pavoque.parent, allow_missing=True, cut_into=tmp_path)
    by_id = {u.id: u for u in found}
    one = by_id["pavoque_m2a-sad"]
    assert (one.text_id, one.emotion) == ("pavoque_Ach: 2, ja?", "sad")
    assert one.text_id == by_id["pavoque_m2-sad"].text_id
    assert (one.recording, one.start, one.end) == ("pavoque_pavoque-outtakes", 1.0, 1.4)
    assert one.duration == pytest.approx(0.4)
    samples, rate = soundfile.read(one.path)
    assert rate == 16000 and samples[3200] == pytest.approx(1.2 / 1.5, abs=0.001)


def test_pavoque_leaves_out_what_has_two_styles(pavoque, tmp_path, caplog):
    folder = Path(shutil.copytree(pavoque, tmp_path / "copy"))
    path = folder / "pavoque-outtakes.yaml"
    again = "- {prompt: m2a, text: ja, style: happy, start: 1.0, end: 1.4}\n"
    path.write_text(path.read_text() + again)
    caplog.set_level("INFO")
    with pytest.warns(UserWarning, match="happy 0 instead of 745"):
        found = read_pavoque(folder, allow_missing=True)
    assert len(found) == 5 and "pavoque: 2 left out" in caplog.text


def test_pavoque_is_recognised_without_cutting(pavoque):
    (found,) = recognise(pavoque)
    assert (found.name, found.found, found.expected) == ("pavoque", 6, 7334)
    assert "neutral 0 instead of 4344" in found.problem
    assert not (pavoque / "cut").exists()


def test_pavoque_reports_problems(pavoque, tmp_path):
    folder = tmp_path / "copy"
    shutil.copytree(pavoque, folder)
    (folder / "pavoque-angry.flac").unlink()
    with pytest.raises(CorpusError, match=r"missing audio files \(3: m0-angry"):
        read_pavoque(folder)
    assert len(list((folder / "cut").iterdir())) == 3
    path = folder / "pavoque-outtakes.yaml"
    text = path.read_text()
    path.write_text(text.replace("end: 0.9", "end: 0.1"))
    with pytest.raises(CorpusError, match="outtakes.yaml is not as .*m1a ends before"):
        read_pavoque(folder)
    path.write_text(text.replace("style: sad", "style: glad"))
    with pytest.raises(CorpusError, match="unknown label codes .*m2a-glad has 'glad'"):
        read_pavoque(folder)
    with pytest.raises(CorpusError, match="is not the corpus. Looked for pavoque-"):
        read_pavoque(folder / "cut")
