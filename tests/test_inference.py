"""EmotionRecognizer: any audio, any batch, long files, the hub's cache."""

import os

import numpy as np
import pytest
import soundfile
import torch
from scipy.signal import resample_poly

from speechbrain_ser_cl import inference
from speechbrain_ser_cl.backbones import WeightedSSL
from speechbrain_ser_cl.cli import main
from speechbrain_ser_cl.inference import EmotionRecognizer
from speechbrain_ser_cl.model_folder import ModelError, write_model
from speechbrain_ser_cl.nnet import ClassifierHead, EmotionClassifier, MeanPooling
from speechbrain_ser_cl.utils.audio import AudioError

WHISPER = {
    "model_type": "whisper",
    "d_model": 16,
    "encoder_layers": 2,
    "encoder_attention_heads": 2,
    "encoder_ffn_dim": 32,
}
GROUP_NORM = {
    "model_type": "wav2vec2",
    "hidden_size": 16,
    "num_hidden_layers": 2,
    "num_attention_heads": 2,
    "intermediate_size": 32,
    "conv_dim": [8] * 7,
    "num_conv_pos_embeddings": 16,
    "num_conv_pos_embedding_groups": 2,
}
CLASSES = ["negative", "neutral", "positive"]


def classifier(config=WHISPER):
    torch.manual_seed(0)
    head = ClassifierHead(16, len(CLASSES))
    torch.nn.init.normal_(head.layers[1].weight)
    return EmotionClassifier(WeightedSSL(config), [head], MeanPooling(16))


@pytest.fixture(scope="module", params=[WHISPER, GROUP_NORM], ids=["whisper", "group"])
def recognizer(request):
    return EmotionRecognizer(classifier(request.param), CLASSES, device="cpu")


@pytest.fixture(scope="module")
def whisper():
    return EmotionRecognizer(classifier(), CLASSES, device="cpu")


def speech(seconds, seed=0, rate=16000):
    """Makes a gliding tone with noise, whose parts differ."""
    generator = np.random.default_rng(seed)
    time = np.arange(round(seconds * rate)) / rate
    tone = np.sin(2 * np.pi * (150 + 40 * seed + 30 * time) * time)
    return (0.3 * tone + 0.02 * generator.normal(size=len(time))).astype(np.float32)


def values(found):
    return np.array([list(one.probabilities.values()) for one in found])


def test_an_utterance_gets_the_same_alone_and_in_any_batch(recognizer, monkeypatch):
    signals = [speech(s, i) for i, s in enumerate([0.3, 2.0, 0.02, 1.1, 3.7])]
    together = values(recognizer.classify_batch(signals))
    embeddings = recognizer.encode_batch(signals)
    assert embeddings.shape == (5, 16)
    assert np.ptp(together, axis=0).min() > 0.001  # they differ
    np.testing.assert_allclose(together.sum(axis=1), 1, atol=1e-6)
    # The same by the formula, one by one.
    with torch.no_grad():
        for i, signal in enumerate(signals):
            logits = recognizer.model(torch.from_numpy(signal)[None])
            expected = logits.softmax(dim=1)[0]
            np.testing.assert_allclose(together[i], expected, atol=1e-6)
            (alone,) = recognizer.encode_batch([signal])
            torch.testing.assert_close(alone, embeddings[i], rtol=1e-4, atol=1e-5)
    backwards = values(recognizer.classify_batch(signals[::-1]))
    np.testing.assert_allclose(backwards[::-1], together, atol=1e-6)
    monkeypatch.setattr(inference, "BATCH_SECONDS", 4.0)
    np.testing.assert_allclose(
        values(recognizer.classify_batch(signals)), together, atol=1e-6
    )


def test_batches_hold_similar_lengths_and_little_padding(monkeypatch):
    monkeypatch.setattr(inference, "BATCH_SECONDS", 4.0)
    sizes = [16000 * s for s in (1, 9, 1, 2, 2, 1)]
    batches = list(inference._batches(sizes))
    assert batches == [[1], [3, 4], [0, 2, 5]]
    assert list(inference._batches([])) == []


def test_padded_batches_are_taken_as_in_speechbrain(whisper):
    signals = [speech(2.0), speech(1.0, 1)]
    padded = torch.zeros(2, 32000)
    for row, signal in zip(padded, signals, strict=True):
        row[: len(signal)] = torch.from_numpy(signal)
    lengths = torch.tensor([1.0, 0.5])
    found = whisper.classify_batch(padded, lengths)
    assert [one.end for one in found] == [2.0, 1.0]
    expected = values(whisper.classify_batch(signals))
    np.testing.assert_allclose(values(found), expected, atol=1e-6)


