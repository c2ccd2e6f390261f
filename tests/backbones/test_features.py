"""The front ends against scipy, transformers and openSMILE."""

import sys

import numpy as np
import pytest
import scipy.signal
import torch
from transformers.audio_utils import mel_filter_bank

from speechbrain_ser_cl.backbones import EGeMAPS, LogMel, LogSpectrogram
from speechbrain_ser_cl.backbones.features import _smile


def speech(n_samples, seed=0):
    """Makes noise with some tones, float64."""
    rng = np.random.default_rng(seed)
    time = np.arange(n_samples) / 16000
    tones = sum(np.sin(2 * np.pi * f * time) for f in (120, 470, 2500, 7000))
    return 0.1 * tones + 0.02 * rng.normal(size=n_samples)


def scipy_power(wav):
    """Computes squared magnitudes (T, 257), by scipy, float64."""
    _, _, spectrum = scipy.signal.stft(
        wav,
        window=scipy.signal.get_window("hann", 400),
        nperseg=400,
        noverlap=240,
        nfft=512,
        boundary=None,
        padded=False,
        scaling="spectrum",
    )
    return np.abs(spectrum.T * 200) ** 2  # scipy divides by the window's sum


@pytest.mark.parametrize("n_samples", [400, 559, 560, 16000, 30001])
def test_log_spectrogram_is_scipys(n_samples):
    wav = speech(n_samples)
    found = LogSpectrogram()(torch.from_numpy(wav).float()[None])
    expected = np.log(np.maximum(scipy_power(wav), 1e-10))
    assert found.shape == (1, *expected.shape)
    np.testing.assert_allclose(found[0], expected, atol=1e-3)


def test_one_frame_is_the_windowed_fourier_sum():
    wav = speech(400)
    n, k = np.arange(400), np.arange(257)[:, None]
    window = 0.5 - 0.5 * np.cos(2 * np.pi * n / 400)
    power = np.abs((wav * window * np.exp(-2j * np.pi * k * n / 512)).sum(axis=1)) ** 2
    found = LogSpectrogram()(torch.from_numpy(wav)[None])
    np.testing.assert_allclose(found[0, 0], np.log(power), atol=1e-3)


def test_log_mel_has_htk_filters_from_60_to_7800_hz():
    wav = speech(16000)
    filters = mel_filter_bank(257, 64, 60.0, 7800.0, 16000, norm=None, mel_scale="htk")
    assert (filters.sum(axis=0) > 0).all()
    found = LogMel()(torch.from_numpy(wav).float()[None])
    expected = np.log(scipy_power(wav) @ filters)
    np.testing.assert_allclose(found[0], expected, atol=1e-3)


def test_silence_has_the_floor():
    for features in (LogSpectrogram(), LogMel()):
        frames = features(torch.zeros(1, 800))
        torch.testing.assert_close(frames, torch.full_like(frames, np.log(1e-10)))


@pytest.mark.parametrize("features", [LogSpectrogram(), LogMel()])
def test_padding_is_invisible(features):
    counts = torch.tensor([16000, 8007, 400, 30])
    wavs = torch.full((4, 16000), torch.nan)
    for i, n in enumerate(counts.tolist()):
        wavs[i, :n] = torch.from_numpy(speech(n, seed=i))
    lengths = counts / 16000
    batch = features(wavs, lengths)
    n_frames = features.frame_lengths(lengths, 16000) * batch.shape[1]
    assert n_frames.tolist() == [98, 48, 1, 1]
    for i, n in enumerate(n_frames.long()):
        alone = features(wavs[i : i + 1, : counts[i]])
        assert alone.shape[1] == n
        torch.testing.assert_close(batch[i, :n], alone[0])
        assert (batch[i, n:] == 0).all()


def test_half_precision_in_float32_out():
    wav = torch.from_numpy(speech(8000))[None]
    with torch.autocast("cpu", torch.bfloat16):
        found = LogMel()(wav.half())
    assert found.dtype == torch.float32
    torch.testing.assert_close(found, LogMel()(wav.half().float()))


def test_shapes_are_checked():
    with pytest.raises(ValueError, match=r"LogMel expects a batch \(B, time\)"):
        LogMel()(torch.zeros(16000))
    with pytest.raises(ValueError, match=r"found \(2, 800\) and \(3,\)"):
        LogMel()(torch.zeros(2, 800), torch.ones(3))
    with pytest.raises(ValueError, match=r"found \(0, 800\)"):
        LogMel()(torch.zeros(0, 800))


def test_egemaps_is_opensmiles():
    opensmile = pytest.importorskip("opensmile", reason="the extra egemaps")
    smile = opensmile.Smile(
        opensmile.FeatureSet.eGeMAPSv02, opensmile.FeatureLevel.Functionals
    )
    counts = torch.tensor([16000, 9000])
    wavs = torch.full((2, 16000), 0.5)
    for i, n in enumerate(counts.tolist()):
        wavs[i, :n] = torch.from_numpy(speech(n, seed=i))
    features = EGeMAPS()
    found = features(wavs, counts / 16000)
    assert found.shape == (2, 88) and found.dtype == torch.float32
    for i, n in enumerate(counts.tolist()):
        table = smile.process_signal(wavs[i, :n].numpy(), 16000)
        assert list(table.columns) == features.names()
        np.testing.assert_array_equal(found[i], table.to_numpy()[0])


@pytest.mark.filterwarnings("ignore:Segment too short")
def test_egemaps_of_too_short_an_utterance_is_an_error():
    pytest.importorskip("opensmile", reason="the extra egemaps")
    wavs = torch.from_numpy(speech(16000)).float().repeat(2, 1)
    with pytest.raises(ValueError, match="utterance 1 of the batch, 160 samples"):
        EGeMAPS()(wavs, torch.tensor([1.0, 0.01]))


def test_without_opensmile_the_error_names_the_extra(monkeypatch):
    monkeypatch.setitem(sys.modules, "opensmile", None)
    _smile.cache_clear()
    with pytest.raises(ImportError, match=r"speechbrain_ser_cl\[egemaps\]"):
        EGeMAPS()(torch.zeros(1, 16000))
