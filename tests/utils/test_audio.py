"""Loading and converting audio."""

import dataclasses
import os
import shutil
from pathlib import Path

import numpy
import pytest
import soundfile
import soxr
import torch

from speechbrain_ser_cl.corpora import Utterance
from speechbrain_ser_cl.data.conversion import convert_to_16k_mono
from speechbrain_ser_cl.utils import audio
from speechbrain_ser_cl.utils.audio import AudioError, load_audio
from tests import hollow


def tone(rate, seconds=0.5, hertz=440.0, channels=1):
    time = numpy.arange(int(rate * seconds)) / rate
    mono = 0.5 * numpy.sin(2 * numpy.pi * hertz * time)
    return numpy.stack([mono] * channels, axis=1)


def utterance(path, name="a"):
    return Utterance(
        id=name,
        path=Path(path),
        duration=0.5,
        corpus="toy",
        speaker="toy_1",
        session=None,
        gender=None,
        language="en",
        text_id=None,
        emotion="sad",
    )


@pytest.mark.parametrize("rate", [8000, 16000, 22050, 44100, 48000])
@pytest.mark.parametrize("suffix", ["wav", "flac"])
def test_any_rate_becomes_16_khz(tmp_path, rate, suffix):
    path = tmp_path / f"tone.{suffix}"
    soundfile.write(path, tone(rate), rate)
    samples = load_audio(path)
    assert samples.dtype == torch.float32
    assert samples.shape == (8000,)
    middle = slice(1000, 7000)
    expected = torch.from_numpy(tone(16000)[:, 0]).float()
    assert torch.allclose(samples[middle], expected[middle], atol=2e-3)


def test_channels_are_averaged(tmp_path):
    path = tmp_path / "stereo.wav"
    left, right = numpy.full(1600, 0.5), numpy.full(1600, -0.25)
    soundfile.write(path, numpy.stack([left, right], axis=1), 16000, subtype="FLOAT")
    assert torch.equal(load_audio(path), torch.full((1600,), 0.125))


def test_what_is_16_khz_mono_is_not_changed(tmp_path):
    path = tmp_path / "noise.wav"
    noise = numpy.random.default_rng(0).integers(-(2**15), 2**15, 4000, dtype="int16")
    soundfile.write(path, noise, 16000)
    assert torch.equal(load_audio(path), torch.from_numpy(noise) / 2**15)


def test_bad_files_are_named(tmp_path):
    corrupt, empty, not_finite = (tmp_path / f"{n}.wav" for n in "abc")
    corrupt.write_bytes(b"not audio")
    soundfile.write(empty, numpy.zeros(0), 16000)
    soundfile.write(not_finite, numpy.full(9, numpy.nan), 16000, subtype="FLOAT")
    for path, told in {
        corrupt: "not a readable",
        empty: "empty",
        not_finite: "not finite",
        tmp_path / "nowhere.wav": "there is no such file",
    }.items():
        with pytest.raises(AudioError, match=f"{path.name}.*{told}"):
            load_audio(path)


