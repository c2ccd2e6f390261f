"""The papers' small encoders against plain PyTorch and their parameter counts."""

import copy

import numpy as np
import pytest
import torch
from speechbrain.lobes.features import VocalFeatures
from torch import nn
from torch.nn import functional as F

from speechbrain_ser_cl.backbones import (
    EGeMAPSMLP,
    MelCNN,
    PointwiseCNN,
    SpectrogramCRNN,
    VocalFunctionals,
    VocalMLP,
)
from speechbrain_ser_cl.backbones.masked_norm import MaskedBatchNorm
from speechbrain_ser_cl.backbones.spectrogram_crnn import _Put
from speechbrain_ser_cl.nnet import MeanPooling, length_mask
from speechbrain_ser_cl.nnet.heads import ClassifierHead
from speechbrain_ser_cl.registry import BACKBONES

WAV2VEC2 = {
    "model_type": "wav2vec2",
    "hidden_size": 32,
    "num_hidden_layers": 3,
    "num_attention_heads": 2,
    "intermediate_size": 64,
    "conv_dim": [32] * 7,
    "feat_extract_norm": "layer",
    "do_stable_layer_norm": True,
    "num_conv_pos_embeddings": 16,
    "num_conv_pos_embedding_groups": 2,
}
BUILD = {
    "spectrogram_crnn": lambda: SpectrogramCRNN(dropout=0, transformer_dropout=0),
    "mel_cnn": MelCNN,
    "pointwise_cnn": lambda: PointwiseCNN(WAV2VEC2),
    "pointwise_cnn of means": lambda: PointwiseCNN(
        WAV2VEC2, average=3, batch_norm=True
    ),
}


@pytest.fixture(params=sorted(BUILD))
def encoder(request):
    torch.manual_seed(0)
    return BUILD[request.param]()


def batch(*counts, longest=None, garbage=torch.nan):
    """Makes a padded batch of noise of several levels, and its relative lengths."""
    n_samples = longest or max(counts)
    wavs = torch.full((len(counts), n_samples), garbage)
    for i, n in enumerate(counts):
        generator = torch.Generator().manual_seed(i)
        wavs[i, :n] = (0.05 + 0.1 * i) * torch.randn(n, generator=generator)
    return wavs, torch.tensor(counts) / n_samples


def n_parameters(module):
    return sum(p.numel() for p in module.parameters() if p.requires_grad)


def in_millions(*modules):
    return round(sum(map(n_parameters, modules)) / 1e6, 3)


def test_counts_of_the_pairwise_cl_table():
    """Table 5 of Khaertdinov et al.: frozen encoders and heads; then both together."""
    pointwise, head = PointwiseCNN(), ClassifierHead(128, 4, hidden_size=128)
    assert (in_millions(pointwise), in_millions(head)) == (0.115, 0.017)
    assert in_millions(pointwise, head) == 0.132
    mel, head = MelCNN(), ClassifierHead(128, 4, hidden_size=192)
    assert (in_millions(mel), in_millions(head)) == (0.035, 0.026)
    assert in_millions(mel, head) == 0.061
    egemaps, head = EGeMAPSMLP(), ClassifierHead(128, 4, hidden_size=136)
    assert (in_millions(egemaps), in_millions(head)) == (0.011, 0.018)
    assert in_millions(egemaps, head) == 0.029


def test_counts_of_the_pairwise_cl_text():
    two_layers = EGeMAPSMLP(hidden_sizes=(256, 128))
    assert n_parameters(two_layers) == 88 * 256 + 256 + 256 * 128 + 128
    assert n_parameters(ClassifierHead(128, 4)) == 128 * 4 + 4
    for encoder in (PointwiseCNN(), MelCNN(), two_layers):
        assert encoder.output_size == 128


def test_the_frozen_encoder_is_not_trained():
    encoder = PointwiseCNN(WAV2VEC2)
    assert n_parameters(encoder) == 4 + 32 * 128 + 128 + 128 * 128 + 128
    encoder.train()
    wavs, lengths = batch(8000, 6000, garbage=0.0)
    encoder(wavs, lengths).sum().backward()
    for name, parameter in encoder.named_parameters():
        assert (parameter.grad is not None) == (".ssl." not in name), name
    torch.testing.assert_close(encoder(wavs), encoder(wavs), rtol=0, atol=0)


