"""A frozen encoder from the cache against the encoder itself."""

import pytest
import torch

from speechbrain_ser_cl.backbones import WeightedSSL
from speechbrain_ser_cl.corpora import read_synthetic, write_synthetic
from speechbrain_ser_cl.nnet import (
    MeanPooling,
    SelfAttentionPooling,
    StatisticsPooling,
    UtteranceEncoder,
)
from speechbrain_ser_cl.training import (
    keep_frames,
    keep_pooled,
    keep_states,
    waveform,
)

SMALL = {
    "hidden_size": 16,
    "num_hidden_layers": 2,
    "num_attention_heads": 2,
    "intermediate_size": 32,
    "conv_dim": [8] * 7,
    "num_conv_pos_embeddings": 16,
    "num_conv_pos_embedding_groups": 2,
}
CONFIGS = {
    "whisper": {
        "model_type": "whisper",
        "d_model": 16,
        "encoder_layers": 2,
        "encoder_attention_heads": 2,
        "encoder_ffn_dim": 32,
    },
    # Padding changes the output: only single utterances are comparable.
    "group norm": SMALL | {"model_type": "hubert", "feat_extract_norm": "group"},
    "layer norm": SMALL | {"model_type": "wav2vec2", "feat_extract_norm": "layer"},
}


def build(name="whisper", freeze="all", layers=None):
    torch.manual_seed(0)
    backbone = WeightedSSL(CONFIGS[name], freeze=freeze, layers=layers)
    with torch.no_grad():
        backbone.layer_weights.normal_()
    return backbone


@pytest.fixture(scope="module")
def utterances(tmp_path_factory):
    folder = tmp_path_factory.mktemp("corpus")
    return read_synthetic(
        write_synthetic(
            folder, "synthetic_source", n_speakers=2, utterances_per_speaker=4
        )
    )


@pytest.mark.parametrize(
    ("pooling", "layers"),
    [(MeanPooling, None), (MeanPooling, [0, 2]), (StatisticsPooling, [1])],
)
@pytest.mark.parametrize("name", CONFIGS)
def test_pooled_layers_give_the_vector_of_the_encoder(
    name, pooling, layers, utterances, tmp_path
):
    encoder = UtteranceEncoder(build(name, layers=layers), pooling())
    weights = encoder.backbone.layer_weights
    wavs = [waveform(utterance)[None] for utterance in utterances]
    expected = torch.cat([encoder(wav) for wav in wavs])
    read = keep_pooled(encoder, utterances, tmp_path)
    found = encoder(torch.stack([read(utterance) for utterance in utterances]))
    torch.testing.assert_close(found, expected, rtol=1e-4, atol=1e-5)
    gradients = [torch.autograd.grad(x.sum(), weights)[0] for x in (found, expected)]
    torch.testing.assert_close(*gradients, rtol=1e-4, atol=1e-4)


@pytest.mark.parametrize(
    ("pooling", "freeze"),
    [
        (StatisticsPooling(), "all"),
        (SelfAttentionPooling(16), "all"),
        (MeanPooling(), 1),
    ],
)
def test_pooled_layers_are_refused_where_frames_are_needed(
    pooling, freeze, utterances, tmp_path
):
    encoder = UtteranceEncoder(build(freeze=freeze), pooling)
    assert keep_pooled(encoder, utterances, tmp_path) is None
    assert encoder.reads == "waveform"
    assert not any(tmp_path.iterdir())


# Trained layers above frozen ones, and frames of a trained encoder


@pytest.fixture
def bf16():
    return torch.autocast("cpu", torch.bfloat16)


@pytest.mark.parametrize("name", CONFIGS)
def test_encoding_kept_states_is_encoding_waveforms(name, utterances, tmp_path):
    backbone = build(name, freeze=1).eval()
    encoder = UtteranceEncoder(backbone, StatisticsPooling())
    read = keep_states(backbone, utterances, tmp_path, dtype="float32")
    for utterance in utterances:
        states = read(utterance)
        assert states.shape[1:] == (2, 16)  # time first, layers 0 and 1
        wav = waveform(utterance)
        with torch.no_grad():
            encoder.reads = "states"
            ours = encoder(states[None], torch.ones(1))
            encoder.reads = "waveform"
            theirs = encoder(wav[None], torch.ones(1))
        torch.testing.assert_close(ours, theirs, rtol=1e-4, atol=1e-5)


def test_where_nothing_is_frozen_waveforms_are_read(utterances, tmp_path):
    for freeze in ("none", "frontend"):
        assert keep_states(build(freeze=freeze), utterances, tmp_path) is waveform
    assert not any(tmp_path.iterdir())


@pytest.mark.parametrize("freeze", ["frontend", 1, "all"])
def test_kept_frames_are_those_of_the_encoder(freeze, utterances, tmp_path):
    backbone = build(freeze=freeze).train()  # is put into evaluation mode
    read = keep_states(backbone, utterances, tmp_path / "states", dtype="float32")
    frames = keep_frames(
        backbone, utterances, tmp_path / "frames", read, dtype="float32"
    )
    for utterance in utterances:
        with torch.no_grad():
            expected = backbone(waveform(utterance)[None])[0]
        torch.testing.assert_close(frames(utterance), expected, rtol=1e-4, atol=1e-5)


def test_a_change_of_what_is_trained_computes_frames_but_not_states(
    utterances, tmp_path, bf16
):
    def folders():
        return {path.name for path in tmp_path.iterdir() if path.is_dir()}

    backbone = build(freeze=1)
    keep_states(backbone, utterances, tmp_path)
    states = folders()
    keep_frames(backbone, utterances, tmp_path)
    frames = folders()
    assert (len(states), len(frames)) == (1, 2)
    with torch.no_grad():
        next(backbone.encoder.model.layers[1].parameters()).add_(1)
    keep_states(backbone, utterances, tmp_path)
    assert folders() == frames
    keep_frames(backbone, utterances, tmp_path)
    assert len(folders()) == 3
    keep_frames(backbone, utterances, tmp_path, precision="bf16", context=bf16)
    assert len(folders()) == 4