def test_a_file_that_was_cut_off_is_named(tmp_path):
    path = tmp_path / "cut.flac"
    noise = numpy.random.default_rng(0).normal(0, 0.1, 48000)
    soundfile.write(path, noise, 16000)
    path.write_bytes(path.read_bytes()[: path.stat().st_size // 2])
    with pytest.raises(AudioError, match="cut.flac"):
        load_audio(path)


def test_only_foreign_files_are_converted(tmp_path):
    for name, rate, channels in (
        ("mono16.wav", 16000, 1),
        ("mono16.flac", 16000, 1),
        ("stereo16.wav", 16000, 2),
        ("mono48.wav", 48000, 1),
    ):
        soundfile.write(tmp_path / name, tone(rate, channels=channels), rate)
    names = ["mono48.wav", "mono16.wav", "stereo16.wav", "mono16.flac"]
    before = [utterance(tmp_path / name, name) for name in names]
    cache = tmp_path / "cache"
    after = convert_to_16k_mono(before, cache, workers=2)
    assert [u.id for u in after] == names
    assert after[1] == before[1]
    assert after[3] == before[3]
    assert {u.path for u in after if u.path.parent == cache} == set(cache.iterdir())
    assert len(list(cache.iterdir())) == 2
    for u, source in zip(after, before, strict=True):
        info = soundfile.info(u.path)
        assert (info.samplerate, info.channels) == (16000, 1)
        assert u.duration == info.frames / 16000
        assert torch.allclose(
            load_audio(u.path), load_audio(source.path), atol=2 / 2**15
        )


def test_nothing_to_convert_makes_no_folder(tmp_path):
    soundfile.write(tmp_path / "a.wav", tone(16000), 16000)
    convert_to_16k_mono([utterance(tmp_path / "a.wav")], tmp_path / "cache")
    assert not (tmp_path / "cache").exists()


def test_converted_once_and_again_when_the_source_changes(tmp_path):
    source = tmp_path / "a.wav"
    soundfile.write(source, tone(8000), 8000)
    (first,) = convert_to_16k_mono([utterance(source)], tmp_path / "cache")
    time = first.path.stat().st_mtime_ns
    (again,) = convert_to_16k_mono([utterance(source)], tmp_path / "cache")
    assert again == first
    assert again.path.stat().st_mtime_ns == time

    soundfile.write(source, tone(8000, hertz=200), 8000)
    os.utime(source, ns=(0, 1))
    (changed,) = convert_to_16k_mono([utterance(source)], tmp_path / "cache")
    assert changed.path != first.path
    assert torch.allclose(load_audio(changed.path), load_audio(source), atol=1e-4)


def test_an_interrupted_conversion_goes_on(tmp_path, monkeypatch):
    sources = [tmp_path / f"{n}.wav" for n in range(4)]
    for path in sources:
        soundfile.write(path, tone(8000), 8000)
    utterances = [utterance(path, path.stem) for path in sources]
    cache = tmp_path / "cache"

    def write_half(path, *args, real=soundfile.write, **kwargs):
        real(path, *args, **kwargs)
        if Path(path).name.startswith(".2-"):
            raise KeyboardInterrupt

    with monkeypatch.context() as patch, pytest.raises(KeyboardInterrupt):
        patch.setattr(soundfile, "write", write_half)
        convert_to_16k_mono(utterances, cache, workers=1)
    done = {path: path.stat().st_mtime_ns for path in cache.iterdir()}
    assert done
    assert not any(path.name.startswith("2-") for path in done)

    after = convert_to_16k_mono(utterances, cache)
    assert {u.path for u in after} == set(cache.iterdir())
    for path, time in done.items():
        assert path.stat().st_mtime_ns == time


def test_no_id_leads_out_of_the_cache_folder(tmp_path):
    source = tmp_path / "a.wav"
    soundfile.write(source, tone(8000), 8000)
    ids = ["../x", "/etc/x", "..", "a/b", "a_b", "a b", "é" * 300, "x\n", "CON", ""]
    cache = tmp_path / "deep" / "cache"
    after = convert_to_16k_mono([utterance(source, i) for i in ids], cache)
    assert {u.path.resolve().parent for u in after} == {cache.resolve()}
    assert len({u.path for u in after}) == len(ids)
    assert sorted(tmp_path.iterdir()) == [source, tmp_path / "deep"]


def test_all_bad_files_are_named_up_to_ten(tmp_path):
    good = tmp_path / "good.wav"
    soundfile.write(good, tone(8000), 8000)
    bad = [tmp_path / f"bad{n:02d}.wav" for n in range(12)]
    for path in bad:
        path.write_bytes(b"not audio")
    utterances = [utterance(path, path.stem) for path in [*bad, good]]
    with pytest.raises(AudioError, match="12: .*bad00.*bad09.*and 2 more"):
        convert_to_16k_mono(utterances, tmp_path / "cache")
    assert [p.name.startswith("good-") for p in (tmp_path / "cache").iterdir()] == [
        True
    ]


def test_hollow_ravdess_48_khz_with_a_stereo_file(tmp_path):
    from speechbrain_ser_cl.registry import CORPORA

    root = hollow.write_ravdess(tmp_path)
    for folder in sorted(root.iterdir())[1:]:
        shutil.rmtree(folder)
    with pytest.warns(UserWarning):
        utterances = CORPORA.get("ravdess")(root, allow_missing=True)
    after = convert_to_16k_mono(utterances, tmp_path / "cache")
    assert len(after) == 60
    assert {load_audio(u.path).shape for u in after} == {(160,)}
    changed = {
        field.name
        for field in dataclasses.fields(Utterance)
        for a, b in zip(utterances, after, strict=True)
        if getattr(a, field.name) != getattr(b, field.name)
    }
    assert changed == {"path"}


def flac_that_claims(path, total):
    """Writes a FLAC file of half a second whose header has another length."""
    soundfile.write(path, tone(16000)[:, 0], 16000, format="FLAC")
    data = bytearray(path.read_bytes())
    data[21] = (data[21] & 0xF0) | (total >> 32)
    data[22:26] = (total & 0xFFFFFFFF).to_bytes(4, "big")
    path.write_bytes(data)


def test_a_stream_that_does_not_know_its_length_is_read(tmp_path):
    path = tmp_path / "stream.flac"
    flac_that_claims(path, 0)
    whole = load_audio(path)
    assert whole.shape == (8000,)
    assert torch.equal(load_audio(path, 0.1, 0.3), whole[1600:4800])
    with pytest.raises(AudioError, match="cut off after 8000 of 32000"):
        load_audio(path, 0.0, 2.0)


def test_a_length_that_is_only_claimed_takes_no_memory(tmp_path):
    path = tmp_path / "claims.flac"
    flac_that_claims(path, 2**36 - 1)
    with pytest.raises(AudioError, match=r"1193 h long, expected at most 6 h"):
        load_audio(path)
    flac_that_claims(path, 16000 * 3600)
    with pytest.raises(AudioError, match="cut off after 8000 of 57600000"):
        load_audio(path)


def test_blocks_give_what_the_whole_gives(tmp_path, monkeypatch):
    noise = numpy.random.default_rng(0).normal(0, 0.1, (30000, 2)).astype("float32")
    for rate in (8000, 16000, 44100):
        soundfile.write(tmp_path / "a.wav", noise, rate, subtype="FLOAT")
        whole = load_audio(tmp_path / "a.wav")
        expected = noise.mean(axis=1)
        if rate != 16000:
            expected = soxr.resample(expected, rate, 16000)
        assert numpy.array_equal(whole, expected)
        monkeypatch.setattr(audio, "_BLOCK_VALUES", 5000)
        assert torch.equal(load_audio(tmp_path / "a.wav"), whole)


@pytest.mark.parametrize(
    ("samples", "rate", "told"),
    [
        (numpy.zeros(1000), 1, "sampling rate is 1 Hz, expected 1000"),
        (numpy.full(1000, 1e20), 16000, "not finite or beyond 1e.06"),
        (numpy.full((1000, 2), 3e38), 16000, "not finite or beyond 1e.06"),
        (numpy.full(1000, -numpy.inf), 8000, "not finite or beyond 1e.06"),
        (numpy.ones(1), 44100, "shorter than a sample of 16 kHz"),
    ],
)
def test_what_no_model_can_use_is_refused(tmp_path, samples, rate, told):
    path = tmp_path / "odd.wav"
    soundfile.write(path, samples, rate, subtype="FLOAT")
    with pytest.raises(AudioError, match=f"odd.wav: .*{told}"):
        load_audio(path)


def test_more_than_what_is_asked_for_is_refused(tmp_path):
    soundfile.write(tmp_path / "a.flac", numpy.zeros(8000 * 100), 8000)
    with pytest.raises(AudioError, match="2 min long, expected at most 1 min"):
        load_audio(tmp_path / "a.flac", longest=60)
    assert len(load_audio(tmp_path / "a.flac", 10, 20, longest=60)) == 160000


def test_what_is_no_file_is_reported(tmp_path):
    os.mkfifo(tmp_path / "pipe.wav")
    for path, told in {tmp_path: "a folder", tmp_path / "pipe.wav": "no audio"}.items():
        with pytest.raises(AudioError, match=f"this is {told}"):
            load_audio(path)
    pointer = tmp_path / "pointer.wav"
    pointer.write_text("version https://git-lfs.github.com/spec/v1\noid sha256:00")
    with pytest.raises(AudioError, match="pointer.wav: a Git LFS.*git lfs pull"):
        load_audio(pointer)


@pytest.mark.skipif(
    os.name != "posix",
    reason="file names on Windows are Unicode: one that is not cannot be made there",
)
def test_a_name_that_is_not_utf_8_is_read(tmp_path):
    soundfile.write(tmp_path / "a.wav", tone(16000), 16000)
    path = Path(os.fsdecode(os.fsencode(tmp_path) + b"/\xff.wav"))
    (tmp_path / "a.wav").rename(path)
    assert load_audio(path).shape == (8000,)


def test_one_bad_file_does_not_keep_others_from_being_converted(tmp_path):
    os.mkfifo(tmp_path / "pipe.wav")
    soundfile.write(tmp_path / "good.wav", tone(8000), 8000)
    names = ["bad.flac", "pipe.wav", "good.wav"]
    utterances = [utterance(tmp_path / name, name) for name in names]
    soundfile.write(tmp_path / "bad.flac", tone(8000), 8000)
    flac = (tmp_path / "bad.flac").read_bytes()
    (tmp_path / "bad.flac").write_bytes(flac[: len(flac) // 2])
    with pytest.raises(AudioError, match="2: .*bad.flac.*pipe.wav"):
        convert_to_16k_mono(utterances, tmp_path / "cache")
    assert len(list((tmp_path / "cache").iterdir())) == 1