def test_counts_of_the_thesis_table():
    """Layer by layer from the printed sizes; the first GRU has 64 x 45 inputs."""
    expected = {
        "conv1": 64 * 41 * 21 + 64,
        "norm1": 2 * 64,
        "conv2": 64 * 64 * 21 * 11 + 64,
        "norm2": 2 * 64,
        "gru": sum(2 * 3 * 128 * (n_in + 128 + 2) for n_in in (64 * 45, 256)),
        "transformer": 4 * (256 * 256 + 256)  # attention
        + (256 * 512 + 512)
        + (512 * 256 + 256)
        + 4 * 256,
    }
    encoder = SpectrogramCRNN()
    found = {name: n_parameters(part) for name, part in encoder.named_children()}
    assert found == {"features": 0} | expected


def test_registered_names():
    for name, build in BUILD.items():
        assert BACKBONES.get(name.partition(" ")[0]) is type(build())
    assert BACKBONES.get("egemaps_mlp") is EGeMAPSMLP


class PlainCRNN(nn.Module):
    """The thesis' table in plain PyTorch."""

    def __init__(self, encoder):
        super().__init__()
        self.layers = nn.Sequential(
            nn.Conv2d(1, 64, (41, 21), 2),
            nn.BatchNorm2d(64),
            nn.Hardtanh(0, 20),
            nn.Conv2d(64, 64, (21, 11), 2),
            nn.BatchNorm2d(64),
            nn.Hardtanh(0, 20),
        ).double()
        names = {0: "conv1", 1: "norm1", 3: "conv2", 4: "norm2"}
        for i, name in names.items():
            self.layers[i].load_state_dict(getattr(encoder, name).state_dict())
        self.gru = copy.deepcopy(encoder.gru)
        self.transformer = copy.deepcopy(encoder.transformer)

    def forward(self, spectrograms):
        x = self.layers(spectrograms.mT.unsqueeze(1))  # (B, C, F, T)
        return self.transformer(self.gru(x.flatten(1, 2).mT)[0])


def test_rows_that_are_put_among_padding_have_a_gradient_when_compiled():
    rows, x = torch.tensor([0, 2, 3]), torch.randn(2, 3, 4, requires_grad=True)

    def put(x):
        return _Put.apply(x, rows, 5)

    torch.compiler.reset()
    y = torch.compile(put, backend="aot_eager")(x)
    outer = torch.randn(2, 5, 4)
    y.backward(outer)
    assert torch.equal(y[:, rows], x) and not y[:, [1, 4]].any()
    assert torch.equal(x.grad, outer[:, rows])


def test_the_crnn_is_the_plain_one():
    torch.manual_seed(0)
    encoder = SpectrogramCRNN(dropout=0, transformer_dropout=0).double()
    with torch.no_grad():
        for norm in (encoder.norm1, encoder.norm2):
            norm.weight.uniform_(0.5, 2)
            norm.bias.uniform_(-1, 2)
    plain = PlainCRNN(encoder)
    for n_frames in (66, 67):
        spectrograms = torch.randn(3, n_frames, 257, dtype=torch.float64) * 3 - 8
        for mode in (True, False):
            found = encoder.train(mode).encode(spectrograms)
            expected = plain.train(mode)(spectrograms)
            assert found.shape == expected.shape == (3, 7, 256)
            torch.testing.assert_close(found, expected)

    target = torch.randn_like(found)
    (encoder.train().encode(spectrograms) * target).sum().backward()
    (plain.train()(spectrograms) * target).sum().backward()
    for mine, its in ((encoder.conv1, 0), (encoder.conv2, 3)):
        torch.testing.assert_close(mine.weight.grad, plain.layers[its].weight.grad)
    for mine, its in ((encoder.norm1, 1), (encoder.norm2, 4)):
        torch.testing.assert_close(mine.weight.grad, plain.layers[its].weight.grad)
        torch.testing.assert_close(mine.running_var, plain.layers[its].running_var)
    for (name, mine), its in zip(
        encoder.gru.named_parameters(), plain.gru.parameters(), strict=True
    ):
        torch.testing.assert_close(mine.grad, its.grad, msg=name)


