"""A frozen encoder from the cache against the encoder itself."""

import pytest
import torch
from torch import nn

from speechbrain_ser_cl.backbones import WeightedSSL
from speechbrain_ser_cl.corpora import read_synthetic, write_synthetic
from speechbrain_ser_cl.nnet import (
    ClassifierHead,
    MeanPooling,
    SelfAttentionPooling,
    StatisticsPooling,
    UtteranceEncoder,
)
from speechbrain_ser_cl.training import (
    FrozenSSL,
    keep_frames,
    keep_pooled,
    keep_states,
    waveform,
)
from speechbrain_ser_cl.training.frozen import encode
from speechbrain_ser_cl.utils.audio import load_audio

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


def cached_batch(frozen, utterances, folder):
    cache = frozen.cache(folder)
    cache.fill(utterances, frozen.extract)
    return cache.batch([u.id for u in utterances])


@pytest.mark.parametrize("name", CONFIGS)
def test_means_give_what_the_encoder_gives(name, utterances, tmp_path):
    """Encoder, mean pooling, linear head: outputs and gradients are equal."""
    backbone, pooling = build(name), MeanPooling()
    torch.manual_seed(1)
    head = nn.Linear(16, 3)
    frozen = FrozenSSL(backbone, pooling)
    assert frozen.pooled
    layers, lengths = cached_batch(frozen, utterances, tmp_path)
    assert layers.shape == (len(utterances), 3, 16)
    assert layers.dtype == torch.float32

    direct = torch.cat(
        [head(pooling(backbone(load_audio(u.path)[None]))) for u in utterances]
    )
    cached = head(frozen(layers, lengths))
    torch.testing.assert_close(cached, direct, rtol=1e-5, atol=1e-6)
    (expected,) = torch.autograd.grad(direct.square().sum(), backbone.layer_weights)
    (found,) = torch.autograd.grad(cached.square().sum(), frozen.layer_weights)
    torch.testing.assert_close(found, expected, rtol=1e-4, atol=1e-6)


@pytest.mark.parametrize("name", CONFIGS)
@pytest.mark.parametrize(
    "pooling", [SelfAttentionPooling(16), StatisticsPooling(16), None]
)
def test_frames_give_what_the_encoder_gives(name, pooling, utterances, tmp_path):
    backbone = build(name)
    frozen = FrozenSSL(backbone, pooling)
    assert not frozen.pooled
    layers, lengths = cached_batch(frozen, utterances, tmp_path)
    assert layers.dim() == 4
    assert layers.dtype == torch.float16
    together = frozen(layers, lengths)
    for row, length, u in zip(together, lengths, utterances, strict=True):
        frames = backbone(load_audio(u.path)[None])
        assert frames.shape[1] == round(float(length) * layers.shape[2])
        if pooling is None:
            row, alone = row[: frames.shape[1]], frames[0]
        else:
            alone = pooling(frames)[0]
        torch.testing.assert_close(row, alone, rtol=1e-2, atol=2e-3)


class Squared(MeanPooling):
    """A mean pooling after a non-linearity."""

    def forward(self, x, lengths=None):
        return super().forward(x.square(), lengths)


def test_another_operation_before_the_mean_needs_frames(utterances, tmp_path):
    frozen = FrozenSSL(build(), Squared())
    assert not frozen.pooled
    layers, lengths = cached_batch(frozen, utterances, tmp_path)
    direct = Squared()(frozen._backbone[0](load_audio(utterances[0].path)[None]))[0]
    torch.testing.assert_close(frozen(layers, lengths)[0], direct, rtol=1e-2, atol=1e-3)


def test_the_key_is_what_decides_the_features(utterances, tmp_path):
    backbone = build()
    folder = FrozenSSL(backbone, MeanPooling()).cache(tmp_path).folder
    with torch.no_grad():
        backbone.layer_weights.normal_()  # not part of the stored values
    same = [FrozenSSL(b, MeanPooling()) for b in (backbone, build())]
    assert {frozen.cache(tmp_path).folder for frozen in same} == {folder}

    others = {folder, same[0].cache(tmp_path, revision="v2").folder}
    others.add(FrozenSSL(backbone).cache(tmp_path).folder)
    changed = build()
    with torch.no_grad():
        changed.encoder.model.layers[1].fc1.weight[3, 4] += 1e-3
    others.add(FrozenSSL(changed, MeanPooling()).cache(tmp_path).folder)
    other_heads = build()
    other_heads.encoder.model.config.encoder_attention_heads = 4  # the same weights
    others.add(FrozenSSL(other_heads, MeanPooling()).cache(tmp_path).folder)
    assert len(others) == 5


