"""Views: the trained part, and stored features."""

import copy

import numpy as np
import pytest
import soundfile
import torch

from speechbrain_ser_cl.backbones import MelCNN, PointwiseCNN, VocalMLP
from speechbrain_ser_cl.corpora import Utterance
from speechbrain_ser_cl.nnet import ClassifierHead, EmotionClassifier
from speechbrain_ser_cl.training import ViewFeatures, take_unusable
from speechbrain_ser_cl.training.views import (
    embed,
    from_scratch,
    keep_vectors,
    take_statistics,
    view_encoder,
)

WHISPER = {
    "model_type": "whisper",
    "d_model": 16,
    "encoder_layers": 2,
    "encoder_attention_heads": 2,
    "encoder_ffn_dim": 32,
}
ENCODERS = {
    "mel": MelCNN,
    "ssl": lambda: PointwiseCNN(WHISPER, average=4, batch_norm=True),
    "vocal": VocalMLP,
}


@pytest.fixture
def speech(tmp_path):
    """Makes noise of several lengths; the last two are silent and too short."""
    rng = np.random.default_rng(0)
    wavs = [rng.normal(0, 0.1, n) for n in (4000, 9000, 16000, 11111)]
    wavs += [np.full(16000, 0.3), rng.normal(0, 0.1, 900)]
    utterances = []
    for k, wav in enumerate(wavs):
        path = tmp_path / f"{k}.wav"
        soundfile.write(path, wav, 16000)
        about = {"session": None, "gender": None, "language": "en", "text_id": None}
        utterances.append(
            Utterance(f"u{k}", path, len(wav) / 16000, "c", "s", emotion="sad", **about)
        )
    return utterances


@pytest.mark.parametrize("name", ENCODERS)
def test_a_vector_depends_on_its_utterance_alone(name, speech, tmp_path):
    torch.manual_seed(0)
    encoder = ENCODERS[name]()
    features = ViewFeatures(encoder.features, tmp_path / "cache", dtype="float32")
    features.fill(speech)
    view = view_encoder(encoder).eval()
    ids = [f"u{k}" for k in range(4)]
    together = view(*features.batch(ids))
    alone = torch.cat([view(*features.batch([i])) for i in ids])
    torch.testing.assert_close(together, alone, rtol=1e-4, atol=1e-5)
    # It equals the exported model's output for the waveform.
    head = ClassifierHead(view.output_size, n_classes=2).eval()
    model = EmotionClassifier(view.backbone, [head], view.pooling)
    features.complete(model)
    for utterance, expected in zip(speech[:4], alone, strict=True):
        wav = torch.from_numpy(soundfile.read(utterance.path, dtype="float32")[0])
        logits, found = model(wav[None], embeddings=True)
        torch.testing.assert_close(found[0], expected, rtol=1e-4, atol=1e-4)
        torch.testing.assert_close(logits[0], head(found)[0])


def test_a_frozen_encoder_is_run_once(speech, tmp_path):
    torch.manual_seed(0)
    features = ViewFeatures(MelCNN().features, tmp_path / "cache", dtype="float32")
    features.fill(speech)
    encoder, ids = view_encoder(MelCNN()), ["u2", "u0", "u1"]
    expected = embed(encoder, features.batch, ids)
    read = keep_vectors(encoder, features.batch, ids)
    encoder.train()  # batch normalisation is no longer used
    torch.testing.assert_close(encoder(*read(["u1", "u2"])), expected[[2, 0]])
    assert not any(p.requires_grad for p in encoder.parameters())


def test_statistics_of_an_encoder_that_is_not_trained(speech, tmp_path):
    features = ViewFeatures(VocalMLP().features, tmp_path / "cache")
    features.fill(speech)
    trained = view_encoder(VocalMLP())
    encoder, ids = from_scratch(trained), [f"u{k}" for k in range(4)]
    weights = [view.backbone.layers[0].weight for view in (trained, encoder)]
    assert not torch.equal(*weights)
    take_statistics(encoder, features.batch, ids)
    mean = encoder.backbone.input_norm.running_mean
    expected = features.batch(ids)[0].mean(dim=0)
    torch.testing.assert_close(mean, expected, rtol=1e-4, atol=1e-4)


def test_the_pretrained_front_end_is_in_no_copy_and_no_checkpoint(tmp_path):
    encoder = PointwiseCNN(WHISPER)
    features = ViewFeatures(encoder.features, tmp_path / "cache")
    view = view_encoder(encoder)
    assert not any("ssl" in name for name in view.state_dict())
    copied = copy.deepcopy(view)
    model = features.complete(EmotionClassifier(copied.backbone, [], copied.pooling))
    assert model.encoder.backbone.ssl is features.front_end.ssl
    assert not any("ssl" in name for name in view.state_dict())


@pytest.mark.parametrize("processes", [1, 2])
def test_silent_short_and_failing_utterances_are_noted(
    speech, tmp_path, processes, caplog
):
    features = ViewFeatures(VocalMLP().features, tmp_path / "cache")
    features.fill(speech, processes=processes)
    assert features.unusable == {"u4": "silent", "u5": "too short"}
    assert take_unusable({"vocal": features}, speech) == {
        "u4": "vocal: silent",
        "u5": "vocal: too short",
    }
    assert "2 of 6 utterances: 1 silent, 1 too short (2: u4, u5)" in caplog.text
    x, _ = features.batch(["u0", "u1"])
    assert x.dtype == torch.float32 and x.shape == (2, 85)
    with pytest.raises(ValueError, match="is this the right corpus, or view"):
        features.fill(speech[3:])


class Picky(torch.nn.Module):
    calls = 0

    def forward(self, wavs):
        Picky.calls += 1
        if wavs.shape[1] == 9000:
            raise ValueError("openSMILE finds no functionals")
        if wavs.shape[1] == 4000:
            return wavs[:, :2] * torch.nan
        return wavs[:, :2]


def test_what_fails_is_not_tried_again(speech, tmp_path):
    for _ in range(2):
        features = ViewFeatures(Picky(), tmp_path / "cache", max_seconds=0.9)
        features.fill(speech[:4])
        assert features.unusable == {"u0": "failed", "u1": "failed"}
        assert Picky.calls == 4


def test_settings_have_caches_of_their_own(speech, tmp_path):
    def cache(encoder, **options):
        return ViewFeatures(encoder.features, tmp_path, **options).cache.folder

    torch.manual_seed(0)
    one = PointwiseCNN(WHISPER)
    folders = {
        cache(one),
        cache(one, max_seconds=15.0),
        cache(one, dtype="bfloat16"),
        cache(PointwiseCNN(WHISPER)),  # other weights
        cache(MelCNN()),
        cache(VocalMLP()),
    }
    assert len(folders) == 6
    assert cache(VocalMLP(hidden_sizes=(8,))) in folders  # trained parts have no effect