@pytest.mark.parametrize("momentum", [0.1, None])
@pytest.mark.parametrize("shape", [(), (3,)])
def test_batch_norm_counts_valid_frames_only(shape, momentum):
    torch.manual_seed(0)
    masked = MaskedBatchNorm(6, momentum=momentum).double()
    with torch.no_grad():
        masked.weight.uniform_(0.5, 2)
        masked.bias.uniform_(-1, 1)
    plain = nn.BatchNorm1d(6, momentum=momentum).double()
    plain.load_state_dict(masked.state_dict())
    for lengths in (torch.tensor([1.0, 0.4, 0.8]), torch.ones(3), None):
        x = torch.randn(3, 6, *shape, 5, dtype=torch.float64) * 3 + 1
        target = torch.randn_like(x)
        mask = torch.ones(3, 5, dtype=torch.bool)
        if lengths is not None:
            mask = length_mask(lengths, 5)
        x.movedim(-1, 1)[~mask] = 1e9
        x.requires_grad_()

        def valid(values, mask=mask):
            """Returns rows of channels of the valid frames only."""
            return values.movedim(-1, 1)[mask].movedim(1, -1).reshape(-1, 6)

        found = valid(masked(x, None if lengths is None else mask))
        expected = plain(valid(x))
        torch.testing.assert_close(found, expected)
        for name, value in plain.named_buffers():
            torch.testing.assert_close(masked.get_buffer(name), value)
        found_grads, expected_grads = (
            torch.autograd.grad((out * valid(target)).sum(), [x, *norm.parameters()])
            for out, norm in ((found, masked), (expected, plain))
        )
        torch.testing.assert_close(found_grads, expected_grads)
    masked.eval(), plain.eval()
    torch.testing.assert_close(valid(masked(x, mask)), plain(valid(x)))


def test_padding_is_invisible(encoder):
    """Alone, in a padded batch, in a longer one: equal frames. Padding is NaN."""
    counts = (24000, 16011, 7000, 3000)
    wavs, lengths = batch(*counts)
    encoder.train()
    encoder(wavs, lengths)  # Running statistics that differ from the initial ones.
    encoder.eval()
    together = encoder(wavs, lengths)
    n_frames = encoder.frame_lengths(lengths, wavs.shape[1]) * together.shape[1]
    longer, relative = batch(*counts, longest=40000)
    in_longer = encoder(longer, relative)
    for i, n in enumerate(n_frames.round().long()):
        alone = encoder(wavs[i : i + 1, : counts[i]])
        assert alone.shape == (1, n, encoder.output_size)
        for found in (together, in_longer):
            torch.testing.assert_close(found[i, :n], alone[0], rtol=1e-4, atol=1e-5)
    pooled = MeanPooling()(together, encoder.frame_lengths(lengths, wavs.shape[1]))
    assert pooled.isfinite().all()


def test_in_training_padding_does_not_move_the_statistics(encoder):
    counts = (24000, 16011, 7000)
    twin = copy.deepcopy(encoder).train()
    encoder.train()
    outs = []
    for module, longest in ((encoder, 24000), (twin, 40000)):
        wavs, lengths = batch(*counts, longest=longest)
        frames = module(wavs, lengths)
        valid = length_mask(module.frame_lengths(lengths, longest), frames.shape[1])
        outs.append(frames[valid])
        outs[-1].square().mean().backward()
    torch.testing.assert_close(*outs, rtol=1e-4, atol=1e-5)
    for (name, a), b in zip(encoder.named_parameters(), twin.parameters(), strict=True):
        if a.requires_grad:
            assert a.grad.isfinite().all()
            torch.testing.assert_close(a.grad, b.grad, rtol=1e-3, atol=1e-5, msg=name)
    for (name, a), b in zip(encoder.named_buffers(), twin.buffers(), strict=True):
        torch.testing.assert_close(a, b, rtol=1e-4, atol=1e-5, msg=name)