def test_frames_and_attention_share_a_cache(tmp_path):
    backbone = build()
    a = FrozenSSL(backbone, SelfAttentionPooling(16)).cache(tmp_path)
    b = FrozenSSL(backbone, StatisticsPooling(16)).cache(tmp_path)
    assert a.folder == b.folder


def test_training_on_the_cache_trains_the_backbone(utterances, tmp_path):
    """After training on the cache, the backbone itself gives the same output."""
    backbone, head = build(), ClassifierHead(16, n_classes=2)
    frozen = FrozenSSL(backbone, MeanPooling())
    layers, lengths = cached_batch(frozen, utterances, tmp_path)
    optimizer = torch.optim.Adam([*frozen.parameters(), *head.parameters()], lr=0.1)
    before = backbone.layer_weights.detach().clone()
    for _ in range(3):
        optimizer.zero_grad()
        labels = torch.arange(len(layers)) % 2
        nn.functional.cross_entropy(head(frozen(layers, lengths)), labels).backward()
        optimizer.step()
    assert not torch.equal(before, backbone.layer_weights)
    wav = load_audio(utterances[0].path)[None]
    with torch.no_grad():
        torch.testing.assert_close(
            frozen(layers, lengths)[0], MeanPooling()(backbone(wav))[0]
        )
    assert frozen.state_dict().keys() == {"layer_weights"}


def test_errors():
    with pytest.raises(ValueError, match="freeze='all'"):
        FrozenSSL(build(freeze=1), MeanPooling())
    with pytest.raises(ValueError, match=r"expected layers \(B, 3, D\)"):
        FrozenSSL(build(), MeanPooling())(torch.zeros(2, 4, 16))
    with pytest.raises(ValueError, match=r"expected layers \(B, 3, T, D\)"):
        FrozenSSL(build())(torch.zeros(2, 3, 16))


@pytest.mark.parametrize("pooling", [MeanPooling(), SelfAttentionPooling(16)])
def test_of_a_sum_of_some_layers_only_these_are_cached(pooling, utterances, tmp_path):
    backbone = build(layers=[0, 2])
    frozen = FrozenSSL(backbone, pooling)
    layers, lengths = cached_batch(frozen, utterances[:1], tmp_path)
    assert layers.shape[:2] == (1, 2)
    expected = pooling(backbone(load_audio(utterances[0].path)[None]))
    torch.testing.assert_close(frozen(layers, lengths), expected, rtol=1e-2, atol=1e-2)
    whole = FrozenSSL(build(), pooling)
    assert whole.cache(tmp_path).folder != frozen.cache(tmp_path).folder


@pytest.mark.parametrize(
    ("pooling", "layers"), [(MeanPooling, None), (StatisticsPooling, [1])]
)
@pytest.mark.parametrize("name", CONFIGS)
def test_pooled_layers_give_the_vector_of_the_encoder(
    name, pooling, layers, utterances, tmp_path
):
    encoder = UtteranceEncoder(build(name, layers=layers), pooling())
    wavs = [waveform(utterance)[None] for utterance in utterances]
    with torch.no_grad():
        expected = torch.cat([encoder(wav) for wav in wavs])
        read = keep_pooled(encoder, utterances, tmp_path)
        found = encoder(torch.stack([read(utterance) for utterance in utterances]))
    torch.testing.assert_close(found, expected, rtol=1e-4, atol=1e-5)
    found = encoder(torch.stack([read(utterance) for utterance in utterances]))
    found.square().sum().backward()
    assert encoder.backbone.layer_weights.grad is not None


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
    read = keep_states(backbone, utterances, tmp_path, dtype="float32")
    for utterance in utterances:
        states = read(utterance)
        assert states.shape[1:] == (2, 16)  # time first, layers 0 and 1
        wav = waveform(utterance)
        with torch.no_grad():
            ours, _ = encode(backbone, states[None], torch.ones(1))
            theirs, lengths = encode(backbone, wav[None], torch.ones(1))
        torch.testing.assert_close(ours, theirs, rtol=1e-4, atol=1e-5)
        assert lengths == 1


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
