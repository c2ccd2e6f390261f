"""Long recordings: voice activity, windows, turns, streams and formats."""

import csv
import io
import json
import re

import numpy as np
import pytest
import soundfile
import torch

from speechbrain_ser_cl.cli import main
from speechbrain_ser_cl.evaluate import load_classifier
from speechbrain_ser_cl.inference import EmotionRecognizer
from speechbrain_ser_cl.model_folder import write_model
from speechbrain_ser_cl.recordings import (
    EmotionStream,
    Turn,
    follow_file,
    read_turns,
    spans,
    written,
)
from speechbrain_ser_cl.recordings.activity import SileroFrames
from speechbrain_ser_cl.utils.audio import load_audio
from tests.test_inference import CLASSES, classifier, speech

SPOKEN = [(3.0, 7.0), (10.0, 12.0), (12.3, 13.0)]  # the last two are one segment


@pytest.fixture(scope="module")
def recognizer():
    return EmotionRecognizer(classifier(), CLASSES, device="cpu")


@pytest.fixture(scope="module")
def recording():
    wav = 0.001 * np.random.default_rng(0).standard_normal(16 * 16000)
    for k, (start, end) in enumerate(SPOKEN):
        own = speech(end - start, k)
        wav[round(start * 16000) : round(start * 16000) + len(own)] += own
    return wav.astype(np.float32)


def heard(recognizer, wav, sizes=(16000,), **options):
    stream = EmotionStream(recognizer, **options)
    found, most, start, k = [], 0.0, 0, 0
    while start < len(wav):
        size = sizes[k % len(sizes)]
        found += stream.add(wav[start : start + size])
        start, k = start + size, k + 1
        most = max(most, stream.buffered_seconds)
    return found + stream.finish(), most


def table(windows):
    return np.array([list(one.probabilities.values()) for one in windows])


def test_windows_equal_a_naive_computation(recognizer, recording):
    found, _ = heard(recognizer, recording, window=1.0, hop=0.5)
    segments = {}
    for one in found:
        segments.setdefault(one.segment, []).append(one)
    edges = [(own[0].start, own[-1].end) for own in segments.values()]
    expected = [(2.9, 7.1), (9.9, 13.1)]  # with 0.1 s more at both ends
    np.testing.assert_allclose(edges, expected, atol=0.06)
    for (start, end), own in zip(edges, segments.values(), strict=True):
        starts = np.append(np.arange(start, end - 1.0 - 1e-6, 0.5), end - 1.0)
        np.testing.assert_allclose([one.start for one in own], starts, atol=1e-9)
    cut = [recording[round(o.start * 16000) : round(o.end * 16000)] for o in found]
    naive = table(recognizer.classify_batch(cut))
    np.testing.assert_allclose(table(found), naive, atol=1e-5)


def test_the_same_in_chunks_of_any_size_and_from_a_file(
    recognizer, recording, tmp_path
):
    options = {"window": 1.0, "smooth": 3}
    whole, _ = heard(recognizer, recording, (len(recording),), **options)
    pieces, _ = heard(recognizer, recording, (7, 1000, 33333), **options)
    assert [(o.start, o.end, o.segment) for o in whole] == [
        (o.start, o.end, o.segment) for o in pieces
    ]
    np.testing.assert_allclose(table(whole), table(pieces), atol=1e-5)
    rough, _ = heard(recognizer, recording, window=1.0)
    segment = table([one for one in rough if one.segment == 0])
    naive = [segment[max(k - 1, 0) : k + 2].mean(0) for k in range(len(segment))]
    np.testing.assert_allclose(table(whole)[: len(naive)], naive, atol=1e-5)
    # A file with another rate, and the same audio read as a whole.
    path = tmp_path / "call.wav"
    soundfile.write(path, np.stack([recording[::2]] * 2, 1), 8000, subtype="FLOAT")
    stream = EmotionStream(recognizer, **options)
    from_file = list(follow_file(stream, path))
    at_once, _ = heard(recognizer, load_audio(path).numpy(), **options)
    np.testing.assert_allclose(table(from_file), table(at_once), atol=1e-4)
    assert stream.seconds == pytest.approx(16.0, abs=0.01)
    coming, _ = heard(recognizer, recording[::2], sample_rate=8000, **options)
    np.testing.assert_allclose(table(coming), table(at_once), atol=1e-4)