def test_hop_is_the_step_between_frames(encoder):
    wavs = torch.randn(1, 40 * encoder.hop)
    with torch.no_grad():
        shorter, longer = encoder(wavs[:, : 20 * encoder.hop]), encoder(wavs)
    assert longer.shape[1] - shorter.shape[1] == 20


def test_features_may_be_computed_before(encoder):
    encoder.eval()
    wavs, lengths = batch(16000, 12000, garbage=0.0)
    if isinstance(encoder, PointwiseCNN):
        kept = encoder.features(wavs, lengths)
        assert kept.shape[:2] == (2, 4)
        without_source = PointwiseCNN(
            input_size=32, n_layers=3, batch_norm=encoder.norm is not None
        ).eval()
        names = without_source.state_dict().keys()
        state = encoder.state_dict()
        without_source.load_state_dict({name: state[name] for name in names})
        found = without_source.encode(kept)
        in_half = without_source.encode(kept.half())
    else:
        kept = encoder.features(wavs, lengths)
        relative = encoder.features.frame_lengths(lengths, wavs.shape[1])
        found = encoder.encode(kept, relative)
        in_half = encoder.encode(kept.half(), relative)
    torch.testing.assert_close(found, encoder(wavs, lengths))
    torch.testing.assert_close(in_half, found, rtol=0.05, atol=0.05)


def test_bf16_autocast(encoder):
    wavs, lengths = batch(16000, 12000, garbage=0.0)
    encoder.train()
    encoder(wavs, lengths)
    encoder.eval()
    expected = encoder(wavs, lengths)
    with torch.autocast("cpu", torch.bfloat16):
        found = encoder(wavs, lengths)
        loss = encoder.train()(wavs, lengths).float().square().mean()
    loss.backward()
    error = (found.float() - expected).norm() / expected.norm()
    assert error < 0.05
    assert all(p.grad.isfinite().all() for p in encoder.parameters() if p.requires_grad)


def test_the_pointwise_cnn_is_its_formula():
    torch.manual_seed(0)
    encoder = PointwiseCNN(input_size=5, n_layers=2, channels=(4, 3)).double()
    with torch.no_grad():
        encoder.layer_weights.uniform_(-1, 1)
    hidden = torch.randn(2, 3, 7, 5, dtype=torch.float64)
    shares = encoder.layer_weights.exp() / encoder.layer_weights.exp().sum()
    x = (shares[:, None, None] * hidden).sum(dim=1)
    for linear in (encoder.layers[1], encoder.layers[4]):
        conv = nn.functional.conv1d(x.mT, linear.weight.unsqueeze(-1), linear.bias)
        x = conv.mT.clamp(min=0)
    torch.testing.assert_close(encoder.encode(hidden), x)
    torch.testing.assert_close(encoder.encode(iter(hidden.unbind(1))), x)


def test_the_mel_cnn_is_plain_convolutions_without_padding():
    torch.manual_seed(0)
    encoder = MelCNN()
    mels = torch.randn(4, 37, 64) * 2 - 5
    x = (mels - mels.mean((0, 1))) / (mels.var((0, 1), correction=0) + 1e-5).sqrt()
    x = x.mT
    for conv in encoder.convs:
        x = F.conv1d(x, conv.weight, stride=2, padding=1)
        x = F.batch_norm(x, None, None, training=True).clamp(min=0)
    torch.testing.assert_close(encoder.encode(mels), x.mT, rtol=1e-4, atol=1e-4)


def test_egemaps_mlp_standardises_by_the_mean_over_batches():
    torch.manual_seed(0)
    encoder = EGeMAPSMLP()
    batches = torch.randn(3, 8, 88) * 100 + 500
    for functionals in batches:
        encoder.encode(functionals)
    encoder.eval()
    mean = batches.mean((0, 1))
    std = batches.var(1).mean(0).sqrt()
    linear = encoder.layers[0]
    x = (batches[0] - mean) / std
    expected = (x @ linear.weight.T + linear.bias).clamp(min=0)
    torch.testing.assert_close(
        encoder.encode(batches[0]), expected, rtol=1e-4, atol=1e-4
    )
    one_by_one = torch.cat([encoder.encode(row[None]) for row in batches[0]])
    torch.testing.assert_close(one_by_one, expected, rtol=1e-4, atol=1e-4)