def test_files_of_any_rate_and_stereo_are_what_16_khz_mono_is(whisper, tmp_path):
    signal = speech(1.5)
    soundfile.write(tmp_path / "plain.wav", signal, 16000, subtype="FLOAT")
    expected = whisper.classify_file(tmp_path / "plain.wav")
    assert (expected.start, expected.end, expected.timeline) == (0.0, 1.5, ())
    np.testing.assert_allclose(
        values([expected]), values(whisper.classify_batch([signal])), atol=1e-6
    )
    noise = speech(1.5, 3)
    stereo = np.stack([signal + noise, signal - noise], axis=1)
    soundfile.write(tmp_path / "stereo.wav", stereo, 16000, subtype="FLOAT")
    fast = resample_poly(signal, 3, 1)
    soundfile.write(tmp_path / "48k.wav", fast, 48000, subtype="FLOAT")
    soundfile.write(tmp_path / "48k.flac", fast, 48000, subtype="PCM_16")
    for name, tolerance in (
        ("stereo.wav", 1e-6),
        ("48k.wav", 1e-2),
        ("48k.flac", 0.01),
    ):
        found = whisper.classify_file(tmp_path / name)
        assert found.end == pytest.approx(1.5, abs=1e-3)
        np.testing.assert_allclose(values([found]), values([expected]), atol=tolerance)
    # Arrays with another rate are processed like files.
    (array,) = whisper.classify_batch([fast], sample_rate=48000)
    found = whisper.classify_file(tmp_path / "48k.wav")
    np.testing.assert_allclose(values([array]), values([found]), atol=1e-6)


def test_long_files_have_a_time_line(whisper, tmp_path):
    assert whisper.max_seconds == 30.0
    long = np.concatenate([speech(17.0), speech(17.5, 5)])
    path = tmp_path / "long.wav"
    soundfile.write(path, long, 16000, subtype="FLOAT")
    found = whisper.classify_file(path)
    assert (found.start, found.end) == (0.0, 34.5)
    spans = [(window.start, window.end) for window in found.timeline]
    assert spans == [(float(s), s + 10.0) for s in (0, 5, 10, 15, 20)] + [(24.5, 34.5)]
    np.testing.assert_allclose(
        values([found])[0], values(found.timeline).mean(axis=0), atol=1e-6
    )
    pieces = [long[round(16000 * a) : round(16000 * b)] for a, b in spans]
    expected = values(whisper.classify_batch(pieces))
    np.testing.assert_allclose(values(found.timeline), expected, atol=1e-6)
    assert all(window.timeline == () for window in found.timeline)

    found = whisper.classify_file(path, window=15.0, hop=15.0)
    assert [w.start for w in found.timeline] == [0.0, 15.0, 19.5]
    plain = found.as_dict()
    assert plain["timeline"][1]["start"] == 15.0
    assert plain["emotion"] in CLASSES
    # One window that contains the whole file.
    short = tmp_path / "short.wav"
    soundfile.write(short, speech(0.5), 16000)
    assert whisper.classify_file(short, window=1.0).end == 0.5
    assert whisper.classify_file(short, window=1.0).timeline == ()


def test_encoders_without_a_limit_take_a_minute():
    recognizer = EmotionRecognizer(classifier(GROUP_NORM), CLASSES, device="cpu")
    assert recognizer.max_seconds == 60.0
    assert inference.window_spans(16000 * 60, 60.0) == [(0, 960000)]
    assert len(inference.window_spans(16000 * 60 + 1, 60.0)) == 12


def test_a_broken_file_does_not_keep_others_from_being_classified(whisper, tmp_path):
    for name in "ac":
        soundfile.write(tmp_path / f"{name}.wav", speech(0.4), 16000)
    (tmp_path / "b.wav").write_bytes(b"RIFF")
    paths = [tmp_path / f"{name}.wav" for name in "abc"] + [tmp_path / "none.wav"]
    found = list(whisper.classify_files(paths))
    assert [path for path, _ in found] == paths
    assert [isinstance(result, AudioError) for _, result in found] == [0, 1, 0, 1]
    assert str(found[3][1]) == f"{paths[3]}: there is no such file"
    with pytest.raises(AudioError, match="b.wav: not a readable audio file"):
        whisper.classify_file(paths[1])


@pytest.mark.parametrize(
    ("wavs", "match"),
    [
        ([np.zeros((2, 100), np.float32)], r"shape \(2, 100\).*average channels"),
        ([np.zeros(100, np.int16)], "of int16.*divide"),
        ([np.zeros(0)], "waveform 0 is empty"),
        (
            [np.zeros(100), np.full(100, np.nan)],
            "waveform 1 is empty, or has values that are not",
        ),
        ([np.zeros(16000 * 31)], "31.00 s long, and the encoder takes 30 s"),
    ],
)
def test_what_is_no_waveform_is_refused(whisper, wavs, match):
    with pytest.raises(AudioError, match=match):
        whisper.classify_batch(wavs)


@pytest.mark.parametrize(
    ("options", "match"),
    [
        ({"window": 31.0}, "window is 31.0 s, expected from 0.1 to 30 s"),
        ({"window": 0.0}, "window is 0.0 s"),
        ({"window": 2.0, "hop": 3.0}, "hop is 3.0 s"),
        ({"window": 2.0, "hop": 0.0}, "hop is 0.0 s"),
        ({"hop": 1.0}, "no window"),
    ],
)
def test_windows_out_of_range_are_refused(whisper, options, match):
    with pytest.raises(ValueError, match=match):
        list(whisper.classify_files([], **options))