def test_memory_is_bounded_however_long_it_is(recognizer, recording):
    minute = np.tile(recording, 4)
    for options in ({}, {"activity": "none"}, {"turns": [Turn(1.0, 60.0)]}):
        found, most = heard(recognizer, minute, window=2.0, hop=2.0, **options)
        assert len(found) > 10
        # Window, hop, delay of the decisions, end of a segment, chunk.
        assert most < 2.0 + 2.0 + 2.0 + 0.7 + 1.0


def test_turns_that_overlap(recognizer, recording):
    turns = [Turn(5.0, 20.0, "B"), Turn(4.0, 8.5, "A"), Turn(15.99, 30.0, "C")]
    found, _ = heard(recognizer, recording, (12345,), window=2.0, turns=turns)
    times = {
        who: [(o.start, o.end) for o in found if o.speaker == who] for who in "ABC"
    }
    assert times["A"] == [(4.0, 6.0), (5.0, 7.0), (6.0, 8.0), (6.5, 8.5)]
    assert times["B"][0] == (5.0, 7.0) and times["B"][-1] == (14.0, 16.0)
    assert times["C"] == []  # 10 ms of it are there
    for wrong in ({"smooth": 2}, {"activity": "loud"}, {"window": 99.0}):
        with pytest.raises(ValueError, match=next(iter(wrong))):
            EmotionStream(recognizer, **wrong)


def test_a_model_of_several_emotions_is_refused(tmp_path):
    model = classifier()
    model.answer_as("emotions", None, None)
    with pytest.raises(ValueError, match="the model answers emotions"):
        EmotionStream(EmotionRecognizer(model, CLASSES, device="cpu"))
    write_model(tmp_path, model, CLASSES)
    with pytest.raises(ValueError, match="its model answers emotions"):
        load_classifier(tmp_path)


def test_silence_has_no_speech(recognizer):
    silence = np.zeros(5 * 16000, np.float32)
    assert heard(recognizer, silence)[0] == []
    pytest.importorskip("silero_vad", reason="the extra vad is not installed")
    frames = SileroFrames()
    found = [*frames.add(silence[:1000]), *frames.add(silence[1000:])]
    assert len(found) == 5 * 16000 // 512 and not any(found)


@pytest.mark.parametrize("activity", ["energy", "silero"])
def test_real_speech_is_found_between_pauses(recognizer, shared, activity):
    if activity == "silero":
        pytest.importorskip("silero_vad", reason="the extra vad is not installed")
    threads = torch.get_num_threads()
    rng, parts, spoken = np.random.default_rng(0), [], []
    for path in sorted((shared / "corpora" / "EmoDB").rglob("*.wav"))[::90]:
        parts += [3e-4 * rng.normal(size=3 * 16000), load_audio(path).numpy()]
        spoken += [np.zeros(3 * 16000, bool), np.ones(len(parts[-1]), bool)]
    spoken = np.concatenate(spoken)
    whole = np.concatenate(parts)
    windows, _ = heard(recognizer, whole, window=2.0, activity=activity)
    found = np.zeros(len(spoken), bool)
    for one in windows:
        found[round(one.start * 16000) : round(one.end * 16000)] = True
    # Of the pauses 0.2 s of 3 s are the margins of the segments.
    assert found[spoken].mean() > 0.9 and found[~spoken].mean() < 0.1
    assert len({one.segment for one in windows}) >= len(parts) // 2
    assert torch.get_num_threads() == threads


def test_turns_of_another_recording_are_refused(recognizer, recording):
    turns = [Turn(1e5, 2e5, "milliseconds")]
    with pytest.raises(ValueError, match="each turn begins after the end"):
        heard(recognizer, recording, turns=turns)
    assert heard(recognizer, recording, turns=[Turn(1.0, 2.0), *turns])[0]