def test_egemaps_mlp_reads_waveforms():
    pytest.importorskip("opensmile", reason="the extra egemaps")
    encoder = EGeMAPSMLP().eval()
    wavs, lengths = batch(16000, 12000)
    alone = encoder(wavs[1:, :12000])
    torch.testing.assert_close(encoder(wavs, lengths)[1:], alone)
    assert alone.shape == (1, 128)


def test_means_of_frames_are_those_of_each_utterance():
    torch.manual_seed(0)
    encoder, wav = PointwiseCNN(WAV2VEC2, average=4), torch.randn(1, 8000)
    frames = torch.stack(list(encoder.ssl.hidden_states(wav)), dim=1)
    assert frames.shape[2] == 24
    expected = [part.mean(dim=2) for part in frames.split(4, dim=2)]
    found = encoder.features(wav)
    torch.testing.assert_close(found, torch.stack(expected, dim=2))
    shorter = encoder.features(wav[:, :3000])  # 9 frames: the last mean has one frame
    frames = torch.stack(list(encoder.ssl.hidden_states(wav[:, :3000])), dim=1)
    assert frames.shape[2] == 9 and shorter.shape[2] == 3
    torch.testing.assert_close(shorter[:, :, -1], frames[:, :, -1])


def test_vocal_functionals():
    """Compared with values computed from SpeechBrain's frames."""
    torch.manual_seed(0)
    wavs, lengths = batch(16000, 12000)
    features = VocalFunctionals()
    frames = VocalFeatures()(wavs[1:, :12000])[0].double().numpy()
    rows = [
        frames.mean(0),
        frames.std(0),
        *np.quantile(frames, [0.2, 0.5, 0.8], axis=0),
    ]
    found = features(wavs, lengths)
    assert found.shape == (2, 85) and features.output_size == 85
    np.testing.assert_allclose(found[1], np.concatenate(rows), rtol=1e-3, atol=1e-3)
    assert len(features.names()) == 85
    assert features.names()[:2] == ["f0 mean", "hnr mean"]
    with pytest.raises(ValueError, match="utterance 1 of the batch, 700 samples"):
        features(torch.randn(2, 1600), torch.tensor([1.0, 700 / 1600]))
    encoder = VocalMLP().eval()
    assert encoder(wavs, lengths).shape == (2, 128)
    assert BACKBONES.get("vocal_mlp") is VocalMLP


def test_errors():
    with pytest.raises(ValueError, match=r"SpectrogramCRNN expects .*\(B, time, 257\)"):
        SpectrogramCRNN().encode(torch.zeros(2, 257, 100))
    with pytest.raises(ValueError, match=r"MelCNN expects .*\(B, time, 64\)"):
        MelCNN().encode(torch.zeros(2, 80, 100))
    with pytest.raises(ValueError, match=r"EGeMAPSMLP expects .*\(B, 88\)"):
        EGeMAPSMLP().encode(torch.zeros(2, 25))
    with pytest.raises(
        ValueError, match=r"PointwiseCNN expects .*\(B, 13, time, 768\)"
    ):
        PointwiseCNN().encode(torch.zeros(2, 100, 768))
    with pytest.raises(ValueError, match="give it a source"):
        PointwiseCNN()(torch.zeros(2, 16000))


@pytest.mark.parametrize("dtype", [torch.float16, torch.bfloat16])
@pytest.mark.parametrize("name", [*BUILD, "vocal_mlp"])
def test_a_model_cast_to_half_precision_takes_the_same_waveforms(name, dtype):
    """Variances of functionals in Hz are too large for half precision."""
    torch.manual_seed(0)
    encoder = (BUILD | {"vocal_mlp": VocalMLP})[name]()
    wavs, lengths = batch(16000, 9000, garbage=0.0)
    encoder.train()(wavs, lengths)
    half = copy.deepcopy(encoder).to(dtype).eval()
    with torch.no_grad():
        frames, expected = half(wavs, lengths), encoder.eval()(wavs, lengths)
    assert frames.dtype == dtype
    assert (frames.float() - expected).norm() < 0.05 * expected.norm()
