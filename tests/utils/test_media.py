"""Audio of videos: decoded once, first track only, or an error with advice."""

import sys
from fractions import Fraction

import numpy
import pytest

from speechbrain_ser_cl.corpora import Utterance
from speechbrain_ser_cl.data.conversion import convert_to_16k_mono
from speechbrain_ser_cl.registry import CORPORA
from speechbrain_ser_cl.utils.audio import AudioError, load_audio
from speechbrain_ser_cl.utils.media import media_seconds

RATE = 48000
KINDS = [(".avi", "pcm_s16le"), (".mp4", "aac"), (".m4a", "aac"), (".webm", "libopus")]


@pytest.fixture
def av():
    return pytest.importorskip("av", reason="the extra media installs it")


def write(av, path, codec, seconds=1.0, pitches=(440,), picture=False):
    """Writes a file with a tone in each audio track, optionally with pictures."""
    time = numpy.arange(int(seconds * RATE)) / RATE
    with av.open(str(path), "w") as container:
        if picture:
            video = container.add_stream("mpeg4", rate=10)
            video.width = video.height = 32
        tracks = [
            container.add_stream(codec, rate=RATE, layout="mono") for _ in pitches
        ]
        if picture:
            for n in range(int(10 * seconds)):
                frame = av.VideoFrame(32, 32, "yuv420p")
                frame.pts, frame.time_base = n, Fraction(1, 10)
                container.mux(video.encode(frame))
            container.mux(video.encode(None))
        for track, pitch in zip(tracks, pitches, strict=True):
            tone = (8000 * numpy.sin(2 * numpy.pi * pitch * time)).astype("int16")
            frame = av.AudioFrame.from_ndarray(tone[None], "s16", "mono")
            frame.sample_rate, frame.pts = RATE, 0
            container.mux(track.encode(frame))
            container.mux(track.encode(None))
    return path


def pitch_of(samples):
    spectrum = numpy.abs(numpy.fft.rfft(samples))
    return spectrum.argmax() * 16000 / len(samples)


@pytest.mark.parametrize(("suffix", "codec"), KINDS)
def test_the_sound_of_each_kind(av, suffix, codec, tmp_path):
    path = write(av, tmp_path / f"a{suffix}", codec)
    samples = load_audio(path)
    assert len(samples) / 16000 == pytest.approx(1, abs=0.05)
    assert pitch_of(samples.numpy()) == pytest.approx(440, abs=2)
    middle = samples[4000:12000]
    assert middle.std() == pytest.approx(8000 / 32768 / 2**0.5, rel=0.02)
    assert media_seconds(path) == pytest.approx(1, abs=0.05)
    part = load_audio(path, 0.25, 0.75)
    assert len(part) == pytest.approx(8000, abs=1)


def test_the_first_track_of_a_video_is_converted_once(av, tmp_path):
    path = write(av, tmp_path / "a.avi", "pcm_s16le", pitches=(300, 900), picture=True)
    utterance = Utterance(
        *("a", path, 1.0, "mine", None, None, None, "en", None, "happy")
    )
    (found,) = convert_to_16k_mono([utterance], tmp_path / "cache")
    assert found.path.suffix == ".flac"
    assert pitch_of(load_audio(found.path).numpy()) == pytest.approx(300, abs=2)
    first = found.path.stat().st_mtime_ns
    assert convert_to_16k_mono([utterance], tmp_path / "cache") == [found]
    assert found.path.stat().st_mtime_ns == first


def test_a_corpus_of_videos(av, tmp_path):
    for subject, emotion in ((1, "anger"), (3, "fear")):
        folder = tmp_path / f"subject {subject}" / emotion / "sentence 2"
        folder.mkdir(parents=True)
        write(av, folder / "s_3_fe_2.avi", "pcm_s16le", seconds=0.5)
    with pytest.warns(UserWarning, match="continuing with 2"):
        angry, fearful = CORPORA.get("enterface")(tmp_path, allow_missing=True)
    assert (angry.emotion, angry.speaker) == ("angry", "enterface_1")
    assert (fearful.text_id, fearful.speaker) == ("enterface_fear_2", "enterface_3")
    assert fearful.duration == pytest.approx(0.5, abs=0.05)


def test_no_sound_and_no_video(av, tmp_path):
    silent = tmp_path / "silent.avi"
    with av.open(str(silent), "w") as container:
        video = container.add_stream("mpeg4", rate=10)
        video.width = video.height = 32
        container.mux(video.encode(av.VideoFrame(32, 32, "yuv420p")))
        container.mux(video.encode(None))
    broken = tmp_path / "broken.mp4"
    broken.write_bytes(b"this is no video")
    for path, told in ((silent, "no sound"), (broken, "Invalid data")):
        assert media_seconds(path) == 0
        with pytest.raises(AudioError, match=f"{path.name}.*{told}"):
            load_audio(path)


def test_without_the_extra_it_is_named(tmp_path, monkeypatch):
    monkeypatch.setitem(sys.modules, "av", None)
    path = tmp_path / "a.mp4"
    path.write_bytes(b"")
    with pytest.raises(ImportError, match=r"speechbrain_ser_cl\[media\]"):
        load_audio(path)
    with pytest.raises(ImportError, match=r"speechbrain_ser_cl\[media\]"):
        media_seconds(path)