def test_turns_are_read_and_what_is_none_is_refused(tmp_path):
    path = tmp_path / "turns.csv"
    path.write_text("Begin;End;Speaker\n1,5;2\n")
    path.write_text("begin;end;speaker\n1.5;2;anna\n0;1;\n")
    assert read_turns(path) == [Turn(0.0, 1.0, None), Turn(1.5, 2.0, "anna")]
    path = tmp_path / "two.rttm"
    path.write_text(
        ";; made by hand\nSPEAKER a 1 0 2 <NA> <NA> x <NA> <NA>\n"
        "SPEAKER b 1 1 1.5 <NA> <NA> y <NA> <NA>\n"
    )
    assert read_turns(path, "b") == [Turn(1.0, 2.5, "y")]
    with pytest.raises(ValueError, match="turns of 2 recordings"):
        read_turns(path)
    path.write_text("SPEAKER a 1 zero 2 <NA> <NA> x <NA> <NA>")
    with pytest.raises(ValueError, match="line 1: found zero, 2"):
        read_turns(path)


def test_formats_hold_the_same_times(recognizer, recording):
    turns = [Turn(1.0, 6.0, 'A "the" <first>'), Turn(8.0, 12.0, "B")]
    found, _ = heard(recognizer, recording, window=1.0, turns=turns)
    times = [(round(s.start, 3), round(s.end, 3)) for s in spans(found)]
    assert times[0][0] == 1.0 and times[-1][1] == 12.0
    told = json.loads(written(found, "call", "json", 16.0))
    found_times = [(s["start"], s["end"]) for s in told["spans"]]
    np.testing.assert_allclose(found_times, times, atol=1e-3)
    rows = list(csv.DictReader(io.StringIO(written(found, "call", "csv", 16.0))))
    assert len(rows) == len(found) and float(rows[0]["p_neutral"]) == pytest.approx(
        found[0].probabilities["neutral"], abs=1e-6
    )
    rttm = [line.split() for line in written(found, "a b", "rttm", 16.0).splitlines()]
    assert [(float(r[3]), round(float(r[3]) + float(r[4]), 3)) for r in rttm] == times
    assert {r[1] for r in rttm} == {"a_b"}
    cues = re.findall(
        r"00:00:([\d.]+) --> 00:00:([\d.]+)", written(found, "", "vtt", 16)
    )
    assert [(float(a), float(b)) for a, b in cues] == times
    grid = written(found, "call", "textgrid", 16.0)
    assert grid.count('class = "IntervalTier"') == 2
    assert 'name = "A ""the"" <first>"' in grid
    for tier in grid.split("IntervalTier")[1:]:
        at = re.findall(r"xmin = ([\d.]+)\n +xmax = ([\d.]+)\n +text", tier)
        assert [a for a, _ in at] == ["0.000000", *(b for _, b in at[:-1])]
        assert at[-1][1] == "16.000000"


def test_command_line(recording, tmp_path, capsys):
    write_model(tmp_path / "model", classifier(), CLASSES)
    soundfile.write(tmp_path / "call.wav", recording, 16000)
    words = ["predict", "--model", str(tmp_path / "model"), str(tmp_path / "call.wav")]
    folder = tmp_path / "out"
    more = ["--window", "1", "--output", str(folder), "--plot", "--format", "textgrid"]
    assert main([*words, *more]) == 0
    assert (folder / "call.TextGrid").is_file()
    assert (folder / "call.png").read_bytes()[1:4] == b"PNG"
    capsys.readouterr()
    assert main([*words, "--format", "vtt"]) == 0
    assert capsys.readouterr().out.startswith("WEBVTT\n")
    assert main([*words, str(tmp_path / "b.wav"), "--activity", "energy"]) == 1
    told = capsys.readouterr()
    assert "call.wav: 16.00 s" in told.out and "b.wav: there is no such" in told.err
    assert main([*words, "--plot"]) == 2
    assert "--plot needs --output" in capsys.readouterr().err