def test_no_files_give_no_results(whisper):
    assert whisper.classify_batch([]) == []
    assert len(whisper.encode_batch([])) == 0
    assert list(whisper.classify_files([])) == []


def test_a_device_that_is_not_there_is_an_error():
    with pytest.raises(ValueError, match="device 'nonsense' cannot be used"):
        EmotionRecognizer(classifier(), CLASSES, device="nonsense")


def test_a_folder_and_the_hubs_cache_give_the_same(whisper, tmp_path, monkeypatch):
    """The hub's cache is created by hand: nothing is downloaded."""
    import huggingface_hub

    commit = "0123456789abcdef0123456789abcdef01234567"
    repository = tmp_path / "cache" / "models--somebody--emotions"
    snapshot = repository / "snapshots" / commit
    write_model(snapshot, whisper.model, CLASSES)
    (repository / "refs").mkdir()
    (repository / "refs" / "main").write_text(commit)
    monkeypatch.setattr(huggingface_hub.constants, "HF_HUB_OFFLINE", True)

    signal = speech(1.0)
    expected = values(whisper.classify_batch([signal]))
    for source, revision in (
        (snapshot, None),
        ("somebody/emotions", None),
        ("somebody/emotions", commit),
    ):
        loaded = EmotionRecognizer.from_pretrained(
            source, revision, device="cpu", cache_folder=tmp_path / "cache"
        )
        assert loaded.class_names == CLASSES
        found = values(loaded.classify_batch([signal]))
        np.testing.assert_allclose(found, expected, atol=1e-6)
    for source in ("somebody/unknown", "no_such_folder", "../x/y/z", "/no/such"):
        with pytest.raises(ModelError, match=f"no folder {source}"):
            EmotionRecognizer.from_pretrained(
                source, cache_folder=tmp_path / "cache", device="cpu"
            )


@pytest.mark.gpu
@pytest.mark.skipif(not torch.cuda.is_available(), reason="no CUDA device here")
@pytest.mark.parametrize("config", [WHISPER, GROUP_NORM], ids=["whisper", "group"])
def test_a_gpu_gives_what_the_cpu_gives(config):
    signals = [speech(s, i) for i, s in enumerate([0.3, 2.0, 0.02, 1.1, 3.7])]
    on_cpu = EmotionRecognizer(classifier(config), CLASSES, device="cpu")
    expected = values(on_cpu.classify_batch(signals))
    on_gpu = EmotionRecognizer(classifier(config), CLASSES)
    assert on_gpu.device.type == "cuda"
    found = values(on_gpu.classify_batch(signals))
    np.testing.assert_allclose(found, expected, atol=1e-4)
    assert on_gpu.encode_batch(signals).device.type == "cpu"


def test_silence_is_reported(whisper, tmp_path):
    soundfile.write(tmp_path / "silent.wav", np.zeros(16000), 16000)
    soundfile.write(tmp_path / "half.wav", np.r_[np.zeros(8000), speech(0.5)], 16000)
    silent, half = (
        whisper.classify_file(tmp_path / f"{n}.wav", 0.5, 0.5)
        for n in ("silent", "half")
    )
    assert silent.silent and all(window.silent for window in silent.timeline)
    assert not half.silent
    assert [window.silent for window in half.timeline] == [True, False]
    assert half.as_dict()["timeline"][0]["silent"]


def test_an_output_that_is_not_finite_is_no_result(tmp_path):
    model = classifier()
    recognizer = EmotionRecognizer(model, CLASSES, device="cpu")
    model.head.heads[0].layers[1].weight.data.fill_(torch.nan)
    soundfile.write(tmp_path / "a.wav", speech(0.5), 16000)
    ((path, result),) = recognizer.classify_files([tmp_path / "a.wav"])
    assert isinstance(result, AudioError) and "a.wav: the model's output" in str(result)
    with pytest.raises(AudioError, match="not finite"):
        recognizer.classify_batch([speech(0.5)])


def test_lengths_in_samples_are_refused(whisper):
    with pytest.raises(ValueError, match=r"must be in \(0, 1\], found 16000"):
        whisper.classify_batch(torch.zeros(1, 16000), torch.tensor([16000.0]))


def test_predict_takes_any_name_and_says_what_is_silent(whisper, tmp_path, capsys):
    write_model(tmp_path / "model", whisper.model, CLASSES)
    soundfile.write(tmp_path / "a.wav", np.zeros(16000), 16000)
    odd = tmp_path / os.fsdecode(b"\xff.wav")
    (tmp_path / "a.wav").rename(odd)
    for form in ("table", "csv", "json"):
        command = [
            "predict",
            str(odd),
            str(tmp_path),
            "--format",
            form,
            "--device",
            "cpu",
        ]
        assert main([*command, "--model", str(tmp_path / "model")]) == 1
        told = capsys.readouterr()
        assert "udcff.wav" in told.out
        assert "udcff.wav: silent" in told.err
        assert f"{tmp_path}: this is a folder" in told.err
