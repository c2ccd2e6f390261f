"""The built-in demo corpora."""

import hashlib
import json

import numpy
import pytest
import soundfile
from scipy import signal
from sklearn.linear_model import LogisticRegression
from sklearn.metrics import recall_score
from sklearn.model_selection import GroupKFold, cross_val_predict
from sklearn.pipeline import make_pipeline
from sklearn.preprocessing import StandardScaler

from speechbrain_ser_cl.corpora import CorpusError, read_synthetic, write_synthetic
from speechbrain_ser_cl.corpora.synthetic import CONTENTS

SMALL = {"n_speakers": 2, "utterances_per_speaker": 4}


def digests(folder):
    return {
        path.relative_to(folder): hashlib.sha256(path.read_bytes()).hexdigest()
        for path in folder.rglob("*.*")
    }


def test_the_same_bit_for_bit(tmp_path):
    a, b, other, smaller = (
        write_synthetic(tmp_path / name, "synthetic_source", **settings)
        for name, settings in {
            "a": {"seed": 7, **SMALL},
            "b": {"seed": 7, **SMALL},
            "other": {"seed": 8, **SMALL},
            "smaller": {"seed": 7, "n_speakers": 1, "utterances_per_speaker": 2},
        }.items()
    )
    assert digests(a) == digests(b)
    # The labels are those of any seed.
    one, two = (
        {d for path, d in digests(folder).items() if path.name != "labels.csv"}
        for folder in (a, other)
    )
    assert not one & two
    # More speakers or utterances do not change the first ones.
    wavs = {path: d for path, d in digests(smaller).items() if path.suffix == ".wav"}
    assert len(wavs) == 2
    assert wavs.items() <= digests(a).items()


def test_utterances(tmp_path):
    folder = write_synthetic(tmp_path, "synthetic_target", n_speakers=4)
    utterances = read_synthetic(folder)
    assert len(utterances) == 80
    assert len({u.id for u in utterances}) == 80
    for emotion in ("neutral", "happy", "sad", "angry"):
        assert sum(u.emotion == emotion for u in utterances) == 20
    assert len({u.speaker for u in utterances}) == 4
    assert len({(u.speaker, u.gender) for u in utterances}) == 4
    assert {u.session for u in utterances} == {
        "synthetic_target_session1",
        "synthetic_target_session2",
    }
    assert {u.corpus for u in utterances} == {"synthetic_target"}
    for u in utterances:
        info = soundfile.info(u.path)
        assert (info.samplerate, info.channels, info.subtype) == (16000, 1, "PCM_16")
        assert 1.0 <= u.duration <= 2.5
        samples, _ = soundfile.read(u.path)
        assert samples.std() > 0.001
        assert abs(samples).max() < 0.999


def test_a_complete_folder_is_left_as_it_is(tmp_path):
    write_synthetic(tmp_path, "synthetic_source", **SMALL)
    times = {path: path.stat().st_mtime_ns for path in tmp_path.rglob("*")}
    write_synthetic(tmp_path, "synthetic_source", **SMALL)
    assert times == {path: path.stat().st_mtime_ns for path in tmp_path.rglob("*")}


def test_an_incomplete_folder_is_completed(tmp_path):
    write_synthetic(tmp_path, "synthetic_source", **SMALL)
    before = digests(tmp_path)
    next((tmp_path / "wav").iterdir()).unlink()
    with pytest.raises(CorpusError, match="missing audio files .1: "):
        read_synthetic(tmp_path)
    with pytest.warns(UserWarning, match="continuing with 7"):
        assert len(read_synthetic(tmp_path, allow_missing=True)) == 7
    write_synthetic(tmp_path, "synthetic_source", **SMALL)
    assert digests(tmp_path) == before


def test_other_settings_replace_what_is_there(tmp_path):
    write_synthetic(tmp_path, "synthetic_source", **SMALL)
    write_synthetic(tmp_path, "synthetic_target", n_speakers=1)
    assert (
        len(list((tmp_path / "wav").iterdir())) == len(read_synthetic(tmp_path)) == 20
    )
    assert json.loads((tmp_path / CONTENTS).read_text())["settings"]["n_speakers"] == 1


def test_interrupted_writing_leaves_no_corpus(tmp_path, monkeypatch):
    written = []

    def write_three_files(*args, real=soundfile.write, **kwargs):
        if len(written) == 3:
            raise KeyboardInterrupt
        written.append(args)
        real(*args, **kwargs)

    with monkeypatch.context() as patch, pytest.raises(KeyboardInterrupt):
        patch.setattr(soundfile, "write", write_three_files)
        write_synthetic(tmp_path, "synthetic_source", **SMALL)
    assert len(list((tmp_path / "wav").iterdir())) == 3
    with pytest.raises(CorpusError, match="Looked for corpus.json"):
        read_synthetic(tmp_path)
    assert len(read_synthetic(write_synthetic(tmp_path, "synthetic_source", **SMALL)))


def test_errors(tmp_path):
    with pytest.raises(ValueError, match="only synthetic_source, synthetic_target"):
        write_synthetic(tmp_path, "emodb")
    with pytest.raises(ValueError, match="n_speakers 0"):
        write_synthetic(tmp_path, "synthetic_source", n_speakers=0)


def mel_filters(bands=24, fft=512, rate=16000):
    def hertz(mel):
        return 700 * (10 ** (mel / 2595) - 1)

    edges = hertz(numpy.linspace(0, 2595 * numpy.log10(1 + 7600 / 700), bands + 2))
    bins = numpy.fft.rfftfreq(fft, 1 / rate)
    low, mid, high = edges[:-2, None], edges[1:-1, None], edges[2:, None]
    rising, falling = (bins - low) / (mid - low), (high - bins) / (high - mid)
    return numpy.clip(numpy.minimum(rising, falling), 0, None)


def statistics(utterance):
    """Computes mean and standard deviation over time of the log-mel spectrum: (48,)."""
    samples, rate = soundfile.read(utterance.path)
    _, _, spectrum = signal.stft(samples, rate, nperseg=400, noverlap=240, nfft=512)
    mel = numpy.log(mel_filters() @ abs(spectrum) ** 2 + 1e-10)
    return numpy.concatenate([mel.mean(axis=1), mel.std(axis=1)])


def test_emotion_is_learnable_and_there_is_a_domain_gap(tmp_path):
    """For other seeds: 86 to 98 % within a corpus, 62 to 82 % from source to target."""
    classifier = make_pipeline(StandardScaler(), LogisticRegression(C=0.1))
    data = {}
    for corpus in ("synthetic_source", "synthetic_target"):
        utterances = read_synthetic(write_synthetic(tmp_path / corpus, corpus))
        x = numpy.stack([statistics(u) for u in utterances])
        y = numpy.array([u.emotion in ("sad", "angry") for u in utterances])
        speakers = [u.speaker for u in utterances]
        folds = GroupKFold(4)
        guess = cross_val_predict(classifier, x, y, groups=speakers, cv=folds)
        within = recall_score(y, guess, average="macro")
        assert 0.78 < within < 0.99
        data[corpus] = x, y, within
    x, y, within = data["synthetic_target"]
    guess = classifier.fit(*data["synthetic_source"][:2]).predict(x)
    across = recall_score(y, guess, average="macro")
    assert 0.55 < across < 0.85
    assert across < within - 0.08
